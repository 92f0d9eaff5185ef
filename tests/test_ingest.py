"""Contract: all that goes in is stored or rejected, in a fixed order, whatever interrupts it.

Also truth on real data: every set of light curves beside the checkout ingests without options.
"""

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from foreign_files import described_set, row, tess_file

from skyvec import store
from skyvec.ingest import IngestError, expand, ingest
from skyvec.prep.segments import join_segments
from skyvec.report.facts import survey_facts
from skyvec.schema import Catalog, LightCurves


def contents(survey):
    """Hash of every file of a survey, by its path in it."""
    return {
        str(path.relative_to(survey)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(survey.rglob("*"))
        if path.is_file()
    }


def sky(folder, n=24):
    """A folder of everything: a described table, TESS files, and several kinds of rubbish."""
    folder.mkdir()
    rows = [row(f"v{i}", n=1 + i % 5, extra=json.dumps({"amp": i})) for i in range(n)]
    described_set(folder, "stars", rows, value_kind="mag", bands=["V"], time_ref="MJD (UTC)")
    (folder / "sector1").mkdir()
    for tic in range(n // 4):
        tess_file(folder / "sector1" / f"{tic}_lc.fits", tic=tic + 1)
    (folder / "sector1" / "cut_lc.fits").write_bytes(b"SIMPLE  =")
    (folder / "sector1" / "notes.txt").write_text("not a light curve")
    (folder / "sector1" / ".hidden.fits").write_text("left alone")
    again = [row("v1"), row("w1"), row("w1"), row("w2", extra='{"amp": "high"}')]
    described_set(folder, "twins", again, value_kind="flux (nJy)", bands=["V"], time_ref="MJD")
    return folder


def test_everything_is_stored_or_rejected_with_its_reason(tmp_path):
    source, survey = sky(tmp_path / "in"), tmp_path / "out"
    told = []
    counts = ingest(survey, [source], progress=lambda *what: told.append(what))
    assert counts.items == 24 + 8 + 4 == counts.segments + counts.rejects
    assert (counts.segments, counts.rejects, counts.objects) == (19 + 6 + 2, 9, 27)
    assert (counts.new_segments, counts.new_rejects) == (27, 9)
    assert told[-1][:2] == (36, 36)
    rejects = store.read_rejects(survey).to_pylist()
    reasons = {(Path(r["source"]).name, r["row"], r["id"]): r["reason"] for r in rejects}
    assert len(reasons) == 9
    assert "duplicate" in reasons["twins.parquet", 0, "v1"]
    assert "duplicate" in reasons["twins.parquet", 2, "w1"]
    assert "single usable point" in reasons["stars.parquet", 5, "v5"]
    assert "truncated" in reasons["cut_lc.fits", 0, ""]
    assert "unknown type of file (.txt)" in reasons["notes.txt", -1, ""]
    catalog = store.read_catalog(survey)
    assert set(catalog.id[catalog.columns["sector"] == 1]) == {
        f"TIC {i}/s0001-2-3" for i in range(1, 7)
    }
    # a text under the name of a number has a column of its own
    assert catalog.columns["amp"][catalog.id == "v3"] == 3
    assert catalog.columns["amp_text"][catalog.id == "w2"] == "high"
    assert np.isnan(catalog.columns["amp"][catalog.id == "w2"])
    note = (survey / "survey.toml").read_text()
    assert "turned into flux in uJy" in note and "MJD (UTC)" in note
    units = [shard["flux_unit"] for shard in store.object_shards(survey)]
    assert units == ["uJy", "nJy", "electron / s"]


def test_what_is_stored_is_what_was_read(tmp_path):
    columns = tess_file(tmp_path / "a_lc.fits")
    ingest(tmp_path / "out", [tmp_path / "a_lc.fits"])
    curves = store.find_curves(tmp_path / "out", ["TIC 1/s0001-2-3"])
    np.testing.assert_array_equal(curves.flux, columns["PDCSAP_FLUX"])
    np.testing.assert_allclose(curves.mjd, columns["TIME"] + 56999.5, rtol=0, atol=1e-9)
    assert curves.flux_unit == "electron / s"


def test_a_second_run_adds_only_what_is_new(tmp_path):
    source, survey = sky(tmp_path / "in"), tmp_path / "out"
    first = ingest(survey, [source])
    before = contents(survey)
    again = ingest(survey, [source])
    assert (again.items, again.segments) == (first.items, first.segments)
    assert (again.new_segments, again.new_rejects) == (0, 0)
    assert contents(survey) == before
    tess_file(source / "sector1" / "new_lc.fits", tic=77)
    assert ingest(survey, [source]).new_segments == 1


def test_a_source_that_has_changed_is_refused(tmp_path):
    rows = [row(f"v{i}") for i in range(9)]
    said = {"value_kind": "mag", "bands": ["V"], "time_ref": "MJD"}
    path = described_set(tmp_path, "stars", rows, **said)
    ingest(tmp_path / "out", [path])
    described_set(tmp_path, "stars", rows[:5], **said)
    with pytest.raises(IngestError, match="gives 5 items, but 9 of it are in the survey"):
        ingest(tmp_path / "out", [path])


def test_sources_that_are_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for sources, message in (
        ([], "no source given"),
        ([tmp_path / "nowhere"], "nowhere does not exist"),
        ([tmp_path / "empty"], "holds no file"),
    ):
        with pytest.raises(IngestError, match=message):
            ingest(tmp_path / "out", sources)
    assert not (tmp_path / "out").exists()
    for options, message in (
        ({"quality": "soft"}, "unknown quality"),
        ({"columns": {"flucks": "F"}}, "did you mean flux"),
        ({"values": "counts"}, "values must be mag or flux"),
    ):
        with pytest.raises(ValueError, match=message):
            ingest(tmp_path / "out", [tmp_path / "empty"], **options)


def test_sources_are_read_once_in_a_fixed_order(tmp_path):
    source = sky(tmp_path / "in")
    files = expand([source / "twins.parquet", source, source / "sector1"])
    names = [os.path.relpath(path, source) for path in files]
    sector = [f"sector1/{name}_lc.fits" for name in (*range(6), "cut")]
    assert names == ["twins.parquet", "stars.parquet", *sector, "sector1/notes.txt"]
    survey = source / "out"
    ingest(survey, [source])
    assert set(expand([source], survey)) == set(files)


def test_shards_are_cut_by_points_and_rows(tmp_path):
    source = sky(tmp_path / "in")
    ingest(tmp_path / "rows", [source], shard_rows=4)
    shards = store.object_shards(tmp_path / "rows")
    assert max(shard["rows"] + shard["rejects"] for shard in shards) == 4
    ingest(tmp_path / "points", [source], shard_points=100)
    shards = store.object_shards(tmp_path / "points")
    assert max(shard["points"] for shard in shards) < 100 + 40
    for survey in ("rows", "points"):
        assert len(store.read_catalog(tmp_path / survey)) == 27


class Killed(BaseException):
    """Ends a run at once, as a kill would."""


def test_a_run_stopped_at_any_rename_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    source = sky(tmp_path / "in", n=12)
    ingest(tmp_path / "whole", [source], shard_rows=8)
    truth = contents(tmp_path / "whole")
    rename, left = Path.replace, [0]

    def dying(self, target):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return rename(self, target)

    moments = 0
    for moments in range(100):
        survey = tmp_path / f"out{moments}"
        left[0] = moments
        monkeypatch.setattr(Path, "replace", dying)
        try:
            ingest(survey, [source], shard_rows=8)
            stopped = False
        except Killed:
            stopped = True
        monkeypatch.setattr(Path, "replace", rename)
        if stopped and (survey / "survey.toml").exists():
            # what is visible is whole, and counts
            for shard in store.object_shards(survey):
                assert len(store.read_objects(survey, shard["file"])[0]) == shard["rows"]
        ingest(survey, [source], shard_rows=8)
        ours = {k: v for k, v in contents(survey).items() if k != "survey.toml"}
        assert ours == {k: v for k, v in truth.items() if k != "survey.toml"}
        if not stopped:
            break
    assert moments == 3 * len(store.object_shards(tmp_path / "whole")) + 2


RUN = """
import sys
from pathlib import Path
from skyvec.ingest import ingest
if __name__ == "__main__":
    print("reading", flush=True)
    ingest(Path(sys.argv[1]), [Path(sys.argv[2])], shard_rows=25, workers=int(sys.argv[3]))
"""


def start(survey, source, workers=1, **options):
    command = [sys.executable, "-c", RUN, str(survey), str(source), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


HOLD = """
import sys, time
from pathlib import Path
from skyvec.ingest import ingest

def wait(done, total, note):
    print("inside", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    ingest(Path(sys.argv[1]), [Path(sys.argv[2])], progress=wait)
"""


def test_a_second_process_is_kept_out_and_a_killed_one_keeps_nobody_out(tmp_path):
    source, survey = sky(tmp_path / "in"), tmp_path / "out"
    command = [sys.executable, "-c", HOLD, str(survey), str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"inside\n"
        who = rf"another skyvec ingest \(process {process.pid} on .*, since 20.*\) is writing"
        with pytest.raises(store.StoreError, match=who):
            ingest(survey, [source])
        process.send_signal(signal.SIGKILL)
    assert (survey / ".lock-objects").exists()  # what the killed one left holds nobody up
    counts = ingest(survey, [source])
    assert counts.new_segments + counts.new_rejects == counts.items == 36
    assert not (survey / ".lock-objects").exists()


def crowd(folder, n=150):
    folder.mkdir()
    for tic in range(n):
        tess_file(folder / f"{tic:04d}_lc.fits", tic=tic + 1, n=2000)
    rows = [row(f"v{i}", n=1 + i % 9) for i in range(4 * n)]
    described_set(folder, "stars", rows, value_kind="mag", bands=["V"], time_ref="MJD (UTC)")
    return folder


def wait_for_shards(survey, n, process):
    """Wait until a run has finished n shards, or has ended."""
    while process.poll() is None:
        if not n or len(store.read_manifest(store.objects_folder(survey))["shards"]) >= n:
            return
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(tmp_path):
    source, whole = crowd(tmp_path / "in"), tmp_path / "whole"
    began = time.monotonic()
    truth_counts = ingest(whole, [source], shard_rows=25)
    duration = time.monotonic() - began
    truth = contents(whole)
    n_shards = len(store.object_shards(whole))
    rng = random.Random(5)
    interrupted = 0
    for i in range(10):
        survey = tmp_path / f"out{i}"
        process = start(survey, source)
        assert process.stdout.readline() == b"reading\n"
        wait_for_shards(survey, rng.randrange(n_shards - 2), process)
        time.sleep(rng.random() * duration / n_shards)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        interrupted += process.returncode == -signal.SIGKILL
        if (survey / "survey.toml").exists():
            for shard in store.object_shards(survey):
                file = store.objects_folder(survey) / shard["file"]
                assert store.sha256(file) == shard["sha256"]
        counts = ingest(survey, [source], shard_rows=25)
        assert (counts.items, counts.segments) == (truth_counts.items, truth_counts.segments)
        assert contents(survey) == {**truth, "survey.toml": contents(survey)["survey.toml"]}
    assert interrupted >= 8  # on a busy machine a run may end before its moment comes


@pytest.mark.slow
def test_the_result_does_not_depend_on_workers_and_none_outlives_its_parent(tmp_path):
    source = crowd(tmp_path / "in")
    ingest(tmp_path / "one", [source], shard_rows=25)
    process = start(tmp_path / "two", source, workers=2)
    assert process.stdout.readline() == b"reading\n"
    parent, children = psutil.Process(process.pid), []
    while len(children) < 3 and process.poll() is None:  # two readers and Python's own tracker
        children = parent.children(recursive=True)
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and children
    _, alive = psutil.wait_procs(children, timeout=100)
    assert not alive
    process = start(tmp_path / "two", source, workers=2)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    ours, truth = contents(tmp_path / "two"), contents(tmp_path / "one")
    assert {**ours, "survey.toml": ""} == {**truth, "survey.toml": ""}


@pytest.mark.slow
@pytest.mark.parametrize("shards", [0, 1])  # none: while the readers still import
def test_ctrl_c_leaves_whole_shards_and_a_second_run_ends_it(tmp_path, shards):
    source = crowd(tmp_path / "in")
    process = start(tmp_path / "out", source, workers=2, start_new_session=True)
    assert process.stdout.readline() == b"reading\n"
    parent = psutil.Process(process.pid)
    while process.poll() is None and len(parent.children()) < 3:  # two readers and a tracker
        time.sleep(0.001)
    time.sleep(0.2)  # Python has begun in them, and has its own answer to Ctrl-C by now
    wait_for_shards(tmp_path / "out", shards, process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to readers too
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0 and errors.count(b"KeyboardInterrupt") == 1
    assert not list((tmp_path / "out").rglob(store.TEMPORARY + "*"))
    done = len(store.read_catalog(tmp_path / "out"))
    counts = ingest(tmp_path / "out", [source], shard_rows=25)
    assert bool(shards) <= done <= counts.segments == counts.items - counts.rejects


def test_a_full_disk_is_a_clear_error_and_nothing_half_written_is_seen(tmp_path):
    source = sky(tmp_path / "in")
    ingest(tmp_path / "out", [source / "sector1"])
    before = contents(tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # past this size the system refuses to write, as it does on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*; what is finished is kept, make room"):
            ingest(tmp_path / "out", [source])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = contents(tmp_path / "out")
    assert before.items() <= after.items()
    assert not [name for name in after if store.TEMPORARY in name]
    assert ingest(tmp_path / "out", [source]).items == 36


# --- joining ----------------------------------------------------------------------------------


def two_sectors():
    ids = np.array(["b/2", "a/1", "b/1"], dtype=np.str_)
    offsets = np.array([0, 3, 5, 9])
    mjd = np.array([20, 21, 22, 5, 6, 10, 11, 12, 13], np.float64)
    flux = np.array([30, 20, 10, 4, 6, 100, 2, 300, 4], np.float32)
    band = np.array([0, 0, 0, 0, 0, 0, 1, 0, 1], np.int16)
    curves = LightCurves(ids, offsets, mjd, flux, np.ones(9, np.float32), band, ("g", "r"))
    facts = {"label": np.array(["B", "A", "B"]), "sector": np.array([2, 1, 1])}
    target = np.array(["b", "a", "b"], dtype=np.str_)
    return Catalog(ids, target, np.array([1.0, 2, 1]), np.zeros(3), facts), curves


def test_segments_of_a_target_are_joined_in_time_on_a_common_scale():
    catalog, curves = join_segments(*two_sectors())
    assert catalog.id.tolist() == curves.id.tolist() == ["b", "a"]
    assert curves.offsets.tolist() == [0, 7, 9]
    assert curves.mjd.tolist() == [10, 11, 12, 13, 20, 21, 22, 5, 6]
    truth = [100 / 200, 2 / 3, 300 / 200, 4 / 3, 30 / 20, 1, 10 / 20, 4 / 5, 6 / 5]
    np.testing.assert_allclose(curves.flux, truth, rtol=1e-6)
    np.testing.assert_allclose(curves.flux_err[[0, 1, 4]], [1 / 200, 1 / 3, 1 / 20], rtol=1e-6)
    assert curves.flux_unit == "relative" and curves.band.tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 0]
    assert catalog.columns["label"].tolist() == ["B", "A"] and "sector" not in catalog.columns
    assert catalog.columns["n_segments"].tolist() == [2, 1] and catalog.ra.tolist() == [1, 2]


def test_difference_fluxes_are_not_joined():
    catalog, curves = two_sectors()
    curves.flux[3:5] = -1
    with pytest.raises(ValueError, match="'a/1' has a median flux that is not positive"):
        join_segments(catalog, curves)
    with pytest.raises(ValueError, match="same segments"):
        join_segments(catalog.take(slice(0, 2)), curves)


# --- real data --------------------------------------------------------------------------------


@pytest.mark.real
def test_real_tess_files(tmp_path, real_data):
    counts = ingest(tmp_path / "out", [real_data("tess_spoc_fits")])
    assert counts.items == counts.segments == counts.objects == 9
    _, catalog, curves = next(store.iterate_objects(tmp_path / "out"))
    assert catalog.target[0] == "TIC 29779873" and curves.lengths.min() > 18_000


@pytest.mark.real
@pytest.mark.slow
def test_every_real_set_ingests_without_options(tmp_path, real_data):
    paths = sorted(real_data("lightcurves").glob("*.parquet"))
    assert paths
    for path in paths:
        survey = tmp_path / path.stem
        counts = ingest(survey, [path])
        table = pq.read_table(path, columns=["object_id", "value", "label"])
        assert counts.items == table.num_rows == counts.segments + counts.rejects
        ids, n_points = (
            table["object_id"].to_pylist(),
            [len(v) for v in table["value"].to_pylist()],
        )
        repeated = len(ids) - len(set(ids))
        assert counts.rejects == repeated + sum(n < 2 for n in n_points), path.stem
        catalog = store.read_catalog(survey)
        stored = sum(shard["points"] for shard in store.object_shards(survey))
        dropped = int(catalog.columns["n_dropped"].sum())
        assert stored + dropped <= sum(n_points)
        if not counts.rejects:
            assert stored + dropped == sum(n_points)
            assert catalog.columns["label"].tolist() == table["label"].to_pylist()
        assert dropped < 0.02 * sum(n_points)
        if path.stem.startswith("tess_clusters"):
            assert (counts.segments, counts.objects) == (638, len({i[:-4] for i in ids}))


def stars(file, ids, mag="mag", bad=()):
    """A table of points of some stars; of the bad ones no magnitude is a number."""
    lines = [f"id,mjd,{mag}"]
    for i in ids:
        lines += [f"{i},{58000 + k},{'nan' if i in bad else 15 + k / 10}" for k in range(5)]
    file.write_text("\n".join(lines) + "\n")
    return file


def rejected(survey):
    return [row["reason"] for row in store.read_rejects(survey).to_pylist()]


def test_a_repaired_file_is_read_again(tmp_path):
    source, survey = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    tess_file(source / "1_lc.fits", tic=1)
    whole = {}
    for name in ("2_lc.fits", "3_lc.fits"):
        tess_file(source / name, tic=int(name[0]))
        whole[name] = (source / name).read_bytes()
        (source / name).write_bytes(whole[name][:3000])
    counts = ingest(survey, [source], shard_rows=2)
    assert (counts.segments, counts.rejects, counts.left) == (1, 2, 0)
    assert ingest(survey, [source]).new_rejects == 0
    (source / "2_lc.fits").write_bytes(whole["2_lc.fits"])
    for _ in range(2):  # and nothing is done twice
        counts = ingest(survey, [source])
        assert (counts.items, counts.segments, counts.rejects) == (3, 2, 1)
    assert sorted(store.read_catalog(survey).target) == ["TIC 1", "TIC 2"]
    assert len(rejected(survey)) == 1 and survey_facts(survey)["rejects"] == 1
    (source / "3_lc.fits").write_bytes(whole["3_lc.fits"])
    store.withdraw_rejects(survey, [str(source / "3_lc.fits")])  # killed right after
    assert ingest(survey, [source]).segments == 3 and rejected(survey) == []


def test_what_was_refused_for_its_options_is_tried_again_with_others(tmp_path):
    source, survey = stars(tmp_path / "t.csv", range(1, 6), mag="brightness"), tmp_path / "out"
    assert ingest(survey, [source]).rejects == 1
    counts = ingest(survey, [source], columns={"mag": "brightness"})
    assert (counts.items, counts.segments, counts.rejects) == (5, 5, 0)
    assert rejected(survey) == []


def test_a_file_of_which_something_is_stored_is_left_as_it_is(tmp_path):
    source, survey = stars(tmp_path / "t.csv", "abc", bad="b"), tmp_path / "out"
    assert ingest(survey, [source]).left == 0
    stars(source, "abc")
    counts = ingest(survey, [source])
    assert (counts.segments, counts.rejects, counts.left) == (2, 1, 1)
    assert counts.new_segments == 0 and len(rejected(survey)) == 1


def test_catalogues_that_number_their_objects_alike_go_together_with_a_prefix(tmp_path):
    one, two = stars(tmp_path / "ogle.csv", "12"), stars(tmp_path / "asas.csv", "12")
    survey = tmp_path / "out"
    ingest(survey, [one])
    assert ingest(survey, [two]).rejects == 2
    assert all("with a prefix" in reason for reason in rejected(survey))
    counts = ingest(survey, [two], prefix="ASAS ")
    assert (counts.segments, counts.rejects) == (2, 0)
    catalog = store.read_catalog(survey)
    assert sorted(catalog.id) == sorted(catalog.target) == ["1", "2", "ASAS 1", "ASAS 2"]
    ingest(tmp_path / "both", [one, two], prefix="{file}:")
    assert sorted(store.read_catalog(tmp_path / "both").id) == [
        "asas:1",
        "asas:2",
        "ogle:1",
        "ogle:2",
    ]
