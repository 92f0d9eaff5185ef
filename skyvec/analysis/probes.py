"""How much frozen vectors know of known classes: neighbours, a linear map and a random forest.

Every classifier is trained on some targets and tested on others, so that a star can never vouch
for itself. What is reported are the predictions for all held-out segments together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skyvec.schema import Floats, Ints, Strings

PROBES = ("majority", "knn", "linear", "forest")
ALL_PROBES = (*PROBES, "ridge")
PENALTIES = (1.0, 0.1, 0.01, 0.001)
"""Inverse strengths of the penalty of ``ridge`` to choose from; ``linear`` has the first."""
INNER_FOLDS = 5
UNLABELLED = ("", "nan", "None")
MIN_TARGETS = 10
LINEAR_STEPS = 3000


@dataclass(frozen=True, eq=False)
class ProbeRow:
    """What one probe found; ``_low`` and ``_high`` bound the central 95 % of the bootstrap.

    Args:
        probe: ``majority`` (always the commonest class of the training part), ``knn``,
            ``linear``, ``forest`` or ``ridge``.
        macro_f1: Mean over the classes of F1 = 2 tp / (2 tp + fp + fn); 1 = perfect.
        macro_f1_low: Lower bound.
        macro_f1_high: Upper bound.
        balanced_accuracy: Mean over the classes of the recall; 1 / classes = knows nothing.
        balanced_accuracy_low: Lower bound.
        balanced_accuracy_high: Upper bound.
        accuracy: Fraction of the tested segments that got their class.
        accuracy_low: Lower bound.
        accuracy_high: Upper bound.
        classes: The classes that took part, in alphabetical order.
        left_out: Classes with too few targets, and how many segments each had.
        segments: How many segments were tested.
        targets: How many targets those belong to; what the bootstrap draws from.
        confusion: Segments of class i (row) called class j (column), shape (classes, classes).
    """

    probe: str
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    balanced_accuracy: float
    balanced_accuracy_low: float
    balanced_accuracy_high: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    classes: tuple[str, ...]
    left_out: dict[str, int]
    segments: int
    targets: int
    confusion: NDArray[np.int64]


def probe(
    vectors: Floats,
    labels: ArrayLike,
    targets: ArrayLike,
    *,
    rng: np.random.Generator,
    folds: int = 5,
    split: ArrayLike | None = None,
    probes: Sequence[str] = PROBES,
    neighbours: int = 5,
    trees: int = 100,
    min_targets: int = MIN_TARGETS,
    replicates: int = 1000,
    jobs: int = 2,
) -> list[ProbeRow]:
    """Measure what classifiers on frozen vectors reach on targets they have not seen.

    ``knn`` is the majority of the nearest by cosine similarity of the vectors as they are: what a
    search sees. ``linear`` is a logistic regression on columns standardised by the training
    part, ``forest`` a random forest; both weigh the classes alike. ``ridge``, not among those
    made unasked, is ``linear`` with the penalty that does best (balanced accuracy) in a
    cross-validation by targets inside the training part: where labels are few, ``linear`` learns
    the noise of wide codes by heart.

    Args:
        vectors: Finite, shape (n, d).
        labels: Class of each, shape (n,); an empty string, NaN or None is no label, and such
            segments take no part.
        targets: Target of each, shape (n,); no target is in the training and the test part.
        rng: Draws the folds, the forest and the bootstrap.
        folds: Parts of cross-validation, each with its share of every class's targets.
        split: Instead of folds, the part of each segment, shape (n,): ``test`` is tested, all
            else is trained on.
        probes: Which of ``ALL_PROBES``.
        neighbours: Of ``knn``.
        trees: Of ``forest``.
        min_targets: A class with fewer targets (to train on, where ``split`` is given), or with
            none to test, is left out and reported.
        replicates: Draws of the bootstrap, by target; the same draws for every probe. It covers
            the choice of the tested targets, not that of the training.
        jobs: Threads of ``forest``.

    Returns:
        A row a probe, in the order asked for.

    Raises:
        ValueError: Vectors are not finite, lengths differ, a probe is unknown, a target is on
            both sides of ``split``, or fewer than two classes are left.
    """
    vectors, names, owners = _checked(vectors, labels, targets, probes)
    if split is None and not 2 <= folds <= min_targets:
        raise ValueError(
            f"folds must be between 2 and min_targets = {min_targets}, not {folds}; "
            "every fold needs a target of every class"
        )
    test = None if split is None else _checked_split(np.asarray(split), owners)
    labelled = ~np.isin(names, UNLABELLED)
    kept, left_out = _choose_classes(names, owners, labelled, test, min_targets)
    vectors, owners = vectors[kept], owners[kept]
    classes, code = np.unique(names[kept], return_inverse=True)
    if test is None:
        fold = folds_by_target(code, owners, folds=folds, rng=rng)
        parts = [fold == i for i in range(folds)]
    else:
        parts = [test[kept]]
    tested = np.any(parts, axis=0)
    seeds = rng.integers(2**31, size=2)
    who = np.unique(owners[tested], return_inverse=True)[1]
    rows = []
    for name in probes:
        model = _classifier(name, neighbours, trees, int(seeds[0]), jobs)
        guess = _predict(model, vectors, code, owners, parts)[tested]
        confusion = _confusion(code[tested], guess, len(classes))
        low, high = _bounds(
            code[tested],
            guess,
            who,
            classes=len(classes),
            replicates=replicates,
            rng=np.random.default_rng(seeds[1]),
        )
        own = scores_of(confusion)
        rows.append(
            ProbeRow(
                name,
                own.macro_f1,
                low.macro_f1,
                high.macro_f1,
                own.balanced_accuracy,
                low.balanced_accuracy,
                high.balanced_accuracy,
                own.accuracy,
                low.accuracy,
                high.accuracy,
                tuple(classes.tolist()),
                left_out,
                int(tested.sum()),
                int(who.max()) + 1,
                confusion.astype(np.int64),
            )
        )
    return rows


def probe_questions(
    vectors: Floats,
    labels: Mapping[str, ArrayLike],
    targets: ArrayLike,
    *,
    rng: np.random.Generator,
    min_targets: int = MIN_TARGETS,
    **options: Any,
) -> dict[str, list[ProbeRow]]:
    """Measure the vectors on several questions, each asked of the segments it was answered for.

    Args:
        vectors: Finite, shape (n, d).
        labels: By question the class of each segment, shape (n,); empty where unanswered.
        targets: Target of each, shape (n,).
        rng: Of :func:`probe`.
        min_targets: A class with fewer targets is left out; a question with fewer than two
            classes left is not asked.
        options: Further arguments of :func:`probe`, the same for every question.

    Returns:
        The rows of :func:`probe` by question, each with balanced accuracy, the majority's and the
        confusion matrix.
    """
    owners = np.asarray(targets).astype(np.str_)
    found = {}
    for question, classes in labels.items():
        names = np.asarray(classes).astype(np.str_)
        pairs = np.unique(np.stack([names, owners], axis=1), axis=0)[:, 0]
        _, counts = np.unique(pairs[~np.isin(pairs, UNLABELLED)], return_counts=True)
        if (counts >= min_targets).sum() >= 2:
            found[question] = probe(
                vectors, names, owners, rng=rng, min_targets=min_targets, **options
            )
    return found


def folds_by_target(
    code: Ints, targets: Strings, *, folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Deal targets into folds, those of each class in turn, in random order.

    A target with several classes is dealt with its first segment's.

    Args:
        code: Class of each segment, 0, 1, ..., shape (n,).
        targets: Target of each, shape (n,).
        folds: How many.
        rng: Shuffles the targets.

    Returns:
        Fold of each segment, 0 .. folds - 1, shape (n,): the same for all of a target, and the
        numbers of a class's targets in any two folds differ by 1 at most.
    """
    _, first, own = np.unique(targets, return_index=True, return_inverse=True)
    shuffled = rng.permutation(len(first))
    by_class = shuffled[np.argsort(code[first][shuffled], kind="stable")]
    fold = np.empty(len(first), np.int64)
    # dealt on through the classes: starting each at fold 0 would make the first folds larger
    fold[by_class] = np.arange(len(first)) % folds
    return fold[own]


def _checked(
    vectors: Floats, labels: ArrayLike, targets: ArrayLike, probes: Sequence[str]
) -> tuple[Floats, Strings, Strings]:
    vectors = np.asarray(vectors)
    classes, objects = np.asarray(labels).astype(np.str_), np.asarray(targets).astype(np.str_)
    for name, text in (("labels", classes), ("targets", objects)):
        if vectors.ndim != 2 or text.shape != (len(vectors),):
            raise ValueError(
                f"vectors must have shape (n, d) and {name} (n,), not {vectors.shape} and "
                f"{text.shape}"
            )
    if not np.isfinite(vectors).all():
        rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        raise ValueError(
            f"vectors must be finite, but {len(rows)} are not; the first is {rows[0]}"
        )
    unknown = [name for name in probes if name not in ALL_PROBES]
    if unknown:
        raise ValueError(f"unknown probe {unknown[0]!r}; choose from {', '.join(ALL_PROBES)}")
    return vectors, classes, objects


def _checked_split(split: Strings, targets: Strings) -> NDArray[np.bool_]:
    """Which segments are tested; no target may be on both sides."""
    if split.shape != targets.shape:
        raise ValueError(f"split must have shape {targets.shape}, not {split.shape}")
    test = split == "test"
    both = np.intersect1d(targets[test], targets[~test])
    if len(both):
        raise ValueError(
            f"{len(both)} targets are in the test part and outside, such as {str(both[0])!r}; "
            "split by target, so that no object vouches for itself"
        )
    return test


def _choose_classes(
    labels: Strings,
    targets: Strings,
    labelled: NDArray[np.bool_],
    test: NDArray[np.bool_] | None,
    min_targets: int,
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which segments take part, and the classes that do not with their numbers of segments."""

    def n_targets(mask: NDArray[np.bool_]) -> dict[str, int]:
        pairs = np.unique(np.stack([labels[mask], targets[mask]], axis=1), axis=0)
        names, counts = np.unique(pairs[:, 0], return_counts=True)
        return dict(zip(names.tolist(), counts.tolist()))

    trained = n_targets(labelled if test is None else labelled & ~test)
    tested = trained if test is None else n_targets(labelled & test)
    names, sizes = np.unique(labels[labelled], return_counts=True)
    left_out = {
        str(name): int(size)
        for name, size in zip(names, sizes)
        if trained.get(str(name), 0) < min_targets or not tested.get(str(name), 0)
    }
    if len(names) - len(left_out) < 2:
        raise ValueError(
            f"a probe needs two classes of at least {min_targets} targets, but there are "
            f"{len(names) - len(left_out)} of {len(names)} with so many; lower min_targets or "
            "label more"
        )
    return labelled & ~np.isin(labels, list(left_out)), left_out


def _classifier(
    name: str, neighbours: int, trees: int, seed: int, jobs: int
) -> "KNeighborsClassifier | RandomForestClassifier | Pipeline | _Ridge | None":
    if name == "knn":
        return KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute")
    if name == "linear":
        return _linear(PENALTIES[0])
    if name == "ridge":
        return _Ridge(seed)
    if name == "forest":
        return RandomForestClassifier(
            trees, class_weight="balanced_subsample", random_state=seed, n_jobs=jobs
        )
    return None


def _linear(penalty: float) -> Pipeline:
    return make_pipeline(
        StandardScaler(),
        LogisticRegression(C=penalty, class_weight="balanced", max_iter=LINEAR_STEPS),
    )


class _Ridge:
    """``linear``, its penalty chosen by cross-validation by targets."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, vectors: Floats, code: Ints, owners: Strings) -> Pipeline:
        rng = np.random.default_rng(self.seed)
        fold = folds_by_target(code, owners, folds=INNER_FOLDS, rng=rng)
        n = int(code.max()) + 1
        best, chosen = -np.inf, PENALTIES[0]
        for penalty in PENALTIES:
            guess = np.empty_like(code)
            for i in range(INNER_FOLDS):
                own = fold == i
                guess[own] = _linear(penalty).fit(vectors[~own], code[~own]).predict(vectors[own])
            score = scores_of(_confusion(code, guess, n)).balanced_accuracy
            if score > best:
                best, chosen = score, penalty
        return _linear(chosen).fit(vectors, code)


def _predict(
    model: "KNeighborsClassifier | RandomForestClassifier | Pipeline | _Ridge | None",
    vectors: Floats,
    code: Ints,
    owners: Strings,
    parts: list[NDArray[np.bool_]],
) -> NDArray[np.int64]:
    """Class of each tested segment, from a model trained on all but its part; else -1."""
    guess = np.full(len(code), -1, np.int64)
    # the products are small: more threads than one cost thirty times the work on a busy machine
    with threadpool_limits(limits=1):
        for test in parts:
            if model is None:
                guess[test] = np.bincount(code[~test]).argmax()
                continue
            given = (vectors[~test], code[~test])
            if isinstance(model, _Ridge):
                fitted = model.fit(*given, owners[~test])
            else:
                fitted = model.fit(*given)
            guess[test] = fitted.predict(vectors[test])
    return guess


class Scores(NamedTuple):
    """Macro-F1, balanced accuracy and accuracy, as ``ProbeRow`` explains them."""

    macro_f1: float
    balanced_accuracy: float
    accuracy: float


def scores_of(confusion: Floats | Ints) -> Scores:
    """Score a confusion matrix (rows are the truth).

    A class without a true member counts in neither mean.
    """
    hits, true, called = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    there = true > 0
    f1 = 2 * hits[there] / (true + called)[there]
    recall = hits[there] / true[there]
    return Scores(float(f1.mean()), float(recall.mean()), float(hits.sum() / true.sum()))


def _confusion(truth: Ints, guess: Ints, classes: int, weight: Ints | None = None) -> Floats:
    """Count, with weights, how often each class (row) is called each class (column)."""
    counts = np.bincount(truth * classes + guess, weight, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.float64)


def _bounds(
    truth: Ints,
    guess: Ints,
    who: Ints,
    *,
    classes: int,
    replicates: int,
    rng: np.random.Generator,
) -> tuple[Scores, Scores]:
    """Central 95 % of the scores when the targets ``who`` are drawn again with replacement."""
    n = int(who.max()) + 1
    draws = []
    for _ in range(replicates):
        times = np.bincount(rng.integers(n, size=n), minlength=n)
        draws.append(scores_of(_confusion(truth, guess, classes, times[who])))
    if not draws:
        unknown = Scores(np.nan, np.nan, np.nan)
        return unknown, unknown
    low, high = np.quantile(np.array(draws), [0.025, 0.975], axis=0)
    return Scores(*low.tolist()), Scores(*high.tolist())
