"""Contract and truth: signals are read, drawn and injected as written; beacons spell pi."""

import numpy as np
import pytest

from skyvec.schema import LightCurves
from skyvec.sim import signals, transits

TIME = np.linspace(0, 27, 1300)


def star(n=3, level=1000.0):
    rng = np.random.default_rng(8)
    flux = (level * (1 + 1e-4 * rng.normal(size=n * len(TIME)))).astype(np.float32)
    return LightCurves(
        np.array([f"s{i}" for i in range(n)]),
        np.arange(n + 1, dtype=np.int64) * len(TIME),
        np.tile(58000 + TIME, n),
        flux,
        np.full(n * len(TIME), abs(level) * 1e-4, np.float32),
        np.zeros(n * len(TIME), np.int16),
        ("T",),
    )


@pytest.mark.parametrize("kind", list(signals.SIGNALS))
def test_every_signal_draws_a_finite_curve_and_says_its_truth(kind):
    flux, truth = signals.Signal(kind).draw(TIME, np.random.default_rng(1))
    assert flux.shape == TIME.shape and np.isfinite(flux).all()
    assert {"period", "amplitude", "t0"} <= set(truth)
    again, _ = signals.Signal(kind).draw(TIME, np.random.default_rng(1))
    np.testing.assert_array_equal(flux, again)


def test_a_signal_is_read_as_it_is_written():
    signal = signals.parse("transit(rp=0.1, period=3.2, t0=1, impact=0)")
    assert str(signal) == "transit(rp=0.1, period=3.2, t0=1, impact=0)"
    flux, truth = signal.draw(TIME, np.random.default_rng(0))
    expected = transits.transit(TIME, period=3.2, t0=1.0, a_over_r=4.2 * 3.2 ** (2 / 3))
    np.testing.assert_allclose(flux, expected)
    assert truth["amplitude"] == pytest.approx(0.0119, abs=5e-4)
    assert signals.parse("flares") == signals.Signal("flares")
    assert "slats" in signals.parameters_of("louver")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("transitt(rp=1)", "did you mean 'transit'"),
        ("transit(perod=1)", "did you mean 'period'"),
        ("transit(rp='x')", "is no number"),
        ("transit(rp=open('x'))", "is no number"),
        ("transit(0.1)", "a signal looks like"),
        ("transit(", "cannot read"),
        ("1 + 1", "a signal looks like"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        signals.parse(text)


@pytest.mark.parametrize("level", [1000.0, -200.0])
def test_injection_multiplies_and_keeps_noise_and_stamps(level):
    hosts = star(level=level)
    signal = signals.parse("transit(rp=0.3, period=4, t0=1, impact=0)")
    injected, truths = signals.inject(hosts, signal, np.random.default_rng(0), scale=0.5)
    shape, _ = signal.draw(TIME, np.random.default_rng(0))
    base = hosts.flux if level > 0 else np.full(len(hosts.flux), abs(level))
    expected = hosts.flux + base * 0.5 * (np.tile(shape, 3) - 1)
    np.testing.assert_allclose(injected.flux, expected, rtol=1e-5)
    np.testing.assert_array_equal(injected.mjd, hosts.mjd)
    np.testing.assert_array_equal(injected.flux_err, hosts.flux_err)
    assert len(truths) == 3 and truths[0]["scale"] == 0.5


def test_a_cloud_has_the_noise_of_its_star_and_many_phases():
    draws = signals.cloud(signals.parse("sinusoid(period=3)"), star(), np.random.default_rng(2))
    assert len(draws) == 8 and len(set(draws.id)) == 8
    flux = draws.flux.reshape(8, -1)
    noise = np.diff(flux, axis=1).std(axis=1) / np.sqrt(2)
    assert ((noise > 0.5e-4) & (noise < 3e-3)).all()
    assert np.unique(flux.argmax(axis=1) // 20).size > 3
    with pytest.raises(ValueError, match="two points"):
        signals.cloud(
            signals.Signal("flares"), star().take(np.array([], int)), np.random.default_rng(2)
        )


def test_pi_can_be_read_off_its_beacon():
    signal = signals.parse("pi_beacon(slot=1, t0=1, digits=24)")
    flux, _ = signal.draw(TIME, np.random.default_rng(0))
    at_slots = np.interp(1.0 + np.arange(24), TIME, flux)
    assert (at_slots < 0.99).astype(int).tolist() == transits.pi_bits(24).tolist()
