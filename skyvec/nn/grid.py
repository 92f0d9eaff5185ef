"""Ragged series on regular grids: soft-binned cells, power spectra, folded profiles.

Parts that know series and nothing else. All of them are sums over points, made in one compiled
pass (:mod:`skyvec.nn.kernels`): they need no padding, carry no gradient, and give a series the
same numbers alone or in any batch.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skyvec.nn import kernels
from skyvec.nn.ragged import Ragged

CHUNK = 2**20
"""Spectra are computed so many grid cells at a time, to stay within the processor's cache."""


class Samples(NamedTuple):
    """Weighted, centred samples of n series in D bands, N of them.

    Args:
        time: float64, (N,), ascending within a series.
        value: Weighted mean zero within each series and band, float32, (N,).
        weight: Positive, float32, (N,).
        band: int64, (N,).
        offsets: First sample of each series and the end, int64, (n + 1,).
        total: Sum of the weights, float32, (n, D).
        square: Weighted sum of squares, float32, (n,).
    """

    time: NDArray[np.float64]
    value: NDArray[np.float32]
    weight: NDArray[np.float32]
    band: NDArray[np.int64]
    offsets: NDArray[np.int64]
    total: NDArray[np.float32]
    square: NDArray[np.float32]

    @property
    def n(self) -> int:
        """Number of series."""
        return len(self.offsets) - 1


class Peaks(NamedTuple):
    """Where spectra are highest: frequency (n, m) float64 and power (n, m), highest first."""

    frequency: Tensor
    power: Tensor


class Spectrum(NamedTuple):
    """Power of n series pooled into bins of log frequency.

    Args:
        highest: Greatest power in each bin, 0 in a bin that a series cannot fill, (n, bins).
        peaks: The highest bins' peaks, refined between the frequencies of the transform.
    """

    highest: Tensor
    peaks: Peaks


class Look(NamedTuple):
    """Plain sums over each series.

    Args:
        grid: Sums of 1, x and x^2 by time cell, hat weights, (n, 3, D, cells).
        levels: Points by value from -clip to clip, (n, D, levels).
        moments: Means of x^3, x^4, squared steps and known errors (0 without), (n, 4).
    """

    grid: Tensor
    levels: Tensor
    moments: Tensor


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().contiguous().numpy()


def samples(batch: Ragged, bands: int, clip: float) -> Samples:
    """Points as a period search takes them: outliers bent, weighted by their errors, centred.

    value = clip tanh(x / clip) - weighted mean of its band; weight = 1 / (1 + (e / <e>)^2), 1/2
    where the error is unknown.
    """
    value = np.empty(len(batch.time), np.float32)
    weight = np.empty_like(value)
    total, square = np.zeros((batch.n, bands), np.float32), np.zeros(batch.n, np.float32)
    band, offsets = _array(batch.band), _array(batch.offsets)
    kernels.bend_and_weigh(
        _array(batch.value), _array(batch.error), band, offsets, bands, clip,
        value, weight, total, square,
    )  # fmt: skip
    return Samples(_array(batch.time.double()), value, weight, band, offsets, total, square)


def look(batch: Ragged, bands: int, *, cells: int, levels: int, clip: float) -> Look:
    """Gather time cells, histogram and moments of each series in one pass."""
    grid = np.zeros((batch.n, 3, bands, cells), np.float32)
    counts = np.zeros((batch.n, bands, levels), np.float32)
    moments = np.zeros((batch.n, 4), np.float32)
    kernels.look_over(
        _array(batch.time.double()), _array(batch.value), _array(batch.error),
        _array(batch.band), _array(batch.offsets), clip, grid, counts, moments,
    )  # fmt: skip
    return Look(*(torch.from_numpy(x) for x in (grid, counts, moments)))


def spectra(
    samples: Samples,
    *,
    f_min: float,
    f_max: float,
    bins: int,
    peaks: int,
    oversample: float = 3.0,
    longest: int = 2**18,
) -> Spectrum:
    """Power spectra by FFT, each series on the grid its own span asks for.

    Samples are shared out on a uniform grid of step dt = 1 / (2 f_max), transformed with length
    2^k >= oversample * span / dt, and divided by the transform of the hat. Power is the share of
    the weighted scatter that a sinusoid at this frequency takes away, bands free in amplitude
    and phase: in [0, 1], about 2 / N for noise. Where 2^k would exceed ``longest`` dt is doubled
    until it does not, and the highest bins stay empty.

    Args:
        samples: Series.
        f_min: Lower edge of the lowest bin.
        f_max: Upper edge of the highest bin.
        bins: Number of bins, equal in log frequency.
        peaks: Number of peaks to return, at most one a bin.
        oversample: Transform length in units of the least that resolves 1 / span.
        longest: Greatest transform length, a power of two.

    References:
        Press & Rybicki 1989, ApJ 338, 277.
    """
    n, bands = samples.total.shape
    span = _span(samples)
    least = np.maximum(2 * f_max * oversample * span, 64)
    level = np.ceil(np.log2(least)).astype(np.int64)
    edges = np.logspace(math.log10(f_min), math.log10(f_max), bins + 1)
    highest, frequency = np.zeros((n, bins), np.float32), np.zeros((n, bins))
    for value in np.unique(level).tolist():
        length, step = min(2**value, longest), max(1, 2**value // longest)
        df = 2 * f_max / (step * length)
        index = np.round(edges / df).astype(np.int64)
        members = np.flatnonzero(level == value)
        size = max(1, CHUNK // (length * bands))
        for first in range(0, len(members), size):
            group = members[first : first + size]
            found = np.zeros((len(group), bins), np.float32)
            place = np.zeros((len(group), bins))
            # one cycle in the span is the slowest that can be seen
            lowest = np.ceil(1 / np.maximum(span[group] * df, 1e-9))
            wave = _transform(samples, group, length, step / (2 * f_max))
            kernels.pool_power(wave, _hat(length), index, lowest, found, place)
            highest[group], frequency[group] = found, place * df
    table = torch.from_numpy(highest)
    power, chosen = table.topk(peaks, 1)
    return Spectrum(table, Peaks(torch.from_numpy(frequency).gather(1, chosen), power))


def _span(samples: Samples) -> NDArray[np.float64]:
    """Time of the last sample, 0 for an empty series, (n,)."""
    span = np.zeros(samples.n)
    occupied = samples.offsets[1:] > samples.offsets[:-1]
    span[occupied] = samples.time[samples.offsets[1:][occupied] - 1]
    return span


def _transform(
    samples: Samples, group: NDArray[np.int64], length: int, dt: float
) -> NDArray[np.complex64]:
    """Transforms of some series, scaled so that |.|^2 is a share of the scatter, (g, D, k)."""
    total, square = samples.total[group], samples.square[group, None]
    scale = np.sqrt(2 / (np.maximum(total, 1e-9) * np.maximum(square, 1e-9)))
    grid = np.zeros((*total.shape, length), np.float32)
    kernels.share_out(
        samples.time, samples.value, samples.weight, samples.band, samples.offsets,
        group, scale, dt, grid,
    )  # fmt: skip
    return torch.fft.rfft(torch.from_numpy(grid)).numpy()


@lru_cache(maxsize=32)
def _hat(length: int) -> NDArray[np.float32]:
    """One over the power that sharing out with hat weights leaves, (length / 2,)."""
    return (np.sinc(np.arange(length // 2) / length) ** -4).astype(np.float32)


def fold(
    samples: Samples, frequency: Tensor, cells: int, epoch: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fold every series on frequencies of its own.

    Args:
        samples: Series.
        frequency: m for each series, float64, (n, m).
        cells: Phase cells.
        epoch: Time of phase zero, float64, (n,); 0 by default.

    Returns:
        Weighted sum of the values and sum of the weights in each cell, (n, m, D, cells) each.
    """
    n, bands = samples.total.shape
    total = np.zeros((n, frequency.shape[1], bands, cells), np.float32)
    mass = np.zeros_like(total)
    start = np.zeros(n) if epoch is None else _array(epoch)
    kernels.fold_all(
        samples.time, samples.value, samples.weight, samples.band, samples.offsets,
        _array(frequency), start, total, mass,
    )  # fmt: skip
    return torch.from_numpy(total), torch.from_numpy(mass)


def smooth_profile(total: Tensor, weight: Tensor, prior: float = 1.0) -> Tensor:
    """Mean of each cell and its two neighbours around the circle, drawn to 0 by a prior weight."""

    def around(x: Tensor) -> Tensor:
        return x + 0.5 * (x.roll(1, -1) + x.roll(-1, -1))

    return around(total) / (around(weight) + prior)


def explained(total: Tensor, weight: Tensor, square: Tensor) -> Tensor:
    """Share of the weighted scatter that a smoothed profile takes away.

    Args:
        total: (n, m, D, cells), as :func:`fold` gives it.
        weight: The same shape.
        square: Weighted sum of squares of each series, (n,).

    Returns:
        Shape (n, m).
    """
    profile = smooth_profile(total, weight)
    gain = 2 * total * profile - weight * profile**2
    return gain.sum((2, 3)) / square.clamp(min=1e-9)[:, None]


def best_frequency(samples: Samples, peaks: Peaks, cells: int = 16) -> tuple[Tensor, Tensor]:
    """Choose the peak whose folded profile explains most, folded once and twice over.

    A sinusoid's power prefers aliases for profiles that are far from a sinusoid; profiles do not.

    Returns:
        Frequency (n,) and the shares explained, by the profile at the period and at twice the
        period, (n, 2).
    """
    square = torch.from_numpy(samples.square)
    total, weight = fold(samples, peaks.frequency / 2, 2 * cells)
    halves = [x[..., :cells] + x[..., cells:] for x in (total, weight)]
    once, twice = explained(halves[0], halves[1], square), explained(total, weight, square)
    choice = (once + twice).argmax(1)
    rows = torch.arange(samples.n)
    shares = torch.stack([once[rows, choice], twice[rows, choice]], 1)
    return peaks.frequency[rows, choice], shares
