"""How well and how fast reals are told from bogus: the paper's rows, label noise, peers, speed.

All on a simulated survey whose truth is known: embedded stars to learn from, stars seen through
the true point-spread function of their place to test on. Every arm sees the same, noisy, labels,
also where weights are chosen; splits share no object and no exposure. Intervals: 95 %, bootstrap
by object and, where there are several trainings, by training.

* speed: the deep network's engine against its own layers in a plain float32 loop (batch 256), one
  thread of processor time each, on the same stamps; the cascade on a survey on disk, wall time.
* table: the eleven rows of Takahashi et al. 2022, scaled to ``--scale``. One draw of wrong labels
  and one first stage, then ``--seeds`` trainings of each row. Up to the scale "laptop" each of
  them scores all reals and its own share of the bogus, so that their mean has seen every one.
* noise: wrong labels in 1, 5 and 10 % of each class; recall and precision of the suspects; FPR at
  TPR 0.9 of suspects kept, removed, unlabelled, flipped. In three ways: "turned", as all trainings
  here, with stamps turned and mirrored, drop-out, and the weights that did best on (noisy)
  validation stamps; "stopped", as published, without the first two; "heart", without all three, to
  the last step. The last two on fewer stamps. The first stage is always of the first way.
* peers: braai's VGG6 and a random forest on autoScan's 38 numbers, on the same samples.
* real: published Deep-HiTS figures, and ZTF and LSST stamps scored by what was learnt in
  simulation and on real frames, also adapted to one half of their nights (without a label) and
  scored on the other.
* shift: two simulated cameras, pixels of one 1.7 times finer; learnt on the one, tested on the
  other: as it is, adapted to a night of it without labels of which 5 % is real, and with labels.

With ``--keep DIR`` all that is finished stays there, down to the scores of a network, and a run
that was stopped goes on where it was. ``--minutes`` stops the table in time and prints it for the
seeds that are finished.

    python bench/realbogus.py [--quick] [--only speed,noise] [--seeds N] [--keep DIR] [--minutes M]
        [--scale tiny|quick|small|laptop|medium|paper] [--data DIR] [--device cpu]
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyvec.batches import hash_uniform
from skyvec.io.stamps import Triplet, read
from skyvec.models.stamps import CLASSIFIERS
from skyvec.prep.stamps import normalise
from skyvec.realbogus import metrics, suspects
from skyvec.realbogus.fast import engine
from skyvec.realbogus.folds import divide
from skyvec.realbogus.forest import Forest, features
from skyvec.realbogus.frames import stamps_of_folder
from skyvec.realbogus.gallery import gallery
from skyvec.realbogus.samples import faults, join, write_survey
from skyvec.realbogus.score import Judge, score_survey, screen_loss, screen_threshold, turned
from skyvec.realbogus.train import (
    Draw,
    Samples,
    complete,
    load,
    scores_of,
    split,
    train_on,
    treat,
)
from skyvec.schema import Catalog, Stamps
from skyvec.sim.frames import make_detectors
from skyvec.sim.stamps import flip_labels, simulate_stamps
from skyvec.store import iterate_objects, write_atomic

SIDE = 29
PART = 26_000
"""Bogus simulated at a time, and kept on disk."""


@dataclass(frozen=True)
class Scale:
    """Sizes of an experiment.

    Args:
        reals: Detections to learn from.
        bogus: Those of nothing.
        test_reals: Detections to test on.
        test_bogus: Those of nothing.
        sensors: Of the camera.
        each: How many of them get a network of their own in row 1.
        simple: Width of the simple network.
        complex: Width of the complex one.
        steps: Of the simple network and of VGG6, 64 stamps each here and below.
        noise: Of the simple network in the noise experiments.
        few: Of it where it learns from the stamps of one sensor.
        deep: Of the complex network.
        heart: Stamps and steps of the training by heart.
        shares: Whether each seed of the table scores its own share of the bogus.
        visits: Exposures of a field.
    """

    reals: int
    bogus: int
    test_reals: int
    test_bogus: int
    sensors: int
    each: int
    simple: int
    complex: int
    steps: int
    noise: int
    few: int
    deep: int
    heart: tuple[int, int]
    shares: bool = True
    visits: int = 6


SCALES = {
    "tiny": Scale(900, 1200, 300, 2000, 4, 2, 16, 4, 120, 80, 40, 30, (600, 200), visits=2),
    "quick": Scale(1200, 1600, 300, 2500, 8, 2, 16, 4, 150, 40, 40, 30, (500, 80), visits=3),
    "small": Scale(3000, 4000, 500, 6000, 8, 3, 16, 4, 500, 300, 100, 150, (2000, 500)),
    "laptop": Scale(10_000, 14_000, 2000, 102_000, 8, 3, 16, 8, 800, 800, 200, 600, (6000, 1000)),
    "medium": Scale(
        40_000, 60_000, 3000, 102_000, 20, 20, 32, 16, 8000, 8000, 800, 6000, (20_000, 9000), False
    ),
    "paper": Scale(
        1_200_000, 2_000_000, 3000, 255_000, 84, 84, 32, 32, 200_000, 200_000, 20_000, 400_000,
        (200_000, 200_000), False,
    ),
}  # fmt: skip
RATES = {"simple": 8e-3, "vgg6": 8e-3, "complex": 6e-3}
"""Highest learning rate of each network; 64 stamps a step."""
ROWS: dict[int, tuple[str, str, dict[str, float], float]] = {
    1: ("simple", "each sensor", {}, 9.868e-3),
    2: ("simple", "mix", {}, 5.028e-3),
    3: ("simple", "all", {}, 3.323e-4),
    4: ("complex", "all", {}, 7.272e-4),
    5: ("complex", "remove", {}, 8.367e-4),
    6: ("complex", "all", {"ce": 0.3, "ech": 0.7}, 1.306e-3),
    7: ("complex", "remove", {"ce": 0.4, "ech": 0.6}, 5.083e-4),
    8: ("complex", "all", {"ce": 0.4, "lds": 0.6}, 1.603e-4),
    9: ("complex", "unlabel", {"ce": 0.6, "lds": 0.4}, 1.838e-4),
    10: ("complex", "all", {"ce": 0.3, "ech": 0.3, "lds": 0.4}, 2.541e-4),
    11: ("complex", "unlabel", {"ce": 0.9, "ech": 0.05, "lds": 0.05}, 1.994e-4),
}
"""Network, labels, loss, and the FPR at TPR 0.9 that the paper gives (its Table 2)."""
ORDERINGS = (
    (2, 1, "sensors mixed beat one network a sensor"),
    (3, 2, "all stamps beat as many as one sensor has"),
    (3, 4, "plain cross-entropy: the simple network beats the complex one"),
    (4, 5, "plain cross-entropy: keeping suspects beats removing them"),
    (4, 6, "the hinge alone does harm while suspects are kept"),
    (7, 6, "the hinge: removing suspects beats keeping them"),
    (7, 4, "suspects removed with the hinge beat plain cross-entropy"),
    (8, 4, "smoothness helps the complex network"),
    (8, 3, "with smoothness the complex network beats the simple one"),
    (11, 4, "the two-stage network of all three losses beats one stage"),
)
"""Better row, worse row: what the paper's figures say."""
ARMS = ("keep", "remove", "unlabel", "flip")
WAYS = ("turned", "stopped", "heart")
"""How the noise experiments train: see above."""
PAPER_NOISE = 0.006, 0.01
"""Wrong labels the authors estimate by eye: of bogus, of reals."""
SHARE = 0.25
"""Of a batch that the smoothness is taken over: the same mean at two thirds of the cost."""


def say(*parts: object) -> None:
    print(*parts, flush=True)


class Bench:
    """The data of a run, simulated once, and what was measured."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder / options.scale
        self.folder.mkdir(parents=True, exist_ok=True)
        self.size = SCALES[options.scale]
        self.result: dict[str, Any] = {"scale": options.scale}
        self.began = time.perf_counter()
        self._ready: dict[tuple[str, str, int], Samples] = {}

    @cached_property
    def learn_raw(self) -> tuple[Stamps, Catalog]:
        """Stamps to learn from."""
        return self.raw("learn")

    @cached_property
    def test_raw(self) -> tuple[Stamps, Catalog]:
        """Stamps to test on."""
        return self.raw("test")

    def parts(self, name: str) -> int:
        """In how many parts the stamps of "learn" or "test" lie."""
        return -(-(self.size.bogus if name == "learn" else self.size.test_bogus) // PART)

    def raw(self, name: str, parts: int = 0) -> tuple[Stamps, Catalog]:
        """The first parts of "learn" or "test" as they were simulated; 0 for all."""
        files = [self.simulate(name, k) for k in range(parts or self.parts(name))]
        found = [_read(file) for file in files]
        whole = {key: np.concatenate([one[key] for one in found]) for key in found[0]}
        names = ("id", "pixels", "detector", "exposure", "object")
        stamps = Stamps(*(whole[key] for key in names))
        unknown = np.full(len(stamps), np.nan)
        columns = {k.removeprefix("column "): v for k, v in whole.items() if k not in names}
        return stamps, Catalog(stamps.id, stamps.object, unknown, unknown.copy(), columns)

    def simulate(self, name: str, k: int) -> Path:
        """Simulate part k of "learn" or "test", unless it is there; part 0 has all the reals."""
        file = self.folder / f"{name}.{k}.npz"
        if file.exists():
            return file
        size, n, began = self.size, self.parts(name), time.process_time()
        reals, bogus = size.reals, size.bogus
        if name == "test":
            reals, bogus = size.test_reals, size.test_bogus
        stamps, catalog = simulate_stamps(
            reals if k == 0 else 0,
            bogus * (k + 1) // n - bogus * k // n,
            np.random.default_rng([1 if name == "learn" else 2, k]),
            detectors=make_detectors(size.sensors),
            observed=name == "test",
            visits=size.visits,
            name=f"{name}.{k}",
        )
        columns = {f"column {key}": value for key, value in catalog.columns.items()}
        rows = {"id": stamps.id, "pixels": stamps.pixels, "detector": stamps.detector,
                "exposure": stamps.exposure, "object": stamps.object}  # fmt: skip
        _write(file, {**rows, **columns})
        took = time.process_time() - began
        say(f"simulated {len(stamps):,} detections ({file.name}) in {took:.0f} s")
        return file

    def samples(self, name: str, scale: str = "asinh", parts: int = 0) -> Samples:
        """Samples of the first parts of "learn" or "test", normalised once and kept."""
        if (name, scale, parts) in self._ready:
            return self._ready[name, scale, parts]
        stamps, catalog = self.raw(name, parts)
        pixels, usable, first = [], [], 0
        for k in range(parts or self.parts(name)):
            file = self.folder / f"{name}.{k}-{scale}.npz"
            if not file.exists():
                one = _read(self.simulate(name, k))["pixels"]
                rows = np.flatnonzero(faults(one, SIDE) == "")
                ready = normalise(one[rows], scale, side=SIDE)
                _write(file, {"pixels": ready, "usable": rows, "n": np.array(len(one))})
            found = _read(file)
            pixels.append(found["pixels"])
            usable.append(first + found["usable"])
            first += int(found["n"])
        rows = np.concatenate(usable)
        catalog = catalog.take(rows)
        self._ready[name, scale, parts] = Samples(
            stamps.id[rows],
            np.concatenate(pixels),
            catalog.columns["is_real"].astype(np.int64),
            stamps.detector[rows],
            stamps.exposure[rows],
            stamps.object[rows],
            catalog.columns,
        )
        return self._ready[name, scale, parts]

    def data(self, scale: str = "asinh") -> tuple[Samples, Samples]:
        """Samples to learn from and to test on, normalised."""
        return self.samples("learn", scale), self.samples("test", scale)

    def recipe(
        self,
        net: str,
        loss: dict[str, float],
        seed: int,
        *,
        steps: int = 0,
        **model: Any,
    ) -> dict[str, Any]:
        """The recipe of a network of this scale."""
        size = self.size
        widths = {"simple": size.simple, "complex": size.complex, "vgg6": 16}
        steps = steps or (size.deep if net == "complex" else size.steps)
        # the deep one stays on a plateau where it starts too fast
        slow = min(100, steps // 6) if net == "complex" else min(50, steps // 10)
        return {
            # looking at validation stamps costs the deep network as much as learning from others
            "data": {"normalise": "asinh", "test": 0.0, "seed": seed,
                     "valid": 0.06 if net == "complex" and size.bogus > 10_000 else 0.15},
            "model": {"name": net, "width": widths[net], **model},
            "loss": {**loss, **({"share": SHARE} if loss.get("lds") else {})},
            "train": {
                "steps": steps, "batch": 64, "lr": RATES[net], "schedule": "cosine", "clip": 1.0,
                "warm_up": slow, "validate_every": max(1, -(-steps // 4)),
                "seed": seed,
            },
        }  # fmt: skip

    def train(
        self,
        learn: Samples,
        recipe: dict[str, Any],
        name: str,
        stays: np.ndarray | None = None,
        target: Samples | None = None,
    ) -> Any:
        """Train, or go on with it, and give the network."""
        parts = split(learn, Draw(**complete(recipe)["data"]))
        if stays is not None:
            parts = np.where(stays, parts, -1)
        made = train_on(
            learn, recipe, self.folder / name, parts=parts, target=target,
            device=self.options.device,
        )  # fmt: skip
        return load(made)[0]

    def kept(self, name: str, key: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Numbers made once for this key, such as the scores of a network."""
        sign = hashlib.blake2b(repr(key).encode(), digest_size=6).hexdigest()
        file = self.folder / "scores" / f"{name}-{sign}.npz"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            _write(file, {"values": make()})
        return _read(file)["values"]

    def scored(
        self,
        learn: Samples,
        recipe: dict[str, Any],
        name: str,
        test: Samples,
        stays: np.ndarray | None = None,
        turns: bool = False,
    ) -> np.ndarray:
        """Scores of test stamps by a network trained for it, of one orientation or of eight."""
        used = learn.label if stays is None else np.where(stays, learn.label, -9)
        key = [recipe, *(hashlib.blake2b(a.tobytes()).hexdigest()
                         for a in (learn.id, used, test.id))]  # fmt: skip

        def make() -> np.ndarray:
            net = self.train(learn, recipe, name, stays)
            if turns:
                return turned(engine(net))(test.pixels)
            return scores_of(net, test.pixels, batch=256)

        return self.kept(name + " turned" * turns, key, make)

    def row(self, name: str, score: np.ndarray, test: Samples) -> dict[str, Any]:
        """Measure scores, and print a row."""
        rng = np.random.default_rng(0)
        drawn = metrics.resampled(score, test.label, test.object, rng, draws=100)
        found = metrics.summary(score, test.label, drawn)
        low, high = found["bootstrap"]["fpr_at_0.9"]  # type: ignore[index]
        say(
            f"  {name:34s} AUC {found['auc']:.5f}  FPR at TPR .9 {found['fpr_at_0.9']:.2e} "
            f"({low:.1e} to {high:.1e})  at .983 {found['fpr_at_0.983']:.2e}"
        )
        return found

    def noisy(self, learn: Samples, of_bogus: float, of_reals: float, seed: int) -> Samples:
        """The same samples with wrong labels in a share of each class."""
        rng = np.random.default_rng([seed, 7])
        return learn.with_label(
            flip_labels(learn.label == 1, of_reals, of_bogus, rng).astype(np.int64)
        )

    def suspects(
        self, noisy: Samples, truth: np.ndarray, recipe: dict[str, Any], name: str
    ) -> dict[str, np.ndarray]:
        """First stage: suspects by every selector, compared with the truth."""

        def make() -> np.ndarray:
            return np.stack(suspects.out_of_fold(noisy, recipe, self.folder / name))

        label = hashlib.blake2b(noisy.label.tobytes()).hexdigest()
        score, fold = self.kept(name, [recipe, label], make)
        chosen = {}
        for how in suspects.SELECTORS:
            chosen[how] = suspects.suspects(score, noisy.label, how, fold=fold.astype(np.int64))
            figures = suspects.found(chosen[how], noisy.label != truth)
            say(
                f"  suspects by {how:10s} {figures['suspects']:6,.0f}  recall "
                f"{figures['recall']:.2f}  precision {figures['precision']:.2f}"
            )
            self.result[f"{name}_{how}"] = figures
        return chosen

    # --- the questions ---------------------------------------------------------------------

    def table(self) -> None:
        """The eleven rows of the paper."""
        learn, test = self.data()
        seeds = self.options.seeds
        noisy = self.noisy(learn, *PAPER_NOISE, 0)
        say(f"the eleven rows, labels wrong as in the paper {PAPER_NOISE}, {seeds} seeds;")
        say(f"  {self.size}")
        recipe = self.recipe("complex", {}, 0)
        doubt = self.suspects(noisy, learn.label, recipe, "table-folds")["argmax"]
        place = hash_uniform(test.object.tolist(), seed=0, purpose="bench share")
        share = np.floor(place * seeds).astype(np.int64)
        scores = {k: np.full((seeds, len(test)), np.nan) for k in ROWS}
        done = 0
        mine, of = self.options.part
        for i, (seed, k) in enumerate((seed, k) for seed in range(seeds) for k in ROWS):
            if i % of != mine - 1:
                continue
            whole = (test.label == 1) | (share == seed) | (not self.size.shares)
            if time.perf_counter() - self.began > 60 * self.options.minutes:
                say(f"  time is up: {done} of {seeds} seeds are finished")
                break
            began = time.process_time()
            scores[k][seed] = self.table_row(k, seed, noisy, doubt, test, whole)
            took = time.process_time() - began
            seen = np.isfinite(scores[k][seed])
            fpr = metrics.fpr_at_tpr(scores[k][seed][seen], test.label[seen])
            say(f"  seed {seed} row {k:2d}: FPR at TPR .9 {fpr:.2e} ({took:.0f} s)")
            done += k == len(ROWS)
        if done and of == 1:
            self.tell_table({k: score[:done] for k, score in scores.items()}, test)

    def table_row(
        self,
        k: int,
        seed: int,
        noisy: Samples,
        doubt: np.ndarray,
        test: Samples,
        whole: np.ndarray,
    ) -> np.ndarray:
        """Scores of one training of a row, NaN where it has none."""
        net, what, loss, _ = ROWS[k]
        size = self.size
        score = np.full(len(test), np.nan)
        names, counts = np.unique(noisy.detector, return_counts=True)
        if what == "each sensor":
            recipe = self.recipe(net, loss, seed, steps=size.few)
            # from the middle of the camera to its edge
            for name in names[np.linspace(0, len(names) - 1, size.each).astype(int)]:
                own = noisy.take(np.flatnonzero(noisy.detector == name))
                rows = np.flatnonzero(whole & (test.detector == name))
                score[rows] = self.scored(own, recipe, f"table{seed}-row1-{name}", test.take(rows))
            return score
        used, stays, steps = noisy, None, 0
        if what == "mix":
            rng = np.random.default_rng([seed, 11])
            used = noisy.take(np.sort(rng.permutation(len(noisy))[: round(counts.mean())]))
            steps = size.few
        if what in ("remove", "unlabel"):
            label, stays = treat(noisy.label, doubt, what)
            used = noisy.with_label(label)
        rows = np.flatnonzero(whole)
        recipe = self.recipe(net, loss, seed, steps=steps)
        score[rows] = self.scored(used, recipe, f"table{seed}-row{k}", test.take(rows), stays)
        return score

    def tell_table(self, scores: dict[int, np.ndarray], test: Samples) -> None:
        """Print rows with intervals, and which of the paper's orderings hold."""

        def draws(some: np.ndarray) -> np.ndarray:
            rng = np.random.default_rng(0)
            return metrics.resampled(some, test.label, test.object, rng, draws=100)["fpr_at_0.9"]

        say(
            f"  {'row':30s} FPR at TPR .9, mean   95 %                of seeds               paper"
        )
        drawn = {}
        for k, (net, what, loss, paper) in ROWS.items():
            rates, areas = [], []
            for one in scores[k]:
                seen = np.isfinite(one)
                points = metrics.curve(one[seen], test.label[seen])
                rates.append(float(points.fpr[points.at_tpr(0.9)]))
                areas.append(points.auc())
            drawn[k] = draws(scores[k])
            low, high = np.quantile(drawn[k], [0.025, 0.975])
            terms = ", ".join(f"{name} {value}" for name, value in (loss or {"ce": 1}).items())
            say(
                f"  {f'{k} {net}, {what}; {terms}':44s} {np.mean(rates):.2e}  {low:.1e} to "
                f"{high:.1e}   {min(rates):.1e} to {max(rates):.1e}   AUC {np.mean(areas):.4f}   "
                f"{paper:.1e}"
            )
            self.result[f"row{k}"] = {
                "fpr_at_0.9": float(np.mean(rates)), "interval": [float(low), float(high)],
                "seeds": rates, "auc": float(np.mean(areas)), "paper": paper,
            }  # fmt: skip
        for better, worse, text in ORDERINGS:
            pair = drawn[better], drawn[worse]
            if 1 in (better, worse):
                # a sensor's network scores that sensor alone: both on the same detections
                both = [np.isfinite(scores[k]) for k in (better, worse)]
                pair = tuple(  # type: ignore[assignment]
                    draws(np.where(both[0] & both[1], scores[k], np.nan)) for k in (better, worse)
                )
            sure = float((pair[0] < pair[1]).mean() + 0.5 * (pair[0] == pair[1]).mean())
            verdict = "holds" if sure > 0.975 else "reversed" if sure < 0.025 else "open"
            say(f"  {text} ({better} < {worse}): {verdict}, in {sure:.0%} of the draws")
            self.result[f"{better}<{worse}"] = sure

    def noise(self) -> None:
        """One stage and two, by label noise."""
        learn, test = self.samples("learn"), self.samples("test", parts=1)
        net, seeds = self.options.net, range(self.options.seeds)
        steps = self.size.deep if net == "complex" else self.size.noise
        levels = (0.1,) if self.options.quick else (0.1, 0.05, 0.01)
        ways = ("turned", "stopped") if self.options.quick else WAYS
        for level in levels:
            for seed in seeds:
                say(f"labels wrong in {level:.0%} of each class, seed {seed}")
                noisy = self.noisy(learn, level, level, seed)
                tag = f"noise{100 * level:.0f}-{seed}"
                first = self.recipe(net, {}, seed, steps=steps)
                doubt = self.suspects(noisy, learn.label, first, f"{tag}-folds")
                self.arms(noisy, learn.label, doubt, test, tag, "turned", seed)
                if level == levels[0]:
                    n = self.size.heart[0]
                    rows = np.random.default_rng([seed, 13]).permutation(len(noisy))[:n]
                    rows.sort()
                    sure = {how: those[rows] for how, those in doubt.items()}
                    few = noisy.take(rows), learn.label[rows], sure
                    for way in ways[1:]:
                        self.arms(*few, test, tag, way, seed)
        for way in ways:
            middle = {
                arm: float(
                    np.median(
                        [self.result[f"noise10-{s}-{way}-{arm}"]["fpr_at_0.9"] for s in seeds]
                    )
                )
                for arm in ARMS
            }
            best = min(("remove", "unlabel"), key=lambda arm: middle[arm])
            say(
                f"10 %, {way}: one stage {middle['keep']:.2e}, two stages ({best}) "
                f"{middle[best]:.2e}: {middle['keep'] / max(middle[best], 1e-9):.1f} times lower"
            )
            self.result[f"fpr_one_stage_noise10_{way}"] = middle["keep"]
            self.result[f"fpr_two_stage_noise10_{way}"] = middle[best]
        for stages in ("one", "two"):
            key = f"fpr_{stages}_stage_noise10"
            self.result[key] = self.result[f"{key}_stopped"]  # as published

    def arms(
        self,
        noisy: Samples,
        truth: np.ndarray,
        doubt: dict[str, np.ndarray],
        test: Samples,
        tag: str,
        way: str,
        seed: int,
    ) -> None:
        """Suspects by argmax kept, removed, unlabelled, flipped.

        Beside them, those of the confident joint removed, and those of a perfect first stage.
        """
        net = self.options.net
        others = {"confident": doubt["confident"], "oracle": noisy.label != truth}
        for arm in (*ARMS, *others):
            chosen = others.get(arm, doubt["argmax"])
            label, stays = treat(noisy.label, chosen, "remove" if arm in others else arm)
            loss = {"ce": 0.6, "lds": 0.4} if arm == "unlabel" else {}
            if way == "turned":
                steps = self.size.deep if net == "complex" else self.size.noise
                recipe = self.recipe(net, loss, seed, steps=steps)
            else:
                steps = self.size.heart[1]
                recipe = self.recipe(net, loss, seed, steps=steps)
                recipe["data"]["augment"] = False
                # the last weights, or those that did best on noisy stamps
                every = steps if way == "heart" else -(-steps // 10)
                recipe["train"]["validate_every"] = every
                if net == "simple":
                    recipe["model"]["dropout"] = 0.0
            used = noisy.with_label(label)
            score = self.scored(used, recipe, f"{tag}-{way}-{arm}", test, stays)
            self.result[f"{tag}-{way}-{arm}"] = self.row(f"{way}: {arm}", score, test)

    def peers(self) -> None:
        """Ours, VGG6 and a random forest on the same samples."""
        learn, test = self.samples("learn"), self.samples("test", parts=1)
        say(f"peers on the same {len(learn):,} samples, true labels")
        # both networks as wide as they were published, and for as many steps
        recipe = self.recipe("simple", {}, 0, width=32)
        scores = {"ours": self.scored(learn, recipe, "peer-simple", test)}
        self.result["ours"] = self.row("ours: simple", scores["ours"], test)
        self.result["fpr_ours"] = self.result["ours"]["fpr_at_0.9"]
        turned_too = self.scored(learn, recipe, "peer-simple", test, turns=True)
        self.result["ours_turned"] = self.row("ours: eight orientations", turned_too, test)
        frames = self.samples("learn", "frame_norm"), self.samples("test", "frame_norm", 1)
        recipe = self.recipe("vgg6", {}, 0)
        recipe["data"]["normalise"] = "frame_norm"
        scores["vgg6"] = self.scored(frames[0], recipe, "peer-vgg6", frames[1])
        self.result["vgg6"] = self.row("VGG6 (frame norm)", scores["vgg6"], test)
        self.result["fpr_vgg6"] = self.result["vgg6"]["fpr_at_0.9"]
        turned_too = self.scored(frames[0], recipe, "peer-vgg6", frames[1], turns=True)
        self.result["vgg6_turned"] = self.row("VGG6: eight orientations", turned_too, test)
        scores["forest"] = self.forest(learn, test)
        drawn = {
            name: metrics.resampled(score, test.label, test.object, np.random.default_rng(0))
            for name, score in scores.items()
        }
        for name in ("vgg6", "forest"):
            for key in ("fpr_at_0.9", "fpr_at_0.983", "auc"):
                ours, theirs = drawn["ours"][key], drawn[name][key]
                better = float(((ours > theirs) if key == "auc" else (ours < theirs)).mean())
                say(f"  ours better than {name} by {key} in {better:.0%} of the draws")
                self.result[f"ours_beats_{name}_{key}"] = better

    def forest(self, learn: Samples, test: Samples) -> np.ndarray:
        """Scores of the random forest."""
        parts = split(learn, Draw(test=0.0))

        def make() -> np.ndarray:
            began = time.process_time()
            table = {}
            for name, n in (("learn", 0), ("test", 1)):
                stamps, catalog = self.raw(name, n)
                usable = np.flatnonzero(faults(stamps.pixels, SIDE) == "")
                wanted = usable[parts == 0] if name == "learn" else usable
                table[name] = features(stamps.take(wanted), catalog)
            model = Forest.fit(table["learn"], learn.label[parts == 0], seed=0)
            score = model.score(table["test"])
            say(f"  (features and forest in {time.process_time() - began:.0f} s)")
            return score

        key = [hashlib.blake2b(a.tobytes()).hexdigest() for a in (learn.id, parts, test.id)]
        score = self.kept("peer-forest", key, make)
        self.result["forest"] = self.row("random forest, 38 numbers", score, test)
        self.result["fpr_forest"] = self.result["forest"]["fpr_at_0.9"]
        return score

    def speed(self) -> None:
        """The engine beside the layers, and the cascade."""
        learn, test = self.data()
        say("speed, one thread")
        torch.set_num_threads(1)
        deep = self.train(
            learn,
            {**self.recipe("complex", {}, 0, width=32), "train": {
                "steps": 20 if self.options.quick else 400, "batch": 32, "warm_up": 10,
                "schedule": "cosine", "clip": 1.0, "validate_every": 20 if self.options.quick
                else 100}},
            "speed-complex",
        )  # fmt: skip
        fast = self.train(learn, self.recipe("simple", {}, 0, width=32), "speed-screen")
        plain = CLASSIFIERS["complex"]()
        plain.load_state_dict(deep.state_dict())
        plain = plain.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        n = 768 if self.options.quick else 4096
        x = np.ascontiguousarray(test.pixels[:n])

        def loop(pixels: np.ndarray) -> np.ndarray:
            out = []
            with torch.inference_mode():
                for first in range(0, len(pixels), 256):
                    z = plain(torch.from_numpy(pixels[first : first + 256]))
                    out.append((z[:, 1] - z[:, 0]).double().numpy())
            return np.concatenate(out)

        ours = engine(deep)
        ways = {
            "eager": loop, "engine": ours, "channels last": lambda p: scores_of(deep, p),
            "simple": engine(fast),
        }  # fmt: skip
        scores = {name: run(x) for name, run in ways.items()}
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(3):  # in turns: what else the machine does hits them all
            for name, run in ways.items():
                began = time.thread_time()
                run(x)
                took[name].append(time.thread_time() - began)
        rates = {name: n / min(times) for name, times in took.items()}
        for name, rate in rates.items():
            say(f"  {name:14s} {rate:8.0f} stamps/s and core")
        quotient = float(np.median(np.divide(took["eager"], took["engine"])))
        at_best = rates["engine"] / rates["eager"]
        say(f"  engine {quotient:.2f} times eager (median of turns; best over best {at_best:.2f})")
        square = torch.randn(1024, 1024)
        torch.mm(square, square)
        best = np.inf
        for _ in range(5):
            began = time.thread_time()
            torch.mm(square, square)
            best = min(best, time.thread_time() - began)
        peak = 1024**3 / best
        say(
            f"  a library multiplies and adds {peak / 1e9:.1f} thousand million times a second, "
            f"at which {peak / 107e6:.0f} stamps/s and core is the most of direct convolution"
        )
        label = test.label[:n]
        drift = abs(metrics.auc(scores["eager"], label) - metrics.auc(scores["engine"], label))
        moved = float(np.abs(scores["eager"] - scores["engine"]).max())
        say(f"  AUC differs by {drift:.1e}, a score by {moved:.1e} at most")
        assert drift < 1e-4, f"the engine changes the AUC by {drift}"
        self.result |= {
            "score_vs_eager": quotient,
            "score_vs_eager_best": at_best,
            "auc_diff": drift,
            "score_diff": moved,
            "stamps_per_s_core": rates,
            "sgemm_per_s": peak,
        }
        self.cascade(deep, fast)

    def cascade(self, deep: Any, fast: Any) -> None:
        """A night on disk, screened and decided."""
        learn, test = self.data()
        valid = learn.take(np.flatnonzero(split(learn, Draw(test=0.0)) == 1))
        first, score, label = engine(fast)(valid.pixels), engine(deep)(valid.pixels), valid.label
        at = metrics.best_threshold(score, label, prevalence=1e-3)["threshold"]
        pass_at = screen_threshold(first, score, label, at)
        judges = [Judge(engine(net), "asinh", SIDE, name) for net, name in (
            (deep, "deep"), (fast, "fast"))]  # fmt: skip
        survey = self.folder / "night"
        stamps, catalog = self.test_raw
        n = min(len(stamps), 6000 if self.options.quick else len(stamps))
        rows = np.arange(n)
        write_survey(survey, stamps.take(rows), catalog.take(rows), "bench")
        for name, (judge, screen, point) in {
            "cascade": (judges[0], judges[1], pass_at),
            "simple alone": (judges[1], None, -np.inf),
        }.items():
            began, used = time.perf_counter(), time.process_time()
            counts = score_survey(
                survey, self.folder / f"scores-{name}", judge, screen=screen, pass_at=point,
                workers=2,
            )  # fmt: skip
            rate = counts["received"] / (time.perf_counter() - began)
            core = counts["received"] / (time.process_time() - used)
            say(
                f"  {name}: {rate:,.0f} stamps/s on 2 threads from disk to disk, {core:,.0f} a "
                f"second of one core; {counts}"
            )
            self.result[f"{name.split()[0]}_stamps_per_core_s"] = core
            key = "cascade_stamps_per_s" if name == "cascade" else "simple_stamps_per_s"
            self.result[key] = rate
        loss = screen_loss(
            engine(fast)(test.pixels), engine(deep)(test.pixels), test.label, at, pass_at
        )
        say(
            f"  of {loss['reals']:,} reals above the threshold the screen loses {loss['lost']}, "
            f"surely less than {loss['at_most']:.2%}"
        )
        self.result["cascade_lost"] = loss

    def real(self) -> None:
        """Published figures, and real stamps."""
        folder = Path(self.options.data)
        with np.load(folder / "scores" / "deephits_test_predictions.npz") as file:
            for name in ("cnn", "rf"):
                points = metrics.curve(file[f"{name}_p"], file[f"{name}_label"])
                fnr = 1 - points.tpr[points.at_fpr(0.01)]
                say(f"Deep-HiTS {name}: AUC {points.auc():.5f}, FNR {fnr:.2%} at FPR 1 %")
        ztf = self.triplets(folder / "stamps" / "ztf_triplets.parquet")
        lsst = self.triplets(folder / "stamps" / "lsst_triplets.parquet")
        kinds = np.array([str(t.columns["suggested_label"]) for t in ztf])
        # light that is new, and light of something the reference has already
        reference = normalise(np.stack([t.pixels for t in ztf]), "robust", side=SIDE)[:, 1]
        has_source = reference[:, 13:16, 13:16].mean((1, 2)) > 1
        is_turned = np.array([str(t.columns["cand_isdiffpos"]) in "f0" for t in ztf])
        likely = np.array([float(t.columns.get("rel") or 0.0) for t in lsst])
        size, n = self.size, self.size.reals + self.size.bogus

        def simulated(seed: int, name: str, **options: Any) -> Samples:
            rng = np.random.default_rng(seed)
            make = partial(simulate_stamps, size.reals, size.bogus, rng, name=name, **options)
            return self.made(f"real-{seed}", make)

        wide = make_detectors(8, seed=3, focus=3.5)
        learn = {
            "stars": simulated(21, "a"),
            "variables": simulated(22, "b", variables=0.5),
            "fading": simulated(23, "c", variables=0.5, negative=True),
            "frames": self.made("real-frames", lambda: self.real_frames(folder / "frames")),
            "wide": simulated(
                24, "d", variables=0.3, negative=True, detectors=wide, magnitudes=(12.1, 17.3)
            ),
        }
        learn["all five"] = join(list(learn.values()))
        say(f"learnt from {n:,} simulated stamps, {len(learn['frames']):,} of real frames, joined")
        nights = {"ztf": (ztf, "group"), "lsst": (lsst, "cand_visit")}
        stamps = {name: self.night(*night, name) for name, night in nights.items()}
        arms: list[tuple[str, str, dict[str, Any]]] = [
            *((name, "", {}) for name in ("stars", "variables", "fading")),
            ("fading", "ztf", {"mmd": 0.3}),
            ("fading", "ztf", {"mmd": 0.3, "match": "whole"}),
            *((name, "", {}) for name in ("frames", "wide", "all five")),
            ("all five", "lsst", {"mmd": 0.3}),
        ]
        for name, to, loss in arms:
            scores = {}
            for night, (one, half) in stamps.items():
                if to in ("", night):
                    scores[night] = self.adapted(learn[name], name, one, half, to, loss)
            title = name + (f", adapted to {to} {loss}" if to else "")
            if "lsst" in scores:
                score, high = scores["lsst"], (likely > 0.5).astype(int)
                auc = metrics.auc(score, high)
                kept = [
                    (int((score[high == k] >= 0).sum()), int((high == k).sum())) for k in (1, 0)
                ]
                low, top = _interval(score, high, stamps["lsst"][0].id)
                say(
                    f"  {title}: LSST by reliability AUC {auc:.3f} ({low:.3f} to {top:.3f}); kept "
                    f"{kept[0][0]} of {kept[0][1]} above .5, {kept[1][0]} of {kept[1][1]} below"
                )
                self.result[f"lsst_{title}"] = {"auc": auc, "interval": [low, top], "kept": kept}
            if "ztf" not in scores:
                continue
            score = scores["ztf"]
            cuts = {kind: kinds == kind for kind in np.unique(kinds)}
            braai = cuts.pop("real_braai>0.9")
            cuts |= {
                "braai>0.9, new": braai & ~has_source,
                "braai>0.9, brighter": braai & has_source & ~is_turned,
                "braai>0.9, fainter": braai & has_source & is_turned,
            }
            known = cuts["real_asteroid"] | cuts["bogus"]
            truth = cuts["real_asteroid"][known].astype(int)
            auc = metrics.auc(score[known], truth)
            low, top = _interval(score[known], truth, stamps["ztf"][0].exposure[known])
            found = {cut: (int((score[rows] >= 0).sum()), int(rows.sum()))
                     for cut, rows in cuts.items()}  # fmt: skip
            say(f"  {title}: asteroids against bogus AUC {auc:.4f} ({low:.4f} to {top:.4f}); kept "
                + ", ".join(f"{cut} {k} of {m}" for cut, (k, m) in found.items()))  # fmt: skip
            self.result[f"ztf_{title}"] = {"auc": auc, "interval": [low, top], **found}
            if self.options.gallery:
                order = np.argsort(-score)
                wrong = [i for i in order if kinds[i] == "bogus"][:12]
                wrong += [i for i in order[::-1] if kinds[i].startswith("real")][:24]
                truth = np.char.startswith(kinds[wrong], "real").astype(np.int64)
                page = Path(self.options.gallery) / f"{len(self.result)}-{name}.html"
                gallery(
                    page, np.array([ztf[i].id for i in wrong]),
                    np.stack([ztf[i].pixels for i in wrong]),
                    truth, score[wrong],
                    suspects.doubt(score[wrong], truth),
                    notes=[str(kinds[i]) for i in wrong], title=f"ZTF, learnt from {title}",
                )  # fmt: skip

    def made(self, name: str, make: Callable[[], tuple[Stamps, Catalog]]) -> Samples:
        """Samples of what was simulated, made once and kept."""
        file = self.folder / f"{name}.npz"
        names = ("id", "pixels", "label", "detector", "exposure", "object")
        if not file.exists():
            samples = _samples(*make())
            _write(file, {key: getattr(samples, key) for key in names})
        found = _read(file)
        return Samples(*(found[key] for key in names))

    def night(self, taken: list[Triplet], column: str, name: str) -> tuple[Samples, np.ndarray]:
        """Unlabelled samples of real stamps, and in which half of the nights each is."""
        night = np.array([str(t.columns[column]) for t in taken])
        names = np.array([f"{name}{i}" for i in range(len(taken))])
        pixels = normalise(np.stack([t.pixels for t in taken]), "asinh", side=SIDE)
        unknown = np.full(len(taken), -1)
        samples = Samples(names, pixels, unknown, np.full(len(taken), name), night, names)
        return samples, divide(names, night, [0.5, 0.5])

    def adapted(
        self,
        learn: Samples,
        name: str,
        night: Samples,
        half: np.ndarray,
        to: str,
        loss: dict[str, Any],
    ) -> np.ndarray:
        """Scores above the threshold of validation stamps; no stamp by a network adapted to it."""
        score = np.full(len(night), np.nan)
        for k in (0, 1) if to else (2,):
            target = night.take(np.flatnonzero(half == k)) if to else None
            way = f"-{to}{k}-{loss.get('match', 'class')}" if to else ""
            recipe = self.recipe("simple", loss, 0, steps=300)
            model = self.train(learn, recipe, f"real-{name}{way}", target=target)
            look = learn.take(np.flatnonzero(split(learn, Draw(test=0.0)) == 1))
            at = metrics.best_threshold(scores_of(model, look.pixels), look.label)["threshold"]
            rows = half != k
            score[rows] = scores_of(model, night.pixels[rows]) - at
        return score

    def shift(self) -> None:
        """From one camera to another."""
        size, sets = self.size, {}
        cameras = {
            "coarse": make_detectors(size.sensors),
            "fine": make_detectors(size.sensors, seed=1, focus=1.7),
        }
        for i, (camera, detectors) in enumerate(cameras.items()):
            bright = 2.5 * np.log10(1.7) * (camera == "fine")
            for j, (part, reals, bogus) in enumerate(
                (("learn", size.reals, size.bogus), ("night", 300, 5700),
                 ("test", size.test_reals, size.test_bogus))
            ):  # fmt: skip
                make = partial(
                    simulate_stamps, reals, bogus, np.random.default_rng([31, i, j]),
                    detectors=detectors, observed=part != "learn",
                    magnitudes=(13.5 - bright, 18.7 - bright), name=f"{camera}-{part}",
                )  # fmt: skip
                sets[camera, part] = self.made(f"shift-{camera}-{part}", make)
        ways: dict[str, dict[str, Any]] = {
            "as it is": {}, "adapted": {"mmd": 0.3}, "adapted as a whole": {"mmd": 0.3, "match":
            "whole"}, "with labels": {},
        }  # fmt: skip
        for source, other in (("fine", "coarse"), ("coarse", "fine")):
            test = sets[other, "test"]
            for way, loss in ways.items():
                rates = []
                for seed in range(self.options.seeds):
                    camera = other if way == "with labels" else source
                    model = self.train(
                        sets[camera, "learn"], self.recipe("simple", loss, seed),
                        f"shift-{camera}-{seed}" + f"-{way}" * bool(loss),
                        target=sets[other, "night"] if loss else None,
                    )  # fmt: skip
                    score = scores_of(model, test.pixels, batch=256)
                    self.result[f"{source}>{other}, {way}, {seed}"] = self.row(
                        f"{source} to {other}, {way}", score, test
                    )
                    rates.append(metrics.fpr_at_tpr(score, test.label))
                say(f"  {source} to {other}, {way}: mean FPR at TPR .9 {np.mean(rates):.2e}")

    def triplets(self, path: Path) -> list[Triplet]:
        """Stamps of alerts that can be scored."""
        found = list(read(path, size=63 if "ztf" in path.name else SIDE))
        taken = [t for t in found if isinstance(t, Triplet)]
        for t in taken:  # as ZTF sends them and alerts are read: bright in the difference
            if float(t.columns.get("cand_psfFlux") or 1.0) < 0:
                t.pixels[2] *= -1
        pixels = [t.pixels[None] for t in taken]
        good = [bool(faults(p, SIDE)[0] == "") for p in pixels]
        say(f"{path.stem}: {len(found)} read, {len(taken)} taken, {sum(good)} scored")
        return [t for t, fine in zip(taken, good) if fine]

    def real_frames(self, folder: Path) -> tuple[Stamps, Catalog]:
        """Detections on real frames, with artificial stars as the reals."""
        work = self.folder / "frames"
        work.mkdir(parents=True, exist_ok=True)
        rows = ["new,reference,detector"]
        for place in sorted(folder.iterdir()):
            files = sorted(place.iterdir())
            for i, new in enumerate(files):
                for step in range(1, min(4, len(files))):
                    other = files[(i + step) % len(files)]
                    rows.append(f"{new.resolve()},{other.resolve()},{place.name}")
        (work / "pairs.csv").write_text("\n".join(rows) + "\n")
        stored, refused = stamps_of_folder(work, work / "survey", embedded=150)
        parts = list(iterate_objects(work / "survey", Stamps))
        say(f"{len(rows) - 1} pairs of real frames, {refused} refused now, {stored} stored now")
        stamps = [stamps for _, _, stamps in parts]
        columns = {"is_real": np.concatenate([c.columns["label"] == "real" for _, c, _ in parts])}
        whole = Stamps(*(
            np.concatenate([getattr(s, name) for s in stamps])
            for name in ("id", "pixels", "detector", "exposure", "object")
        ))  # fmt: skip
        unknown = np.full(len(whole), np.nan)
        return whole, Catalog(whole.id, whole.object, unknown, unknown.copy(), columns)


def _interval(score: np.ndarray, label: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """95 % interval of the AUC by whole nights or stamps."""
    drawn = metrics.resampled(score, label, group, np.random.default_rng(0), draws=400)["auc"]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _samples(stamps: Stamps, catalog: Catalog) -> Samples:
    """Samples of raw stamps, those that can be used."""
    rows = np.flatnonzero(faults(stamps.pixels, SIDE) == "")
    stamps, catalog = stamps.take(rows), catalog.take(rows)
    return Samples(
        stamps.id,
        normalise(stamps.pixels, "asinh", side=SIDE),
        catalog.columns["is_real"].astype(np.int64),
        stamps.detector,
        stamps.exposure,
        stamps.object,
        catalog.columns,
    )


def _write(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays whole or not at all."""

    def save(path: Path) -> None:
        with path.open("wb") as part:
            np.savez(part, **arrays)  # type: ignore[arg-type]

    write_atomic(file, save)


def _read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as found:
        return {key: found[key] for key in found}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--scale", default="", choices=["", *SCALES])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--net", default="simple", help="network of the noise experiment")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--keep", default="", help="folder to keep models in, to go on later")
    parser.add_argument("--minutes", type=float, default=1e9, help="of the table, then stop")
    parser.add_argument(
        "--part", default=(1, 1), type=lambda text: tuple(map(int, text.split("/"))),
        help="1/2 and 2/2: two processes that share --keep train every other row of the table; "
        "one without it prints it in the end",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gallery", default="", help="folder for pages of real stamps")
    options = parser.parse_args()
    options.scale = options.scale or ("quick" if options.quick else "small")
    began = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options, Path(options.keep or temporary))
        parts = options.only.split(",") if options.only else ["speed", "noise", "peers", "table"]
        if not (options.only or options.quick) and Path(options.data).is_dir():
            parts.append("real")
        if options.quick and not options.only:
            parts.remove("table")
        for part in parts:
            getattr(bench, part)()
    bench.result["seconds"] = time.perf_counter() - began
    print(json.dumps(bench.result))


if __name__ == "__main__":
    main()
