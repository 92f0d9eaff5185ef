"""Light curves made ready: flagged points dropped, times rounded, each curve on its own scale."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import Floats, LightCurves, Strings

SCALE_FLOOR = 1e-12
"""Scatter below this fraction of the level counts as none: float32 cannot hold so little."""


@dataclass(frozen=True)
class Prepared:
    """Normalised light curves as flat arrays, the form every encoder starts from.

    Shapes: n curves, N points, D bands.

    Args:
        id: Segment keys, (n,).
        offsets: First point of each curve and the end, int64, (n + 1,).
        time: Since ``start`` [day], float64, (N,): float32 would be off by 1e-4 d after ten years,
            a hundredth of a phase for the fastest pulsators. A network may cast it.
        value: (flux - level) / scale of the point's band, float32, (N,).
        error: flux_err / scale, NaN where unknown, float32, (N,).
        band: Code of the band, int16, (N,).
        start: MJD of the first point [day], float64, (n,).
        level: Mean (or median) flux of each band, NaN without points, float64, (n, D).
        scale: Standard deviation (or 1.4826 MAD) of each band, NaN without points, (n, D).
        is_constant: The curve has no scatter in any band; its values are all 0, bool, (n,).
    """

    id: Strings
    offsets: NDArray[np.int64]
    time: NDArray[np.float64]
    value: NDArray[np.float32]
    error: NDArray[np.float32]
    band: NDArray[np.int16]
    start: NDArray[np.float64]
    level: Floats
    scale: Floats
    is_constant: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)

    @property
    def amplitude(self) -> NDArray[np.float32]:
        """log10(scale / |level|) by curve and band, (n, D); NaN where it has no meaning."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.scale / np.abs(self.level)
            usable = (ratio > SCALE_FLOOR) & (ratio < 10)
            return np.where(usable, np.log10(ratio), np.nan).astype(np.float32)


def prepare(curves: LightCurves, *, round_days: float = 0.01, normalise: str = "std") -> Prepared:
    """Round times and average what coincides, then put each band of each curve on its own scale.

    value = (flux - level) / scale; level and scale are the mean and the standard deviation
    (``normalise="std"``, as published) or the median and 1.4826 MAD (``"mad"``). A band without
    scatter gets the value 0 and never a division by zero. Where more than half of a band's points
    are equal its MAD is 0 although it varies: the standard deviation then stands in.

    Args:
        curves: Light curves; the schema promises finite flux.
        round_days: Grid of the rounding [day], 0 for none (coinciding points are then kept). The
            published value is 0.01 d.
        normalise: ``std`` or ``mad``.

    Returns:
        The same curves in the same order, ready for an encoder; a curve may be empty.

    Raises:
        ValueError: An unknown way to normalise, or a grid that is negative or not finite.
    """
    if normalise not in ("std", "mad"):
        raise ValueError(f"unknown normalise {normalise!r}; choose std or mad")
    if not (round_days >= 0 and np.isfinite(round_days)):
        raise ValueError(f"round_days must be finite and >= 0 days, not {round_days}")
    n, n_bands = len(curves), max(1, len(curves.bands))
    points = _Points(
        np.repeat(np.arange(n), curves.lengths),
        curves.mjd,
        curves.flux.astype(np.float64),
        curves.flux_err.astype(np.float64),
        curves.band,
    )
    if round_days:
        points = _average_coinciding(points, round_days, n_bands)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(points.curve, minlength=n), out=offsets[1:])
    group = points.curve * n_bands + points.band
    n_points = np.bincount(group, minlength=n * n_bands)
    level, scale = _level_and_scale(group, points.flux, n_points, normalise)
    is_flat = ~(scale > SCALE_FLOOR * np.abs(level))
    start = np.zeros(n)
    occupied = offsets[1:] > offsets[:-1]
    start[occupied] = points.mjd[offsets[:-1][occupied]]
    value_divisor = np.where(is_flat, np.inf, scale)
    error_divisor = np.where(is_flat, np.nan, scale)
    return Prepared(
        curves.id,
        offsets,
        points.mjd - start[points.curve],
        ((points.flux - level[group]) / value_divisor[group]).astype(np.float32),
        (points.err / error_divisor[group]).astype(np.float32),
        points.band.astype(np.int16),
        start,
        np.where(n_points > 0, level, np.nan).reshape(n, n_bands),
        np.where(n_points > 0, scale, np.nan).reshape(n, n_bands),
        np.asarray(is_flat.reshape(n, n_bands).all(axis=1)),
    )


class _Points(NamedTuple):
    """Points of many curves, (N,) each."""

    curve: np.ndarray
    mjd: np.ndarray
    flux: np.ndarray
    err: np.ndarray
    band: np.ndarray

    def take(self, rows: NDArray[np.int64]) -> "_Points":
        return _Points(*(column[rows] for column in self))


def _average_coinciding(points: _Points, round_days: float, n_bands: int) -> _Points:
    """Average the points of one curve and band that share a rounded time, (N,) -> (M,).

    The error of a mean of m points is the root of the sum of squares over m; if one of them has
    no error, neither has the mean.
    """
    if not len(points.curve):
        return points
    tick = np.round(points.mjd / round_days)
    new = np.ones(len(tick), bool)
    np.logical_or(np.diff(points.curve) != 0, np.diff(tick) != 0, out=new[1:])
    if n_bands > 1:
        key = np.cumsum(new) * n_bands + points.band
        order = np.argsort(key, kind="stable")  # only ties move, and a merge sort sees that
        points, tick, key = points.take(order), tick[order], key[order]
        new[1:] = np.diff(key) != 0
    first = np.flatnonzero(new)
    count = np.diff(np.append(first, len(tick)))
    return _Points(
        points.curve[first],
        tick[first] * round_days,
        np.add.reduceat(points.flux, first) / count,
        np.sqrt(np.add.reduceat(points.err**2, first)) / count,
        points.band[first],
    )


def _level_and_scale(
    group: NDArray[np.int64], flux: Floats, n_points: NDArray[np.int64], normalise: str
) -> tuple[Floats, Floats]:
    """Level and scale of each group, 0 for a group without points, (G,) each."""
    count, n_groups = np.maximum(n_points, 1), len(n_points)
    mean = np.bincount(group, flux, n_groups) / count
    # a second pass: the running sum of 10^7 equal numbers is off by more than their scatter
    mean += np.bincount(group, flux - mean[group], n_groups) / count
    std = np.sqrt(np.bincount(group, (flux - mean[group]) ** 2, n_groups) / count)
    if normalise == "std":
        return mean, std
    median = _group_median(group, flux, n_points)
    mad = 1.4826 * _group_median(group, np.abs(flux - median[group]), n_points)
    return median, np.where(mad > SCALE_FLOOR * np.abs(median), mad, std)


def _group_median(group: NDArray[np.int64], x: Floats, n_points: NDArray[np.int64]) -> Floats:
    """Median of x within each group, 0 for a group without points, (G,)."""
    ordered = np.append(x[np.lexsort((x, group))], 0.0)
    first = np.cumsum(n_points) - n_points
    low = ordered[np.minimum(first + np.maximum(n_points - 1, 0) // 2, len(x))]
    high = ordered[np.minimum(first + n_points // 2, len(x))]
    return np.where(n_points > 0, (low + high) / 2, 0.0)
