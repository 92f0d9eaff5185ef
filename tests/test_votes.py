"""Classes from votes: truth (the published thresholds, planted answers), contract (unknown votes,
bad tables, the command)."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from skyvec import store
from skyvec.analysis.probes import probe_questions
from skyvec.analysis.votes import Class, Condition, labels_from_votes, read_cascade
from skyvec.cli import app
from skyvec.report.votes import probe_votes
from skyvec.schema import Catalog, Images, Latents

SMOOTH, FEATURED = (
    "smooth-or-featured_smooth_fraction",
    "smooth-or-featured_featured-or-disk_fraction",
)


def test_the_shipped_table_holds_the_published_thresholds():
    found = {(one.question, one.label): one for one in read_cascade()}
    assert found["smooth", "round"].conditions == (
        Condition(SMOOTH, 0.70),
        Condition("how-rounded_round_fraction", 0.80),
    )
    assert [c.above for c in found["smooth", "in_between"].conditions] == [0.70, 0.85]
    assert [c.above for c in found["smooth", "cigar"].conditions] == [0.50, 0.60]
    for label in ("yes", "no"):
        assert [c.above for c in found["edge_on", label].conditions] == [0.50, 0.70]
    assert [found["bar", bar].conditions[-1].above for bar in ("none", "weak", "strong")] == [
        0.8, 0.5, 0.5,
    ]  # fmt: skip
    merger = found["merger", "yes"]
    assert merger.need == "any" and [c.above for c in merger.conditions] == [0.6] * 3


def test_galaxies_get_the_class_whose_conditions_hold():
    nan = np.nan
    votes = {
        SMOOTH: [0.9, 0.9, 0.6, 0.6, 0.70, 0.9],
        "how-rounded_round_fraction": [0.81, 0.1, 0.0, 0.9, 0.9, nan],
        "how-rounded_in-between_fraction": [0.1, 0.86, 0.3, 0.1, 0.1, nan],
        "how-rounded_cigar-shaped_fraction": [0.0, 0.0, 0.7, 0.0, 0.0, nan],
    }
    labels = labels_from_votes(votes)
    assert list(labels) == ["smooth"]
    assert labels["smooth"].tolist() == ["round", "in_between", "cigar", "", "", ""]


def test_any_is_enough_for_a_merger_and_two_classes_are_none():
    names = [f"merging_{name}_fraction" for name in
             ("minor-disturbance", "major-disturbance", "merger", "none")]  # fmt: skip
    votes = dict(zip(names, np.array([[0.7, 0, 0, 0.1], [0, 0, 0, 0.9], [0.5, 0.5, 0, 0]]).T))
    assert labels_from_votes(votes)["merger"].tolist() == ["yes", "no", ""]
    both = [
        Class("q", "a", "all", (Condition("x", 0.1),)),
        Class("q", "b", "all", (Condition("x", 0.5),)),
    ]
    assert labels_from_votes({"x": [0.05, 0.3, 0.9]}, both)["q"].tolist() == ["", "a", ""]


def test_another_table_can_be_given(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("question,label,need,column,above\nring,yes,all,ring_fraction,0.4\n")
    labels = labels_from_votes({"ring_fraction": [0.5, 0.4]}, read_cascade(path))
    assert labels["ring"].tolist() == ["yes", ""]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("question,label,need,column\n", "lacks the column 'above'"),
        ("question,label,need,column,above\nq,a,all,x,high\n", "line 2: above"),
        ("question,label,need,column,above\nq,a,all,x,1.5\n", "must be a number in"),
        ("question,label,need,column,above\nq,a,some,x,0.5\n", "must be all or any"),
        ("question,label,need,column,above\nq,a,all,x,0.5\nq,a,any,y,0.5\n", "line 3: need"),
    ],
)
def test_bad_tables_are_refused(tmp_path, table, message):
    path = tmp_path / "bad.csv"
    path.write_text(table)
    with pytest.raises(ValueError, match=message):
        read_cascade(path)


def test_bad_votes_are_refused():
    with pytest.raises(ValueError, match="no question can be answered"):
        labels_from_votes({"x": [0.5]})
    with pytest.raises(KeyError, match="unknown question"):
        labels_from_votes({"x": [0.5]}, questions=["ring"])
    with pytest.raises(KeyError, match="needs the vote fraction"):
        labels_from_votes({"x": [0.5]}, questions=["bar"])
    one = [Class("q", "a", "all", (Condition("x", 0.1), Condition("y", 0.1)))]
    with pytest.raises(ValueError, match="vote fractions in"):
        labels_from_votes({"x": [1.5], "y": [0.5]}, one)
    with pytest.raises(ValueError, match="different lengths"):
        labels_from_votes({"x": [0.5], "y": [0.5, 0.5]}, one)


def test_real_votes_give_face_on_discs(real_data):
    with (real_data("galaxies/decals_rings") / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = (FEATURED, "disk-edge-on_no_fraction")
    votes = {name: [float(row[name]) for row in rows] for name in names}
    face_on = [one for one in read_cascade() if (one.question, one.label) == ("edge_on", "no")]
    labels = labels_from_votes(votes, face_on)["edge_on"]
    wanted = [a > 0.5 and b > 0.7 for a, b in zip(*votes.values())]
    assert (labels == "no").tolist() == wanted and any(wanted)


def test_every_question_is_probed_with_its_own_classes():
    rng = np.random.default_rng(0)
    labels = {
        "smooth": np.array(["round", "cigar", ""] * 40),
        "bar": np.array(["", "weak", "strong"] * 40),
        "merger": np.array(["yes", "", ""] * 40),
    }
    vectors = np.eye(3)[np.arange(120) % 3] + 0.1 * rng.normal(size=(120, 3))
    targets = [f"g{i}" for i in range(120)]
    found = probe_questions(vectors, labels, targets, rng=rng, trees=10, replicates=20)
    assert list(found) == ["smooth", "bar"]  # a merger has nothing to be told from
    rows = {row.probe: row for row in found["smooth"]}
    assert rows["majority"].balanced_accuracy == pytest.approx(0.5)
    assert rows["forest"].balanced_accuracy > 0.95
    assert rows["forest"].classes == ("cigar", "round")
    assert rows["forest"].confusion.sum() == 80


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """Galaxies with votes on shape and on edge-on discs; codes tell shapes and nothing else."""
    survey = tmp_path_factory.mktemp("votes") / "s"
    store.create_survey(survey)
    rng = np.random.default_rng(0)
    n = 160
    ids = np.array([f"g{i}" for i in range(n)])
    nan = np.full(n, np.nan)
    smooth, first = np.arange(n) % 2 == 0, np.arange(n) % 4 < 2
    columns = {
        SMOOTH: np.where(smooth, 0.9, 0.1),
        FEATURED: np.where(smooth, 0.1, 0.9),
        "how-rounded_round_fraction": np.where(first, 0.9, 0.0),
        "how-rounded_in-between_fraction": np.where(first, 0.0, 0.9),
        "how-rounded_cigar-shaped_fraction": np.zeros(n),
        "disk-edge-on_yes_fraction": np.where(first, 0.8, 0.1),
        "disk-edge-on_no_fraction": np.where(first, 0.1, 0.8),
    }
    columns["how-rounded_round_fraction"][0] = np.nan  # nobody was asked
    pixels = rng.normal(size=(n, 1, 8, 8)).astype(np.float32)
    images = Images(ids, pixels, ("r",), 0.3, "nJy")
    store.append_objects(survey, Catalog(ids, ids, nan, nan, columns), images, np.full(n, "here"))
    vectors = rng.normal(size=(n, 4)).astype(np.float32)
    vectors[:, 0] += np.where(smooth, np.where(first, 6.0, -6.0), 0.0)
    unknown = np.full(n, np.nan)
    shard = store.object_shards(survey)[0]
    # in another order than the catalogue: rows must be found by id
    order = rng.permutation(n)
    latents = Latents(ids[order], ids[order], vectors[order], "m", "h", unknown, unknown, unknown)
    store.write_latents(survey, shard["file"], latents, shard["sha256"])
    return survey


def test_a_survey_with_votes_is_probed_question_by_question(voted):
    table, confusions = probe_votes(voted, "m", baselines=False, trees=10, replicates=20)
    rows = {row["question"]: row for row in table.to_pylist()}
    assert list(rows) == ["smooth", "edge_on"]
    assert rows["smooth"]["objects"] == 79 and rows["edge_on"]["objects"] == 80
    for probe in ("knn", "linear", "forest"):
        assert rows["smooth"][probe] > 0.95
        assert rows["edge_on"][probe] < 0.7  # noise; few and held out, so far below is possible
        assert rows["edge_on"][f"{probe}_low"] < rows["edge_on"][probe]
    assert rows["smooth"]["majority"] == pytest.approx(0.5)
    called = [row for row in confusions.to_pylist() if row["question"] == "smooth"]
    for probe in ("majority", "knn", "linear", "forest"):
        assert sum(row["segments"] for row in called if row["probe"] == probe) == 79
    kept = [f"g{i}" for i in range(0, 160, 2)]  # the smooth ones
    only, _ = probe_votes(voted, "m", baselines=False, keep=kept, trees=10, replicates=20)
    assert only["question"].to_pylist() == ["smooth"]


def test_votes_are_asked_from_the_shell(voted, tmp_path):
    asked = ["probe", "--survey", str(voted), "--model", "m", "--no-baselines", "--format", "json"]
    own, few = tmp_path / "own.csv", tmp_path / "few.csv"
    head = "question,label,need,column,above\n"
    own.write_text(f"{head}disc,yes,all,{FEATURED},0.5\ndisc,no,all,{SMOOTH},0.5\n")
    done = CliRunner().invoke(app, [*asked, "--votes", str(own)])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert row["question"] == "disc" and row["objects"] == 160 and row["classes"] == 2
    assert (voted / "answers" / "votes-m" / "confusion.parquet").is_file()
    own.write_text(f"{head}ring,yes,all,ring_fraction,0.5\n")
    few.write_text("id\ng1\ng2\n")
    for votes, more, words in (
        (str(own), [], "none of the columns of votes"),
        (str(tmp_path / "absent.csv"), [], "absent.csv"),
        ("decals", ["--label", "x"], "leave --label out"),
        ("decals", ["--keep", str(few)], "two classes of enough objects"),
    ):
        done = CliRunner().invoke(app, [*asked, "--votes", votes, *more])
        assert done.exit_code != 0 and words in " ".join(done.output.split())
