"""Contract: train and encode, killed at any moment, go on and end in the same bytes."""

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_surveys import add

from skyvec import checkpoint, encode, store
from skyvec.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN = """
import sys
from pathlib import Path
import torch
from skyvec.checkpoint import read_recipe
from skyvec.train import train
torch.set_num_threads(1)
told = []

def tell(state):
    told or told.append(print("started", flush=True))

recipe = read_recipe(Path(sys.argv[1]) / "recipe.toml")
train(Path(sys.argv[1]), recipe, "m", save_every=0.02, progress=tell)
"""
ENCODE = """
import sys
from pathlib import Path
import torch
from skyvec.encode import encode
torch.set_num_threads(1)
print("started", flush=True)
encode(Path(sys.argv[1]), "m")
"""
RECIPE = """
[model]
name = "gridconv"
latent = 4
width = 16
[train]
steps = {steps}
batch = 8
validate_every = 7
optimiser = "adamax"
"""


@pytest.fixture
def survey(tmp_path):
    for shard in range(6):
        add(tmp_path / "sky", [f"{shard}-{i}" for i in range(50)], [40] * 50, seed=shard)
    (tmp_path / "sky" / "recipe.toml").write_text(RECIPE.format(steps=30))
    return tmp_path / "sky"


def kill_after(script, survey, seconds):
    """Run a script in a process of its own and kill it some time after its work began.

    Returns whether it was still at work then; one with nothing left to do never is.
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, str(survey)], stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout.readline() != "started\n":
            assert process.wait() == 0
            return False
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def finished_model(survey):
    folder = store.model_folder(survey, "m")
    assert sorted(p.name for p in folder.iterdir()) == [
        checkpoint.RECIPE,
        checkpoint.SCORES,
        checkpoint.WEIGHTS,
    ]
    scores = checkpoint.load(folder).scores
    return (folder / checkpoint.WEIGHTS).read_bytes(), scores["history"], scores["hash"]


def listed_latents(survey):
    folder = store.latents_folder(survey, "m")
    manifest = store.read_manifest(folder)
    return {s["file"]: (folder / s["file"]).read_bytes() for s in manifest["shards"]}


def train_to_the_end(survey):
    """Train, and give the time from the first step to the end [s]."""
    began = []
    train(
        survey,
        checkpoint.read_recipe(survey / "recipe.toml"),
        "m",
        save_every=0.02,
        progress=lambda state: began.append(time.perf_counter()),
    )
    return time.perf_counter() - began[0]


def kill_training(survey, kills):
    seconds = train_to_the_end(survey)
    whole = finished_model(survey)
    folder = store.model_folder(survey, "m")
    folder.rename(folder.parent / "whole")
    first, *others = np.random.default_rng(kills).uniform(0, seconds * min(1, 2 / kills), kills)
    while not kill_after(TRAIN, survey, first):
        # the machine has become faster meanwhile, or kept us waiting: it ended before its moment
        shutil.rmtree(folder)
        first /= 2
    assert (folder / checkpoint.TRAINING).is_dir() and not checkpoint.is_finished(folder)
    for moment in others:
        kill_after(TRAIN, survey, moment)
    if not checkpoint.is_finished(folder):
        train_to_the_end(survey)
    assert finished_model(survey) == whole


def kill_encoding(survey, kills):
    full = checkpoint.complete(checkpoint.read_recipe(survey / "recipe.toml"), ("g", "r"))
    weights = checkpoint.build(full).state_dict()
    checkpoint.save(store.model_folder(survey, "m"), full, weights, {})
    begin = time.perf_counter()
    encode.encode(survey, "m")
    seconds = time.perf_counter() - begin
    whole = listed_latents(survey)
    assert len(whole) == 6
    folder = store.latents_folder(survey, "m")
    folder.rename(folder.parent / "whole")
    done: dict[str, bytes] = {}
    for moment in np.random.default_rng(kills).uniform(0, seconds / 2, kills):
        kill_after(ENCODE, survey, moment)
        now = listed_latents(survey)
        assert done.items() <= now.items() <= whole.items()
        done = now
    encode.encode(survey, "m")
    assert listed_latents(survey) == whole
    assert sorted(p.name for p in folder.iterdir()) == [store.MANIFEST, *sorted(whole)]


def test_a_killed_training_ends_in_the_same_bytes(survey):
    kill_training(survey, 1)


def test_a_killed_encoding_ends_in_the_same_bytes(survey):
    kill_encoding(survey, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_killed_ten_times_ends_in_the_same_bytes(survey):
    (survey / "recipe.toml").write_text(RECIPE.format(steps=100))
    kill_training(survey, 10)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_encoding_killed_ten_times_ends_in_the_same_bytes(survey):
    kill_encoding(survey, 10)
