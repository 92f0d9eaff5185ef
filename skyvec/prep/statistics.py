"""Fifteen simple statistics of a light curve, for many curves at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skyvec.prep.lightcurves import Prepared

Numbers = NDArray[np.float64]
Vectors = NDArray[np.float32]

STATISTICS = (
    "amplitude",  # log10(scale / |level|)
    "skew",  # arcsinh of the mean cube
    "kurtosis",  # arcsinh of the mean fourth power less 3
    "von_neumann",  # log10(mean squared step / variance): 0.3 for white noise, low if smooth
    "beyond_1",  # share of the points farther than 1 deviation from the mean
    "beyond_2",  # the same for 2
    "lowest",  # arcsinh of the lowest value
    "quantile_05",
    "quantile_25",
    "quantile_50",
    "quantile_75",
    "quantile_95",
    "highest",  # arcsinh of the highest value
    "stetson_k",  # mean |value| / root mean square: 0.90 for a sine, 0.80 for noise, 0 for a spike
    "trend",  # |correlation with time|
)
LEAST_POINTS = 5
"""Bands with fewer points have no statistics and no features."""


def statistics_names(bands: Sequence[str], *, with_mean: bool = False) -> list[str]:
    """Name the columns of :func:`simple_statistics`, band by band."""
    names = (*STATISTICS, "mean") if with_mean else STATISTICS
    return [f"{name}_{band}" for band in bands for name in names]


def simple_statistics(prepared: Prepared, *, with_mean: bool = False) -> Vectors:
    """Fifteen numbers of each band of each curve, listed in ``STATISTICS``.

    All but the amplitude are of the values prepared, so that brightness does not enter.

    Args:
        prepared: Light curves, n, of D bands.
        with_mean: Add log10(level) of each band, which a normalised curve does not show.

    Returns:
        Shape (n, 15 D), or (n, 16 D) with the mean; NaN where a band has fewer than five points,
        no span or no scatter (but for its mean), and where a level <= 0 has no logarithm.
    """
    n, n_bands = prepared.level.shape
    group = np.repeat(np.arange(n), np.diff(prepared.offsets)) * n_bands + prepared.band
    order = np.argsort(group, kind="stable")
    columns: dict[str, np.ndarray] = _shape_statistics(
        group[order],
        prepared.time[order],
        prepared.value[order].astype(np.float64),
        np.bincount(group, minlength=n * n_bands),
    )
    columns["amplitude"] = np.where(np.isnan(columns["skew"]), np.nan, prepared.amplitude.ravel())
    table = np.stack([columns[name] for name in STATISTICS], axis=1)
    table = table.reshape(n, n_bands, len(STATISTICS))
    if with_mean:
        level = np.log10(np.where(prepared.level > 0, prepared.level, np.nan))
        table = np.concatenate([table, level[:, :, None]], axis=2)
    return table.reshape(n, -1).astype(np.float32)


def _shape_statistics(
    group: NDArray[np.int64], time: Numbers, value: Numbers, count: NDArray[np.int64]
) -> dict[str, Numbers]:
    """All of ``STATISTICS`` but the amplitude, NaN where there is too little, (G,) each."""
    n_groups, divisor = len(count), np.maximum(count, 1)

    def mean(x: Numbers) -> Numbers:
        return np.asarray(np.bincount(group, x, n_groups) / divisor)

    value = value - mean(value)[group]
    when = time - mean(time)[group]
    deviation, duration = np.sqrt(mean(value**2)), np.sqrt(mean(when**2))
    usable = (count >= LEAST_POINTS) & (deviation > 0) & (duration > 0)
    deviation, duration = (np.where(usable, x, np.nan) for x in (deviation, duration))
    z = value / deviation[group]
    step = np.where(np.diff(group) == 0, np.diff(z), 0.0)
    squared_step = np.bincount(group[1:], step**2, n_groups) / np.maximum(count - 1, 1)
    size = np.abs(z)
    found = {
        "skew": np.arcsinh(mean(z**3)),
        "kurtosis": np.arcsinh(mean(z**4) - 3),
        "von_neumann": np.log10(squared_step + 1e-6),
        "beyond_1": mean((size > 1).astype(np.float64)),
        "beyond_2": mean((size > 2).astype(np.float64)),
        "stetson_k": mean(size),
        "trend": np.abs(mean(z * when)) / duration,
    }
    ordered = z[np.lexsort((z, group))]
    for share in (5, 25, 50, 75, 95):
        found[f"quantile_{share:02d}"] = _group_quantile(ordered, count, share / 100)
    found["lowest"] = np.arcsinh(_group_quantile(ordered, count, 0))
    found["highest"] = np.arcsinh(_group_quantile(ordered, count, 1))
    return {name: np.where(usable, column, np.nan) for name, column in found.items()}


def _group_quantile(ordered: Numbers, count: NDArray[np.int64], share: float) -> Numbers:
    """Quantile of groups laid end to end, ascending within each; NaN for an empty one, (G,)."""
    place = share * np.maximum(count - 1, 0)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    first = np.cumsum(count) - count
    padded = np.append(ordered, np.nan)  # the first of a last, empty group lies past the end
    below, above = padded[first + low], padded[first + high]
    return np.where(count > 0, below + (place - low) * (above - below), np.nan)
