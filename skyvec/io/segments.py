"""The door: a raw light curve comes in, a clean segment or the reason for its refusal goes out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import MJD_RANGE

MAX_POINTS = 2_000_000
"""A longer curve is a mistake (several stars in one), or must be cut or binned by its owner."""

LONGEST_SPAN = 55_000.0
"""[day] 150 years: no survey is that old, so such a curve mixes time systems."""

Value = str | int | float


class RefusedError(ValueError):
    """A light curve cannot be taken; the message is the reason."""


@dataclass(frozen=True)
class Segment:
    """One clean light curve with all that is known of it.

    Args:
        id: Unique key of the segment.
        target: The object it belongs to.
        ra: ICRS [deg] in [0, 360), NaN where unknown.
        dec: ICRS [deg] in [-90, 90], NaN where unknown.
        mjd: TDB [day], float64, ascending, shape (n,), n >= 2.
        flux: [flux_unit], float32, finite, shape (n,).
        flux_err: One-sigma error [flux_unit], float32, > 0, NaN where unknown, shape (n,).
        band: Code into ``bands``, int16, shape (n,).
        bands: Names of the bands.
        flux_unit: Unit of flux and flux_err.
        columns: Further facts by name: texts and numbers, NaN or an empty text where unknown.
    """

    id: str
    target: str
    ra: float
    dec: float
    mjd: NDArray[np.float64]
    flux: NDArray[np.float32]
    flux_err: NDArray[np.float32]
    band: NDArray[np.int16]
    bands: tuple[str, ...]
    flux_unit: str
    columns: dict[str, Value]


def admit(
    *,
    id: str,
    target: str,
    ra: float,
    dec: float,
    mjd: np.ndarray,
    flux: np.ndarray,
    flux_err: np.ndarray | None,
    band: np.ndarray,
    bands: tuple[str, ...],
    flux_unit: str,
    columns: dict[str, Value],
    max_points: int = MAX_POINTS,
) -> Segment:
    """Clean a raw light curve, or refuse it.

    Points without a finite time or flux, and points with a zero, negative or infinite error, are
    dropped and counted in the column ``n_dropped``; a time before MJD_RANGE is a placeholder such
    as -9999 and counts as none. A curve of which no error is positive has unknown errors. Points
    out of order are sorted. Nothing is ever filled in.

    Args:
        id: Key of the segment.
        target: The object it belongs to.
        ra: ICRS [deg], NaN where unknown; -180 to 0 is wrapped.
        dec: ICRS [deg], NaN where unknown.
        mjd: TDB [day], shape (n,), in any order.
        flux: [flux_unit], shape (n,), may hold NaN.
        flux_err: [flux_unit], shape (n,); None where unknown.
        band: Code into ``bands``, shape (n,).
        bands: Names of the bands.
        flux_unit: Unit of flux and flux_err.
        columns: Further facts by name.
        max_points: A curve with more usable points is refused.

    Raises:
        RefusedError: Nothing usable is left, or the curve is not what it claims to be.
    """
    if not id:
        raise RefusedError("the id is empty")
    _check_times(mjd)
    flux32, err32 = _float32(flux), _errors(flux_err, len(flux))
    usable = (
        np.isfinite(mjd)
        & (mjd > MJD_RANGE[0])
        & np.isfinite(flux32)
        & ~(err32 <= 0)
        & ~np.isinf(err32)
    )
    n, n_usable = len(mjd), int(np.count_nonzero(usable))
    if n_usable == 0:
        raise RefusedError("no usable point: times, fluxes or errors are missing or not finite")
    if n_usable == 1:
        raise RefusedError("a single usable point; at least 2 are needed")
    if n_usable > max_points:
        raise RefusedError(
            f"{n_usable:,} points, more than max_points = {max_points:,}; "
            "cut or bin the curve, or raise max_points"
        )
    if n_usable < n:
        mjd, flux32, err32, band = mjd[usable], flux32[usable], err32[usable], band[usable]
    if (mjd[1:] < mjd[:-1]).any():
        order = np.argsort(mjd, kind="stable")
        mjd, flux32, err32, band = mjd[order], flux32[order], err32[order], band[order]
    if not (band.min() >= 0 and band.max() < len(bands)):
        raise RefusedError(
            f"band codes {band.min()} to {band.max()}, but {len(bands)} bands are named"
        )
    ra, dec = place_on_sky(ra, dec)
    return Segment(
        id,
        target,
        ra,
        dec,
        mjd.astype(np.float64, copy=False),
        flux32,
        err32,
        band.astype(np.int16, copy=False),
        bands,
        flux_unit,
        {**columns, "n_dropped": n - n_usable},
    )


def _check_times(mjd: np.ndarray) -> None:
    known = mjd[np.isfinite(mjd) & (mjd > MJD_RANGE[0])]
    if not len(known):
        return
    low, high = float(known.min()), float(known.max())
    if low >= MJD_RANGE[1]:
        raise RefusedError(
            f"times are {low:.9g} to {high:.9g}, no MJD; if they are Julian dates, say so "
            "(time = jd)"
        )
    if high >= MJD_RANGE[1] or high - low > LONGEST_SPAN:
        raise RefusedError(
            f"mixed time systems: times from {low:.9g} to {high:.9g} in one curve "
            "(JD, MJD and mission times must not be mixed)"
        )


def _float32(values: np.ndarray) -> NDArray[np.float32]:
    # what overflows is infinite afterwards, and dropped as such
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _errors(flux_err: np.ndarray | None, n: int) -> NDArray[np.float32]:
    if flux_err is None:
        return np.full(n, np.nan, np.float32)
    errors = _float32(flux_err)
    # zeros or -99 throughout are how tables say "none"
    return errors if (errors > 0).any() else np.full(n, np.nan, np.float32)


def place_on_sky(ra: float, dec: float) -> tuple[float, float]:
    """Give a position with ra in [0, 360); NaN where unknown.

    Raises:
        RefusedError: There is no such place.
    """
    if abs(dec) > 90 or ra < -180 or ra > 360:
        raise RefusedError(f"ra {ra}, dec {dec} deg is no place on the sky")
    return ra % 360.0 if ra < 0 or ra == 360 else ra, dec
