"""Simulated sky: strong injections are recovered, faint ones are not, and intervals are exact."""

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
    _, curves = simulate_sky(120, rng, kinds=["constant", "rotator"], twice=0.0, oddities=0.0)
    return recovery.survey_field(model, curves, box=False)


def test_what_is_deep_is_found_and_what_is_lost_in_noise_is_not(model, field):
    hosts = np.arange(0, 120, 10)
    cells = list(
        recovery.recover(
            model,
            field,
            parse("contact_binary(amplitude=0.2)"),
            hosts,
            np.random.default_rng(0),
            depths=(0.02, 100.0),
            periods=(0.4,),
        )
    )
    faint, deep = cells
    assert (faint.period, faint.depth_over_noise, faint.n) == (0.4, 0.02, 12)
    assert deep.directed.value >= 0.9 and deep.matched.value >= 0.9
    assert faint.directed.value <= 0.4 and faint.matched.value <= 0.4
    assert deep.median_rank <= 10 < faint.median_rank
    assert deep.odd_percentile < faint.odd_percentile
    assert deep.box is None


def test_a_rank_counts_the_others_that_answer_better():
    everyone = np.array([0.9, 0.8, 0.1, 0.5])
    ranks = recovery._ranks(everyone, np.array([0.85, 0.2, 0.95]), np.array([0, 1, 2]))
    assert ranks.tolist() == [1, 3, 1]


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
