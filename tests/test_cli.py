"""The command line on a survey of 150 simulated curves. Kinds: contract (every command, every
form, every error in one line), simulated sky (answers name objects of the survey)."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from skyvec import store
from skyvec.cli import app

N = 150
RECIPE = """
[data]
curves = 150
min_points = 20
max_points = 300

[model]
name = "gridconv"

[train]
steps = 6
batch = 16
validate_every = 3
"""


def skyvec(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "small.toml").write_text(RECIPE)
    sky = folder / "sky"
    skyvec("simulate", "sky", "--survey", sky, "-n", N, "--seed", 3)
    skyvec("train", folder / "small.toml", "--survey", sky, "--name", "m")
    skyvec("encode", "m", "--survey", sky)
    return sky


@pytest.fixture(scope="module")
def asked(survey):
    return ("--survey", survey, "--model", "m")


def test_help_teaches_and_every_command_shows_an_example():
    text = skyvec("--help").output
    names = "ingest train encode search outliers cluster map probe spread report simulate info"
    names += " demo recover"
    for name in names.split():
        assert name in text
        for flag in ("-h", "--help"):
            assert f"skyvec {name} " in skyvec(name, flag).output.split("Example")[-1]
    for name in ["train", "suspects", "threshold", "score", "evaluate"]:
        help_ = skyvec("realbogus", name, "--help").output
        assert f"skyvec realbogus {name} " in help_.split("Example")[-1]
    assert skyvec("--version").output.startswith("skyvec 0.")


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, time; t = time.process_time(); sys.argv = ['skyvec', '--help']\n"
        "from skyvec.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'faiss', 'matplotlib', 'sklearn', 'pyarrow'} & set(sys.modules)\n"
        # of the processor: how long others make it wait says nothing about us
        "print(heavy or 'light', time.process_time() - t, file=sys.stderr)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        for _ in range(2)
    ]
    said = [run.stderr.split() for run in runs]
    assert said[0][0] == "light"
    assert min(float(seconds) for _, seconds in said) < 1.0


def test_info_counts_what_is_there(survey):
    facts = json.loads(skyvec("info", survey, "--format", "json").stdout)
    assert facts["segments"] == N and facts["rejects"] == 0
    assert facts["objects"] == len(np.unique(store.read_catalog(survey).target)) < N
    assert facts["latents"] == {"m": N} and facts["models"] == ["m"]
    assert f"{N}" in skyvec("info", survey).stdout


def test_a_stage_run_again_does_nothing_twice(survey):
    assert (
        "0 objects made now"
        in skyvec("simulate", "sky", "--survey", survey, "-n", N, "--seed", 3).stderr
    )
    assert "encoded 0 segments" in skyvec("encode", "m", "--survey", survey).stderr


def test_search_by_id_excludes_the_same_target(survey, asked):
    latents = store.read_latents(survey, "m")
    names, counts = np.unique(latents.target, return_counts=True)
    twice = latents.id[latents.target == names[counts > 1][0]]
    rows = json.loads(skyvec("search", twice[0], *asked, "-k", 4, "-f", "json").stdout)
    assert len(rows) == 4 and not {row["id"] for row in rows} & set(twice.tolist())
    similarity = [row["similarity"] for row in rows]
    assert similarity == sorted(similarity, reverse=True) and max(similarity) <= 1 + 1e-6
    every = skyvec("search", twice[0], *asked, "-k", N, "--include-same-target", "-f", "json")
    assert twice[1] in {row["id"] for row in json.loads(every.stdout)}


def test_search_with_several_and_combined(survey, asked):
    ids = store.read_latents(survey, "m").id[:2].tolist()
    apart = json.loads(skyvec("search", *ids, *asked, "-k", 3, "-f", "json").stdout)
    assert [row["query"] for row in apart] == [ids[0]] * 3 + [ids[1]] * 3
    together = json.loads(
        skyvec("search", *ids, *asked, "-k", 3, "--combine", "-f", "json").stdout
    )
    assert len(together) == 3 and not {row["id"] for row in together} & set(ids)


def test_search_with_a_file_made_by_simulate(asked, tmp_path):
    skyvec("simulate", "cepheid", "--set", "period=4", "--out", tmp_path / "query.csv")
    rows = json.loads(skyvec("search", tmp_path / "query.csv", *asked, "-f", "json").stdout)
    assert len(rows) == 5 and rows[0]["query"] == "cepheid"


def test_new_curves_are_placed_on_the_map_which_stays(survey, asked, tmp_path):
    before = json.loads(skyvec("map", *asked, "-f", "json").stdout)
    skyvec("simulate", "sinusoid", "--set", "period=2", "--out", tmp_path / "new.csv")
    rows = json.loads(skyvec("map", *asked, "--place", tmp_path / "new.csv", "-f", "json").stdout)
    assert [row["id"] for row in rows] == ["sinusoid"]
    xs = [row["x"] for row in before]
    assert min(xs) <= rows[0]["x"] <= max(xs)
    assert json.loads(skyvec("map", *asked, "-f", "json").stdout) == before


@pytest.mark.parametrize("verb", ["outliers", "cluster", "map"])
def test_every_form_of_every_answer_parses_back(verb, survey, asked, tmp_path):
    rows = json.loads(skyvec(verb, *asked, "-f", "json").stdout)
    assert len(pcsv.read_csv(io.BytesIO(skyvec(verb, *asked, "-f", "csv").stdout_bytes))) == len(
        rows
    )
    for name in ("a.parquet", "a.vot", "a.csv", "a.json", "a.txt"):
        skyvec(verb, *asked, "--out", tmp_path / name)
    assert pq.read_table(tmp_path / "a.parquet").num_rows == len(rows)
    assert len(Table.read(tmp_path / "a.vot", format="votable")) == len(rows)
    assert json.loads((tmp_path / "a.json").read_text()) == rows
    kept = store.answers_folder(survey, verb, "m")
    recipe = json.loads((kept / "recipe.json").read_text())
    assert recipe["verb"] == verb and recipe["sha256"] == store.sha256(kept / f"{verb}.parquet")


def test_outliers_come_oddest_first(asked):
    rows = json.loads(skyvec("outliers", *asked, "-n", 12, "-f", "json").stdout)
    similarity = [row["similarity"] for row in rows]
    assert len(rows) == 12 and similarity == sorted(similarity)


def test_cluster_members_add_up(survey, asked):
    rows = json.loads(skyvec("cluster", *asked, "--members", "-f", "json").stdout)
    assert len(rows) == N
    sizes = json.loads(skyvec("cluster", *asked, "-f", "json").stdout)
    assert sum(row["segments"] for row in sizes) == N


@pytest.mark.slow
def test_probe_puts_the_baselines_beside(asked):
    rows = json.loads(skyvec("probe", *asked, "-f", "json").stdout)
    assert [row["model"] for row in rows] == ["m", "statistics", "features"]
    assert all(0 <= row["knn_f1"] <= 1 for row in rows)
    alone = json.loads(skyvec("probe", *asked, "--no-baselines", "-f", "json").stdout)
    assert [row["model"] for row in alone] == ["m"]


@pytest.mark.slow
def test_report_prints_where_it_is(asked, tmp_path):
    path = skyvec("report", *asked, "--no-baselines", "--out", tmp_path / "r.html").stdout.strip()
    assert path == str(tmp_path / "r.html") and "<h1>" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("info", "nowhere"), "is no survey"),
        (("encode", "m", "--survey", "nowhere"), "m"),
        (("outliers", "--survey", "{sky}", "--model", "typo"), "there are: "),
        (("search", "SIM x", "--survey", "{sky}", "--model", "m"), "SIM x"),
        (("search", "gone.fits", "--survey", "{sky}", "--model", "m"), "gone.fits"),
        (("train", "no-such-recipe", "--survey", "{sky}"), "article"),
        (("simulate", "cefeid"), "cepheid"),
        (("simulate", "cepheid", "--set", "period"), "NAME=NUMBER"),
        (("simulate", "galaxies", "--survey", "new", "--set", "bars=1"), "knows no bars=1"),
        (("simulate", "sky"), "--survey"),
        (("adapt", "m", "--source", "{sky}", "--target", "nowhere"), "holds lightcurves"),
        (("outliers", "--survey", "{sky}", "--model", "m", "-f", "xlsx"), "choose from"),
        (("outliers", "-s", "{sky}", "-m", "m", "-o", "{sky}/survey.toml/x.csv"), "survey.toml"),
        (("ingest", "nothing.fits", "--survey", "new"), "nothing.fits"),
    ],
)
def test_errors_are_one_line_and_name_the_thing(
    arguments, expected, survey, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = skyvec(*(a.format(sky=survey) for a in arguments), code=1)
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and expected in lines[0]


def test_wrong_usage_ends_with_2():
    assert "Usage" in skyvec("outliers", "--modle", "m", code=2).stderr


def test_ctrl_c_ends_with_130_and_says_it_can_go_on(tmp_path):
    command = [sys.executable, "-c", "from skyvec.cli import main; main()"]
    arguments = ["simulate", "sky", "--survey", str(tmp_path / "sky"), "-n", "100000"]
    process = subprocess.Popen(
        [*command, *arguments], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    while not (tmp_path / "sky" / "objects" / "manifest.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "run the same command again" in said and "Traceback" not in said
