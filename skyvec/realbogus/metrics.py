"""How well scores tell reals from bogus: exact, with ties, weights and intervals.

A *real* has label 1 (a positive), a *bogus* 0. A detection is kept where score >= threshold. TPR
is the kept fraction of the reals (FNR = 1 - TPR), FPR the kept fraction of the bogus.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats import beta

from skyvec.schema import Floats, Ints, Strings

TPRS = (0.9, 0.983)
"""Where FPR is told: that of Tomo-e's table, and that where braai has FPR 0.017."""
EPSILON = 1e-9
"""A fraction of a count is reached when it is short of it by no more than rounding."""


class MetricError(ValueError):
    """Scores or labels of which the quantity asked for is not defined."""


@dataclass(frozen=True)
class Curve:
    """All operating points of a set of scores, from the strictest to the most generous.

    Args:
        threshold: Distinct scores, descending, shape (k,).
        reals: Weight of the reals with score >= threshold, shape (k,), ascending.
        bogus: The same of the bogus, shape (k,).
        row: Row of the curve each sample stands in, shape (n,).
    """

    threshold: Floats
    reals: Floats
    bogus: Floats
    row: Ints

    @property
    def tpr(self) -> Floats:
        """Kept fraction of the reals, shape (k,)."""
        return self.reals / self.reals[-1]

    @property
    def fpr(self) -> Floats:
        """Kept fraction of the bogus, shape (k,)."""
        return self.bogus / self.bogus[-1]

    def auc(self) -> float:
        """Probability that a real scores higher than a bogus, ties counting half."""
        each = np.diff(self.bogus, prepend=0.0)
        middle = self.reals - np.diff(self.reals, prepend=0.0) / 2
        return float((each * middle).sum() / (self.reals[-1] * self.bogus[-1]))

    def at_tpr(self, tpr: float) -> int:
        """Row of the highest threshold that keeps at least this fraction of the reals."""
        wanted = tpr * self.reals[-1] * (1 - EPSILON)
        return int(np.searchsorted(self.reals, wanted))

    def at_fpr(self, fpr: float) -> int:
        """Row of the lowest threshold that keeps at most this fraction of the bogus; -1: none."""
        allowed = fpr * self.bogus[-1] * (1 + EPSILON)
        return int(np.searchsorted(self.bogus, allowed, side="right")) - 1


def curve(score: Floats, label: Ints, weight: Floats | None = None) -> Curve:
    """Count reals and bogus above every threshold.

    Args:
        score: Finite, shape (n,).
        label: 1 or 0, shape (n,).
        weight: >= 0, shape (n,); none for 1 each.

    Raises:
        MetricError: A score is not finite, a label neither 0 nor 1, or a class is absent.
    """
    score, label = np.asarray(score, np.float64), np.asarray(label)
    if score.ndim != 1 or score.shape != label.shape:
        raise MetricError(f"score {score.shape} and label {label.shape} must both be (n,)")
    if not np.isfinite(score).all():
        raise MetricError(
            f"{np.count_nonzero(~np.isfinite(score)):,} of {len(score):,} scores are not finite; "
            "set those detections aside (they are flagged, not scored) and count them"
        )
    if not np.isin(label, (0, 1)).all():
        raise MetricError("labels must be 0 (bogus) or 1 (real); leave the unlabelled out")
    threshold, row = np.unique(-score, return_inverse=True)
    return _weighed(-threshold, row, label, weight)


def _weighed(threshold: Floats, row: Ints, label: Ints, weight: Floats | None) -> Curve:
    each = np.ones(len(label)) if weight is None else np.asarray(weight, np.float64)
    n = len(threshold)
    reals = np.cumsum(np.bincount(row, each * (label == 1), minlength=n), dtype=np.float64)
    bogus = np.cumsum(np.bincount(row, each * (label == 0), minlength=n), dtype=np.float64)
    if not n or reals[-1] <= 0 or bogus[-1] <= 0:
        raise MetricError("both reals and bogus are needed, but one class is absent")
    return Curve(threshold, reals, bogus, row)


def auc(score: Floats, label: Ints) -> float:
    """Area under the ROC curve, exact with ties."""
    return curve(score, label).auc()


def fpr_at_tpr(score: Floats, label: Ints, tpr: float = 0.9) -> float:
    """FPR at the highest threshold whose TPR is at least ``tpr``."""
    points = curve(score, label)
    return float(points.fpr[points.at_tpr(tpr)])


def confusion(score: Floats, label: Ints, threshold: float) -> dict[str, int]:
    """Counts of the four outcomes: ``tp``, ``fn``, ``fp``, ``tn``."""
    kept, real = np.asarray(score) >= threshold, np.asarray(label) == 1
    return {
        "tp": int((kept & real).sum()),
        "fn": int((~kept & real).sum()),
        "fp": int((kept & ~real).sum()),
        "tn": int((~kept & ~real).sum()),
    }


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a fraction of which k of n were seen; (0, 1) for n = 0.

    References:
        Clopper & Pearson 1934, Biometrika 26, 404.
    """
    if not 0 <= k <= n:
        raise MetricError(f"k={k} must lie in [0, n={n}]")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def resampled(
    score: Floats,
    label: Ints,
    group: Strings,
    rng: np.random.Generator,
    *,
    tprs: Sequence[float] = TPRS,
    draws: int = 200,
) -> dict[str, Floats]:
    """AUC and FPR at TPR when whole objects are drawn with replacement.

    Detections of one object err together; drawing single detections would make every interval
    too narrow. The threshold is found anew in every draw, so its own uncertainty is included.
    Two classifiers of the same detections see the same draws if both generators are new and of
    one seed; then their values can be compared pair by pair.

    Args:
        score: Finite, shape (n,); of several trainings (k, n), NaN where one of them did not
            score. Then the mean over the trainings is told, and each draw takes k of them with
            replacement, so that their spread is included too.
        label: 1 or 0, shape (n,).
        group: Object of each detection, shape (n,).
        rng: Source of the draws.
        tprs: Where FPR is told.
        draws: How many.

    Returns:
        ``draws`` values of ``auc`` and of each ``fpr_at_TPR``.
    """
    scores, label = np.atleast_2d(np.asarray(score, np.float64)), np.asarray(label)
    # of one training every score is due; curve() says what is missing
    seen = np.isfinite(scores) if np.ndim(score) == 2 else np.ones_like(scores, bool)
    several = [curve(np.where(ok, one, 0.0), label) for one, ok in zip(scores, seen)]
    names, member = np.unique(group, return_inverse=True)
    found: dict[str, list[float]] = {"auc": [], **{f"fpr_at_{t:g}": [] for t in tprs}}
    while len(found["auc"]) < draws:
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        weight = times[member].astype(np.float64)
        taken = rng.integers(len(several), size=len(several)) if len(several) > 1 else (0,)
        try:
            drawn = [
                _weighed(several[k].threshold, several[k].row, label, weight * seen[k])
                for k in taken
            ]
        except MetricError:
            if not all(_is_possible(member[ok], label[ok]) for ok in seen):
                raise
            continue  # the only objects of a class were not drawn
        found["auc"].append(float(np.mean([one.auc() for one in drawn])))
        for t in tprs:
            rates = [one.fpr[one.at_tpr(t)] for one in drawn]
            found[f"fpr_at_{t:g}"].append(float(np.mean(rates)))
    return {key: np.array(values) for key, values in found.items()}


def _is_possible(member: Ints, label: Ints) -> bool:
    return bool((label == 1).any() and (label == 0).any() and len(np.unique(member)) > 1)


def intervals(
    drawn: Mapping[str, Floats], *, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Lowest and highest of each quantity that :func:`resampled` gives, but for the tails."""
    tail = (1 - level) / 2
    quantiles = {key: np.quantile(values, [tail, 1 - tail]) for key, values in drawn.items()}
    return {key: (float(low), float(high)) for key, (low, high) in quantiles.items()}


def summary(score: Floats, label: Ints, drawn: Mapping[str, Floats]) -> dict[str, object]:
    """All that one row of a table of classifiers says.

    Args:
        score: Finite, shape (n,).
        label: 1 or 0, shape (n,).
        drawn: Of them, from :func:`resampled`; its TPRs are told.

    Returns:
        ``reals``, ``bogus``, ``auc``, ``fpr_at_T`` for each TPR with its ``threshold_at_T``; under
        ``bootstrap`` the intervals by object of the same names; under ``clopper_pearson`` those of
        the FPR and TPR at the fixed threshold.
    """
    points = curve(score, label)
    n_reals, n_bogus = int(points.reals[-1]), int(points.bogus[-1])
    answer: dict[str, object] = {"reals": n_reals, "bogus": n_bogus, "auc": points.auc()}
    exact: dict[str, tuple[float, float]] = {}
    for t in (float(key.removeprefix("fpr_at_")) for key in drawn if key != "auc"):
        at = points.at_tpr(t)
        answer[f"fpr_at_{t:g}"] = float(points.fpr[at])
        answer[f"threshold_at_{t:g}"] = float(points.threshold[at])
        exact[f"fpr_at_{t:g}"] = clopper_pearson(int(points.bogus[at]), n_bogus)
        exact[f"tpr_at_{t:g}"] = clopper_pearson(int(points.reals[at]), n_reals)
    answer["clopper_pearson"] = exact
    answer["bootstrap"] = intervals(drawn)
    return answer


def best_threshold(
    score: Floats, label: Ints, *, tpr: float = 0.9, prevalence: float | None = None
) -> dict[str, float]:
    """Choose the threshold of the best precision that keeps at least ``tpr`` of the reals.

    precision = pi TPR / (pi TPR + (1 - pi) FPR). Of equal precisions the one that keeps the most
    reals. To be chosen on validation data, frozen, and reported on other data.

    Args:
        score: Finite, shape (n,).
        label: 1 or 0, shape (n,).
        tpr: Least TPR, in (0, 1].
        prevalence: Fraction pi of reals among the detections of a night; none for that here.

    Returns:
        ``threshold``, ``tpr``, ``fpr``, ``precision``.
    """
    points = curve(score, label)
    if not 0 < tpr <= 1:
        raise MetricError(f"tpr={tpr} must be in (0, 1]")
    pi = points.reals[-1] / (points.reals[-1] + points.bogus[-1])
    pi = float(pi if prevalence is None else prevalence)
    if not 0 < pi < 1:
        raise MetricError(f"prevalence={pi} must be in (0, 1)")
    first = points.at_tpr(tpr)
    t, f = points.tpr[first:], points.fpr[first:]
    precision = pi * t / (pi * t + (1 - pi) * f)
    best = int(np.flatnonzero(precision >= precision.max() * (1 - EPSILON))[-1])
    return {
        "threshold": float(points.threshold[first + best]),
        "tpr": float(t[best]),
        "fpr": float(f[best]),
        "precision": float(precision[best]),
    }


def by_bin(
    score: Floats, label: Ints, threshold: float, value: np.ndarray, edges: Floats | None = None
) -> list[dict[str, object]]:
    """TPR and FPR at a fixed threshold in bins of a quantity, or for each value of a name.

    Args:
        score: Shape (n,).
        label: 1 or 0, shape (n,).
        threshold: Kept where score >= threshold.
        value: A number (NaN: in no bin) or a name of each detection, shape (n,).
        edges: Of the bins, ascending, each [edge, next edge); none for one bin a distinct value.

    Returns:
        A row a bin that holds anything: ``bin``, counts ``reals`` and ``bogus``, ``tpr`` and
        ``fpr`` (None without a detection of the class), with ``tpr_low`` ... (Clopper-Pearson).
    """
    score, label, value = np.asarray(score), np.asarray(label), np.asarray(value)
    if edges is None:
        names, place = np.unique(value, return_inverse=True)
        titles = [str(name) for name in names]
    else:
        edges = np.asarray(edges, np.float64)
        place = np.searchsorted(edges, value, side="right") - 1
        place[~((value >= edges[0]) & (value < edges[-1]))] = -1
        titles = [
            f"{low:g} to {high:g}" if high < np.inf else f"{low:g} or more"
            for low, high in pairwise(edges.tolist())
        ]
    rows: list[dict[str, object]] = []
    for i, title in enumerate(titles):
        here = place == i
        if not here.any():
            continue
        row: dict[str, object] = {"bin": title}
        for name, wanted, rate in (("reals", 1, "tpr"), ("bogus", 0, "fpr")):
            those = here & (label == wanted)
            n, k = int(those.sum()), int((score[those] >= threshold).sum())
            low, high = clopper_pearson(k, n)
            row |= {name: n, rate: k / n if n else None, f"{rate}_low": low, f"{rate}_high": high}
        rows.append(row)
    return rows
