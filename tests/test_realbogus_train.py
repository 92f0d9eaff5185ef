"""Contract and truth: training with doubtful labels, splits that share nothing, suspects."""

import tomllib
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import expit

from skyvec.checkpoint import CheckpointError, RecipeError
from skyvec.nn.labels import MATCHES, UNLABELLED
from skyvec.nn.losses import mmd2
from skyvec.realbogus import metrics, suspects
from skyvec.realbogus import train as rb_train
from skyvec.realbogus.folds import SplitError, apart, clumps, divide
from skyvec.realbogus.train import (
    Draw,
    Loss,
    Objective,
    Samples,
    batch_of,
    build,
    complete,
    load,
    scores_of,
    split,
    train_on,
    treat,
    turn,
)
from skyvec.recipes import find_recipe, recipe_names

SMALL = {
    "data": {"side": 15},
    "model": {"name": "simple", "width": 4, "dropout": 0.0},
    "train": {"steps": 60, "batch": 32, "lr": 5e-3, "validate_every": 20},
}


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Small tensors gain nothing from threads."""


def made_up(n=300, seed=0, side=15, exposures=12):
    """Reals are round, bogus are dipoles, both faint enough to be hard."""
    rng = np.random.default_rng(seed)
    y = np.arange(side) - side // 2
    shift = rng.uniform(-1, 1, (n, 2))
    blob = np.exp(-((y[:, None] - shift[:, :1, None]) ** 2 + (y - shift[:, 1:, None]) ** 2) / 3)
    label = rng.integers(0, 2, n)
    sign = np.where((label == 0)[:, None, None], np.sign(y)[None, None], 1.0)
    pixels = 0.5 + 0.06 * rng.standard_normal((n, 3, side, side))
    pixels[:, 0] += 0.4 * blob
    pixels[:, 2] += 0.35 * blob * sign
    names = np.array([f"s{i}" for i in range(n)])
    return Samples(
        names,
        pixels.astype(np.float32),
        label,
        np.array(["ccd1", "ccd2"])[rng.integers(0, 2, n)],
        np.array([f"e{i}" for i in rng.integers(0, exposures, n)]),
        np.array([f"o{i // 2}" for i in range(n)]),
    )


def random_links(n, objects, exposures, seed=0):
    rng = np.random.default_rng(seed)
    o = np.array([f"o{i}" for i in rng.integers(0, objects, n)])
    return o, np.array([f"e{i}" for i in rng.integers(0, exposures, n)])


def test_clumps_hang_together_by_either_link():
    o = np.array(["a", "b", "a", "c", "d"])
    e = np.array(["1", "1", "2", "3", "4"])
    found = clumps(o, e)
    assert found[0] == found[1] == found[2] and len(set(found.tolist())) == 3


def test_small_clumps_are_divided_without_loss():
    rng = np.random.default_rng(0)
    night = rng.integers(0, 200, 3000)
    o = np.array([f"n{k}o{j}" for k, j in zip(night, rng.integers(0, 9, 3000))])
    e = np.array([f"n{k}" for k in night])
    parts = divide(o, e, [0.7, 0.15, 0.15])
    assert np.bincount(parts) / 3000 == pytest.approx([0.7, 0.15, 0.15], abs=0.02)
    for k in range(3):
        assert apart(o, e, parts == k)[parts != k].all()
    assert not np.array_equal(parts, divide(o, e, [0.7, 0.15, 0.15], seed=1))
    order = rng.permutation(3000)
    assert np.array_equal(divide(o[order], e[order], [0.7, 0.15, 0.15]), parts[order])


def test_a_field_seen_every_night_loses_its_twins():
    o, e = random_links(2000, 900, 30)
    parts = divide(o, e, [0.8, 0.2])
    assert np.bincount(parts) / 2000 == pytest.approx([0.8, 0.2], abs=0.05)
    free = apart(o, e, parts == 1)
    assert not set(o[free]) & set(o[parts == 1]) and not set(e[free]) & set(e[parts == 1])
    assert 0 < free.sum() < (parts == 0).sum()


def test_a_small_part_is_like_the_others():
    # exposures of many detections, and of one each: both kinds in every part
    e = np.array(
        [f"large{k}" for k in np.repeat(np.arange(40), 60)] + [f"{k}" for k in range(999)]
    )
    o = np.array([f"o{k}" for k in range(len(e))])
    parts = divide(o, e, [0.94, 0.06])
    large = np.char.startswith(e, "large")
    for k in range(2):
        assert large[parts == k].mean() == pytest.approx(large.mean(), abs=0.2)
    assert (parts == 1).mean() == pytest.approx(0.06, abs=0.005)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(SplitError, match="exposures cannot"):
        divide(*random_links(50, 1, 2), [0.2] * 5)
    with pytest.raises(SplitError, match="sum to 1"):
        divide(*random_links(50, 5, 5), [0.5, 0.2])
    with pytest.raises(SplitError, match="every sample"):
        apart(np.array(["a", "a"]), np.array(["1", "2"]), np.array([True, False]))


def test_train_valid_and_test_share_nothing():
    samples = made_up(600)
    parts = split(samples, Draw())
    for a, b in ((0, 1), (0, 2), (1, 2)):
        for name in ("object", "exposure", "id"):
            column = getattr(samples, name)
            assert not set(column[parts == a]) & set(column[parts == b])
    assert {0, 1, 2} <= set(parts.tolist())


def test_the_gradient_is_the_weighted_sum_of_those_of_the_parts():
    samples = made_up(24)
    samples.label[::5] = UNLABELLED
    net = build(complete(SMALL))
    batch = batch_of(samples, np.arange(24))

    def gradient(**weights):
        net.zero_grad()
        objective = Objective(net, Loss(**weights))
        total, parts = objective.loss(batch, torch.Generator().manual_seed(3))
        total.backward()
        flat = torch.cat([p.grad.flatten() for p in net.parameters()])
        return flat.clone(), parts

    total, parts = gradient(ce=0.9, ech=0.05, lds=0.4)
    assert set(parts) == {"ce", "ech", "lds"}
    alone = [gradient(**{"ce": 0.0, name: 1.0})[0] for name in ("ce", "ech", "lds")]
    assert torch.allclose(
        total, 0.9 * alone[0] + 0.05 * alone[1] + 0.4 * alone[2], rtol=1e-4, atol=1e-6
    )
    assert all(part.abs().max() > 0 for part in alone)


def test_the_weights_as_released_are_those_of_the_wrong_key():
    assert Loss(ce=0.1, ech=1.0, lds=0.1, as_released=True).weights() == {
        "ce": 0.1, "ech": 0.1, "lds": 1.0, "mmd": 0.0,
    }  # fmt: skip
    assert Loss(ce=0.1, ech=1.0, lds=0.1, mmd=2.0).weights() == {
        "ce": 0.1, "ech": 1.0, "lds": 0.1, "mmd": 2.0,
    }  # fmt: skip


def test_drop_out_is_off_while_smoothness_is_measured_and_on_again_after():
    net = build(complete({**SMALL, "model": {"name": "simple", "width": 4, "dropout": 0.9}}))
    objective = Objective(net, Loss(ce=0.0, lds=1.0)).train()
    batch = batch_of(made_up(8), np.arange(8))
    one, again = (
        float(objective.loss(batch, torch.Generator().manual_seed(0))[0].detach())
        for _ in range(2)
    )
    assert one == again and net.training


def test_training_learns_and_a_folder_gives_the_same_scores_again(tmp_path):
    samples = made_up(400)
    folder = train_on(samples, SMALL, tmp_path / "m")
    net, recipe, scores = load(folder)
    assert recipe["model"]["side"] == 15 and scores["stamps"]["real"] > 50
    fresh = made_up(300, seed=9)
    assert metrics.auc(scores_of(net, fresh.pixels), fresh.label) > 0.9
    assert train_on(samples, SMALL, tmp_path / "m") == folder  # nothing is done twice
    again = load(train_on(samples, SMALL, tmp_path / "again"))[0]
    assert np.array_equal(scores_of(net, fresh.pixels), scores_of(again, fresh.pixels))
    with pytest.raises(CheckpointError):  # other labels are other data
        train_on(samples.with_label(1 - samples.label), SMALL, tmp_path / "m")


def test_smoothness_over_a_share_of_the_batch_has_the_same_mean():
    net = build(complete({**SMALL, "model": {"name": "simple", "width": 4, "dropout": 0.0}}))
    batch = batch_of(made_up(64), np.arange(64))

    def smoothness(share, seed):
        objective = Objective(net, Loss(ce=0.0, lds=1.0, length=2.0, iterations=4, share=share))
        _, parts = objective.loss(batch, torch.Generator().manual_seed(seed))
        return float(parts["lds"])

    whole = np.mean([smoothness(1.0, seed) for seed in range(6)])
    shares = [smoothness(0.25, seed) for seed in range(40)]
    assert np.std(shares) > 0 and np.mean(shares) == pytest.approx(whole, rel=0.15)
    with pytest.raises(ValueError, match="share = 0"):
        Loss(share=0.0)


def test_drop_out_draws_from_the_generator_alone():
    net = build(complete({**SMALL, "model": {"name": "simple", "width": 4, "dropout": 0.5}}))
    objective, batch = Objective(net, Loss()).train(), batch_of(made_up(16), np.arange(16))

    def loss(seed):
        torch.manual_seed(np.random.default_rng().integers(1 << 30))
        before = torch.random.get_rng_state()
        value = objective.loss(batch, torch.Generator().manual_seed(seed))[0]
        assert torch.equal(before, torch.random.get_rng_state())
        return float(value.detach())

    assert loss(1) == loss(1) != loss(2)


def test_unlabelled_samples_change_only_the_smoothness(tmp_path):
    samples = made_up(200)
    some = samples.with_label(np.where(np.arange(200) % 2, samples.label, UNLABELLED))
    recipe = {**SMALL, "train": {**SMALL["train"], "steps": 3, "validate_every": 3}}
    plain = load(train_on(some, recipe, tmp_path / "plain"))[2]
    smooth = load(
        train_on(some, {**recipe, "loss": {"ce": 0.6, "lds": 0.4}}, tmp_path / "smooth")
    )[2]
    assert plain["stamps"]["unlabelled"] == 0 < smooth["stamps"]["unlabelled"]
    assert "valid_lds" in smooth["history"][0] and "valid_lds" not in plain["history"][0]


def test_a_few_labels_among_many_without_are_in_every_batch(tmp_path):
    samples = made_up(400)
    keep = np.concatenate([np.flatnonzero(samples.label == k)[:4] for k in (0, 1)])
    label = np.full(len(samples), UNLABELLED)
    label[keep] = samples.label[keep]
    parts = np.zeros(len(samples), np.int64)
    parts[keep[[0, -1]]] = 1
    seen = []

    class Watched(Objective):
        def parts(self, batch, generator):
            seen.append([(batch.label == k).sum().item() for k in (1, 0, UNLABELLED)])
            return super().parts(batch, generator)

    recipe = {**SMALL, "loss": {"ce": 0.6, "lds": 0.4}}
    recipe["train"] = {**SMALL["train"], "batch": 8, "steps": 3, "validate_every": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rb_train, "Objective", Watched)
        train_on(samples.with_label(label), recipe, tmp_path / "few", parts=parts)
    assert seen[:3] == [[1, 1, 6]] * 3


def another_camera(n=300, seed=5, share=0.5):
    """The same sky behind other optics: blurred, offset, noisier; a share of the stamps real."""
    found = made_up(n * 4, seed=seed)
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(found.label == k) for k in (0, 1)]
    n_real = round(share * n)
    found = found.take(np.sort(np.concatenate([rows[0][: n - n_real], rows[1][:n_real]])))
    blurred = sum(np.roll(found.pixels, (i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    pixels = 0.15 * blurred + 0.02 * rng.standard_normal(blurred.shape) - 0.3
    ids = np.array([f"b{key}" for key in found.id])
    return Samples(ids, pixels.astype(np.float32), found.label, found.detector, ids, ids)


ADAPTED = {**SMALL, "loss": {"mmd": 1.0}}


def test_adapting_brings_the_features_of_two_cameras_together(tmp_path):
    ours, theirs = made_up(400), another_camera(400)
    blind = theirs.with_label(np.full(400, UNLABELLED))
    fresh, distance, area = another_camera(400, seed=8), {}, {}
    for name, recipe, target in (("plain", SMALL, None), ("adapted", ADAPTED, blind)):
        net, _, scores = load(train_on(ours, recipe, tmp_path / name, target=target))
        with torch.no_grad():
            codes = [net.features(torch.from_numpy(s.pixels)) for s in (ours, fresh)]
        distance[name] = float(mmd2(*codes))
        area[name] = metrics.auc(scores_of(net, fresh.pixels), fresh.label)
    assert distance["adapted"] < distance["plain"] / 2
    assert min(area.values()) > 0.98
    assert scores["stamps"]["target"] == 340 and "valid_mmd" in scores["history"][0]
    # labels of the target are not looked at
    again = load(train_on(ours, ADAPTED, tmp_path / "labelled", target=theirs))[0]
    assert np.array_equal(scores_of(again, fresh.pixels), scores_of(net, fresh.pixels))


def test_an_adaptation_that_was_killed_ends_in_the_same_bytes(tmp_path, monkeypatch):
    ours, theirs = made_up(200), another_camera(100)
    recipe = {**ADAPTED, "train": {**SMALL["train"], "steps": 12, "validate_every": 4}}
    whole = train_on(ours, recipe, tmp_path / "whole", target=theirs)

    class Killed(Exception):
        pass

    def kill(at):
        if at.step == 7:
            raise Killed

    monkeypatch.setattr(rb_train, "fit", partial(rb_train.fit, save_every=0))
    with pytest.raises(Killed):
        train_on(ours, recipe, tmp_path / "killed", target=theirs, progress=kill)
    assert (tmp_path / "killed" / "training" / "state.safetensors").exists()
    resumed = train_on(ours, recipe, tmp_path / "killed", target=theirs)
    for name in ("weights.safetensors", "target.parquet"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    with pytest.raises(CheckpointError):  # another target is other data
        train_on(ours, recipe, tmp_path / "whole", target=another_camera(100, seed=6))


@pytest.mark.parametrize("match", MATCHES)
def test_the_gradient_of_the_distance_moves_source_and_target(match):
    objective = Objective(build(complete(SMALL)), Loss(mmd=1.0, match=match))
    batch = batch_of(made_up(32), np.arange(32))
    _, learnt = objective.loss(batch._replace(target=batch.x), torch.Generator())
    assert learnt["mmd"] == 0 < learnt["ce"]  # nothing is matched before labels are learnt
    optimiser = torch.optim.Adam(objective.parameters(), 5e-3)
    for _ in range(30):
        optimiser.zero_grad()
        objective.loss(batch, torch.Generator())[0].backward()
        optimiser.step()
    x = torch.from_numpy(another_camera(32).pixels).requires_grad_()
    batch = batch._replace(x=batch.x.requires_grad_(), target=x)
    total, parts = objective.loss(batch, torch.Generator().manual_seed(3))
    mmd = objective.parts(batch, torch.Generator().manual_seed(3))["mmd"]
    mmd.backward()
    assert x.grad.abs().sum() > 0 and batch.x.grad.abs().sum() > 0
    assert float(total.detach()) == pytest.approx(float(parts["ce"] + parts["mmd"]))
    # without a target the term is none, and nothing else changes
    plain, found = objective.loss(batch._replace(target=None), torch.Generator().manual_seed(3))
    assert set(found) == {"ce"} and float(plain.detach()) == pytest.approx(float(parts["ce"]))


def test_smoothness_is_asked_of_the_target_too():
    objective = Objective(build(complete(SMALL)), Loss(ce=0.5, lds=0.5, length=1.0))
    batch, theirs = batch_of(made_up(32), np.arange(32)), another_camera(32)
    both = batch._replace(target=torch.from_numpy(theirs.pixels))
    one, two = (objective.loss(b, torch.Generator().manual_seed(3))[1] for b in (batch, both))
    assert one["ce"] == two["ce"] and one["lds"] != two["lds"] and "mmd" not in two


def test_a_target_without_a_use_and_a_use_without_a_target_are_refused(tmp_path):
    ours, theirs = made_up(100), another_camera(40)
    with pytest.raises(ValueError, match="--target"):
        train_on(ours, ADAPTED, tmp_path / "m")
    with pytest.raises(ValueError, match="no part in this loss"):
        train_on(ours, SMALL, tmp_path / "m", target=theirs)
    with pytest.raises(ValueError, match="too few"):
        train_on(ours, ADAPTED, tmp_path / "m", target=theirs.take(np.arange(9)))
    with pytest.raises(ValueError, match="choose from class"):
        complete({**SMALL, "loss": {"mmd": 1.0, "match": "label"}})


def test_recipes_and_samples_that_mean_nothing_are_refused(tmp_path):
    samples = made_up(60)
    with pytest.raises(RecipeError, match="unknown key"):
        complete({**SMALL, "loss": {"auc": 1.0}})
    with pytest.raises(RecipeError, match="choose from"):
        complete({**SMALL, "model": {"name": "complexe"}})
    with pytest.raises(ValueError, match="not all 0"):
        complete({**SMALL, "loss": {"ce": 0.0}})
    with pytest.raises(SplitError, match="no bogus"):
        train_on(samples.with_label(np.ones(60, int)), SMALL, tmp_path / "m")
    with pytest.raises(ValueError, match="labels must be"):
        samples.with_label(np.full(60, 2))
    pixels = samples.pixels.copy()
    pixels[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        Samples(*[getattr(samples, n) for n in ("id",)], pixels, *[
            getattr(samples, n) for n in ("label", "detector", "exposure", "object")
        ])  # fmt: skip


def test_turning_keeps_every_pixel_and_uses_all_eight_ways():
    one = torch.arange(75.0).reshape(1, 3, 5, 5)
    seen = turn(one.expand(200, -1, -1, -1), np.random.default_rng(0))
    assert torch.equal(seen.flatten(2).sort(2).values, one.expand(200, -1, -1, -1).flatten(2))
    assert len({tuple(x.flatten().tolist()) for x in seen}) == 8
    assert torch.equal(seen[:, :, 2, 2], one[:, :, 2, 2].expand(200, -1))


@pytest.mark.parametrize("how", ["keep", "remove", "unlabel", "flip"])
def test_treatments(how):
    label = np.array([1, 0, -1, 1, 0])
    suspect = np.array([True, True, True, False, False])
    changed, stays = treat(label, suspect, how)
    wanted = {
        "keep": [1, 0, -1, 1, 0], "remove": [1, 0, -1, 1, 0],
        "unlabel": [-1, -1, -1, 1, 0], "flip": [0, 1, -1, 1, 0],
    }[how]  # fmt: skip
    assert changed.tolist() == wanted and label.tolist() == [1, 0, -1, 1, 0]
    assert stays.tolist() == ([False] * 3 + [True] * 2 if how == "remove" else [True] * 5)
    with pytest.raises(ValueError, match="choose from"):
        treat(label, suspect, "forget")


def test_selectors_by_their_definitions():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 4000)
    score = 4 * (2 * truth - 1) + 2.5 * rng.standard_normal(4000)
    wrong = rng.random(4000) < 0.1
    label = np.where(wrong, 1 - truth, truth)
    label[:50] = UNLABELLED
    argmax = suspects.suspects(score, label)
    assert np.array_equal(argmax, (label >= 0) & ((score >= 0) != (label == 1)))
    strict = suspects.suspects(score, label, "threshold", level=0.9)
    against = np.where(label == 1, expit(-score), expit(score))
    assert np.array_equal(strict, argmax & (against > 0.9))
    sure = suspects.suspects(score, label, "confident")
    p = suspects.calibrated(score, label)
    known = label >= 0
    t1, t0 = p[label == 1].mean(), (1 - p)[label == 0].mean()
    for i in range(0, 4000, 97):
        reach = [k for k, (q, t) in enumerate([(1 - p[i], t0), (p[i], t1)]) if q >= t]
        guess = max(reach, key=lambda k: [1 - p[i], p[i]][k]) if reach else None
        assert sure[i] == (known[i] and guess is not None and guess != label[i])
    for chosen in (argmax, strict, sure):
        assert suspects.found(chosen, wrong & known)["recall"] > 0.6
    assert suspects.found(sure, wrong)["precision"] > suspects.found(argmax, wrong)["precision"]
    doubt = suspects.doubt(score, label)
    assert np.isnan(doubt[:50]).all() and ((doubt > 0) == argmax)[known & (score != 0)].all()


@pytest.mark.slow
def test_out_of_fold_scores_find_planted_errors(tmp_path):
    samples = made_up(800, exposures=40)
    wrong = np.random.default_rng(1).random(800) < 0.1
    noisy = samples.with_label(np.where(wrong, 1 - samples.label, samples.label))
    score, fold = suspects.out_of_fold(noisy, SMALL, tmp_path / "folds")
    assert np.isfinite(score).all() and set(fold.tolist()) == set(range(5))
    figures = suspects.found(suspects.suspects(score, noisy.label), wrong)
    assert figures["recall"] > 0.8 and figures["precision"] > 0.5
    again, _ = suspects.out_of_fold(noisy, SMALL, tmp_path / "folds")
    assert np.array_equal(score, again)

    # second stage: a network that learns its labels by heart is cured of most of the wrong ones
    by_heart = {
        "data": {"side": 15, "augment": False},
        "model": {"name": "simple", "width": 8, "dropout": 0.0},
        "train": {"steps": 700, "batch": 32, "lr": 3e-3, "validate_every": 700},
    }
    fresh, lost = made_up(2000, seed=9), {}
    for how in ("keep", "remove"):
        label, stays = treat(noisy.label, suspects.suspects(score, noisy.label), how)
        used = noisy.with_label(label)
        parts = np.where(stays, split(used, Draw(**complete(by_heart)["data"])), -1)
        net, _, _ = load(train_on(used, by_heart, tmp_path / how, parts=parts))
        lost[how] = 1 - metrics.auc(scores_of(net, fresh.pixels), fresh.label)
    assert lost["remove"] < lost["keep"] / 5


def test_every_shipped_recipe_is_understood_and_the_rows_are_those_of_the_paper():
    recipes = {
        name: complete(tomllib.loads(find_recipe(name, "realbogus").read_text()))
        for name in recipe_names("realbogus")
    }
    assert set(recipes) == {f"row{k:02d}" for k in range(1, 12)} | {
        "simple", "complex", "smooth", "vgg6", "adapted",
    }  # fmt: skip
    weights = {
        k: tuple(recipes[f"row{k:02d}"]["loss"][name] for name in ("ce", "ech", "lds"))
        for k in range(1, 12)
    }
    assert weights[3] == (1, 0, 0) and weights[7] == (0.4, 0.6, 0)
    assert weights[8] == (0.4, 0, 0.6) and weights[11] == (0.9, 0.05, 0.05)
    assert [recipes[f"row{k:02d}"]["model"]["name"] for k in (3, 4)] == ["simple", "complex"]
