"""How good and how fast an index is, measured on its own vectors: one row a way of asking."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyvec import sky
from skyvec.index.certified import Allowed
from skyvec.index.kernels import score_all
from skyvec.index.probing import recall_of
from skyvec.indexing.survey import SurveyIndex

SHARES = (0.5, 0.1, 0.01)
"""Of the rows that a filter leaves."""

PROVED = 5
"""Queries whose exact answer is compared with brute force."""

WARM = 3


@dataclass(frozen=True)
class Measured:
    """One way of asking.

    Args:
        way: ``exact`` or ``approximate``.
        filter: What may answer: everything, random rows, a cone, a coverage map.
        rows: How many rows that leaves.
        recall: Share of the true k nearest that was found.
        p50_ms: Median time of one query, the filter being there [ms].
        p90_ms: 90 % of the queries take less [ms].
        filter_ms: Time to turn the filter into rows, once [ms]; NaN where there is nothing to do.
    """

    way: str
    filter: str
    rows: int
    recall: float
    p50_ms: float
    p90_ms: float
    filter_ms: float


class CheckError(RuntimeError):
    """An exact answer differs from brute force."""


def check(
    opened: SurveyIndex, rng: np.random.Generator, *, queries: int = 200, k: int = 10
) -> Iterator[Measured]:
    """Measure recall and latency of every way of asking, one query at a time.

    The queries are rows of the index, which pass over themselves. The exact answers that recall
    is measured against are compared with brute force for a few of them.

    Args:
        opened: The index.
        rng: Chooses queries and filters.
        queries: How many to ask.
        k: Neighbours of each.

    Raises:
        CheckError: An exact answer differs from brute force: the files are damaged.
    """
    alive = np.flatnonzero(~opened.deleted)
    rows = rng.choice(alive, min(queries, len(alive)), replace=False)
    vectors = opened.index.vectors(rows)
    asked = _Asked(opened, rows, vectors, k)
    everything = np.ones(len(opened), bool)
    truth = asked.answers(None, 1.0)
    _prove(opened, asked, truth)
    radii = float(opened.facts["radii"])
    yield asked.measure("exact", "none", None, len(everything), truth, 1.0)
    if radii < 1:
        yield asked.measure("approximate", "none", None, len(everything), truth, radii)
    default = 1.0 if opened.facts["way"] == "exact" else radii
    for name, make in _filters(opened, rng, everything):
        start = time.perf_counter()
        mask = make()
        allowed = opened.index.allow(mask)
        spent = 1e3 * (time.perf_counter() - start)
        left = int(mask.sum())
        truth = asked.answers(allowed, 1.0)
        yield asked.measure(opened.facts["way"], name, allowed, left, truth, default, spent)


class _Asked:
    """Some rows of the index as queries."""

    def __init__(
        self,
        opened: SurveyIndex,
        rows: NDArray[np.int64],
        vectors: NDArray[np.float32],
        k: int,
    ) -> None:
        self.opened, self.rows, self.vectors, self.k = opened, rows, vectors, k

    def answers(self, allowed: list[Allowed] | None, radii: float) -> NDArray[np.int64]:
        """Rows found for all queries together; each may find itself, so one more is asked for."""
        found = self.opened.index.search(self.vectors, self.k + 1, allowed=allowed, radii=radii)
        return self.without_themselves(found.rows)

    def without_themselves(self, found: NDArray[np.int64]) -> NDArray[np.int64]:
        kept = np.full((len(found), self.k), -1)
        for i, (answer, own) in enumerate(zip(found, self.rows)):
            others = answer[answer != own][: self.k]
            kept[i, : len(others)] = others
        return kept

    def measure(
        self,
        way: str,
        name: str,
        allowed: list[Allowed] | None,
        left: int,
        truth: NDArray[np.int64],
        radii: float,
        filter_ms: float = float("nan"),
    ) -> Measured:
        index = self.opened.index
        found, seconds = [], []
        for i in [*range(min(WARM, len(self.rows))), *range(len(self.rows))]:
            start = time.perf_counter()
            answer = index.search(
                self.vectors[i : i + 1], self.k + 1, allowed=allowed, radii=radii
            )
            seconds.append(time.perf_counter() - start)
            found.append(answer.rows[0])
        warm = min(WARM, len(self.rows))
        recall = recall_of(truth, self.without_themselves(np.array(found[warm:])))
        p50, p90 = 1e3 * np.quantile(seconds[warm:], [0.5, 0.9])
        return Measured(way, name, left, recall, float(p50), float(p90), filter_ms)


def _prove(opened: SurveyIndex, asked: _Asked, truth: NDArray[np.int64]) -> None:
    """Compare exact answers with scores of everything in float64."""
    for i in range(min(PROVED, len(asked.rows))):
        scores = []
        for segment in opened.index.segments:
            store = segment.store
            query = np.zeros((1, store.vectors.shape[1]))
            query[0, : segment.d] = asked.vectors[i]
            score = score_all(store.vectors, query, len(store.bias) > 0)
            ordered = np.empty(segment.n)
            real = store.rows >= 0
            ordered[store.rows[real]] = score[real]
            scores.append(ordered)
        score = np.concatenate(scores)
        score[opened.deleted] = -np.inf
        score[asked.rows[i]] = -np.inf
        best = np.sort(score)[::-1][: asked.k]
        found = truth[i][truth[i] >= 0]
        if not np.array_equal(score[found], best[: len(found)]):
            raise CheckError(
                f"the exact answer for row {asked.rows[i]} differs from brute force; "
                "build the index with --anew"
            )


def _filters(
    opened: SurveyIndex, rng: np.random.Generator, everything: NDArray[np.bool_]
) -> Iterator[tuple[str, Callable[[], NDArray[np.bool_]]]]:
    """Names of filters, and what makes each of them."""
    number = rng.random(len(everything))
    for share in SHARES:
        yield f"random {share:.0%}", lambda share=share: number < share  # type: ignore[misc]
    ra, dec = opened.places(rng.choice(len(opened), min(20_000, len(opened)), replace=False))
    known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if not len(known):
        return
    centre = float(ra[known[0]]), float(dec[known[0]])
    around = (np.full(len(known), place) for place in centre)
    away = sky.separation(ra[known], dec[known], *around)
    small, large = (max(float(np.quantile(away, share)), 1e-4) for share in (0.01, 0.1))
    yield f"cone {small:.3g} deg", lambda: opened.cone(*centre, small)
    ranges = sky.cone_cells(*centre, large)
    yield f"MOC {large:.3g} deg", lambda: opened.cells(ranges)
