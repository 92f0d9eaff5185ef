"""Rival and truth: the neighbour graph against brute force, and each of its products."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skyvec.index import graph as graphs
from skyvec.index.certified import CertifiedIndex
from skyvec.index.probing import choose_radii, recall_of

CENTRES = 6


@pytest.fixture(scope="module")
def sky():
    rng = np.random.default_rng(1)
    label = rng.integers(0, CENTRES, 3000)
    x = 0.15 * rng.standard_normal((3000, 16)) + rng.standard_normal((CENTRES, 16))[label]
    return x.astype(np.float32), label


@pytest.fixture(scope="module")
def graph(sky):
    index = CertifiedIndex(sky[0], threads=2)
    return graphs.knn_graph(index, 15, np.random.default_rng(2), recall=1)


def test_exact_graph_equals_brute_force(sky, graph):
    x = sky[0].astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -2)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :15]
    assert graph.recall == 1
    assert (graph.rows == order).mean() > 0.9999
    assert_allclose(graph.similarity, np.take_along_axis(similarity, order, 1), atol=1e-6)


def test_probes_reach_the_recall_they_were_chosen_for():
    rng = np.random.default_rng(3)
    x = (
        0.3 * rng.standard_normal((20_000, 8))
        + rng.standard_normal((40, 8))[rng.integers(0, 40, 20_000)]
    )
    index = CertifiedIndex(x, threads=2)
    trust = choose_radii(index, 10, rng, recall=0.95)
    assert 0 < trust.radii < 0.5
    quick = graphs.knn_graph(index, 10, rng, recall=0.95)
    rows = rng.choice(len(x), 500, replace=False)
    truth = index.search(x[rows], 10, excluded=rows).rows
    measured = recall_of(truth, quick.rows[rows])
    assert measured > 0.94
    assert abs(measured - quick.recall) < 0.02
    assert not (quick.rows == np.arange(len(x))[:, None]).any()


def test_table_and_back(graph):
    again = graphs.from_table(graphs.to_table(graph))
    assert_array_equal(again.rows, graph.rows)
    assert_array_equal(again.similarity, graph.similarity)
    assert (again.metric, again.recall) == (graph.metric, graph.recall)
    assert isinstance(graphs.to_table(graph), pa.Table)


def test_outlier_scores_and_distances(graph):
    assert_array_equal(graphs.outlier_scores(graph, 5), graph.similarity[:, 4])
    assert_allclose(graphs.distances(graph) ** 2, 2 - 2 * graph.similarity, atol=1e-6)
    assert (np.diff(graphs.distances(graph), axis=1) >= 0).all()
    with pytest.raises(ValueError, match="between 1 and"):
        graphs.outlier_scores(graph, 16)


def test_the_graph_of_some_counts_its_rows_anew(graph):
    part = graphs.Graph(graph.rows[:4].copy(), graph.similarity[:4], "cosine", 1.0)
    part.rows[:] = -1
    part.rows[[0, 2, 3], 0] = [2, 3, 0]
    kept = np.array([True, False, True, True])
    assert graphs.among(part, kept).rows[:, 0].tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="left out is a neighbour"):
        graphs.among(part, ~kept | np.array([True, False, False, False]))


def test_affinities_are_those_of_the_same_neighbours(graph):
    p = graphs.affinities(graph).P
    assert_allclose(p.sum(), 1, atol=1e-9)
    own = set(graph.rows[0])
    assert own <= set(p[0].indices)
    with pytest.raises(ValueError, match="perplexity"):
        graphs.affinities(graph, perplexity=30)


def test_a_few_labels_spread_to_all(sky, graph):
    label = np.full(3000, -1)
    for c in range(CENTRES):
        label[np.flatnonzero(sky[1] == c)[:3]] = c
    spread = graphs.spread_labels(graph, label, rounds=200)
    reached = spread.label >= 0
    assert reached.mean() > 0.95
    assert (spread.label[reached] == sky[1][reached]).mean() > 0.97
    assert ((spread.confidence >= 0) & (spread.confidence <= 1)).all()


def test_few_vectors_and_same_targets():
    x = np.eye(4, dtype=np.float32)
    index = CertifiedIndex(x, target=np.array([0, 0, 1, 2]), threads=1)
    graph = graphs.knn_graph(index, 3, np.random.default_rng(0))
    assert_array_equal(graph.rows[:2], [[2, 3, -1], [2, 3, -1]])
    assert np.isnan(graph.similarity[0, 2])
    assert graphs.sparse(graph).nnz == 2 + 2 + 3 + 3
    with pytest.raises(ValueError, match="fewer neighbours"):
        graphs.affinities(graph)
    with pytest.raises(ValueError, match="k must"):
        graphs.knn_graph(index, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="recall"):
        graphs.knn_graph(index, 1, np.random.default_rng(0), recall=0)
