"""From one simulated camera to another."""

from functools import partial
from typing import Any

import numpy as np
from detections.workbench import Bench, say

from skyvec.realbogus import metrics
from skyvec.realbogus.train import scores_of
from skyvec.sim.frames import make_detectors
from skyvec.sim.stamps import simulate_stamps


def shift(bench: Bench) -> None:
    """From one camera to another."""
    size, sets = bench.size, {}
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
            sets[camera, part] = bench.made(f"shift-{camera}-{part}", make)
    ways: dict[str, dict[str, Any]] = {
        "as it is": {}, "adapted": {"mmd": 0.3}, "adapted as a whole": {"mmd": 0.3, "match":
        "whole"}, "with labels": {},
    }  # fmt: skip
    for source, other in (("fine", "coarse"), ("coarse", "fine")):
        test = sets[other, "test"]
        for way, loss in ways.items():
            rates = []
            for seed in range(bench.options.seeds):
                camera = other if way == "with labels" else source
                model = bench.train(
                    sets[camera, "learn"], bench.recipe("simple", loss, seed),
                    f"shift-{camera}-{seed}" + f"-{way}" * bool(loss),
                    target=sets[other, "night"] if loss else None,
                )  # fmt: skip
                score = scores_of(model, test.pixels, batch=256)
                bench.result[f"{source}>{other}, {way}, {seed}"] = bench.row(
                    f"{source} to {other}, {way}", score, test
                )
                rates.append(metrics.fpr_at_tpr(score, test.label))
            say(f"  {source} to {other}, {way}: mean FPR at TPR .9 {np.mean(rates):.2e}")
