"""Contract and simulated sky: images from files to latents and answers, as light curves go."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner

from skyvec import batches, checkpoint, encode, store, train
from skyvec.analysis import transfer
from skyvec.checkpoint import Training
from skyvec.cli import app
from skyvec.ingest import ingest
from skyvec.nn.frames import Frames
from skyvec.report import answers, galleries, images
from skyvec.report.html import report
from skyvec.report.queries import read_queries
from skyvec.report.searching import search
from skyvec.schema import Catalog, Images, Latents
from skyvec.studies import adaptation, sweep

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 24


def discs(n, *, seed=0, blur=0.0, noise=0.2, scale=1.0):
    """Round, flat and double blobs: three classes that a code should know."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    kind = np.arange(n) % 3
    pixels = np.empty((n, 2, SIDE, SIDE), np.float32)
    for i, k in enumerate(kind):
        angle = rng.uniform(0, np.pi)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        size = rng.uniform(2.5, 3.5) + blur
        flat = 3.5 if k == 1 else 1.0
        light = np.exp(-((u / size) ** 2 + (v * flat / size) ** 2) / 2)
        if k == 2:
            light = light + np.exp(-(((u - 6) / 2) ** 2 + (v / 2) ** 2) / 2)
        pixels[i] = scale * 30 * light * np.array([1.0, 0.7 + 0.1 * k])[:, None, None]
    grain = np.random.default_rng(seed + 99).normal(size=pixels.shape)
    return kind, (pixels + scale * noise * grain).astype(np.float32)


def add(survey, pixels, kind, *, prefix="g", labels=("round", "flat", "double"), first=0, **more):
    store.create_survey(survey)
    n = len(pixels)
    ids = np.array([f"{prefix}{first + i}" for i in range(n)])
    target = np.array([f"GAL {first + i}" for i in range(n)])
    nan = np.full(n, np.nan)
    columns = {"label": np.array(labels)[kind], **more}
    made = Images(ids, pixels, ("g", "r"), 0.3, "nJy")
    store.append_objects(survey, Catalog(ids, target, nan, nan, columns), made, np.full(n, "here"))


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "sky"
    kind, pixels = discs(120)
    pixels[5, :, 3:6, 4] = np.nan
    add(folder, pixels[:70], kind[:70])
    add(folder, pixels[70:], kind[70:], first=70)
    return folder


def recipe(name="logpolar", *, size=SIDE, **settings):
    model = {"name": name, "latent": 6, "width": 16}
    return {
        "data": {"size": size},
        "model": model | ({"rings": 8, "angles": 16} if name == "logpolar" else {}),
        "train": {"steps": 4, "batch": 16, "validate_every": 2, "lr": 1e-3, **settings},
    }


@pytest.fixture(scope="module")
def trained(survey):
    torch.set_num_threads(1)
    train.train(survey, recipe(steps=12, validate_every=6), "m")
    encode.encode(survey, "m")
    return survey


def test_the_data_table_is_the_arguments_of_image_training_set():
    import inspect

    wanted = dict(inspect.signature(batches.image_training_set).parameters)
    del wanted["survey"]
    ours = inspect.signature(checkpoint.ImageData).parameters
    assert [(p.name, p.default, p.annotation) for p in ours.values()] == [
        (p.name, p.default, p.annotation) for p in wanted.values()
    ]


def test_what_is_trained_on_depends_on_ids_alone(survey, tmp_path):
    pixels, ids, parts = batches.image_training_set(survey, images=40, size=12)
    assert pixels.shape == (40, 2, 12, 12) and np.isfinite(pixels[ids != "g5"]).all()
    raw = discs(120)[1]
    raw[5, :, 3:6, 4] = np.nan
    order = np.arange(120)[::-1]
    other = tmp_path / "other"
    store.create_survey(other)
    made = Images(np.array([f"g{i}" for i in order]), raw[order], ("g", "r"), 0.3, "nJy")
    nan, target = np.full(120, np.nan), np.array([f"GAL {i}" for i in order])
    catalog = Catalog(made.id, target, nan, nan)
    store.append_objects(other, catalog, made, np.full(120, "x"))
    again, ids_again, parts_again = batches.image_training_set(other, images=40, size=12)
    assert_array_equal(ids_again, ids)
    assert_array_equal(parts_again, parts)
    assert_allclose(again, pixels, rtol=1e-5, atol=1e-6)


def test_the_scaling_stands_in_the_recipe_and_is_measured_on_the_train_split(trained):
    stored = checkpoint.load(store.model_folder(trained, "m")).recipe["data"]
    assert stored["stretch"] == "arcsinh" and stored["bands"] == ["g", "r"]
    assert len(stored["sky"]) == len(stored["soft"]) == len(stored["top"]) == 2
    facts = batches.image_scaling(trained, size=SIDE).facts()
    assert stored["soft"] == facts["soft"] and stored["top"] == facts["top"]


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["logpolar", "residual_vae"])
def test_a_training_on_images_stopped_anywhere_ends_in_the_same_bits(tmp_path, name):
    kind, pixels = discs(60, seed=2)
    add(tmp_path / "s", np.pad(pixels, ((0, 0), (0, 0), (4, 4), (4, 4))), kind)
    how = recipe(name, size=32 if name == "residual_vae" else 16)
    whole = train.train(tmp_path / "s", how, "whole")

    def stop(at):
        if at.step == 3:
            raise Stop

    with pytest.raises(Stop):
        train.train(tmp_path / "s", how, "m", progress=stop, save_every=0)
    folder = train.train(tmp_path / "s", how, "m", save_every=0)
    first, second = ((f / checkpoint.WEIGHTS).read_bytes() for f in (whole, folder))
    assert first == second
    assert checkpoint.load(folder).scores["images"]["train"] > 30


def test_a_model_of_another_modality_is_refused_by_name(survey):
    with pytest.raises(
        train.TrainingError,
        match=r"gridconv reads lightcurves, but .* images.*recipes galaxies, galaxies_residual",
    ):
        train.train(survey, {"model": {"name": "gridconv"}}, "wrong")
    with pytest.raises(checkpoint.RecipeError, match=r"\[model\] size = 32, but \[data\] size"):
        checkpoint.complete(
            {"model": {"name": "logpolar", "size": 32}, "data": {"size": 64}}, ("g",)
        )


def test_a_vector_is_the_same_alone_in_chunks_and_after_a_gap(trained, monkeypatch):
    model = checkpoint.load(store.model_folder(trained, "m"))
    latents = store.read_latents(trained, "m")
    assert latents.id.tolist() == store.read_catalog(trained).id.tolist()
    assert np.isnan(latents.error).all()  # it draws nothing
    some = store.find_images(trained, ["g80", "g5"])
    alone, _ = encode.encode_images(model, some.take(slice(0, 1)))
    assert_allclose(alone[0], latents.vectors[latents.rows(["g80"])[0]], atol=1e-5)
    monkeypatch.setattr(encode, "CHUNK_PIXELS", 3 * 2 * SIDE * SIDE)
    monkeypatch.setattr(encode, "IMAGE_BATCH", 2)
    file = store.object_shards(trained)[0]["file"]
    again = encode.encode_shard(trained, model, file)
    assert_allclose(again.vectors, latents.vectors[:70], atol=1e-5)
    blank = Images(some.id[:1], np.full((1, 2, SIDE, SIDE), np.nan, np.float32), ("g", "r"))
    assert not encode.encode_images(model, blank)[0].any()


def test_the_error_is_the_residual_over_the_images_own_deviation():
    rng = np.random.default_rng(0)
    pixels, drawn = rng.normal(size=(2, 3, 2, 8, 8)).astype(np.float32)
    mask = rng.random((3, 2, 8, 8)) < 0.8
    batch = Frames(torch.tensor(np.where(mask, pixels, 0)), torch.tensor(mask))
    found = encode._image_error(batch, torch.tensor(drawn)).numpy()
    for i in range(3):
        seen = mask[i]
        wanted = np.abs(drawn[i] - pixels[i])[seen].mean() / pixels[i][seen].std()
        assert found[i] == pytest.approx(wanted, rel=1e-4)


def test_baselines_of_images_are_fitted_and_others_refused(trained):
    assert encode.encode(trained, "pixels") == 120
    assert np.isfinite(store.read_latents(trained, "pixels").vectors).all()
    with pytest.raises(ValueError, match=r"features is a code of lightcurves, but .* images"):
        encode.fit_baseline(trained, "features")


def test_an_image_from_a_file_finds_itself(trained, tmp_path):
    from astropy.io import fits

    _, pixels = discs(120)
    fits.PrimaryHDU(pixels[33]).writeto(tmp_path / "query.fits")
    query = read_queries(trained, "m", [tmp_path / "query.fits"])
    found = search(trained, "m", [], foreign=query, k=3).table.to_pylist()
    assert found[0]["id"] == "g33" and found[0]["similarity"] > 0.9999
    (tmp_path / "no.csv").write_text("time,mag\n55000,1\n55001,2\n")
    with pytest.raises(ValueError, match=r"cannot search with .*no.csv: it holds lightcurves"):
        read_queries(trained, "m", [tmp_path / "no.csv"])


def test_an_image_to_search_with_is_cut_as_those_of_the_survey_were(tmp_path):
    """Else a larger picture would be averaged down whole, and show another piece of sky."""
    from astropy.io import fits

    _, pixels = discs(40)
    wide = np.random.default_rng(1).normal(0, 0.1, (40, 2, 40, 40)).astype(np.float32)
    wide[:, :, 8:32, 8:32] += pixels
    (tmp_path / "in").mkdir()
    for i, one in enumerate(wide):
        made = fits.PrimaryHDU(one)
        made.header["BANDS"] = "gr"
        made.writeto(tmp_path / "in" / f"g{i}.fits")
    survey = tmp_path / "sky"
    ingest(survey, [tmp_path / "in"], size=SIDE)
    torch.set_num_threads(1)
    train.train(survey, recipe(), "m")
    encode.encode(survey, "m")
    query = read_queries(survey, "m", [tmp_path / "in" / "g7.fits"])
    own = store.read_latents(survey, "m")
    assert_allclose(query.vectors[0], own.vectors[own.id == "g7"][0], atol=1e-6)
    made = fits.PrimaryHDU(wide[7])
    made.header["BANDS"] = "iz"
    made.writeto(tmp_path / "other.fits")
    with pytest.raises(ValueError, match=r"in i, z .*but the survey holds .* in g, r"):
        read_queries(survey, "m", [tmp_path / "other.fits"])
    fits.PrimaryHDU(wide[7, :, :SIDE, : SIDE - 1]).writeto(tmp_path / "small.fits")
    with pytest.raises(ValueError, match="less than the"):
        read_queries(survey, "m", [tmp_path / "small.fits"])


@pytest.mark.slow
def test_shapes_measured_by_hand_are_a_baseline(trained):
    assert encode.encode(trained, "morphology") == 120
    assert np.isfinite(store.read_latents(trained, "morphology").vectors).all()


@pytest.mark.slow
def test_every_question_is_answered_and_the_report_shows_pictures(trained):
    page = report(trained, "m", label="label", with_baselines=False)
    text = page.read_text()
    assert "120 images, each turned into" in text and "light curve" not in text
    assert "Ranked by Euclidean distance" in text
    there = {p.name for p in page.parent.iterdir()}
    assert {"outliers.png", "distance.png", "map.png"} <= there and "similarity.png" not in there


def test_images_are_ranked_by_distance_unless_cosines_are_asked_for(trained):
    def first(*options):
        line = ["outliers", "-s", str(trained), "-m", "m", "-n", "3", "-f", "json", *options]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    ids = [rank(trained, "m").table["id"] for rank in (answers.oddest, answers.far_outliers)]
    assert ids[0] == ids[1]
    usual, far, cosine = first(), first("--far"), first("--cosine")
    assert usual == far and "distance" in usual[0]
    assert cosine[0]["id"] == answers.outliers(trained, "m").table["id"][0].as_py()
    assert "similarity" in cosine[0]


def test_the_far_from_their_class_can_be_left_out(trained):
    table = answers.class_outliers(trained, "m", label="label").table
    far = table["relative_distance"].to_numpy()
    assert (np.diff(far) <= 0).all() and table.num_rows == 120
    keep, rest = answers.kept(table, trained, "m", 7)
    assert keep.num_rows == 113 and set(rest["id"].to_pylist()) == set(table["id"].to_pylist()[:7])
    fewer = answers.probe(trained, "m", keep=keep["id"].to_pylist()).table.to_pylist()[0]
    assert fewer["segments"] == 113


def test_pictures_show_colour_and_what_is_missing(trained):
    seen = images.colour_pictures(store.find_images(trained, ["g5", "g6"]))
    assert seen.shape == (2, SIDE, SIDE, 3) and seen.min() >= 0 and seen.max() <= 1
    assert_allclose(seen[0, 4, 4], images.MISSING, atol=1e-6)
    centre = seen[1, SIDE // 2, SIDE // 2]
    assert centre.mean() > seen[1, 0, 0].mean() + 0.2
    figure = galleries.grid(trained, ["g5", "g6"], ["a", "b\nc"])
    assert len(figure.axes) == 2


def test_the_noise_of_a_band_does_not_colour_its_objects():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] - 15.5
    light = 50 * np.exp(-(y**2 + x**2) / 18)
    noise = np.array([0.05, 0.1, 2.0])[:, None, None]  # the reddest is by far the noisiest
    pixels = (light + noise * rng.standard_normal((12, 3, 32, 32))).astype(np.float32)
    pixels[:6, 2] += light  # half of them are red
    ids = np.array([f"g{i}" for i in range(12)])
    seen = images.colour_pictures(Images(ids, pixels, ("g", "r", "z")))
    red, green, blue = seen[:, 12:20, 12:20].mean(axis=(1, 2)).T
    assert_allclose(green, blue, rtol=0.05)
    assert_allclose(red[:6], green[:6], rtol=0.1)  # as red as the bright end: white
    assert_allclose(red[6:], 0.5 * green[6:], rtol=0.15)


@pytest.mark.slow
def test_adapting_brings_two_telescopes_together(survey, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    kind, pixels = discs(240, seed=5)
    add(one, pixels, kind)
    add(other, discs(240, seed=5, blur=1.5, noise=0.6, scale=7.0)[1], kind, prefix="h")
    train.train(one, recipe(steps=40, validate_every=20), "m")
    options = Training(steps=60, batch=64, lr=3e-3, validate_every=20)
    after = adaptation.adapt(one, other, "m", pairs=1.0, options=options)
    rows = adaptation.compare(one, other, ["m", after], label="label").to_pylist()
    assert rows[1]["apart"] < rows[0]["apart"]
    assert rows[1]["across"] > rows[0]["across"] - 0.05
    assert rows[1]["median_rank"] < rows[0]["median_rank"]
    first, second = (checkpoint.load(store.model_folder(s, after)) for s in (one, other))
    for key, array in first.model.state_dict().items():
        assert torch.equal(array, second.model.state_dict()[key])
    assert first.recipe["data"]["soft"] != second.recipe["data"]["soft"]
    assert adaptation.adapt(one, other, "m", pairs=1.0, options=options) == after
    with pytest.raises(adaptation.AdaptationError, match="source and target are both"):
        adaptation.adapt(one, one, "m")


def test_two_parts_of_one_survey_are_adapted_by_a_column(tmp_path):
    kind, pixels = discs(60, seed=5)
    _, seen_again = discs(60, seed=5, blur=1.5, noise=0.6)
    both = tmp_path / "both"
    which = np.repeat(["a", "b"], 60)
    add(both, np.concatenate([pixels, seen_again]), np.tile(kind, 2), camera=which)
    train.train(both, recipe(steps=4, validate_every=2), "m")
    sides = [adaptation.Part(both, "camera", name) for name in "ab"]
    options = Training(steps=4, batch=16, lr=3e-3, validate_every=2)
    after = adaptation.adapt(*sides, "m", options=options)
    rows = adaptation.compare(*sides, ["m", after], label="label").to_pylist()
    assert [row["model"] for row in rows] == ["m", "m-adapted"]
    assert all(row["among"] == 60 and row["queries"] == 0 for row in rows)
    kept, adapted = (checkpoint.load(store.model_folder(both, n)).recipe for n in ("m", after))
    assert kept["data"] == adapted["data"]

    def part(column, value):
        return adaptation.Part(both, column, value)

    for one, other, words in (
        (sides[0], part("camera", "c"), "nothing in .*camera=c.; camera holds a, b"),
        (part("telescope", "a"), part("telescope", "b"), "has no column 'telescope'"),
        (sides[0], sides[0], "source and target are both"),
        (sides[0], adaptation.Part(both), "two values of one column"),
    ):
        with pytest.raises(adaptation.AdaptationError, match=words):
            adaptation.adapt(one, other, "m", adapted="other", options=options)


def test_a_name_that_is_taken_is_refused_and_never_taken_for_the_same(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    kind, pixels = discs(60, seed=5)
    add(one, pixels, kind)
    add(other, discs(60, seed=5, blur=1.5, noise=0.6, scale=7.0)[1], kind, prefix="h")
    how = recipe(steps=2, validate_every=2)
    train.train(one, how, "m")
    train.train(one, how, "both")
    train.train(other, {**how, "train": {**how["train"], "seed": 7}}, "both")
    options = Training(steps=2, batch=16, lr=3e-3, validate_every=2)
    adaptation.adapt(one, other, "m", adapted="x", options=options)
    adaptation.adapt(one, other, "m", adapted="x", options=options)
    longer = Training(steps=3, batch=16, lr=3e-3, validate_every=2)
    for more in ({"weight": 0.0}, {"pairs": 1.0}, {"options": longer}):
        with pytest.raises(checkpoint.CheckpointError, match="in another way"):
            adaptation.adapt(one, other, "m", adapted="x", **{"options": options, **more})
    # each survey has trained a model of its own under one name
    with pytest.raises(checkpoint.CheckpointError, match="another model of the name 'both'"):
        adaptation.adapt(one, other, "both", options=options)


def test_adapting_to_what_is_no_survey_says_so(trained, tmp_path):
    with pytest.raises(store.StoreError, match="nowhere is no survey"):
        adaptation.adapt(trained, tmp_path / "nowhere", "m")


def test_partners_and_classes_carried_over_are_counted_rightly():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    labels = np.where(vectors[:, 0] > 0, "up", "down")
    target = np.array([f"t{i}" for i in range(200)])
    nan = np.full(200, np.nan)

    def latents(v):
        return Latents(target, target, v.astype(np.float32), "m", "h", nan, nan, nan)

    same = transfer.partner_ranks(latents(vectors), latents(3 * vectors))
    assert (same.recall_1, same.median_rank, same.queries) == (1.0, 1.0, 200)
    lost = transfer.partner_ranks(latents(vectors), latents(rng.normal(size=(200, 8))))
    assert lost.recall_10 < 0.15 and 60 < lost.median_rank < 140
    collapsed = transfer.partner_ranks(latents(vectors), latents(np.ones((200, 8))))
    assert collapsed.recall_10 < 0.15 and 60 < collapsed.median_rank < 140
    carried = transfer.carry_over(
        latents(vectors), labels, latents(vectors * [-1, *[1] * 7]), labels, rng=rng
    )
    assert carried.own > 0.9 and carried.other < 0.1 and carried.classes == 2
    shifted = transfer.tell_apart(vectors, vectors + 3, target, target, rng=rng)
    alike = transfer.tell_apart(
        vectors, rng.normal(size=(200, 8)), target, np.char.add("o", target), rng=rng
    )
    assert shifted > 0.99 and 0.35 < alike < 0.65


def test_a_sweep_trains_every_width_and_draws_it(tmp_path):
    kind, pixels = discs(60, seed=3)
    add(tmp_path / "s", np.pad(pixels, ((0, 0), (0, 0), (4, 4), (4, 4))), kind)
    how = recipe("residual_vae", size=32)
    table = sweep.sweep(tmp_path / "s", how, "v", widths=(3, 2))
    assert table["latent"].to_pylist() == [2, 3]
    assert all(v > 0 for v in table["mse"].to_pylist())
    assert all(-1 <= v <= 1 for v in table["ssim"].to_pylist())
    assert all(v > 0 for v in table["components_mse"].to_pylist())
    assert sweep.too_short(table) == [2, 3]  # after four steps
    better = table.set_column(3, "test_mse", pa.array([0.0, 9.0]))
    assert table.column_names[3] == "test_mse" and sweep.too_short(better) == [3]
    assert len(sweep.draw_sweep(table).axes) == 2
    (tmp_path / "r.toml").write_text(checkpoint.write_toml(how))
    asked = ["sweep", str(tmp_path / "r.toml"), "--survey", str(tmp_path / "s"), "--name", "v"]
    done = CliRunner().invoke(app, [*asked, "--widths", "2,3", "--format", "json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == table.to_pylist()  # nothing is trained again
    assert "2, 3 numbers keep less than as many principal components" in done.stderr
    assert (tmp_path / "s" / "answers" / "sweep-v" / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="logpolar draws nothing"):
        sweep.sweep(tmp_path / "s", recipe(), "l")
    assert not list((tmp_path / "s" / "models").glob("l-*"))  # before any time is spent on it
    with pytest.raises(ValueError, match="must be whole numbers from 1 up"):
        sweep.sweep(tmp_path / "s", how, "v", widths=(0,))


def test_a_sweep_that_was_killed_goes_on(tmp_path):
    kind, pixels = discs(60, seed=3)
    add(tmp_path / "s", np.pad(pixels, ((0, 0), (0, 0), (4, 4), (4, 4))), kind)
    how, taken = recipe("residual_vae", size=32), []

    def kill(width, state):
        taken.append((width, state.step))
        if (width, state.step) == (3, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(tmp_path / "s", how, "v", widths=(2, 3), progress=kill)
    assert taken == [(2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 2)]
    taken.clear()

    def follow(width, state):
        taken.append((width, state.step))

    table = sweep.sweep(tmp_path / "s", how, "v", widths=(2, 3), progress=follow)
    assert table["model"].to_pylist() == ["v-2", "v-3"]
    assert taken and {width for width, _ in taken} == {3}  # what was finished stays


def test_components_draw_what_has_so_few_dimensions():
    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(3, 2, 12, 12))
    pixels = np.tensordot(rng.normal(size=(90, 3)), shapes, 1).astype(np.float32) + 2
    shown = {"test": pixels[60:], "none": pixels[:0]}
    kept = sweep.components_keep(pixels[:60], shown, (1, 2, 3, 80))
    errors = [kept[width]["test"].mse for width in (1, 2, 3)]
    assert errors[0] > errors[1] > 0.01 and errors[2] < 1e-6
    assert kept[3]["test"].ssim > 0.9999 > kept[1]["test"].ssim and kept[3]["test"].images == 30
    assert np.isnan(kept[80]["test"].mse) and np.isnan(kept[1]["none"].ssim)
