"""Groups of segments that behave alike, found without saying how many there are.

HDBSCAN on unit vectors with the Euclidean metric: the same order of distances as the cosine that
the search uses. What fits nowhere stays noise. The spanning tree is our own and exact; beyond 30
numbers a vector fast_hdbscan would build it from an approximate graph.
"""

from dataclasses import dataclass

import numpy as np
from fast_hdbscan.hdbscan import clusters_from_spanning_tree
from numpy.typing import NDArray

from skyvec.analysis.spanning import SPARE, graph_tree, spanning_tree
from skyvec.index.exact import unit
from skyvec.index.graph import Graph
from skyvec.schema import Floats, Ints, Latents, Strings

NOISE = -1
SELECTIONS = ("eom", "leaf")
MOST_SAMPLES = 10
"""Neighbours that say how dense a place is, unless another number is asked for."""

NEAREST = 1e-9
"""Least distance of two unit vectors that the hierarchy is told."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which cluster each segment belongs to, shape (n,), and the clusters, shape (c,).

    Args:
        id: The segments, in the order of the latents.
        target: Their objects.
        label: Cluster of each, 0 the largest, then by size; -1 = noise.
        probability: Strength of membership, 0 to 1; 1 = in the core, 0 for noise.
        rarity: -log10 of the cluster's share of all segments [dex]; larger = rarer, NaN for
            noise.
        ra: ICRS [deg], NaN where unknown.
        dec: ICRS [deg], NaN where unknown.
        size: Segments in each cluster, descending.
        targets: Different targets in each cluster.
        medoid: Row of the member nearest to the cluster's mean direction, shape (c,).
        compactness: Mean cosine of the members to that direction; 1 = all alike, shape (c,).
    """

    id: Strings
    target: Strings
    label: Ints
    probability: Floats
    rarity: Floats
    ra: Floats
    dec: Floats
    size: Ints
    targets: Ints
    medoid: Ints
    compactness: Floats

    def __len__(self) -> int:
        return len(self.id)

    @property
    def n_noise(self) -> int:
        """Segments in no cluster."""
        return int((self.label == NOISE).sum())


def cluster(
    latents: Latents,
    *,
    min_cluster_size: int = 10,
    min_samples: int | None = None,
    selection: str = "eom",
    epsilon: float = 0.0,
    allow_single_cluster: bool = False,
    graph: Graph | None = None,
) -> Clusters:
    """Cluster segments by density; the number of clusters is a result.

    Exact, and so the same at every call. Time grows as n^2 (40,000 segments take some ten seconds
    on two cores), memory as ``memory(n, d, min_samples)``.

    Args:
        latents: n segments.
        min_cluster_size: Fewest segments that make a cluster.
        min_samples: How many neighbours say how dense a place is: larger = more noise, smoother
            clusters. None = as ``min_cluster_size``, but at most 10.
        selection: ``eom`` = the clusters that last longest (excess of mass); ``leaf`` = the
            finest ones.
        epsilon: Clusters nearer than this Euclidean distance of unit vectors are one.
        allow_single_cluster: Whether all may be one cluster.
        graph: Of the same segments. The tree is then taken along it and no longer exact; time
            grows as n log n.

    Raises:
        ValueError: An argument is out of its range, or the graph has fewer than ``min_samples``
            neighbours.

    References:
        Campello, Moulavi & Sander, 2013, PAKDD, 160. McInnes & Healy, 2017, ICDM Workshops, 33.
    """
    if min_cluster_size < 2:
        raise ValueError(f"min_cluster_size must be at least 2, not {min_cluster_size}")
    if selection not in SELECTIONS:
        raise ValueError(f"unknown selection {selection!r}; choose from {', '.join(SELECTIONS)}")
    if min_samples is not None and min_samples < 1:
        raise ValueError(f"min_samples must be at least 1, not {min_samples}")
    if epsilon < 0:
        raise ValueError(f"epsilon must be at least 0, not {epsilon}")
    directions = unit(latents.vectors)
    found, probability = _hdbscan(
        directions,
        min(min_cluster_size, MOST_SAMPLES) if min_samples is None else min_samples,
        graph,
        min_cluster_size=min_cluster_size,
        cluster_selection_method=selection,
        cluster_selection_epsilon=float(epsilon),
        allow_single_cluster=allow_single_cluster,
    )
    label, size = _by_size(found)
    medoid, compactness = _centres(directions, label, probability, len(size))
    pairs = np.unique(np.stack([label, np.unique(latents.target, return_inverse=True)[1]]), axis=1)
    share = np.r_[size / max(1, len(label)), np.nan]
    return Clusters(
        latents.id,
        latents.target,
        label,
        probability,
        -np.log10(share)[label],
        latents.ra,
        latents.dec,
        size,
        np.bincount(pairs[0][pairs[0] >= 0], minlength=len(size)),
        medoid,
        compactness,
    )


def memory(n: int, d: int, min_samples: int = 10) -> int:
    """Estimate what clustering needs at its height [byte], within a factor of two.

    Five copies of the vectors in float32, and of each of ``min_samples`` and some more neighbours
    its distance, reach and row, with a copy of each while they are compared.

    Args:
        n: Segments.
        d: Numbers each.
        min_samples: As in ``cluster``.
    """
    return n * (20 * d + 80 * (min_samples + 1 + SPARE))


def _hdbscan(
    vectors: Floats, min_samples: int, graph: Graph | None, **options: object
) -> tuple[Ints, Floats]:
    n = len(vectors)
    if n < 2:
        return np.full(n, NOISE), np.zeros(n)
    if graph is None:
        tree = spanning_tree(vectors, min(min_samples, n - 1))
    else:
        tree = graph_tree(graph, min_samples)
    # distance 0 would be an infinite density; no float32 vectors lie so near and apart
    tree[:, 2] = np.maximum(tree[:, 2], NEAREST)
    found, probability, *_ = clusters_from_spanning_tree(tree, **options)
    return np.asarray(found, np.int64), np.asarray(probability, np.float64)


def _by_size(found: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number clusters by size, descending; equal ones by their first row."""
    names, first, counts = np.unique(found, return_index=True, return_counts=True)
    is_cluster = names >= 0
    counts = counts[is_cluster]
    order = np.lexsort((first[is_cluster], -counts))
    number = np.full(int(found.max(initial=NOISE)) + 2, NOISE)  # the last place is noise's
    number[names[is_cluster][order]] = np.arange(len(order))
    return number[found], counts[order]


def _centres(vectors: Floats, label: Ints, probability: Floats, n: int) -> tuple[Ints, Floats]:
    """Member nearest to each cluster's mean direction, and the members' mean cosine to it."""
    medoid, compactness = np.zeros(n, np.int64), np.zeros(n)
    for i in range(n):
        rows = np.flatnonzero(label == i)
        members = vectors[rows].astype(np.float64)
        centre = (probability[rows, None] * members).sum(axis=0)
        cosine = members @ centre / max(float(np.linalg.norm(centre)), np.finfo(float).tiny)
        medoid[i] = rows[np.argmax(cosine)]
        compactness[i] = cosine.mean()
    return medoid, compactness


def representatives(clusters: Clusters, latents: Latents, n: int = 5) -> dict[int, Ints]:
    """Rows of the members most alike to each cluster's medoid, the medoid first.

    Args:
        clusters: Of these latents.
        latents: The vectors.
        n: At most so many a cluster, each from another target where there are enough.

    Returns:
        Rows by number of the cluster.
    """
    directions = unit(latents.vectors)
    result = {}
    for i, medoid in enumerate(clusters.medoid):
        rows = np.flatnonzero(clusters.label == i)
        order = rows[np.argsort(-(directions[rows] @ directions[medoid]), kind="stable")]
        order = np.r_[medoid, order[order != medoid]]
        first = np.zeros(len(order), bool)
        first[np.unique(latents.target[order], return_index=True)[1]] = True
        result[i] = np.r_[order[first], order[~first]][:n]
    return result
