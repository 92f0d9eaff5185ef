"""From scores to probabilities that can be believed, under any night's share of reals.

A calibration is fitted on nights that trained nothing. It gives log-odds, so that moving to
another prevalence is one addition: logit p' = logit p + logit pi' - logit pi.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from skyvec.realbogus.metrics import MetricError, clopper_pearson, curve
from skyvec.schema import Floats, Ints

KINDS = ("temperature", "isotonic")
LEVELS = np.linspace(0, 1, 101)
UNLIKE = 0.1
"""Distance from the scores of the calibration from which a long night is foreign to it."""
BY_CHANCE = 1.22
"""Times 1 / sqrt(n): what chance adds to that distance in a night of n scores."""


@dataclass(frozen=True)
class Calibration:
    """A monotone map from scores to log-odds: linear between knots.

    Args:
        kind: ``temperature`` or ``isotonic``.
        prevalence: Fraction of reals where it was fitted, in (0, 1).
        score: Scores of the knots, ascending, shape (k,); k = 2 for ``temperature``, whose line
            goes on beyond them, while ``isotonic`` stays at its outermost values.
        log_odds: Log-odds of the knots, not descending, shape (k,).
    """

    kind: str
    prevalence: float
    score: tuple[float, ...]
    log_odds: tuple[float, ...]

    def odds(self, score: Floats, prevalence: float | None = None) -> Floats:
        """Log-odds of being real, shape (n,), under a prevalence or that of the fit."""
        score = np.asarray(score, np.float64)
        if self.kind == "temperature":
            (a, b), (u, v) = self.score, self.log_odds
            found = u + (score - a) * (v - u) / (b - a)
        else:
            found = np.asarray(np.interp(score, self.score, self.log_odds))
        if prevalence is None:
            return found
        if not 0 < prevalence < 1:
            raise MetricError(f"prevalence={prevalence} must be in (0, 1)")
        return found + float(logit(prevalence) - logit(self.prevalence))

    def probability(self, score: Floats, prevalence: float | None = None) -> Floats:
        """Probability of being real, shape (n,)."""
        return expit(self.odds(score, prevalence))

    def table(self) -> dict[str, Any]:
        """Plain values, as JSON keeps them; ``Calibration(**table)`` reads them back."""
        return asdict(self)


def fit_temperature(score: Floats, label: Ints) -> Calibration:
    """Fit logit p = s / T + b by maximum likelihood, T > 0.

    The targets are drawn in by one count, (N_1 + 1) / (N_1 + 2) and 1 / (N_0 + 2), so that scores
    that divide the classes perfectly do not ask for certainty.

    References:
        Platt 1999; Guo et al. 2017, ICML.

    Raises:
        MetricError: A class is absent, all scores are the same, or scores fall where labels rise.
    """
    points = curve(score, label)
    n1, n0 = points.reals[-1], points.bogus[-1]
    target = np.where(np.asarray(label) == 1, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
    s = np.asarray(score, np.float64)
    if s.min() == s.max():
        raise MetricError(f"all scores are {s[0]:g} and tell nothing; was the model trained?")
    middle, spread = float(np.median(s)), float(s.std()) or 1.0
    x = np.stack([(s - middle) / spread, np.ones_like(s)], 1)
    line = np.array([1.0, float(logit(n1 / (n1 + n0)))])
    cost = _cost(x @ line, target)
    for _ in range(200):
        p = expit(x @ line)
        gradient = x.T @ (p - target)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > 1e-8 and _cost(x @ (line - size * step), target) > cost:
            size /= 2
        line = line - size * step
        before, cost = cost, _cost(x @ line, target)
        if before - cost <= 1e-12 * max(1.0, abs(before)):
            break
    if line[0] <= 0:
        raise MetricError("bogus score higher than reals here; is the label 1 for reals?")
    knots = (middle - spread, middle + spread)
    return Calibration(
        "temperature",
        float(n1 / (n1 + n0)),
        knots,
        (float(line[1] - line[0]), float(line[1] + line[0])),
    )


def _cost(z: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float((np.logaddexp(0, z) - target * z).sum())


def fit_isotonic(score: Floats, label: Ints) -> Calibration:
    """Fit the best non-descending step function, with one real and one bogus more a step.

    References:
        Zadrozny & Elkan 2002, KDD.

    Raises:
        MetricError: A class is absent.
    """
    points = curve(score, label)
    s, y = np.asarray(score, np.float64), np.asarray(label, np.float64)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(s, y).predict(s)
    _, step = np.unique(fitted, return_inverse=True)
    n = np.bincount(step)
    p = np.maximum.accumulate((np.bincount(step, y) + 1) / (n + 2))
    middle = np.bincount(step, s) / n
    prevalence = points.reals[-1] / (points.reals[-1] + points.bogus[-1])
    return Calibration(
        "isotonic", float(prevalence), tuple(middle.tolist()), tuple(logit(p).tolist())
    )


def fit(score: Floats, label: Ints, kind: str = "temperature") -> Calibration:
    """Fit a calibration of the kind asked for; ``KINDS`` names them."""
    if kind not in KINDS:
        raise MetricError(f"unknown calibration {kind!r}; choose from {', '.join(KINDS)}")
    return (fit_temperature if kind == "temperature" else fit_isotonic)(score, label)


def brier(probability: Floats, label: Ints) -> float:
    """Mean of (p - y)^2."""
    return float(np.mean((np.asarray(probability, np.float64) - np.asarray(label)) ** 2))


def reliability(probability: Floats, label: Ints, bins: int = 15) -> list[dict[str, float]]:
    """Compare probabilities with what came true, in bins of equal counts.

    Returns:
        A row a bin: ``predicted`` (mean p), ``observed`` (fraction of reals) with ``low`` and
        ``high`` (Clopper-Pearson), ``n``. Equal probabilities are never divided.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(label)
    order = np.argsort(p, kind="stable")
    edges = np.unique(p[order][np.linspace(0, len(p) - 1, bins + 1).astype(int)[1:-1]])
    place = np.searchsorted(edges, p, side="right")
    rows = []
    for i in np.unique(place):
        here = place == i
        n, k = int(here.sum()), int((y[here] == 1).sum())
        low, high = clopper_pearson(k, n)
        rows.append(
            {
                "predicted": float(p[here].mean()),
                "observed": k / n,
                "low": low,
                "high": high,
                "n": n,
            }
        )
    return rows


def calibration_error(probability: Floats, label: Ints, bins: int = 15) -> float:
    """Mean distance of predicted and observed over the bins of :func:`reliability`."""
    rows = reliability(probability, label, bins)
    total = sum(row["n"] for row in rows)
    return sum(row["n"] * abs(row["predicted"] - row["observed"]) for row in rows) / total


def night_prevalence(calibration: Calibration, score: Floats, *, rounds: int = 1_000) -> float:
    """Estimate the share of reals of a night from its scores alone.

    Expectation and maximisation: pi <- mean p(real | s, pi). Right where the scores of reals and
    of bogus are distributed as they were where the calibration was fitted.

    Returns:
        pi, at least half a detection's worth.

    References:
        Saerens, Latinne & Decaestecker 2002, Neural Computation 14, 21.
    """
    z = calibration.odds(score)
    if not len(z):
        raise MetricError("a night without detections has no prevalence")
    least = 0.5 / len(z)
    pi = calibration.prevalence
    for _ in range(rounds):
        shifted = expit(z + logit(pi) - logit(calibration.prevalence))
        new = float(np.clip(shifted.mean(), least, 1 - least))
        if abs(new - pi) <= 1e-9 * new:
            break
        pi = new
    return pi


def quantiles(score: Floats) -> list[float]:
    """Scores at the 0, 1, ... 100 per cent of a set, ascending; empty for none."""
    return np.quantile(score, LEVELS).tolist() if len(score) else []


def unlike(score: Floats, real: Sequence[float], bogus: Sequence[float]) -> float:
    """Tell how far the scores of a night are from any mixture of known reals and known bogus.

    min over pi of max over s of |F(s) - pi F_1(s) - (1 - pi) F_0(s)|: the distance of Kolmogorov
    and Smirnov from the mixture that comes closest, in [0, 1]. Whatever share of a night is real,
    it is near 0 where reals and bogus score as they did when the model was calibrated, and where
    it is not, neither calibrated probabilities nor a prevalence told by scores mean anything.

    Args:
        score: Of the night, shape (n,), n > 0.
        real: :func:`quantiles` of known reals.
        bogus: Of known bogus.
    """
    at = np.quantile(score, np.linspace(0, 1, 1001))
    ordered = np.sort(score)
    # the function of distribution on both sides of its steps
    low, high = (
        np.searchsorted(ordered, at, side=side) / len(score) for side in ("left", "right")
    )
    one, zero = (np.interp(at, known, LEVELS, left=0.0, right=1.0) for known in (real, bogus))
    shares = np.concatenate([[0.0], np.logspace(-6, 0, 601)])
    mixtures = (pi * one + (1 - pi) * zero for pi in shares)
    return float(min(max((high - f).max(), (f - low).max()) for f in mixtures))


def still_alike(n: int) -> float:
    """Largest distance that :func:`unlike` may find for a night of n scores to be believed.

    hypot(UNLIKE, 1.22 / sqrt(n)): n scores drawn from known reals and bogus are about so far from
    any mixture of them by chance alone (Kolmogorov and Smirnov, exceeded in fewer than one of ten
    nights), so that a short night is not foreign for its shortness.
    """
    return float(np.hypot(UNLIKE, BY_CHANCE / np.sqrt(n)))


def expected_false(probability: Floats, score: Floats, threshold: float) -> float:
    """Expected number of bogus among the detections kept: sum of 1 - p where s >= threshold."""
    kept = np.asarray(score) >= threshold
    return float((1 - np.asarray(probability, np.float64))[kept].sum())
