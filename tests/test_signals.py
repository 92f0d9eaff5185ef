"""Contract and truth: signals are read, drawn and injected as written; beacons spell pi."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from skyvec.schema import LightCurves
from skyvec.sim import signals, silhouettes, transits
from skyvec.sim.instruments import with_gaps
from skyvec.sim.variables import finite_source, microlensing

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


@pytest.mark.parametrize("kind", sorted(set(signals.SIGNALS) - set(silhouettes.FROM_FILES)))
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
        ("picture(width=0.3)", "needs a file"),
        ("transit(file='x.png')", "no parameter 'file'"),
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


# --- outlines from files ----------------------------------------------------------------------


def test_a_black_square_in_a_picture_is_the_square_of_its_corners(tmp_path):
    pixels = np.full((40, 40), 255, np.uint8)
    pixels[10:30, 10:30] = 0
    Image.fromarray(pixels).save(tmp_path / "square.png")
    (tmp_path / "square.csv").write_text("# corners\n-1,-1\n1,-1\n1,1\n-1,1\n")
    read = signals.parse(f"picture(file='{tmp_path}/square.png', width=0.4, period=3, t0=1)")
    drawn = signals.parse(f"polygon(file='{tmp_path}/square.csv', size=0.1, period=3, t0=1)")
    one, truth = read.draw(TIME, np.random.default_rng(0))
    other, _ = drawn.draw(TIME, np.random.default_rng(0))
    assert truth["amplitude"] == pytest.approx(0.04 / np.pi, rel=0.25)  # 0.2 x 0.2 in pi
    np.testing.assert_allclose(one, other, atol=3e-5)
    assert signals.parse(str(read)) == read


def test_transparent_is_clear_and_files_that_hold_no_body_are_refused(tmp_path):
    pixels = np.zeros((9, 9, 4), np.uint8)
    pixels[3:6, 3:6, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "body.png")
    assert silhouettes.read_picture(tmp_path / "body.png", 0.9).area == pytest.approx(0.09)
    pixels[..., 3] = 0
    Image.fromarray(pixels).save(tmp_path / "nothing.png")
    (tmp_path / "words.csv").write_text("a ship\n")
    (tmp_path / "line.csv").write_text("0 0\n1 1\n")
    with pytest.raises(ValueError, match="is dark"):
        silhouettes.read_picture(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="cannot read the image"):
        silhouettes.read_picture(tmp_path / "words.csv")
    with pytest.raises(ValueError, match="cannot read corners"):
        silhouettes.read_polygon(tmp_path / "words.csv")
    with pytest.raises(ValueError, match="m >= 3"):
        silhouettes.read_polygon(tmp_path / "line.csv")


def test_a_turning_bar_lies_across_its_path_a_quarter_turn_later():
    bar = "screens(count=1, width=0.06, height=0.5, period=3, t0=1, impact=0.9"
    crossing = np.linspace(0.9, 1.1, 60)

    def flux(text, time):
        return signals.parse(text).draw(time, np.random.default_rng(0))[0]

    still = flux(f"{bar})", crossing)
    np.testing.assert_allclose(flux(f"{bar}, spin=1000000.0)", crossing), still, atol=2e-4)
    assert np.abs(flux(f"{bar}, spin=0.1)", crossing) - still).max() > 6e-4
    # a quarter of a turn after mid-transit, the body as good as in its place on a wide orbit
    lying = "screens(count=1, width=0.5, height=0.06, period=3000, t0=1, impact=0.9)"
    standing = bar.replace("period=3", "period=3000")
    quarter = np.array([1.0025])
    np.testing.assert_allclose(
        flux(f"{standing}, spin=0.01)", quarter), flux(lying, quarter), atol=2e-4
    )


# --- a curve as a signal ----------------------------------------------------------------------


def test_a_curve_is_a_signal_that_moves_in_time_and_keeps_its_shape():
    bump = signals.Template(
        "bump", np.linspace(0, 4, 41), 10 + np.exp(-(np.linspace(-2, 2, 41) ** 2))
    )
    middles = []
    for seed in range(20):
        flux, truth = bump.draw(TIME, np.random.default_rng(seed))
        assert flux.min() == pytest.approx(
            np.interp(0, bump.time, bump.flux) / np.median(bump.flux), 0.01
        )
        assert -2 <= truth["t0"] <= TIME[-1] - 2
        middles.append(truth["t0"])
    assert np.ptp(middles) > 10
    again, _ = signals.Template(
        "saw", np.array([0.0, 1.0]), np.array([1.0, 3.0]), repeats=True
    ).draw(TIME, np.random.default_rng(1))
    assert np.unique(again).size > 100 and np.ptp(again) == pytest.approx(1, abs=0.05)
    phase = np.argsort((TIME - TIME[again.argmin()]) % 1)
    assert (np.diff(again[phase][30:-30]) > -0.05).all()  # one rise a day, always at one phase
    for time, flux in [([0.0], [1.0]), ([0, 1], [0, 0]), ([1, 0], [1, 1]), ([0, 1], [1, np.nan])]:
        with pytest.raises(ValueError, match="x:"):
            signals.Template("x", np.array(time, float), np.array(flux, float))


# --- lenses with a face, instruments with habits ------------------------------------------------


@pytest.mark.parametrize("rho", [0.01, 0.3, 1.0, 5.0])
def test_a_lens_before_the_middle_of_a_disc_magnifies_as_known(rho):
    """Witt & Mao 1994: A(0) = sqrt(1 + 4 / rho^2)."""
    assert finite_source(np.zeros(1), rho)[0] == pytest.approx(np.sqrt(1 + 4 / rho**2), rel=1e-9)


@pytest.mark.parametrize("limb", [0.0, 0.6])
def test_a_small_or_distant_disc_is_a_point(limb):
    u = np.array([0.1, 0.5, 1.0, 3.0])
    point = (u**2 + 2) / (u * np.sqrt(u**2 + 4))
    np.testing.assert_allclose(finite_source(u, 1e-3, limb), point, rtol=1e-4)
    rng = np.random.default_rng(0)
    fixed = {"amplitude": 3.0, "t0": 13.0, "t_einstein": 5.0}
    tiny, _ = microlensing(TIME, rng, rho=1e-4, limb=limb, **fixed)
    np.testing.assert_allclose(tiny, microlensing(TIME, rng, **fixed)[0], rtol=1e-5)


@pytest.mark.parametrize("limb", [0.0, 0.6])
@pytest.mark.parametrize(("u", "rho"), [(0.2, 0.5), (0.5, 0.5), (0.499, 0.5), (0.7, 0.5), (2, 1)])
def test_the_disc_is_the_sum_of_its_points(u, rho, limb):
    """Against a plain sum over the disc, in polar coordinates around its centre."""
    a = (np.arange(2000) + 0.5) / 2000 * np.pi / 2
    theta = (np.arange(2000) + 0.5) / 2000 * np.pi
    r = rho * np.sin(a)[:, None]
    weight = r * rho * np.cos(a)[:, None] * (1 - limb * (1 - np.cos(a)[:, None]))
    distance = np.sqrt(u**2 + r**2 - 2 * u * r * np.cos(theta))
    magnified = (distance**2 + 2) / (distance * np.sqrt(distance**2 + 4))
    expected = (weight * magnified).sum() / (weight * np.ones_like(theta)).sum()
    assert finite_source(np.array([float(u)]), rho, limb)[0] == pytest.approx(expected, rel=1e-3)


def test_a_face_flattens_the_peak_and_nonsense_is_refused():
    fixed = {"amplitude": 20.0, "t0": 13.0, "t_einstein": 5.0}
    sharp, _ = microlensing(TIME, np.random.default_rng(0), **fixed)
    blunt, _ = microlensing(TIME, np.random.default_rng(0), rho=0.5, **fixed)
    assert blunt.max() < 0.5 * sharp.max()
    for rho, limb in [(-1, 0), (0, 0.5), (1, 2)]:
        with pytest.raises(ValueError, match="rho"):
            finite_source(np.zeros(1), rho, limb)


@pytest.mark.parametrize(
    "text", ["flares(n_flares=1)", "delta_scuti(modes=3)", "rotator(spots=2)", "louver(slats=3)"]
)
def test_what_is_counted_may_be_written_as_any_number(text):
    flux, _ = signals.parse(text).draw(TIME, np.random.default_rng(0))
    assert np.isfinite(flux).all() and np.ptp(flux) > 0


def test_a_flare_is_as_long_as_asked_and_may_be_short_where_stamps_are_dense():
    dense = np.arange(0, 5, 2 / 1440)
    flare = signals.parse("flares(n_flares=1, t0=2, amplitude=1, t_half=0.01)")
    flux, _ = flare.draw(dense, np.random.default_rng(0))
    above = dense[flux > 1.5]
    assert np.ptp(above) == pytest.approx(0.7 * 0.01, abs=2 * 2 / 1440)
    lengths = [
        (signals.parse("flares(n_flares=1)").draw(dense, np.random.default_rng(i))[0] > 1.01).sum()
        for i in range(40)
    ]
    assert min(lengths) < 15


def test_habits_of_instruments_come_when_they_should():
    dumps, truth = signals.parse("momentum_dumps(period=3, t0=1, amplitude=0.1)").draw(TIME, None)
    assert truth["period"] == 3
    jumps = TIME[1:][np.diff(dumps) > 0.02]
    np.testing.assert_allclose((jumps - 1) % 3, 0, atol=0.05)
    assert len(jumps) == 9
    ramp, _ = signals.parse("scattered_light(t0=13.7, amplitude=0.2, length=0.5)").draw(
        TIME, np.random.default_rng(0)
    )
    inner = (TIME > 1) & (TIME < 26)  # another orbit ends as the stamps begin
    assert TIME[inner][ramp[inner].argmax()] == pytest.approx(13.7, abs=0.03)
    assert np.median(ramp) < 1.001
    stamps = TIME[(TIME < 10) | (TIME > 12)]
    step, _ = signals.parse("level_steps(amplitude=0.1, n_steps=1)").draw(
        stamps, np.random.default_rng(0)
    )
    assert np.ptp(step[stamps < 11]) == np.ptp(step[stamps > 11]) == 0 < np.ptp(step)


def test_gaps_take_their_share_of_the_span():
    rng = np.random.default_rng(4)
    for share in (0.0, 0.2, 0.7):
        kept = with_gaps(TIME, rng, share=share)
        assert kept.mean() == pytest.approx(1 - share, abs=0.01)
        assert (np.diff(kept.astype(int)) == -1).sum() <= 3
    with pytest.raises(ValueError, match="share"):
        with_gaps(TIME, rng, share=1)


# --- the query --------------------------------------------------------------------------------


def test_a_cloud_lies_in_quiet_stars_as_written_or_at_many_depths():
    loud, quiet = star(6), star(12)
    noisy = quiet.flux.copy()
    rng = np.random.default_rng(0)
    noisy[: 2 * len(TIME)] *= 1 + 0.05 * rng.normal(size=2 * len(TIME)).astype(np.float32)
    hosts = dataclasses.replace(quiet, flux=noisy)
    written, rows = signals.cloud_in(
        hosts, signals.parse("transit(rp=0.1, period=3)"), np.random.default_rng(1), draws=25
    )
    assert rows.min() == 2 and len(set(rows[:10])) == 10 and len(set(written.id)) == 25
    depth = 1 - np.percentile(written.flux.reshape(25, -1), 0.5, axis=1) / 1000
    np.testing.assert_allclose(depth, 0.0115, rtol=0.15)
    free, _ = signals.cloud_in(loud, signals.parse("sinusoid(period=3)"), rng, draws=60)
    heights = np.ptp(free.flux.reshape(60, -1), axis=1) / 1000 / 1e-4
    assert heights.min() < 30 and heights.max() > 150
    with pytest.raises(ValueError, match="draws"):
        signals.cloud_in(loud, signals.parse("flares"), rng, draws=0)


def test_an_injection_is_as_deep_as_asked():
    found, truths = signals.inject(
        star(), signals.parse("contact_binary(period=0.5)"), np.random.default_rng(0), depth=0.05
    )
    heights = np.ptp(found.flux.reshape(3, -1), axis=1) / 1000
    np.testing.assert_allclose(heights, 0.05, rtol=0.03)
    assert all(truth["scale"] * truth["amplitude"] == pytest.approx(0.05) for truth in truths)
