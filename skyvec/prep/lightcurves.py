"""Light curves made ready: flagged points dropped, times rounded, each curve on its own scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import Floats, LightCurves, Strings

SCALE_FLOOR = 1e-12
"""Scatter below this fraction of the level counts as none: the curve is constant."""


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
    scatter gets the value 0 and never a division by zero.

    Args:
        curves: Light curves; the schema promises finite flux.
        round_days: Grid of the rounding [day], 0 for none. The published value is 0.01 d.
        normalise: ``std`` or ``mad``.

    Returns:
        The same curves in the same order, ready for an encoder.

    Raises:
        ValueError: An unknown way to normalise, or a negative grid.
    """
    if normalise not in ("std", "mad"):
        raise ValueError(f"unknown normalise {normalise!r}; choose std or mad")
    if round_days < 0:
        raise ValueError(f"round_days must be >= 0 days, not {round_days}")
    n, n_bands = len(curves), max(1, len(curves.bands))
    curve = np.repeat(np.arange(n), curves.lengths)
    mjd, flux, err = curves.mjd, curves.flux.astype(np.float64), curves.flux_err.astype(np.float64)
    band = curves.band
    if round_days:
        curve, mjd, flux, err, band = _average_coinciding(
            curve, np.round(mjd / round_days) * round_days, flux, err, band, n_bands
        )
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(curve, minlength=n), out=offsets[1:])
    group = curve * n_bands + band
    level, scale = _level_and_scale(group, flux, n * n_bands, normalise)
    flat = ~(scale > SCALE_FLOOR * np.maximum(np.abs(level), SCALE_FLOOR))
    divisor = np.where(flat, np.inf, scale)
    has_points = np.bincount(group, minlength=n * n_bands) > 0
    start = np.zeros(n)
    occupied = offsets[1:] > offsets[:-1]
    start[occupied] = mjd[offsets[:-1][occupied]]
    return Prepared(
        curves.id,
        offsets,
        mjd - start[curve],
        ((flux - level[group]) / divisor[group]).astype(np.float32),
        np.where(flat[group], np.nan, err / np.where(flat, 1, scale)[group]).astype(np.float32),
        band.astype(np.int16),
        start,
        np.where(has_points, level, np.nan).reshape(n, n_bands),
        np.where(has_points, scale, np.nan).reshape(n, n_bands),
        (flat | ~has_points).reshape(n, n_bands).all(axis=1),
    )


def _average_coinciding(
    curve: np.ndarray,
    mjd: np.ndarray,
    flux: np.ndarray,
    err: np.ndarray,
    band: np.ndarray,
    n_bands: int,
) -> tuple[np.ndarray, ...]:
    """Average the points of one curve and band that share a time stamp, (N,) -> (M,).

    The error of a mean of m points is the root of the sum of squares over m; points without an
    error leave the mean without one.
    """
    order = np.lexsort((band, mjd, curve)) if n_bands > 1 else np.arange(len(curve))
    curve, mjd, flux, err, band = curve[order], mjd[order], flux[order], err[order], band[order]
    if not len(curve):
        return curve, mjd, flux, err, band
    new = np.ones(len(curve), bool)
    new[1:] = (np.diff(curve) != 0) | (np.diff(mjd) != 0) | (np.diff(band) != 0)
    first = np.flatnonzero(new)
    count = np.diff(np.append(first, len(curve)))
    return (
        curve[first],
        mjd[first],
        np.add.reduceat(flux, first) / count,
        np.sqrt(np.add.reduceat(err**2, first)) / count,
        band[first],
    )


def _level_and_scale(
    group: np.ndarray, flux: np.ndarray, n_groups: int, normalise: str
) -> tuple[np.ndarray, np.ndarray]:
    if normalise == "std":
        count = np.maximum(np.bincount(group, minlength=n_groups), 1)
        level = np.bincount(group, flux, n_groups) / count
        return level, np.sqrt(np.bincount(group, (flux - level[group]) ** 2, n_groups) / count)
    level = _group_median(group, flux, n_groups)
    return level, 1.4826 * _group_median(group, np.abs(flux - level[group]), n_groups)


def _group_median(group: np.ndarray, x: np.ndarray, n_groups: int) -> np.ndarray:
    """Median of x within each group, 0 for a group without points, (n_groups,)."""
    order = np.lexsort((x, group))
    count = np.bincount(group, minlength=n_groups)
    first = np.cumsum(count) - count
    ordered = np.append(x[order], 0.0)
    low = ordered[np.minimum(first + np.maximum(count - 1, 0) // 2, len(x))]
    high = ordered[np.minimum(first + count // 2, len(x))]
    return np.where(count > 0, (low + high) / 2, 0.0)
