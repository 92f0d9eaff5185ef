"""The segments least like any other object: every vector against all, exactly.

Neighbours of the same target do not count, or the same star a month later would make an oddity
look ordinary; and each other target counts once, however many segments it has.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyvec.index.certified import CertifiedIndex
from skyvec.index.exact import ExactIndex, distance, unit
from skyvec.index.graph import Graph
from skyvec.index.oddest import Proof, oddest
from skyvec.schema import Floats, Ints, Latents, Strings

BLOCK = 8192
"""Segments looked at together."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """Segments by how alone they are, oddest first; shape (m,) each.

    Args:
        id: The segment; where targets are listed once, the oddest of its target.
        target: Its object.
        similarity: Cosine to the k-th nearest other target; low = like nothing else.
        density: Mean cosine to the k nearest other targets.
        density_ratio: Mean of the neighbours' own distance to their k-th, over the segment's:
            about 1 = as dense as its surroundings, far below 1 = alone beside a dense group.
        segments: How many segments its target has.
        similarity_ordinary: ``similarity`` of the most ordinary segment of the same target: as low
            where the star itself is odd, higher where one segment is, such as by a glitch.
        ra: ICRS [deg], NaN where unknown.
        dec: ICRS [deg], NaN where unknown.
        rows: Row among the latents.
        k: Which neighbour.
    """

    id: Strings
    target: Strings
    similarity: Floats
    density: Floats
    density_ratio: Floats
    segments: Ints
    similarity_ordinary: Floats
    ra: Floats
    dec: Floats
    rows: Ints
    k: int

    def __len__(self) -> int:
        return len(self.id)


def outliers(
    latents: Latents,
    n: int | None = 20,
    k: int = 5,
    *,
    per: str = "target",
    index: ExactIndex | None = None,
    graph: Graph | None = None,
) -> Outliers:
    """Rank segments by their similarity to the k-th nearest other target, lowest first.

    Without a graph all are compared with all: nothing is approximate, and ties are in the order
    of rows.

    Args:
        latents: At least k + 1 targets.
        n: How many to give; None = all.
        k: Which neighbour. 1 finds what is alone; 5 also finds pairs and small groups.
        per: ``target`` = each target once, by its oddest segment; ``segment`` = every segment.
        index: The index of all latents, where it is at hand; else it is made.
        graph: The neighbours of the same latents among other targets, where they were found
            before; as good as its recall.

    Raises:
        ValueError: There are too few targets for k, another ``per``, or the graph is too narrow.

    References:
        Ramaswamy, Rastogi & Shim, 2000, SIGMOD Rec. 29, 427 (distance to the k-th neighbour).
        Breunig et al., 2000, SIGMOD Rec. 29, 93 (density relative to the neighbours').
    """
    if per not in ("target", "segment"):
        raise ValueError(f"per must be 'target' or 'segment', not {per!r}")
    targets, target = np.unique(latents.target, return_inverse=True)
    if not 1 <= k < len(targets):
        raise ValueError(
            f"k must be between 1 and {len(targets) - 1}, one less than there are targets, not {k}"
        )
    similarity: Floats
    rows: Ints
    if graph is None:
        index = ExactIndex(latents.vectors) if index is None else index
        similarity, rows = nearest_targets(latents.vectors, target, k, index=index)
    else:
        similarity, rows = _along(graph, len(latents), k)
    odd = similarity[:, -1]
    ordinary = np.full(len(targets), -np.inf)
    np.maximum.at(ordinary, target, odd)
    order = np.argsort(odd, kind="stable")
    if per == "target":
        order = order[np.sort(np.unique(target[order], return_index=True)[1])]
    order = order[:n]
    return Outliers(
        latents.id[order],
        latents.target[order],
        odd[order],
        similarity[order].mean(axis=1),
        _density_ratio(odd, rows)[order],
        np.bincount(target)[target[order]],
        ordinary[target[order]],
        latents.ra[order],
        latents.dec[order],
        order,
        k,
    )


def first_outliers(latents: Latents, n: int = 20, k: int = 5) -> tuple[Outliers, Proof]:
    """The first n targets of :func:`outliers`, proved to be they, in seconds at a million.

    The same numbers in the same order, but for ties of the oddest in the 7th digit.

    Args:
        latents: At least k + 1 targets.
        n: How many.
        k: Which neighbour.

    Returns:
        The targets, oddest first, and why there is none odder.

    Raises:
        ValueError: n is below 1, or there are too few targets for k.
    """
    index, target, rows, proof = _first_targets(latents, n, k, "cosine")
    directions = unit(latents.vectors)

    def near(asked: Ints) -> tuple[NDArray[np.float64], Ints]:
        found = index.search(directions[asked], k, excluded=target[asked], by_target=True).rows
        pairs = np.einsum("ij,ikj->ik", directions[asked], directions[found], dtype=np.float64)
        return pairs, found

    similarity, around = near(rows)
    far, of_around = distance(similarity[:, -1]), np.unique(around)
    theirs = distance(near(of_around)[0][:, -1])[np.searchsorted(of_around, around)].mean(axis=1)
    members = np.flatnonzero(np.isin(target, target[rows]))
    ordinary = np.full(int(target.max()) + 1, -np.inf)
    np.maximum.at(ordinary, target[members], near(members)[0][:, -1])
    found = Outliers(
        latents.id[rows],
        latents.target[rows],
        similarity[:, -1],
        similarity.mean(axis=1),
        np.where(far == 0, 1.0, theirs / np.where(far == 0, 1.0, far)),
        np.bincount(target)[target[rows]],
        ordinary[target[rows]],
        latents.ra[rows],
        latents.dec[rows],
        rows,
        k,
    )
    return found, proof


def first_far(latents: Latents, n: int = 20, k: int = 5) -> tuple[Ints, Floats, Proof]:
    """The n targets farthest from their k-th nearest other, without comparing all with all.

    Args:
        latents: At least k + 1 targets.
        n: How many.
        k: Which neighbour; every other target counts once, by its nearest segment.

    Returns:
        Row of the farthest segment of each, Euclidean distance descending, and why there is
        none farther.

    Raises:
        ValueError: n is below 1, or there are too few targets for k.
    """
    index, target, rows, proof = _first_targets(latents, n, k, "l2")
    wide = latents.vectors.astype(np.float64)
    found = index.search(latents.vectors[rows], k, excluded=target[rows], by_target=True).rows
    return rows, np.linalg.norm(wide[rows] - wide[found[:, -1]], axis=1), proof


def _first_targets(
    latents: Latents, n: int, k: int, metric: str
) -> tuple[CertifiedIndex, Ints, Ints, Proof]:
    """An index, the number of each row's target, the oddest row of the n oddest, their proof."""
    names, target = np.unique(latents.target, return_inverse=True)
    index = CertifiedIndex(latents.vectors, metric=metric, target=target)
    most, asked = min(n, len(names)), n
    while True:
        found = oddest(index, n=asked, k=k)
        first = np.sort(np.unique(target[found.rows], return_index=True)[1])
        if len(first) >= most:
            return index, target, found.rows[first[:most]], found.proof
        asked = 2 * asked  # some targets have several odd segments


def far_from_others(latents: Latents, k: int = 5) -> NDArray[np.float64]:
    """Euclidean distance of every vector to its k-th nearest other target.

    Where the length of a code says something, as that of an image with a trail or a saturated
    star does, cosines miss it. All are compared with all, in blocks.

    Args:
        latents: At least k + 1 targets.
        k: Which neighbour; every other target counts once, by its nearest segment.

    Returns:
        Shape (n,).

    Raises:
        ValueError: There are too few targets for k.
    """
    targets, own = np.unique(latents.target, return_inverse=True)
    if not 1 <= k < len(targets):
        raise ValueError(f"k must be between 1 and {len(targets) - 1}, not {k}")
    order = np.argsort(own, kind="stable")
    first = np.searchsorted(own[order], np.arange(len(targets)))
    vectors = latents.vectors.astype(np.float64)[order]
    square = (vectors**2).sum(axis=1)
    far = np.empty(len(vectors))
    step = max(1, 16_000_000 // len(vectors))
    for start in range(0, len(vectors), step):
        part = slice(start, start + step)
        away = square[part, None] + square[None] - 2 * vectors[part] @ vectors.T
        nearest = np.minimum.reduceat(away, first, axis=1)
        nearest[np.arange(len(nearest)), own[order][part]] = np.inf
        far[order[part]] = np.sqrt(np.maximum(np.partition(nearest, k - 1, axis=1)[:, k - 1], 0))
    return far


def class_distances(vectors: Floats, labels: Strings) -> NDArray[np.float64]:
    """Distance of each vector to the centre of its class, in units of the class's own spread.

    d_i = |z_i - c| / median_j |z_j - c|, c = median of each column over the class: about 1 for
    a typical member, far above for a rare form, a disturbed system or a spoilt image.

    Args:
        vectors: z, finite, shape (n, d).
        labels: Class of each, shape (n,); an empty string is no class.

    Returns:
        Shape (n,); NaN where there is no class, or where half of it lies on one point.

    References:
        Xu et al. 2023, MNRAS 526, 6391 (who take the mean for the centre; the median is not moved
        by what is sought).
    """
    relative = np.full(len(vectors), np.nan)
    for name in np.unique(labels[labels != ""]):
        own = np.flatnonzero(labels == name)
        centre = np.median(vectors[own], axis=0)
        away = np.linalg.norm(vectors[own].astype(np.float64) - centre, axis=1)
        usual = np.median(away)
        if usual > 0:
            relative[own] = away / usual
    return relative


def _along(graph: Graph, n: int, k: int) -> tuple[Floats, Ints]:
    """The k nearest of a stored graph, as `nearest_targets` gives them."""
    if len(graph.rows) != n or graph.rows.shape[1] < k:
        raise ValueError(
            f"a graph of {k} neighbours of {n} segments is needed, not of "
            f"{graph.rows.shape[1]} of {len(graph.rows)}"
        )
    rows = graph.rows[:, :k]
    if (rows < 0).any():
        raise ValueError(f"some segments have fewer than {k} neighbours in the graph")
    return graph.similarity[:, :k], rows


def nearest_targets(
    vectors: Floats, target: Ints, k: int, *, index: ExactIndex
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the k nearest other targets of every vector.

    Args:
        vectors: Shape (n, d).
        target: Number of each one's target, shape (n,); more than k different ones.
        k: How many.
        index: The index of the same vectors.

    Returns:
        Cosine, descending, and the row of the nearest segment of each other target, shape (n, k).
    """
    similarity = np.empty((len(vectors), k))
    rows = np.empty((len(vectors), k), np.int64)
    # room for itself and for a second segment of some; who needs more is asked again
    todo, room = np.arange(len(vectors)), k + 2
    while len(todo):
        left = []
        block = max(1, BLOCK * (k + 2) // room)
        for i in range(0, len(todo), block):
            asked = todo[i : i + block]
            score, row = index.search(vectors[asked], room)
            new = _first_of_target(target[row], target[asked])
            enough = new.sum(axis=1) >= k
            # stable: those that are new come first and stay in order
            pick = np.argsort(~new[enough], axis=1, kind="stable")[:, :k]
            similarity[asked[enough]] = np.take_along_axis(score[enough], pick, axis=1)
            rows[asked[enough]] = np.take_along_axis(row[enough], pick, axis=1)
            left.append(asked[~enough])
        todo, room = np.concatenate(left), room * 4
    return similarity, rows


def _first_of_target(found: Ints, own: Ints) -> NDArray[np.bool_]:
    """Where a target other than the row's own appears for the first time, shape (q, m)."""
    order = np.argsort(found, axis=1, kind="stable")
    ordered = np.take_along_axis(found, order, axis=1)
    first = np.ones(found.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    result = np.empty_like(first)
    np.put_along_axis(result, order, first, axis=1)
    return result & (found != own[:, None])


def _density_ratio(similarity: Floats, rows: Ints) -> Floats:
    """Mean of the neighbours' distance to their k-th, over each one's own; 1 among copies."""
    far = distance(similarity)
    around = far[rows].mean(axis=1)
    copies = far == 0
    return np.where(copies, 1.0, around / np.where(copies, 1.0, far))
