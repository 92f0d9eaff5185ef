"""Simulated sky: the classical rivals find what they should, so beating them means something;
a second look weighs them with the codes."""

import dataclasses

import numpy as np
import pytest

from skyvec.analysis.matched import CELL, Bank, SecondLook, matched_filter
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
    scores = matched_filter(quiet_stars(200), template)
    # the highest of about 100 independent draws of unit noise
    assert 1.8 < np.median(scores) < 3.6
    signal = parse("transit(rp=0.1, period=50, t0=13, impact=0.2)")
    stars = quiet_stars(50, seed=1)
    found, _ = inject(stars, signal, np.random.default_rng(1))
    time = np.arange(0, 27, CELL)
    shape = signal.draw(time, np.random.default_rng(1))[0] - 1
    at_stamps = np.interp(stars.mjd[:1000] - stars.mjd[0], time, shape)
    expected = np.sqrt((at_stamps**2).sum()) / 1e-3
    scores = matched_filter(found, shape)
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
        lambda curves, flat: matched_filter(curves, template, flat=flat),
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
    alone = [matched_filter(stars, t) for t in (one, other)]
    np.testing.assert_allclose(matched_filter(stars, np.stack([one, other])), np.maximum(*alone))


def test_short_events_are_filtered_at_the_step_of_the_stamps():
    """A flare of four minutes in stamps every two: half an hour averages most of it away."""
    rng = np.random.default_rng(3)
    time = np.arange(0, 20, 2 / 1440)
    m, n = len(time), 12
    stars = LightCurves(
        np.array([f"s{i}" for i in range(n)]),
        np.arange(n + 1, dtype=np.int64) * m,
        np.tile(58000 + time, n),
        (1 + 1e-3 * rng.normal(size=n * m)).astype(np.float32),
        np.full(n * m, 1e-3, np.float32),
        np.zeros(n * m, np.int16),
        ("T",),
    )
    signal = parse("flares(amplitude=0.02, n_flares=1, t_half=0.003)")
    loud, _ = inject(stars, signal, rng)
    bank = Bank(signal, 20.0, rng)
    assert bank.at(CELL).shape == (12, 1000) and bank.at(CELL / 16).shape == (12, 16000)
    for flat in (0.0, 1.5):
        fine = matched_filter(loud, bank, flat=flat)
        coarse = matched_filter(loud, bank.at(CELL), flat=flat)
        assert np.median(fine) > 1.4 * np.median(coarse)
        assert fine.min() > matched_filter(stars, bank, flat=flat).max()


def test_a_second_look_gives_each_search_the_say_it_earns():
    rng = np.random.default_rng(7)
    truth = np.r_[np.ones(200), np.zeros(600)]
    told, noise = 3 * truth + rng.normal(size=800), rng.normal(size=800)
    steady, wild = np.exp(told / 2 + 2), np.exp(noise / 2 + 2)

    def look(score, snr):
        second = SecondLook(score[::2][:100], snr[::2][:100], score[200::2], snr[200::2])
        odds = second.odds(score, snr)
        return second, (odds[1:200:2][:, None] > odds[201::2]).mean()

    second, by_curve = look(noise, np.stack([wild, steady], axis=1))
    assert second.column == 1 and by_curve > 0.95
    _, by_code = look(told, np.stack([wild, wild[::-1]], axis=1))
    assert by_code > 0.95
    again = told + 1.5 * rng.normal(size=800)
    _, by_both = look(told, np.stack([wild, np.exp(again / 2 + 2)], axis=1))
    assert by_both > by_code
    lost = np.where(np.arange(800) == 5, -np.inf, told)
    assert np.isneginf(
        look(lost, np.stack([wild, steady], axis=1))[0].odds(lost, np.ones((800, 2)))[5]
    )
    with pytest.raises(ValueError, match="second look"):
        SecondLook(told[:0], np.ones((0, 2)), told, np.ones((800, 2)))


def test_long_sparse_curves_are_filtered_on_a_coarser_grid():
    """A season of nights over years has no use for half hours, nor for their transforms."""
    rng = np.random.default_rng(5)
    time = np.sort(rng.uniform(0, 2500, 400))
    stars = LightCurves(
        np.array(["s"]),
        np.array([0, 400]),
        55000 + time,
        (1 + 1e-2 * rng.normal(size=400)).astype(np.float32),
        np.full(400, 1e-2, np.float32),
        np.zeros(400, np.int16),
        ("I",),
    )
    signal = parse("microlensing(amplitude=0.3, t_einstein=60)")
    loud, _ = inject(stars, signal, rng)
    bank = Bank(signal, 2500.0, rng)
    asked = []
    at = bank.at
    bank.at = lambda cell: asked.append(cell) or at(cell)
    found, chance = matched_filter(loud, bank), matched_filter(stars, bank)
    assert set(asked) == {4 * CELL} and 2500 / asked[0] < 2**15
    np.testing.assert_allclose(found, matched_filter(loud, at(CELL)), rtol=0.05)
    assert found[0] > 3 * chance[0]
