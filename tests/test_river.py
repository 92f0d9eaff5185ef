"""The whole river on a small simulated sky, in Python: files, objects, latents, answers, report.

Kinds: simulated sky (what is planted is found), golden (figures of one small run, within bounds).
"""

import html.parser
import json
import tomllib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib import image

from skyvec import store
from skyvec.analysis.neighbours import search
from skyvec.checkpoint import read_recipe
from skyvec.encode import encode
from skyvec.ingest import ingest
from skyvec.report import answers
from skyvec.report.findings import findings
from skyvec.report.html import report
from skyvec.sim.lightcurves import simulate_sky
from skyvec.train import train

N = 240
KINDS = ("sinusoid", "detached_binary", "microlensing", "constant")
RECIPE = """
[data]
curves = 240
max_points = 400

[model]
name = "gridconv"

[train]
steps = 30
batch = 32
lr = 3e-3
validate_every = 10
"""


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A sky as a nested Parquet table, ingested, trained on and encoded."""
    folder = tmp_path_factory.mktemp("river")
    catalog, curves = simulate_sky(
        N, np.random.default_rng(5), kinds=KINDS, twice=0.1, oddities=0.02
    )
    nested = {
        name: pa.LargeListArray.from_arrays(pa.array(curves.offsets), pa.array(values))
        for name, values in {
            "mjd": curves.mjd,
            "flux": curves.flux,
            "flux_err": curves.flux_err,
        }.items()
    }
    table = {
        "id": catalog.id,
        "target": catalog.target,
        "ra": catalog.ra,
        "dec": catalog.dec,
        "label": catalog.columns["label"],
        **nested,
    }
    pq.write_table(pa.table(table), folder / "sky.parquet")
    (folder / "broken_lc.fits").write_bytes(b"SIMPLE  =  no")
    (folder / "small.toml").write_text(RECIPE)
    sky = folder / "survey"
    counts = ingest(sky, [folder / "sky.parquet", folder / "broken_lc.fits"])
    assert (counts.items, counts.segments, counts.rejects) == (N + 1, N, 1)
    train(sky, read_recipe(folder / "small.toml"), "m", threads=1)
    assert encode(sky, "m", threads=1) == N
    return sky


@pytest.fixture(scope="module")
def page(survey):
    return report(survey, "m", examples=2)


def test_nothing_is_lost_between_the_files_and_the_latents(survey):
    latents, catalog = store.read_latents(survey, "m"), store.read_catalog(survey)
    assert latents.id.tolist() == catalog.id.tolist() and latents.vectors.shape == (N, 40)
    assert np.isfinite(latents.error).all()


def test_neighbours_are_mostly_of_the_same_kind(survey):
    latents = store.read_latents(survey, "m")
    labels = answers.labels_of(survey, "label", latents.id)
    found = search(latents, latents.id, k=5)
    mine = np.repeat(labels, 5)
    agreement = (labels[found.rows] == mine)[mine != "oddity"].mean()
    assert agreement > 0.7  # by chance: about 0.25


def test_a_star_seen_twice_is_its_own_neighbour(survey):
    latents = store.read_latents(survey, "m")
    labels = answers.labels_of(survey, "label", latents.id)
    names, counts = np.unique(latents.target[labels == "detached_binary"], return_counts=True)
    rank = []
    for target in names[counts == 2]:
        first, second = latents.id[latents.target == target]
        found = search(latents, [first], k=N, exclude_same_target=False)
        rank.append(int(found.rank[found.id == second][0]))
    assert rank and np.median(rank) <= N / 20


def test_answers_are_kept_and_not_made_twice(survey, page):
    kept = store.answers_folder(survey, "map", "m") / "map.parquet"
    before = kept.stat().st_mtime_ns
    again = answers.tsne(survey, "m")
    assert kept.stat().st_mtime_ns == before and again.table.num_rows == N
    answers.outliers(survey, "m", k=1)
    recipe = json.loads(
        (store.answers_folder(survey, "outliers", "m") / "recipe.json").read_text()
    )
    assert recipe["arguments"] == {"k": 1} and recipe["facts"]["k"] == 1


def test_a_damaged_answer_is_made_again(survey, page):
    kept = store.answers_folder(survey, "cluster", "m") / "cluster.parquet"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])
    assert answers.clusters(survey, "m").table.num_rows == N
    assert kept.read_bytes() == whole


class Seen(html.parser.HTMLParser):
    """What a reader of the page sees: sections, pictures, and what a browser would load."""

    def __init__(self):
        super().__init__()
        self.sections, self.pictures, self.loaded = [], [], []

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        if tag == "section":
            self.sections.append(facts["id"])
        source = facts.get("src") or facts.get("href") or ""
        if tag == "img":
            self.pictures.append(facts["alt"])
        elif source and not source.startswith("#"):
            self.loaded.append(source)


def test_report_is_self_contained_and_whole(survey, page):
    text = page.read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(text)
    assert seen.sections == [
        *("survey", "model", "probe", "map", "clusters", "samples", "outliers", "search"),
        *("agree", "audit", "reconstructions", "sky", "recipe"),
    ]
    assert seen.loaded == [] and "url(" not in text and len(seen.pictures) >= 9
    assert text.count('src="data:image/png;base64,') == len(seen.pictures)
    scores = json.loads((store.model_folder(survey, "m") / "scores.json").read_text())
    assert scores["hash"] in text and "truncated" in text
    for name in ("statistics", "features"):
        assert f"<td>{name}</td>" in text


def test_every_picture_lies_beside_the_page_and_has_colour_in_it(page):
    pictures = sorted(page.parent.glob("*.png"))
    assert {p.stem for p in pictures} >= {"map", "map-classes", "clusters", "outliers", "loss"}
    for path in pictures:
        pixels = image.imread(path)
        assert pixels.shape[0] > 200 and (pixels[..., :3].min(axis=-1) < 0.9).mean() > 0.002
    red = image.imread(page.parent / "search-1.png")[..., :3]
    assert ((red[..., 0] > 0.7) & (red[..., 1] < 0.2)).sum() > 50


@pytest.mark.slow
def test_the_report_is_the_same_when_made_again(survey, page):
    before = page.read_bytes()
    assert report(survey, "m", examples=2).read_bytes() == before


def test_findings_count_what_was_planted(survey, page):
    said = findings(survey, "m")
    catalog = store.read_catalog(survey)
    planted = len(np.unique(catalog.target[catalog.columns["label"] == "oddity"]))
    assert f" of {planted} planted oddities" in said[0] and "by distance" in said[0]
    assert "clusters hold" in said[1] and "statistics" in said[2] and "features" in said[2]


def test_the_survey_says_how_it_was_made(survey):
    made = tomllib.loads((survey / "survey.toml").read_text())
    assert made["ingest"][0]["segments"] == N
