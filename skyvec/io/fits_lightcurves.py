"""Light curves of TESS (``*_lc.fits``) and of Kepler and K2 (``*_llc.fits``, ``*_slc.fits``).

One file holds one segment. Times are BTJD or BKJD on TDB at the barycentre:
MJD = TIME + BJDREFI + BJDREFF - 2400000.5 [day].
"""

import gzip
import math
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from skyvec.io.segments import MAX_POINTS, RefusedError, Segment, Value, admit
from skyvec.schema import FLUX_UNIT_RELATIVE, Reject

OPTIONS = ("flux_column", "quality", "max_points")
ENDINGS = (".fits", ".fit", ".fits.gz", ".fit.gz")
BLOCK, CARD = 2880, 80
"""[byte] FITS files come in blocks, headers in cards (FITS standard 4.0, section 3)."""

_END = b"END" + b" " * (CARD - 3)
FORMS = {"L": "i1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
"""numpy's name of each form of a column (FITS standard 4.0, table 18)."""

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
    except (zlib.error, fits.VerifyError) as error:
        yield Reject(str(path), 0, "", f"not readable as FITS: {_one_line(error)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Table(NamedTuple):
    """A binary table extension: its header and its rows as a structured array."""

    header: fits.Header
    rows: np.ndarray
    units: dict[str, str]


def _segment(path: Path, flux_column: str, quality: str | int, max_points: int) -> Segment:
    raw = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        raw = gzip.decompress(raw)
    if not raw.startswith(b"SIMPLE"):
        raise RefusedError("no FITS file" if raw else "the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # of cards we do not use
        primary, table = _first_table(raw)
        if "TIME" not in (table.rows.dtype.names or ()):
            raise RefusedError("no light curve: the first extension has no column TIME")
        return _curve(path, primary, table, flux_column, quality, max_points)


def _first_table(raw: bytes) -> tuple[fits.Header, _Table]:
    """Primary header and first extension, once the whole file is known to be there.

    Decoding the rows here takes a third of the time that astropy's general tables take.
    """
    parts = []
    place = 0
    while place < len(raw):
        header, start = _header(raw, place)
        place = start + _padded(_data_size(header))
        if place > len(raw):
            raise RefusedError(f"truncated: {len(raw):,} bytes, but {place:,} are announced")
        parts.append((header, start))
    announced = parts[0][0].get("NEXTEND")
    if isinstance(announced, int) and len(parts) < announced + 1:
        raise RefusedError(f"truncated: {len(parts) - 1} extensions of {announced}")
    if len(parts) < 2 or parts[1][0].get("XTENSION") != "BINTABLE":
        raise RefusedError("no light curve: there is no binary table")
    header, start = parts[1]
    dtype, units = _row_type(header)
    return parts[0][0], _Table(header, np.frombuffer(raw, dtype, header["NAXIS2"], start), units)


def _header(raw: bytes, place: int) -> tuple[fits.Header, int]:
    """The header that begins at a place, and where its data begin."""
    end = raw.find(_END, place)
    while end >= 0 and (end - place) % CARD:
        end = raw.find(_END, end + 1)
    if end < 0:
        raise RefusedError("truncated: a header has no end")
    header = fits.Header.fromstring(raw[place:end].decode("ascii"))
    return header, place + _padded(end + CARD - place)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // BLOCK) * BLOCK


def _data_size(header: fits.Header) -> int:
    lengths = [int(header[f"NAXIS{i + 1}"]) for i in range(int(header["NAXIS"]))]
    if not lengths:
        return 0
    size = math.prod(lengths) + int(header.get("PCOUNT", 0))
    return abs(int(header["BITPIX"])) // 8 * int(header.get("GCOUNT", 1)) * size


def _row_type(header: fits.Header) -> tuple[np.dtype, dict[str, str]]:
    fields: list[tuple[str, str]] = []
    units = {}
    for i in range(1, int(header["TFIELDS"]) + 1):
        name, form = str(header[f"TTYPE{i}"]).upper(), str(header[f"TFORM{i}"]).strip()
        found = re.match(r"(\d*)([LBIJKED])$", form)
        if not found or f"TSCAL{i}" in header or f"TZERO{i}" in header:
            raise RefusedError(f"the column {name} has the form {form}, which light curves lack")
        # a repeated element keeps its place in the row; nobody asks for its values
        repeat = found[1] or "1"
        fields.append((name, FORMS[found[2]] if repeat == "1" else f"{repeat}{FORMS[found[2]]}"))
        units[name] = str(header.get(f"TUNIT{i}", ""))
    return np.dtype(fields), units


def _curve(
    path: Path,
    primary: fits.Header,
    table: _Table,
    flux_column: str,
    quality: str | int,
    max_points: int,
) -> Segment:
    is_tess = "TICID" in primary
    if not is_tess and "KEPLERID" not in primary:
        raise RefusedError("no TESS or Kepler light curve: neither TICID nor KEPLERID is given")
    header, rows = table.header, table.rows
    names = rows.dtype.names or ()
    flux_name = _find(names, flux_column)
    zero = int(header["BJDREFI"]) - 2_400_000 + float(header.get("BJDREFF", 0.0)) - 0.5
    bits = rows[_find(names, "QUALITY" if is_tess else "SAP_QUALITY")]
    masks = TESS_QUALITY if is_tess else KEPLER_QUALITY
    is_good = (bits & (masks[quality] if isinstance(quality, str) else quality)) == 0
    error_name = f"{flux_name}_ERR"
    target, part, columns = _tess(primary, header) if is_tess else _kepler(primary, path)
    flux = rows[flux_name][is_good].astype(np.float64)
    return admit(
        id=f"{target}/{part}",
        target=target,
        ra=_number(primary, "RA_OBJ"),
        dec=_number(primary, "DEC_OBJ"),
        mjd=rows["TIME"][is_good].astype(np.float64) + zero,
        flux=flux,
        flux_err=rows[error_name][is_good].astype(np.float64) if error_name in names else None,
        band=np.zeros(len(flux), np.int16),
        bands=("TESS" if is_tess else "Kepler",),
        flux_unit=table.units[flux_name].replace("e-/s", "electron / s") or FLUX_UNIT_RELATIVE,
        columns={
            **columns,
            "cadence_s": round(float(header.get("TIMEDEL", np.nan)) * 86_400, 3),
            "flux_column": flux_name,
            "n_flagged": int(np.count_nonzero(~is_good)),
            "time_ref": "BTJD TDB" if is_tess else "BKJD TDB",
        },
        max_points=max_points,
    )


def _find(names: Sequence[str], wanted: str) -> str:
    """Give the column of a name, also of its short form."""
    for name in (wanted.upper(), f"{wanted.upper()}_FLUX"):
        if name in names:
            return name
    raise RefusedError(f"no column {wanted!r}; there are {', '.join(names)}")


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
