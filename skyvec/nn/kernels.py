"""Single passes over the points of ragged series, compiled.

What the closed-form views need of a series are sums over its points. Written with tensor
operations each sum is a dozen passes through memory; written as one loop a series, everything is
gathered while its points lie in the cache. All take numpy arrays, one row of results a series, and
add into arrays that the caller has zeroed. Compiled once for a machine and kept beside this file.
"""

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_FAST = {"cache": True, "nogil": True, "fastmath": {"contract", "arcp", "nsz"}}
Array = NDArray[Any]


@njit(**_FAST)  # type: ignore[untyped-decorator]
def bend_and_weigh(
    value: Array, error: Array, band: Array, offsets: Array, bands: int, clip: float,
    bent: Array, weight: Array, total: Array, square: Array,
) -> None:  # fmt: skip
    """Bend outliers, weigh by errors and centre by band.

    bent = clip tanh(value / clip) - weighted mean of its band; weight = 1 / (1 + (e / <e>)^2), 1/2
    where the error is unknown. ``total`` (n, bands) gets the weights' sums, ``square`` (n,) the
    weighted sum of squares.
    """
    for i in range(len(offsets) - 1):
        first, last = offsets[i], offsets[i + 1]
        typical, known = 0.0, 0
        for j in range(first, last):
            if not math.isnan(error[j]):
                typical += error[j]
                known += 1
        typical = max(typical / max(known, 1), 1e-6)
        mean = np.zeros(bands)
        for j in range(first, last):
            w = 0.5
            if not math.isnan(error[j]):
                w = 1.0 / (1.0 + (error[j] / typical) ** 2)
            x = clip * math.tanh(value[j] / clip)
            weight[j] = w
            bent[j] = x
            total[i, band[j]] += w
            mean[band[j]] += w * x
        for d in range(bands):
            mean[d] /= max(total[i, d], 1e-9)
        summed = 0.0
        for j in range(first, last):
            x = bent[j] - mean[band[j]]
            bent[j] = x
            summed += weight[j] * x * x
        square[i] = summed


@njit(**_FAST)  # type: ignore[untyped-decorator]
def share_out(
    time: Array, value: Array, weight: Array, band: Array, offsets: Array, series: Array,
    scale: Array, dt: float, out: Array,
) -> None:  # fmt: skip
    """Share weighted values out to the two cells beside them on a grid of step dt, hat weights.

    ``out`` (g, D, cells) gets the series named in ``series`` (g,), each point times scale (g, D);
    times beyond the grid come round again.
    """
    cells = out.shape[2]
    for g in range(len(series)):
        i = series[g]
        for j in range(offsets[i], offsets[i + 1]):
            place = time[j] / dt
            if place >= cells - 1:
                place = place % (cells - 1)
            low = int(place)
            right = place - low
            amount = weight[j] * value[j] * scale[g, band[j]]
            out[g, band[j], low] += (1.0 - right) * amount
            out[g, band[j], low + 1] += right * amount


@njit(**_FAST)  # type: ignore[untyped-decorator]
def fold_all(
    time: Array, value: Array, weight: Array, band: Array, offsets: Array, frequency: Array,
    epoch: Array, total: Array, mass: Array,
) -> None:  # fmt: skip
    """Fold each series on m frequencies of its own.

    ``total`` and ``mass`` (n, m, D, cells) get the weighted values and the weights by phase,
    phase = (time - epoch) * frequency mod 1; frequency (n, m) and epoch (n,).
    """
    n, m, _, cells = total.shape
    for i in range(n):
        for c in range(m):
            f, t0 = frequency[i, c], epoch[i]
            for j in range(offsets[i], offsets[i + 1]):
                turns = (time[j] - t0) * f
                cell = min(int((turns - math.floor(turns)) * cells), cells - 1)
                total[i, c, band[j], cell] += weight[j] * value[j]
                mass[i, c, band[j], cell] += weight[j]


@njit(**_FAST)  # type: ignore[untyped-decorator]
def look_over(
    time: Array, value: Array, error: Array, band: Array, offsets: Array, clip: float,
    grid: Array, levels: Array, moments: Array,
) -> None:  # fmt: skip
    """Gather the time grid, the histogram of the values and the moments of each series.

    ``grid`` (n, 3, D, K): sums of 1, x and x^2 by time cell, hat weights; ``levels`` (n, D, L):
    points by value from -clip to clip; ``moments`` (n, 4): means of x^3, x^4, squared steps
    and known errors.
    """
    n, _, _, cells = grid.shape
    bins = levels.shape[2]
    for i in range(n):
        first, last = offsets[i], offsets[i + 1]
        if first == last:
            continue
        start = time[first]
        per_day = (cells - 1) / max(time[last - 1] - start, 1e-6)
        cube, fourth, steps, errors, known = 0.0, 0.0, 0.0, 0.0, 0
        for j in range(first, last):
            x, d = float(value[j]), band[j]
            place = (time[j] - start) * per_day
            low = min(int(place), cells - 2)
            right = place - low
            left = 1.0 - right
            grid[i, 0, d, low] += left
            grid[i, 0, d, low + 1] += right
            grid[i, 1, d, low] += left * x
            grid[i, 1, d, low + 1] += right * x
            grid[i, 2, d, low] += left * x * x
            grid[i, 2, d, low + 1] += right * x * x
            height = (min(max(x, -clip), clip) + clip) / (2 * clip) * (bins - 1)
            low = min(int(height), bins - 2)
            levels[i, d, low] += 1.0 - (height - low)
            levels[i, d, low + 1] += height - low
            cube += x * x * x
            fourth += x * x * x * x
            if j > first:
                steps += (x - value[j - 1]) ** 2
            if not math.isnan(error[j]):
                errors += error[j]
                known += 1
        count = last - first
        moments[i, 0] = cube / count
        moments[i, 1] = fourth / count
        moments[i, 2] = steps / count
        moments[i, 3] = errors / max(known, 1)


@njit(**_FAST)  # type: ignore[untyped-decorator]
def pool_power(
    wave: Array, hat: Array, edges: Array, lowest: Array, highest: Array, place: Array
) -> None:
    """Find the highest power in each bin of a transform, and where it is between the steps.

    power_k = hat_k sum_D |wave_k|^2; bin b holds the steps edges[b] <= k < edges[b + 1] (at least
    one). ``highest`` and ``place`` (g, bins) get the power and the parabola's peak, in steps; a
    bin that ends before ``lowest`` (g,) or begins beyond the transform keeps 0.
    """
    n, bands, width = wave.shape
    width -= 1
    power = np.empty(width, np.float32)
    for g in range(n):
        power[:] = 0
        for d in range(bands):
            for k in range(width):
                power[k] += wave[g, d, k].real ** 2 + wave[g, d, k].imag ** 2
        for k in range(width):
            power[k] *= hat[k]
        for b in range(highest.shape[1]):
            low = min(edges[b], width)
            high = min(max(edges[b + 1], edges[b] + 1), width)
            if low >= high or high <= lowest[g]:
                continue
            best = low
            for k in range(low, high):
                if power[k] > power[best]:
                    best = k
            highest[g, b] = power[best]
            inner = min(max(best, 1), width - 2)
            left, middle, right = power[inner - 1], power[inner], power[inner + 1]
            bend = min(left - 2 * middle + right, np.float32(-1e-12))
            place[g, b] = inner + min(max(0.5 * (left - right) / bend, -0.5), 0.5)
