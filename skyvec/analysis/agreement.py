"""How far neighbours by code agree with those by another measure of similarity."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Distances = NDArray[np.floating]
DEPTHS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Numbers of neighbours at which what is common is counted, where there are twice as many."""

RESAMPLES = 1000


@dataclass(frozen=True)
class Common:
    """What two rankings have in common at one depth.

    Args:
        k: Nearest neighbours of each that are compared.
        share: Mean share of them that both name, in [0, 1].
        low: Lower end of its 95 % interval (bootstrap over the queries).
        high: Upper end.
        chance: What two unrelated rankings would share: k over the candidates.
    """

    k: int
    share: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Agreement:
    """How far two distances agree.

    Args:
        common: At each depth.
        rank_correlation: Mean over the queries of Spearman's correlation of both distances to all
            candidates, in [-1, 1].
        low: Lower end of its 95 % interval.
        high: Upper end.
        queries: How many were asked.
        candidates: How many could answer each.
    """

    common: list[Common]
    rank_correlation: float
    low: float
    high: float
    queries: int
    candidates: int


def agreement(
    one: Distances,
    other: Distances,
    rng: np.random.Generator,
    *,
    depths: tuple[int, ...] = DEPTHS,
) -> Agreement:
    """Compare two distances from the same queries to the same objects.

    Ties go to the lower column in both. The interval is that of the queries: ask one segment of
    each target, or alike queries make it too narrow.

    Args:
        one: From each query to each object, shape (q, n); NaN = may not answer, such as itself.
        other: The same by another measure, NaN in the same places.
        rng: Of the bootstrap.
        depths: Neighbours to compare; those beyond half of the candidates are left out.

    Raises:
        ValueError: Shapes or NaN differ, there are fewer than two queries, or fewer than four
            candidates.

    References:
        Spearman, 1904, Am. J. Psychol. 15, 72.
    """
    may = ~np.isnan(one)
    if one.shape != other.shape or one.ndim != 2 or not np.array_equal(may, ~np.isnan(other)):
        raise ValueError("both distances must have shape (q, n), with NaN in the same places")
    counts = may.sum(axis=1)
    if len(one) < 2 or counts.min() < 4:
        raise ValueError(
            f"at least 2 queries with 4 candidates each are needed, not {len(one)} with "
            f"{counts.min() if len(one) else 0}"
        )
    # NaN sorts last, and a stable sort gives ties to the lower column
    places = [np.argsort(np.argsort(d, axis=1, kind="stable"), axis=1) for d in (one, other)]
    candidates = int(counts.min())
    drawn = rng.integers(0, len(one), (RESAMPLES, len(one)))
    common = []
    for k in depths:
        if 2 * k > candidates:
            break
        share = ((places[0] < k) & (places[1] < k)).sum(axis=1) / k
        low, high = _interval(share, drawn)
        common.append(Common(k, float(share.mean()), low, high, float((k / counts).mean())))
    rank = np.array([_spearman(a[own], b[own]) for a, b, own in zip(one, other, may)], np.float64)
    low, high = _interval(rank, drawn)
    return Agreement(common, float(rank.mean()), low, high, len(one), candidates)


def _interval(values: NDArray[np.float64], drawn: NDArray[np.int64]) -> tuple[float, float]:
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _spearman(one: Distances, other: Distances) -> float:
    """Rank correlation; 0 where one of the two is the same for all."""
    a, b = stats.rankdata(one), stats.rankdata(other)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
