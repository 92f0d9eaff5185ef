"""Several indices searched as one: vectors that came later stand in segments of their own.

Each segment answers on its own and the answers are merged by their scores in float64, so that all
together answer as one index would. Deleted rows keep their numbers and answer nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skyvec.index.certified import Allowed, CertifiedIndex, Neighbours
from skyvec.index.quantised import checked, unit


class SegmentedIndex:
    """Indices of the same metric, whose rows are counted on from one to the next.

    Args:
        segments: At least one; target codes mean the same in all.
        deleted: Rows that do not answer, shape (n,); None: none.

    Raises:
        ValueError: No segment, or segments of several metrics or widths.
    """

    def __init__(
        self, segments: Sequence[CertifiedIndex], deleted: NDArray[np.bool_] | None = None
    ) -> None:
        if len({(segment.metric, segment.d) for segment in segments}) != 1:
            raise ValueError("an index needs segments, all of one metric and width")
        self.segments = list(segments)
        self.metric, self.d = segments[0].metric, segments[0].d
        self.first = np.concatenate([[0], np.cumsum([segment.n for segment in segments])])
        self.n = int(self.first[-1])
        if deleted is not None and deleted.shape != (self.n,):
            raise ValueError(f"deleted must have shape ({self.n},), not {deleted.shape}")
        self.alive = None if deleted is None or not deleted.any() else ~deleted
        self._all = None if self.alive is None else self._apart(self.alive)

    def allow(self, mask: NDArray[np.bool_]) -> list[Allowed]:
        """Prepare a filter for many searches: rows that may answer, shape (n,).

        Raises:
            ValueError: The mask is not n booleans.
        """
        if mask.shape != (self.n,) or mask.dtype != np.bool_:
            raise ValueError(f"allowed must be {self.n} booleans, not {mask.dtype} {mask.shape}")
        return self._apart(mask if self.alive is None else mask & self.alive)

    def _apart(self, mask: NDArray[np.bool_]) -> list[Allowed]:
        return [
            segment.allow(mask[first : first + segment.n])
            for segment, first in zip(self.segments, self.first)
        ]

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        excluded: np.ndarray | None = None,
        allowed: NDArray[np.bool_] | list[Allowed] | None = None,
        radii: float = 1.0,
        by_target: bool = False,
    ) -> Neighbours:
        """Find the k nearest vectors of each query; all as in `CertifiedIndex.search`.

        Raises:
            ValueError: Not finite, the wrong width, k < 1, or radii outside [0, 1].
        """
        queries = checked(queries, "queries")
        if queries.shape[1] != self.d:
            raise ValueError(f"queries have {queries.shape[1]} numbers, the index has {self.d}")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if not 0 <= radii <= 1:
            raise ValueError(f"radii must be in [0, 1], not {radii}")
        if isinstance(allowed, np.ndarray):
            allowed = self.allow(allowed)
        if allowed is None:
            allowed = self._all
        if self.metric == "cosine":
            queries = unit(queries)
        barred = np.full(len(queries), -1) if excluded is None else np.asarray(excluded, np.int64)
        scores, rows, targets = [], [], []
        for i, (segment, first) in enumerate(zip(self.segments, self.first)):
            own = None if allowed is None else allowed[i]
            score, place = segment.best(
                queries, k, barred, allowed=own, radii=radii, by_target=by_target
            )
            store = segment.store
            scores.append(np.where(place >= 0, score, -np.inf))
            rows.append(np.where(place >= 0, store.rows[place] + first, -1))
            targets.append(np.where(place >= 0, store.target[place], -1))
        score, row, target = (np.concatenate(part, axis=1) for part in (scores, rows, targets))
        if len(self.segments) > 1:
            score, row = _merged(score, row, target, k, by_target)
        value = np.where(row >= 0, self.segments[0].shown(score), np.nan)
        return Neighbours(value.astype(np.float32), row)

    def vectors(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """The vectors of some rows as they are searched (of length 1 for cosine), (m, d)."""
        found = np.empty((len(rows), self.d), np.float32)
        for segment, first in zip(self.segments, self.first):
            here = (rows >= first) & (rows < first + segment.n)
            places = segment.places(np.asarray(rows)[here] - first)
            found[here] = segment.store.vectors[places, : self.d]
        return found

    def targets(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """The target codes of some rows, (m,)."""
        found = np.empty(len(rows), np.int64)
        for segment, first in zip(self.segments, self.first):
            here = (rows >= first) & (rows < first + segment.n)
            found[here] = segment.store.target[segment.places(np.asarray(rows)[here] - first)]
        return found


def _merged(
    score: NDArray[np.float64],
    row: NDArray[np.int64],
    target: NDArray[np.int64],
    k: int,
    by_target: bool,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The k best of all segments' answers, shape (q, k)."""
    best, rows = np.full((len(score), k), -np.inf), np.full((len(score), k), -1)
    for i in range(len(score)):
        order = np.lexsort((row[i], -score[i]))
        order = order[row[i, order] >= 0]
        if by_target:
            _, once = np.unique(target[i, order], return_index=True)
            order = order[np.sort(once)]
        order = order[:k]
        best[i, : len(order)], rows[i, : len(order)] = score[i, order], row[i, order]
    return best, rows
