"""Light curves of TESS (``*_lc.fits``) and of Kepler and K2 (``*_llc.fits``, ``*_slc.fits``).

One file holds one segment. Times are BTJD or BKJD on TDB at the barycentre:
MJD = TIME + BJDREFI + BJDREFF - 2400000.5 [day].
"""

import gzip
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from skyvec.io.segments import MAX_POINTS, RefusedError, Segment, Value, admit
from skyvec.schema import FLUX_UNIT_RELATIVE, Reject

OPTIONS = ("flux_column", "quality", "max_points")
ENDINGS = (".fits", ".fit", ".fits.gz", ".fit.gz")
BLOCK = 2880
"""[byte] A whole FITS file is a multiple of this."""

TESS_QUALITY = {"none": 0, "default": 175, "hard": 7_407, "hardest": 65_535}
KEPLER_QUALITY = {"none": 0, "default": 1_130_799, "hard": 1_664_431, "hardest": 2_096_639}
"""Bits whose cadences are dropped. The default holds only what is certainly useless (attitude
tweak, safe mode, coarse point, Earth point, desaturation, manual exclusion; for Kepler also
detector anomaly, no data and thruster firing), the same choice as lightkurve's."""

TESS_FACTS = {
    "tess_mag": "TESSMAG",
    "teff": "TEFF",
    "logg": "LOGG",
    "radius": "RADIUS",
}
KEPLER_FACTS = {
    "kepler_mag": "KEPMAG",
    "teff": "TEFF",
    "logg": "LOGG",
    "radius": "RADIUS",
}


def matches(path: Path) -> bool:
    """Say whether a file's name is that of a FITS file."""
    return path.name.lower().endswith(ENDINGS)


def count_items(path: Path) -> int | None:
    """How many segments a file holds: one."""
    return 1


def check(*, quality: str | int = "default", **others: object) -> None:
    """Make sure that options mean something.

    Raises:
        ValueError: An unknown word for ``quality``.
    """
    if isinstance(quality, str) and quality not in TESS_QUALITY:
        raise ValueError(
            f"unknown quality {quality!r}; choose from {', '.join(TESS_QUALITY)} or a number"
        )


def read(
    path: Path,
    *,
    flux_column: str = "pdcsap",
    quality: str | int = "default",
    max_points: int = MAX_POINTS,
) -> Iterator[Segment | Reject]:
    """Read the one segment of a file.

    Args:
        path: A FITS file, plain or gzipped.
        flux_column: ``pdcsap``, ``sap`` or the full name of a column; ``X_ERR`` is its error.
        quality: Points with any of these bits are dropped: ``default``, ``none``, ``hard``,
            ``hardest`` or a number.
        max_points: A curve with more usable points is refused.

    Yields:
        The segment, or why there is none.

    Raises:
        ValueError: An unknown word for ``quality``.
    """
    check(quality=quality)
    try:
        yield _segment(path, flux_column, quality, max_points)
    except RefusedError as error:
        yield Reject(str(path), 0, "", str(error))
    # whatever a damaged header or table makes of itself inside astropy
    except (OSError, ValueError, TypeError, LookupError, EOFError, AttributeError) as error:
        yield Reject(str(path), 0, "", f"not readable as FITS: {_one_line(error)}")
    except (zlib.error, struct.error, fits.VerifyError, MemoryError) as error:
        yield Reject(str(path), 0, "", f"not readable as FITS: {_one_line(error)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _segment(path: Path, flux_column: str, quality: str | int, max_points: int) -> Segment:
    raw = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        raw = gzip.decompress(raw)
    if not raw:
        raise RefusedError("the file is empty")
    if len(raw) % BLOCK:
        raise RefusedError(f"truncated: {len(raw):,} bytes are no whole number of FITS blocks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # of cards we do not use
        with fits.open(io.BytesIO(raw), memmap=False, lazy_load_hdus=True) as hdus:
            primary = hdus[0].header
            if len(hdus) < 2 or "TIME" not in getattr(hdus[1], "columns", _NO_COLUMNS).names:
                raise RefusedError("no light curve: the first extension has no column TIME")
            return _curve(path, primary, hdus[1], flux_column, quality, max_points)


_NO_COLUMNS = fits.ColDefs([])


def _curve(
    path: Path,
    primary: fits.Header,
    hdu: fits.BinTableHDU,
    flux_column: str,
    quality: str | int,
    max_points: int,
) -> Segment:
    is_tess = "TICID" in primary
    if not is_tess and "KEPLERID" not in primary:
        raise RefusedError("no TESS or Kepler light curve: neither TICID nor KEPLERID is given")
    names = hdu.columns.names
    flux_name = _find(names, flux_column)
    header = hdu.header
    zero = int(header["BJDREFI"]) - 2_400_000 + float(header.get("BJDREFF", 0.0)) - 0.5
    bits = np.asarray(hdu.data[_find(names, "QUALITY" if is_tess else "SAP_QUALITY")])
    masks = TESS_QUALITY if is_tess else KEPLER_QUALITY
    is_good = (bits & (masks[quality] if isinstance(quality, str) else quality)) == 0
    error_name = f"{flux_name}_ERR"
    facts = _tess(primary, header) if is_tess else _kepler(primary, path)
    target, part, columns = facts
    flux = np.asarray(hdu.data[flux_name], np.float64)[is_good]
    return admit(
        id=f"{target}/{part}",
        target=target,
        ra=_number(primary, "RA_OBJ"),
        dec=_number(primary, "DEC_OBJ"),
        mjd=np.asarray(hdu.data["TIME"], np.float64)[is_good] + zero,
        flux=flux,
        flux_err=np.asarray(hdu.data[error_name])[is_good] if error_name in names else None,
        band=np.zeros(len(flux), np.int16),
        bands=("TESS" if is_tess else "Kepler",),
        flux_unit=_unit(hdu, flux_name),
        columns={
            **columns,
            "cadence_s": round(float(header.get("TIMEDEL", np.nan)) * 86_400, 3),
            "flux_column": flux_name,
            "n_flagged": int(np.count_nonzero(~is_good)),
            "time_ref": "BTJD TDB" if is_tess else "BKJD TDB",
        },
        max_points=max_points,
    )


def _find(names: list[str], wanted: str) -> str:
    """Give the column of a name, also of its short form."""
    for name in (wanted.upper(), f"{wanted.upper()}_FLUX"):
        if name in names:
            return name
    raise RefusedError(f"no column {wanted!r}; there are {', '.join(names)}")


def _unit(hdu: fits.BinTableHDU, name: str) -> str:
    unit = (hdu.columns[name].unit or "").replace("e-/s", "electron / s")
    return unit or FLUX_UNIT_RELATIVE


def _number(header: fits.Header, key: str) -> float:
    """A header's number, NaN where its card is missing or empty."""
    value = header.get(key)
    return float(value) if isinstance(value, int | float) else float("nan")


def _tess(primary: fits.Header, header: fits.Header) -> tuple[str, str, dict[str, Value]]:
    sector, camera, ccd = (int(primary[key]) for key in ("SECTOR", "CAMERA", "CCD"))
    part = f"s{sector:04d}-{camera}-{ccd}"
    seconds = round(float(header.get("TIMEDEL", 120 / 86_400)) * 86_400)
    if seconds != 120:
        part += f"-{seconds}s"  # the same stars are delivered at other cadences too
    columns: dict[str, Value] = {"sector": sector, "camera": camera, "ccd": ccd}
    columns |= {name: _number(primary, key) for name, key in TESS_FACTS.items()}
    return f"TIC {int(primary['TICID'])}", part, columns


def _kepler(primary: fits.Header, path: Path) -> tuple[str, str, dict[str, Value]]:
    channel = int(primary["CHANNEL"])
    is_k2 = "CAMPAIGN" in primary
    number = int(primary["CAMPAIGN" if is_k2 else "QUARTER"])
    part = f"c{number:02d}-{channel}" if is_k2 else f"q{number:02d}-c{channel}"
    if str(primary.get("OBSMODE", "")).lower().startswith("short"):
        # a quarter has three files at short cadence, told apart by the stamp in their names
        stamp = re.search(r"-(\d{13})_slc", path.name)
        part += f"-sc{stamp[1] if stamp else ''}"
    columns: dict[str, Value] = {"campaign" if is_k2 else "quarter": number, "channel": channel}
    columns |= {name: _number(primary, key) for name, key in KEPLER_FACTS.items()}
    return f"{'EPIC' if is_k2 else 'KIC'} {int(primary['KEPLERID'])}", part, columns
