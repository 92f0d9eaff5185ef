"""Probes of frozen vectors: truth (closed form, planted classes), rival (a loop), contract."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyvec.analysis import probes
from skyvec.analysis.probes import folds_by_target, probe, scores_of

QUICK = {"trees": 10, "replicates": 50}


def planted(rng, *, per_class=40, classes=3, width=6, noise=0.3, segments=2):
    """Classes around directions of their own, each target seen ``segments`` times."""
    centres = rng.normal(size=(classes, width))
    code = np.repeat(np.arange(classes), per_class)
    own = centres[code] + noise * rng.normal(size=(len(code), width))
    vectors = np.repeat(own, segments, axis=0) + 0.01 * rng.normal(
        size=(len(code) * segments, width)
    )
    labels = np.array(["RR", "EA", "MIRA", "ROT"])[np.repeat(code, segments)]
    targets = np.repeat([f"T{i}" for i in range(len(code))], segments)
    return vectors, labels, targets


def test_scores_have_their_closed_form():
    got = scores_of(np.array([[8, 2], [1, 4]]))
    assert got.macro_f1 == pytest.approx((2 * 8 / (10 + 9) + 2 * 4 / (5 + 6)) / 2)
    assert got.balanced_accuracy == pytest.approx((8 / 10 + 4 / 5) / 2)
    assert got.accuracy == pytest.approx(12 / 15)


def test_a_class_without_a_true_member_counts_in_no_mean():
    assert scores_of(np.array([[5, 5], [0, 0]])) == pytest.approx((2 / 3, 0.5, 0.5))


def test_planted_classes_are_found_by_all_and_the_majority_knows_nothing():
    rng = np.random.default_rng(1)
    rows = {row.probe: row for row in probe(*planted(rng), rng=rng, **QUICK)}
    assert list(rows) == ["majority", "knn", "linear", "forest"]
    for name in ("knn", "linear", "forest"):
        assert rows[name].macro_f1 > 0.95, name
        assert rows[name].macro_f1_low <= rows[name].macro_f1 <= rows[name].macro_f1_high
    assert rows["majority"].balanced_accuracy == pytest.approx(1 / 3)
    assert rows["knn"].classes == ("EA", "MIRA", "RR")
    assert (rows["knn"].confusion.sum(axis=1) == 80).all()
    assert (rows["knn"].segments, rows["knn"].targets) == (240, 120)


def test_a_penalty_chosen_inside_reads_wide_codes_of_few_labels_better():
    # four classes in four of sixty columns, ninety objects to learn from, many to ask about
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        centres = np.zeros((4, 60))
        centres[:, :4] = rng.normal(size=(4, 4))
        code = np.concatenate([np.arange(90), np.arange(2_000)]) % 4
        vectors = centres[code] + rng.normal(size=(len(code), 60))
        linear, ridge = probe(
            vectors, code.astype(np.str_), np.arange(len(code)), rng=rng,
            split=np.repeat(["train", "test"], [90, 2_000]), probes=["linear", "ridge"],
            replicates=0,
        )  # fmt: skip
        assert (linear.probe, ridge.probe) == ("linear", "ridge")
        gains.append(ridge.balanced_accuracy - linear.balanced_accuracy)
    assert np.mean(gains) > 0.015
    (row,) = probe(*planted(rng), rng=rng, probes=["ridge"], **QUICK)
    assert row.balanced_accuracy > 0.95


def test_the_penalty_is_chosen_by_targets():
    # each target at a place of its own: a choice by segments would see each one's twin and prefer
    # learning by heart
    rng = np.random.default_rng(6)
    targets = np.repeat(np.arange(120), 2)
    code = np.repeat(np.arange(120) % 2, 2)
    places = rng.normal(size=(120, 40))[targets]
    places[:, 0] += 0.5 * (2 * code - 1)
    fitted = probes._Ridge(0).fit(places, code, targets.astype(np.str_))
    leaky = probes._Ridge(0).fit(places, code, np.arange(240).astype(np.str_))
    assert fitted[-1].C < leaky[-1].C


def test_labels_without_meaning_are_not_found():
    rng = np.random.default_rng(2)
    vectors, labels, targets = planted(rng, per_class=100)
    per_target = rng.permutation(labels[::2])
    rows = probe(vectors, np.repeat(per_target, 2), targets, rng=rng, **QUICK)
    for row in rows[1:]:
        assert row.balanced_accuracy_low < 1 / 3 < row.balanced_accuracy_high, row.probe


def test_no_target_vouches_for_itself():
    # each target sits alone at its own place: only its other segment could tell its class
    rng = np.random.default_rng(3)
    places = rng.normal(size=(200, 50))
    vectors = np.repeat(places, 2, axis=0)
    labels = np.repeat(rng.choice(["A", "B"], 200), 2)
    targets = np.repeat(np.arange(200), 2)
    (honest,) = probe(vectors, labels, targets, rng=rng, probes=["knn"], neighbours=1, **QUICK)
    (leaky,) = probe(
        vectors, labels, np.arange(400), rng=rng, probes=["knn"], neighbours=1, **QUICK
    )
    assert honest.accuracy < 0.65
    assert leaky.accuracy > 0.8


def test_neighbours_equal_a_plain_loop():
    rng = np.random.default_rng(4)
    vectors, labels, targets = planted(rng, noise=1.0, segments=1)
    split = np.where(rng.random(len(labels)) < 0.3, "test", "train")
    (row,) = probe(
        vectors, labels, targets, rng=rng, split=split, probes=["knn"], neighbours=1, **QUICK
    )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    train = np.flatnonzero(split == "train")
    right = 0
    for i in np.flatnonzero(split == "test"):
        right += labels[train[np.argmax(unit[train] @ unit[i])]] == labels[i]
    assert row.accuracy == pytest.approx(right / (split == "test").sum())
    assert row.segments == (split == "test").sum()


def test_the_interval_is_that_of_a_binomial():
    rng = np.random.default_rng(5)
    truth = np.zeros(400, int)
    guess = (np.arange(400) < 80).astype(int)  # 80 % right
    low, high = probes._bounds(truth, guess, np.arange(400), classes=2, replicates=2000, rng=rng)
    width = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert (low.accuracy, high.accuracy) == pytest.approx((0.8 - width, 0.8 + width), abs=0.01)


def test_the_interval_counts_targets_and_not_segments():
    rng = np.random.default_rng(6)
    truth = np.zeros(400, int)
    guess = np.repeat(np.arange(40) < 8, 10).astype(int)
    who = np.repeat(np.arange(40), 10)
    low, high = probes._bounds(truth, guess, who, classes=2, replicates=1000, rng=rng)
    assert high.accuracy - low.accuracy > 2 * 1.6 * np.sqrt(0.8 * 0.2 / 40)


def test_rare_classes_and_unlabelled_segments_are_left_out_and_said_so():
    rng = np.random.default_rng(7)
    vectors, labels, targets = planted(rng, segments=1)
    labels = labels.astype("U8")
    labels[:4], labels[4:10] = "RARE", ""
    (row,) = probe(vectors, labels, targets, rng=rng, probes=["knn"], **QUICK)
    assert row.left_out == {"RARE": 4}
    assert row.segments == 110
    assert "RARE" not in row.classes


def test_the_same_generator_gives_the_same_rows():
    def once():
        rng = np.random.default_rng(8)
        return probe(*planted(rng, noise=1.0), rng=rng, **QUICK)

    for a, b in zip(once(), once()):
        assert a.confusion.tolist() == b.confusion.tolist()
        assert a.macro_f1_low == b.macro_f1_low


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=8, max_size=60),
    st.integers(2, 5),
    st.integers(0, 9),
)
def test_folds_keep_targets_whole_and_classes_even(targets, folds, seed):
    classes, repeats = np.array(targets).T
    code = np.repeat(classes, repeats)
    target = np.repeat(np.arange(len(classes)), repeats).astype(str)
    fold = folds_by_target(code, target, folds=folds, rng=np.random.default_rng(seed))
    assert all(len(set(fold[target == t])) == 1 for t in set(target))
    first = np.unique(target, return_index=True)[1]
    for c in set(classes):
        per_fold = np.bincount(fold[first][code[first] == c], minlength=folds)
        assert np.ptp(per_fold) <= 1


def test_what_cannot_be_probed_is_refused():
    rng = np.random.default_rng(9)
    vectors, labels, targets = planted(rng)
    with pytest.raises(ValueError, match="unknown probe 'svm'; choose from majority"):
        probe(vectors, labels, targets, rng=rng, probes=["svm"])
    with pytest.raises(ValueError, match="two classes of at least 10 targets"):
        probe(vectors, ["A"] * len(labels), targets, rng=rng)
    with pytest.raises(ValueError, match="in the test part and outside, such as 'T0'"):
        probe(vectors, labels, targets, rng=rng, split=["test", "train"] * 120)
    with pytest.raises(ValueError, match="labels"):
        probe(vectors, labels[:-1], targets, rng=rng)
    with pytest.raises(ValueError, match="folds must be between"):
        probe(vectors, labels, targets, rng=rng, folds=11)
    vectors[3, 2] = np.nan
    with pytest.raises(ValueError, match="must be finite, but 1 are not; the first is 3"):
        probe(vectors, labels, targets, rng=rng)
