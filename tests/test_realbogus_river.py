"""Simulated sky: stamps of a survey from training to a scored night, stopped and gone on."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from skyvec.checkpoint import load_arrays
from skyvec.cli import app
from skyvec.prep.stamps import normalise
from skyvec.realbogus import gallery, operating, river, samples, score
from skyvec.realbogus.calibration import Calibration
from skyvec.realbogus.demo import simulate_survey
from skyvec.realbogus.train import Draw
from skyvec.schema import Catalog, Stamps
from skyvec.store import StoreError, read_catalog, read_manifest, read_objects, sha256

RECIPE = {
    "data": {"normalise": "asinh"},
    "model": {"name": "simple", "width": 8},
    "train": {"steps": 40, "batch": 32, "lr": 3e-3, "validate_every": 20},
}


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Small tensors gain nothing from threads."""


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return simulate_survey(tmp_path_factory.mktemp("rb") / "learn", 500, noise=0.04, seed=1)


@pytest.fixture(scope="module")
def trained(survey):
    river.train_survey(survey, RECIPE, "slow", threads=1)
    river.train_survey(
        survey, {**RECIPE, "model": {"name": "simple", "width": 4}}, "fast", threads=1
    )
    folder = survey / "models" / "slow"
    operating.freeze(
        folder,
        operating.part_of(folder, survey, "valid"),
        screen=survey / "models" / "fast",
    )
    return survey


def test_the_survey_says_what_was_simulated_and_how_it_was_labelled(survey):
    catalog = read_catalog(survey)
    wrong = (catalog.columns["label"] == "real") != catalog.columns["is_real"]
    assert wrong.sum() == 2 * round(0.04 * 250)
    assert simulate_survey(survey, 500, noise=0.04, seed=1) == survey  # there already
    for n, seed in ((600, 1), (500, 2)):
        with pytest.raises(StoreError, match=r"holds other stamps \(simulated 500 as sim"):
            simulate_survey(survey, n, noise=0.04, seed=seed)
    assert len(read_catalog(survey)) == 500


def test_samples_are_chosen_by_hash_and_labels_may_be_overruled(survey):
    few = samples.read_samples(survey, Draw(stamps=50))
    more = samples.read_samples(survey, Draw(stamps=400, normalise="asinh"))
    assert len(few) == 50 and set(few.id) < set(more.id)
    names = sorted(set(more.detector))
    one = samples.read_samples(survey, Draw(detectors=(names[0],)))
    assert set(one.detector) == {names[0]}
    other = samples.read_samples(survey, Draw(stamps=50), labels={few.id[0]: -1})
    assert other.label[0] == -1 and np.array_equal(other.label[1:], few.label[1:])
    with pytest.raises(samples.SampleError, match="no detector"):
        samples.read_samples(survey, Draw(detectors=("nowhere",)))
    with pytest.raises(samples.SampleError, match="no column"):
        samples.read_samples(survey, Draw(label="truth"))


def test_labels_in_words_numbers_and_booleans():
    assert samples.labels_of(np.array(["Real", "bogus", "unsure"])).tolist() == [1, 0, -1]
    assert samples.labels_of(np.array([True, False])).tolist() == [1, 0]
    assert samples.labels_of(np.array([1.0, 0.0, np.nan])).tolist() == [1, 0, -1]
    with pytest.raises(samples.SampleError, match="no real or bogus"):
        samples.labels_of(np.array(["SN", "AGN"]))


def test_a_night_without_labels_can_be_adapted_to_and_is_told_when_it_is_scored(survey, tmp_path):
    night = simulate_survey(tmp_path / "night", 120, reals=0.3, observed=True, seed=9)
    catalog, stamps = read_objects(night, "part-00000.parquet", Stamps)
    named = Catalog(catalog.id, catalog.target, catalog.ra, catalog.dec, {})
    samples.write_survey(tmp_path / "blind", stamps, named, "night")
    (tmp_path / "r.toml").write_text(
        '[data]\nnormalise = "asinh"\n[model]\nname = "simple"\nwidth = 4\n[loss]\nmmd = 0.5\n'
        "[train]\nsteps = 8\nbatch = 32\nvalidate_every = 4\n"
    )
    run = CliRunner()
    words = ["realbogus", "train", str(tmp_path / "r.toml"), "--survey", str(survey)]
    words += ["--name", "adapted", "--threads", "1"]
    alone = run.invoke(app, words)
    assert alone.exit_code == 1 and "--target" in alone.output
    made = run.invoke(app, [*words, "--target", str(tmp_path / "blind")])
    assert made.exit_code == 0, made.output
    facts = json.loads((survey / "models" / "adapted" / "scores.json").read_text())["stamps"]
    assert facts["target"] == 120 - round(0.15 * 120)
    assert set(river.adapted_to(survey / "models" / "adapted")) == set(catalog.id)
    folder = survey / "models" / "adapted"
    assert "adapted to 120 of these 120" in river.overlap(folder, catalog.id)[0]
    assert not river.overlap(folder, np.array(["another"]))


def test_a_detector_may_have_a_network_of_its_own(survey, tmp_path):
    (tmp_path / "r.toml").write_text(
        '[data]\nstamps = 400\n[model]\nname = "simple"\nwidth = 4\n'
        "[train]\nsteps = 2\nbatch = 8\nvalidate_every = 2\n"
    )
    detectors = read_catalog(survey).columns["detector"]
    some = [str(name) for name in np.unique(detectors)[:40]]
    words = ["realbogus", "train", str(tmp_path / "r.toml"), "--survey", str(survey)]
    run = CliRunner()
    made = run.invoke(app, [*words, *(w for name in some for w in ("--detector", name)),
                            "--name", "few"])  # fmt: skip
    assert made.exit_code == 0, made.output
    recipe, _, scores = load_arrays(survey / "models" / "few")
    assert recipe["data"]["detectors"] == some
    counts = scores["stamps"]
    assert (
        counts["real"] + counts["bogus"] + counts["validation"] <= np.isin(detectors, some).sum()
    )
    wrong = run.invoke(app, [*words, "--detector", "nowhere"])
    assert wrong.exit_code == 1 and "no detector 'nowhere'" in wrong.output


def test_what_cannot_be_scored_says_why(survey):
    _, stamps = read_objects(survey, "part-00000.parquet", Stamps)
    pixels = stamps.pixels[:4].copy()
    pixels[:] = np.random.default_rng(0).standard_normal(pixels.shape)
    pixels[1, 1] = np.nan
    pixels[2, 2, 13:16, 13:16] = -3.4028235e38
    pixels[3, 0, :5] = np.nan  # a few rows beyond the edge: still scored
    reasons = samples.faults(pixels, 29).tolist()
    assert reasons == [
        "",
        "most of the reference is missing",
        "nothing measured at the detection",
        "",
    ]
    judge = score.Judge(lambda x: x.sum((1, 2, 3)).astype(float), "minmax", 29, "h")
    found = score.score_block(pixels, judge)
    assert np.isfinite(found.score).tolist() == [True, False, False, True]


def test_a_cascade_decides_only_what_the_screen_lets_through():
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((40, 3, 29, 29)).astype(np.float32)
    seen = []

    def slow(x):
        seen.append(len(x))
        return x.mean((1, 2, 3)).astype(float)

    def fast(x):
        return x[:, 2].max((1, 2)).astype(float) + x[:, 0].mean((1, 2))

    screen, judge = score.Judge(fast, "asinh", 21, "a"), score.Judge(slow, "minmax", 29, "b")
    alone = score.score_block(pixels, judge)
    at = float(np.median(fast(normalise(pixels, "asinh", side=21))))
    both = score.score_block(pixels, judge, screen, at)
    passed = both.reason == ""
    assert 0 < passed.sum() == seen[-1] < 40 and seen[0] == 40
    assert np.array_equal(both.score[passed], alone.score[passed])
    assert np.isnan(both.score[~passed]).all() and (both.reason[~passed] == "screened").all()
    assert np.isfinite(both.screen).all()


def test_a_screen_loses_no_more_than_it_may():
    rng = np.random.default_rng(1)
    label = np.repeat([1, 0], 5000)
    deep = rng.standard_normal(10_000) + 4 * label
    quick = deep + rng.standard_normal(10_000)
    passing = (label == 1) & (deep >= 2.0)
    for allowed in (1e-3, 0.01):
        at = score.screen_threshold(quick, deep, label, 2.0, lost=allowed)
        loss = score.screen_loss(quick, deep, label, 2.0, at)
        lost = (quick[passing] < at).sum()
        assert (loss["reals"], loss["lost"]) == (passing.sum(), lost)
        # as many as are surely few: the next real would be one too many
        n = passing.sum()
        assert binom.cdf(lost, n, allowed) < 0.05 < binom.cdf(lost + 1, n, allowed)
        assert binom.cdf(lost, n, loss["at_most"]) == pytest.approx(0.05)
    few = passing & (np.arange(len(label)) < 300)
    at = score.screen_threshold(quick[few], deep[few], label[few], 2.0)
    assert at == quick[few].min()  # nothing is sure, so all pass
    with pytest.raises(ValueError, match="no real passes"):
        score.screen_threshold(quick, deep, label, 99.0)


def test_a_night_is_scored_once_and_goes_on_where_it_was(trained, tmp_path, monkeypatch):
    folder = trained / "models" / "slow"
    judge = operating.judge(folder)
    monkeypatch.setattr(samples, "SHARD", 100)
    night = simulate_survey(tmp_path / "night", 300, reals=0.1, observed=True, seed=5)
    calibration = Calibration("temperature", 0.5, (-1.0, 1.0), (-1.0, 1.0))
    whole = score.score_survey(night, tmp_path / "a", judge, calibration=calibration)
    assert whole["received"] == 300 == whole["scored"] + whole["screened"] + whole["flagged"]

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == 200:
            raise Killed

    with pytest.raises(Killed):
        score.score_survey(night, tmp_path / "b", judge, calibration=calibration, progress=kill)
    assert len(read_manifest(tmp_path / "b")["shards"]) == 2
    calls = []
    again = score.score_survey(
        night, tmp_path / "b", judge, calibration=calibration,
        progress=lambda done, total: calls.append(done), workers=2,
    )  # fmt: skip
    assert again == whole and calls == [300]
    for shard in read_manifest(tmp_path / "a")["shards"]:
        one, two = (pq.read_table(tmp_path / side / shard["file"]) for side in "ab")
        for name in ("score", "screen", "probability"):
            assert np.array_equal(one[name].to_numpy(), two[name].to_numpy(), equal_nan=True)
        assert one.select(["id", "reason"]).equals(two.select(["id", "reason"]))
    other = score.Judge(judge.engine, judge.scale, judge.side, "another")
    with pytest.raises(StoreError, match="other networks"):
        score.score_survey(night, tmp_path / "b", other)


def plain_night(folder, n=40):
    """A night of noise in two shards, and a judge that costs nothing."""
    rng = np.random.default_rng(0)
    ids, none = np.array([f"s{i:03d}" for i in range(n)]), np.full(n, np.nan)
    exposure = np.array([f"e{i // 4}" for i in range(n)])
    pixels = rng.standard_normal((n, 3, 29, 29)).astype(np.float32)
    stamps = Stamps(ids, pixels, np.full(n, "d0"), exposure, ids)
    label = np.where(np.arange(n) < n // 2, np.where(np.arange(n) % 2, "real", "bogus"), "")
    samples.write_survey(folder, stamps, Catalog(ids, ids, none, none, {"label": label}), "night")
    return folder, score.Judge(lambda x: 99 * x.mean((1, 2, 3)).astype(float), "minmax", 29, "h")


def test_stamps_of_another_source_are_added_and_those_of_the_same_are_not(tmp_path):
    night, _ = plain_night(tmp_path / "night")
    catalog, stamps = read_objects(night, "part-00000.parquet", Stamps)
    ids = np.char.add("b", stamps.id)
    renamed = Stamps(ids, stamps.pixels, stamps.detector, stamps.exposure, ids)
    second = Catalog(ids, ids, catalog.ra, catalog.dec, {"label": catalog.columns["label"]})
    for _ in range(2):
        samples.write_survey(night, renamed, second, "another night")
        assert sorted(read_catalog(night).id.tolist()) == sorted([*stamps.id, *ids])


def test_a_shard_without_labels_goes_with_one_that_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "SHARD", 20)
    night, _ = plain_night(tmp_path / "night")
    label = samples.read_samples(night, Draw()).label
    assert [(label == k).sum() for k in (1, 0, -1)] == [10, 10, 20]
    catalog, stamps = read_objects(night, "part-00001.parquet", Stamps)
    samples.write_survey(tmp_path / "blind", stamps, catalog, "night")
    with pytest.raises(samples.SampleError, match="no real or bogus"):
        samples.read_samples(tmp_path / "blind", Draw())
    assert len(samples.read_samples(tmp_path / "blind", Draw(), labelled=False)) == 20


def test_probabilities_follow_the_calibration_and_one_process_scores_at_a_time(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(samples, "SHARD", 20)
    night, judge = plain_night(tmp_path / "night")
    old, new = (Calibration("temperature", 0.5, (-1.0, 1.0), (-k, k)) for k in (1.0, 3.0))

    class Killed(Exception):
        pass

    def meddle(done, total):
        with pytest.raises(StoreError, match="another skyvec realbogus score"):
            score.score_survey(night, tmp_path / "out", judge, calibration=old)
        raise Killed

    with pytest.raises(Killed):
        score.score_survey(night, tmp_path / "out", judge, calibration=old, progress=meddle)
    assert len(read_manifest(tmp_path / "out")["shards"]) == 1
    for calibration, prevalence in ((new, 0.01), (new, 0.2), (None, None)):
        score.score_survey(
            night, tmp_path / "out", judge, calibration=calibration, prevalence=prevalence
        )
        for shard in read_manifest(tmp_path / "out")["shards"]:
            assert shard["sha256"] == sha256(tmp_path / "out" / shard["file"])
            table = pq.read_table(tmp_path / "out" / shard["file"])
            found, known = table["probability"].to_numpy(), table["score"].to_numpy()
            assert len(known) == 20 and np.isfinite(known).all()
            if calibration is None:
                assert np.isnan(found).all()
            else:
                assert np.array_equal(found, calibration.probability(known, prevalence))
    # a survey that has lost a shard is another one
    manifest = night / "objects" / "manifest.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**facts, "shards": facts["shards"][:1]}))
    with pytest.raises(StoreError, match="has changed"):
        score.score_survey(night, tmp_path / "out", judge)


def test_a_turned_score_is_the_mean_of_eight_and_frozen_with_the_threshold(trained):
    fast = trained / "models" / "fast"
    part = operating.part_of(fast, trained, "valid")
    one, mean = (operating.judge(fast, turns=turns) for turns in (False, True))
    assert one.hash != mean.hash  # scores of both do not mix in a folder
    got = mean.engine(part.pixels)
    ways = [np.rot90(part.pixels, k, (2, 3)) for k in range(4)]
    each = [one.engine(np.ascontiguousarray(w)) for w in [*ways, *(w[..., ::-1] for w in ways)]]
    assert np.allclose(got, np.mean(each, axis=0)) and np.std(each, axis=0).max() > 1e-3
    for same in (ways[1], ways[2][..., ::-1]):
        assert np.allclose(mean.engine(np.ascontiguousarray(same)), got, atol=1e-5)
    point = operating.freeze(fast, part, turns=True)
    assert operating.frozen(fast)["turns"] is True
    passed = got >= point["threshold"]
    assert passed[part.label == 1].mean() == pytest.approx(point["tpr"])


def test_only_the_test_part_counts_however_the_surveys_path_is_written(trained, monkeypatch):
    monkeypatch.chdir(trained.parent)
    monkeypatch.setattr(river, "write", lambda *arguments: None)  # pictures take seconds
    n = len(operating.part_of(trained / "models" / "fast", trained, "test"))
    assert 0 < n < 150
    for home in (trained, trained / ".." / "learn"):
        told = river.evaluate_model(type(trained)("learn"), "fast", home=home)[0]
        assert sum(int(part.split()[0]) for part in told.split(", ")) == n
    words = ["realbogus", "threshold", "fast", "--survey", "learn", "--from"]
    said = [CliRunner().invoke(app, [*words, home]).output for home in ("learn", str(trained))]
    assert "threshold" in said[0] and said[0] == said[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train R -s S --device banana", "device='banana'"),
        ("train R -s S --suspects drop", "keep, remove, unlabel, flip"),
        ("train R -s S --target S", "another instrument"),
        ("train R -s S --verdicts V", "line 2: there is no detection 'nobody'"),
        ("train R -s A", "label in the recipe"),
        ("suspects R -s S --how best", "argmax, threshold, confident"),
        ("suspects R -s S --how threshold --level 2", "level=2.0"),
        ("threshold none -s S", "no model 'none'"),
        ("threshold slow -s S --screen slow", "cannot screen for itself"),
        ("score slow -s A", "--from"),
        ("score slow -s B --from S", "is no survey"),
        ("score slow -s S --prevalence 2", "prevalence=2.0"),
        ("score slow -s S --prevalence nan", "prevalence=nan"),
        ("evaluate slow -s B --from S", "is no survey"),
    ],
)
def test_what_is_asked_for_wrongly_is_told_in_a_line_before_any_work(
    trained, tmp_path, monkeypatch, words, told
):
    def work(*arguments, **options):
        raise AssertionError("work was begun")

    for name in ("train_on", "out_of_fold", "score_survey"):
        monkeypatch.setattr(river, name, work)
    (tmp_path / "r.toml").write_text('[model]\nname = "simple"\n')
    (tmp_path / "v.csv").write_text("id,verdict\nnobody,real\n")
    catalog, stamps = read_objects(trained, "part-00000.parquet", Stamps)
    rows = np.arange(3)
    columns = {f"c{i}": np.zeros(3) for i in range(40)}
    few = Catalog(
        *(getattr(catalog.take(rows), k) for k in ("id", "target", "ra", "dec")), columns
    )
    samples.write_survey(tmp_path / "alerts", stamps.take(rows), few, "alerts")
    places = {"R": "r.toml", "V": "v.csv", "A": "alerts", "B": "absent"}
    full = {**{k: str(tmp_path / v) for k, v in places.items()}, "S": str(trained)}
    result = CliRunner().invoke(app, ["realbogus", *(full.get(w, w) for w in words.split())])
    assert result.exit_code == 1 and told in result.output, result.output
    assert result.output.startswith("error: ") and len(result.output) < 400
    assert result.output.count("\n") == 1 and not (tmp_path / "absent").exists()


def test_a_night_tells_why_stamps_are_flagged_and_when_its_share_of_reals_is_a_limit(
    trained, tmp_path
):
    night, _ = plain_night(tmp_path / "plain")
    catalog, stamps = read_objects(night, "part-00000.parquet", Stamps)
    pixels = stamps.pixels.copy()
    pixels[:3, 1], pixels[3, 2] = np.nan, -3.4028235e38
    holed = Stamps(stamps.id, pixels, stamps.detector, stamps.exposure, stamps.object)
    samples.write_survey(tmp_path / "night", holed, catalog, "night")
    fast = trained / "models" / "fast"
    point = operating.freeze(fast, operating.part_of(fast, trained, "valid"))
    # a calibration to which all of this is bogus, beyond any doubt that a night can raise
    sure = Calibration("temperature", 0.5, (-1.0, 1.0), (-300.0, -299.0)).table()
    (fast / operating.FILE).write_text(
        json.dumps({**point, "calibration": sure, "scores": {}, "threshold": -99.0})
    )
    lines = river.score_night(tmp_path / "night", "fast", home=trained)
    assert "by their scores none of these detections are real" in lines[3]
    assert "= 36 scored + 0 screened out + 4 flagged" in lines[0]
    assert lines[1:3] == [
        "flagged: 3 most of the reference is missing",
        "flagged: 1 most of the difference is missing",
    ]
    told = json.loads((tmp_path / "night/answers/scores-fast/night.json").read_text())
    assert sum(told["reasons"].values()) == 4 == told["flagged"]


def test_a_night_of_which_all_was_refused_has_no_scores_and_no_error(trained, tmp_path):
    (tmp_path / "stamps.npy").write_bytes(b"nothing")
    run = CliRunner()
    assert run.invoke(app, ["ingest", str(tmp_path), "-s", str(tmp_path / "night")]).exit_code == 0
    words = ["slow", "-s", str(tmp_path / "night"), "--from", str(trained)]
    told = run.invoke(app, ["realbogus", "score", *words])
    assert told.exit_code == 0 and "0 received = 0 scored" in told.output, told.output
    for verb in ("evaluate", "threshold"):
        told = run.invoke(app, ["realbogus", verb, *words])
        assert told.exit_code == 1 and "holds no stamp" in told.output, told.output


@pytest.mark.slow
def test_train_threshold_score_and_evaluate_from_the_shell(trained, tmp_path):
    night = simulate_survey(tmp_path / "night", 400, reals=0.2, observed=True, seed=6)
    run = CliRunner()

    def skyvec(*arguments):
        result = run.invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    out = skyvec("realbogus", "evaluate", "slow", "--survey", night, "--from", trained,
                 "--by", "star_distance")  # fmt: skip
    assert "warning" not in out and "AUC" in out and "FPR at TPR 0.983" in out
    found = json.loads((night / "answers" / "evaluation-slow" / "evaluation.json").read_text())
    assert found["summary"]["reals"] > 70 and "magnitude" in found["by"]
    assert len(found["by"]["star_distance"]) == 8
    assert {"trade_off.png", "reliability.png", "by_magnitude.png"} <= {
        p.name for p in (night / "answers" / "evaluation-slow").iterdir()
    }
    skyvec("realbogus", "score", "slow", "--survey", night, "--from", trained, "--workers", 1)
    told = json.loads((night / "answers" / "scores-slow" / "night.json").read_text())
    assert told["received"] == 400 and told["screened"] > 0
    skyvec("realbogus", "threshold", "fast", "--survey", trained, "--tpr", 0.95)
    assert json.loads((trained / "models/fast/operating.json").read_text())["tpr"] >= 0.95
    wrong = run.invoke(app, ["realbogus", "score", "none", "--survey", str(night)])
    assert wrong.exit_code == 1 and "error" in wrong.output


@pytest.mark.slow
def test_suspects_gallery_verdicts_and_the_second_stage(survey, tmp_path):
    folder, n, total = river.find_suspects(survey, RECIPE, "doubts", shown=12, threads=1)
    assert 0 < n < total <= 500
    page = (folder / "gallery.html").read_text()
    assert page.count("<article") == 12 and page.count("data:image/png;base64") == 12
    assert (folder / "suspects.png").read_bytes().startswith(b"\x89PNG")
    table = pq.read_table(folder / river.SUSPECTS)
    doubt = table["doubt"].to_numpy()
    assert (np.diff(doubt) <= 0).all() and table["suspect"].to_pylist()[0]
    first = table["id"].to_pylist()[0]
    (tmp_path / "v.csv").write_text(f"id,verdict,who\n{first},real,me\n")
    river.train_survey(
        survey, RECIPE, "second", treatment="remove", doubts="doubts",
        verdicts=tmp_path / "v.csv", threads=1,
    )  # fmt: skip
    facts = json.loads((survey / "models" / "second" / "scores.json").read_text())["stamps"]
    plain = json.loads((survey / "models" / "slow" / "scores.json").read_text())["stamps"]
    assert facts["real"] + facts["bogus"] < plain["real"] + plain["bogus"]
    with pytest.raises(ValueError, match="must be known"):
        river.train_survey(survey, RECIPE, "third", treatment="flip")


def test_verdicts_are_read_back_or_refused(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("id,verdict,who\na,real,me\nb, Unsure ,me\na,real,you\n")
    assert gallery.read_verdicts(path) == {"a": 1, "b": -1}
    ids, label = np.array(["a", "b", "c"]), np.array([0, 1, 1])
    changed, open_ = gallery.decide(ids, label, np.array([True, True, True]), {"a": 1, "b": -1})
    assert changed.tolist() == [1, -1, 1] and open_.tolist() == [False, False, True]
    path.write_bytes(b"\xef\xbb\xbfid,verdict\r\na,bogus\r\n")  # as spreadsheets save it
    assert gallery.read_verdicts(path) == {"a": 0}
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(gallery.VerdictError, match="no text"):
        gallery.read_verdicts(path)
    for text, words in (
        ("key,verdict\na,real\n", "needed"),
        ("id,verdict\na,yes\n", "line 2"),
        ("id,verdict\na,real\na,bogus\n", "two different"),
        ("id,verdict\nz,real\n", "no detection 'z'"),
    ):
        path.write_text(text)
        with pytest.raises(gallery.VerdictError, match=words):
            gallery.read_verdicts(path, ids)


def test_pictures_of_stamps_with_holes_and_nothing_in_them():
    stamp = np.random.default_rng(0).standard_normal((3, 29, 29)).astype(np.float32)
    stamp[1, :4] = np.nan
    for each in (stamp, np.zeros((3, 15, 15), np.float32), np.full((3, 5, 5), np.nan, np.float32)):
        assert gallery.picture(each).startswith(b"\x89PNG")
