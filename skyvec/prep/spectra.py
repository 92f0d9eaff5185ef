"""Power spectra of light curves of any sampling, on one grid of frequencies for all.

The sums over points are made by a fast Fourier transform of the points spread on a grid, so that a
curve of ten years down to periods of an hour takes hundredths of a second.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft, next_fast_len
from scipy.special import i0

from skyvec.prep.lightcurves import Prepared

Numbers = NDArray[np.float64]
Vectors = NDArray[np.float32]

FREQUENCY_EDGES = np.geomspace(1e-3, 24.0, 129)
"""[1/day] Limits of the cells of the spectrum: from three years to one hour."""

POWER_FLOOR = 1e-4
OVERSAMPLING = 2.0
"""Frequencies per 1 / span; a peak between two of them loses a fifth of its power at most."""
MOST_FREQUENCIES = 2**21
"""Of one curve: enough for a century at a resolution of half of 1 / span up to 24 per day."""
BLOCK = 65536
"""Frequencies at a time: what fits a processor's cache is twice as fast."""
GRID_FACTOR = 1.5
KERNEL_WIDTH = 6
_BETA = np.pi * np.sqrt((KERNEL_WIDTH / GRID_FACTOR) ** 2 * (GRID_FACTOR - 0.5) ** 2 - 0.8)


def log_power_spectrum(prepared: Prepared, *, edges: Numbers = FREQUENCY_EDGES) -> Vectors:
    """Lomb-Scargle power in cells of frequency, the same for curves of any sampling and span.

    power = 1 - chi^2(best sine at f) / chi^2(mean); a cell holds log10(1e-4 + its highest power)

    The frequencies of a curve lie half of 1 / span apart; a cell that holds none of them (below
    the resolution of the curve) is interpolated, and below the lowest the power is that at 1 / (2
    span). Bands are averaged by their number of points. Errors are not used: many surveys have
    none.

    Args:
        prepared: Light curves, n.
        edges: Limits of the cells [1/day], ascending, > 0, shape (F + 1,).

    Returns:
        Shape (n, F), float32: 0 = a pure sine, -4 = no power. A curve without scatter, or with
        fewer than three points in every band, has -4 everywhere.

    Raises:
        ValueError: Edges that do not ascend from above 0.

    References:
        Scargle 1982, ApJ 263, 835; Press & Rybicki 1989, ApJ 338, 277; the spreading kernel:
        Beatty, Nishimura & Pauly 2005, IEEE Trans. Med. Imaging 24, 799.
    """
    edges = np.asarray(edges, np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (edges[0] > 0 and (np.diff(edges) > 0).all()):
        raise ValueError("edges must ascend from above 0 per day, shape (F + 1,) with F >= 1")
    power = np.zeros((len(prepared), len(edges) - 1))
    for i in range(len(prepared)):
        inside = slice(prepared.offsets[i], prepared.offsets[i + 1])
        power[i] = _cell_power(
            prepared.time[inside], prepared.value[inside], prepared.band[inside], edges
        )
    return np.log10(POWER_FLOOR + power).astype(np.float32)


def _cell_power(time: Numbers, value: np.ndarray, band: np.ndarray, edges: Numbers) -> Numbers:
    """Highest power of one curve in each cell, (F,)."""
    n_points = np.bincount(band)
    usable = np.flatnonzero(n_points > 2)
    span = float(time[-1] - time[0]) if len(time) else 0.0
    if not len(usable) or span == 0:
        return np.zeros(len(edges) - 1)
    # a span of minutes still gets a few frequencies, one of centuries no more than memory holds
    step = float(np.clip(1 / (OVERSAMPLING * span), edges[-1] / MOST_FREQUENCIES, edges[-1] / 4))
    count = int(edges[-1] / step)
    power = np.zeros(count)
    for code in usable:
        points = band == code
        found = lomb_scargle(time[points], value[points].astype(np.float64), step, count)
        power += found * n_points[code]
    power /= n_points[usable].sum()
    frequency = step * np.arange(1, count + 1)
    first = np.searchsorted(frequency, edges)
    centres = np.sqrt(edges[:-1] * edges[1:])
    cells = np.interp(centres, frequency, power)
    holds = first[1:] > first[:-1]
    # reduceat over the cells that hold a frequency; they tile the grid from the first of them on
    starts = first[:-1][holds]
    if len(starts):
        cells[holds] = np.maximum.reduceat(power[: first[-1]], starts)
    return cells


def lomb_scargle(time: Numbers, value: Numbers, step: float, count: int) -> Vectors:
    """Lomb-Scargle power at the frequencies step, 2 step, ... count step.

    With Y = sum v exp(-i w t) and W = sum exp(-2 i w t) the best sine explains the share
    2 (N |Y|^2 - Re(Y^2 W*)) / ((N^2 - |W|^2) sum v^2), which needs no phase shift tau.

    Args:
        time: [day], shape (N,).
        value: Any level; the mean is taken off. Shape (N,).
        step: [1/day], > 0.
        count: How many frequencies.

    Returns:
        Power in [0, 1] ("standard" normalisation), shape (count,); 0 for constant values.
    """
    value = value - value.mean()
    total, n = float(value @ value), len(value)
    power = np.zeros(count, np.float32)
    if total <= 0:
        return power
    block = max(BLOCK, 8 * n)
    for first in range(1, count + 1, block):
        size = min(block, count + 1 - first)
        y = fourier_sums(time, value, first, step, size)
        w = fourier_sums(time, np.ones(n), first, 2 * step, size) / np.float32(n)
        y_power = y.real**2 + y.imag**2
        left = 1 - w.real**2 - w.imag**2
        product = (y.real**2 - y.imag**2) * w.real + 2 * y.real * y.imag * w.imag
        # where the stamps see only one phase of a wave, the other half of the fit is void
        is_void = left < 1e-4
        both = 2 * (y_power - product) / np.where(is_void, 1, left)
        share = np.where(is_void, y_power, both) / np.float32(n * total)
        power[first - 1 : first - 1 + size] = np.clip(share, 0, 1)
    return power


def fourier_sums(
    time: Numbers, weight: Numbers, first: int, step: float, count: int
) -> NDArray[np.complex64]:
    """sum_j weight_j exp(-2 pi i k step t_j) for k = first ... first + count - 1.

    The points are spread on a grid with a Kaiser-Bessel kernel, transformed, and the kernel's own
    transform is divided out: exact to about 1e-5 of the sum of the |weights|.

    Args:
        time: [day], shape (N,).
        weight: Shape (N,).
        first: The first k.
        step: [1/day], > 0.
        count: How many.

    Returns:
        Shape (count,), complex64.
    """
    size = next_fast_len(max(int(GRID_FACTOR * (count + 1)), 2 * KERNEL_WIDTH))
    half = count // 2
    wave = weight * np.exp(-2j * np.pi * ((first + half) * step * time % 1.0))
    place = (time * step % 1.0) * size
    cell = np.ceil(place - KERNEL_WIDTH / 2).astype(np.int64) + np.arange(KERNEL_WIDTH)[:, None]
    inside = np.clip(1 - (2 * (cell - place) / KERNEL_WIDTH) ** 2, 0, None)
    kernel = i0(_BETA * np.sqrt(inside))  # (width, N)
    cell = (cell % size).ravel()
    grid = np.empty(size, np.complex64)
    grid.real = np.bincount(cell, (kernel * wave.real).ravel(), size)
    grid.imag = np.bincount(cell, (kernel * wave.imag).ravel(), size)
    found = fft(grid)
    found = np.concatenate([found[size - half :], found[: count - half]])
    return np.asarray(found * _deconvolution(size, half, count))


@lru_cache(maxsize=64)
def _deconvolution(size: int, half: int, count: int) -> Vectors:
    """One over the transform of the kernel at -half ... count - half - 1 of size, (count,)."""
    k = np.arange(-half, count - half)
    root = np.sqrt(_BETA**2 - (np.pi * KERNEL_WIDTH * k / size) ** 2)
    return np.asarray(root / (KERNEL_WIDTH * np.sinh(root)), np.float32)
