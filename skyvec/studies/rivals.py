"""A classical search in the time domain, to hold directed search against: box least squares."""

import numpy as np
from astropy.timeseries import BoxLeastSquares
from numpy.typing import NDArray

from skyvec.analysis.matched import CELL, binned
from skyvec.schema import LightCurves


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
        cells, residual, scatter = binned(curves, i, flat)
        if len(cells) < 10:
            continue
        search = BoxLeastSquares(cells * CELL, residual, dy=scatter)
        best[i] = np.nanmax(search.power(periods, durations, objective="snr").power)
    return best
