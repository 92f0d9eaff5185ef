"""Explanations of a survey's objects. Kinds: truth (a planted difference is named, where and in
what), contract (light curves and images, with and without a decoder, table, picture, errors)."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from skyvec import store
from skyvec.cli import app
from skyvec.encode import encode, fit_baseline
from skyvec.report.answers import outliers
from skyvec.report.html import report
from skyvec.report.reason_pictures import keep_picture
from skyvec.report.reasons import explain_alike, explain_odd, open_reasons, short_reasons
from skyvec.schema import Catalog, Images, LightCurves
from skyvec.train import train

N, POINTS, SIDE = 90, 240, 32
RECIPE = {
    "data": {"curves": N, "min_points": 20, "max_points": 240},
    "model": {"name": "gridconv"},
    "train": {"steps": 4, "batch": 16, "validate_every": 2},
}


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """White noise of ever more points; o7 has a flare from day 12 to 13."""
    folder = tmp_path_factory.mktemp("reasons") / "curves"
    rng = np.random.default_rng(0)
    mjd = np.concatenate([58000 + np.sort(rng.uniform(0, 24, POINTS)) for _ in range(N)])
    flux = 100 + rng.normal(size=len(mjd))
    own = np.repeat(np.arange(N), POINTS)
    flux[(own == 7) & (np.abs(mjd - 58012.5) < 0.5)] += 40
    ids = np.array([f"o{i}" for i in range(N)])
    offsets = np.arange(0, N * POINTS + 1, POINTS)
    light = LightCurves(
        ids,
        offsets.astype(np.int64),
        mjd,
        flux.astype(np.float32),
        np.full(len(mjd), 1, np.float32),
        np.zeros(len(mjd), np.int16),
        ("g",),
    )
    store.create_survey(folder)
    nan = np.full(N, np.nan)
    store.append_objects(folder, Catalog(ids, ids, nan, nan), light, np.full(N, "here"))
    fit_baseline(folder, "statistics")
    encode(folder, "statistics")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Round blobs of other brightness; o7 has a second one in the tile of row 1, column 4."""
    folder = tmp_path_factory.mktemp("reasons") / "images"
    rng = np.random.default_rng(0)
    y, x = np.indices((SIDE, SIDE))
    pixels = np.empty((N, 1, SIDE, SIDE), np.float32)
    width, coin = rng.uniform(2, 4, N), rng.integers(0, 2, N)
    for i in range(N):
        blob = np.exp(-((y - 15.5) ** 2 + (x - 15.5) ** 2) / (2 * width[i] ** 2))
        pixels[i, 0] = rng.uniform(20, 60) * blob + rng.normal(size=(SIDE, SIDE))
    pixels[7, 0] += 60 * np.exp(-((y - 4) ** 2 + (x - 28) ** 2) / (2 * 2.0**2))
    ids, nan = np.array([f"o{i}" for i in range(N)]), np.full(N, np.nan)
    store.create_survey(folder)
    catalog = Catalog(ids, ids, nan, nan, {"width": width, "coin": coin})
    store.append_objects(folder, catalog, Images(ids, pixels, ("g",)), np.full(N, "here"))
    fit_baseline(folder, "pixels")
    encode(folder, "pixels")
    return folder


def rows_of(answer, reason):
    return [row for row in answer.table.to_pylist() if row["reason"] == reason]


def test_the_stretch_with_the_flare_is_what_makes_the_curve_odd(curves):
    answer = explain_odd(curves, "statistics", "o7")
    parts = rows_of(answer, "part")
    assert len(parts) == 12
    best = max(parts, key=lambda row: row["value"])
    begin, end = (float(text) for text in best["what"].removesuffix(" d").split("-"))
    assert begin < 12.7 and end > 12.3
    others = [row["value"] for row in parts if row is not best]
    assert best["value"] > best["beside"] + 0.1 > max(others)
    assert f"{best['what']}: similarity" in answer.facts["said"]
    assert "deviations along direction" in answer.facts["said"]
    ordinary = [row["what"] for row in rows_of(answer, "ordinary")]
    assert len(ordinary) == 3 and "o7" not in ordinary
    assert rows_of(answer, "place")[0]["beside"] > rows_of(answer, "place")[0]["value"]
    assert answer.table.equals(explain_odd(curves, "statistics", "o7").table)


def test_an_ordinary_curve_is_said_to_be_one(curves):
    last = outliers(curves, "statistics").table["id"].to_pylist()[-1]
    assert "not odd" in explain_odd(curves, "statistics", last).facts["said"]


def test_two_are_alike_by_parts_that_add_up(curves):
    answer = explain_alike(curves, "statistics", "o3", "o4")
    latents = store.read_latents(curves, "statistics")
    one, other = latents.vectors[latents.rows(["o3", "o4"])].astype(np.float64)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    place = rows_of(answer, "place")[0]
    assert place["value"] == pytest.approx(cosine, abs=1e-6)
    assert {row["beside"] for row in rows_of(answer, "part")} == {place["value"]}
    assert not {"o3", "o4"} & {row["what"] for row in rows_of(answer, "between")}
    with pytest.raises(ValueError, match="same segment"):
        explain_alike(curves, "statistics", "o3", "o3")
    with pytest.raises(KeyError, match="no segment or target 'o999'"):
        explain_odd(curves, "statistics", "o999")


def test_the_tile_with_the_second_source_is_what_makes_the_image_odd(images):
    answer = explain_odd(images, "pixels", "o7")
    parts = rows_of(answer, "part")
    assert len(parts) == 16
    assert min(parts, key=lambda row: row["value"])["what"] == "row 1, column 4"
    assert rows_of(answer, "place")[0]["what"] == "distance to neighbour 5"
    assert "row 1, column 4: distance" in answer.facts["said"]
    assert keep_picture(images, "pixels", answer).stat().st_size > 5000
    pair = explain_alike(images, "pixels", "o3", "o4")
    assert keep_picture(images, "pixels", pair).stat().st_size > 5000


def test_a_direction_is_named_after_the_brightness_it_follows(images):
    follows = open_reasons(images, "pixels").follows
    assert "brightness" in {name for name, _ in follows.values()}
    assert "coin" not in {name for name, _ in follows.values()}


@pytest.mark.slow
def test_a_model_that_decodes_says_what_it_cannot_draw(curves, one_thread):
    train(curves, RECIPE, "m")
    encode(curves, "m")
    answer = explain_odd(curves, "m", "o7")
    residual = {
        row["what"]: float(row["said"].split("residual ")[1]) for row in rows_of(answer, "part")
    }
    assert len(residual) == 12
    place = [row for row in rows_of(answer, "place") if row["what"] == "residual"]
    assert place[0]["value"] > 0
    # the flare is nearly all of the scatter, and the untrained code cannot draw it
    assert max(residual, key=residual.get) == max(
        residual, key=lambda name: abs(float(name.split("-")[0]) - 11.9) < 1.2
    )
    assert keep_picture(curves, "m", answer).stat().st_size > 5000
    assert keep_picture(curves, "m", explain_alike(curves, "m", "o3", "o4")).exists()


def test_short_reasons_stand_in_the_order_asked_for(curves):
    said = short_reasons(curves, "statistics", ["o4", "o7"])
    assert said[1] == explain_odd(curves, "statistics", "o7").facts["said"]
    assert said[0] != said[1]


def test_the_command_answers_and_draws(curves):
    def run(*arguments, code=0):
        asked = [*arguments, "--survey", str(curves), "--model", "statistics", "-f", "json"]
        result = CliRunner().invoke(app, ["explain", *asked])
        assert result.exit_code == code, result.output
        return result

    first = run("o7")
    rows = json.loads(first.stdout)
    assert {row["reason"] for row in rows} == {"place", "ordinary", "direction", "part"}
    assert "explain.png" in first.stderr
    assert "between" in {row["reason"] for row in json.loads(run("o7", "o8").stdout)}
    assert run("o777", code=1).stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "model"), [("curves", "statistics"), ("images", "pixels")])
def test_the_report_says_why_and_what_the_code_follows(kind, model, request):
    page = report(request.getfixturevalue(kind), model, with_baselines=False).read_text()
    assert "What the code should not follow" in page and "<th>why</th>" in page
    assert ("The code beside other measures" in page) is (kind == "curves")
