"""Truth: metrics against slow definitions, scikit-learn and published figures."""

import re

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from skyvec.realbogus import calibration, evaluation, metrics, pictures
from skyvec.realbogus.metrics import MetricError
from skyvec.report.evaluation import evaluation_page
from skyvec.store import answers_folder


def sample(n=400, seed=0, levels=25):
    """Scores with many ties, reals higher."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(int)
    return np.round((rng.standard_normal(n) + 1.5 * label) * levels / 5), label


def test_auc_counts_pairs_and_half_the_ties():
    score, label = sample()
    reals, bogus = score[label == 1], score[label == 0]
    pairs = np.sign(reals[:, None] - bogus[None])
    assert metrics.auc(score, label) == pytest.approx((pairs.mean() + 1) / 2, abs=1e-12)
    assert metrics.auc(score, label) == pytest.approx(roc_auc_score(label, score), abs=1e-12)


@pytest.mark.parametrize("tpr", [0.3, 0.9, 0.983, 1.0])
def test_fpr_at_tpr_by_trying_every_threshold(tpr):
    score, label = sample(seed=1)
    best = max(t for t in np.unique(score) if np.mean(score[label == 1] >= t) >= tpr - 1e-12)
    wanted = np.mean(score[label == 0] >= best)
    assert metrics.fpr_at_tpr(score, label, tpr) == wanted


def test_a_tenth_of_ten_reals_is_one_and_not_two():
    score = np.arange(20.0)
    label = (score >= 10).astype(int)
    points = metrics.curve(score, label)
    assert points.threshold[points.at_tpr(0.9)] == 11
    assert points.threshold[points.at_tpr(0.7)] == 13
    assert points.threshold[points.at_fpr(0.1)] == 9 and points.at_fpr(0.0) == 9


def test_weights_count_as_repetitions():
    score, label = sample(150, seed=2)
    times = np.random.default_rng(0).integers(0, 4, 150)
    weighed = metrics.curve(score, label, times)
    repeated = metrics.curve(np.repeat(score, times), np.repeat(label, times))
    assert weighed.auc() == pytest.approx(repeated.auc(), abs=1e-12)
    at, also = weighed.at_tpr(0.9), repeated.at_tpr(0.9)
    assert weighed.fpr[at] == pytest.approx(repeated.fpr[also], abs=1e-12)


def test_clopper_pearson_has_the_tails_it_promises():
    low, high = metrics.clopper_pearson(7, 50)
    assert binom.sf(6, 50, low) == pytest.approx(0.025, abs=1e-9)
    assert binom.cdf(7, 50, high) == pytest.approx(0.025, abs=1e-9)
    assert metrics.clopper_pearson(0, 50)[0] == 0 and metrics.clopper_pearson(50, 50)[1] == 1
    # the rule of three, nearly
    assert metrics.clopper_pearson(0, 1000)[1] == pytest.approx(3.7e-3, rel=0.01)


def test_bootstrap_by_object_knows_that_repeats_say_nothing_new():
    rng = np.random.default_rng(3)
    score, label = rng.standard_normal(200), (rng.random(200) < 0.5).astype(int)
    score += label
    group = np.array([f"o{i}" for i in range(200)])

    def interval(*of):
        return metrics.intervals(metrics.resampled(*of, np.random.default_rng(0)))

    once = interval(score, label, group)
    many = [np.repeat(a, 9) for a in (score, label, group)]
    by_object = interval(*many)
    blind = interval(*many[:2], np.arange(1800).astype(str))

    def width(intervals):
        return intervals["auc"][1] - intervals["auc"][0]

    assert width(by_object) == pytest.approx(width(once), rel=1e-9)
    assert width(blind) < 0.5 * width(by_object)


def test_the_bootstrap_of_several_trainings_is_that_of_their_mean():
    rng = np.random.default_rng(4)
    label = (np.arange(600) % 2).astype(int)
    group = np.arange(600).astype(str)
    one = rng.standard_normal(600) + label

    def draws(score):
        return metrics.resampled(score, label, group, np.random.default_rng(0), draws=60)["auc"]

    # three trainings that agree are one, three that do not spread more than their mean's sample
    assert draws(np.stack([one] * 3)) == pytest.approx(draws(one[None]), abs=0.05)
    apart = np.stack([one, one + label, one + 2 * label])
    assert draws(apart).std() > 2 * draws(np.stack([one] * 3)).std()
    assert draws(apart).mean() == pytest.approx(
        np.mean([metrics.auc(s, label) for s in apart]), abs=0.02
    )
    # each of them may have seen a part only
    part = np.where(np.arange(600) // 200 == np.arange(3)[:, None], one, np.nan)
    wanted = [metrics.auc(one[k : k + 200], label[k : k + 200]) for k in (0, 200, 400)]
    assert draws(part).mean() == pytest.approx(np.mean(wanted), abs=0.02)
    with pytest.raises(metrics.MetricError, match="not finite"):
        draws(part[0])


@pytest.mark.slow
def test_bootstrap_intervals_cover_the_truth():
    truth, hits = 0.76024994, 0  # Phi(1 / sqrt 2)
    rng = np.random.default_rng(5)
    for _ in range(100):
        label = (np.arange(300) % 2).astype(int)
        score = rng.standard_normal(300) + label
        group = np.arange(300).astype(str)
        low, high = metrics.intervals(metrics.resampled(score, label, group, rng, draws=100))[
            "auc"
        ]
        hits += low <= truth <= high
    assert 86 <= hits <= 100


def test_best_threshold_by_trying_every_threshold():
    score, label = sample(seed=4)
    found = metrics.best_threshold(score, label, tpr=0.8, prevalence=0.01)
    tried = {}
    for t in np.unique(score):
        tpr, fpr = np.mean(score[label == 1] >= t), np.mean(score[label == 0] >= t)
        if tpr >= 0.8:
            tried[t] = 0.01 * tpr / (0.01 * tpr + 0.99 * fpr)
    assert found["precision"] == pytest.approx(max(tried.values()), abs=1e-12)
    assert tried[found["threshold"]] == pytest.approx(max(tried.values()), abs=1e-12)
    # perfectly divided: nothing is won by losing reals
    for n in range(
        2, 30
    ):  # as many of each at every score: all precisions are one, but for rounding
        level, of = np.repeat(np.arange(float(n)), 2), np.tile([0, 1], n)
        assert metrics.best_threshold(level, of, tpr=0.1, prevalence=0.1)["tpr"] == 1
    perfect = metrics.best_threshold(np.arange(10.0), (np.arange(10) > 4).astype(int))
    assert perfect["threshold"] == 5 and perfect["tpr"] == 1 and perfect["precision"] == 1


def test_bins_hold_every_detection_once():
    score, label = sample(seed=6)
    value = np.random.default_rng(0).uniform(15, 20, len(score))
    value[:3] = np.nan
    rows = metrics.by_bin(score, label, 2.0, value, np.arange(15.0, 21))
    assert sum(row["reals"] + row["bogus"] for row in rows) == len(score) - 3
    inside = (value >= 17) & (value < 18) & (label == 1)
    assert rows[2]["bin"] == "17 to 18"
    assert rows[2]["tpr"] == pytest.approx(np.mean(score[inside] >= 2.0))
    assert rows[2]["tpr_low"] < rows[2]["tpr"] < rows[2]["tpr_high"]
    named = metrics.by_bin(score, label, 2.0, np.where(label, "ccd1", "ccd2"))
    assert [row["bin"] for row in named] == ["ccd1", "ccd2"] and named[0]["fpr"] is None


def test_rates_are_told_by_any_column():
    rng = np.random.default_rng(0)
    columns = {
        "seeing": rng.uniform(2, 4, 800),
        "magpsf": rng.uniform(15, 20, 800),
        "fid": rng.integers(1, 3, 800),
        "band": np.array(["g", "r"])[rng.integers(0, 2, 800)],
        "flat": np.full(800, 3.5),
        "empty": np.full(800, np.nan),
    }
    columns["magpsf"][:40] = np.nan
    assert set(evaluation.bins_of(columns)) == {"seeing"}
    edges = evaluation.bins_of(columns, ["magpsf", "fid", "band", "flat"])
    assert edges["fid"] is None and edges["band"] is None
    score, label = rng.standard_normal(800), np.arange(800) % 2
    rows = metrics.by_bin(score, label, 0.0, columns["magpsf"], edges["magpsf"])
    counts = [row["reals"] + row["bogus"] for row in rows]
    assert len(rows) == evaluation.PARTS and sum(counts) == 760 and np.ptp(counts) <= 2
    whole = metrics.by_bin(score, label, 0.0, columns["flat"], edges["flat"])
    assert [row["reals"] + row["bogus"] for row in whole] == [800]
    for name, words in (("magnitude", "no column 'magnitude'"), ("empty", "nothing is known")):
        with pytest.raises(ValueError, match=words):
            evaluation.bins_of(columns, [name])


def test_confusion_agrees_with_the_curve():
    score, label = sample(seed=7)
    points = metrics.curve(score, label)
    at = points.at_tpr(0.9)
    counts = metrics.confusion(score, label, points.threshold[at])
    assert counts["tp"] == points.reals[at] and counts["fp"] == points.bogus[at]
    assert sum(counts.values()) == len(score)


@pytest.mark.parametrize(
    ("score", "label", "words"),
    [
        ([1.0, np.nan], [0, 1], "not finite"),
        ([1.0, 2.0], [1, 1], "absent"),
        ([1.0, 2.0], [0, 2], "must be 0"),
        ([1.0, 2.0, 3.0], [0, 1], r"\(3,\)"),
    ],
)
def test_what_has_no_curve_is_refused(score, label, words):
    with pytest.raises(MetricError, match=words):
        metrics.curve(np.array(score), np.array(label))


@pytest.mark.real
def test_the_published_figures_of_deep_hits(real_data):
    with np.load(real_data("scores/deephits_test_predictions.npz")) as file:
        cnn, forest = ((file[f"{m}_p"], file[f"{m}_label"]) for m in ("cnn", "rf"))
    assert metrics.auc(*cnn) == pytest.approx(0.99967, abs=5e-6)
    assert metrics.auc(*forest) == pytest.approx(0.99915, abs=1e-5)
    points = metrics.curve(*cnn)
    assert 100 * (1 - points.tpr[points.at_fpr(0.01)]) == pytest.approx(0.21, abs=0.005)


def logistic(n=20_000, seed=0, scale=0.5, shift=-1.0):
    """Scores whose true log-odds are scale * s + shift."""
    rng = np.random.default_rng(seed)
    score = 4 * rng.standard_normal(n)
    return score, (rng.random(n) < expit(scale * score + shift)).astype(int)


def test_temperature_finds_the_truth():
    score, label = logistic()
    fitted = calibration.fit_temperature(score, label)
    assert fitted.odds(np.array([0.0]))[0] == pytest.approx(-1, abs=0.1)
    slope = np.diff(fitted.odds(np.array([-3.0, 7.0])))[0] / 10
    assert slope == pytest.approx(0.5, abs=0.03)
    assert calibration.Calibration(**fitted.table()) == fitted


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_calibrated_probabilities_come_true(kind):
    fitted = calibration.fit(*logistic(), kind)
    score, label = logistic(seed=1)
    p, raw = fitted.probability(score), expit(score)
    assert calibration.calibration_error(p, label) < 0.02
    assert calibration.calibration_error(raw, label) > 0.08
    assert calibration.brier(p, label) < calibration.brier(raw, label)
    order = np.argsort(score)
    assert (np.diff(p[order]) >= 0).all() and p.min() > 0 and p.max() < 1


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_perfect_scores_leave_room_for_doubt(kind):
    score = np.concatenate([np.linspace(-9, -5, 50), np.linspace(5, 9, 50)])
    fitted = calibration.fit(score, (score > 0).astype(int), kind)
    assert 0.9 < fitted.probability(np.array([7.0]))[0] < 0.999
    assert fitted.probability(np.array([-7.0]))[0] < 0.1


def test_reversed_labels_are_refused():
    score, label = logistic(500)
    with pytest.raises(MetricError, match="bogus score higher"):
        calibration.fit_temperature(score, 1 - label)
    with pytest.raises(MetricError, match="all scores are 3 and tell nothing"):
        calibration.fit_temperature(np.full(len(label), 3.0), label)
    with pytest.raises(MetricError, match="unknown calibration"):
        calibration.fit(score, label, "beta")


def test_another_prevalence_moves_probabilities_as_bayes_says():
    fitted = calibration.Calibration("temperature", 0.5, (-1.0, 1.0), (-1.0, 1.0))
    p = fitted.probability(np.array([2.0]))[0]
    ratio = p / (1 - p)
    wanted = ratio * 0.001 / (ratio * 0.001 + 0.999)
    assert fitted.probability(np.array([2.0]), 0.001)[0] == pytest.approx(wanted, rel=1e-9)
    with pytest.raises(MetricError, match="prevalence"):
        fitted.probability(np.array([2.0]), 0.0)


def test_a_night_tells_its_own_prevalence_and_false_candidates():
    rng = np.random.default_rng(8)

    def night(n, share):
        label = (rng.random(n) < share).astype(int)
        return rng.standard_normal(n) + 4 * label - 2, label

    fitted = calibration.fit_temperature(*night(40_000, 0.5))
    score, label = night(200_000, 0.005)
    share = calibration.night_prevalence(fitted, score)
    assert share == pytest.approx(label.mean(), rel=0.1)
    p = fitted.probability(score, share)
    told = calibration.expected_false(p, score, 0.5)
    assert told == pytest.approx(((score >= 0.5) & (label == 0)).sum(), rel=0.15)
    # without the night's own prevalence the promise is far off
    assert calibration.expected_false(fitted.probability(score), score, 0.5) < 0.1 * told


def test_a_foreign_night_is_told_from_one_with_other_shares():
    rng = np.random.default_rng(9)
    real, bogus = rng.standard_normal(4000) + 2, rng.standard_normal(4000) - 2
    known = [calibration.quantiles(real), calibration.quantiles(bogus)]
    for share in (0.0, 1e-3, 0.3, 1.0):
        label = rng.random(20_000) < share
        night = rng.standard_normal(20_000) + np.where(label, 2, -2)
        assert calibration.unlike(night, *known) < 0.03
    for night in (rng.standard_normal(2000) - 4, rng.standard_normal(2000)):
        assert calibration.unlike(night, *known) > 2 * calibration.UNLIKE
    assert calibration.unlike(np.full(100, 50.0), *known) == pytest.approx(1)
    # a short night is as far from any mixture by chance, and is believed all the same
    for n in (5, 20, 60, 200):
        label = rng.random((200, n)) < 0.05
        nights = rng.standard_normal((200, n)) + np.where(label, 2, -2)
        foreign = [calibration.unlike(one, *known) > calibration.still_alike(n) for one in nights]
        assert np.mean(foreign) < 0.05
    assert calibration.still_alike(10**6) == pytest.approx(calibration.UNLIKE, rel=1e-4)
    assert calibration.unlike(rng.standard_normal(60), *known) > calibration.still_alike(60)


def test_an_evaluation_becomes_one_page_that_tells_its_numbers(tmp_path):
    rng = np.random.default_rng(8)
    label = (np.arange(3000) % 5 == 0).astype(np.int64)
    score = 4 * label - 2 + 1.5 * rng.standard_normal(3000)
    columns = {
        "snr": rng.uniform(5, 200, 3000),
        "detector": np.array([f"<ccd{i}>" for i in range(30)])[rng.integers(0, 30, 3000)],
        "true_magnitude": np.where(label == 1, rng.uniform(14, 18, 3000), np.nan),
    }
    score[columns["detector"] == "<ccd7>"] += 3  # a bad one: bogus look real
    point = evaluation.operating_point(score, label)
    group = np.array([f"o{i // 2}" for i in range(3000)])
    found = evaluation.evaluate(score, label, group, columns, point, rng, draws=20)
    folder = answers_folder(tmp_path, "evaluation", "net")
    with pytest.raises(FileNotFoundError, match=r"net was not measured on .* evaluate net"):
        evaluation_page(tmp_path, "net")
    (folder / "by_gone.png").write_bytes(b"of an earlier evaluation")
    evaluation.write(folder, found, score, label, "net")
    assert not (folder / "by_gone.png").exists()
    text = evaluation_page(tmp_path, "net").read_text()
    assert text.count("data:image/png") == len(list(folder.glob("*.png"))) == 6
    assert f"{found['summary']['auc']:.4f}" in text and "50 or more" in text
    named = re.findall(r"<td>&lt;(ccd\d+)&gt;</td>", text)
    assert "<ccd" not in text and named[0] == "ccd7" and len(named) == 10
    at = found["confusion"]["chosen"]
    assert f'<td>the frozen threshold</td><td class="number">{at["tp"]:,}</td>' in text


def test_pictures_of_rates_leave_out_what_no_bin_has():
    rows = metrics.by_bin(
        np.array([1.0, 2, 3]), np.array([1, 1, 1]), 1.5, np.array(["a", "b", "b"])
    )
    panels = pictures.rates_picture(rows, "kind", named=True).axes
    assert [axes.get_xlabel() for axes in panels] == ["TPR: reals kept"]
    both = metrics.by_bin(np.array([1.0, 2, 3]), np.array([1, 0, 1]), 1.5, np.array([1, 2, 3]))
    drawn = pictures.rates_picture(both, "x [mag]").axes
    assert [axes.get_ylabel() for axes in drawn] == ["TPR: reals kept", "FPR: bogus kept"]
    assert drawn[1].get_ylim()[0] == 0 and drawn[1].get_xlabel() == "x [mag]"


def test_the_trade_off_of_a_perfect_classifier_says_so():
    score, label = np.arange(10.0), np.repeat([0, 1], 5)
    figure = pictures.trade_off({"net": (score, label)})
    figure.draw_without_rendering()
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert told == ["net (AUC 1.00000): no error at all", "TPR 0.9 and 0.983"]
    shown = pictures.histograms(score, label, 4.5).axes[0].get_legend().get_texts()
    assert "threshold 4.50" in [text.get_text() for text in shown]
