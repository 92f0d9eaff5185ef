"""Small files in the formats that surveys deliver, made with astropy and pyarrow, for tests."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits


def tess_file(path, tic=1, sector=1, camera=2, ccd=3, n=40, **changes):
    """Write a TESS light curve; give its columns as written."""
    rng = np.random.default_rng(tic)
    columns = {
        "TIME": 1325.0 + np.arange(n) / 720,
        "TIMECORR": np.zeros(n, np.float32),
        "SAP_FLUX": rng.normal(500, 2, n).astype(np.float32),
        "SAP_FLUX_ERR": np.full(n, 1.5, np.float32),
        "PDCSAP_FLUX": rng.normal(600, 2, n).astype(np.float32),
        "PDCSAP_FLUX_ERR": np.full(n, 2.5, np.float32),
        "QUALITY": np.zeros(n, np.int32),
    }
    columns |= {name: value for name, value in changes.items() if name in columns}
    primary = {
        **{"TICID": tic, "SECTOR": sector, "CAMERA": camera, "CCD": ccd},
        **{"RA_OBJ": 64.5, "DEC_OBJ": -71.25, "TESSMAG": 12.5, "TEFF": 3211.0},
    }
    seconds = changes.get("cadence_s", 120)
    table = {"BJDREFI": 2457000, "BJDREFF": 0.0, "TIMEDEL": seconds / 86400}
    return write_fits(path, columns, primary, table)


def kepler_file(path, kic=8462852, n=40, **primary):
    """Write a Kepler (or, with CAMPAIGN, a K2) light curve; give its columns as written."""
    columns = {
        "TIME": 539.5 + np.arange(n) / 48,
        "SAP_FLUX": np.linspace(10, 11, n).astype(np.float32),
        "PDCSAP_FLUX": np.linspace(20, 21, n).astype(np.float32),
        "PDCSAP_FLUX_ERR": np.full(n, 0.5, np.float32),
        "SAP_QUALITY": np.zeros(n, np.int32),
    }
    columns["SAP_QUALITY"][3] = 128  # a cosmic ray: harmless, kept by default
    columns["SAP_QUALITY"][5] = 1 << 20  # thruster firing
    head = {"KEPLERID": kic, "CHANNEL": 12, "RA_OBJ": 301.5, "DEC_OBJ": 44.5, "KEPMAG": 11.9}
    head |= {"OBSMODE": "long cadence"} | (primary or {"QUARTER": 5})
    return write_fits(path, columns, head, {"BJDREFI": 2454833, "BJDREFF": 0.0})


def write_fits(path, columns, primary, table):
    """Write a primary header, a table, and an image as the missions' files have one."""
    unit = {"TIME": "BJD - 2457000, days"}
    form = {"f8": "D", "f4": "E", "i4": "J"}
    made = [
        fits.Column(
            name,
            form[values.dtype.str[1:]],
            unit.get(name, "e-/s" if "FLUX" in name else None),
            array=values,
        )
        for name, values in columns.items()
    ]
    lightcurve = fits.BinTableHDU.from_columns(made, name="LIGHTCURVE")
    lightcurve.header.update(table)
    first = fits.PrimaryHDU()
    first.header.update({"NEXTEND": 2, **primary})
    image = fits.ImageHDU(np.zeros((11, 11), np.int32), name="APERTURE")
    fits.HDUList([first, lightcurve, image]).writeto(path)
    return columns


def described_set(folder, name, rows, **description):
    """Write a set of light curves as Parquet with its description beside it."""
    plain = {"label": "", "split": "", "ra": None, "dec": None, "period": None, "extra": "{}"}
    full = [{**plain, "n": len(row["time"]), **row} for row in rows]
    kinds = {
        **{key: pa.string() for key in ("object_id", "label", "split", "extra")},
        **{key: pa.float64() for key in ("ra", "dec", "period")},
        "n": pa.int32(),
        "time": pa.list_(pa.float64()),
        "value": pa.list_(pa.float32()),
        "err": pa.list_(pa.float32()),
        "band": pa.list_(pa.int8()),
    }
    columns = {key: pa.array([row[key] for row in full], kind) for key, kind in kinds.items()}
    pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=7)
    (folder / f"{name}.json").write_text(json.dumps(description))
    return folder / f"{name}.parquet"


def row(key, n=5, start=55000.0, **more):
    """One row of a described set."""
    time = (start + np.arange(n)).tolist()
    return {
        **{"object_id": key, "time": time, "value": np.linspace(15, 16, n).tolist()},
        **{"err": [0.1] * n, "band": [0] * n},
        **more,
    }
