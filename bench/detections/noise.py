"""Wrong labels: how many are found, and what a second stage makes of them."""

import numpy as np
from detections.workbench import Bench, say

from skyvec.realbogus.train import Samples, treat

ARMS = ("keep", "remove", "unlabel", "flip")

WAYS = ("turned", "stopped", "heart")
"""How the noise experiments train: see above."""


def noise(bench: Bench) -> None:
    """One stage and two, by label noise."""
    learn, test = bench.samples("learn"), bench.samples("test", parts=1)
    net, seeds = bench.options.net, range(bench.options.seeds)
    steps = bench.size.deep if net == "complex" else bench.size.noise
    levels = (0.1,) if bench.options.quick else (0.1, 0.05, 0.01)
    ways = ("turned", "stopped") if bench.options.quick else WAYS
    for level in levels:
        for seed in seeds:
            say(f"labels wrong in {level:.0%} of each class, seed {seed}")
            noisy = bench.noisy(learn, level, level, seed)
            tag = f"noise{100 * level:.0f}-{seed}"
            first = bench.recipe(net, {}, seed, steps=steps)
            doubt = bench.suspects(noisy, learn.label, first, f"{tag}-folds")
            arms(bench, noisy, learn.label, doubt, test, tag, "turned", seed)
            if level == levels[0]:
                n = bench.size.heart[0]
                rows = np.random.default_rng([seed, 13]).permutation(len(noisy))[:n]
                rows.sort()
                sure = {how: those[rows] for how, those in doubt.items()}
                few = noisy.take(rows), learn.label[rows], sure
                for way in ways[1:]:
                    arms(bench, *few, test, tag, way, seed)
    for way in ways:
        middle = {
            arm: float(
                np.median([bench.result[f"noise10-{s}-{way}-{arm}"]["fpr_at_0.9"] for s in seeds])
            )
            for arm in ARMS
        }
        best = min(("remove", "unlabel"), key=lambda arm: middle[arm])
        say(
            f"10 %, {way}: one stage {middle['keep']:.2e}, two stages ({best}) "
            f"{middle[best]:.2e}: {middle['keep'] / max(middle[best], 1e-9):.1f} times lower"
        )
        bench.result[f"fpr_one_stage_noise10_{way}"] = middle["keep"]
        bench.result[f"fpr_two_stage_noise10_{way}"] = middle[best]
    for stages in ("one", "two"):
        key = f"fpr_{stages}_stage_noise10"
        bench.result[key] = bench.result[f"{key}_stopped"]  # as published


def arms(
    bench: Bench,
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
    net = bench.options.net
    others = {"confident": doubt["confident"], "oracle": noisy.label != truth}
    for arm in (*ARMS, *others):
        chosen = others.get(arm, doubt["argmax"])
        label, stays = treat(noisy.label, chosen, "remove" if arm in others else arm)
        loss = {"ce": 0.6, "lds": 0.4} if arm == "unlabel" else {}
        if way == "turned":
            steps = bench.size.deep if net == "complex" else bench.size.noise
            recipe = bench.recipe(net, loss, seed, steps=steps)
        else:
            steps = bench.size.heart[1]
            recipe = bench.recipe(net, loss, seed, steps=steps)
            recipe["data"]["augment"] = False
            # the last weights, or those that did best on noisy stamps
            every = steps if way == "heart" else -(-steps // 10)
            recipe["train"]["validate_every"] = every
            if net == "simple":
                recipe["model"]["dropout"] = 0.0
        used = noisy.with_label(label)
        score = bench.scored(used, recipe, f"{tag}-{way}-{arm}", test, stays)
        bench.result[f"{tag}-{way}-{arm}"] = bench.row(f"{way}: {arm}", score, test)
