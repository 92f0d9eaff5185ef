"""How far to trust the cells: approximate search whose recall is measured, not hoped for.

A cell is passed over where nothing within its radius can reach the answer. In 40 dimensions hardly
a member lies in the direction of the query, so a share of the radius does nearly as well: at a
fifth of it 99 % of the true neighbours remain and a tenth of the cells. Unlike a fixed number of
cells this adapts to the query, to k and to filters.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.index.certified import CertifiedIndex

SAMPLE = 600
"""Vectors whose true neighbours are searched to measure a recall."""

MARGIN = 0.3
"""Share of the allowed misses kept in hand, since the sample that chooses flatters."""

STEPS = 9
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


Answers = Callable[[float], NDArray[np.integer]]
"""Rows that a sample of queries finds with a share of the radii, (q, k); with 1 the truth."""


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
    real = np.flatnonzero(index.store.rows >= 0)

    def draw() -> Answers:
        places = np.sort(rng.choice(real, min(SAMPLE, len(real)), replace=False))
        queries, targets = index.store.vectors[places, : index.d], index.store.target[places]
        return lambda radii: index.best(queries, k, targets, radii=radii)[1]

    if 0 < recall <= 1 and index.n_cells == 1:
        return Trust(1.0, 1.0)
    return smallest_share(draw, recall)


def smallest_share(draw: Callable[[], Answers], recall: float) -> Trust:
    """Find the smallest share of the radii that reaches a recall.

    Args:
        draw: Draws a sample of queries and gives what answers them. It is called twice: the sample
            that chooses flatters, so the recall is measured on another.
        recall: In (0, 1]; 1 gives exact search.

    Raises:
        ValueError: A recall outside (0, 1].
    """
    if not 0 < recall <= 1:
        raise ValueError(f"recall must be in (0, 1], not {recall}")
    if recall == 1:
        return Trust(1.0, 1.0)
    wanted = 1 - (1 - recall) * (1 - MARGIN)
    answers = draw()
    truth = answers(1.0)
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        enough = recall_of(truth, answers(middle)) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    if high == 1:
        return Trust(1.0, 1.0)
    answers = draw()
    return Trust(high, recall_of(answers(1.0), answers(high)))
