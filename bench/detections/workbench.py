"""The data of a run, simulated once, its trainings, and what was measured."""

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from detections.scales import PART, RATES, SCALES, SHARE, SIDE

from skyvec.prep.stamps import normalise
from skyvec.realbogus import metrics, suspects
from skyvec.realbogus.fast import engine
from skyvec.realbogus.samples import faults
from skyvec.realbogus.score import turned
from skyvec.realbogus.train import Draw, Samples, complete, load, scores_of, split, train_on
from skyvec.schema import Catalog, Stamps
from skyvec.sim.frames import make_detectors
from skyvec.sim.stamps import flip_labels, simulate_stamps
from skyvec.store import write_atomic


def say(*parts: object) -> None:
    print(*parts, flush=True)


class Bench:
    """The data of a run, simulated once, and what was measured."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder / options.scale
        self.folder.mkdir(parents=True, exist_ok=True)
        self.size = SCALES[options.scale]
        asked = {key: getattr(options, key) for key in ("steps", "deep")}
        self.size = replace(self.size, **{key: n for key, n in asked.items() if n})
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
        found = [read_kept(file) for file in files]
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
        write(file, {**rows, **columns})
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
                one = read_kept(self.simulate(name, k))["pixels"]
                rows = np.flatnonzero(faults(one, SIDE) == "")
                ready = normalise(one[rows], scale, side=SIDE)
                write(file, {"pixels": ready, "usable": rows, "n": np.array(len(one))})
            found = read_kept(file)
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
            write(file, {"values": make()})
        return read_kept(file)["values"]

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

    def made(self, name: str, make: Callable[[], tuple[Stamps, Catalog]]) -> Samples:
        """Samples of what was simulated, made once and kept."""
        file = self.folder / f"{name}.npz"
        names = ("id", "pixels", "label", "detector", "exposure", "object")
        if not file.exists():
            samples = samples_of(*make())
            write(file, {key: getattr(samples, key) for key in names})
        found = read_kept(file)
        return Samples(*(found[key] for key in names))


def samples_of(stamps: Stamps, catalog: Catalog) -> Samples:
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


def write(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays whole or not at all."""

    def save(path: Path) -> None:
        with path.open("wb") as part:
            np.savez(part, **arrays)  # type: ignore[arg-type]

    write_atomic(file, save)


def read_kept(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as found:
        return {key: found[key] for key in found}
