"""Simulated sky: the classical rivals find what they should, so beating them means something."""

import dataclasses

import numpy as np
import pytest

from skyvec.schema import LightCurves
from skyvec.sim.signals import inject, parse
from skyvec.studies import rivals


def quiet_stars(n, seed=0, scatter=1e-3):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.choice(np.arange(0, 27, 0.02), 1000, replace=False))
    m = len(time)
    return LightCurves(
        np.array([f"s{i}" for i in range(n)]),
        np.arange(n + 1, dtype=np.int64) * m,
        np.tile(58000 + time, n),
        (1 + scatter * rng.normal(size=n * m)).astype(np.float32),
        np.full(n * m, scatter, np.float32),
        np.zeros(n * m, np.int16),
        ("T",),
    )


def test_the_matched_filter_has_unit_noise_and_the_expected_signal():
    template = np.zeros(60)
    template[:10] = -0.004
    scores = rivals.matched_filter(quiet_stars(200), template)
    # the highest of about 100 independent draws of unit noise
    assert 1.8 < np.median(scores) < 3.6
    signal = parse("transit(rp=0.1, period=50, t0=13, impact=0.2)")
    stars = quiet_stars(50, seed=1)
    found, _ = inject(stars, signal, np.random.default_rng(1))
    time = np.arange(0, 27, rivals.CELL)
    shape = signal.draw(time, np.random.default_rng(1))[0] - 1
    at_stamps = np.interp(stars.mjd[:1000] - stars.mjd[0], time, shape)
    expected = np.sqrt((at_stamps**2).sum()) / 1e-3
    scores = rivals.matched_filter(found, shape)
    assert np.median(scores) == pytest.approx(expected, rel=0.15)


def test_box_least_squares_prefers_the_star_with_a_transit():
    stars = quiet_stars(8)
    injected, _ = inject(stars, parse("transit(rp=0.06, period=3.1)"), np.random.default_rng(2))
    periods, durations = 1 / np.linspace(1 / 10, 1 / 1.0, 150), np.array([0.1, 0.2])
    quiet = rivals.box_least_squares(stars, periods, durations)
    loud = rivals.box_least_squares(injected, periods, durations)
    assert loud.min() > quiet.max()


def test_a_slow_trend_hides_a_transit_only_until_it_is_taken_away():
    stars = quiet_stars(8)
    trend = 0.02 * np.sin(2 * np.pi * (stars.mjd - stars.mjd[0]) / 20.0)
    periods, durations = 1 / np.linspace(1 / 10, 1 / 1.0, 150), np.array([0.1, 0.2])
    template = np.zeros(60)
    template[:8] = -0.004
    for search in (
        lambda curves, flat: rivals.box_least_squares(curves, periods, durations, flat=flat),
        lambda curves, flat: rivals.matched_filter(curves, template, flat=flat),
    ):
        loud, _ = inject(stars, parse("transit(rp=0.12, period=3.1)"), np.random.default_rng(2))
        moving = [
            dataclasses.replace(c, flux=(c.flux + trend).astype(np.float32)) for c in (stars, loud)
        ]
        assert search(moving[1], 1.5).min() > search(moving[0], 1.5).max()
        raw, flat = (np.median(search(moving[1], w) / search(moving[0], w)) for w in (0.0, 1.5))
        assert flat > 1.5 * raw


def test_a_bank_takes_the_template_that_fits():
    stars = quiet_stars(5)
    one, other = np.zeros(200), np.zeros(200)
    one[:10], other[50:150] = -0.004, 0.004
    alone = [rivals.matched_filter(stars, t) for t in (one, other)]
    np.testing.assert_allclose(
        rivals.matched_filter(stars, np.stack([one, other])), np.maximum(*alone)
    )
