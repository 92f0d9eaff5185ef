"""Truth: files written with known numbers come back with them. Contract: bad input is refused."""

import gzip
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from foreign_files import described_set, kepler_file, row, tess_file, write_fits

from skyvec.io import READERS, avro_alerts, fits_lightcurves, formats, images, stamps, tables
from skyvec.io.columns import check_columns
from skyvec.io.segments import RefusedError, Segment, admit
from skyvec.io.times import parse_time_system, to_mjd_tdb
from skyvec.schema import Reject


def only(items):
    (item,) = items
    return item


def segment(reader, path, **options):
    item = only(reader.read(path, **options))
    assert isinstance(item, Segment), item
    return item


def reason(reader, path, **options):
    item = only(reader.read(path, **options))
    assert isinstance(item, Reject), item
    return item.reason


# --- the door ---------------------------------------------------------------------------------


def door(mjd, flux=None, flux_err=None, band=None, **more):
    mjd = np.array(mjd, np.float64)
    flux = np.ones(len(mjd)) if flux is None else np.array(flux, np.float64)
    known = {
        **{"id": "a", "target": "a", "ra": 1.0, "dec": 2.0, "columns": {"x": 1}},
        **{"bands": ("g", "r"), "flux_unit": "uJy", **more},
    }
    err = None if flux_err is None else np.array(flux_err, np.float64)
    band = np.zeros(len(mjd), int) if band is None else np.array(band)
    return admit(mjd=mjd, flux=flux, flux_err=err, band=band, **known)


def test_the_door_drops_and_counts_broken_points_and_fills_nothing():
    nan, inf = np.nan, np.inf
    mjd = [55003, 55001, nan, 55002, 55004, 55005, 55006, -2409998.5, 55007]
    flux = [3, 1, 9, nan, inf, 5, 6, 7, 8]
    error = [0.3, 0.1, 0.1, 0.1, 0.1, 0.0, -1, 0.1, nan]
    got = door(mjd, flux, error, [1, 0, 0, 0, 0, 0, 0, 0, 1])
    assert got.mjd.tolist() == [55001, 55003, 55007]
    assert got.flux.tolist() == [1, 3, 8]
    np.testing.assert_array_equal(got.flux_err, np.float32([0.1, 0.3, nan]))
    assert got.band.tolist() == [0, 1, 1]
    assert got.columns == {"x": 1, "n_dropped": 6}


@pytest.mark.parametrize("error", [None, [0, 0, 0], [np.nan] * 3, [-99, -99, 0]])
def test_errors_without_a_positive_one_are_unknown(error):
    got = door([55000, 55001, 55002], flux_err=error)
    assert len(got.mjd) == 3 and np.isnan(got.flux_err).all() and got.columns["n_dropped"] == 0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"mjd": []}, "no usable point"),
        ({"mjd": [55000, 55001], "flux": [np.nan, np.nan]}, "no usable point"),
        ({"mjd": [55000, 55001], "flux": [1, 1e39]}, "single usable point"),
        ({"mjd": [2455000.5, 2455001.5]}, "Julian dates"),
        ({"mjd": [55000, 2455001.5]}, "mixed time systems"),
        ({"mjd": [1325.0, 58800.0]}, "mixed time systems"),
        ({"mjd": [55000.0] * 11, "max_points": 10}, "max_points = 10"),
        ({"mjd": [55000, 55001], "band": [0, 2]}, "2 bands are named"),
        ({"mjd": [55000, 55001], "dec": 91.0}, "no place on the sky"),
        ({"mjd": [55000, 55001], "id": ""}, "id is empty"),
    ],
)
def test_the_door_refuses(what, message):
    with pytest.raises(RefusedError, match=message):
        door(**what)


def test_ten_million_points_are_refused():
    n = 10_000_000
    with pytest.raises(RefusedError, match="10,000,000 points"):
        door(np.linspace(55000, 55100, n), np.ones(n, np.float32))


def test_right_ascension_west_of_the_first_point_is_wrapped():
    assert door([55000, 55001], ra=-10.0).ra == 350.0


# --- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "mjd", "scale"),
    [
        ("MJD (UTC)", 55000.0, 55000.0, "utc"),
        ("MJD UT1", 55000.0, 55000.0, "utc"),
        ("HJD", 2455000.5, 55000.0, ""),
        ("BTJD", 1325.0, 58324.5, "tdb"),
        ("BTJD = BJD-2457000", 1325.0, 58324.5, "tdb"),
        ("BKJD", 539.5, 55372.0, "tdb"),
        ("JD-2450000 or HJD as published", 551.5, 50551.0, ""),
        ("BJD-2455197.5 (TCB), Gaia", 1711.0, 56908.0, "tcb"),
        ("days since MJD 59000 TAI", 7.0, 59007.0, "tai"),
        ("JD - 2,450,000", 1.5, 50001.0, ""),
    ],
)
def test_descriptions_of_times(text, value, mjd, scale):
    system = parse_time_system(text)
    assert system.scale == scale
    assert value + system.zero == pytest.approx(mjd, abs=1e-9)


def test_an_unknown_epoch_leaves_times_alone_and_says_so():
    system = parse_time_system("days relative to maximum")
    times = np.array([-30.0, 0.0, 70.0])
    assert system.zero is None and "epoch not given" in system.name
    assert to_mjd_tdb(times, np.array([0, 3]), system).tolist() == times.tolist()


@pytest.mark.parametrize("scale", ["utc", "tai", "tt", "tcb", "tcg"])
def test_scales_agree_with_astropy(scale):
    mjd = np.sort(np.random.default_rng(1).uniform(44000, 60000, 5000))
    got = to_mjd_tdb(mjd, np.array([0, 5000]), parse_time_system(f"MJD {scale.upper()}"))
    truth = Time(mjd, format="mjd", scale=scale).tdb.mjd
    assert np.abs(got - truth).max() * 86400 < 1e-5  # [s]


def test_whole_julian_dates_are_seen_by_curve_and_mixtures_left_for_the_door():
    offsets = np.array([0, 2, 4, 6])
    times = np.array([551.5, 552.5, 2451000.5, 2451001.5, 551.5, 2451001.5])
    got = to_mjd_tdb(times, offsets, parse_time_system("JD-2450000"))
    assert got[:4].tolist() == [50551, 50552, 51000, 51001]
    with pytest.raises(RefusedError, match="mixed"):
        door(got[4:])


# --- TESS and Kepler --------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_tess_file(tmp_path, packed):
    quality = np.zeros(40, np.int32)
    quality[[2, 4]] = 128, 512  # manual exclusion; an impulsive outlier, kept by default
    flux = np.linspace(600, 640, 40).astype(np.float32)
    flux[7] = np.nan
    path = tmp_path / "a_lc.fits"
    tess_file(path, tic=9007199254740993, QUALITY=quality, PDCSAP_FLUX=flux)
    if packed:
        path.with_name("a_lc.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_name("a_lc.fits.gz")
    got = segment(fits_lightcurves, path)
    keep = np.setdiff1d(np.arange(40), [2, 7])
    # one more than 2^53: an id that passed through a float would end in 2
    assert (got.id, got.target) == (
        "TIC 9007199254740993/s0001-2-3",
        "TIC 9007199254740993",
    )
    np.testing.assert_allclose(got.mjd, 1325 + 56999.5 + keep / 720, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(got.flux, flux[keep])
    assert set(got.flux_err.tolist()) == {2.5}
    assert (got.ra, got.dec, got.bands, got.flux_unit) == (
        *(64.5, -71.25, ("TESS",)),
        "electron / s",
    )
    facts = {"sector": 1, "camera": 2, "ccd": 3, "tess_mag": 12.5, "n_flagged": 1, "n_dropped": 1}
    assert facts.items() <= got.columns.items()
    assert np.isnan(got.columns["logg"])


def test_options_of_a_tess_file(tmp_path):
    path = tmp_path / "a_lc.fits"
    quality = np.arange(40, dtype=np.int32) % 2 * 1024
    columns = tess_file(path, QUALITY=quality, cadence_s=20)
    sap = segment(fits_lightcurves, path, flux_column="sap", quality="none")
    np.testing.assert_array_equal(sap.flux, columns["SAP_FLUX"])
    assert sap.id == "TIC 1/s0001-2-3-20s"  # not to be mixed up with the star's 2-minute curve
    for word in ("hard", "hardest", 1024):
        assert len(segment(fits_lightcurves, path, quality=word).mjd) == 20
    assert "no column 'psf'" in reason(fits_lightcurves, path, flux_column="psf")
    with pytest.raises(ValueError, match="unknown quality 'soft'; choose from none, default"):
        list(fits_lightcurves.read(path, quality="soft"))


def test_kepler_and_k2_files(tmp_path):
    name = tmp_path / "kplr008462852-2010174085026_llc.fits"
    columns = kepler_file(name)
    got = segment(fits_lightcurves, name)
    assert (got.id, got.target, got.bands) == ("KIC 8462852/q05-c12", "KIC 8462852", ("Kepler",))
    np.testing.assert_allclose(got.mjd[:2], 539.5 + 54832.5 + np.arange(2) / 48, atol=1e-9)
    np.testing.assert_array_equal(got.flux, np.delete(columns["PDCSAP_FLUX"], 5))
    assert len(segment(fits_lightcurves, name, quality="hard").mjd) == 38
    name = tmp_path / "ktwo1_llc.fits"
    kepler_file(name, CAMPAIGN=3)
    assert segment(fits_lightcurves, name).id == "EPIC 8462852/c03-12"
    name = tmp_path / "kplr008462852-2010174085026_slc.fits"
    kepler_file(name, QUARTER=5, OBSMODE="short cadence")
    assert segment(fits_lightcurves, name).id == "KIC 8462852/q05-c12-sc2010174085026"


def test_damaged_fits_files_are_refused_with_a_reason(tmp_path):
    whole = tmp_path / "a_lc.fits"
    tess_file(whole)
    raw = whole.read_bytes()
    packed = gzip.compress(raw)
    damaged = {
        "empty": b"",
        "text": b"<html>404</html>" * 180,
        "half a block": raw[:-1000],
        "no image": raw[: -2 * 2880],
        "half a table": raw[: 3 * 2880],
        "half a header": raw[:2880][:-100].replace(b"END", b"XXX"),
        "bad card": raw.replace(
            b"NAXIS2  =                   40", b"NAXIS2  =                 4O "
        ),
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.fits"
        path.write_bytes(content)
        assert reason(fits_lightcurves, path), name
    for name, content in {"cut": packed[:-50], "wrong": packed[:-8] + b"\0" * 8}.items():
        path = tmp_path / f"{name}_lc.fits.gz"
        path.write_bytes(content)
        assert "not readable as FITS" in reason(fits_lightcurves, path), name
    assert "not readable" in reason(fits_lightcurves, tmp_path / "missing_lc.fits")
    image = tmp_path / "image.fits"
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(image)
    assert "no light curve" in reason(fits_lightcurves, image)
    other = tmp_path / "other.fits"
    write_fits(other, {"TIME": np.arange(4.0)}, {}, {})
    assert "neither TICID nor KEPLERID" in reason(fits_lightcurves, other)


def test_flagged_or_empty_tess_curves_are_refused(tmp_path):
    tess_file(tmp_path / "a_lc.fits", QUALITY=np.full(40, 4, np.int32))
    tess_file(tmp_path / "b_lc.fits", PDCSAP_FLUX=np.full(40, np.nan, np.float32))
    assert "no usable point" in reason(fits_lightcurves, tmp_path / "a_lc.fits")
    assert "no usable point" in reason(fits_lightcurves, tmp_path / "b_lc.fits")


@pytest.mark.real
def test_real_tess_files_against_astropy(real_data):
    paths = sorted(real_data("tess_spoc_fits").glob("*_lc.fits*"))[::4]
    assert paths
    for path in paths:
        got = segment(fits_lightcurves, path)
        header, table = fits.getheader(path, 0), fits.getdata(path, 1)
        good = (table["QUALITY"] & 175) == 0
        good &= np.isfinite(table["TIME"]) & np.isfinite(table["PDCSAP_FLUX"])
        truth = Time(table["TIME"][good].astype(float), 2457000.0, format="jd", scale="tdb")
        np.testing.assert_allclose(got.mjd, truth.mjd, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(got.flux, table["PDCSAP_FLUX"][good])
        np.testing.assert_array_equal(got.flux_err, table["PDCSAP_FLUX_ERR"][good])
        assert got.target == header["OBJECT"]
        assert f"s{header['SECTOR']:04d}-{header['CAMERA']}-{header['CCD']}" in got.id


# --- tables -----------------------------------------------------------------------------------


def long_table(order=None):
    """Three stars of four points: ids that look like numbers, two bands, a label."""
    columns = {
        "objectid": np.repeat(["007", "12345678901234567890", "9"], 4),
        "hjd": 2455000.5 + np.tile(np.arange(4.0), 3),
        "mag": 15 + np.arange(12) / 10,
        "magerr": np.full(12, 0.1),
        "filter": np.tile(["r", "g"], 6),
        "class": np.repeat(["RR", "EB", ""], 4),
    }
    return {name: values if order is None else values[order] for name, values in columns.items()}


def write_csv(path, columns, separator=","):
    lines = [separator.join(columns)]
    lines += [separator.join(map(str, cells)) for cells in zip(*columns.values())]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_form(tmp_path, form, columns):
    if form in ("csv", "tsv"):
        return write_csv(tmp_path / f"a.{form}", columns, "\t" if form == "tsv" else ",")
    if form == "csv.gz":
        plain = write_csv(tmp_path / "a.csv", columns)
        path = tmp_path / "a.csv.gz"
        path.write_bytes(gzip.compress(plain.read_bytes()))
        return path
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pq.write_table(pa.table({k: pa.array(v) for k, v in columns.items()}), path)
    else:
        Table(columns).write(path, format={"ecsv": "ascii.ecsv", "vot": "votable"}[form])
    return path


@pytest.mark.parametrize("form", ["parquet", "csv", "tsv", "csv.gz", "ecsv", "vot"])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_long_tables_in_every_format(tmp_path, form, is_sorted, monkeypatch):
    monkeypatch.setattr(tables, "GROUP_POINTS", 5)  # several walks through the file
    order = None if is_sorted else np.random.default_rng(0).permutation(12)
    columns = long_table(order)
    got = {item.id: item for item in tables.read(write_form(tmp_path, form, columns))}
    assert set(got) == {"007", "12345678901234567890", "9"}
    assert list(got) == list(dict.fromkeys(columns["objectid"].tolist())) or not is_sorted
    star = got["12345678901234567890"]
    np.testing.assert_allclose(star.mjd, 55000 + np.arange(4), atol=1e-9)
    np.testing.assert_allclose(star.flux, 10 ** (0.4 * (23.9 - (15.4 + np.arange(4) / 10))), 1e-6)
    np.testing.assert_allclose(star.flux_err, star.flux * 0.0921034, 1e-5)
    assert [star.bands[code] for code in star.band] == ["r", "g", "r", "g"]
    assert star.flux_unit == "uJy" and star.columns["label"] == "EB"
    assert "not given" in star.columns["time_ref"] and "magnitude" in star.columns["value_kind"]


def test_long_tables_are_read_in_parts(tmp_path, monkeypatch):
    for module in (tables, formats):
        monkeypatch.setattr(module, "BATCH_POINTS", 6)
    path = write_form(tmp_path, "parquet", long_table())
    assert [(item.id, len(item.mjd)) for item in tables.read(path)] == [
        *(("007", 4), ("12345678901234567890", 4), ("9", 4)),
    ]


def test_a_table_without_ids_is_one_object_named_by_its_file(tmp_path):
    path = write_csv(tmp_path / "star.7.csv", {"mjd": [55000, 55001], "flux": [1.0, 2.0]})
    got = segment(tables, path)
    assert (got.id, got.target, got.flux_unit, got.bands) == (
        *("star.7", "star.7"),
        *("relative", ("unknown",)),
    )


def test_columns_can_be_named_and_their_meaning_said(tmp_path):
    columns = {"ID": ["a", "a"], "when": [1.5, 2.5], "F": [3.0, 4.0], "mag": [9, 9]}
    path = write_csv(tmp_path / "a.csv", columns)
    got = segment(
        tables,
        path,
        columns={"jd": "when", "flux": "F", "id": "ID"},
        time="JD-2450000 TDB",
        values="flux (nJy)",
        bands=["z"],
    )
    assert got.mjd.tolist() == [50001, 50002] and got.flux.tolist() == [3, 4]
    assert (got.flux_unit, got.bands, got.columns["time_ref"]) == ("nJy", ("z",), "JD-2450000 TDB")
    assert "no column 'f' for the flux" in reason(tables, path, columns={"flux": "f"})
    with pytest.raises(ValueError, match=r"unknown column role 'fluxx' .did you mean flux"):
        check_columns({"fluxx": "F"})


def test_a_julian_date_named_as_such_in_the_mapping(tmp_path):
    path = write_csv(tmp_path / "a.csv", {"when": [2455000.5, 2455001.5], "flux": [3.0, 4.0]})
    assert segment(tables, path, columns={"bjd": "when"}).mjd.tolist() == [55000, 55001]
    # not said and not named: guessed from the values
    assert segment(tables, path, columns={"time": "when"}).mjd.tolist() == [55000, 55001]


def test_a_scale_alone_completes_what_is_guessed(tmp_path):
    path = write_csv(tmp_path / "a.csv", {"time": [55000.0, 55001.0], "flux": [3.0, 4.0]})
    got = segment(tables, path, time="UTC")
    assert got.mjd[0] == Time(55000.0, format="mjd", scale="utc").tdb.mjd
    assert got.columns["time_ref"] == "MJD UTC"
    for word in ("MJD", "HJD utc", "JD-2450000 (TAI)", "JD - 2,450,000", "days", "BTJD", ""):
        tables.check(time=word)
    for word in ("MJD GPS", "Tuesday", "MJD-"):
        with pytest.raises(ValueError, match="cannot understand the time"):
            tables.check(time=word)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"flux": [1.0, 2.0]}, "no column of time among flux"),
        ({"mjd": [1.0, 2.0], "x": [1, 2]}, "no column of flux or magnitude"),
        ({"mjd": [55000, 55001], "value": [1, 2]}, "magnitude or flux\\? say so"),
        ({"mjd": ["now", "then"], "flux": [1, 2]}, "holds no numbers"),
        ({"mjd": [2455000, 2455001], "flux": ["NaN", ""]}, "no usable point"),
        ({"mjd": [], "flux": []}, "the table has no rows"),
        ({"id": [], "mjd": [], "flux": []}, "the table has no rows"),
    ],
)
def test_tables_that_make_no_sense(tmp_path, columns, message):
    assert re.search(message, reason(tables, write_csv(tmp_path / "a.csv", columns)))


def test_damaged_tables_are_refused(tmp_path):
    whole = write_form(tmp_path, "parquet", long_table())
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:-40])
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "odd.csv").write_text("mjd,flux\n55000,1\n55001,2,3,4\n")
    (tmp_path / "bad.ecsv").write_text("# %ECSV 1.0\nnonsense")
    (tmp_path / "bad.vot").write_text("<VOTABLE>")
    for name in ("cut.parquet", "empty.csv", "odd.csv", "bad.ecsv", "bad.vot", "missing.csv"):
        assert reason(tables, tmp_path / name), name
    write_csv(tmp_path / "b.csv", {"mjd": [55000, 55001], "flux": [1.0, 2.0]})
    (tmp_path / "b.json").write_text("{")
    assert "description b.json is not readable" in reason(tables, tmp_path / "b.csv")


def test_a_described_set_needs_no_options(tmp_path):
    rows = [
        row(
            "S_s03",
            band=[0, 1, 0, 1, 0],
            label="X",
            period=0.5,
            extra=json.dumps(
                {"name": "S 1", "sector": 3, "age": 7.5, "ok": True, "list": [1], "big": 2**60}
            ),
        ),
        row("S_s09", ra=10.0, dec=-5.0, extra='{"name": "S 1", "sector": 9}'),
        row("alone", extra='{"sector": 9}'),
        row("T77_s04", extra='{"tic": "77", "sector": 4}'),
        row("jd", start=2455000.5),
        row("hole", value=[15, 99.999, None, 16, 17], err=[0.1, 0.1, 0.1, 99.999, 0.2]),
        row("one", n=1),
        row("none", n=0),
        row("uneven", err=[0.1] * 4),
        row("code", band=[0, 1, 2, 0, 0]),
        row("", n=3),
    ]
    path = described_set(
        tmp_path, "set", rows, value_kind="mag", bands=["B", "R"], time_ref="MJD TAI"
    )
    items = list(tables.read(path))
    assert len(items) == len(rows) == tables.count_items(path)
    got = {item.id: item for item in items if isinstance(item, Segment)}
    assert {key: item.target for key, item in got.items()} == {
        **{"S 1/s0003": "S 1", "S 1/s0009": "S 1", "alone": "alone", "TIC 77/s0004": "TIC 77"},
        **{"jd": "jd", "hole": "hole"},
    }
    first = got["S 1/s0003"]
    truth = {"label": "X", "period": 0.5, "age": 7.5, "ok": 1, "big": str(2**60), "sector": 3}
    assert truth.items() <= first.columns.items() and "list" not in first.columns
    assert json.loads(first.columns["extra"])["list"] == [1]
    assert first.columns["object_id"] == "S_s03" and np.isnan(first.ra)
    assert (got["S 1/s0009"].ra, got["S 1/s0009"].dec) == (10, -5)
    assert first.bands == ("B", "R") and first.band.tolist() == [0, 1, 0, 1, 0]
    assert first.mjd[0] == Time(55000, format="mjd", scale="tai").tdb.mjd
    np.testing.assert_allclose(got["jd"].mjd, first.mjd, atol=1e-9)
    assert got["hole"].columns["n_dropped"] == 3
    refused = [(item.row, item.id, item.reason) for item in items if isinstance(item, Reject)]
    assert [(number, key) for number, key, _ in refused] == [
        *((6, "one"), (7, "none"), (8, "uneven"), (9, "code"), (10, "")),
    ]
    assert "unequal length: 5 of time, 5 of value, 4 of err, 5 of band" in refused[2][2]
    assert "band codes 0 to 2, but 2 bands" in refused[3][2]


def test_nested_structs_with_one_band_a_row(tmp_path):
    lists = {"hmjd": [[55000.0, 55001.0], [55000.0]], "flux": [[1.0, 2.0], [3.0]]}
    table = pa.table(
        {
            "oid": pa.array([2**60 + 1, 5]),
            "filter": pa.array(["g", "r"]),
            "lc": pa.StructArray.from_arrays([pa.array(v) for v in lists.values()], list(lists)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = tables.read(tmp_path / "a.parquet")
    assert first.id == str(2**60 + 1)
    assert [first.bands[code] for code in first.band] == ["g", "g"]
    assert second.id == "5" and "single" in second.reason


def test_float_ids_are_refused_once_they_may_have_lost_digits(tmp_path):
    table = pa.table(
        {"id": [2.0**60, 7.0], "mjd": [[55000.0, 55001.0]] * 2, "flux": [[1.0, 2.0]] * 2}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = tables.read(tmp_path / "a.parquet")
    assert "lost digits" in first.reason and second.id == "7"


def test_units_written_in_a_table_are_used(tmp_path):
    table = Table({"time": [55000.0, 55001.0], "f": [1.0, 2.0]}, units={"f": "mJy"})
    table.write(tmp_path / "a.ecsv", format="ascii.ecsv")
    got = segment(tables, tmp_path / "a.ecsv", columns={"flux": "f"})
    assert got.flux_unit == "mJy" and got.mjd.tolist() == [55000, 55001]


def test_astropy_times_and_masks(tmp_path):
    flux = np.ma.MaskedArray([1.0, 2.0, 3.0], [False, True, False])
    when = Time([55000.0, 55001, 55002], format="mjd", scale="utc")
    Table({"time": when, "flux": flux}).write(tmp_path / "a.ecsv", format="ascii.ecsv")
    got = segment(tables, tmp_path / "a.ecsv")
    assert got.columns["n_dropped"] == 1
    np.testing.assert_allclose(got.mjd, when.tdb.mjd[[0, 2]], rtol=0, atol=1e-9)


def test_every_reader_knows_its_files(tmp_path):
    names = {
        fits_lightcurves: ["a_lc.fits", "A_LC.FITS.GZ", "a_slc.fits"],
        tables: ["a.parquet", "a.csv", "a.ecsv", "a.vot", "a.tsv.gz"],
        images: ["a.jpg", "A.JPEG", "b.png", "c.h5"],
        stamps: ["a_triplets.npy", "stamps.fits"],
        avro_alerts: ["a.avro"],
    }
    for reader in READERS:
        for name in names[reader]:
            # several may know a name; the first in the list reads it
            first = next(other for other in READERS if other.matches(tmp_path / name))
            assert first is reader, name
