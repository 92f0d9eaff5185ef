"""Contract: choices depend on ids alone; batches are whole, similar in length and fair."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_surveys import add, light

from skyvec import batches, store
from skyvec.prep.lightcurves import prepare


@pytest.fixture
def survey(tmp_path):
    add(tmp_path / "sky", [f"a{i}" for i in range(60)], [30] * 60, flat=(3, 4))
    add(tmp_path / "sky", [f"b{i}" for i in range(40)], [5] * 20 + [90] * 20, seed=1)
    return tmp_path / "sky"


def test_split_is_by_target_stable_and_of_the_size_asked_for():
    target = np.array([f"TIC {i // 2}" for i in range(20_000)])
    parts = batches.split(target, valid=0.1, test=0.2)
    assert (parts[::2] == parts[1::2]).all()
    assert np.mean(parts == "valid") == pytest.approx(0.1, abs=0.01)
    assert np.mean(parts == "test") == pytest.approx(0.2, abs=0.015)
    some = np.random.default_rng(0).permutation(20_000)[:500]
    assert (batches.split(target[some], valid=0.1, test=0.2) == parts[some]).all()
    assert (batches.split(target, seed=1, valid=0.1, test=0.2) != parts).any()
    with pytest.raises(ValueError, match="sum to less than 1"):
        batches.split(target, valid=0.5, test=0.5)


def test_training_set_does_not_depend_on_shards_or_their_order(survey, tmp_path):
    prepared, parts = batches.training_set(survey, curves=50)
    other = tmp_path / "other"
    store.create_survey(other)
    curves = [store.read_objects(survey, s["file"]) for s in store.object_shards(survey)]
    for i in (1, 0):
        catalog, light_curves = curves[i]
        for rows in np.array_split(np.arange(len(catalog)), 4):
            store.append_objects(
                other, catalog.take(rows), light_curves.take(rows), np.array(["x"] * len(rows))
            )
    again, parts_again = batches.training_set(other, curves=50)
    assert len(prepared) == 50
    assert prepared.id.tolist() == again.id.tolist()
    assert parts.tolist() == parts_again.tolist()
    for name in ("offsets", "time", "value", "error", "band", "level"):
        np.testing.assert_array_equal(getattr(prepared, name), getattr(again, name))


def test_training_set_leaves_out_what_cannot_train_and_thins_what_is_long(survey):
    prepared, _ = batches.training_set(survey, min_points=8, max_points=40, round_days=0)
    lengths = np.diff(prepared.offsets)
    assert len(prepared) == 58 + 20
    assert not set(prepared.id) & {"a3", "a4", "b0"}
    assert lengths.max() == 40 and lengths.min() == 30
    full, _ = batches.training_set(survey, round_days=0)
    row = int(np.argmax(np.diff(full.offsets)))
    long = full.time[full.offsets[row] : full.offsets[row + 1]]
    thin = prepared.time[prepared.offsets[row] : prepared.offsets[row + 1]]
    assert thin[0] == long[0] and np.isin(thin, long).all()
    assert np.diff(np.searchsorted(long, thin)).max() <= 3


def test_training_set_of_one_band_holds_only_that_band(survey):
    prepared, _ = batches.training_set(survey, bands=["r"], round_days=0)
    both, _ = batches.training_set(survey, round_days=0)
    assert prepared.level.shape[1] == 1 and both.level.shape[1] == 2
    i, j = prepared.id.tolist().index("a0"), both.id.tolist().index("a0")
    np.testing.assert_allclose(prepared.level[i, 0], both.level[j, 1])
    with pytest.raises(ValueError, match="no band 'u'; choose from g, r"):
        batches.training_set(survey, bands=["u"])
    with pytest.raises(ValueError, match="names a band twice"):
        batches.training_set(survey, bands=["g", "g"])


def test_a_survey_without_a_usable_curve_is_an_error(tmp_path):
    store.create_survey(tmp_path / "sky")
    with pytest.raises(ValueError, match="no curve of"):
        batches.training_set(tmp_path / "sky")
    add(tmp_path / "sky", ["a", "b"], [3, 30], flat=(1,))
    with pytest.raises(ValueError, match="at least 8 points in g, r"):
        batches.training_set(tmp_path / "sky")


def test_choose_bands_renames_codes_and_drops_other_points():
    curves = light(["a", "b"], [20, 20], bands=("g", "r", "i"))
    chosen = batches.choose_bands(curves, ("i", "g"))
    names, before = np.array(chosen.bands)[chosen.band], np.array(curves.bands)[curves.band]
    assert names.tolist() == before[before != "r"].tolist()
    assert chosen.flux.tolist() == curves.flux[before != "r"].tolist()
    single = batches.choose_bands(light(["a"], [5], bands=("TESS",)), ("Kepler",))
    assert single.bands == ("Kepler",) and len(single.mjd) == 5
    with pytest.raises(ValueError, match="the curves have the bands g, r, i, but z is wanted"):
        batches.choose_bands(curves, ("z",))


def test_ragged_holds_the_rows_asked_for():
    prepared = prepare(light(["a", "b", "c"], [4, 0, 6]), round_days=0)
    batch = batches.ragged(prepared, np.array([2, 1, 0]))
    assert batch.lengths.tolist() == [6, 0, 4]
    assert batch.curve.tolist() == [0] * 6 + [2] * 4
    assert batch.value[:6].tolist() == prepared.value[4:].tolist()
    assert batch.amplitude.shape == (3, 2) and batch.amplitude[1].isnan().all()
    assert batch.time.dtype == torch.float64 and batch.value.dtype == torch.float32
    assert batch.band.dtype == batch.curve.dtype == batch.offsets.dtype == torch.int64


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 500), max_size=60), st.integers(1, 2_000), st.integers(1, 20))
def test_length_buckets_take_every_row_once_within_the_limits(lengths, points, most):
    lengths = np.array(lengths, np.int64)
    buckets = batches.length_buckets(lengths, points=points, most=most)
    assert sorted(np.concatenate([*buckets, []]).tolist()) == list(range(len(lengths)))
    for rows in buckets:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= points
        assert 1 <= len(rows) <= most


def test_draw_batch_is_fair_and_of_similar_lengths():
    lengths = np.random.default_rng(0).integers(10, 1_000, 100)
    counts, spread = np.zeros(100), []
    for step in range(4_000):
        rows = batches.draw_batch(lengths, 5, 10**6, np.random.default_rng([0, step]))
        assert len(set(rows.tolist())) == 5
        counts[rows] += 1
        spread.append(np.ptp(lengths[rows]))
    assert np.abs(counts - 200).max() < 5 * np.sqrt(200)
    assert np.mean(spread) < 250  # a plain draw of five spreads over 660
    rows = batches.draw_batch(lengths, 50, 2_000, np.random.default_rng(1))
    assert len(rows) == 1 or len(rows) * lengths[rows].max() <= 2_000


@pytest.mark.skipif(sys.platform != "linux", reason="page faults of Linux")
def test_memory_that_is_kept_is_not_asked_for_again():
    # in a process of its own, because what malloc is told cannot be taken back
    program = """
import resource, sys
import numpy as np
from skyvec.batches import keep_memory
told = keep_memory() if sys.argv[1] == "keep" else True
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8_000_000)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(told, min(faults[1:]))  # whatever else the system does to a process once
"""
    found = {}
    for how in ("keep", "give"):
        done = subprocess.run(
            [sys.executable, "-c", program, how], capture_output=True, text=True, check=True
        )
        told, faults = done.stdout.split()
        if told != "True":
            pytest.skip("a C library other than glibc")
        found[how] = int(faults)
    assert found["keep"] == 0 < found["give"]
