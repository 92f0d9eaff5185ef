"""Find labels that are probably wrong, by models that never saw the sample.

Stage one of Takahashi et al. 2022: five folds, plain cross-entropy on four, scores of the fifth.
A sample whose out-of-fold score speaks against its label is a *suspect*; stage two trains with the
suspects kept, removed, unlabelled or flipped (:func:`skyvec.realbogus.train.treat`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from skyvec.nn.labels import UNLABELLED
from skyvec.realbogus.calibration import fit_temperature
from skyvec.realbogus.folds import apart, divide
from skyvec.realbogus.train import Samples, complete, load, scores_of, train_on
from skyvec.schema import Floats, Ints
from skyvec.train import Progress

SELECTORS = ("argmax", "threshold", "confident")
FOLDS = 5


def out_of_fold(
    samples: Samples,
    recipe: Mapping[str, Any],
    folder: Path,
    *,
    folds: int = FOLDS,
    progress: Callable[[int, Progress], object] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Score every sample by a model that saw neither its object nor its exposure.

    Each fold's model is a folder of its own, so a run that was killed goes on where it was. The
    weights are chosen on a part of the four folds, never on the fifth.

    Args:
        samples: All of them, labelled or not.
        recipe: Of the first stage; its ``[loss]`` is plain cross-entropy unless given.
        folder: Where the models of the folds are kept.
        folds: How many.
        progress: Called with the fold and where its training stands.
        threads: Threads of torch.

    Returns:
        Scores z_1 - z_0 and the fold each was held out in, shape (n,) each.

    Raises:
        SplitError: Objects and exposures do not allow so many folds.
    """
    full = complete(recipe)
    place = divide(
        samples.object, samples.exposure, [1 / folds] * folds, seed=full["data"]["seed"]
    )
    score = np.full(len(samples), np.nan)
    for k in range(folds):
        held = place == k
        rows = np.flatnonzero(apart(samples.object, samples.exposure, held))
        others = samples.take(rows)
        # no test split here: the fold held out is the test
        data = {**full["data"], "test": 0.0}
        seed = full["train"]["seed"] + k
        tables = {**full, "data": data, "train": {**full["train"], "seed": seed}}

        def tell(state: Progress, k: int = k) -> None:
            if progress is not None:
                progress(k, state)

        made = train_on(others, tables, folder / f"fold-{k}", progress=tell, threads=threads)
        score[held] = scores_of(load(made)[0], samples.pixels[held])
    return score, place


def check_selector(how: str, level: float = 0.7) -> None:
    """Make sure that suspects can be chosen so, before hours of training.

    Raises:
        ValueError: There is no such way, or no such level.
    """
    if how not in SELECTORS:
        raise ValueError(f"selector {how!r} is unknown; choose from {', '.join(SELECTORS)}")
    if not 0.5 <= level < 1:
        raise ValueError(f"level={level} must be in [0.5, 1)")


def suspects(
    score: Floats,
    label: Ints,
    how: str = "argmax",
    *,
    level: float = 0.7,
    fold: Ints | None = None,
) -> NDArray[np.bool_]:
    """Choose the samples whose label is doubtful.

    Args:
        score: Out-of-fold scores z_1 - z_0, shape (n,).
        label: 1, 0 or -1 (never a suspect), shape (n,).
        how: ``argmax``: the likelier class is not the label. ``threshold``: the other class has a
            probability above ``level``. ``confident``: with probabilities calibrated fold by
            fold, the other class has at least the mean probability it has where it is the label,
            and is the likelier of those that do (the off-diagonal of the confident joint).
        level: Of ``threshold``, in [0.5, 1).
        fold: Fold of each sample, for ``confident``; none for one calibration, shape (n,).

    Returns:
        True for a suspect, shape (n,).

    References:
        Takahashi et al. 2022, PASJ; Northcutt, Jiang & Chuang 2021, JAIR 70, 1373.
    """
    check_selector(how, level)
    score, label = np.asarray(score, np.float64), np.asarray(label)
    known = label != UNLABELLED
    wrong = known & ((score >= 0) != (label == 1))
    if how == "argmax":
        return wrong
    if how == "threshold":
        other = np.where(label == 1, expit(-score), expit(score))
        return wrong & (other > level)
    p = calibrated(score, label, fold)
    typical = {k: p[known & (label == 1)].mean() if k else (1 - p[known & (label == 0)]).mean()
               for k in (0, 1)}  # fmt: skip
    is_one, is_zero = p >= typical[1], 1 - p >= typical[0]
    # where both classes reach what is typical of them, the likelier counts
    guess = np.where(is_one & is_zero, np.where(p >= 0.5, 1, 0), np.where(is_one, 1, 0))
    return known & (is_one | is_zero) & (guess != label)


def calibrated(score: Floats, label: Ints, fold: Ints | None = None) -> NDArray[np.float64]:
    """Probability of being real after a temperature fitted on the labels at hand, fold by fold."""
    fold = np.zeros(len(score), np.int64) if fold is None else np.asarray(fold)
    p = np.full(len(score), np.nan)
    for k in np.unique(fold):
        here = fold == k
        fitted = here & (label != UNLABELLED)
        p[here] = fit_temperature(score[fitted], label[fitted]).probability(score[here])
    return p


def doubt(score: Floats, label: Ints) -> NDArray[np.float64]:
    """Log-odds that a label is wrong; NaN where there is none: the order for a person's eye."""
    against = np.where(np.asarray(label) == 1, -np.asarray(score), np.asarray(score))
    return np.where(np.asarray(label) == UNLABELLED, np.nan, against).astype(np.float64)


def found(suspect: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, float]:
    """Recall and precision of suspects where it is known which labels are wrong."""
    hits = int((suspect & wrong).sum())
    return {
        "suspects": int(suspect.sum()),
        "wrong": int(wrong.sum()),
        "recall": hits / max(1, int(wrong.sum())),
        "precision": hits / max(1, int(suspect.sum())),
    }
