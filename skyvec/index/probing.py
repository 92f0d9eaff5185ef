"""How many cells are enough: approximate search whose recall is measured, not hoped for."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.index.certified import CertifiedIndex

SAMPLE = 600
"""Vectors whose true neighbours are searched to measure a recall."""

MARGIN = 0.3
"""Share of the allowed misses kept in hand, since the sample that chooses flatters."""

EXACT_SHARE = 0.3
"""Above this share of the cells exact search is faster: its bounds skip more."""


class Probe(NamedTuple):
    """A number of cells that reaches a recall.

    Args:
        n_probe: Cells to look into; None: search exactly, which is faster than enough cells.
        recall: Measured on a second sample; 1 where exact.
    """

    n_probe: int | None
    recall: float


def recall_of(truth: NDArray[np.integer], found: NDArray[np.integer]) -> float:
    """Share of the true neighbours that were found; -1 is none, shapes (q, k)."""
    hits = (found[:, :, None] == truth[:, None, :]) & (truth[:, None, :] >= 0)
    return float(hits.any(axis=1).sum() / max(1, (truth >= 0).sum()))


def choose_probe(
    index: CertifiedIndex, k: int, rng: np.random.Generator, *, recall: float = 0.99
) -> Probe:
    """Find the fewest cells that reach a recall of the k nearest others, by measuring.

    Args:
        rng: Chooses the vectors that are asked for.
        recall: In (0, 1); 1 gives exact search.

    Raises:
        ValueError: A recall outside (0, 1].
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall must be in (0, 1], not {recall}")
    wanted = 1 - (1 - recall) * (1 - MARGIN)
    most = int(EXACT_SHARE * index.n_cells)
    if recall == 1 or most < 2:
        return Probe(None, 1.0)
    sample = _Sample(index, k, rng)
    low, high = 0, 1
    while high < most and sample.recall(high) < wanted:
        low, high = high, min(2 * high, most)
    if high == most and sample.recall(high) < wanted:
        return Probe(None, 1.0)
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if sample.recall(middle) >= wanted else (middle, high)
    return Probe(high, _Sample(index, k, rng).recall(high))


class _Sample:
    """Some vectors and their true neighbours."""

    def __init__(self, index: CertifiedIndex, k: int, rng: np.random.Generator) -> None:
        real = np.flatnonzero(index.store.rows >= 0)
        self.index, self.k = index, k
        self.places = np.sort(rng.choice(real, min(SAMPLE, len(real)), replace=False))
        self.truth = self._places(None)

    def recall(self, n_probe: int) -> float:
        return recall_of(self.truth, self._places(n_probe))

    def _places(self, n_probe: int | None) -> NDArray[np.int64]:
        store = self.index.store
        queries = store.vectors[self.places, : self.index.d]
        targets = store.target[self.places]
        return self.index.best(queries, self.k, targets, n_probe=n_probe)[1]
