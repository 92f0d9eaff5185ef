"""Simulated sky: a signal nobody has seen finds the stars that show it. Contract: the answer's
columns, its picture, files as signals, and errors in one line."""

import numpy as np
import pyarrow.csv
import pytest
import torch
from typer.testing import CliRunner

from skyvec import checkpoint, store
from skyvec.cli import app
from skyvec.encode import encode
from skyvec.report.directed import search_signal
from skyvec.report.queries import read_signal
from skyvec.sim.lightcurves import simulate_sky
from skyvec.sim.signals import Template, inject, parse, relative_noise

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
    answer, picture = search_signal(folder, "m", parse("louver(period=3.2)"), k=20, draws=48)
    table = answer.table
    assert table.column_names == ["rank", "id", "target", "score", "segments", "ra", "dec"]
    found = table["target"].to_pylist()
    assert len(set(found)) == len(found) == 20
    assert len(stars & set(found[:PLANTED])) >= PLANTED - 1
    score = table["score"].to_numpy()
    assert (np.diff(score) <= 0).all() and score[0] > 0
    assert max(table["segments"].to_pylist()) == 2
    assert picture.read_bytes()[:4] == b"\x89PNG"
    again, _ = search_signal(folder, "m", parse("louver(period=3.2)"), k=20, draws=48)
    assert again.table.equals(table)


def test_only_those_asked_for_answer(survey):
    folder, _ = survey
    latents = store.read_latents(folder, "m")
    among = latents.target == latents.target[10]
    answer, _ = search_signal(
        folder, "m", parse("louver(period=3.2)"), draws=8, among=among, among_name="one"
    )
    assert answer.table["target"].to_pylist() == [str(latents.target[10])]


def test_a_file_of_flux_against_time_is_a_signal(survey, tmp_path):
    folder, stars = survey
    time = np.arange(0, 27, 0.02)
    flux, _ = parse("louver(period=3.2, t0=1)").draw(time, np.random.default_rng(0))
    table = pyarrow.table({"time": time, "flux": 1 + 3 * (flux - 1)})
    pyarrow.csv.write_csv(table, tmp_path / "louver.csv")
    signal = read_signal(str(tmp_path / "louver.csv"))
    assert isinstance(signal, Template) and str(signal) == "louver.csv"
    answer, _ = search_signal(folder, "m", signal, k=PLANTED, draws=48)
    assert len(stars & set(answer.table["target"].to_pylist())) >= PLANTED - 2


def test_the_command_answers_and_refuses_in_one_line(survey, tmp_path):
    folder, _ = survey
    out = tmp_path / "found.csv"
    done = run(
        "search", "--signal", "transit(rp=0.1, period=3.2)", "-s", folder, "-m", "m", "-o", out
    )
    assert done.exit_code == 0 and "directed.png" in done.output
    assert len(out.read_text().splitlines()) == 6
    for arguments, message in [
        ((), "one of the two"),
        (("x", "--signal", "flares"), "one of the two"),
        (("--signal", "louvr()"), "did you mean 'louver'"),
        (("--signal", "nowhere.csv"), "no signal and no file"),
    ]:
        failed = run("search", *arguments, "-s", folder, "-m", "m")
        assert failed.exit_code == 1 and message in failed.output
