"""Two classical searches in the time domain, to hold directed search against.

Both see curves averaged in cells of CELL days, and may see them flattened: less a running median,
as is usual before a search for transits, since slow changes of the star are no white noise.
"""

from typing import NamedTuple

import numpy as np
from astropy.timeseries import BoxLeastSquares
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from skyvec.schema import LightCurves

CELL = 0.02
"""[day] Step of the time grid on which templates are shifted."""

FLAT = 1.5
"""[day] Window of the running median."""


class _Binned(NamedTuple):
    """One curve by cells of time: which cells, mean relative residual there, its scatter."""

    cells: NDArray[np.int64]
    residual: NDArray[np.float64]
    scatter: float


def _binned(curves: LightCurves, i: int, flat: float) -> _Binned:
    part = slice(curves.offsets[i], curves.offsets[i + 1])
    flux = curves.flux[part].astype(np.float64)
    if len(flux) < 3:
        return _Binned(np.zeros(0, np.int64), np.zeros(0), 1.0)
    cell = np.round((curves.mjd[part] - curves.mjd[part.start]) / CELL).astype(np.int64)
    cells, place, count = np.unique(cell, return_inverse=True, return_counts=True)
    level = float(np.median(flux))
    mean = np.bincount(place, flux) / count
    residual = flatten((mean - level) / max(abs(level), 1e-12), cells, flat)
    scatter = 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
    return _Binned(cells, residual, max(scatter, 1e-12))


def flatten(
    residual: NDArray[np.float64], cells: NDArray[np.int64], window: float = FLAT
) -> NDArray[np.float64]:
    """Take a running median away.

    Args:
        residual: Mean of each cell of time, shape (m,).
        cells: Which cells, ascending, shape (m,).
        window: Length of the running median [day]; 0 leaves the values as they are.
    """
    if not window or len(residual) < 3:
        return residual
    step = max(float(np.median(np.diff(cells))), 1.0) * CELL
    width = min(2 * int(window / step / 2) + 1, len(residual))
    return np.asarray(residual - median_filter(residual, size=max(width, 3), mode="nearest"))


def box_least_squares(
    curves: LightCurves,
    periods: NDArray[np.float64],
    durations: NDArray[np.float64],
    *,
    flat: float = 0.0,
) -> NDArray[np.float64]:
    """Highest signal-to-noise of a box-shaped dip over all trial periods, (n,).

    Args:
        curves: n light curves.
        periods: Trial periods [day].
        durations: Trial durations [day], all shorter than the shortest period.
        flat: Window of the running median taken away before [day]; 0 for none.

    References:
        Kovacs, Zucker & Mazeh 2002, A&A 391, 369, as implemented by astropy.
    """
    best = np.zeros(len(curves))
    for i in range(len(curves)):
        cells, residual, scatter = _binned(curves, i, flat)
        if len(cells) < 10:
            continue
        search = BoxLeastSquares(cells * CELL, residual, dy=scatter)
        best[i] = np.nanmax(search.power(periods, durations, objective="snr").power)
    return best


def matched_filter(
    curves: LightCurves, templates: NDArray[np.float64], *, flat: float = 0.0
) -> NDArray[np.float64]:
    """Highest signal-to-noise of any template over all its shifts in time, (n,).

    S/N(s) = sum_j r_j T(t_j - s) / (sigma sqrt(sum_j T(t_j - s)^2)), on a grid of CELL days by
    two Fourier transforms a curve. The shapes are known, the phase is not: no search in the time
    domain without trends can do better against white noise.

    Args:
        curves: n light curves.
        templates: Relative change of flux (0 = none) at steps of CELL days, shape (m,) or, for
            several, (b, m).
        flat: Window of the running median taken away from curves and templates [day].

    References:
        Turin 1960, IRE Trans. Inf. Theory 6, 311.
    """
    bank = np.atleast_2d(templates)
    if flat:
        # nothing comes before and after a template, so that a dip at its edge is no trend
        bank = np.pad(bank, ((0, 0), (round(flat / CELL), round(flat / CELL))))
        bank = np.stack([flatten(one, np.arange(len(one)), flat) for one in bank])
    best = np.zeros(len(curves))
    spectra: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for i in range(len(curves)):
        cells, residual, scatter = _binned(curves, i, flat)
        if len(cells) < 3:
            continue
        size = 1 << int(np.ceil(np.log2(cells[-1] + bank.shape[1] + 1)))
        if size not in spectra:
            transforms = (np.fft.rfft(bank, size), np.fft.rfft(bank**2, size))
            spectra[size] = (transforms[0].conj(), transforms[1].conj())
        shape, square = spectra[size]
        signal = np.bincount(cells, residual, size)
        count = np.bincount(cells, minlength=size)
        top = np.fft.irfft(np.fft.rfft(signal) * shape, size)
        power = np.fft.irfft(np.fft.rfft(count) * square, size)
        enough = power > np.maximum(0.02 * power.max(axis=1, keepdims=True), 1e-300)
        found = np.where(enough, top / np.sqrt(np.where(enough, power, 1)), -np.inf)
        best[i] = np.max(found) / scatter
    return best
