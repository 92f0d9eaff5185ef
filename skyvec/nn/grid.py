"""Ragged series on regular grids: soft-binned cells, power spectra, folded profiles.

Parts that know series and nothing else. All of them are sums over points, so they cost a few
nanoseconds a point, need no padding, and give a series the same numbers alone or in any batch.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 2**19
"""Spectra are computed so many grid cells at a time, to stay within the processor's cache."""


class Samples(NamedTuple):
    """Weighted, centred samples of n series in D channels, N of them.

    Args:
        time: Since the first sample of the series, float64, (N,), ascending within a series.
        value: Weighted mean zero within each series and channel, (N,).
        weight: Positive, (N,).
        series: Which series, int64, (N,), ascending.
        row: series * D + channel, int64, (N,).
        n: Number of series.
        channels: D.
    """

    time: Tensor
    value: Tensor
    weight: Tensor
    series: Tensor
    row: Tensor
    n: int
    channels: int


class Peaks(NamedTuple):
    """Where spectra are highest: frequency (n, m) float64 and power (n, m), highest first."""

    frequency: Tensor
    power: Tensor


class Spectrum(NamedTuple):
    """Power of n series pooled into bins of log frequency.

    Args:
        highest: Greatest power in each bin, 0 in a bin that a series cannot fill, (n, bins).
        mean: Mean power in each bin, 0 likewise, (n, bins).
        peaks: The highest bins' peaks, refined between the frequencies of the transform.
    """

    highest: Tensor
    mean: Tensor
    peaks: Peaks


def sum_rows(x: Tensor, row: Tensor, n: int) -> Tensor:
    """Sum x (N,) over the samples of each row, (n,)."""
    return x.new_zeros(n).index_add_(0, row, x)


def soft_bin(position: Tensor, row: Tensor, quantities: Tensor, n: int, cells: int) -> Tensor:
    """Share each sample out to the two cells beside it, with hat weights.

    A sample at cell coordinate p gives 1 - a to cell floor(p) and a to the next, a = p - floor(p).

    Args:
        position: Cell coordinate in [0, cells - 1], (N,).
        row: Row of each sample, int64, (N,).
        quantities: What to add up, (q, N).
        n: Number of rows.
        cells: Cells of a row.

    Returns:
        Sums, (q, n, cells).
    """
    low = position.floor().clamp(0, cells - 2)
    right = (position - low).to(quantities.dtype)
    index = row * cells + low.long()
    out = quantities.new_zeros(len(quantities), n * cells)
    for total, quantity in zip(out, quantities, strict=True):
        total.index_add_(0, index, quantity * (1 - right))
        total.index_add_(0, index + 1, quantity * right)
    return out.view(-1, n, cells)


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
    the weighted scatter that a sinusoid at this frequency takes away, channels free in amplitude
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
    span = samples.time.new_zeros(samples.n)
    span.index_reduce_(0, samples.series, samples.time, "amax")
    level = torch.log2((2 * f_max * oversample * span).clamp(min=64)).ceil().long()
    highest = samples.value.new_zeros(samples.n, bins)
    mean, power = torch.zeros_like(highest), samples.value.new_zeros(samples.n, peaks)
    frequency = samples.time.new_zeros(samples.n, peaks)
    edges = torch.logspace(math.log10(f_min), math.log10(f_max), bins + 1, dtype=torch.float64)
    for length, step, group, part in _by_length(samples, level, longest):
        density = _power(part, length, step / (2 * f_max))
        df = 2 * f_max / (step * length)
        index = (edges / df).round().long().tolist()
        found = _pool(density, index, span[group] * df, peaks)
        highest[group], mean[group], power[group] = found[0], found[1], found[3]
        frequency[group] = found[2] * df
    return Spectrum(highest, mean, Peaks(frequency, power))


def _by_length(
    samples: Samples, level: Tensor, longest: int
) -> Iterator[tuple[int, int, Tensor, Samples]]:
    """Groups of series with one transform length: (length, step in dt, series (g,), samples)."""
    for value in sorted(set(level.tolist())):
        length, step = min(2**value, longest), max(1, 2**value // longest)
        members = torch.nonzero(level == value)[:, 0]
        size = max(1, CHUNK // (length * samples.channels))
        for start in range(0, len(members), size):
            group = members[start : start + size]
            yield length, step, group, _take(samples, group)


def _take(samples: Samples, group: Tensor) -> Samples:
    if len(group) == samples.n:
        return samples
    place = torch.full((samples.n,), -1, dtype=torch.long, device=group.device)
    place[group] = torch.arange(len(group), device=group.device)
    series = place[samples.series]
    keep = series >= 0
    series = series[keep]
    channel = samples.row[keep] % samples.channels
    return Samples(
        samples.time[keep],
        samples.value[keep],
        samples.weight[keep],
        series,
        series * samples.channels + channel,
        len(group),
        samples.channels,
    )


def _power(samples: Samples, length: int, dt: float) -> Tensor:
    """Share of the scatter taken away at each frequency k / (length * dt), (n, length / 2)."""
    rows = samples.n * samples.channels
    total = sum_rows(samples.weight, samples.row, rows)
    square = sum_rows(samples.weight * samples.value**2, samples.series, samples.n)
    scale = total.clamp(min=1e-9).rsqrt()
    grid = soft_bin(
        (samples.time / dt) % (length - 1),
        samples.row,
        (samples.weight * samples.value * scale[samples.row])[None],
        rows,
        length,
    )
    wave = torch.fft.rfft(grid[0])[:, : length // 2]
    power = (wave.real.square() + wave.imag.square()).view(samples.n, samples.channels, -1)
    hat = torch.sinc(torch.arange(length // 2, device=power.device) / length) ** 4
    return power.sum(1) * (2 / hat) / square.clamp(min=1e-9)[:, None]


def _pool(
    density: Tensor, edges: list[int], resolution: Tensor, peaks: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pool (n, k) into bins; the peaks' positions are in units of the transform's step."""
    n, width = density.shape
    highest, mean, where = [], [], []
    lowest = (1 / resolution.clamp(min=1e-9)).ceil()  # one cycle in the span
    for lower, upper in itertools.pairwise(edges):
        low, high = min(lower, width), min(max(upper, lower + 1), width)
        if low >= high:
            highest.append(density.new_zeros(n))
            mean.append(density.new_zeros(n))
            where.append(torch.zeros(n, dtype=torch.long, device=density.device))
            continue
        part = density[:, low:high]
        is_seen = (high > lowest).to(density.dtype)
        top, place = part.max(1)
        highest.append(top * is_seen)
        mean.append(part.mean(1) * is_seen)
        where.append(place + low)
    table = torch.stack(highest, 1)
    power, chosen = table.topk(peaks, 1)
    place = torch.stack(where, 1).gather(1, chosen).clamp(1, width - 2)
    left, middle, right = (density.gather(1, place + i) for i in (-1, 0, 1))
    bend = (left - 2 * middle + right).clamp(max=-1e-12)
    shift = (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
    return table, torch.stack(mean, 1), place.double() + shift.double(), power


def fold(samples: Samples, frequency: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Fold every series on its own frequency.

    Args:
        samples: Series.
        frequency: One a series, float64, (n,).
        cells: Phase cells.

    Returns:
        Weighted sum of the values and sum of the weights in each cell, (n, D, cells) each.
    """
    phase = torch.frac(samples.time * frequency[samples.series]).float()
    index = samples.row * cells + (phase * cells).long().clamp(max=cells - 1)
    size = samples.n * samples.channels * cells
    total = sum_rows(samples.weight * samples.value, index, size)
    weight = sum_rows(samples.weight, index, size)
    shape = (samples.n, samples.channels, cells)
    return total.view(shape), weight.view(shape)


def smooth_profile(total: Tensor, weight: Tensor, prior: float = 1.0) -> Tensor:
    """Mean of each cell and its two neighbours around the circle, drawn to 0 by a prior weight."""

    def around(x: Tensor) -> Tensor:
        return x + 0.5 * (x.roll(1, -1) + x.roll(-1, -1))

    return around(total) / (around(weight) + prior)


def explained(total: Tensor, weight: Tensor, square: Tensor) -> Tensor:
    """Share of the weighted scatter that a smoothed profile takes away, (n,)."""
    profile = smooth_profile(total, weight)
    gain = 2 * total * profile - weight * profile**2
    return gain.sum((1, 2)) / square.clamp(min=1e-9)


def best_frequency(samples: Samples, peaks: Peaks, cells: int = 16) -> tuple[Tensor, Tensor]:
    """Choose the peak whose folded profile explains most, folded once and twice over.

    A sinusoid's power prefers aliases for profiles that are far from a sinusoid; profiles do not.

    Returns:
        Frequency (n,) and the shares explained, by the profile at the period and at twice the
        period, (n, 2).
    """
    square = sum_rows(samples.weight * samples.value**2, samples.series, samples.n)
    scores = []
    for candidate in peaks.frequency.unbind(1):
        total, weight = fold(samples, candidate / 2, 2 * cells)
        halves = [x[..., :cells] + x[..., cells:] for x in (total, weight)]
        once = explained(halves[0], halves[1], square)
        scores.append(torch.stack([once, explained(total, weight, square)], 1))
    table = torch.stack(scores, 1)
    choice = table.sum(2).argmax(1)
    rows = torch.arange(samples.n, device=choice.device)
    return peaks.frequency[rows, choice], table[rows, choice]
