"""Whether the vectors of two surveys speak one language: classes, partners, a two-sample test.

Three measures that need no common label for all of it: a classifier trained on one survey and
asked about the other (labels), the rank of the same object among all of the other survey (pairs),
and how well a classifier tells the surveys apart (neither).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skyvec.analysis.probes import UNLABELLED, folds_by_target
from skyvec.index.exact import unit
from skyvec.schema import Floats, Latents, Strings

STEPS = 3_000


class Carried(NamedTuple):
    """Balanced accuracy of a classifier trained on the source survey.

    Args:
        own: Asked about other objects of the source.
        other: Asked about the same held-out targets, or others, of the target survey.
        classes: How many classes both surveys have.
        tested: How many segments of the target survey were asked about.
    """

    own: float
    other: float
    classes: int
    tested: int


def carry_over(
    source: Latents,
    source_labels: Strings,
    target: Latents,
    target_labels: Strings,
    *,
    rng: np.random.Generator,
    folds: int = 5,
) -> Carried:
    """Train on the source's labels, ask about the target survey, object by object held out.

    A linear classifier on columns standardised by its training part, classes weighed alike. The
    objects are dealt into folds by target over both surveys, so that an object seen by both is
    never trained on where it is asked about.

    Args:
        source: Latents of the survey whose labels train.
        source_labels: Class of each, shape (n,); an empty string is no label.
        target: Latents of the same model, of the other survey.
        target_labels: Class of each, shape (m,), only asked about.
        rng: Deals the folds.
        folds: How many, >= 2.

    Returns:
        Both accuracies; NaN where fewer than two classes are common.
    """
    classes = np.intersect1d(source_labels, target_labels)
    classes = classes[~np.isin(classes, UNLABELLED)]
    if len(classes) < 2:
        return Carried(np.nan, np.nan, len(classes), 0)
    kept = [np.isin(labels, classes) for labels in (source_labels, target_labels)]
    x, y = source.vectors[kept[0]], target.vectors[kept[1]]
    code, asked = (
        np.searchsorted(classes, labels[rows])
        for labels, rows in zip((source_labels, target_labels), kept)
    )
    owners = np.concatenate([source.target[kept[0]], target.target[kept[1]]])
    fold = folds_by_target(np.concatenate([code, asked]), owners, folds=folds, rng=rng)
    fold_x, fold_y = fold[: len(x)], fold[len(x) :]
    guess_x, guess_y = np.empty(len(x), np.int64), np.empty(len(y), np.int64)
    with threadpool_limits(limits=1):
        for i in range(folds):
            model = _linear().fit(x[fold_x != i], code[fold_x != i])
            for guess, vectors, own in ((guess_x, x, fold_x == i), (guess_y, y, fold_y == i)):
                if own.any():
                    guess[own] = model.predict(vectors[own])
    return Carried(
        _balanced(code, guess_x), _balanced(asked, guess_y), len(classes), int(kept[1].sum())
    )


def _linear() -> LogisticRegression:
    return make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=STEPS)
    )


def _balanced(truth: NDArray[np.int64], guess: NDArray[np.int64]) -> float:
    """Mean recall over the classes that there are."""
    return float(np.mean([(guess[truth == c] == c).mean() for c in np.unique(truth)]))


class Partners(NamedTuple):
    """How often the same object is among the nearest of the other survey.

    Args:
        recall_1: Share of the queries whose partner is the nearest.
        recall_10: Share of those whose partner is among the ten nearest.
        median_rank: Of the partner, 1 = nearest.
        queries: How many were asked.
        among: How many segments of the other survey there are.
    """

    recall_1: float
    recall_10: float
    median_rank: float
    queries: int
    among: int


def partner_ranks(
    source: Latents, target: Latents, *, rows: NDArray[np.integer] | None = None
) -> Partners:
    """Rank the same object among all segments of the other survey by cosine similarity.

    Args:
        source: Latents of one survey; partners have the same ``target``.
        target: Latents of the other, of the same model.
        rows: Rows of the source to ask with; all that have a partner if not given.

    Returns:
        Recalls and the median rank; NaN where nothing has a partner. An object with several
        segments in the other survey counts by its nearest; others as near as it count half.
    """
    asked = np.arange(len(source)) if rows is None else np.asarray(rows)
    asked = asked[np.isin(source.target[asked], target.target)]
    if not len(asked):
        return Partners(np.nan, np.nan, np.nan, 0, len(target))
    one, other = unit(source.vectors[asked]), unit(target.vectors)
    rank = np.empty(len(asked))
    for start in range(0, len(asked), 1024):
        part = slice(start, start + 1024)
        cosine = one[part] @ other.T
        own = source.target[asked[part]][:, None] == target.target[None]
        best = np.where(own, cosine, -np.inf).max(axis=1)[:, None]
        others = np.where(own, -np.inf, cosine)
        # ties half: a code that is the same for all must not find every partner first
        rank[part] = 1 + (others > best).sum(axis=1) + (others == best).sum(axis=1) / 2
    return Partners(
        float((rank <= 1).mean()),
        float((rank <= 10).mean()),
        float(np.median(rank)),
        len(asked),
        len(target),
    )


def tell_apart(
    source: Floats,
    target: Floats,
    source_objects: Strings,
    target_objects: Strings,
    *,
    rng: np.random.Generator,
    folds: int = 5,
) -> float:
    """Area under the ROC curve of a classifier that guesses which survey a vector is from.

    0.5 = it cannot tell, 1 = it always can. Held out object by object.

    Args:
        source: Vectors of one survey, shape (n, d).
        target: Vectors of the other, shape (m, d).
        source_objects: Object of each, shape (n,).
        target_objects: Object of each, shape (m,).
        rng: Deals the folds.
        folds: How many, >= 2.

    References:
        Lopez-Paz & Oquab 2017, ICLR (classifier two-sample tests; arXiv:1610.06545).
    """
    vectors = np.concatenate([source, target])
    which = np.repeat([0, 1], [len(source), len(target)])
    owners = np.concatenate([source_objects, target_objects])
    fold = folds_by_target(which, owners, folds=folds, rng=rng)
    score = np.empty(len(which))
    with threadpool_limits(limits=1):
        for i in range(folds):
            own = fold == i
            model = _linear().fit(vectors[~own], which[~own])
            score[own] = model.decision_function(vectors[own])
    return float(roc_auc_score(which, score))
