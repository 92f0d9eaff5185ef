"""The eleven rows of Takahashi et al. 2022, and which of their orderings hold."""

import time

import numpy as np
from detections.workbench import Bench, say

from skyvec.batches import hash_uniform
from skyvec.realbogus import metrics
from skyvec.realbogus.train import Samples, treat

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

PAPER_NOISE = 0.006, 0.01
"""Wrong labels the authors estimate by eye: of bogus, of reals."""


def table(bench: Bench) -> None:
    """The eleven rows of the paper."""
    learn, test = bench.data()
    seeds = bench.options.seeds
    noisy = bench.noisy(learn, *PAPER_NOISE, 0)
    say(f"the eleven rows, labels wrong as in the paper {PAPER_NOISE}, {seeds} seeds;")
    say(f"  {bench.size}")
    rows = bench.options.rows or list(ROWS)
    doubt = np.zeros(len(noisy), bool)
    if any(ROWS[k][1] in ("remove", "unlabel") for k in rows):
        recipe = bench.recipe("complex", {}, 0)
        doubt = bench.suspects(noisy, learn.label, recipe, "table-folds")["argmax"]
    place = hash_uniform(test.object.tolist(), seed=0, purpose="bench share")
    share = np.floor(place * seeds).astype(np.int64)
    scores = {k: np.full((seeds, len(test)), np.nan) for k in rows}
    done = 0
    for seed, k in ((seed, k) for seed in range(seeds) for k in rows):
        whole = (test.label == 1) | (share == seed) | (not bench.size.shares)
        if time.perf_counter() - bench.began > 60 * bench.options.minutes:
            say(f"  time is up: {done} of {seeds} seeds are finished")
            break
        began = time.process_time()
        scores[k][seed] = table_row(bench, k, seed, noisy, doubt, test, whole)
        took = time.process_time() - began
        seen = np.isfinite(scores[k][seed])
        fpr = metrics.fpr_at_tpr(scores[k][seed][seen], test.label[seen])
        say(f"  seed {seed} row {k:2d}: FPR at TPR .9 {fpr:.2e} ({took:.0f} s)")
        done += k == rows[-1]
    if done:
        tell_table(bench, {k: score[:done] for k, score in scores.items()}, test)


def table_row(
    bench: Bench,
    k: int,
    seed: int,
    noisy: Samples,
    doubt: np.ndarray,
    test: Samples,
    whole: np.ndarray,
) -> np.ndarray:
    """Scores of one training of a row, NaN where it has none."""
    net, what, loss, _ = ROWS[k]
    size = bench.size
    score = np.full(len(test), np.nan)
    names, counts = np.unique(noisy.detector, return_counts=True)
    if what == "each sensor":
        recipe = bench.recipe(net, loss, seed, steps=size.few)
        # from the middle of the camera to its edge
        for name in names[np.linspace(0, len(names) - 1, size.each).astype(int)]:
            own = noisy.take(np.flatnonzero(noisy.detector == name))
            rows = np.flatnonzero(whole & (test.detector == name))
            score[rows] = bench.scored(own, recipe, f"table{seed}-row1-{name}", test.take(rows))
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
    recipe = bench.recipe(net, loss, seed, steps=steps)
    score[rows] = bench.scored(used, recipe, f"table{seed}-row{k}", test.take(rows), stays)
    return score


def tell_table(bench: Bench, scores: dict[int, np.ndarray], test: Samples) -> None:
    """Print rows with intervals, and which of the paper's orderings hold."""

    def draws(some: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(0)
        return metrics.resampled(some, test.label, test.object, rng, draws=100)["fpr_at_0.9"]

    say(f"  {'row':30s} FPR at TPR .9, mean   95 %                of seeds               paper")
    drawn = {}
    for k, row_scores in scores.items():
        net, what, loss, paper = ROWS[k]
        rates, areas = [], []
        for one in row_scores:
            seen = np.isfinite(one)
            points = metrics.curve(one[seen], test.label[seen])
            rates.append(float(points.fpr[points.at_tpr(0.9)]))
            areas.append(points.auc())
        drawn[k] = draws(row_scores)
        low, high = np.quantile(drawn[k], [0.025, 0.975])
        terms = ", ".join(f"{name} {value}" for name, value in (loss or {"ce": 1}).items())
        say(
            f"  {f'{k} {net}, {what}; {terms}':44s} {np.mean(rates):.2e}  {low:.1e} to "
            f"{high:.1e}   {min(rates):.1e} to {max(rates):.1e}   AUC {np.mean(areas):.4f}   "
            f"{paper:.1e}"
        )
        bench.result[f"row{k}"] = {
            "fpr_at_0.9": float(np.mean(rates)), "interval": [float(low), float(high)],
            "seeds": rates, "auc": float(np.mean(areas)), "paper": paper,
        }  # fmt: skip
    for better, worse, text in ORDERINGS:
        if better not in drawn or worse not in drawn:
            continue
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
        bench.result[f"{better}<{worse}"] = sure
