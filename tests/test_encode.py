"""Contract: a vector depends on curve and checkpoint alone; every shard is encoded once."""

import numpy as np
import pytest
import torch
from small_surveys import add, light

from skyvec import batches, checkpoint, encode, store
from skyvec.schema import LightCurves

pytestmark = pytest.mark.usefixtures("one_thread")
GRIDCONV = {"model": {"name": "gridconv", "latent": 4, "width": 16}}


@pytest.fixture
def survey(tmp_path):
    sky = tmp_path / "sky"
    add(sky, [f"a{i}" for i in range(30)], [0, 1, 2, *range(30, 57)], flat=(5,))
    add(sky, [f"b{i}" for i in range(20)], [100] * 20, seed=1)
    add(sky, [], [])
    full = checkpoint.complete(GRIDCONV, ("g", "r"))
    weights = checkpoint.build(full).state_dict()
    checkpoint.save(store.model_folder(sky, "m"), full, weights, {})
    return sky


@pytest.fixture
def model(survey):
    return checkpoint.load(store.model_folder(survey, "m"))


def test_every_segment_gets_one_row_in_the_order_of_the_objects(survey, model):
    calls = []
    assert encode.encode(survey, "m", progress=lambda *seen: calls.append(seen)) == 50
    latents = store.read_latents(survey, "m")
    assert latents.id.tolist() == store.read_catalog(survey).id.tolist()
    assert latents.vectors.shape == (50, 4) and latents.model_hash == model.hash
    assert np.isnan(latents.error[0]) and np.isfinite(latents.error[1:]).all()
    assert not latents.vectors[0].any()
    assert calls[-1] == (50, 50) and [c[0] for c in calls] == sorted(c[0] for c in calls)


def test_a_vector_is_the_same_alone_in_chunks_and_in_any_order(survey, model, monkeypatch):
    _, curves = store.read_objects(survey, "part-00000.parquet")
    together, error = encode.encode_curves(model, curves)
    for i in (1, 2, 5, 20):
        alone, alone_error = encode.encode_curves(model, curves.take(np.array([i])))
        np.testing.assert_allclose(alone[0], together[i], atol=1e-5)
        np.testing.assert_allclose(alone_error[0], error[i], atol=1e-5)
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_allclose(
        encode.encode_curves(model, curves.take(order))[0], together[order], atol=1e-5
    )
    monkeypatch.setattr(encode, "CHUNK_POINTS", 70)
    encode.encode(survey, "m")
    np.testing.assert_allclose(store.read_latents(survey, "m").vectors[:30], together, atol=1e-5)


def test_only_what_is_new_is_encoded(survey):
    assert encode.encode(survey, "m") == 50
    assert encode.encode(survey, "m") == 0
    add(survey, ["c0", "c1"], [30, 40], seed=3)
    assert encode.encode(survey, "m") == 2
    manifest = store.read_manifest(store.latents_folder(survey, "m"))
    manifest["shards"][1]["objects_sha256"] = "of another file"
    store.write_manifest(store.latents_folder(survey, "m"), manifest)
    (store.latents_folder(survey, "m") / ".writing-1-part-00009.parquet").write_bytes(b"half")
    assert encode.encode(survey, "m") == 20
    assert len(store.read_latents(survey, "m")) == 52
    assert not list(store.latents_folder(survey, "m").glob(".writing-*"))


def test_another_model_under_the_same_name_is_refused(survey, model):
    encode.encode(survey, "m")
    weights = {key: value + 1 for key, value in model.model.state_dict().items()}
    checkpoint.save(store.model_folder(survey, "m"), model.recipe, weights, {})
    with pytest.raises(store.StoreError, match="latents of another model"):
        encode.encode(survey, "m")
    with pytest.raises(checkpoint.CheckpointError, match="no model 'n'"):
        encode.encode(survey, "n")


def test_threads_are_put_back(survey):
    before = torch.get_num_threads()
    encode.encode(survey, "m", threads=before + 1)
    assert torch.get_num_threads() == before


def test_error_is_the_mean_residual_at_the_points(model):
    curves = light(["a", "b"], [50, 60])
    unrounded = {**model.recipe, "data": {**model.recipe["data"], "round_days": 0.0}}
    model = checkpoint.Checkpoint("m", model.model, unrounded, {}, "")
    _, error = encode.encode_curves(model, curves)
    back = encode.reconstruct(model, curves)
    for i in range(2):
        part = slice(curves.offsets[i], curves.offsets[i + 1])
        flux, band = curves.flux[part].astype(float), curves.band[part]
        residual = np.zeros(len(flux))
        for code in (0, 1):
            mine = band == code
            z = (flux[mine] - flux[mine].mean()) / flux[mine].std()
            residual[mine] = np.abs(z - back.value[part][mine])
            scaled = back.value[part][mine] * flux[mine].std() + flux[mine].mean()
            np.testing.assert_allclose(back.flux[part][mine], scaled, rtol=1e-5)
        assert error[i] == pytest.approx(residual.mean(), abs=1e-4)


def test_reconstruction_stands_at_the_curves_own_points_in_any_batch(model):
    curves = light([f"a{i}" for i in range(7)], [30, 0, 80, 10, 30, 1, 50])
    back = encode.reconstruct(model, curves)
    assert back.flux.shape == curves.mjd.shape and np.isfinite(back.flux).all()
    for i in (0, 2, 5):
        part = slice(curves.offsets[i], curves.offsets[i + 1])
        alone = encode.reconstruct(model, curves.take(np.array([i])))
        np.testing.assert_allclose(alone.value, back.value[part], atol=1e-4)


def test_points_in_bands_the_model_does_not_know_are_left_out(model):
    curves = light(["a", "b"], [40, 40], bands=("r", "u", "g"))
    back = encode.reconstruct(model, curves)
    assert np.isnan(back.flux[curves.band == 1]).all()
    assert np.isfinite(back.flux[curves.band != 1]).all()
    vectors, _ = encode.encode_curves(model, curves)
    known = curves.band != 1
    offsets = np.concatenate([[0], np.cumsum(known)])[curves.offsets].astype(np.int64)
    without = LightCurves(
        curves.id,
        offsets,
        curves.mjd[known],
        curves.flux[known],
        curves.flux_err[known],
        np.where(curves.band[known] == 0, 1, 0).astype(np.int16),
        ("g", "r"),
    )
    np.testing.assert_array_equal(encode.encode_curves(model, without)[0], vectors)
    with pytest.raises(ValueError, match="the curves have the bands u, but g, r is wanted"):
        encode.encode_curves(model, light(["a"], [9], bands=("u",)))


@pytest.mark.parametrize("name", ["statistics", "features"])
def test_a_baseline_is_fitted_once_and_stored_like_a_model(survey, name):
    if name == "features":
        pytest.importorskip("light_curve")
    assert encode.encode(survey, name) == 50
    latents = store.read_latents(survey, name)
    assert latents.vectors[30:].any(axis=1).all() and np.isnan(latents.error).all()
    fitted = checkpoint.load(store.model_folder(survey, name))
    assert fitted.hash == latents.model_hash
    add(survey, ["c0", "c1"], [30, 40], seed=3)
    assert encode.encode(survey, name) == 2
    assert checkpoint.load(store.model_folder(survey, name)).hash == fitted.hash
    _, curves = store.read_objects(survey, "part-00001.parquet")
    np.testing.assert_allclose(
        encode.encode_curves(fitted, curves)[0], latents.vectors[30:], atol=1e-5
    )
    with pytest.raises(ValueError, match="is a baseline and cannot decode"):
        encode.reconstruct(fitted, curves)


def test_a_baseline_is_fitted_on_the_train_split_alone(survey, tmp_path):
    encode.fit_baseline(survey, "statistics")
    parts = batches.split(store.read_catalog(survey).target)
    other = tmp_path / "other"
    for file, (catalog, curves) in enumerate(
        store.read_objects(survey, shard["file"]) for shard in store.object_shards(survey)
    ):
        rows = np.flatnonzero(parts[30 * file :][: len(catalog)] == "train")
        store.create_survey(other)
        store.append_objects(
            other, catalog.take(rows), curves.take(rows), np.full(len(rows), "here")
        )
    encode.fit_baseline(other, "statistics")
    ours, theirs = (
        (store.model_folder(sky, "statistics") / checkpoint.WEIGHTS).read_bytes()
        for sky in (survey, other)
    )
    assert ours == theirs


def test_an_unknown_baseline_or_too_little_to_fit_is_an_error(survey, tmp_path):
    with pytest.raises(ValueError, match="no baseline 'pca'; choose from statistics, features"):
        encode.fit_baseline(survey, "pca")
    add(tmp_path / "two", ["a", "b"], [4, 5])
    with pytest.raises(ValueError, match="fewer than 2 curves of the train split"):
        encode.fit_baseline(tmp_path / "two", "statistics")
