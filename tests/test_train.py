"""Contract: the loop learns, keeps the best, refuses what contradicts, and is reproducible."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from small_surveys import add

from skyvec import checkpoint, store, train
from skyvec.checkpoint import CheckpointError, Training

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(**settings):
    return {
        "data": {"min_points": 5},
        "model": {"name": "gridconv", "latent": 4, "width": 16},
        "train": {"steps": 6, "batch": 8, "validate_every": 2, **settings},
    }


@pytest.fixture
def survey(tmp_path):
    add(tmp_path / "sky", [f"a{i}" for i in range(60)], [40] * 60)
    add(tmp_path / "sky", [f"b{i}" for i in range(40)], list(range(10, 50)), seed=1)
    return tmp_path / "sky"


def weights(folder):
    return (folder / checkpoint.WEIGHTS).read_bytes()


def test_a_finished_training_is_one_folder_with_its_scores(survey):
    seen = []
    folder = train.train(survey, recipe(), "m", progress=seen.append)
    assert sorted(p.name for p in folder.iterdir()) == [
        checkpoint.RECIPE,
        checkpoint.SCORES,
        checkpoint.WEIGHTS,
    ]
    scores = checkpoint.load(folder).scores
    assert [entry["step"] for entry in scores["history"]] == [2, 4, 6]
    best = min(scores["history"], key=lambda entry: entry["valid"])
    assert scores["best_step"] == best["step"]
    assert scores["losses"]["valid"]["loss"] == pytest.approx(best["valid"], rel=1e-6)
    assert set(scores["losses"]) == {"train", "valid", "test"}
    assert sum(scores["curves"].values()) == 100
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert math.isnan(seen[0].valid) and seen[-1].best == best["valid"]


def test_training_lowers_the_loss(survey):
    settings = recipe(steps=80, batch=32, validate_every=20, lr=3e-3)
    history = checkpoint.load(train.train(survey, settings, "m")).scores["history"]
    assert history[-1]["train"] < 0.8 * history[0]["train"]
    assert history[-1]["valid"] < 0.8 * history[0]["valid"]


def test_the_same_training_twice_gives_the_same_bits_and_another_seed_others(survey):
    one = weights(train.train(survey, recipe(), "one"))
    torch.manual_seed(99)
    assert weights(train.train(survey, recipe(), "two", save_every=0)) == one
    assert weights(train.train(survey, recipe(seed=1), "three")) != one


class Stop(Exception):
    pass


def stop_at(step):
    def stop(progress):
        if progress.step == step:
            raise Stop

    return stop


@pytest.mark.parametrize(
    ("model", "optimiser"), [("gridconv", "adam"), ("gridconv", "adamw"), ("ode_rnn", "adamax")]
)
def test_a_training_stopped_at_any_step_ends_in_the_same_bits(survey, model, optimiser):
    settings = {"optimiser": optimiser, "schedule": "cosine", "warm_up": 2, "clip": 1.0}
    how = {**recipe(**settings), "model": {"name": model, "latent": 4}}
    whole = train.train(survey, how, "whole")
    seen = []
    for step in (1, 2, 5):
        with pytest.raises(Stop):
            train.train(survey, how, "m", progress=stop_at(step), save_every=0)
    folder = train.train(survey, how, "m", progress=seen.append, save_every=0)
    assert [p.step for p in seen] == [6]
    assert weights(folder) == weights(whole)
    ours, theirs = checkpoint.load(folder).scores, checkpoint.load(whole).scores
    assert ours["history"] == theirs["history"] and ours["hash"] == theirs["hash"]


def test_training_again_does_nothing_and_what_differs_is_refused(survey):
    folder = train.train(survey, recipe(), "m")
    before, seen = (folder / checkpoint.SCORES).stat().st_mtime_ns, []
    assert train.train(survey, recipe(), "m", progress=seen.append) == folder
    assert not seen and (folder / checkpoint.SCORES).stat().st_mtime_ns == before
    with pytest.raises(CheckpointError, match=r"another recipe: \[train\] lr is 0.01, not 0.001"):
        train.train(survey, recipe(lr=0.01), "m")
    add(survey, ["c"], [30], seed=2)
    with pytest.raises(CheckpointError, match="before the survey's objects changed"):
        train.train(survey, recipe(), "m")


def test_an_unfinished_training_refuses_another_recipe(survey):
    with pytest.raises(Stop):
        train.train(survey, recipe(), "m", progress=stop_at(3), save_every=0)
    with pytest.raises(CheckpointError, match=r"another recipe: \[train\] batch is 4, not 8"):
        train.train(survey, recipe(batch=4), "m")
    state = store.model_folder(survey, "m") / checkpoint.TRAINING / train.STATE
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged"):
        train.train(survey, recipe(), "m")


def test_a_loss_that_is_not_finite_names_the_step(survey):
    with pytest.raises(train.TrainingError, match=r"the loss is (nan|inf) at step \d+; lower"):
        train.train(survey, recipe(lr=1e37, steps=50), "m")
    assert not checkpoint.is_finished(store.model_folder(survey, "m"))


def test_the_name_of_a_baseline_is_taken(survey):
    with pytest.raises(CheckpointError, match="'features' is the name of a baseline"):
        train.train(survey, recipe(), "features")


def test_an_empty_split_is_refused(survey):
    data = {"min_points": 5, "valid": 0.0}
    with pytest.raises(train.TrainingError, match="fell to the valid split"):
        train.train(survey, {**recipe(), "data": data}, "m")


def test_patience_ends_a_training_that_no_longer_improves(survey):
    folder = train.train(survey, recipe(steps=400, lr=1.0, clip=1.0, patience=2), "m")
    scores = checkpoint.load(folder).scores
    assert scores["steps"] == scores["history"][-1]["step"] < 400
    assert scores["best_step"] == scores["steps"] - 4


def test_learning_rate_warms_up_and_falls_as_promised():
    options = Training(steps=101, lr=2.0, warm_up=10, schedule="cosine")
    rates = [train.learning_rate(step, options) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(2.0 * (0.01 + 0.99 / 2)) and rates[100] == (
        pytest.approx(0.02)
    )
    assert (np.diff(rates[10:]) < 0).all()
    constant = dataclasses.replace(options, schedule="constant")
    assert train.learning_rate(100, constant) == 2.0


def test_scores_are_plain_json(survey):
    folder = train.train(survey, recipe(steps=2), "m")
    scores = json.loads((folder / checkpoint.SCORES).read_text())
    assert scores["parameters"] == sum(
        p.numel() for p in checkpoint.load(folder).model.parameters()
    )


def test_an_empty_survey_is_refused(tmp_path):
    store.create_survey(tmp_path)
    with pytest.raises(ValueError, match="no objects to train on"):
        train.train(tmp_path, {"model": {"name": "gridconv"}}, "m")


def test_nobody_else_trains_the_same_model_meanwhile(survey):
    def step(state):
        with pytest.raises(
            store.StoreError, match=r"another skyvec train .* is writing .*models/m"
        ):
            train.train(survey, recipe(), "m")

    train.train(survey, recipe(steps=2), "m", progress=step)
    assert not (survey / "models" / ".lock-m").exists()
