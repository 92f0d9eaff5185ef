"""Rival: what a survey publishes is opened by LSDB and is the same survey."""

import numpy as np
import pytest

from skyvec import publish, store
from skyvec.schema import Catalog, Latents, LightCurves

lsdb = pytest.importorskip("lsdb", reason="HATS needs the extra `survey`")
pytestmark = pytest.mark.filterwarnings("ignore")


def add_shard(survey, first, n, bands, **columns):
    rng = np.random.default_rng(first)
    ids = np.array([f"o{i}" for i in range(first, first + n)])
    lengths = rng.integers(2, 6, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    mjd = np.concatenate([58000 + np.sort(rng.random(m)) for m in lengths])
    flux = rng.normal(size=total).astype(np.float32)
    unknown = np.full(total, np.nan, np.float32)
    band = rng.integers(0, len(bands), total).astype(np.int16)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    catalog = Catalog(ids, ids, ra, dec, columns)
    curves = LightCurves(ids, offsets, mjd, flux, unknown, band, bands, "uJy")
    store.append_objects(survey, catalog, curves, np.array(["f"] * n))
    latent = rng.normal(size=(n, 40)).astype(np.float32)
    latents = Latents(ids, ids, latent, "m", "h", ra, dec, np.full(n, np.nan))
    store.write_latents(survey, store.shard_name(first // 100), latents, "s")


@pytest.fixture
def survey(tmp_path):
    survey = tmp_path / "sky"
    store.create_survey(survey)
    add_shard(survey, 0, 100, ("g", "r"), label=np.array(["a"] * 100))
    add_shard(survey, 100, 100, ("i", "g"), period=np.linspace(1, 2, 100))
    return survey


def test_objects_leave_with_their_curves_bands_and_columns(survey, tmp_path):
    made = publish.publish_objects(survey, tmp_path / "out", rows_per_partition=30)
    assert (made.rows, made.left_out) == (200, 0)
    frame = lsdb.open_catalog(tmp_path / "out").compute(progress_bar=False).set_index("id")
    for file, catalog, curves in store.iterate_objects(survey):
        for i in range(len(curves)):
            row = frame.loc[curves.id[i]]
            part = slice(curves.offsets[i], curves.offsets[i + 1])
            np.testing.assert_array_equal(np.array(row["mjd"]), curves.mjd[part])
            names = np.array(curves.bands)[curves.band[part]]
            assert list(row["band"]) == names.tolist(), file
            assert row["flux_unit"] == "uJy" and row["ra"] == catalog.ra[i]
    assert frame.loc["o3"]["label"] == "a"
    assert frame.loc["o100"]["period"] == 1.0


def test_latents_leave_keyed_by_id(survey, tmp_path):
    publish.publish_latents(survey, "m", tmp_path / "out", rows_per_partition=30)
    frame = lsdb.open_catalog(tmp_path / "out").compute(progress_bar=False).set_index("id")
    latents = store.read_latents(survey, "m")
    for i in (0, 57, 199):
        published = np.array(frame.loc[latents.id[i]]["latent"], np.float32)
        np.testing.assert_array_equal(published, latents.vectors[i])
    with pytest.raises(store.StoreError, match="skyvec encode typo"):
        publish.publish_latents(survey, "typo", tmp_path / "other")
