"""Simulated sky: a signal nobody has seen finds the stars that show it. Contract: the answer's
columns, its picture, files as signals, and errors in one line."""

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from skyvec import checkpoint, store
from skyvec.cli import app
from skyvec.encode import encode
from skyvec.report.directed import search_signal
from skyvec.report.queries import read_signal
from skyvec.report.searching import Which
from skyvec.sim.lightcurves import simulate_sky
from skyvec.sim.signals import Template, inject, parse, relative_noise
from skyvec.studies.like import draw_like

pytestmark = pytest.mark.usefixtures("one_thread")
PLANTED = 6


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """120 stars that rotate or do nothing, six of which hide a louver; some seen twice."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("sky") / "s"
    catalog, curves = simulate_sky(
        120, np.random.default_rng(4), kinds=["constant", "rotator"], twice=0.2, oddities=0.0
    )
    first = np.sort(np.unique(catalog.target, return_index=True)[1])[:PLANTED]
    hosts = np.isin(catalog.target, catalog.target[first])  # all segments of the six stars
    noise = relative_noise(curves)
    depth = np.where(hosts, 60 * noise, 0.0)
    planted, _ = inject(curves, parse("louver(period=3.2)"), np.random.default_rng(1), depth=depth)
    store.create_survey(folder)
    store.append_objects(folder, catalog, planted, np.full(len(catalog), "sky"))
    recipe = checkpoint.complete({"model": {"name": "gridconv"}}, ("T",))
    torch.manual_seed(0)
    weights = checkpoint.build(recipe).state_dict()
    checkpoint.save(store.model_folder(folder, "m"), recipe, weights, {})
    encode(folder, "m")
    return folder, set(catalog.target[first].tolist())


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_theory_finds_the_stars_that_show_it_each_once(survey):
    folder, stars = survey
    answer, picture = search_signal(folder, "m", parse("louver(period=3.2)"), k=8, draws=48)
    table = answer.table
    assert table.column_names == ["rank", "id", "target", "score", "segments", "ra", "dec"]
    found = table["target"].to_pylist()
    assert len(set(found)) == len(found) == 8
    assert len(stars & set(found[:PLANTED])) >= PLANTED - 1
    score = table["score"].to_numpy()
    assert (np.diff(score) <= 0).all() and score[0] > 0
    targets = store.read_latents(folder, "m").target
    assert table["segments"].to_pylist() == [int((targets == name).sum()) for name in found]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    again, _ = search_signal(folder, "m", parse("louver(period=3.2)"), k=8, draws=48)
    assert again.table.equals(table)


def test_a_second_look_at_the_curves_answers_from_the_best_by_code(survey):
    folder, stars = survey
    signal = parse("louver(period=3.2)")
    everything, _ = search_signal(folder, "m", signal, k=60, draws=48)
    answer, _ = search_signal(folder, "m", signal, k=8, draws=48, check=40)
    found = answer.table["target"].to_pylist()
    assert len(stars & set(found[:PLANTED])) >= PLANTED - 1
    assert set(found) <= set(everything.table["target"].to_pylist()[:40])
    odds = answer.table["score"].to_numpy()
    assert (np.diff(odds) <= 0).all() and odds[0] > 3
    with pytest.raises(ValueError, match="cannot give 8 answers"):
        search_signal(folder, "m", signal, k=8, check=7)
    wrong = run("search", "--check", 9, "-s", folder, "-m", "m", "sky")
    assert wrong.exit_code == 1 and "--check belongs to --signal" in wrong.output


def test_only_those_asked_for_answer(survey):
    folder, _ = survey
    latents = store.read_latents(folder, "m")
    signal = parse("louver(period=3.2)")
    here = (float(latents.ra[10]), float(latents.dec[10]), 1e-3)
    answer, _ = search_signal(folder, "m", signal, draws=8, which=Which(cone=here))
    assert answer.table["target"].to_pylist() == [str(latents.target[10])]
    with pytest.raises(ValueError, match="nowhere on the sky"):
        search_signal(folder, "m", signal, which=Which(apart=1.0))


def test_a_file_of_flux_against_time_is_a_signal(survey, tmp_path):
    folder, stars = survey
    time = np.arange(0, 27, 0.02)
    flux, _ = parse("louver(period=3.2, t0=1)").draw(time, np.random.default_rng(0))
    table = pyarrow.table({"time": time, "flux": 1 + 3 * (flux - 1)})
    pyarrow.csv.write_csv(table, tmp_path / "louver.csv")
    signal = read_signal(str(tmp_path / "louver.csv"))
    assert isinstance(signal, Template) and str(signal) == "louver.csv"
    answer, _ = search_signal(folder, "m", signal, k=PLANTED, draws=32)
    assert len(stars & set(answer.table["target"].to_pylist())) >= PLANTED - 2


def test_the_command_answers_and_refuses_in_one_line(survey, tmp_path):
    folder, _ = survey
    out = tmp_path / "found.csv"
    asked = ("search", "--signal", "transit(rp=0.1, period=3.2)", "-s", folder, "-m", "m")
    done = run(*asked, "-k", 2, "-o", out)
    assert done.exit_code == 0 and "directed.png" in done.output
    assert len(out.read_text().splitlines()) == 3
    for arguments, message in [
        ((), "one of the two"),
        (("x", "--signal", "flares"), "one of the two"),
        (("--signal", "louvr()"), "did you mean 'louver'"),
        (("--signal", "nowhere.csv"), "no signal and no file"),
    ]:
        failed = run("search", *arguments, "-s", folder, "-m", "m")
        assert failed.exit_code == 1 and message in failed.output


def test_curves_like_an_object_have_its_stamps_and_its_noise_or_its_light(survey):
    folder, _ = survey
    latents = store.read_latents(folder, "m")
    name = str(latents.id[-1])
    star = store.find_curves(folder, [name])
    made = draw_like(folder, name, parse("sinusoid(period=9, amplitude=0.5)"), draws=3)
    for i in range(3):
        part = slice(made.offsets[i], made.offsets[i + 1])
        np.testing.assert_array_equal(made.mjd[part], star.mjd)
    np.testing.assert_allclose(relative_noise(made), relative_noise(star)[0], rtol=0.5)
    signal = parse("contact_binary(period=0.5, amplitude=0.5)")
    into = draw_like(folder, name, signal, draws=2, into=True, seed=1)
    level = np.median(star.flux)
    left = into.flux[: len(star.flux)] / star.flux
    assert left.min() < 0.6 and abs(np.median(into.flux) / level - 1) < 0.3
    assert into.flux_unit == star.flux_unit and len(set(into.id)) == 2
    with pytest.raises(KeyError, match="nobody"):
        draw_like(folder, "nobody", signal)
    with pytest.raises(ValueError, match="draws"):
        draw_like(folder, name, signal, draws=0)


def test_a_map_of_completeness_is_drawn_and_goes_on_where_it_was(survey, tmp_path):
    folder, _ = survey
    options = (
        "-s",
        folder,
        "-m",
        "m",
        "-n",
        6,
        "--curves",
        60,
        "--grid",
        "depth=1,200",
        "--no-rivals",
    )
    asked = ("recover", "louver", *options, "--grid", "period=3", "-o", tmp_path / "map.parquet")
    done = run(*asked)
    assert done.exit_code == 0, done.output
    table = pyarrow.parquet.read_table(tmp_path / "map.parquet")
    assert table["depth"].to_pylist() == [1.0, 200.0]
    found = table["directed"].to_pylist()
    assert found[0] < found[1] == 1.0 and np.isnan(table["box"].to_numpy()).all()
    made = next((folder / "answers" / "recover-m").iterdir())
    assert (made / "recovery.png").read_bytes()[:4] == b"\x89PNG"
    kept = (made / "cell-0000.json").stat().st_mtime_ns
    (made / "cell-0001.json").unlink()
    assert run(*asked).exit_code == 0
    again = pyarrow.parquet.read_table(tmp_path / "map.parquet")
    assert repr(again.to_pydict()) == repr(table.to_pydict())  # NaN and all
    assert (made / "cell-0000.json").stat().st_mtime_ns == kept
    for words, message in [("depth", "AXIS=NUMBER"), ("perod=1", "did you mean 'period'")]:
        failed = run("recover", "louver", "-s", folder, "-m", "m", "--grid", words)
        assert failed.exit_code == 1 and message in failed.output


def test_simulate_writes_curves_like_an_object(survey, tmp_path):
    folder, _ = survey
    latents = store.read_latents(folder, "m")
    out = tmp_path / "made.csv"
    asked = ("simulate", "louver(period=3)", "--like", latents.target[0], "--draws", 2)
    assert run(*asked, "-s", folder, "-o", out).exit_code == 0
    table = pyarrow.csv.read_csv(out)
    assert table.column_names == ["id", "mjd", "flux", "flux_err"]
    assert len(set(table["id"].to_pylist())) == 2
    assert "--survey" in run(*asked).output
