"""Rival: a Dask cluster, one of its two workers killed midway, encodes as the local loop does."""

import os
import signal

import numpy as np
import pytest
import torch
from small_surveys import add

from skyvec import checkpoint, encode, store

distributed = pytest.importorskip("distributed", reason="Dask comes with the extra `survey`")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("one_thread"),
]


def make_survey(folder):
    for part in range(12):
        add(folder, [f"p{part}o{i}" for i in range(60)], [200] * 60, seed=part)
    recipe = {"model": {"name": "gridconv", "latent": 8}}
    full = checkpoint.complete(recipe, ("g", "r"))
    torch.manual_seed(0)
    checkpoint.save(store.model_folder(folder, "m"), full, checkpoint.build(full).state_dict(), {})


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    survey = tmp_path / "sky"
    make_survey(survey)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        victim = next(iter(cluster.workers.values())).pid
        killed = []

        def kill_after_the_first_shard(done, total):
            if not killed:
                killed.append(
                    len(store.read_manifest(store.latents_folder(survey, "m"))["shards"])
                )
                os.kill(victim, signal.SIGKILL)

        options = {"progress": kill_after_the_first_shard, "scheduler": cluster.scheduler_address}
        assert encode.encode(survey, "m", **options) == 720
    assert killed == [1]
    spread = store.read_latents(survey, "m")
    manifest = store.read_manifest(store.latents_folder(survey, "m"))
    for path in store.latents_folder(survey, "m").iterdir():
        path.unlink()
    encode.encode(survey, "m", threads=1)
    local = store.read_latents(survey, "m")
    np.testing.assert_array_equal(spread.vectors, local.vectors)
    assert spread.id.tolist() == local.id.tolist()
    assert manifest == store.read_manifest(store.latents_folder(survey, "m"))
