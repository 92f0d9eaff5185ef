"""How far to trust the cells: approximate search whose recall is measured, not hoped for.

A cell is passed over where nothing within its radius can reach the answer. In 40 dimensions hardly
a member lies in the direction of the query, so a share of the radius does nearly as well: at a
fifth of it 99 % of the true neighbours remain and a tenth of the cells. Unlike a fixed number of
cells this adapts to the query, to k and to filters.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.index.certified import CertifiedIndex

SAMPLE = 600
"""Vectors whose true neighbours are searched to measure a recall."""

MARGIN = 0.3
"""Share of the allowed misses kept in hand, since the sample that chooses flatters."""

STEPS = 6
"""Halvings of the interval that the share is looked for in."""


class Trust(NamedTuple):
    """A share of the cells' radii that reaches a recall.

    Args:
        radii: To search with; 1 searches exactly.
        recall: Measured on a second sample; 1 where exact.
    """

    radii: float
    recall: float


def recall_of(truth: NDArray[np.integer], found: NDArray[np.integer]) -> float:
    """Share of the true neighbours that were found; -1 is none, shapes (q, k)."""
    hits = (found[:, :, None] == truth[:, None, :]) & (truth[:, None, :] >= 0)
    return float(hits.any(axis=1).sum() / max(1, (truth >= 0).sum()))


def choose_radii(
    index: CertifiedIndex, k: int, rng: np.random.Generator, *, recall: float = 0.99
) -> Trust:
    """Find the smallest share of the radii that reaches a recall of the k nearest others.

    Args:
        rng: Chooses the vectors that are asked for.
        recall: In (0, 1]; 1 gives exact search.

    Raises:
        ValueError: A recall outside (0, 1].
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall must be in (0, 1], not {recall}")
    if recall == 1 or index.n_cells == 1:
        return Trust(1.0, 1.0)
    wanted = 1 - (1 - recall) * (1 - MARGIN)
    sample = _Sample(index, k, rng)
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if sample.recall(middle) >= wanted else (middle, high)
    return Trust(high, 1.0 if high == 1 else _Sample(index, k, rng).recall(high))


class _Sample:
    """Some vectors and their true neighbours."""

    def __init__(self, index: CertifiedIndex, k: int, rng: np.random.Generator) -> None:
        real = np.flatnonzero(index.store.rows >= 0)
        self.index, self.k = index, k
        self.places = np.sort(rng.choice(real, min(SAMPLE, len(real)), replace=False))
        self.truth = self._places(1.0)

    def recall(self, radii: float) -> float:
        return recall_of(self.truth, self._places(radii))

    def _places(self, radii: float) -> NDArray[np.int64]:
        store = self.index.store
        queries = store.vectors[self.places, : self.index.d]
        targets = store.target[self.places]
        return self.index.best(queries, self.k, targets, radii=radii)[1]
