"""Exact nearest neighbours by cosine similarity: Faiss finds, float64 decides.

Faiss scores in float32, where the order of sums and so the last digits depend on how many queries
come together. Here its candidates are scored again in float64 and ordered by similarity, then by
row; where float32 cannot rule out that a better row was missed, the query is searched again
without Faiss. The answer is that of brute force, the same alone or in any batch.
"""

import faiss
import numpy as np
from numpy.typing import NDArray

from skyvec.schema import Floats, Ints

SPARE = 4
"""Candidates beyond k, so that k clear answers are seldom in doubt."""

FEW = 20
"""Fewer queries than that are left to one thread; Faiss itself changes its method here."""

BLOCK = 1 << 22
"""Numbers scored again at once: 32 MiB."""


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Divide each vector by its length; a vector of zeros stays one.

    Args:
        vectors: Finite, shape (n, d).

    Raises:
        ValueError: The shape is another, or a number is not finite.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"vectors must have shape (n, d), not {vectors.shape}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"vectors must be finite, but {len(bad)} of {len(vectors)} are not; the first is "
            f"row {bad[0]}"
        )
    wide = vectors.astype(np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
    wide /= np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    wide /= np.where(length > 0, length, 1.0)
    # + 0 turns -0 into 0: equal vectors shall be equal bytes
    return wide.astype(np.float32) + np.float32(0)


def distance(similarity: Floats) -> Floats:
    """Euclidean distance of unit vectors of a cosine similarity s: sqrt(2 - 2 s), 0 to 2."""
    return np.sqrt(np.maximum(2 - 2 * similarity, 0))


class ExactIndex:
    """All vectors, to be searched by cosine similarity without approximation.

    Vectors of zeros are kept; their similarity to everything is 0. Equal directions are stored
    once, so a code that has collapsed to a few points does not slow the search.

    Args:
        vectors: Finite, shape (n, d). Their lengths do not matter.

    Raises:
        ValueError: The shape is another, or a number is not finite.
    """

    def __init__(self, vectors: Floats) -> None:
        directions = unit(vectors)
        self._n, width = directions.shape
        first, group = _distinct(directions)
        self._vectors = directions if len(first) == self._n else directions[first]
        self._members = np.argsort(group, kind="stable")
        self._offsets = np.r_[0, np.cumsum(np.bincount(group, minlength=len(first)))]
        self._inverse = _inverse_length(self._vectors)
        # |a b - float32(a b)| <= d 2^-24 |a| |b| (Higham 2002, Accuracy and Stability, 3.5), and
        # the lengths differ from 1 by rounding; twice that, because two products are compared
        self._doubt = (width + 4) * 2.0**-23
        self._faiss = faiss.IndexFlatIP(width)
        self._faiss.add(self._vectors)

    def __len__(self) -> int:
        return self._n

    def search(self, queries: Floats, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Find the k most similar rows of each query.

        Args:
            queries: Finite, shape (q, d).
            k: At least 1; where it is more than n, n are given.

        Returns:
            Cosine similarity in [-1, 1] (1 = same direction, 0 = nothing in common), descending,
            equal ones by ascending row, and the rows, shape (q, min(k, n)) each.

        Raises:
            ValueError: The shape is another, a number is not finite, or k is less than 1.
        """
        queries = unit(queries)
        if queries.shape[1] != self._faiss.d:
            raise ValueError(
                f"queries have {queries.shape[1]} numbers each, the index {self._faiss.d}; "
                "were they made by the same model?"
            )
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        k = min(k, self._n)
        similarity = np.empty((len(queries), k))
        rows = np.empty((len(queries), k), np.int64)
        step = max(1, BLOCK // max(1, (k + SPARE) * queries.shape[1]))
        if len(queries) and k:
            rough, groups = self._candidates(queries, min(k + SPARE, len(self._vectors)))
            for i in range(0, len(queries), step):
                part = slice(i, i + step)
                found = self._decide(queries[part], rough[part], groups[part], k)
                similarity[part], rows[part] = found
        return similarity, rows

    def _candidates(self, queries: NDArray[np.float32], m: int) -> tuple[Floats, Ints]:
        """The m best distinct vectors of each query by Faiss: float32 similarity and number."""
        if len(queries) >= FEW:
            return self._faiss.search(queries, m)
        threads = faiss.omp_get_max_threads()
        # waiting for a second thread costs up to a hundred times the search on a busy machine, as
        # it does in NumPy's products
        faiss.omp_set_num_threads(1)
        try:
            return self._faiss.search(queries, m)
        finally:
            faiss.omp_set_num_threads(threads)

    def _decide(
        self, queries: NDArray[np.float32], rough: Floats, groups: Ints, k: int
    ) -> tuple[Floats, Ints]:
        """Score candidates in float64; search again where float32 leaves a doubt."""
        exact = self._similarity(queries[:, None], groups)
        m = min(k, len(self._vectors))
        kth = -np.partition(-exact, m - 1, axis=1)[:, m - 1]
        all_seen = groups.shape[1] == len(self._vectors)
        in_doubt = np.flatnonzero(kth <= rough[:, -1] + self._doubt) if not all_seen else ()
        similarity, rows = self._expand(exact, groups, k)
        for i in in_doubt:
            score, group = self._exhaustive(queries[i], m)
            similarity[i], rows[i] = (x[0] for x in self._expand(score[None], group[None], k))
        return similarity, rows

    def _exhaustive(self, query: NDArray[np.float32], m: int) -> tuple[Floats, Ints]:
        """Every distinct vector that may be among the m best, with its float64 similarity."""
        rough = self._vectors @ query
        limit = -np.partition(-rough, m - 1)[m - 1] - self._doubt
        # similarities are clipped at 1: whatever may reach it is a tie
        group = np.flatnonzero(rough >= min(limit, 1 - self._doubt))
        return self._similarity(query[None], group), group

    def _similarity(self, queries: NDArray[np.float32], groups: Ints) -> NDArray[np.float64]:
        """Cosine in float64, summed in one order whatever the shape."""
        product = (queries.astype(np.float64) * self._vectors[groups]).sum(axis=-1)
        return np.clip(product * _inverse_length(queries) * self._inverse[groups], -1.0, 1.0)

    def _expand(self, similarity: Floats, groups: Ints, k: int) -> tuple[Floats, Ints]:
        """Turn distinct vectors into rows, the k best of each query in their order."""
        if len(self._vectors) == self._n:
            row = self._members[groups]
            order = np.lexsort((row, -similarity), axis=1)[:, :k]
            score = np.take_along_axis(similarity, order, axis=1)
            return score, np.take_along_axis(row, order, axis=1)
        # of one group no more than k rows can be among the k best
        size = np.minimum(np.diff(self._offsets)[groups], k).ravel()
        before = np.cumsum(size) - size
        place = np.arange(size.sum()) - np.repeat(before - self._offsets[groups].ravel(), size)
        score, row = np.repeat(similarity.ravel(), size), self._members[place]
        query = np.repeat(np.repeat(np.arange(len(groups)), groups.shape[1]), size)
        order = np.lexsort((row, -score, query))
        chosen = order[before.reshape(groups.shape)[:, :1] + np.arange(k)]
        return score[chosen], row[chosen]


def _inverse_length(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / |v|, which rounding to float32 has moved from 1; of a vector of zeros 1."""
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=-1))
    return 1 / np.where(length > 0, length, 1.0)


def _distinct(vectors: NDArray[np.float32]) -> tuple[Ints, Ints]:
    """First row of each distinct vector, by ascending row, and the number of each row's."""
    if not vectors.size:
        return np.arange(min(len(vectors), 1)), np.zeros(len(vectors), np.int64)
    keys = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.strides[0]))).ravel()
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return first[order], number[group]
