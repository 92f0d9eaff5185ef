"""The exact minimum spanning tree of mutual reachability, on which density clustering stands.

Trees in space stop paying beyond some twenty numbers a vector; a product of matrices does not. The
tree grows by Borůvka's rounds: every group of points looks for the nearest point outside of it.
Most find it among the few nearest neighbours that Faiss gave; who does not is compared with all,
once, and remembers what it found.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from skyvec.index.exact import ExactIndex, distance, unit
from skyvec.index.graph import Graph, distances
from skyvec.schema import Floats, Ints

SPARE = 20
"""Neighbours known beyond those that define the density."""

ROWS, COLUMNS = 512, 4096
"""Size of a product of matrices: 8 MiB of float32, which a processor's cache holds."""

NOTHING = -2.0
"""Below every cosine."""

FARTHEST = 2.0
"""Distance of two opposite unit vectors."""

APART = 1e-12
"""Copies are told apart from no edge by this distance."""


def spanning_tree(vectors: Floats, min_samples: int) -> NDArray[np.float64]:
    """Connect all points by the edges of least mutual reachability distance.

    reach(p, q) = max(core(p), core(q), |p - q|), core(p) = distance to the ``min_samples``-th
    nearest other point, all between unit vectors. In terms of cosines it is a minimum, and far
    is small.

    Args:
        vectors: Finite, shape (n, d), n >= 2.
        min_samples: 1 .. n - 1.

    Returns:
        Edges (p, q, reach), shape (n - 1, 3), from near to far.

    References:
        Campello, Moulavi & Sander, 2013, PAKDD, 160. Borůvka, 1926, Práce Mor. přírodověd. spol.
        III, 37.
    """
    directions = unit(vectors)
    tree = _Tree(directions, min_samples)
    while tree.n_groups > 1:
        tree.join(tree.look_outside())
    ends, reach = np.concatenate(tree.ends), distance(np.concatenate(tree.reach))
    order = np.lexsort((ends[:, 1], ends[:, 0], reach))
    return np.column_stack([ends, reach])[order]


def graph_tree(graph: Graph, min_samples: int) -> NDArray[np.float64]:
    """Connect all points along a stored graph of neighbours, as `spanning_tree` does exactly.

    Parts that no neighbour connects are joined at the farthest distance there is: they are groups
    of their own, however near. Time grows as n log n.

    Args:
        graph: k neighbours of each of n >= 2 vectors, by cosine, none missing.
        min_samples: 1 .. k.

    Returns:
        Edges (p, q, reach), shape (n - 1, 3), from near to far.

    Raises:
        ValueError: Too few neighbours, or some missing.
    """
    n, k = graph.rows.shape
    if not 1 <= min_samples <= k:
        raise ValueError(f"min_samples={min_samples} needs as many neighbours, the graph has {k}")
    if (graph.rows < 0).any():
        raise ValueError("some vectors have fewer neighbours than the graph is wide")
    far = distances(graph)
    core = far[:, min_samples - 1].copy()
    reach = np.maximum(far, core[:, None])
    np.maximum(reach, core[graph.rows], out=reach)
    np.maximum(reach, APART, out=reach)
    starts = np.arange(0, n * k + 1, k)
    whole = csr_array((reach.ravel(), graph.rows.ravel(), starts), shape=(n, n))
    forest = minimum_spanning_tree(whole, overwrite=True).tocoo()
    edges = np.column_stack(
        [forest.row, forest.col, np.where(forest.data > APART, forest.data, 0)]
    )
    _, part = connected_components(forest, directed=False)
    # the densest point of each part, the densest of all first
    order = np.argsort(core, kind="stable")
    heart = order[np.sort(np.unique(part[order], return_index=True)[1])]
    others = np.full(len(heart) - 1, FARTHEST)
    bridges = np.column_stack([np.full(len(others), heart[0]), heart[1:], others])
    edges = np.concatenate([edges, bridges])
    return edges[np.lexsort((edges[:, 1], edges[:, 0], edges[:, 2]))]


class _Tree:
    """A forest that grows to one tree.

    For every point ``best`` is the cosine of the nearest point outside of its group that is known
    and ``partner`` that point; ``open`` is how near an unknown one may be.
    """

    def __init__(self, directions: NDArray[np.float32], min_samples: int) -> None:
        n = len(directions)
        self._vectors = directions
        similarity, rows = ExactIndex(directions).search(directions, min_samples + 1 + SPARE)
        # of copies the point itself need not come first; leaving out any copy does the same
        self._core = np.ascontiguousarray(similarity[:, min_samples])
        self._known = np.minimum(similarity, self._core[rows])
        self._rows = rows
        self._limit = np.minimum(similarity[:, -1], self._core)
        if rows.shape[1] == n:
            self._limit[:] = NOTHING
        self._scanned = np.full(n, NOTHING)
        self._scanned_row = np.arange(n)
        self.group = np.arange(n)
        self.n_groups = n
        self.ends: list[Ints] = []
        self.reach: list[Floats] = []

    def look_outside(self) -> tuple[Floats, Ints]:
        """Give every point's cosine to its nearest known point outside, and that point.

        At least half of the groups, those with the least to do, get their true nearest; the
        others may have none (``NOTHING``).
        """
        best, partner = self._from_neighbours()
        done = np.full(self.n_groups, NOTHING)
        np.maximum.at(done, self.group, best)
        # a point is asked only if it may know something nearer than what its group has
        todo = self._limit > np.maximum(done[self.group], best)
        work = np.bincount(self.group, todo, self.n_groups)
        order = np.argsort(work, kind="stable")
        now = np.zeros(self.n_groups, bool)
        now[order[: (self.n_groups + 1) // 2]] = True
        asked = np.flatnonzero(todo & now[self.group])
        if len(asked):
            self._scan(asked)
            better = asked[self._scanned[asked] > best[asked]]
            best[better], partner[better] = self._scanned[better], self._scanned_row[better]
        now |= work == 0
        best[~now[self.group]] = NOTHING
        return best, partner

    def _from_neighbours(self) -> tuple[Floats, Ints]:
        outside = self.group[self._rows] != self.group[:, None]
        known = np.where(outside, self._known, NOTHING)
        place = known.argmax(axis=1)[:, None]
        best = np.take_along_axis(known, place, axis=1)[:, 0]
        partner = np.take_along_axis(self._rows, place, axis=1)[:, 0]
        best = np.where(best > NOTHING, np.minimum(best, self._core), NOTHING)
        still = self.group[self._scanned_row] != self.group
        better = still & (self._scanned > best)
        return (
            np.where(better, self._scanned, best),
            np.where(better, self._scanned_row, partner),
        )

    def _scan(self, asked: Ints) -> None:
        """Find the nearest point outside of its group of each asked, among all."""
        order = np.argsort(self.group, kind="stable")
        starts = np.searchsorted(self.group[order], np.arange(self.n_groups + 1))
        vectors, core = self._vectors[order], self._core[order].astype(np.float32)
        asked = asked[np.argsort(self.group[asked], kind="stable")]
        for i in range(0, len(asked), ROWS):
            rows = asked[i : i + ROWS]
            best, place = _nearest_outside(
                self._vectors[rows],
                vectors,
                core,
                starts[self.group[rows]],
                starts[self.group[rows] + 1],
            )
            self._scanned[rows] = np.minimum(best, self._core[rows])
            self._scanned_row[rows] = order[place]
            self._limit[rows] = self._scanned[rows]

    def join(self, found: tuple[Floats, Ints]) -> None:
        """Add the nearest edge out of each group that has one."""
        best, partner = found
        order = np.lexsort((np.arange(len(best)), -best, self.group))
        first = order[np.searchsorted(self.group[order], np.arange(self.n_groups))]
        first = first[best[first] > NOTHING]
        a, b = self.group[first], self.group[partner[first]]
        # two groups may have chosen the same edge, or with ties a ring: ranks break both
        rank = np.empty(len(first))
        rank[np.lexsort((first, -best[first]))] = np.arange(1, len(first) + 1)
        ends = np.sort(np.stack([a, b]), axis=0)
        _, once = np.unique(ends[:, np.argsort(rank)], axis=1, return_index=True)
        chosen = np.argsort(rank)[once]
        graph = coo_array((rank[chosen], ends[:, chosen]), shape=(self.n_groups,) * 2).tocsr()
        forest = minimum_spanning_tree(graph)
        used = first[np.argsort(rank)][forest.data.astype(np.int64) - 1]
        self.ends.append(np.stack([used, partner[used]], axis=1))
        self.reach.append(best[used])
        self.n_groups, label = connected_components(forest, directed=False)
        self.group = label[self.group].astype(np.int64)


def _nearest_outside(
    rows: NDArray[np.float32], vectors: NDArray[np.float32], core: Floats, low: Ints, high: Ints
) -> tuple[Floats, Ints]:
    """Most similar vector of each row outside of [low, high), by min(cosine, core)."""
    best = np.full(len(rows), NOTHING, np.float32)
    place = np.zeros(len(rows), np.int64)
    own, group = np.unique(low, return_inverse=True)
    top = high[np.unique(low, return_index=True)[1]]
    turn = np.searchsorted(group, np.arange(len(own) + 1))
    for start in range(0, len(vectors), COLUMNS):
        product = rows @ vectors[start : start + COLUMNS].T
        np.minimum(product, core[start : start + COLUMNS], out=product)
        inside = np.flatnonzero((own < start + COLUMNS) & (top > start))
        for g in inside:
            mine = slice(max(0, own[g] - start), top[g] - start)
            product[turn[g] : turn[g + 1], mine] = NOTHING
        column = product.argmax(axis=1)
        value = product[np.arange(len(rows)), column]
        better = value > best
        best[better], place[better] = value[better], start + column[better]
    return best, place
