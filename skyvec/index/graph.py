"""One graph of nearest neighbours, and what it is handed to: oddity, groups, maps, labels.

The graph is found once: every vector looks into as many cells as the wanted recall needs, which is
measured on a sample. All the products then cost little: an
outlier score is a column, density clustering a sparse matrix, a map's affinities the same
distances, labels spread along it.

Tried and left out: a few cells first, then neighbours of neighbours in rounds. On codes of 40
nearly independent numbers the rounds stop at a recall of 0.7 to 0.9.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from skyvec.index.certified import TOGETHER, CertifiedIndex
from skyvec.index.probing import choose_radii

STEP = 64 * TOGETHER
"""Vectors searched at once: what is held beside the graph itself is a few megabytes."""


class Graph(NamedTuple):
    """The k nearest others of every vector, best first.

    Args:
        rows: Shape (n, k), int32; -1 where fewer than k others exist.
        similarity: Cosine, float32, shape (n, k); NaN where there is none. For the ``l2`` metric
            the distance.
        metric: ``cosine`` or ``l2``.
        recall: Share of the true neighbours found, measured on a sample; 1 where exact.
    """

    rows: NDArray[np.int32]
    similarity: NDArray[np.float32]
    metric: str
    recall: float


def knn_graph(
    index: CertifiedIndex, k: int, rng: np.random.Generator, *, recall: float = 0.99
) -> Graph:
    """Find the k nearest vectors of other targets for every vector.

    Args:
        index: Where each vector is its own target, only itself is passed over.
        k: How many, > 0.
        rng: Chooses the samples that recall is measured on.
        recall: Wanted share of the true neighbours, in (0, 1]; 1 searches exactly.

    Raises:
        ValueError: k below 1 or a recall outside (0, 1].
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    trust = choose_radii(index, k, rng, recall=recall)
    store = index.store
    rows = np.full((index.n, k), -1, np.int32)
    similarity = np.full((index.n, k), np.nan, np.float32)
    real = np.flatnonzero(store.rows >= 0)
    for start in range(0, len(real), STEP):
        here = real[start : start + STEP]
        queries, targets = store.vectors[here, : index.d], store.target[here]
        score, place = index.best(queries, k, targets, radii=trust.radii)
        own = store.rows[here]
        rows[own] = np.where(place >= 0, store.rows[place], -1)
        similarity[own] = np.where(place >= 0, index.shown(score), np.nan)
    return Graph(rows, similarity, index.metric, trust.recall)


# --- what the graph is handed to --------------------------------------------------------------


def to_table(graph: Graph) -> pa.Table:
    """Give the graph as an Arrow table of lists, one row a vector, its facts in the metadata."""
    k = graph.rows.shape[1]
    facts = {"metric": graph.metric, "recall": repr(graph.recall)}
    return pa.table(
        {
            "rows": pa.FixedSizeListArray.from_arrays(pa.array(graph.rows.ravel()), k),
            "similarity": pa.FixedSizeListArray.from_arrays(pa.array(graph.similarity.ravel()), k),
        }
    ).replace_schema_metadata(facts)


def from_table(table: pa.Table) -> Graph:
    """Read back what `to_table` gave."""
    facts = table.schema.metadata
    k = table.schema.field("rows").type.list_size

    def values(name: str) -> np.ndarray:
        flat = table[name].combine_chunks().flatten()
        return flat.to_numpy(zero_copy_only=False).reshape(-1, k)

    return Graph(
        values("rows"),
        values("similarity"),
        facts[b"metric"].decode(),
        float(facts[b"recall"]),
    )


def distances(graph: Graph) -> NDArray[np.float32]:
    """Distances along the graph, NaN where there is none, shape (n, k).

    For cosine the chord sqrt(2 - 2 s) of the unit vectors: a metric, in the same order.
    """
    if graph.metric == "l2":
        return graph.similarity
    return np.sqrt(np.maximum(2 - 2 * graph.similarity, 0))


def outlier_scores(graph: Graph, k: int) -> NDArray[np.float32]:
    """Similarity to the k-th neighbour (for ``l2`` the distance), NaN where there is none, (n,).

    Raises:
        ValueError: The graph does not hold that many neighbours.
    """
    if not 1 <= k <= graph.rows.shape[1]:
        raise ValueError(f"k must be between 1 and the graph's {graph.rows.shape[1]}, not {k}")
    return graph.similarity[:, k - 1]


def among(graph: Graph, kept: NDArray[np.bool_]) -> Graph:
    """The graph of some of the vectors, whose rows are counted anew.

    Args:
        kept: Which, shape (n,).

    Raises:
        ValueError: One that is left out is a neighbour of one that is kept.
    """
    number = np.full(len(kept) + 1, -1, np.int32)
    number[:-1][kept] = np.arange(np.count_nonzero(kept))
    rows = number[graph.rows[kept]]  # -1 points at the last place
    if ((rows < 0) & (graph.rows[kept] >= 0)).any():
        raise ValueError("a vector that is left out is a neighbour of one that is kept")
    return graph._replace(rows=rows, similarity=graph.similarity[kept])


def sparse(graph: Graph) -> sp.csr_matrix:
    """Distances as a sparse matrix; coinciding vectors keep a stored 0, (n, n)."""
    n = len(graph.rows)
    there = graph.rows >= 0
    starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return sp.csr_matrix(
        (distances(graph)[there].astype(np.float64), graph.rows[there], starts), shape=(n, n)
    )


def affinities(graph: Graph, *, perplexity: float | None = None) -> Any:
    """Affinities of a t-SNE map from the graph, for ``openTSNE.TSNE().fit(affinities=...)``.

    Args:
        perplexity: At most a third of the graph's neighbours; None: all neighbours count alike,
            which gives nearly the same map and asks for no perplexity.

    Raises:
        ValueError: A vector lacks neighbours, or there are too few for the perplexity.

    References:
        Böhm, Berens & Kobak, 2022, JMLR 23, 95 (affinities of equal weight).
    """
    from openTSNE.affinity import PerplexityBasedNN, Uniform
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    k = graph.rows.shape[1]
    if perplexity is not None and perplexity > k / 3:
        raise ValueError(
            f"perplexity {perplexity} needs {3 * perplexity:.0f} neighbours, there are {k}"
        )
    if (graph.rows < 0).any():
        raise ValueError("some vectors have fewer neighbours than the graph is wide")
    near = PrecomputedNeighbors(graph.rows, distances(graph).astype(np.float64))
    if perplexity is None:
        return Uniform(knn_index=near)
    return PerplexityBasedNN(knn_index=near, perplexity=perplexity)


class Spread(NamedTuple):
    """Labels spread along the graph.

    Args:
        label: Of each vector; -1 where no label reaches it, shape (n,).
        confidence: Its share of what reached the vector, in [0, 1], shape (n,).
    """

    label: NDArray[np.int64]
    confidence: NDArray[np.float64]


def spread_labels(
    graph: Graph, label: NDArray[np.integer], *, keep: float = 0.1, rounds: int = 30
) -> Spread:
    """Spread a few labels to all vectors along the graph.

    F <- (1 - keep) S F + keep Y, S = D^-1/2 (A + A^T) D^-1/2, A_ij = exp(-d_ij^2 / h_i h_j) with h
    the distance to the last neighbour.

    Args:
        label: Class codes >= 0, -1 where unknown, shape (n,).
        keep: Share of the given labels in every round, in (0, 1).
        rounds: How many.

    Raises:
        ValueError: Not one label a vector, or none known.

    References:
        Zhou et al., 2003, NIPS 16 (local and global consistency); Zelnik-Manor & Perona, 2004
        (local scales).
    """
    n = len(graph.rows)
    label = np.asarray(label)
    if label.shape != (n,) or not (label >= 0).any():
        raise ValueError(f"label must have shape ({n},) with one known at least")
    weights = sparse(graph)
    reach = np.nanmax(distances(graph), axis=1, initial=0).astype(np.float64)
    owner = np.repeat(np.arange(n), np.diff(weights.indptr))
    scale = np.maximum(reach[owner] * reach[weights.indices], 1e-30)
    weights.data = np.exp(-(weights.data**2) / scale)
    weights = weights + weights.T
    power = 1 / np.sqrt(np.maximum(np.asarray(weights.sum(axis=1)).ravel(), 1e-30))
    step = sp.diags(power) @ weights @ sp.diags(power)
    given = np.zeros((n, int(label.max()) + 1))
    known = np.flatnonzero(label >= 0)
    given[known, label[known]] = 1
    spread = given.copy()
    for _ in range(rounds):
        spread = (1 - keep) * (step @ spread) + keep * given
    total = spread.sum(axis=1)
    found = np.where(total > 0, spread.argmax(axis=1), -1)
    share = spread.max(axis=1) / np.where(total > 0, total, 1)
    return Spread(found, share)
