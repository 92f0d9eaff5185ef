"""Contract: what is written comes back, whole or not at all; a killed stage leaves no trace."""

import errno
import fcntl

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from skyvec import store
from skyvec.schema import Catalog, Images, Latents, LightCurves, Reject, Stamps


def part(prefix, lengths, bands=("g", "r"), unit="uJy", **columns):
    n = len(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n_points = int(offsets[-1])
    rng = np.random.default_rng(n)
    ids = np.array([f"{prefix}{i}" for i in range(n)], dtype=np.str_)
    mjd = np.concatenate([58000 + np.sort(rng.random(m)) for m in lengths] or [np.zeros(0)])
    curves = LightCurves(
        ids,
        offsets,
        mjd,
        rng.normal(size=n_points).astype(np.float32),
        np.full(n_points, np.nan, np.float32),
        rng.integers(0, len(bands), n_points).astype(np.int16),
        bands,
        unit,
    )
    nan = np.full(n, np.nan)
    return Catalog(ids, ids, nan, nan, columns), curves


@pytest.fixture
def survey(tmp_path):
    store.create_survey(tmp_path / "sky")
    return tmp_path / "sky"


def test_objects_come_back_as_they_went_in(survey):
    catalog, curves = part("a", [3, 0, 4], label=np.array(["x", "", "z"]), n=np.arange(3))
    store.append_objects(survey, catalog, curves, np.array(["f"] * 3))
    back_catalog, back = store.read_objects(survey, "part-00000.parquet")
    for name in ("id", "offsets", "mjd", "flux", "flux_err", "band"):
        np.testing.assert_array_equal(getattr(back, name), getattr(curves, name))
    assert back.flux_unit == "uJy" and back.bands == ("g", "r")
    assert back_catalog.columns["label"].tolist() == ["x", "", "z"]
    assert back_catalog.columns["n"].tolist() == [0, 1, 2]


def test_band_codes_follow_the_survey_not_the_source(survey):
    for prefix, bands in (("a", ("g", "r")), ("b", ("i", "g"))):
        catalog, curves = part(prefix, [5], bands)
        store.append_objects(survey, catalog, curves, np.array(["f"]))
    assert store.survey_bands(survey) == ("g", "r", "i")
    _, original = part("b", [5], ("i", "g"))
    _, back = store.read_objects(survey, "part-00001.parquet")
    names = np.array(back.bands)[back.band]
    assert names.tolist() == np.array(("i", "g"))[original.band].tolist()


def test_catalogues_with_different_columns_are_joined_without_inventing_values(survey):
    first, curves = part("a", [1], label=np.array(["x"]))
    store.append_objects(survey, first, curves, np.array(["f"]))
    second, curves = part("b", [1], period=np.array([2.5]))
    store.append_objects(survey, second, curves, np.array(["g"]))
    whole = store.read_catalog(survey)
    assert whole.columns["label"].tolist() == ["x", ""]
    assert np.isnan(whole.columns["period"][0]) and whole.columns["period"][1] == 2.5


def test_finished_items_count_stored_and_rejected(survey):
    catalog, curves = part("a", [2, 2])
    reject = Reject("f", 7, "a7", "no finite points")
    store.append_objects(survey, catalog, curves, np.array(["f", "g"]), [reject])
    assert store.finished_items(survey) == {"f": 2, "g": 1}
    assert store.read_rejects(survey).to_pylist() == [
        {"source": "f", "row": 7, "id": "a7", "reason": "no finite points"}
    ]


def test_a_failed_write_leaves_what_stood_there(tmp_path):
    path = tmp_path / "x.txt"
    store.write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        store.write_atomic(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_unlisted_shards_do_not_count_and_are_cleaned(survey):
    catalog, curves = part("a", [2])
    store.append_objects(survey, catalog, curves, np.array(["f"]))
    folder = store.objects_folder(survey)
    (folder / "part-00001.parquet").write_bytes(b"half")
    (folder / f"{store.TEMPORARY}1-part-00002.parquet").write_bytes(b"half")
    assert len(store.read_catalog(survey)) == 1
    assert store.clean(folder) == 2
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "part-00000.parquet"]


def test_rejects_of_an_uncommitted_shard_do_not_count(survey):
    store.write_table(
        store.rejects_folder(survey) / "part-00000.parquet",
        store.read_rejects(survey),
    )
    assert store.finished_items(survey) == {}


def test_foreign_and_missing_folders_are_named(tmp_path):
    with pytest.raises(store.StoreError, match="no survey"):
        store.read_catalog(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(store.StoreError, match="not empty"):
        store.create_survey(tmp_path / "full")
    (tmp_path / "file").write_text("x")
    with pytest.raises(store.StoreError, match="is a file"):
        store.create_survey(tmp_path / "file")


def test_notes_are_kept_once_and_parse(survey):
    import tomllib

    for _ in range(2):
        store.note(survey, "ingest", {"source": 'a "quoted" é name', "rows": 3, "ok": True})
    facts = tomllib.loads((survey / store.SURVEY_FILE).read_text())
    assert facts["ingest"] == [{"source": 'a "quoted" é name', "rows": 3, "ok": True}]


def make_latents(name, n, model_hash="h"):
    ids = np.array([f"o{i}" for i in range(n)], dtype=np.str_)
    vectors = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    nan = np.full(n, np.nan)
    return Latents(ids, ids, vectors, name, model_hash, nan, nan, nan)


def test_latents_come_back_in_shard_order_and_guard_their_model(survey):
    store.write_latents(survey, "part-00001.parquet", make_latents("m", 2), "s1")
    store.write_latents(survey, "part-00000.parquet", make_latents("m", 3), "s0")
    back = store.read_latents(survey, "m")
    assert back.id.tolist() == ["o0", "o1", "o2", "o0", "o1"]
    np.testing.assert_array_equal(back.vectors[:3], make_latents("m", 3).vectors)
    with pytest.raises(store.StoreError, match="another model"):
        store.write_latents(survey, "part-00000.parquet", make_latents("m", 3, "other"), "s0")
    with pytest.raises(store.StoreError, match="there are: m"):
        store.read_latents(survey, "typo")
    with pytest.raises(store.StoreError, match="cannot name a folder"):
        store.read_latents(survey, "../objects")


def test_curves_are_found_by_id_wherever_they_are_stored(survey):
    for prefix, unit in (("a", "uJy"), ("b", "relative")):
        catalog, curves = part(prefix, [3, 0, 4], unit=unit)
        store.append_objects(survey, catalog, curves, np.array(["f"] * 3))
    found = store.find_curves(survey, ["b2", "a0", "b1"])
    assert found.id.tolist() == ["b2", "a0", "b1"] and found.lengths.tolist() == [4, 3, 0]
    _, original = store.read_objects(survey, "part-00001.parquet")
    np.testing.assert_array_equal(found.flux[:4], original.take(np.array([2])).flux)
    assert found.flux_unit == "relative"
    assert store.find_curves(survey, ["a0"]).flux_unit == "uJy"
    assert len(store.find_curves(survey, [])) == 0
    with pytest.raises(KeyError, match="no segment 'c9'"):
        store.find_curves(survey, ["a0", "c9"])


def images(ids, *, seed=0, integers=False, error=False, side=6):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(len(ids), 2, side, side)).astype(np.float32)
    if integers:
        pixels = rng.integers(0, 256, pixels.shape).astype(np.float32)
    else:
        pixels[0, 1, 2] = np.nan
    nan = np.full(len(ids), np.nan)
    catalog = Catalog(
        np.array(ids), np.array(ids), nan, nan, {"label": np.array(["x"] * len(ids))}
    )
    sigma = np.full_like(pixels, 0.5) if error else None
    return catalog, Images(catalog.id, pixels, ("g", "r"), 0.262, "nJy", sigma)


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("error", [False, True])
def test_images_come_back_bit_for_bit(tmp_path, integers, error):
    survey = tmp_path / "sky"
    store.create_survey(survey)
    catalog, given = images([f"a{i}" for i in range(5)], integers=integers, error=error)
    store.append_objects(survey, catalog, given, np.array(["f"] * 5))
    file, back_catalog, back = next(store.iterate_objects(survey, Images))
    assert_array_equal(back.pixels, given.pixels)
    assert back.bands == ("g", "r") and back.pixel_scale == 0.262 and back.flux_unit == "nJy"
    assert (back.flux_err is not None) == error
    if error:
        assert_array_equal(back.flux_err, given.flux_err)
    assert back_catalog.columns["label"].tolist() == ["x"] * 5
    assert list(store.read_catalog(survey).columns) == ["source", "label"]
    assert store.survey_kind(survey) == "images" and store.survey_shape(survey) == (2, 6, 6)
    narrow = pq.read_schema(store.objects_folder(survey) / file).field("pixels").type.byte_width
    assert narrow == 2 * 6 * 6 * (1 if integers else 4)


def test_some_images_are_found_without_reading_the_others(tmp_path, monkeypatch):
    survey = tmp_path / "sky"
    store.create_survey(survey)
    monkeypatch.setattr("skyvec.store.files.GROUP_BYTES", 2 * 2 * 36 * 4)  # two images a row group
    parts = [images([f"{c}{i}" for i in range(5)], seed=i) for i, c in enumerate("ab")]
    for catalog, given in parts:
        store.append_objects(survey, catalog, given, np.array(["f"] * 5))
    with pq.ParquetFile(store.objects_folder(survey) / "part-00000.parquet") as file:
        assert file.metadata.num_row_groups == 3
    found = store.find_images(survey, ["b4", "a0", "b1"])
    assert found.id.tolist() == ["b4", "a0", "b1"]
    wanted = [parts[1][1].pixels[4], parts[0][1].pixels[0], parts[1][1].pixels[1]]
    assert_array_equal(found.pixels, np.stack(wanted))
    assert store.find_images(survey, []).pixels.shape == (0, 2, 6, 6)
    with pytest.raises(KeyError, match="no segment 'c9'"):
        store.find_images(survey, ["a0", "c9"])


def test_a_survey_holds_one_kind_and_one_shape(tmp_path):
    survey = tmp_path / "sky"
    store.create_survey(survey)
    catalog, given = images(["a"])
    store.append_objects(survey, catalog, given, np.array(["f"]))
    other, small = images(["b"], side=4)
    with pytest.raises(store.StoreError, match=r"shape \[2, 6, 6\], these are of \[2, 4, 4\]"):
        store.append_objects(survey, other, small, np.array(["f"]))
    with pytest.raises(store.StoreError, match="holds images, not lightcurves"):
        store.read_objects(survey, "part-00000.parquet")
    with pytest.raises(store.StoreError, match="holds images, not lightcurves"):
        store.find_curves(survey, ["a"])
    ids, none = catalog.id, np.array([np.nan])
    stamps = Stamps(ids, np.zeros((1, 3, 5, 5), np.float32), ids, ids, ids)
    with pytest.raises(store.StoreError, match="objects of kind images, these are of stamps"):
        store.append_objects(survey, Catalog(ids, ids, none, none), stamps, np.array(["f"]))


def test_stamps_come_back_whole(tmp_path):
    survey = tmp_path / "sky"
    store.create_survey(survey)
    ids, nan = np.array(["x", "y"]), np.full(2, np.nan)
    pixels = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
    stamps = Stamps(ids, pixels, np.array(["c1", "c2"]), np.array(["e", "e"]), ids)
    store.append_objects(survey, Catalog(ids, ids, nan, nan), stamps, np.array(["f"] * 2))
    _, back = store.read_objects(survey, "part-00000.parquet", Stamps)
    assert_array_equal(back.pixels, pixels)
    assert back.detector.tolist() == ["c1", "c2"] and back.object.tolist() == ["x", "y"]


def test_one_writer_at_a_time(survey, monkeypatch):
    folder = store.latents_folder(survey, "m")
    with store.lock(folder, "encode"):
        with (
            pytest.raises(
                store.StoreError, match=r"another skyvec encode \(process \d+ on .*latents/m;"
            ),
            store.lock(folder, "encode"),
        ):
            pass
        with store.lock(store.latents_folder(survey, "n"), "encode"):
            pass
    with pytest.raises(ZeroDivisionError), store.lock(folder, "encode"):
        1 / 0
    with store.lock(folder, "encode"):
        pass
    assert not list(survey.rglob(".lock-*"))

    def refuse(file, how):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)  # some network file systems know no locks
    with store.lock(folder, "encode"):
        pass


def test_a_lock_taken_on_a_file_that_was_just_removed_does_not_count(survey, monkeypatch):
    folder, take, taken = store.latents_folder(survey, "m"), fcntl.flock, []

    def late(file, how):
        taken.append(file)
        if len(taken) == 1:  # between opening and locking, the holder before gives it back
            (folder.parent / ".lock-m").unlink()
        take(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with store.lock(folder, "encode"), pytest.raises(store.StoreError, match="another"):
        store.lock(folder, "encode").__enter__()
    assert len(taken) == 3


def test_only_the_columns_asked_for_are_read(survey, monkeypatch):
    label, wide = np.array(["x", "", "z"]), np.array(["{}"] * 3)
    for prefix, columns in (("a", {"label": label, "extra": wide}), ("b", {"n": np.arange(3)})):
        catalog, curves = part(prefix, [3, 1, 4], **columns)
        store.append_objects(survey, catalog, curves, np.array(["f"] * 3))
    kinds = {"source": "text", "label": "text", "extra": "text", "n": "number"}
    assert store.column_kinds(survey) == kinds
    assert list(store.read_catalog(survey).columns) == list(kinds)
    read, seen = pq.read_table, set()

    def watch(path, columns):
        seen.update(columns)
        return read(path, columns=columns)

    monkeypatch.setattr(pq, "read_table", watch)
    some = store.read_catalog(survey, ["n", "label"])
    assert seen == {"id", "target", "ra", "dec", "n", "label"}
    assert some.columns["label"].tolist() == ["x", "", "z", "", "", ""]
    assert_array_equal(some.columns["n"], [np.nan] * 3 + [0, 1, 2])
    assert store.read_catalog(survey, []).columns == {}
    assert some.rows(["b2", "a0"]).tolist() == [5, 0]
    with pytest.raises(KeyError, match="no object 'c0' among 6 segments"):
        some.rows(["a1", "c0"])
    with pytest.raises(store.StoreError, match=r"no column 'm' in .*; there are: .*label, n"):
        store.read_catalog(survey, ["m"])
