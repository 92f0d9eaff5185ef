"""Rival: what a survey publishes is opened by LSDB and is the same survey."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from skyvec import ingest, publish, store
from skyvec.io import hats
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


def test_a_published_survey_comes_back_the_same(survey, tmp_path):
    publish.publish_objects(survey, tmp_path / "out", rows_per_partition=30, margin_arcsec=3000)
    again = tmp_path / "again"
    counts = ingest.ingest(again, [tmp_path / "out"])
    assert (counts.items, counts.segments, counts.rejects) == (200, 200, 0)
    before, after = ({c.id[0]: c for c in curves(sky)} for sky in (survey, again))
    assert set(before) == set(after)
    for name, one in before.items():
        other = after[name]
        assert_array_equal(one.mjd, other.mjd)
        assert_array_equal(one.flux, other.flux)
        assert_array_equal(one.flux_err, other.flux_err)
        names = [np.array(c.bands)[c.band].tolist() for c in (one, other)]
        assert names[0] == names[1] and one.flux_unit == other.flux_unit
    catalogs = [store.read_catalog(sky) for sky in (survey, again)]
    order = [np.argsort(catalog.id) for catalog in catalogs]
    for field in ("id", "target", "ra", "dec"):
        one, other = (getattr(c, field)[o] for c, o in zip(catalogs, order))
        assert_array_equal(one, other)
    for column in ("label", "period"):
        one, other = (c.columns[column][o] for c, o in zip(catalogs, order))
        assert_array_equal(one, other)
    assert ingest.ingest(again, [tmp_path / "out"]).new_segments == 0


def test_a_catalogue_inside_a_folder_is_read_without_its_margin(survey, tmp_path):
    publish.publish_objects(survey, tmp_path / "in" / "out", margin_arcsec=3000)
    margin = next((tmp_path / "in" / "out").glob("objects_*"))
    files = ingest.expand([tmp_path / "in"])
    assert files and all("/objects/dataset/" in file for file in files)
    with pytest.raises(ingest.IngestError, match="margin, not a catalogue of objects"):
        ingest.expand([margin])


def test_a_nested_catalogue_of_others_needs_names_that_are_known_or_given(tmp_path):
    rng = np.random.default_rng(0)
    n, points = 6, 5
    start = pa.array(np.arange(0, n * points + 1, points), pa.int32())

    def column(values):
        return pa.ListArray.from_arrays(start, pa.array(values))

    light = pa.StructArray.from_arrays(
        [
            column(59000 + np.sort(rng.random((n, points)), axis=1).ravel()),
            column(rng.random(n * points)),
            column(np.tile(["g", "r", "g", "g", "r"], n)),
        ],
        ["when", "brightness", "passband"],
    )
    ra, dec = rng.random(n), rng.random(n)
    table = pa.table({"objid": [f"{i:03d}" for i in range(n)], "ra": ra, "dec": dec, "lc": light})
    hats.write_catalog(tmp_path / "out", lambda: [table], name="ztf")
    counts = ingest.ingest(tmp_path / "bare", [tmp_path / "out"])
    assert counts.segments == 0
    reason = store.read_rejects(tmp_path / "bare")["reason"][0].as_py()
    assert "no column of time" in reason and "lc.when" in reason
    named = {"mjd": "lc.when", "flux": "lc.brightness"}
    counts = ingest.ingest(tmp_path / "named", [tmp_path / "out"], columns=named)
    assert counts.segments == n
    assert store.survey_bands(tmp_path / "named") == ("g", "r")


def curves(survey):
    for _, _, light in store.iterate_objects(survey):
        yield from (light.take(np.array([i])) for i in range(len(light)))


def test_latents_leave_keyed_by_id(survey, tmp_path):
    publish.publish_latents(survey, "m", tmp_path / "out", rows_per_partition=30)
    frame = lsdb.open_catalog(tmp_path / "out").compute(progress_bar=False).set_index("id")
    latents = store.read_latents(survey, "m")
    for i in (0, 57, 199):
        published = np.array(frame.loc[latents.id[i]]["latent"], np.float32)
        np.testing.assert_array_equal(published, latents.vectors[i])
    with pytest.raises(store.StoreError, match="skyvec encode typo"):
        publish.publish_latents(survey, "typo", tmp_path / "other")
