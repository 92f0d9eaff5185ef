"""Truth and contract: the stored neighbour graph against brute force; kills; Dask workers."""

import os
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import small_surveys
from numpy.testing import assert_array_equal

from skyvec import store
from skyvec.index.probing import recall_of
from skyvec.indexing import graph as graphs
from skyvec.indexing import survey
from skyvec.schema import Latents

WIDTH = 12


def add(folder, n, seed, *, first=0, per_target=2):
    """One more shard of objects and of their latents, some of them all zeros."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, WIDTH)) + 3 * rng.normal(size=(5, WIDTH))[rng.integers(0, 5, n)]
    vectors[[0, n // 2]] = 0
    ids = [f"star {(first + i) // per_target}/{(first + i) % per_target}" for i in range(n)]
    target = [name.split("/")[0] for name in ids]
    small_surveys.add(folder, ids, [1] * n, target)
    shard = store.object_shards(folder)[-1]
    nan = np.full(n, np.nan)
    latents = Latents(
        np.array(ids), np.array(target), vectors.astype(np.float32), "m", "hash", nan, nan, nan
    )
    store.write_latents(folder, shard["file"], latents, shard["sha256"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "BLOCK", 64)
    for i, n in enumerate((300, 150)):
        add(tmp_path / "survey", n, i, first=1000 * i)
    survey.build(tmp_path / "survey", "m", threads=1)
    return tmp_path / "survey"


def brute(folder, k, gone=()):
    """The k nearest other targets, each by its nearest vector, in float64."""
    latents = store.read_latents(folder, "m")
    x = latents.vectors.astype(np.float64)
    usable = x.any(axis=1)
    usable[list(gone)] = False
    x[usable] /= np.linalg.norm(x[usable], axis=1, keepdims=True)
    rows = np.full((len(x), k), -1)
    for i in np.flatnonzero(usable):
        score = x @ x[i]
        order = np.lexsort((np.arange(len(x)), -score))
        order = order[usable[order] & (latents.target[order] != latents.target[i])]
        _, once = np.unique(latents.target[order], return_index=True)
        rows[i] = order[np.sort(once)[:k]]
    return rows


def content(folder):
    path = store.index_folder(folder, "m") / graphs.GRAPH
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_the_exact_graph_is_that_of_brute_force_over_all_segments(folder):
    add(folder, 80, 7, first=5000)
    survey.build(folder, "m", threads=1)
    survey.delete(folder, "m", ["star 20"])
    gone = survey.open_index(folder, "m").rows_named("star 20")
    assert graphs.build_graph(folder, "m", k=7, recall=1, threads=2) > 6
    graph = graphs.read_graph(folder, "m")
    truth = brute(folder, 7, gone)
    assert (graph.rows == truth).mean() > 0.999  # equal to the last bit of float32
    assert_array_equal(graph.rows[gone], -1)
    assert (graph.rows >= 0).all(axis=1).sum() == 530 - 6 - len(gone)
    assert np.isnan(graph.similarity[gone]).all()
    assert graph.recall == 1


def test_recall_is_as_good_as_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("skyvec.index.quantised.CELL", 30)
    add(tmp_path / "survey", 1500, 3, per_target=1)
    survey.build(tmp_path / "survey", "m", threads=1)
    graphs.build_graph(tmp_path / "survey", "m", k=10, recall=0.9)
    facts = graphs.graph_facts(tmp_path / "survey", "m")
    graph = graphs.read_graph(tmp_path / "survey", "m")
    measured = recall_of(brute(tmp_path / "survey", 10), graph.rows)
    assert facts["radii"] < 1 and 0.88 < measured < 1
    assert abs(measured - facts["recall"]) < 0.03


class Killed(BaseException):
    """Ends a run as a kill would: nothing catches it."""


def test_a_killed_run_loses_no_finished_block_and_ends_in_the_same_bytes(folder, monkeypatch):
    graphs.build_graph(folder, "m", k=5)
    truth = content(folder)
    assert len(truth) == 2 + 8
    graphs.shutil.rmtree(store.index_folder(folder, "m") / graphs.GRAPH)
    find, found = graphs._block, []

    def two_at_most(opened, usable, plan, i):
        if len(found) % 3 == 2:
            found.append(-1)
            raise Killed
        found.append(i)
        return find(opened, usable, plan, i)

    monkeypatch.setattr(graphs, "_block", two_at_most)
    for _ in range(3):
        with pytest.raises(Killed):
            graphs.build_graph(folder, "m", k=5)
        assert graphs.graph_facts(folder, "m") is None
        with pytest.raises(store.StoreError, match="skyvec index graph"):
            graphs.read_graph(folder, "m")
    assert graphs.build_graph(folder, "m", k=5) == 2
    assert sorted(i for i in found if i >= 0) == list(range(8))
    assert content(folder) == truth
    assert graphs.build_graph(folder, "m", k=5) == 0


def test_what_changes_makes_the_graph_stale(folder):
    seen = []
    graphs.build_graph(folder, "m", k=5, tell=lambda done, total, _: seen.append((done, total)))
    assert seen[0] == (0, 450) and seen[-1] == (450, 450)
    survey.delete(folder, "m", ["star 3"])
    assert graphs.graph_facts(folder, "m") is None
    assert graphs.build_graph(folder, "m", k=5) == 8
    assert graphs.build_graph(folder, "m", k=4) == 8
    assert graphs.read_graph(folder, "m").rows.shape == (450, 4)
    add(folder, 40, 9, first=9000)
    assert graphs.graph_facts(folder, "m") is None
    with pytest.raises(store.StoreError, match="does not hold all"):
        graphs.build_graph(folder, "m")
    with pytest.raises(ValueError, match="k must"):
        graphs.build_graph(folder, "m", k=0)
    with pytest.raises(ValueError, match="recall"):
        survey.build(folder, "m")
        graphs.build_graph(folder, "m", recall=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask comes with the extra `survey`")
    monkeypatch.setattr(graphs, "BLOCK", 512)
    folder = tmp_path / "survey"
    add(folder, 20_000, 4)
    survey.build(folder, "m", threads=1)
    graphs.build_graph(folder, "m", recall=0.95)
    truth = content(folder)
    blocks = len(truth) - 2
    place = store.index_folder(folder, "m") / graphs.GRAPH
    graphs.shutil.rmtree(place)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        victim = next(iter(cluster.workers.values())).pid
        left = []

        def kill_after_the_first_block(done, total, note):
            if done and not left:
                left.append(blocks - len(list(place.glob("block-*"))))
                os.kill(victim, signal.SIGKILL)

        options = {"recall": 0.95, "scheduler": cluster.scheduler_address}
        options |= {"tell": kill_after_the_first_block}
        assert graphs.build_graph(folder, "m", **options) == blocks
    assert left == [blocks - 1]
    assert content(folder) == truth
    assert pq.read_table(place / "block-00000.parquet").num_rows > 400
