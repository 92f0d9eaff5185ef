"""The simple and the deep network, VGG6 and a random forest on the same samples."""

import hashlib
import time
from itertools import product

import numpy as np
from detections.scales import SIDE
from detections.workbench import Bench, say

from skyvec.realbogus import metrics
from skyvec.realbogus.forest import Forest, features
from skyvec.realbogus.samples import faults
from skyvec.realbogus.train import Draw, Samples, split


def peers(bench: Bench) -> None:
    """Ours, VGG6 and a random forest on the same samples.

    The simple network and VGG6 are as wide as they were published and take as many steps; the deep
    one is of the scale's width and steps.
    """
    learn, test = bench.samples("learn"), bench.samples("test", parts=1)
    say(f"peers on the same {len(learn):,} samples, true labels")
    recipe = bench.recipe("simple", {}, 0, width=32)
    scores = {"ours": bench.scored(learn, recipe, "peer-simple", test)}
    bench.result["ours"] = bench.row("ours: simple", scores["ours"], test)
    bench.result["fpr_ours"] = bench.result["ours"]["fpr_at_0.9"]
    turned_too = bench.scored(learn, recipe, "peer-simple", test, turns=True)
    bench.result["ours_turned"] = bench.row("ours: eight orientations", turned_too, test)
    recipe = bench.recipe("complex", {}, 0)
    scores["deep"] = bench.scored(learn, recipe, "peer-deep", test)
    bench.result["deep"] = bench.row("ours: deep", scores["deep"], test)
    bench.result["fpr_deep"] = bench.result["deep"]["fpr_at_0.9"]
    frames = bench.samples("learn", "frame_norm"), bench.samples("test", "frame_norm", 1)
    recipe = bench.recipe("vgg6", {}, 0)
    recipe["data"]["normalise"] = "frame_norm"
    scores["vgg6"] = bench.scored(frames[0], recipe, "peer-vgg6", frames[1])
    bench.result["vgg6"] = bench.row("VGG6 (frame norm)", scores["vgg6"], test)
    bench.result["fpr_vgg6"] = bench.result["vgg6"]["fpr_at_0.9"]
    turned_too = bench.scored(frames[0], recipe, "peer-vgg6", frames[1], turns=True)
    bench.result["vgg6_turned"] = bench.row("VGG6: eight orientations", turned_too, test)
    scores["forest"] = forest(bench, learn, test)
    drawn = {
        name: metrics.resampled(score, test.label, test.object, np.random.default_rng(0))
        for name, score in scores.items()
    }
    for own, name in product(("ours", "deep"), ("vgg6", "forest")):
        for key in ("fpr_at_0.9", "fpr_at_0.983", "auc"):
            ours, theirs = drawn[own][key], drawn[name][key]
            better = float(((ours > theirs) if key == "auc" else (ours < theirs)).mean())
            say(f"  {own} better than {name} by {key} in {better:.0%} of the draws")
            bench.result[f"{own}_beats_{name}_{key}"] = better


def forest(bench: Bench, learn: Samples, test: Samples) -> np.ndarray:
    """Scores of the random forest."""
    parts = split(learn, Draw(test=0.0))

    def make() -> np.ndarray:
        began = time.process_time()
        table = {}
        for name, n in (("learn", 0), ("test", 1)):
            stamps, catalog = bench.raw(name, n)
            usable = np.flatnonzero(faults(stamps.pixels, SIDE) == "")
            wanted = usable[parts == 0] if name == "learn" else usable
            table[name] = features(stamps.take(wanted), catalog)
        model = Forest.fit(table["learn"], learn.label[parts == 0], seed=0)
        score = model.score(table["test"])
        say(f"  (features and forest in {time.process_time() - began:.0f} s)")
        return score

    key = [hashlib.blake2b(a.tobytes()).hexdigest() for a in (learn.id, parts, test.id)]
    score = bench.kept("peer-forest", key, make)
    bench.result["forest"] = bench.row("random forest, 38 numbers", score, test)
    bench.result["fpr_forest"] = bench.result["forest"]["fpr_at_0.9"]
    return score
