"""Rival and contract: answers taken from the stored graph against those that compare all."""

import numpy as np
import pytest
import small_surveys
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import adjusted_rand_score
from typer.testing import CliRunner

from skyvec import store
from skyvec.analysis import clusters, maps, outliers, spanning
from skyvec.cli import app
from skyvec.index import graph as graphs
from skyvec.index.certified import CertifiedIndex
from skyvec.indexing import graph as indexed
from skyvec.indexing import survey
from skyvec.report import answers, stored
from skyvec.schema import Latents


def blobs(n, seed, *, groups=4, width=10):
    """Groups well apart and a few strays; the first two vectors are zeros."""
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.normal(size=(n, width)) + rng.normal(size=(groups, width))[np.arange(n) % groups]
    x[-5:] = rng.normal(size=(5, width))
    x[:2] = 0
    ids = np.array([f"o{i}" for i in range(n)])
    nan = np.full(n, np.nan)
    target = np.array([f"t{i // 2}" for i in range(n)])
    return Latents(ids, target, x.astype(np.float32), "m", "hash", nan, nan, nan)


@pytest.mark.parametrize("seed", range(3))
def test_the_tree_along_a_whole_graph_is_the_spanning_tree(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(80, 5)).astype(np.float32)
    x[3:6] = x[3]
    index = CertifiedIndex(x, threads=1)
    graph = graphs.knn_graph(index, 79, rng, recall=1)
    along, exact = spanning.graph_tree(graph, 4), spanning.spanning_tree(x, 4)
    assert along.shape == (79, 3)
    assert_allclose(along[:, 2], exact[:, 2], atol=1e-3)  # roots of cosines near 1
    assert (np.diff(along[:, 2]) >= 0).all()


def test_parts_without_a_link_are_joined_at_the_farthest():
    x = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    x += 0.01 * np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    graph = graphs.knn_graph(CertifiedIndex(x, threads=1), 4, np.random.default_rng(0), recall=1)
    tree = spanning.graph_tree(graph, 2)
    assert (tree[:, 2] == spanning.FARTHEST).sum() == 2
    assert set(tree[:, :2].astype(int).ravel()) == set(range(15))
    with pytest.raises(ValueError, match="as many neighbours"):
        spanning.graph_tree(graph, 5)
    graph.rows[0, 3] = -1
    with pytest.raises(ValueError, match="fewer neighbours"):
        spanning.graph_tree(graph, 2)


def test_clusters_along_the_graph_are_those_of_all_pairs():
    latents = blobs(1200, 1).take(np.arange(2, 1200))
    one = graphs.knn_graph(
        CertifiedIndex(latents.vectors, threads=1), 15, np.random.default_rng(0), recall=1
    )
    exact = clusters.cluster(latents, min_cluster_size=30)
    along = clusters.cluster(latents, min_cluster_size=30, graph=one)
    assert len(along.size) == len(exact.size) == 4
    assert adjusted_rand_score(exact.label, along.label) > 0.95
    with pytest.raises(ValueError, match="as many neighbours"):
        clusters.cluster(latents, min_cluster_size=30, min_samples=16, graph=one)


def test_outliers_along_an_exact_graph_are_the_outliers():
    latents = blobs(400, 2)
    rng = np.random.default_rng(2)
    latents.vectors[:2] = rng.normal(size=(2, 10))
    target = np.unique(latents.target, return_inverse=True)[1]
    index = CertifiedIndex(latents.vectors, target=target, threads=1)
    found = index.search(latents.vectors, 6, excluded=target, by_target=True)
    graph = graphs.Graph(found.rows.astype(np.int32), found.similarity, "cosine", 1.0)
    truth = outliers.outliers(latents, None, 5)
    along = outliers.outliers(latents, None, 5, graph=graph)
    assert_array_equal(along.id[:20], truth.id[:20])
    assert_allclose(along.similarity, truth.similarity, atol=1e-6)
    assert_allclose(along.density_ratio, truth.density_ratio, rtol=1e-2)
    with pytest.raises(ValueError, match="a graph of 7 neighbours of 400"):
        outliers.outliers(latents, None, 7, graph=graph)
    with pytest.raises(ValueError, match="has 400 segments, not 300"):
        maps.tsne_map(latents.take(np.arange(300)), rng=rng, graph=graph)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "survey"
    latents = blobs(300, 3)
    small_surveys.add(folder, latents.id.tolist(), [1] * 300, latents.target.tolist())
    shard = store.object_shards(folder)[-1]
    store.write_latents(folder, shard["file"], latents, shard["sha256"])
    return folder


def ask(folder):
    return [ask(folder, "m") for ask in (answers.outliers, answers.clusters, answers.tsne)]


def test_a_large_survey_is_answered_from_its_graph_while_that_is_fresh(folder, monkeypatch):
    exact = ask(folder)
    assert all(answer.facts["neighbours"] == "exact" for answer in exact)
    survey.build(folder, "m", threads=1)
    indexed.build_graph(folder, "m", recall=1, threads=1)
    assert not stored.is_slow(folder, "m", 5)
    assert [answer.facts for answer in ask(folder)] == [answer.facts for answer in exact]
    monkeypatch.setattr(stored, "LARGE", 100)
    assert stored.is_slow(folder, "m", 16) and not stored.is_slow(folder, "m", 15)
    odd, group, plane = ask(folder)
    for answer in (odd, group, plane):
        assert answer.facts["neighbours"] == "graph of 15, recall 1.0000"
    assert odd.table["id"].to_pylist()[:5] == exact[0].table["id"].to_pylist()[:5]
    assert odd.facts["without_points"] == 2
    labels = [answer.table["cluster"].to_numpy() for answer in (group, exact[1])]
    assert adjusted_rand_score(*labels) > 0.9
    x = plane.table["x"].to_numpy()
    assert np.isnan(x[:2]).all() and np.isfinite(x[2:]).all()
    survey.delete(folder, "m", ["o17"])
    assert answers.outliers(folder, "m").facts["neighbours"] == "exact"
    indexed.build_graph(folder, "m", recall=1, threads=1)
    fewer = answers.outliers(folder, "m")
    assert "o17" not in fewer.table["id"].to_pylist()
    assert fewer.facts["without_points"] == 3


@pytest.mark.parametrize("options", [["--cosine"], ["--far"]])
def test_the_oddest_of_a_large_survey_need_no_graph(folder, monkeypatch, options):
    asked = ["outliers", "--survey", str(folder), "--model", "m", "-n", "9", "--format", "csv"]
    every = CliRunner().invoke(app, asked + options)
    monkeypatch.setattr(stored, "LARGE", 100)
    first = CliRunner().invoke(app, asked + options)
    assert first.exit_code == every.exit_code == 0
    assert "proved by searching" in first.stderr and "proved" not in every.stderr
    assert "hours" not in first.stderr
    ids = [[line.split(",")[1] for line in one.stdout.splitlines()] for one in (every, first)]
    assert ids[0] == ids[1] and len(ids[0]) == 10
