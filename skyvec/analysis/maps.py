"""A plane on which segments that are alike lie side by side (t-SNE), and places for new ones.

The metric is that of the search: Euclidean between unit vectors, which orders as the cosine. What
lies together on the map is alike; distances between islands and their sizes mean little.
"""

import numpy as np
from numpy.typing import NDArray
from openTSNE import TSNE, TSNEEmbedding
from openTSNE.affinity import Affinities, PerplexityBasedNN, joint_probabilities_nn
from openTSNE.nearest_neighbors import KNNIndex
from scipy.sparse import csr_matrix

from skyvec.index.exact import ExactIndex, distance, unit
from skyvec.index.graph import Graph
from skyvec.index.graph import affinities as affinities_along
from skyvec.schema import Floats, Ints, Latents

PERPLEXITY = 30.0
LARGE = 50_000
"""More segments than that are pulled together, or the islands of a large map touch."""

LARGE_EXAGGERATION = 4.0
SETTLING = 150
"""Steps of a large map after its sample of ``LARGE`` is laid out and the rest put among it."""

MOMENTUM = 0.8
SMALL = 10_000
"""Up to so many the forces come from a tree (Barnes-Hut), above from a grid (FFT)."""

START = 1e-4
"""Deviation of the map before the first step; larger ones converge badly."""

FEWEST = 8
"""Fewer segments are laid out by their principal components: t-SNE needs neighbourhoods."""


def tsne_map(
    latents: Latents,
    *,
    rng: np.random.Generator,
    perplexity: float = PERPLEXITY,
    iterations: int = 500,
    exaggeration: float | None = None,
    jobs: int = 1,
    graph: Graph | None = None,
) -> NDArray[np.float64]:
    """Lay out all segments on a plane.

    Starts from the principal components, so that the large-scale order is that of the data; the
    neighbours are exact unless a graph gives them. Above 50,000 segments a random 50,000 are laid
    out like that, the others put between their neighbours, and all move on together for a
    while: the order on the large scale comes from the sample, at a fraction of the steps. The
    same generator gives the same map.

    Args:
        latents: n segments.
        rng: Sets copies of one vector apart at the start.
        perplexity: About how many neighbours count, at most (n - 1) / 3: small = fine structure.
        iterations: After 250 of early exaggeration, of all or of the sample.
        exaggeration: How much more attraction counts; None = 1, or 4 above 50,000 segments.
        jobs: Threads. More pay only where no other program wants the cores.
        graph: The neighbours of the same segments, where they were found before. All of them
            count alike then, and the perplexity is not used.

    Returns:
        Coordinates without unit or meaning, shape (n, 2).

    Raises:
        ValueError: The perplexity is less than 1, or the graph is of other segments.

    References:
        van der Maaten & Hinton, 2008, JMLR 9, 2579. Linderman et al., 2019, Nat. Methods 16, 243.
        Kobak & Berens, 2019, Nat. Commun. 10, 5416 (start, learning rate, exaggeration, sample).
    """
    if perplexity < 1:
        raise ValueError(f"perplexity must be at least 1, not {perplexity}")
    directions = unit(latents.vectors)
    n = len(directions)
    if n < FEWEST:
        return _components(directions)
    affinities: Affinities
    if graph is None:
        perplexity = min(perplexity, (n - 1) / 3)
        affinities = PerplexityBasedNN(
            knn_index=_Neighbours(directions, int(3 * perplexity)),
            perplexity=perplexity,
            n_jobs=jobs,
        )
    elif len(graph.rows) != n:
        raise ValueError(f"the graph has {len(graph.rows)} segments, not {n}")
    else:
        affinities = affinities_along(graph)
    if exaggeration is None:
        exaggeration = LARGE_EXAGGERATION if n > LARGE else 1.0
    start = np.zeros((n, 2))
    if n <= LARGE:
        start[:] = _components(directions)
        start *= START / max(float(start[:, 0].std()), np.finfo(float).tiny)
    else:
        some = np.sort(rng.choice(n, LARGE, replace=False))
        start[some] = tsne_map(
            latents.take(some),
            rng=rng,
            perplexity=perplexity,
            iterations=iterations,
            exaggeration=exaggeration,
            jobs=jobs,
        )
        _put_between(start, affinities.P, some, rng)
    # copies that start on one spot would stay there for ever
    start += rng.normal(scale=max(START, float(start[:, 0].std())) / 100, size=start.shape)
    how = {"negative_gradient_method": _method(n), "n_jobs": jobs}
    if n <= LARGE:
        model = TSNE(n_iter=iterations, exaggeration=exaggeration, **how)
        return np.array(model.fit(affinities=affinities, initialization=start), np.float64)
    embedding = TSNEEmbedding(start, affinities, **how)
    embedding.optimize(SETTLING, exaggeration=exaggeration, momentum=MOMENTUM, inplace=True)
    return np.array(embedding, np.float64)


def _put_between(
    xy: NDArray[np.float64], affinity: csr_matrix, some: Ints, rng: np.random.Generator
) -> None:
    """Put all points between those of their neighbours that have a place, shape (n, 2), in turn.

    Those that are connected with none of the first go to the place of any of them.
    """
    placed = np.zeros(len(xy))
    placed[some] = 1
    while True:
        weight = affinity @ placed
        new = (placed == 0) & (weight > 0)
        if not new.any():
            break
        pulled = affinity @ (xy * placed[:, None])
        xy[new] = pulled[new] / weight[new, None]
        placed[new] = 1
    lost = placed == 0
    xy[lost] = xy[rng.choice(some, int(lost.sum()))]


def place(
    latents: Latents,
    xy: Floats,
    vectors: Floats,
    *,
    perplexity: float = 5.0,
    iterations: int = 250,
    jobs: int = 1,
) -> NDArray[np.float64]:
    """Find the places of new vectors on an existing map, which does not move.

    Each goes among its nearest neighbours by itself: new vectors do not see each other, and their
    order does not matter.

    Args:
        latents: The n segments of the map.
        xy: Their coordinates, shape (n, 2).
        vectors: From the same model, finite, shape (m, d).
        perplexity: About how many neighbours pull at each.
        iterations: Steps from the median of the neighbours.
        jobs: Threads. More pay only where no other program wants the cores.

    Returns:
        Coordinates on the same map, shape (m, 2).

    Raises:
        ValueError: Shapes do not fit, or a number is not finite.

    References:
        Poličar, Stražar & Zupan, 2023, Mach. Learn. 112, 721.
    """
    xy = np.array(xy, np.float64)
    if xy.shape != (len(latents), 2) or not np.isfinite(xy).all():
        raise ValueError(
            f"xy must be finite and of shape ({len(latents)}, 2), one place for every segment of "
            f"the map, not {xy.shape}"
        )
    if perplexity < 1:
        raise ValueError(f"perplexity must be at least 1, not {perplexity}")
    directions = unit(vectors)
    index = ExactIndex(latents.vectors)
    if len(latents) < FEWEST:
        return np.asarray(xy[index.search(directions, 1)[1][:, 0]], np.float64)
    if not len(directions):
        return np.zeros((0, 2))
    # openTSNE works on a map whose middle is 0, and moves the one it is given
    middle = (xy.max(axis=0) + xy.min(axis=0)) / 2
    embedding = TSNEEmbedding(
        xy - middle,
        _ToExisting(index, jobs),
        negative_gradient_method=_method(len(latents)),
        n_jobs=jobs,
    )
    perplexity = min(perplexity, len(latents) / 3)
    placed = embedding.transform(directions, perplexity=perplexity, n_iter=iterations)
    return np.array(placed, np.float64) + middle


def _method(n: int) -> str:
    return "bh" if n <= SMALL else "fft"


def _components(directions: Floats) -> NDArray[np.float64]:
    """First two principal components, 0 where there are fewer, shape (n, 2)."""
    centred = directions - directions.sum(axis=0, dtype=np.float64) / max(1, len(directions))
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, :-3:-1]
    # an axis has no sign of its own: its largest number shall be positive
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    result = np.zeros((len(directions), 2))
    result[:, : axes.shape[1]] = centred @ axes
    return result


class _Neighbours(KNNIndex):
    """Exact neighbours in the form openTSNE asks for; a point is none of its own."""

    VALID_METRICS = ("cosine",)

    def __init__(self, directions: NDArray[np.float32], k: int) -> None:
        super().__init__(directions, k, metric="cosine")

    def build(self) -> tuple[Ints, Floats]:
        """Give the k nearest other points of every point: rows and distances, (n, k) each."""
        similarity, rows = ExactIndex(self.data).search(self.data, self.k + 1)
        own = rows == np.arange(len(rows))[:, None]
        # among many copies a point may not find itself: then the last one goes
        own[~own.any(axis=1), -1] = True
        shape = (len(rows), self.k)
        return rows[~own].reshape(shape), distance(similarity[~own]).reshape(shape)


class _ToExisting(Affinities):
    """How much each new vector is drawn to the points of a map."""

    def __init__(self, index: ExactIndex, jobs: int) -> None:
        super().__init__()
        self._index, self._jobs = index, jobs
        # a map that stands still needs no affinities within, but is asked for their shape
        self.P = csr_matrix((len(index), len(index)))

    def to_new(
        self, data: Floats, perplexity: float, return_distances: bool = False
    ) -> csr_matrix | tuple[csr_matrix, Ints, Floats]:
        """Give the affinities of new vectors to all points, with their neighbours if asked."""
        similarity, rows = self._index.search(data, max(1, int(3 * perplexity)))
        far = distance(similarity)
        affinity = joint_probabilities_nn(
            rows,
            far,
            [perplexity],
            symmetrize=False,
            normalization="point-wise",
            n_reference_samples=len(self._index),
            n_jobs=self._jobs,
        )
        return (affinity, rows, far) if return_distances else affinity
