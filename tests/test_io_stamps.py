"""Stamps and alert packets read: contract (rejects with reasons), truth (places), real packets."""

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from scipy.ndimage import uniform_filter

from skyvec import store
from skyvec.ingest import ingest
from skyvec.io import READERS, avro_alerts, stamps
from skyvec.io.stamps import Triplet
from skyvec.schema import Reject, Stamps

FLT_MAX = float(np.finfo(np.float32).max)


def cutouts(side=29, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(100, 5, (3, side, side)).astype(np.float32)


def table(path: Path, rows):
    pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), path)
    return path


def row(key, pixels, **others):
    height, width = pixels.shape[1:]
    channels = {c: p.ravel().tolist() for c, p in zip(("new", "reference", "difference"), pixels)}
    return {"candid": key, "height": height, "width": width, **channels, **others}


def test_parquet_gives_what_was_put_in(tmp_path):
    pixels = cutouts()
    pixels[1, 3, 4] = -FLT_MAX
    path = table(
        tmp_path / "a.parquet", [row("1", pixels, objectId="A", cand_visit=7, ra=-1.0, dec=2.0)]
    )
    assert stamps.matches(path) and stamps.count_items(path) == 1
    (item,) = stamps.read(path)
    assert (item.id, item.target, item.exposure, item.ra) == ("1", "A", "7", 359.0)
    assert np.isnan(item.pixels[1, 3, 4]) and item.columns["n_missing"] == 1
    pixels[1, 3, 4] = np.nan
    np.testing.assert_array_equal(item.pixels, pixels)


def test_lists_of_a_fixed_size_and_missing_pixels(tmp_path):
    pixels = [cutouts(seed=i) for i in range(3)]
    columns = {"candid": pa.array(["a", "b", "c"])}
    for k, name in enumerate(("new", "reference", "difference")):
        flat = np.concatenate([p[k].ravel() for p in pixels]).tolist()
        flat[5] = None
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), 29 * 29)
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    items = list(stamps.read(tmp_path / "a.parquet"))
    assert np.isnan(items[0].pixels[:, 0, 5]).all() and items[0].columns["n_missing"] == 3
    np.testing.assert_array_equal(items[2].pixels, pixels[2])


def test_what_cannot_be_taken_is_counted_with_its_reason(tmp_path):
    good, empty = cutouts(), cutouts()
    empty[2] = np.nan
    short = row("3", good)
    short["new"] = short["new"][:-1]
    missing = row("4", good)
    missing["reference"] = None
    huge = row("5", cutouts(3))
    path = table(tmp_path / "a.parquet", [row("1", good), row("2", empty), short, missing, huge])
    items = list(stamps.read(path))
    assert [type(item) for item in items] == [Triplet, Reject, Reject, Reject, Reject]
    assert [item.row for item in items[1:]] == [1, 2, 3, 4]
    reasons = [item.reason for item in items[1:]]
    assert reasons[0] == "no pixel of the difference image was measured"
    assert reasons[1] == "840 pixels of the new image are not 29 x 29"
    assert reasons[2] == "no reference image"
    assert "5 to 511 pixels" in reasons[3]


@pytest.mark.parametrize("lost", ["left", "right", "top", "bottom"])
def test_a_clipped_stamp_keeps_its_source_in_the_middle(lost):
    whole = np.random.default_rng(1).normal(0, 1, (3, 63, 63)).astype(np.float32)
    whole[2, 30:33, 30:33] += 40
    cut = {
        "left": np.s_[:, :, 12:], "right": np.s_[:, :, :51],
        "top": np.s_[:, :40], "bottom": np.s_[:, 20:],
    }[lost]  # fmt: skip
    part = dict(zip(("new", "reference", "difference"), whole[cut]))
    item = stamps.admit(
        id="x", target="", ra=np.nan, dec=np.nan, cutouts=part, detector="", exposure="",
        columns={}, nominal=63,
    )  # fmt: skip
    assert item.pixels.shape == (3, 63, 63)
    np.testing.assert_array_equal(item.pixels[:, 31, 31], whole[:, 31, 31])
    there = np.isfinite(item.pixels)
    np.testing.assert_array_equal(item.pixels[there], whole[there])
    assert there.sum() == whole[cut].size


@pytest.mark.parametrize("last", [False, True])
def test_numpy_with_its_table(tmp_path, last):
    array = np.stack([cutouts(seed=i) for i in range(4)])
    np.save(tmp_path / "images112.npy", np.moveaxis(array, 1, 3) if last else array)
    kinds = ["artifact", "rand_artificial_real", "galx_artificial_real", "artifact"]
    lines = [f"{kind},112,{i}" for i, kind in enumerate(kinds)]
    (tmp_path / "params112.csv").write_text(
        "object_type,detector_id,sample_index\n" + "\n".join(lines)
    )
    path = tmp_path / "images112.npy"
    assert stamps.matches(path) and stamps.count_items(path) == 4
    items = list(stamps.read(path))
    assert [item.columns["label"] for item in items] == ["bogus", "real", "real", "bogus"]
    assert {item.detector for item in items} == {"112"}
    np.testing.assert_array_equal(np.stack([item.pixels for item in items]), array)
    counts = ingest(tmp_path / "survey", [tmp_path])  # the table is no source of its own
    assert (counts.items, counts.segments) == (4, 4)
    (tmp_path / "params112.csv").write_text("object_type\nartifact\n")
    (reject,) = stamps.read(path)
    assert "has 1 rows" in reject.reason
    assert not stamps.matches(tmp_path / "images113.npy")


@pytest.mark.parametrize("form", ["named", "order", "cube"])
def test_fits(tmp_path, form):
    pixels = cutouts(31)
    path = tmp_path / "triplet-7.fits"
    if form == "cube":
        hdus = [fits.PrimaryHDU(pixels)]
    elif form == "order":
        hdus = [fits.PrimaryHDU(pixels[0]), fits.ImageHDU(pixels[1]), fits.ImageHDU(pixels[2])]
    else:
        hdus = [fits.PrimaryHDU()] + [
            fits.ImageHDU(pixels[i], name=name)
            for i, name in ((2, "DIFF"), (0, "SCIENCE"), (1, "TEMPLATE"))
        ]
    hdus[0].header["CANDID"], hdus[0].header["RA"], hdus[0].header["DEC"] = "77", 10.0, -5.0
    fits.HDUList(hdus).writeto(path)
    (item,) = stamps.read(path, size=29)
    assert (item.id, item.ra, item.dec) == ("77", 10.0, -5.0)
    np.testing.assert_array_equal(item.pixels, pixels[:, 1:-1, 1:-1])


def packet(schema=None, **changes):
    def image(pixels):
        file = io.BytesIO()
        fits.PrimaryHDU(pixels).writeto(file)
        return {"fileName": "x.fits.gz", "stampData": gzip.compress(file.getvalue())}

    names = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    made = {name: image(p) for name, p in zip(names, cutouts(63))}
    candidate = {"jd": 2459000.5, "rcid": 3, "fid": 1, "ra": 1.0, "dec": 2.0, "magpsf": 18.5,
                 "field": 400, "xpos": 1000.0, "ypos": 900.0, "ssdistnr": None}  # fmt: skip
    base = {"objectId": "ZTFx", "candid": 2**60 + 1, "candidate": candidate, **made}
    return {**base, **changes}


def test_a_packet_becomes_a_detection():
    item = avro_alerts.triplet(packet(), size=29)
    assert (item.id, item.target, item.detector) == (str(2**60 + 1), "ZTFx", "rcid3")
    assert item.columns["band"] == "g" and "ssdistnr" not in item.columns
    np.testing.assert_array_equal(item.pixels, cutouts(63)[:, 17:46, 17:46])


def test_what_has_faded_is_bright_in_its_difference_whatever_the_survey():
    base = packet()
    faded = packet(candidate={**base["candidate"], "isdiffpos": "f"})
    signs = [avro_alerts.triplet(p, size=29).columns["sign"] for p in (base, faded)]
    assert signs == [1, -1]  # ZTF has turned it round before it sends it
    for flux, sign in ((250.0, 1), (-250.0, -1), (None, 1), (float("nan"), 1)):
        record = {"diaSourceId": 7, "psfFlux": flux, "ra": 1.0, "dec": 2.0, "visit": 5}
        found = avro_alerts.triplet({**base, "diaSource": record}, size=29)
        assert (found.id, found.columns["sign"], found.columns["survey"]) == (
            str(2**60 + 1), sign, "lsst")  # fmt: skip
        raw = cutouts(63)[:, 17:46, 17:46]
        np.testing.assert_array_equal(found.pixels[2], sign * raw[2])
        np.testing.assert_array_equal(found.pixels[:2], raw[:2])


@pytest.mark.real
def test_real_detections_are_bright_in_their_difference(real_data):
    pytest.importorskip("fastavro")
    seen = {-1: 0, 1: 0}
    for path in sorted(real_data("alerts").glob("*.avro")):
        for item in avro_alerts.read(path, size=29):
            snr = item.columns.get("snr", 20.0) if isinstance(item, Triplet) else 0.0
            if not isinstance(item, Triplet) or item.columns["survey"] == "winter" or snr < 8:
                continue
            light = item.pixels[2, 12:17, 12:17].mean() - np.nanmedian(item.pixels[2])
            assert light > 0 or not np.isfinite(light), (path.name, item.columns["sign"])
            seen[int(item.columns["sign"])] += 1
    assert min(seen.values()) >= 8


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cutoutTemplate": None}, "no reference image"),
        ({"cutoutTemplate": {"stampData": b"\x1f\x8bnothing"}}, "damaged cutout"),
        ({"cutoutTemplate": {"stampData": b"no FITS"}}, "damaged cutout"),
    ],
)
def test_a_bad_packet_is_refused_with_its_reason(changes, reason):
    found = avro_alerts._one(packet(**changes), "night.avro", 4, 0)
    assert isinstance(found, Reject) and reason in found.reason
    assert (found.row, found.id) == (4, str(2**60 + 1))
    unknown = avro_alerts._one({"something": 1}, "", 0, 0)
    assert "no known survey" in unknown.reason


def test_what_is_no_container_is_refused(tmp_path):
    for content, reason in (
        (b"", "empty"),
        (b"\x00\x00\x00\x03\x84rest", "Confluent"),
        (b"{}", "Obj"),
    ):
        path = tmp_path / "x.avro"
        path.write_bytes(content)
        (reject,) = avro_alerts.read(path)
        assert reason in reject.reason
    assert "schema number 900" in avro_alerts.read_packet(b"\x00\x00\x00\x03\x84rest").reason


def test_a_bare_packet_is_read_with_its_schema():
    fastavro = pytest.importorskip("fastavro")
    fields = [
        {"name": "objectId", "type": "string"}, {"name": "candid", "type": "long"},
        {"name": "candidate", "type": {"type": "record", "name": "c", "fields": [
            {"name": "jd", "type": "double"}, {"name": "rcid", "type": "int"},
            {"name": "fid", "type": "int"}, {"name": "ra", "type": "double"},
            {"name": "dec", "type": "double"}]}},
        *({"name": f"cutout{n}", "type": {"type": "record", "name": f"r{n}", "fields": [
            {"name": "fileName", "type": "string"}, {"name": "stampData", "type": "bytes"}]}}
          for n in ("Science", "Template", "Difference")),
    ]  # fmt: skip
    schema = fastavro.parse_schema({"type": "record", "name": "alert", "fields": fields})
    file = io.BytesIO()
    fastavro.schemaless_writer(file, schema, packet())
    data = b"\x00" + (900).to_bytes(4, "big") + file.getvalue()
    item = avro_alerts.read_packet(data, schemas={900: schema})
    assert isinstance(item, Triplet) and item.target == "ZTFx"
    broken = avro_alerts.read_packet(data[: len(data) // 2], schemas={900: schema})
    assert isinstance(broken, Reject)


@pytest.mark.real
def test_no_damage_to_a_packet_is_more_than_a_reject(real_data, tmp_path):
    pytest.importorskip("fastavro")
    whole = (real_data("alerts") / "ztf_v3.3__schema_3.3.avro").read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "x.avro"
    found = []
    for i in range(40):
        data = bytearray(whole)
        if i % 2:
            del data[rng.integers(1, len(data)) :]
        else:
            start = rng.integers(0, len(data) - 50)
            data[start : start + 50] = rng.bytes(50)
        path.write_bytes(data)
        found += [type(item) for item in avro_alerts.read(path)]
    assert len(found) >= 40 and set(found) <= {Triplet, Reject} and found.count(Reject) > 20


def test_ingest_keeps_stamps_and_refuses_other_forms(tmp_path):
    table(
        tmp_path / "a.parquet",
        [row(str(i), cutouts(seed=i), objectId="A", label="real") for i in range(5)],
    )
    table(tmp_path / "b.parquet", [row("9", cutouts(31)), row("3", cutouts())])
    counts = ingest(tmp_path / "s", [tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert (counts.segments, counts.rejects) == (5, 2)
    assert store.survey_kind(tmp_path / "s") == "stamps"
    ((_, catalog, found),) = store.iterate_objects(tmp_path / "s", Stamps)
    assert found.pixels.shape == (5, 3, 29, 29) and set(found.object) == {"A"}
    assert catalog.columns["label"].tolist() == ["real"] * 5
    again = ingest(tmp_path / "s", [tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert again.new_segments == again.new_rejects == 0


# --- real packets -----------------------------------------------------------------------------


@pytest.mark.real
def test_real_packets_of_all_schemas(real_data, tmp_path):
    pytest.importorskip("fastavro")
    folder = real_data("alerts")
    paths = sorted(folder.glob("*.avro"))
    items = {path.name: list(avro_alerts.read(path)) for path in paths}
    detections = [item for found in items.values() for item in found if isinstance(item, Triplet)]
    rejects = [item for found in items.values() for item in found if isinstance(item, Reject)]
    assert len(detections) == len(paths) and len(rejects) == 1  # one file is cut off at its end
    assert {item.columns["survey"] for item in detections} == {"ztf", "lsst", "winter"}
    versions = {item.columns["schema"] for item in detections if item.columns["survey"] == "ztf"}
    assert {"", "2.0", "3.0", "3.1", "3.2", "3.3", "3.5", "4.01", "4.02"} <= versions
    (clipped,) = [i for i in items["ztf_v3.0__472263571115115014.avro"] if isinstance(i, Triplet)]
    assert np.isnan(clipped.pixels[:, :, -10:]).all()
    assert np.isfinite(clipped.pixels[2, 31, :40]).all()
    assert np.unravel_index(np.nanargmax(clipped.pixels[2]), (63, 63)) == (31, 31)
    counts = ingest(tmp_path / "s", [folder], size=29)
    assert counts.items == counts.segments + counts.rejects
    assert store.survey_shape(tmp_path / "s") == (3, 29, 29)


@pytest.mark.real
@pytest.mark.parametrize(("name", "n"), [("ztf", 444), ("lsst", 100)])
def test_real_triplets_are_centred(real_data, name, n):
    path = real_data(f"stamps/{name}_triplets.parquet")
    items = list(stamps.read(path, size=29))
    assert len(items) == n and all(isinstance(item, Triplet) for item in items)
    pixels = np.stack([item.pixels for item in items])
    assert not (np.abs(pixels) > 1e30).any()
    strength = np.nan_to_num(np.abs(pixels[:, 2]))
    stacked = np.mean(strength / strength.max(axis=(1, 2), keepdims=True), axis=0)
    smooth = uniform_filter(stacked, 3)  # LSST's seeing is 5 px wide, its detections are faint
    y, x = np.unravel_index(smooth.argmax(), smooth.shape)
    most = 1 if name == "ztf" else 2
    assert abs(y - 14) <= most and abs(x - 14) <= most
    assert smooth[14, 14] > 1.3 * np.median(smooth)


def test_readers_of_other_things_do_not_take_stamps(tmp_path):
    path = table(tmp_path / "a.parquet", [row("1", cutouts())])
    assert next(r for r in READERS if r.matches(path)) is stamps
    other = tmp_path / "curves.parquet"
    pq.write_table(pa.table({"id": ["a"], "mjd": [[1.0]], "flux": [[1.0]]}), other)
    assert not stamps.matches(other)


def test_ingest_says_what_an_operator_can_do(tmp_path, capfd):
    rng = np.random.default_rng(0)
    for name, side in (("stamps_a", 29), ("stamps_b", 31), ("mine", 29)):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((1, 3, side, side)))
    cube = fits.PrimaryHDU(rng.standard_normal((3, 29, 29)).astype(np.float32))
    cube.writeto(tmp_path / "stamp_whole.fits")
    (tmp_path / "stamp_cut.fits").write_bytes((tmp_path / "stamp_whole.fits").read_bytes()[:4000])
    ingest(tmp_path / "s", [tmp_path])
    told = {
        Path(r["source"]).name: r["reason"] for r in store.read_rejects(tmp_path / "s").to_pylist()
    }
    assert told["stamps_b.npy" if "stamps_b.npy" in told else "stamps_a.npy"].endswith("--size N")
    assert "if stamps or triplets is in the name" in told["mine.npy"]
    assert "stamp_cut.fits" in told and "truncated" not in capfd.readouterr().err
