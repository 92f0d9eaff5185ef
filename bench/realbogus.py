"""How well and how fast reals are told from bogus: the paper's rows, label noise, peers, speed.

All on a simulated survey whose truth is known: embedded stars to learn from, stars seen through
the true point-spread function of their place to test on. Every arm sees the same, noisy, labels;
splits share no object and no exposure. Intervals: bootstrap by object.

* speed: the deep network's engine against its own layers in a plain float32 loop (batch 256), one
  thread of processor time each, on the same stamps; the cascade on a survey on disk, wall time.
* table: the eleven rows of Takahashi et al. 2022, scaled to ``--scale``.
* noise: wrong labels in 1, 5 and 10 % of each class; recall and precision of the suspects; FPR at
  TPR 0.9 of suspects kept, removed, unlabelled, flipped.
* peers: braai's VGG6 and a random forest on autoScan's 38 numbers, on the same samples.
* real: published Deep-HiTS figures, and ZTF stamps scored by what was learnt in simulation.

    python bench/realbogus.py [--quick] [--only speed,noise] [--scale small|medium|paper]
        [--seeds N] [--data DIR] [--keep DIR] [--device cpu]
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyvec.io.stamps import Triplet, read
from skyvec.models.stamps import CLASSIFIERS
from skyvec.prep.stamps import normalise
from skyvec.realbogus import metrics, suspects
from skyvec.realbogus.fast import engine
from skyvec.realbogus.forest import Forest, features
from skyvec.realbogus.samples import faults, write_survey
from skyvec.realbogus.score import Judge, score_survey, screen_threshold
from skyvec.realbogus.train import Draw, Samples, complete, load, scores_of, split, train_on, treat
from skyvec.schema import Catalog, Stamps
from skyvec.sim.stamps import flip_labels, simulate_stamps

SIDE = 29


@dataclass(frozen=True)
class Scale:
    """Sizes of an experiment: stamps, network widths, steps."""

    reals: int
    bogus: int
    test_reals: int
    test_bogus: int
    simple: int
    complex: int
    steps: int
    batch: int


SCALES = {
    "tiny": Scale(2500, 3500, 500, 5000, 16, 4, 300, 64),
    "small": Scale(4000, 6000, 2000, 20_000, 16, 4, 400, 64),
    "medium": Scale(20_000, 30_000, 3000, 100_000, 32, 16, 4000, 128),
    "paper": Scale(1_200_000, 2_000_000, 3000, 250_000, 32, 32, 60_000, 256),
}
ROWS: dict[int, tuple[str, str, dict[str, float]]] = {
    1: ("simple", "each sensor", {}),
    2: ("simple", "mix", {}),
    3: ("simple", "all", {}),
    4: ("complex", "all", {}),
    5: ("complex", "remove", {}),
    6: ("complex", "all", {"ce": 0.3, "ech": 0.7}),
    7: ("complex", "remove", {"ce": 0.4, "ech": 0.6}),
    8: ("complex", "all", {"ce": 0.4, "lds": 0.6}),
    9: ("complex", "unlabel", {"ce": 0.6, "lds": 0.4}),
    10: ("complex", "all", {"ce": 0.3, "ech": 0.3, "lds": 0.4}),
    11: ("complex", "unlabel", {"ce": 0.9, "ech": 0.05, "lds": 0.05}),
}
ARMS = ("keep", "remove", "unlabel", "flip")
PAPER_NOISE = 0.006, 0.01
"""Wrong labels the authors estimate by eye: of bogus, of reals."""


def say(*parts: object) -> None:
    print(*parts, flush=True)


def samples_of(stamps: Stamps, catalog: Catalog, scale: str) -> Samples:
    usable = np.flatnonzero(faults(stamps.pixels, SIDE) == "")
    stamps, catalog = stamps.take(usable), catalog.take(usable)
    return Samples(
        stamps.id,
        normalise(stamps.pixels, scale, side=SIDE),
        catalog.columns["is_real"].astype(np.int64),
        stamps.detector,
        stamps.exposure,
        stamps.object,
        catalog.columns,
    )


class Bench:
    """The data of a run, simulated once, and what was measured."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.size = SCALES[options.scale]
        self.result: dict[str, Any] = {"scale": options.scale}
        size, rng = self.size, np.random.default_rng(1)
        began = time.perf_counter()
        self.learn_raw = simulate_stamps(size.reals, size.bogus, rng, name="learn")
        self.test_raw = simulate_stamps(
            size.test_reals, size.test_bogus, np.random.default_rng(2), observed=True, name="test"
        )
        say(f"simulated {size} in {time.perf_counter() - began:.0f} s")
        self._ready: dict[str, tuple[Samples, Samples]] = {}

    def data(self, scale: str = "asinh") -> tuple[Samples, Samples]:
        """Samples to learn from and to test on, normalised."""
        if scale not in self._ready:
            self._ready[scale] = (
                samples_of(*self.learn_raw, scale),
                samples_of(*self.test_raw, scale),
            )
        return self._ready[scale]

    def recipe(self, net: str, loss: dict[str, float], seed: int, **model: Any) -> dict[str, Any]:
        """The recipe of a network of this scale."""
        size = self.size
        widths = {"simple": size.simple, "complex": size.complex, "vgg6": 16}
        return {
            "data": {"normalise": "asinh", "test": 0.0, "seed": seed},
            "model": {"name": net, "width": widths[net], **model},
            "loss": loss,
            "train": {
                "steps": size.steps, "batch": size.batch, "schedule": "cosine", "clip": 1.0,
                "warm_up": min(50, size.steps // 10), "validate_every": max(1, size.steps // 8),
                "seed": seed,
            },
        }  # fmt: skip

    def train(
        self, learn: Samples, recipe: dict[str, Any], name: str, stays: np.ndarray | None = None
    ) -> Any:
        """Train, or go on with it, and give the network."""
        parts = split(learn, Draw(**complete(recipe)["data"]))
        if stays is not None:
            parts = np.where(stays, parts, -1)
        made = train_on(learn, recipe, self.folder / name, parts=parts, device=self.options.device)
        return load(made)[0]

    def row(self, name: str, score: np.ndarray, test: Samples) -> dict[str, Any]:
        """Measure scores, and print a row."""
        found = metrics.summary(
            score, test.label, test.object, np.random.default_rng(0), draws=100
        )
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

    def suspects(self, noisy: Samples, truth: np.ndarray, net: str, seed: int, name: str) -> Any:
        """First stage: suspects by argmax; those of every selector are compared with the truth."""
        score, fold = suspects.out_of_fold(noisy, self.recipe(net, {}, seed), self.folder / name)
        for how in suspects.SELECTORS:
            chosen = suspects.suspects(score, noisy.label, how, fold=fold)
            figures = suspects.found(chosen, noisy.label != truth)
            say(
                f"  suspects by {how:10s} {figures['suspects']:6,.0f}  recall "
                f"{figures['recall']:.2f}  precision {figures['precision']:.2f}"
            )
            self.result[f"{name}_{how}"] = figures
        return suspects.suspects(score, noisy.label)

    # --- the questions ---------------------------------------------------------------------

    def table(self) -> None:
        """The eleven rows of the paper."""
        learn, test = self.data()
        for seed in range(self.options.seeds):
            say(f"the eleven rows, seed {seed}, labels wrong as in the paper {PAPER_NOISE}")
            noisy = self.noisy(learn, *PAPER_NOISE, seed)
            doubt = self.suspects(noisy, learn.label, "complex", seed, f"table{seed}-folds")
            names, counts = np.unique(learn.detector, return_counts=True)
            for k, (net, what, loss) in ROWS.items():
                recipe = self.recipe(net, loss, seed)
                if what == "each sensor":
                    # the sensors with most stamps stand for all: a sensor of few cannot be split
                    score = np.full(len(test), np.nan)
                    for name in names[np.argsort(-counts)][:3]:
                        one = noisy.take(np.flatnonzero(noisy.detector == name))
                        here = test.detector == name
                        net_ = self.train(one, recipe, f"table{seed}-row1-{name}")
                        score[here] = scores_of(net_, test.pixels[here])
                    seen = np.isfinite(score)
                    found = self.row(
                        "1 simple, each of 3 sensors",
                        score[seen],
                        test.take(np.flatnonzero(seen)),
                    )
                else:
                    used, stays = noisy, None
                    if what == "mix":
                        used = noisy.take(np.arange(int(np.sort(counts)[-3:].mean())))
                    if what in ("remove", "unlabel"):
                        label, stays = treat(noisy.label, doubt, what)
                        used = noisy.with_label(label)
                    model = self.train(used, recipe, f"table{seed}-row{k}", stays)
                    found = self.row(
                        f"{k} {net}, {what}, {loss or {'ce': 1}}",
                        scores_of(model, test.pixels),
                        test,
                    )
                self.result[f"row{k}_seed{seed}"] = found

    def noise(self) -> None:
        """One stage and two, by label noise."""
        learn, test = self.data()
        levels = (0.1,) if self.options.quick else (0.01, 0.05, 0.1)
        for level in levels:
            for seed in range(self.options.seeds):
                say(f"labels wrong in {level:.0%} of each class, seed {seed}")
                noisy = self.noisy(learn, level, level, seed)
                tag = f"noise{100 * level:.0f}-{seed}"
                doubt = self.suspects(noisy, learn.label, self.options.net, seed, f"{tag}-folds")
                for arm in ARMS:
                    label, stays = treat(noisy.label, doubt, arm)
                    loss = {"ce": 0.6, "lds": 0.4} if arm == "unlabel" else {}
                    model = self.train(
                        noisy.with_label(label),
                        self.recipe(self.options.net, loss, seed),
                        f"{tag}-{arm}",
                        stays,
                    )
                    score = scores_of(model, test.pixels)
                    self.result[f"{tag}-{arm}"] = self.row(arm, score, test)
        arms = {
            arm: np.median(
                [
                    self.result[f"noise10-{s}-{arm}"]["fpr_at_0.9"]
                    for s in range(self.options.seeds)
                ]
            )
            for arm in ARMS
        }
        self.result["fpr_one_stage_noise10"] = float(arms["keep"])
        self.result["fpr_two_stage_noise10"] = float(min(arms["remove"], arms["unlabel"]))

    def peers(self) -> None:
        """Ours, VGG6 and a random forest on the same samples."""
        learn, test = self.data()
        say("peers on the same samples, true labels")
        ours = self.train(learn, self.recipe("simple", {}, 0), "peer-ours")
        self.result["ours"] = self.row("ours: simple", scores_of(ours, test.pixels), test)
        self.result["fpr_ours"] = self.result["ours"]["fpr_at_0.9"]
        frames = self.data("frame_norm")
        recipe = self.recipe("vgg6", {}, 0)
        recipe["data"]["normalise"] = "frame_norm"
        vgg = self.train(frames[0], recipe, "peer-vgg6")
        self.result["vgg6"] = self.row(
            "VGG6 (frame norm)", scores_of(vgg, frames[1].pixels), frames[1]
        )
        self.result["fpr_vgg6"] = self.result["vgg6"]["fpr_at_0.9"]
        self.forest(learn, test)

    def forest(self, learn: Samples, test: Samples) -> None:
        """The random forest."""
        began = time.perf_counter()
        parts = split(learn, Draw(test=0.0))
        table = {
            name: features(stamps.take(np.flatnonzero(faults(stamps.pixels, SIDE) == "")), catalog)
            for name, (stamps, catalog) in {
                "learn": self.learn_raw, "test": self.test_raw
            }.items()
        }  # fmt: skip
        model = Forest.fit(table["learn"][parts == 0], learn.label[parts == 0], seed=0)
        self.result["forest"] = self.row(
            "random forest, 38 numbers", model.score(table["test"]), test
        )
        self.result["fpr_forest"] = self.result["forest"]["fpr_at_0.9"]
        say(f"  (features and forest in {time.perf_counter() - began:.0f} s)")

    def speed(self) -> None:
        """The engine beside the layers, and the cascade."""
        learn, test = self.data()
        say("speed, one thread")
        torch.set_num_threads(1)
        deep = self.train(
            learn,
            {**self.recipe("complex", {}, 0, width=32), "train": {
                "steps": 40 if self.options.quick else 400, "batch": 32, "warm_up": 10,
                "schedule": "cosine", "clip": 1.0, "validate_every": 20 if self.options.quick
                else 100}},
            "speed-complex",
        )  # fmt: skip
        fast = self.train(learn, self.recipe("simple", {}, 0, width=32), "speed-screen")
        plain = CLASSIFIERS["complex"]()
        plain.load_state_dict(deep.state_dict())
        plain = plain.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        n = 1024 if self.options.quick else 4096
        x = np.ascontiguousarray(test.pixels[:n])

        def loop(pixels: np.ndarray) -> np.ndarray:
            out = []
            with torch.inference_mode():
                for first in range(0, len(pixels), 256):
                    z = plain(torch.from_numpy(pixels[first : first + 256]))
                    out.append((z[:, 1] - z[:, 0]).double().numpy())
            return np.concatenate(out)

        ours = engine(deep)
        rates, scores = {}, {}
        for name, run in {"eager": loop, "engine": ours, "channels last": lambda p: scores_of(
            deep, p), "simple": engine(fast)}.items():  # fmt: skip
            run(x[:256])
            best = np.inf
            for _ in range(3):
                began = time.thread_time()
                scores[name] = run(x)
                best = min(best, time.thread_time() - began)
            rates[name] = n / best
            say(f"  {name:14s} {rates[name]:8.0f} stamps/s and core")
        label = test.label[:n]
        drift = abs(metrics.auc(scores["eager"], label) - metrics.auc(scores["engine"], label))
        moved = float(np.abs(scores["eager"] - scores["engine"]).max())
        say(f"  AUC differs by {drift:.1e}, a score by {moved:.1e} at most")
        assert drift < 1e-4, f"the engine changes the AUC by {drift}"
        self.result |= {
            "score_vs_eager": rates["engine"] / rates["eager"],
            "auc_diff": drift,
            "score_diff": moved,
            "stamps_per_s_core": rates,
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
        wanted = (test.label == 1) & (engine(deep)(test.pixels) >= at)
        lost = float((engine(fast)(test.pixels[wanted]) < pass_at).mean()) if wanted.any() else 0.0
        say(f"  of {wanted.sum():,} reals above the threshold the screen loses {lost:.2%}")
        self.result["cascade_lost"] = lost

    def real(self) -> None:
        """Published figures, and real stamps."""
        folder = Path(self.options.data)
        with np.load(folder / "scores" / "deephits_test_predictions.npz") as file:
            for name in ("cnn", "rf"):
                points = metrics.curve(file[f"{name}_p"], file[f"{name}_label"])
                fnr = 1 - points.tpr[points.at_fpr(0.01)]
                say(f"Deep-HiTS {name}: AUC {points.auc():.5f}, FNR {fnr:.2%} at FPR 1 %")
        learn, _ = self.data()
        found = list(read(folder / "stamps" / "ztf_triplets.parquet", size=63))
        triplets = [t for t in found if isinstance(t, Triplet)]
        pixels = np.stack([t.pixels for t in triplets])
        kinds = np.array([str(t.columns["suggested_label"]) for t in triplets])
        good = faults(pixels, SIDE) == ""
        say(f"ZTF: {len(found)} read, {len(triplets)} taken, {good.sum()} scored")
        pixels, kinds = pixels[good], kinds[good]
        model = self.train(learn, self.recipe("simple", {}, 0), "peer-ours")
        score = scores_of(model, normalise(pixels, "asinh", side=SIDE))
        parts = split(learn, Draw(test=0.0))
        own = scores_of(model, learn.pixels[parts == 1])
        at = metrics.best_threshold(own, learn.label[parts == 1])["threshold"]
        for kind in np.unique(kinds):
            here = score[kinds == kind]
            say(f"ZTF {kind}: {(here >= at).mean():.2f} of {len(here)} above the threshold")
            self.result[f"ztf_{kind}"] = float((here >= at).mean())
        known = np.isin(kinds, ("real_asteroid", "bogus"))
        self.result["ztf_auc"] = metrics.auc(score[known], kinds[known] == "real_asteroid")
        say(f"ZTF asteroids against bogus: AUC {self.result['ztf_auc']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--scale", default="", choices=["", *SCALES])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--net", default="simple", help="network of the noise experiment")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--keep", default="", help="folder to keep models in, to go on later")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    options.scale = options.scale or ("tiny" if options.quick else "small")
    began = time.perf_counter()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options, Path(options.keep or temporary))
        parts = options.only.split(",") if options.only else ["speed", "noise", "peers", "table"]
        if not options.only and Path(options.data).is_dir():
            parts.append("real")
        if options.quick and not options.only:
            parts.remove("table")
        for part in parts:
            getattr(bench, part)()
    bench.result["seconds"] = time.perf_counter() - began
    print(json.dumps(bench.result))


if __name__ == "__main__":
    main()
