"""The oddest objects, exactly, without comparing all with all.

An object's score is the similarity to its k-th nearest other target; the oddest have the lowest.
Any k neighbours from other targets, however found, bound the score from below. So every object is
bounded from the few hundred vectors of its own cell; those whose bound is low enough to enter the
answer get a tighter bound from more cells; and the last are searched exactly, in the order of
their bounds, until the next bound cannot enter. What was left out is thereby proved ordinary.

References:
    Bay & Schwabacher, 2003, KDD, 29 (a cutoff that rises while ordinary objects are left early).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.index import kernels
from skyvec.index.blas import one_thread
from skyvec.index.certified import CertifiedIndex
from skyvec.index.kernels import LANES

RADII = (0.0, 0.1)
"""Share of the cells' radii believed in by the stages between the own cell and the proof."""

BATCH = 256
"""Objects searched exactly between two looks at the cutoff."""


class Proof(NamedTuple):
    """Why nothing else can be among the oddest.

    Args:
        n_bounded: Objects bounded in each stage (own cell, then each of ``RADII``), in order.
        n_verified: Objects searched exactly.
        cutoff: Score of the last of the answer (similarity, or distance for ``l2``).
        next_bound: Bound of the first object that was not verified: its similarity to its k-th
            other target is at least this (its distance at most this); NaN where all were.
    """

    n_bounded: tuple[int, ...]
    n_verified: int
    cutoff: float
    next_bound: float


class Oddest(NamedTuple):
    """The n oddest objects, oddest first; equals rank by row.

    Args:
        rows: Shape (n,).
        similarity: To the k-th nearest other target, ascending (distances, descending, for
            ``l2``), float32, shape (n,).
        proof: How it is known that these are they.
    """

    rows: NDArray[np.int64]
    similarity: NDArray[np.float32]
    proof: Proof


def oddest(index: CertifiedIndex, *, n: int = 20, k: int = 1) -> Oddest:
    """Find the vectors with the lowest similarity to their k-th nearest other target.

    Each other target counts once, by its nearest vector; vectors of the same target not at all.

    Args:
        index: Made with the targets of its vectors.
        n: How many, > 0; fewer where there are fewer vectors.
        k: Which neighbour, > 0.

    Raises:
        ValueError: n or k below 1, or not more than k targets.
    """
    n_targets = index.n_targets
    if n < 1 or k < 1:
        raise ValueError(f"n and k must be at least 1, not {n} and {k}")
    if n_targets <= k:
        raise ValueError(f"k={k} needs more than {k} targets, but there are {n_targets}")
    search = _Search(index, min(n, index.n), k)
    waiting = search.bound_all()
    counts = [len(waiting)]
    search.verify(waiting[:BATCH])
    waiting = waiting[BATCH:]
    for radii in RADII:
        waiting = waiting[search.bound[waiting] <= search.cutoff]
        counts.append(len(waiting))
        waiting = search.tighten(waiting, radii)
    while len(waiting) and search.bound[waiting[0]] <= search.cutoff:
        search.verify(waiting[:BATCH])
        waiting = waiting[BATCH:]
    return search.answer(tuple(counts))


class _Search:
    """Bounds, verified scores and the cutoff of one call; places, not rows."""

    def __init__(self, index: CertifiedIndex, n: int, k: int) -> None:
        self.index, self.n, self.k = index, n, k
        places = np.flatnonzero(index.store.rows >= 0)
        self.places = places
        self.bound = np.full(len(index.store.rows), -np.inf)
        self.is_verified = np.zeros(len(index.store.rows), np.bool_)
        self.cutoff = np.inf
        self.by_target = index.n_targets < index.n

    def bound_all(self) -> NDArray[np.int64]:
        """Bound every vector from its own cell; all places by ascending bound."""
        store = self.index.store

        def work(cells: range) -> None:
            best, whose = np.empty(self.k, np.float32), np.empty(self.k, np.int64)
            room = np.empty(int(np.diff(store.first).max() * LANES) ** 2, np.float32)
            for cell in cells:
                first, end = int(store.first[cell]) * LANES, int(store.first[cell + 1]) * LANES
                end -= int(np.count_nonzero(store.rows[end - LANES : end] < 0))
                scores, doubt = _all_pairs(store.vectors[first:end], len(store.bias) > 0, room)
                bound = np.empty(end - first, np.float32)
                target = store.target[first:end]
                kernels.kth_best(scores, target, self.by_target, best, whose, bound)
                self.bound[first:end] = bound.astype(np.float64) - doubt

        cells, threads = range(self.index.n_cells), self.index.threads
        with one_thread():
            self.index.share(work, [cells[i::threads] for i in range(threads)])
        return self._ascending(self.places)

    def tighten(self, places: NDArray[np.int64], radii: float) -> NDArray[np.int64]:
        """Raise the bounds by looking into more cells; those that may still enter, ascending."""
        ordered = np.sort(places)  # neighbours in the store read the same cells
        score, _ = self._best(ordered, radii)
        self.bound[ordered] = np.maximum(self.bound[ordered], score)
        return self._ascending(ordered[self.bound[ordered] <= self.cutoff])

    def verify(self, places: NDArray[np.int64]) -> None:
        """Search exactly, leaving what is seen to be ordinary, and lower the cutoff."""
        if not len(places):
            return
        score, _ = self._best(places, 1.0)
        self.bound[places] = score
        self.is_verified[places] = True
        done = self.bound[self.is_verified]
        if len(done) >= self.n:
            self.cutoff = float(np.partition(done, self.n - 1)[self.n - 1])

    def answer(self, counts: tuple[int, ...]) -> Oddest:
        """The n lowest of the verified, and the proof."""
        store = self.index.store
        places = np.flatnonzero(self.is_verified)
        order = np.lexsort((store.rows[places], self.bound[places]))[: self.n]
        places = places[order]
        left = self.bound[self.places[~self.is_verified[self.places]]]
        shown = self.index.shown(np.array([self.cutoff, left.min() if len(left) else np.nan]))
        proof = Proof(counts, int(self.is_verified.sum()), float(shown[0]), float(shown[1]))
        similarity = self.index.shown(self.bound[places])
        return Oddest(store.rows[places], similarity.astype(np.float32), proof)

    def _ascending(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return places[np.argsort(self.bound[places], kind="stable")]

    def _best(
        self, places: NDArray[np.int64], radii: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        store = self.index.store
        score, place = self.index.best(
            store.vectors[places, : self.index.d],
            self.k,
            store.target[places],
            radii=radii,
            by_target=self.by_target,
            cutoff=self.cutoff,
        )
        return score[:, -1], place[:, -1]


def _all_pairs(
    vectors: NDArray[np.float32], is_distance: bool, room: NDArray[np.float32]
) -> tuple[NDArray[np.float32], float]:
    """Scores of all pairs in float32, and how far they may be wrong: sums of d products."""
    if is_distance:
        vectors = (vectors - vectors.mean(axis=0, dtype=np.float64)).astype(np.float32)
    n = len(vectors)
    scores = np.matmul(vectors, vectors.T, out=room[: n * n].reshape(n, n))
    power = np.einsum("ij,ij->i", vectors, vectors)
    if is_distance:
        scores -= 0.5 * (power[:, None] + power)
    precision = float(np.finfo(np.float32).eps)
    return scores, (2 * vectors.shape[1] + 16) * precision * float(power.max())
