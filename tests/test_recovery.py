"""Simulated sky: strong injections are recovered, faint ones are not, and intervals are exact."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom

from skyvec import checkpoint
from skyvec.sim.lightcurves import simulate_sky
from skyvec.sim.signals import parse
from skyvec.studies import recovery

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    full = checkpoint.complete({"model": {"name": "gridconv"}}, ("TESS",))
    torch.manual_seed(0)
    checkpoint.save(folder, full, checkpoint.build(full).state_dict(), {})
    return checkpoint.load(folder)


@pytest.fixture(scope="module")
def field(model):
    rng = np.random.default_rng(5)
    catalog, curves = simulate_sky(
        120, rng, kinds=["constant", "rotator"], twice=0.2, oddities=0.0
    )
    return recovery.survey_field(model, curves, catalog.target, trials=60)


GRID = {"period": [0.4], "depth": [0.3, 100.0]}
ASKED = "contact_binary()"


def cells_of(model, field, known=None):
    hosts = recovery.choose_hosts(field, 12, np.random.default_rng(0))
    found = recovery.recover(
        model, field, parse(ASKED), hosts, GRID, seed=3, draws=32, known=known
    )
    return dict(found)


@pytest.fixture(scope="module")
def cells(model, field):
    return cells_of(model, field)


def test_what_is_deep_is_found_and_what_is_lost_in_noise_is_not(cells, field):
    faint, deep = cells[0], cells[1]
    assert (faint.place, faint.depth, faint.n) == ({"period": 0.4}, 0.3, 12)
    assert faint.targets == len(set(field.target)) < 120
    assert deep.directed.value >= 0.9 and deep.matched.value >= 0.9
    assert faint.directed.value <= 0.4 and faint.matched.value <= 0.4
    assert deep.checked.value >= 0.9 and faint.checked.value <= 0.4
    assert deep.median_rank <= 2 < faint.median_rank
    assert deep.odd_rank < faint.odd_rank
    assert deep.top_percent.value > faint.top_percent.value


def test_hosts_are_of_different_targets_and_must_leave_others(field):
    hosts = recovery.choose_hosts(field, 30, np.random.default_rng(0))
    assert len(set(field.target[hosts])) == 30
    with pytest.raises(ValueError, match="fewer injections"):
        recovery.choose_hosts(field, len(set(field.target)), np.random.default_rng(0))


def test_a_resumed_study_ends_as_an_uninterrupted_one(model, field, cells):
    kept = {0: recovery.Cell.from_json(json.loads(json.dumps(cells[0].to_json())))}
    assert kept[0] == cells[0]
    assert cells_of(model, field, known=kept.get) == cells


def test_a_table_has_every_share_with_its_interval(cells):
    table = recovery.completeness(list(cells.values()))
    assert table["depth"].to_pylist() == [0.3, 100.0]
    assert table["period"].to_pylist() == [0.4, 0.4]
    for name in ("directed", "checked", "box", "matched", "top_percent", "oddest"):
        value, low, high = (table[name + end].to_numpy() for end in ("", "_low", "_high"))
        assert ((low <= value) & (value <= high) & (low < high)).all()


def test_a_signal_is_dominant_by_its_share_of_the_variance(cells):
    faint, deep = cells[0], cells[1]
    assert (faint.dominant, faint.top_dominant) == (0, None)
    assert deep.dominant >= 10 and deep.top_dominant.value >= deep.top_percent.value
    rng = np.random.default_rng(2)
    _, before = simulate_sky(2, rng, kinds=["constant"], oddities=0.0)
    part = slice(before.offsets[1], before.offsets[2])
    flux = before.flux.astype(np.float64)
    added = rng.normal(size=part.stop - part.start)
    flux[part] += 2 * np.std(flux[part]) * added / np.std(added)
    after = replace(before, flux=flux.astype(np.float32))
    assert recovery.variance_share(before, after) == pytest.approx([0, 0.8], abs=1e-3)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"period": [1.0]}, "needs an axis 'depth'"),
        ({"depth": []}, "is empty"),
        ({"depth": [0.0]}, "must be > 0"),
        ({"depth": [1.0], "perod": [1.0]}, "did you mean 'period'"),
    ],
)
def test_grids_that_make_no_sense_are_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        recovery.check_grid(parse(ASKED), grid)


def test_oddness_is_the_similarity_to_the_fifth_other_target():
    rng = np.random.default_rng(1)
    vectors = recovery._unit(rng.normal(size=(40, 6)).astype(np.float32))
    target = np.array([f"t{i // 2}" for i in range(40)])
    odd = recovery._oddness(vectors, target, vectors, target)
    for row in (0, 17):
        best = {}
        for other, name in enumerate(target):
            if name != target[row]:
                best[name] = max(best.get(name, -1), float(vectors[row] @ vectors[other]))
        assert odd[row] == pytest.approx(sorted(best.values())[-5], abs=1e-6)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (250, 1000)])
def test_intervals_are_those_of_clopper_and_pearson(hits, n):
    found = recovery.share(hits, n)
    assert found.value == hits / n
    if hits:
        assert binom.sf(hits - 1, n, found.low) == pytest.approx(0.025, rel=1e-6)
    if hits < n:
        assert binom.cdf(hits, n, found.high) == pytest.approx(0.025, rel=1e-6)
    with pytest.raises(ValueError, match="no fraction"):
        recovery.share(n + 1, n)
