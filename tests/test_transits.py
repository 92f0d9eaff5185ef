"""Truth and rival: transits against batman, conservation, symmetry, exposure and binary pi."""

import time as clock

import numpy as np
import pytest

from skyvec.sim import silhouettes as shapes
from skyvec.sim import transits

U = (0.4, 0.25)
TIME = np.linspace(-0.15, 0.15, 601)


def batman_curve(time, rp, impact, *, exposure=0.0):
    batman = pytest.importorskip("batman", reason="the rival is the batman-package")
    p = batman.TransitParams()
    p.t0, p.per, p.rp, p.a, p.ecc, p.w = 0.0, 3.2, rp, 10.0, 0.0, 90.0
    p.inc, p.u, p.limb_dark = np.degrees(np.arccos(impact / 10.0)), list(U), "quadratic"
    smear = {"supersample_factor": 501, "exp_time": exposure} if exposure else {}
    return batman.TransitModel(p, time, max_err=0.1, **smear).light_curve(p)


@pytest.mark.parametrize("impact", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(("pitch", "ppm"), [(shapes.DEFAULT_PITCH, 30), (0.0025, 5)])
def test_a_disc_is_a_planet(impact, pitch, ppm):
    disc = shapes.disc(0.1, pitch=pitch)
    ours = transits.transit(TIME, disc, period=3.2, impact=impact, u=U)
    assert np.abs(ours - batman_curve(TIME, 0.1, impact)).max() < ppm * 1e-6


def test_long_exposures_are_averaged():
    ours = transits.transit(TIME, shapes.disc(0.1), period=3.2, impact=0.3, u=U, exposure=0.02)
    assert np.abs(ours - batman_curve(TIME, 0.1, 0.3, exposure=0.02)).max() < 40e-6


@pytest.mark.parametrize(
    "shape",
    [
        shapes.disc(0.15),
        shapes.triangle(0.3),
        shapes.louver(),
        shapes.screens(),
        shapes.oblate(0.12, 0.4, 30.0),
    ],
)
def test_a_body_darkens_by_its_area_weighted_intensity(shape):
    x, y = (grid for grid in np.meshgrid(*shape.positions()))
    expected = (shape.opacity * transits.intensity(x, y, U)).sum() * shape.pitch**2
    depth = 1 - transits.transit(np.array([0.0]), shape, period=3.2, u=U)[0]
    assert depth == pytest.approx(expected / transits.star_flux(U), rel=2e-4)


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (shapes.disc(0.1), np.pi * 0.01),
        (shapes.triangle(0.2), np.sqrt(3) / 4 * 0.04),
        (shapes.louver(6, 0.06, 0.25), 6 * 0.06 * 0.25),
        (shapes.oblate(0.1, 0.3), np.pi * 0.01 * 0.7),
        (shapes.polygon(np.array([[-0.1, -0.1], [0.1, -0.1], [0.1, 0.1], [-0.1, 0.1]])), 0.04),
        (shapes.picture(np.ones((4, 8)), 0.4), 0.08),
    ],
)
def test_masks_have_the_area_of_their_formula(shape, area):
    assert shape.area == pytest.approx(area, rel=1e-3)


def test_the_light_lost_along_a_chord_is_conserved():
    """Integrated over all positions, each mask row loses its opacity times the star's chord."""
    uniform = (0.0, 0.0)
    shape = shapes.disc(0.1)
    s, lost = transits.chord_deficit(shape, 0.2, uniform)
    chords = 2 * np.sqrt(1 - (0.2 + shape.positions()[1]) ** 2)
    expected = (shape.opacity.sum(axis=1) * chords).sum() * shape.pitch**2 / np.pi
    assert lost.sum() * (s[1] - s[0]) == pytest.approx(expected, rel=1e-4)


def test_symmetric_bodies_make_symmetric_transits_and_others_do_not():
    def asymmetry(shape):
        flux = transits.transit(TIME, shape, period=3.2, impact=0.3, u=U)
        return np.abs(flux - flux[::-1]).max()

    assert asymmetry(shapes.disc(0.1)) < 1e-9
    assert asymmetry(shapes.louver()) < 1e-9
    assert asymmetry(shapes.comet()) > 1e-3
    assert asymmetry(shapes.triangle(0.3, angle=30.0)) > 1e-5


def test_nothing_is_lost_outside_transit_or_behind_the_star():
    flux = transits.transit(np.array([-0.5, 1.6, 3.2]), shapes.disc(0.1), period=3.2, u=U)
    assert flux[0] == flux[1] == 1.0
    assert flux[2] < 0.99


def test_a_turning_disc_is_a_disc_and_a_turning_screen_is_not():
    kwargs = {"period": 3.2, "impact": 0.3, "u": U}
    disc = shapes.disc(0.1)
    turning = transits.rotating_transit(TIME, disc, spin_period=0.05, **kwargs)
    np.testing.assert_allclose(turning, transits.transit(TIME, disc, **kwargs), atol=1.2e-4)
    bar = shapes.screens(1, 0.05, 0.8, 1.0)
    turning = transits.rotating_transit(TIME, bar, spin_period=0.05, **kwargs)
    assert np.abs(turning - transits.transit(TIME, bar, **kwargs)).max() > 1e-3


def test_arnolds_residual_vanishes_for_a_sphere_alone():
    residual = transits.equal_area_residual(TIME, shapes.disc(0.1), period=3.2)
    assert np.abs(residual).max() < 1e-6
    triangle = transits.equal_area_residual(TIME, shapes.triangle(0.25), period=3.2)
    assert 1e-5 < np.abs(triangle).max() < 1e-3


def test_pi_is_read_back_from_its_beacon():
    n, slot = 40, 0.5
    offsets, depths = transits.pi_beacon(n, slot)
    middles = np.arange(n) * slot
    flux = transits.transit(
        middles, shapes.disc(0.1), period=1000.0, a_over_r=2000.0, offsets=offsets, depths=depths
    )
    bits = (flux < 0.995).astype(int)
    value = sum(int(bit) * 2.0 ** (1 - k) for k, bit in enumerate(bits))
    assert value == pytest.approx(np.pi, abs=2.0 ** (2 - n))
    assert transits.primes(6) == [2, 3, 5, 7, 11, 13]
    assert len(transits.prime_beacon(4, slot)[0]) == 2 + 3 + 5 + 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shapes.disc(-1.0), "radius must be > 0"),
        (lambda: shapes.louver(duty=0.0), "duty"),
        (lambda: shapes.polygon(np.zeros((2, 2))), "vertices"),
        (lambda: shapes.Silhouette(np.full((3, 3), 2.0), 0.1), r"\[0, 1\]"),
        (lambda: transits.transit(TIME, period=-1.0), "period"),
        (lambda: transits.transit(TIME, period=1.0, offsets=[0, 1], depths=[1]), "depths"),
    ],
)
def test_impossible_bodies_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_a_thousand_transits_take_less_than_two_seconds_on_two_cores():
    time = np.linspace(0, 27.4, 1000)
    rng = np.random.default_rng(5)
    seconds = []
    for _ in range(10):  # beside others that want the same caches a core is slower, now and then
        start = clock.process_time()
        for _ in range(100):
            shape = shapes.disc(rng.uniform(0.05, 0.15))
            transits.transit(time, shape, period=rng.uniform(1, 9), impact=rng.uniform(0, 0.9))
        seconds.append(clock.process_time() - start)
    assert 10 * min(seconds) < 4.0
