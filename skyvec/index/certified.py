"""Exact nearest neighbours without a full scan, proved equal to brute force.

Vectors are turned onto their principal axes, sorted into cells and kept twice more as 8-bit codes:
the first axes with the length of the rest (coarse), and all axes (fine). A query passes cells,
coarse codes and fine codes; each gives an upper bound on the score, all rounding included, and
only vectors whose bound reaches the k-th best score so far are scored exactly, in float64. Nothing
that could belong to the answer is ever passed over, so the answer is brute force's, bit for bit.

Bounds, for a vector x and a query q after the turn:

- cell with centre c and radius r: |x - q| >= |c - q| - r, with
  x.q = (|x|^2 + |q|^2 - |x - q|^2) / 2;
- coarse: x.q <= head(x).head(q) + |tail(x)| |tail(q)| (Cauchy and Schwarz);
- codes: x = o + s c + e and s q = u w + f with whole c and w give
  x.q <= o.q + u (c.w) + max|c| |f| + max|e| |q|.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.index import kernels
from skyvec.index.blas import one_thread
from skyvec.index.quantised import build_store, checked, unit

METRICS = ("cosine", "l2")

SEEDS = 3
"""Cells looked at first, before the order of the store."""

TOGETHER = 64
"""Queries that read a cell together, at most: its codes come from memory once for all."""

SPLIT = 1_000_000
"""From so many vectors on that may be read, a single query is worth sharing between threads."""

SKIPPED = 10
"""An approximate search reads less than one in so many vectors."""

SPLIT_FEW = 30
"""Scoring a vector that a filter leaves costs as much as scanning so many."""

SAMPLE = 64
"""Vectors asked for at build, to measure what the bounds prune."""

FLAT_FRACTION = 0.05
"""Where more than this fraction passes all bounds a plain scan is faster."""

FLAT_SIZE = 5_000
"""Below so many vectors every way takes microseconds."""

FEW = 1_000
FEW_SHARE = 0.02
"""Where a filter leaves fewer rows than either says, each is scored."""


class Neighbours(NamedTuple):
    """The k best rows of each query, best first.

    Args:
        similarity: Cosine in [-1, 1], or the distance, ascending, for ``l2``; NaN where fewer than
            k exist. float32, shape (q, k).
        rows: Row of each, -1 where fewer than k exist, shape (q, k). Equals rank by row.
    """

    similarity: NDArray[np.float32]
    rows: NDArray[np.int64]


class Allowed(NamedTuple):
    """What a filter leaves of an index, made once for many searches.

    Args:
        mask: Rows that may answer, (n,).
        places: Where they stand in the store, ascending, if they are so few that scoring each is
            fastest; else None.
    """

    mask: NDArray[np.bool_]
    places: NDArray[np.int64] | None


class Plan(NamedTuple):
    """How an index decided to search, from what its bounds pruned on a sample of its own vectors.

    Args:
        way: ``coarse`` (both stages), ``fine`` (the second alone) or ``flat`` (everything is
            scored exactly, as where a few huge vectors make all codes coarse).
        coarse_fraction: Blocks of 64 that pass the coarse stage.
        exact_fraction: Vectors that pass all bounds and are scored exactly.
    """

    way: str
    coarse_fraction: float
    exact_fraction: float


class CertifiedIndex:
    """An index whose answers equal brute force, bit for bit, in less time.

    Args:
        vectors: Finite, shape (n, d), n > 0. They are copied.
        metric: ``cosine`` (zero vectors have similarity 0 with everything) or ``l2``.
        target: Code >= 0 of the object of each vector, shape (n,); None: each is its own.
        threads: Threads to use; None: one a core.

    Raises:
        ValueError: Not finite, no vectors, an unknown metric, or a wrong number of targets.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        *,
        metric: str = "cosine",
        target: np.ndarray | None = None,
        threads: int | None = None,
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")
        vectors = checked(vectors)
        if not len(vectors):
            raise ValueError("there are no vectors to index")
        self.metric = metric
        self.n, self.d = vectors.shape
        codes = np.arange(self.n) if target is None else np.asarray(target)
        self.n_targets = self.n if target is None else len(np.unique(codes))
        if codes.shape != (self.n,) or codes.dtype.kind not in "iu" or codes.min() < 0:
            raise ValueError(
                f"target must be {self.n} integer codes >= 0, not {codes.dtype} {codes.shape}"
            )
        self._use(threads)
        ready = unit(vectors) if metric == "cosine" else vectors
        with one_thread():
            self.store = build_store(ready, codes, metric, self._pool)
        self.plan = self._measure()

    @classmethod
    def of(
        cls,
        store: kernels.Store,
        metric: str,
        *,
        n_targets: int,
        plan: Plan | None = None,
        place: NDArray[np.integer] | None = None,
        threads: int | None = None,
    ) -> "CertifiedIndex":
        """Make an index of a store that was built before, such as one mapped from files.

        Args:
            store: Its arrays may be read-only in spirit; they are never written to.
            metric: That it was built for.
            n_targets: Different targets among its vectors.
            plan: How to search; measured where None.
            place: Place of each row, (n,); found where it is first needed, if None.
            threads: Threads to use; None: one a core.
        """
        index = cls.__new__(cls)
        index.metric, index.n_targets = metric, n_targets
        index.n = int(np.count_nonzero(store.rows >= 0)) if place is None else len(place)
        index.d = len(store.mean)
        index.store = store
        index._use(threads)
        if place is not None:
            index._place = place
        index.plan = index._measure() if plan is None else plan
        return index

    def _use(self, threads: int | None) -> None:
        self.threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.threads)

    @property
    def n_cells(self) -> int:
        """How many cells the vectors are sorted into."""
        return len(self.store.first) - 1

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        excluded: np.ndarray | None = None,
        allowed: np.ndarray | Allowed | None = None,
        radii: float = 1.0,
        by_target: bool = False,
    ) -> Neighbours:
        """Find the k nearest vectors of each query.

        Args:
            queries: Finite, shape (q, d).
            k: How many, > 0.
            excluded: Target code whose vectors are passed over, -1 for none, shape (q,).
            allowed: Search only among rows where this is true, shape (n,); or what `allow` made
                of that, to save its time where many searches share it.
            radii: Share of each cell's radius that is believed in, in [0, 1]. Below 1 more cells
                are passed over: faster, but no longer proved (`choose_radii` measures what is
                lost).
            by_target: Each target counts once, by its nearest vector.

        Raises:
            ValueError: Not finite, the wrong width, k < 1, or radii outside [0, 1].
        """
        queries = checked(queries, "queries")
        if queries.shape[1] != self.d:
            raise ValueError(f"queries have {queries.shape[1]} numbers, the index has {self.d}")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if self.metric == "cosine":
            queries = unit(queries)
        barred = np.full(len(queries), -1) if excluded is None else np.asarray(excluded, np.int64)
        if barred.shape != (len(queries),):
            raise ValueError(f"excluded must have shape ({len(queries)},), not {barred.shape}")
        if not 0 <= radii <= 1:
            raise ValueError(f"radii must be in [0, 1], not {radii}")
        if isinstance(allowed, np.ndarray):
            allowed = self.allow(allowed)
        score, place = self.best(
            queries, k, barred, allowed=allowed, radii=radii, by_target=by_target
        )
        rows = np.where(place >= 0, self.store.rows[place], -1)
        value = np.where(place >= 0, self.shown(score), np.nan)
        return Neighbours(value.astype(np.float32), rows)

    def allow(self, mask: NDArray[np.bool_]) -> Allowed:
        """Prepare a filter: rows that may answer, shape (n,).

        Raises:
            ValueError: The mask is not n booleans.
        """
        if mask.shape != (self.n,) or mask.dtype != np.bool_:
            raise ValueError(f"allowed must be {self.n} booleans, not {mask.dtype} {mask.shape}")
        if np.count_nonzero(mask) > max(FEW, FEW_SHARE * self.n):
            return Allowed(mask, None)
        return Allowed(mask, np.sort(self.places(np.flatnonzero(mask))))

    def shown(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores as they are told: similarities themselves, or distances."""
        return score if self.metric == "cosine" else np.sqrt(np.abs(2 * score))

    def best(
        self,
        queries: NDArray[np.float32],
        k: int,
        excluded: NDArray[np.int64],
        *,
        allowed: Allowed | None = None,
        radii: float = 1.0,
        by_target: bool = False,
        cutoff: float = np.inf,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Scores in float64 and places in the store, best first, shape (q, k) each.

        For the other files of this room, which have checked (and, for cosine, normalised) their
        queries; the rest as in `search`. A query whose k-th best score is seen to be above
        ``cutoff`` is left there: its answer is then only a lower bound.
        """
        few = None if allowed is None else allowed.places
        read = self.n if radii == 1 else self.n // SKIPPED
        if few is not None:
            read = SPLIT_FEW * len(few)
        if len(queries) == 1 and read >= SPLIT and self.threads > 1:
            return self._best_of_one(queries, k, excluded, allowed, radii, by_target)
        step = max(1, min(TOGETHER, -(-len(queries) // self.threads)))
        starts = range(0, len(queries), step)
        work = [
            self.asked(queries[i : i + step], excluded[i : i + step], k, allowed) for i in starts
        ]

        def answer(asked: kernels.Asked) -> None:
            if few is not None:
                kernels.search_places(self.store, asked, few, by_target)
            elif self.plan.way == "flat" and radii == 1:
                kernels.search_all(self.store, asked, by_target)
            else:
                self._search_cells(asked, 0, self.n_cells, radii, by_target, cutoff)

        if len(work) == 1:
            answer(work[0])
            return work[0].score, work[0].place
        self.share(answer, work)
        if not work:
            return np.empty((0, k)), np.empty((0, k), np.int64)
        return np.concatenate([a.score for a in work]), np.concatenate([a.place for a in work])

    def places(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Place of each row in the store, (m,)."""
        return self._place[rows].astype(np.int64)

    @cached_property
    def _place(self) -> NDArray[np.integer]:
        """Place of each row in the store."""
        place = np.empty(self.n, np.int64)
        real = np.flatnonzero(self.store.rows >= 0)
        place[self.store.rows[real]] = real
        return place

    def _best_of_one(
        self,
        query: NDArray[np.float32],
        k: int,
        excluded: NDArray[np.int64],
        allowed: Allowed | None,
        radii: float,
        by_target: bool,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Share the cells, or the few places, between the threads, then merge their answers."""
        few = None if allowed is None else allowed.places
        if few is None and self.plan.way == "flat" and radii == 1:
            asked = self.asked(query, excluded, k, allowed)
            kernels.search_all(self.store, asked, by_target)
            return asked.score, asked.place
        edges = np.linspace(0, self.n_cells if few is None else len(few), self.threads + 1)
        parts = [self.asked(query, excluded, k, allowed) for _ in edges[1:]]

        def answer(i: int) -> None:
            low, high = int(edges[i]), int(edges[i + 1])
            if few is not None:
                kernels.search_places(self.store, parts[i], few[low:high], by_target)
            else:
                self._search_cells(parts[i], low, high, radii, by_target, np.inf)

        self.share(answer, range(len(parts)))
        score = np.concatenate([part.score[0] for part in parts])
        row = np.concatenate([part.row[0] for part in parts])
        place = np.concatenate([part.place[0] for part in parts])
        order = np.lexsort((row, -score))
        if by_target:
            _, nearest = np.unique(self.store.target[place[order]], return_index=True)
            order = order[np.sort(nearest)]
        order = order[place[order] >= 0][:k]
        best, where = np.full((1, k), -np.inf), np.full((1, k), -1)
        best[0, : len(order)], where[0, : len(order)] = score[order], place[order]
        return best, where

    def _search_cells(
        self,
        asked: kernels.Asked,
        low: int,
        high: int,
        radii: float,
        by_target: bool,
        cutoff: float,
    ) -> None:
        # of the cells near the query, which an approximate search reads, hardly a block fails
        is_coarse = self.plan.way == "coarse" and radii == 1
        kernels.search_cells(
            self.store, asked, low, high, SEEDS, radii, is_coarse, by_target, cutoff
        )

    def share(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Do a piece of work for every item on the threads of this index."""
        list(self._pool.map(work, items))

    def asked(
        self,
        queries: NDArray[np.float32],
        excluded: NDArray[np.int64],
        k: int,
        allowed: Allowed | None = None,
    ) -> kernels.Asked:
        """Make room for a group of queries: their targets to pass over, their k best."""
        g, store = len(queries), self.store
        wide = np.zeros((g, store.vectors.shape[1]))
        wide[:, : self.d] = queries
        groups = max(store.coarse.groups, store.fine.groups)
        return kernels.Asked(
            wide,
            excluded,
            np.empty(0, np.uint8) if allowed is None else allowed.mask.view(np.uint8),
            np.empty((g, self.d)),
            np.zeros(2 * g * groups, np.int32),
            groups,
            np.empty((2, g)),
            np.empty((2, g)),
            np.empty((g, self.n_cells)),
            np.empty((g, self.n_cells)),
            np.empty((g, self.n_cells), np.bool_),
            np.empty((g, k)),
            np.empty((g, k), np.int64),
            np.empty((g, k), np.int64),
            np.zeros((3, g), np.int64),
        )

    def _measure(self) -> Plan:
        """Search for a sample of the vectors and choose the way that costs the fewest groups."""
        places = np.flatnonzero(self.store.rows >= 0)
        places = places[:: max(1, len(places) // SAMPLE)][:SAMPLE]
        queries = self.store.vectors[places, : self.d]
        asked = self.asked(queries, self.store.target[places], min(5, self.n))
        cells = self.n_cells
        kernels.search_cells(self.store, asked, 0, cells, SEEDS, 1.0, True, False, np.inf)
        coarse, fine, exact = asked.work.sum(axis=1)
        passed, scored = fine / max(1, coarse), exact / (len(places) * self.n)
        both = self.store.coarse.groups + passed * self.store.fine.groups
        way = "coarse" if both < self.store.fine.groups else "fine"
        is_hopeless = scored > FLAT_FRACTION and self.n > FLAT_SIZE
        return Plan("flat" if is_hopeless else way, float(passed), float(scored))
