"""Searches by other measures, agreement and the audit of a survey. Kinds: rival (a slow loop over
all curves), truth (planted agreement and nuisances are found, absent ones are not), contract."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from skyvec import store
from skyvec.analysis.agreement import agreement
from skyvec.cli import app
from skyvec.index import measures
from skyvec.prep.grid import on_grid
from skyvec.prep.lightcurves import prepare
from skyvec.prep.nuisances import image_nuisances, light_nuisances
from skyvec.report.agreeing import agree, agreement_picture, at_depth
from skyvec.report.auditing import audit_survey
from skyvec.report.measured import search_by_measure
from skyvec.report.searching import Which
from skyvec.schema import Catalog, Images, Latents, LightCurves

N = 120


def make_survey(folder, *, code="shape", seed=0):
    """Curves of three shapes in two cameras; codes that follow the shape, or the camera."""
    rng = np.random.default_rng(seed)
    kind, camera = rng.integers(0, 3, N), rng.integers(1, 5, N)
    lengths = rng.integers(60, 120, N)
    lengths[5] = 3  # too few to be compared
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    mjd = np.concatenate([58000 + np.sort(rng.uniform(0, 27, m)) for m in lengths])
    curve = np.repeat(np.arange(N), lengths)
    phase = (mjd - 58000) / 27
    wave = np.stack([np.sin(9 * phase), np.sign(np.sin(20 * phase)), phase**2])[
        kind[curve], range(len(mjd))
    ]
    flux = (10 + wave + 0.2 * rng.normal(size=len(mjd))).astype(np.float32)
    ids = np.array([f"o{i}" for i in range(N)])
    target = np.array([f"t{i}" if i > 1 else "t0" for i in range(N)])
    curves = LightCurves(
        ids,
        offsets,
        mjd,
        flux,
        np.full(len(mjd), 0.2, np.float32),
        np.zeros(len(mjd), np.int16),
        ("g",),
    )
    ra, dec = rng.uniform(0, 360, N), np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    columns = {
        "camera": camera,
        "label": np.array(list("abc"))[kind],
        "weight": kind + rng.normal(size=N),
    }
    store.create_survey(folder)
    store.append_objects(
        folder, Catalog(ids, target, ra, dec, columns), curves, np.full(N, "here")
    )
    followed = {"shape": np.eye(3)[kind], "camera": np.eye(4)[camera - 1]}[code]
    vectors = (
        followed @ rng.normal(size=(followed.shape[1], 8)) + 0.1 * rng.normal(size=(N, 8))
    ).astype(np.float32)
    made = Latents(ids, target, vectors, "m", "h", ra, dec, np.full(N, np.nan))
    shard = store.object_shards(folder)[0]
    store.write_latents(folder, shard["file"], made, shard["sha256"])
    return folder


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return make_survey(tmp_path_factory.mktemp("measured") / "s")


def brute(survey, name, measure, *, banned=()):
    """All other curves by the measure, one by one."""
    _, curves = store.read_objects(survey, "part-00000.parquet")
    series = on_grid(prepare(curves, round_days=0))
    row = int(np.flatnonzero(curves.id == name)[0])
    distance = {
        str(curves.id[i]): float(measures.MEASURES[measure](series[row], series[i : i + 1])[0])
        for i in range(len(curves))
        if curves.lengths[i] >= 5 and str(curves.id[i]) not in {name, *banned}
    }
    return sorted(distance.items(), key=lambda pair: pair[1])


@pytest.mark.parametrize("measure", list(measures.MEASURES))
def test_the_full_search_equals_a_loop_over_all_curves(survey, measure):
    found = search_by_measure(survey, "m", ["o0", "o9"], measure, full=True, k=7).table
    for name, banned in (("o0", ["o1"]), ("o9", [])):
        rows = [row for row in found.to_pylist() if row["query"] == name]
        expected = brute(survey, name, measure, banned=banned)[:7]
        assert [row["id"] for row in rows] == [other for other, _ in expected]
        np.testing.assert_allclose(
            [row["distance"] for row in rows], [d for _, d in expected], rtol=1e-5
        )
        assert [row["rank"] for row in rows] == list(range(1, 8))


def test_candidates_of_the_code_are_put_into_order(survey):
    latents = store.read_latents(survey, "m")
    found = search_by_measure(survey, "m", ["o9"], "shape", k=5)
    # the candidates are more than the survey, so that both ways answer alike
    whole = search_by_measure(survey, "m", ["o9"], "shape", k=5, full=True)
    for name in ("id", "latent_rank"):
        assert found.table[name].to_pylist() == whole.table[name].to_pylist()
    np.testing.assert_allclose(found.table["distance"], whole.table["distance"], rtol=1e-6)
    unit = latents.vectors / np.linalg.norm(latents.vectors, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[9]))
    order = order[order != 9]
    for row in found.table.to_pylist():
        assert latents.id[order[row["latent_rank"] - 1]] == row["id"]
    assert found.facts["too_few_points"] == 1


def test_conditions_hold_for_measures_too(survey):
    for full in (False, True):
        which = Which(where="camera == 2")
        found = search_by_measure(survey, "m", ["o9"], "correlation", full=full, which=which, k=9)
        camera = store.read_catalog(survey).columns["camera"]
        rows = [int(name[1:]) for name in found.table["id"].to_pylist()]
        assert len(rows) == 9 and set(camera[rows]) == {2}


def test_what_cannot_be_compared_is_said(survey, tmp_path):
    with pytest.raises(ValueError, match="o5 has fewer than five points"):
        search_by_measure(survey, "m", ["o5"], "shape")
    with pytest.raises(ValueError, match="choose from correlation"):
        search_by_measure(survey, "m", ["o9"], "taste")
    with pytest.raises(ValueError, match="no band 'r'"):
        search_by_measure(survey, "m", ["o9"], "shape", band="r")
    images = tmp_path / "images"
    store.create_survey(images)
    ids, nan = np.array(["a", "b"]), np.full(2, np.nan)
    pixels = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    store.append_objects(images, Catalog(ids, ids, nan, nan), Images(ids, pixels, ("g",)), ids)
    for ask in (
        lambda: search_by_measure(images, "m", ["a"], "shape"),
        lambda: agree(images, "m"),
    ):
        with pytest.raises(store.StoreError, match=r"compares light curves .* holds images"):
            ask()


# --- agreement --------------------------------------------------------------------------------


def test_equal_rankings_agree_wholly_and_unrelated_ones_by_chance():
    rng = np.random.default_rng(0)
    one = rng.random((60, 400))
    one[:, 0] = np.nan
    same = agreement(one, one**2 + 1, rng)
    assert all(row.share == 1 for row in same.common) and same.rank_correlation == pytest.approx(1)
    other = rng.random((60, 400))
    other[:, 0] = np.nan
    apart = agreement(one, other, rng)
    assert apart.candidates == 399 and apart.low < 0 < apart.high
    for row in apart.common:
        assert row.low <= row.chance + 0.02 and abs(row.share - row.chance) < 0.02
    assert [row.k for row in apart.common][-1] == 100
    backwards = agreement(one, -one, rng)
    assert backwards.rank_correlation == pytest.approx(-1) and backwards.common[-1].share == 0


def test_agreement_equals_a_slow_count():
    rng = np.random.default_rng(1)
    one, other = rng.random((2, 5, 40))
    other = other + one
    found = agreement(one, other, rng)
    for row in found.common:
        shared = [
            len(set(np.argsort(a)[: row.k]) & set(np.argsort(b)[: row.k])) / row.k
            for a, b in zip(one, other)
        ]
        assert row.share == pytest.approx(np.mean(shared))
        assert row.low <= row.share <= row.high and row.chance == pytest.approx(row.k / 40)
    with pytest.raises(ValueError, match="same places"):
        agreement(one, np.where(other > 1.5, np.nan, other), rng)
    with pytest.raises(ValueError, match="at least 2 queries"):
        agreement(one[:1], other[:1], rng)


def test_codes_of_the_shape_agree_with_measures_and_those_of_the_camera_do_not(survey, tmp_path):
    answer, picture = agree(survey, "m")
    rows = at_depth(answer.table).to_pylist()
    assert [row["measure"] for row in rows] == list(measures.MEASURES) and rows[0]["k"] == 10
    assert all(row["common_low"] > row["chance"] for row in rows)
    assert all(row["rank_low"] > 0.3 for row in rows)
    assert answer.facts["objects"] == N - 2 and picture.stat().st_size > 5000
    assert len(agreement_picture(answer.table).axes[0].lines) == 5
    other, _ = agree(make_survey(tmp_path / "s", code="camera"), "m")
    for row in at_depth(other.table).to_pylist():
        assert abs(row["rank_correlation"]) < 0.1 and row["common"] < 2 * row["chance"]


# --- the audit --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_audit_finds_the_camera_where_the_code_follows_it_and_only_there(survey, tmp_path):
    blamed, _ = audit_survey(make_survey(tmp_path / "s", code="camera"), "m")
    rows = {row["nuisance"]: row for row in blamed.table.to_pylist()}
    assert rows["camera"]["carried"] and rows["camera"]["told"] > 0.8
    assert rows["camera"]["p_beyond_class"] < 0.01 and rows["camera"]["low"] > 0.5
    assert [name for name, row in rows.items() if row["carried"]] == ["camera"]
    assert {"points", "span", "cadence", "sky", "camera"} <= set(rows)
    answer, picture = audit_survey(survey, "m", columns=["weight"])
    rows = {row["nuisance"]: row for row in answer.table.to_pylist()}
    assert not rows["camera"]["carried"] and not rows["sky"]["carried"]
    assert not rows["points"]["carried"] and not rows["cadence"]["carried"]
    # the weight follows the class alone, as the code does: carried, but not beyond the class
    assert rows["weight"]["carried"] and rows["weight"]["p_beyond_class"] > 0.02
    assert rows["weight"]["by_class"] > 0.1 and picture.exists()
    with pytest.raises(ValueError, match="no column 'colour'"):
        audit_survey(survey, "m", columns=["colour"])


def test_nuisances_of_light_curves_are_what_was_put_in():
    rng = np.random.default_rng(0)
    time = np.r_[np.arange(0, 10, 0.1), np.arange(15, 20, 0.1)]
    flux = 50 + 3 * np.sin(time) + 0.1 * rng.normal(size=len(time))
    curves = LightCurves(
        np.array(["a", "none"]),
        np.array([0, len(time), len(time)]),
        59000 + time,
        flux.astype(np.float32),
        np.full(len(time), 0.1, np.float32),
        np.zeros(len(time), np.int16),
        ("T", "V"),
    )
    found = light_nuisances(curves)
    assert found["points"].tolist() == [150, 0] and found["bands"].tolist() == [1, 0]
    assert found["span"][0] == pytest.approx(19.9) and found["cadence"][0] == pytest.approx(0.1)
    assert found["longest_gap"][0] == pytest.approx(5.1 / 19.9)
    assert found["start"][0] == 59000 and found["level"][0] == pytest.approx(flux.mean(), rel=1e-5)
    assert found["snr"][0] == pytest.approx(flux.std() / 0.1, rel=0.01)
    assert all(np.isnan(found[name][1]) for name in ("span", "cadence", "snr", "start", "level"))


def test_nuisances_of_images_are_what_was_put_in():
    rng = np.random.default_rng(0)
    pixels = rng.normal(20, 2, (2, 1, 41, 41)).astype(np.float32)
    pixels[0, 0, 20, 30] += 5000
    pixels[1, 0, :, :10] = np.nan
    found = image_nuisances(Images(np.array(["a", "b"]), pixels, ("g",)))
    np.testing.assert_allclose(found["background"], 20, atol=0.3)
    np.testing.assert_allclose(found["noise"], 2, rtol=0.1)
    assert found["brightness"][0] == pytest.approx(5000, rel=0.1)
    assert found["snr"][0] == pytest.approx(5000 / (2 * 41), rel=0.2)
    assert found["missing"].tolist() == [0, pytest.approx(10 / 41)]
    assert found["off_centre"][0] > 5


# --- the command line -------------------------------------------------------------------------


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def test_the_commands_answer_and_teach(survey):
    asked = ("--survey", survey, "--model", "m", "-f", "json")
    rows = json.loads(run("search", "o9", *asked, "--measure", "shape", "--full").stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert "reordered 200" in run("search", "o9", *asked, "--measure", "shape").stderr
    assert "name one" in run("search", "o9", *asked, "--full", code=1).stderr
    wrong = run("search", "o9", *asked, "--measure", "shape", "--combine", code=1)
    assert "one curve with one" in wrong.stderr
    assert len(json.loads(run("agree", *asked, "--sample", 60).stdout)) > 8
    assert json.loads(run("audit", *asked, "--column", "weight").stdout)[0]["objects"] == N - 1
    for verb in ("agree", "audit", "explain"):
        assert "Example" in run(verb, "--help").output
