"""Two classical searches in the time domain, to hold directed search against."""

import numpy as np
from astropy.timeseries import BoxLeastSquares
from numpy.typing import NDArray

from skyvec.schema import LightCurves

CELL = 0.02
"""[day] Step of the time grid on which templates are shifted."""


def _residuals(curves: LightCurves, i: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Time since the start [day], relative residual and its scatter of one curve."""
    part = slice(curves.offsets[i], curves.offsets[i + 1])
    time = curves.mjd[part] - curves.mjd[part.start] if part.stop > part.start else np.zeros(0)
    flux = curves.flux[part].astype(np.float64)
    if len(flux) < 3:
        return time, np.zeros(len(flux)), 1.0
    level = np.median(flux)
    residual = (flux - level) / max(abs(level), 1e-12)
    scatter = 1.4826 * np.median(np.abs(residual))
    return time, residual, max(float(scatter), 1e-12)


def box_least_squares(
    curves: LightCurves, periods: NDArray[np.float64], durations: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Highest signal-to-noise of a box-shaped dip over all trial periods, (n,).

    Args:
        curves: n light curves.
        periods: Trial periods [day].
        durations: Trial durations [day], all shorter than the shortest period.

    References:
        Kovacs, Zucker & Mazeh 2002, A&A 391, 369, as implemented by astropy.
    """
    best = np.zeros(len(curves))
    for i in range(len(curves)):
        time, residual, scatter = _residuals(curves, i)
        if len(time) < 10:
            continue
        search = BoxLeastSquares(time, residual, dy=scatter)
        best[i] = np.nanmax(search.power(periods, durations, objective="snr").power)
    return best


def matched_filter(curves: LightCurves, template: NDArray[np.float64]) -> NDArray[np.float64]:
    """Highest signal-to-noise of a template over all its shifts in time, (n,).

    S/N(s) = sum_j r_j T(t_j - s) / (sigma sqrt(sum_j T(t_j - s)^2)), on a grid of CELL days by
    two Fourier transforms a curve. The shape and period are known, the phase is not: no search
    in the time domain without trends can do better against white noise.

    Args:
        curves: n light curves.
        template: Relative change of flux (0 = none) at steps of CELL days, shape (m,).

    References:
        Turin 1960, IRE Trans. Inf. Theory 6, 311.
    """
    best = np.zeros(len(curves))
    spectra: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for i in range(len(curves)):
        time, residual, scatter = _residuals(curves, i)
        if len(time) < 3:
            continue
        cells = np.round(time / CELL).astype(int)
        size = 1 << int(np.ceil(np.log2(cells[-1] + len(template) + 1)))
        if size not in spectra:
            transforms = (np.fft.rfft(template, size), np.fft.rfft(template**2, size))
            spectra[size] = (transforms[0].conj(), transforms[1].conj())
        shape, square = spectra[size]
        signal = np.bincount(cells, residual, size)
        count = np.bincount(cells, minlength=size)
        top = np.fft.irfft(np.fft.rfft(signal) * shape, size)
        power = np.fft.irfft(np.fft.rfft(count) * square, size)
        enough = power > 0.02 * power.max()
        best[i] = np.max(top[enough] / np.sqrt(power[enough])) / scatter
    return best
