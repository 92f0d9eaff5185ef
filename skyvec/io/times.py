"""The many ways to write a time, and the one kept here: MJD on the TDB scale [day]."""

import re
import warnings
from dataclasses import dataclass

import numpy as np
from astropy.time import Time
from erfa import ErfaWarning  # type: ignore[import-untyped]
from numpy.typing import NDArray

MJD0 = 2_400_000.5
"""[day] Julian date of MJD 0."""

ABSOLUTE_JD = 2_000_000.0
"""[day] A larger time is a whole Julian date, whatever the file says of offsets."""

PLACEHOLDERS = (-99.0, -999.0, -9999.0, -99999.0)
"""Values that stand for "no time" in tables of dates."""

KNOTS = 4.0
"""[day] TDB - TT moves by up to 1.7 ms over a year; straight lines over 4 d keep it to 2e-6 s."""

SCALES = ("utc", "tai", "tt", "tdb", "tcb", "tcg")
MISSION = {"btjd": 2_457_000.0, "bkjd": 2_454_833.0, "rjd": 2_400_000.0}


@dataclass(frozen=True)
class TimeSystem:
    """How a file writes its times.

    Args:
        zero: MJD of the value 0 [day]; None where the file does not say, then times are kept as
            they are and only differences mean something.
        scale: One of SCALES, or empty where the file does not say; then TDB is assumed.
        name: The description in words, kept with each curve.
    """

    zero: float | None
    scale: str
    name: str


def check_time(text: str) -> None:
    """Make sure that a caller's description of times is understood in full.

    Raises:
        ValueError: It is not; the message says what is.
    """
    names = r"(?:b|h|g|bt|bk|r)?jd|(?:b|h)?mjd"
    form = rf"days|(?:(?:{names})(?:\s*-\s*[0-9.,]+)?)?\s*\(?(?:{'|'.join(SCALES)})?\)?"
    if not re.fullmatch(form, text.strip().lower()):
        raise ValueError(
            f"cannot understand the time {text!r}; say MJD, JD, HJD, BJD, BTJD, BKJD or "
            f"JD-2450000, then a scale if known ({', '.join(SCALES).upper()}), or days"
        )


def parse_time_system(text: str) -> TimeSystem:
    """Understand a description such as ``HJD``, ``MJD (UTC)``, ``JD-2450000`` or ``BTJD``.

    An offset that is spelled out (``JD - 2450000``, ``days since MJD 59000``) wins over a name.
    Barycentric dates (BJD, BTJD, BKJD) are on TDB unless another scale is named. What is not
    understood counts as days from an epoch that is not given.
    """
    words = text.lower().replace(",", "")
    scale = next((s for s in SCALES if re.search(rf"(?<![a-z]){s}(?![a-z])", words)), "")
    zero = _zero(words)
    if zero is None:
        return TimeSystem(None, "", f"{text or 'days'}: epoch not given, times kept as they are")
    if not scale and re.search(r"(?<![a-z])(bjd|btjd|bkjd|bmjd)", words):
        scale = "tdb"
    if not scale and re.search(r"(?<![a-z])ut1?(?![a-z0-9])", words):
        scale = "utc"  # within 0.9 s, and no table of the Earth's rotation is needed
    return TimeSystem(zero, scale, text if scale else f"{text}: scale not given, taken as TDB")


def _zero(words: str) -> float | None:
    number = r"([0-9]+(?:\.[0-9]+)?)"
    minus = re.search(rf"(m?)jd\s*[-\u2212\u2013]\s*{number}", words)
    since = re.search(rf"since\s+[a-z]*?(m?)jd\s*=?\s*{number}", words)
    given = minus or since
    if given:
        return float(given[2]) - (0 if given[1] else MJD0)
    for name, julian in MISSION.items():
        if re.search(rf"(?<![a-z]){name}(?![a-z])", words):
            return julian - MJD0
    if re.search(r"(?<![a-z])[bhr]?mjd(?![a-z])", words):
        return 0.0
    return -MJD0 if re.search(r"(?<![a-z])[bhg]?jd(?![a-z])", words) else None


def guess_time_system(name: str, times: np.ndarray) -> TimeSystem:
    """Guess from a column's name, or else from its values, how its times are written.

    Args:
        name: Of the column, such as ``hjd`` or ``time``.
        times: Some of its values [day], shape (n,).
    """
    system = parse_time_system(name)
    if system.zero is not None:
        return system
    known = times[np.isfinite(times)]
    if len(known) and known.min() > ABSOLUTE_JD:
        return parse_time_system("JD")
    if len(known) and known.min() > 30_000 and known.max() < 90_000:
        return parse_time_system("MJD")
    return parse_time_system("days")


def to_mjd_tdb(
    times: NDArray[np.float64], offsets: NDArray[np.int64], system: TimeSystem
) -> NDArray[np.float64]:
    """Turn the times of many curves into MJD TDB.

    A curve whose times are all whole Julian dates is read as such even if an offset was announced:
    tables that mix the two by object exist. A curve that mixes them within itself is left for the
    door to refuse. Where whole Julian dates were announced but a curve has none, its times are
    kept as they are.

    Args:
        times: As the file has them [day], shape (offsets[-1],), may hold NaN.
        offsets: First point of each curve and the end, shape (n + 1,).
        system: How they are written.

    Returns:
        MJD TDB [day]; times without a known epoch come back unchanged.
    """
    curve = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    is_known = np.isfinite(times) & (times > -MJD0 / 4)
    if system.zero is not None:
        is_known &= ~np.isin(times, PLACEHOLDERS)
    is_whole = is_known & (times > ABSOLUTE_JD)
    n_known = np.bincount(curve, is_known, len(offsets) - 1)
    n_whole = np.bincount(curve, is_whole, len(offsets) - 1)
    all_whole = (n_whole > 0) & (n_whole == n_known)
    zero = (
        np.zeros(len(all_whole)) if system.zero is None else np.full(len(all_whole), system.zero)
    )
    if system.zero == -MJD0:
        zero[~all_whole & (n_whole == 0)] = 0.0
    zero[all_whole] = -MJD0
    mjd = np.where(is_known, times + zero[curve], np.nan)
    if system.zero is None and not all_whole.any():
        return mjd
    return _to_tdb(mjd, system.scale)


def _to_tdb(mjd: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Change the scale of what looks like a date between 1860 and 2130 [day]."""
    if scale in ("", "tdb"):
        return mjd
    is_date = np.isfinite(mjd) & (mjd > 0) & (mjd < 100_000)
    if not is_date.any():
        return mjd
    with warnings.catch_warnings():
        # UTC is not defined before 1960 nor settled for the years to come: off by a second
        warnings.simplefilter("ignore", ErfaWarning)
        dates = Time(mjd[is_date], format="mjd", scale=scale)
        changed = dates.tdb.mjd if scale == "tcb" else _tdb_from_tt(dates.tt.mjd)
    out = mjd.copy()
    out[is_date] = changed
    return out


def _tdb_from_tt(tt: NDArray[np.float64]) -> NDArray[np.float64]:
    knots = np.arange(np.floor(tt.min()), tt.max() + KNOTS, KNOTS)
    if len(knots) > len(tt):
        return Time(tt, format="mjd", scale="tt").tdb.mjd
    at = Time(knots, np.zeros_like(knots), format="mjd", scale="tt").tdb
    difference = (at.jd1 - MJD0 - knots) + at.jd2
    return tt + np.interp(tt, knots, difference)
