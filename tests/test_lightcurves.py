"""Light curves made ready, and made up. Truth and rival tests, and one simulated sky."""

import numpy as np
import pytest
from astropy.coordinates import get_body_barycentric
from astropy.time import Time
from astropy.timeseries import LombScargle

from skyvec.prep.lightcurves import prepare
from skyvec.schema import LightCurves
from skyvec.sim.instruments import _barycentric, tess_noise
from skyvec.sim.lightcurves import simulate, simulate_sky
from skyvec.sim.variables import KINDS, ODDITIES, flare_shape


def make(*curves, bands=("V",)):
    """LightCurves from (mjd, flux, err, band) tuples; err and band may be left out."""
    whole = [
        (
            np.asarray(mjd, np.float64),
            np.asarray(flux, np.float32),
            np.broadcast_to(np.float32(rest[0] if rest else 0.1), len(mjd)),
            np.broadcast_to(np.int16(rest[1] if len(rest) > 1 else 0), len(mjd)),
        )
        for mjd, flux, *rest in curves
    ]
    columns = [
        np.concatenate([curve[i] for curve in whole]) if whole else np.zeros(0, dtype)
        for i, dtype in enumerate((np.float64, np.float32, np.float32, np.int16))
    ]
    offsets = np.concatenate([[0], np.cumsum([len(curve[0]) for curve in whole])]).astype(np.int64)
    ids = np.array([f"star {i}" for i in range(len(whole))], dtype=np.str_)
    return LightCurves(ids, offsets, *columns, bands)


def random_curves(rng, n=6, n_bands=3, low=1, high=400):
    """Curves of random lengths, some empty, sampled more densely than the grid of 0.01 d."""
    curves = []
    for _ in range(n):
        m = int(rng.integers(low, high))
        mjd = np.sort(58_000 + rng.uniform(0, 2, m))
        flux = rng.normal(50, 5, m)
        curves.append((mjd, flux, rng.uniform(0.1, 1, m), rng.integers(0, n_bands, m)))
    curves.insert(2, ([], []))
    return make(*curves, bands=tuple("gri"[:n_bands]))


def slow_prepare(curves, round_days, normalise):
    """The paragraph of the design, point by point: (time, value, error, band) of each curve."""
    for i in range(len(curves)):
        inside = slice(curves.offsets[i], curves.offsets[i + 1])
        cells = {}
        for t, f, e, b in zip(
            curves.mjd[inside], curves.flux[inside], curves.flux_err[inside], curves.band[inside]
        ):
            cells.setdefault((round(t / round_days), b), []).append((float(f), float(e)))
        rows = [
            (
                tick * round_days,
                np.mean([f for f, _ in points]),
                np.sqrt(np.sum([e**2 for _, e in points])) / len(points),
                b,
            )
            for (tick, b), points in sorted(cells.items())
        ]
        for band in range(len(curves.bands)):
            flux = np.array([row[1] for row in rows if row[3] == band])
            if not len(flux):
                continue
            level, scale = flux.mean(), flux.std()
            if normalise == "mad":
                level = np.median(flux)
                scale = 1.4826 * np.median(np.abs(flux - level)) or scale
            rows = [
                (t, (f - level) / scale if scale else 0, e / scale if scale else np.nan, b)
                if b == band
                else (t, f, e, b)
                for t, f, e, b in rows
            ]
        yield np.array(rows).reshape(-1, 4)


@pytest.mark.parametrize("normalise", ["std", "mad"])
@pytest.mark.parametrize("n_bands", [1, 3])
def test_prepare_agrees_with_a_slow_loop(normalise, n_bands):
    curves = random_curves(np.random.default_rng(7), n_bands=n_bands)
    fast = prepare(curves, normalise=normalise)
    for i, rows in enumerate(slow_prepare(curves, 0.01, normalise)):
        inside = slice(fast.offsets[i], fast.offsets[i + 1])
        time, value, error, band = rows.T
        np.testing.assert_allclose(fast.start[i] + fast.time[inside], time, atol=1e-9)
        np.testing.assert_allclose(fast.value[inside], value, atol=2e-5)
        np.testing.assert_allclose(fast.error[inside], error, rtol=2e-5)
        np.testing.assert_array_equal(fast.band[inside], band)
    assert fast.offsets[-1] < curves.offsets[-1]  # something did coincide


def test_values_have_no_level_and_unit_scale_in_each_band():
    curves = random_curves(np.random.default_rng(3), low=50)
    prepared = prepare(curves, round_days=0)
    assert (prepared.offsets == curves.offsets).all()
    curve = np.repeat(np.arange(len(curves)), curves.lengths)
    for i in range(len(curves)):
        for band in range(3):
            value = prepared.value[(curve == i) & (prepared.band == band)]
            flux = curves.flux[(curve == i) & (curves.band == band)]
            if not len(value):
                assert np.isnan([prepared.level[i, band], prepared.scale[i, band]]).all()
                continue
            np.testing.assert_allclose([value.mean(), value.std()], [0, 1], atol=1e-5)
            np.testing.assert_allclose(prepared.level[i, band], flux.mean(), rtol=1e-6)
            np.testing.assert_allclose(
                flux, value * prepared.scale[i, band] + prepared.level[i, band], rtol=1e-5
            )


def test_a_scale_free_value():
    rng = np.random.default_rng(1)
    mjd, shape = np.arange(100) + 58_000.0, rng.normal(0, 1, 100)
    prepared = prepare(make((mjd, 10 + shape), (mjd, 1e-9 * (10 + shape)), (mjd, 1e9 * shape)))
    faint, bright = prepared.value[100:200], prepared.value[:100]
    np.testing.assert_allclose(faint, bright, atol=1e-5)
    np.testing.assert_allclose(prepared.value[200:], bright, atol=1e-5)


def test_a_constant_curve_is_flagged_and_zero():
    mjd = 58_000 + 0.001 * np.arange(1000)
    prepared = prepare(make((mjd, np.full(1000, 1.1)), (mjd, np.zeros(1000)), (mjd, mjd % 1)))
    assert prepared.is_constant.tolist() == [True, True, False]
    flat = prepared.value[: prepared.offsets[2]]
    assert (flat == 0).all() and np.isnan(prepared.error[: prepared.offsets[2]]).all()
    assert np.isnan(prepared.amplitude[:2]).all() and np.isfinite(prepared.amplitude[2]).all()


def test_one_flat_band_does_not_make_a_curve_constant():
    mjd = np.arange(40) + 58_000.0
    band = np.arange(40) % 2
    flux = np.where(band == 0, 5.0, np.arange(40))
    prepared = prepare(make((mjd, flux, 0.1, band), bands=("g", "r")))
    assert not prepared.is_constant[0]
    assert (prepared.value[band == 0] == 0).all()
    np.testing.assert_allclose(prepared.value[band == 1].std(), 1, rtol=1e-6)


def test_a_flare_on_a_quantised_curve_survives_the_mad():
    flux = np.full(100, 3.0)
    flux[40:50] = 4.0
    prepared = prepare(make((np.arange(100) + 58_000.0, flux)), normalise="mad")
    assert not prepared.is_constant[0]
    np.testing.assert_allclose(prepared.value[40:50], 1 / flux.std(), rtol=1e-6)
    assert (prepared.value[:40] == 0).all()


def test_an_outlier_moves_the_deviation_but_not_the_mad():
    flux = np.random.default_rng(2).normal(100, 1, 999)
    flux[500] = 1e4
    curves = make((np.arange(999) + 58_000.0, flux))
    assert prepare(curves, normalise="std").scale[0, 0] > 300
    assert 0.9 < prepare(curves, normalise="mad").scale[0, 0] < 1.1


def test_errors_average_like_errors_and_unknown_stays_unknown():
    mjd = 58_000 + np.array([0.0, 0.001, 0.002, 1.0, 1.001, 2.0])
    err = np.array([3.0, 4.0, 12.0, 1.0, np.nan, 2.0])
    prepared = prepare(make((mjd, [1, 2, 3, 4, 8, 9], err)))
    in_flux = prepared.error * prepared.scale[0, 0]
    np.testing.assert_allclose(in_flux, [13 / 3, np.nan, 2.0], rtol=1e-6)
    np.testing.assert_allclose(
        prepared.value * prepared.scale[0, 0] + prepared.level[0, 0], [2, 6, 9], rtol=1e-6
    )


def test_empty_and_single_points_and_no_curve_at_all():
    prepared = prepare(make(([], []), ([58_000.0], [4.0]), ([], []), bands=("g", "r")))
    assert prepared.offsets.tolist() == [0, 0, 1, 1]
    assert prepared.is_constant.all() and prepared.value.tolist() == [0]
    assert np.isnan(prepared.level[[0, 2]]).all() and prepared.level[1, 0] == 4
    nothing = prepare(make())
    assert len(nothing) == 0 and nothing.offsets.tolist() == [0] and nothing.level.shape == (0, 1)


def test_time_folds_a_fast_pulsator_over_ten_years():
    # P = 0.03 d over 4,000 d: float32 times (2.4e-4 d apart) would smear 0.8 % of a phase
    rng = np.random.default_rng(5)
    mjd = np.sort(55_000 + rng.uniform(0, 4000, 500))
    prepared = prepare(make((mjd, np.sin(2 * np.pi * mjd / 0.03))), round_days=0)
    phase = 2 * np.pi * (prepared.time + prepared.start[0]) / 0.03
    ours = np.sin(phase)
    expected = prepared.value * prepared.scale[0, 0] + prepared.level[0, 0]
    np.testing.assert_allclose(expected, ours, atol=1e-5)


def test_bad_arguments_are_named():
    curves = make(([58_000.0], [1.0]))
    with pytest.raises(ValueError, match="unknown normalise 'max'; choose std or mad"):
        prepare(curves, normalise="max")
    for grid in (-0.01, np.nan, np.inf):
        with pytest.raises(ValueError, match="round_days must be finite and >= 0"):
            prepare(curves, round_days=grid)


def test_a_long_curve_is_quick_and_a_long_constant_one_is_still_constant():
    mjd = 58_000 + np.arange(1_000_000) * 2e-5
    flux = np.random.default_rng(0).normal(1, 0.1, len(mjd))
    prepared = prepare(make((mjd, flux), (mjd, np.full(len(mjd), 1.1))), round_days=0)
    assert prepared.is_constant.tolist() == [False, True]
    assert prepare(make((mjd, flux))).offsets[-1] == pytest.approx(2001, abs=1)


# --- made up ----------------------------------------------------------------------------------

PERIODIC = [
    "sinusoid",
    "rr_lyrae_ab",
    "rr_lyrae_c",
    "cepheid",
    "contact_binary",
    "detached_binary",
    "transit",
]


@pytest.mark.parametrize("kind", PERIODIC)
def test_a_periodic_shape_repeats_with_the_truth(kind):
    one = 100 + np.linspace(0, 2, 4000, endpoint=False)
    flux, truth = simulate(
        kind, np.append(one, one + 6), np.random.default_rng(4), period=2.0, amplitude=0.02, t0=101
    )
    assert truth["period"] == 2 and truth["t0"] == 101 and truth["amplitude"] == 0.02
    np.testing.assert_allclose(flux[:4000], flux[4000:], atol=1e-9)
    eclipses = kind in ("contact_binary", "detached_binary", "transit")
    at_mark = one[flux[:4000].argmin() if eclipses else flux[:4000].argmax()]
    assert abs(at_mark - 101) < 0.01
    # a limb-darkened transit is a little deeper in the middle, and shallower on a high chord
    np.testing.assert_allclose(np.ptp(flux), 0.02, rtol=0.35 if kind == "transit" else 2e-3)


def test_rr_lyrae_rises_fast_and_the_first_overtone_does_not():
    time = np.linspace(0, 1, 2000)
    for kind, low, high in (("rr_lyrae_ab", 0.08, 0.25), ("rr_lyrae_c", 0.3, 0.5)):
        for seed in range(20):
            flux, _ = simulate(kind, time, np.random.default_rng(seed), period=1.0, t0=1.0)
            assert low < 1 - time[flux.argmin()] < high, kind


def test_events_peak_at_their_time_with_their_height():
    time = np.arange(0, 27, 0.001)
    for kind in ("microlensing", "supernova", "outburst", "flares"):
        flux, truth = simulate(kind, time, np.random.default_rng(8), amplitude=2.0, t0=12.0)
        np.testing.assert_allclose(flux.max(), 3, rtol=1e-2 if kind == "flares" else 1e-9)
        assert flux[np.abs(time - 12).argmin()] > 2.95, kind
        assert flux.min() > 1 - 1e-12
        assert np.isnan(truth["period"]) == (kind != "outburst")


def test_microlensing_is_paczynski():
    u0, t_einstein = 0.2, 4.0
    time = np.array([0.0, 4.0, 400.0])
    u = np.hypot(u0, time / t_einstein)
    expected = (u**2 + 2) / (u * np.sqrt(u**2 + 4))
    flux, _ = simulate(
        "microlensing",
        time,
        np.random.default_rng(0),
        t0=0,
        t_einstein=t_einstein,
        amplitude=expected[0] - 1,
    )
    np.testing.assert_allclose(flux, expected, rtol=1e-12)


def test_a_flare_has_height_one_and_width_one():
    x = np.linspace(-2, 10, 120_001)
    shape = flare_shape(x)
    assert shape.max() == pytest.approx(1, abs=1e-3)
    above = x[shape > 0.5]
    assert np.ptp(above) == pytest.approx(0.913, abs=0.005)  # the published fit is 9 % narrow
    assert shape[0] == 0 and shape[-1] < 0.02


def test_a_random_walk_forgets_exponentially_at_any_gaps():
    time = np.array([0.0, 0.1, 1.0, 1.5, 4.0])
    rng = np.random.default_rng(6)
    walks = np.array(
        [
            np.log(simulate("random_walk", time, rng, amplitude=0.4, tau=2.0)[0])
            for _ in range(8000)
        ]
    )
    expected = 0.1**2 * np.exp(-np.abs(time[:, None] - time) / 2.0)
    np.testing.assert_allclose(np.cov(walks.T), expected, atol=6e-4)


@pytest.mark.parametrize("kind", sorted(KINDS | ODDITIES))
@pytest.mark.parametrize("time", [np.array([58_000.0]), 58_000 + np.linspace(0, 2000, 300)])
def test_any_kind_at_any_stamps(kind, time):
    flux, truth = simulate(kind, time, np.random.default_rng(1))
    again, _ = simulate(kind, time, np.random.default_rng(1))
    assert flux.shape == time.shape and np.isfinite(flux).all() and (flux > 0).all()
    assert (flux == again).all() and {"period", "amplitude", "t0"} <= set(truth)


def test_simulate_says_what_it_knows():
    rng, time = np.random.default_rng(0), np.arange(5.0)
    with pytest.raises(
        ValueError, match=r"'cephid' \(did you mean 'cepheid'\?\); choose from .*rr_"
    ):
        simulate("cephid", time, rng)
    with pytest.raises(ValueError, match=r"no parameter 'perod' \(did you mean 'period'"):
        simulate("cepheid", time, rng, perod=3)
    with pytest.raises(ValueError, match="must be > 0, not -1"):
        simulate("cepheid", time, rng, period=-1)
    for bad in (np.zeros(0), np.array([1.0, 0.0]), np.array([np.nan])):
        with pytest.raises(ValueError, match="time must"):
            simulate("constant", bad, rng)
    with pytest.raises(ValueError, match="unknown cadence 'kepler'; choose from ground, tess"):
        simulate_sky(3, rng, cadence="kepler")
    with pytest.raises(ValueError, match="unknown kind 'dips'"):
        simulate_sky(3, rng, kinds=["dips"])


def test_barycentric_stamps_agree_with_the_ephemeris_of_astropy():
    mjd = np.linspace(58_324, 58_700, 40)
    earth = (
        get_body_barycentric("earth", Time(mjd, format="mjd", scale="tdb")).xyz.to_value("AU").T
    )
    for ra, dec in ((10.0, -70.0), (200.0, 0.0), (90.0, 66.0)):
        a, d = np.radians([ra, dec])
        star = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
        seconds = (_barycentric(mjd, ra, dec) - mjd) * 86400
        np.testing.assert_allclose(seconds, earth @ star * 499.005, atol=25)


def test_noise_of_tess_is_as_published():
    # the table of the TESS observatory guide: 200 ppm at T = 10, 10^-2 near 16, 60 ppm when bright
    assert tess_noise(10) == pytest.approx(200e-6, rel=0.1)
    assert 0.007 < tess_noise(16) < 0.02 and 2e-5 < tess_noise(6) < 8e-5


@pytest.fixture(scope="module")
def sky():
    return simulate_sky(600, np.random.default_rng(11), oddities=0.02)


def test_a_sky_is_made_of_the_generator_alone(sky):
    catalog, curves = sky
    again, curves_again = simulate_sky(600, np.random.default_rng(11), oddities=0.02)
    assert (again.id == catalog.id).all() and (curves_again.flux == curves.flux).all()
    other, _ = simulate_sky(600, np.random.default_rng(12), oddities=0.02)
    assert (other.columns["label"] != catalog.columns["label"]).any()


def test_a_sky_has_two_sectors_of_some_stars_and_oddities(sky):
    catalog, curves = sky
    assert len(catalog) == len(curves) == len(set(catalog.id)) == 600
    assert (catalog.id == curves.id).all()
    target, count = np.unique(catalog.target, return_counts=True)
    assert len(target) == 546 and set(count) == {1, 2}
    pair = np.flatnonzero(catalog.target == target[count == 2][0])
    for name in ("label", "period", "amplitude", "mag"):
        np.testing.assert_array_equal(*catalog.columns[name][pair])
    assert np.diff(catalog.columns["sector"][pair]) == [1]
    labels = set(catalog.columns["label"])
    assert labels == set(KINDS) | {"oddity"}
    odd = catalog.columns["label"] == "oddity"
    assert len(set(catalog.target[odd])) == 11 and set(catalog.columns["shape"][odd]) <= set(
        ODDITIES
    )


def test_stamps_are_of_tess(sky):
    _, curves = sky
    for i in range(20):
        mjd = curves.mjd[curves.offsets[i] : curves.offsets[i + 1]]
        assert 25 < np.ptp(mjd) < 27.4
        assert 0.7 < np.diff(mjd).max() < 1.6  # the gap in the middle
        assert np.median(np.diff(mjd)) == pytest.approx(30 / 1440, rel=1e-3)
    assert 1150 < np.median(curves.lengths) < 1300


def test_a_constant_star_scatters_by_its_errors(sky):
    catalog, curves = sky
    ratios = []
    for i in np.flatnonzero(catalog.columns["label"] == "constant"):
        inside = slice(curves.offsets[i], curves.offsets[i + 1])
        step = np.diff(curves.flux[inside].astype(float)) / np.sqrt(2)
        ratios.append(1.4826 * np.median(np.abs(step)) / curves.flux_err[inside][0])
    assert len(ratios) > 20 and np.median(ratios) == pytest.approx(1, abs=0.05)


def test_periods_are_found_again(sky):
    catalog, curves = sky
    found = []
    wanted = np.isin(catalog.columns["label"], ["sinusoid", "rr_lyrae_c", "delta_scuti"])
    for i in np.flatnonzero(wanted & (catalog.columns["snr"] > 2))[:40]:
        inside = slice(curves.offsets[i], curves.offsets[i + 1])
        frequency = np.arange(0.05, 22, 0.01)
        power = LombScargle(curves.mjd[inside], curves.flux[inside]).power(frequency)
        found.append(abs(frequency[power.argmax()] - 1 / catalog.columns["period"][i]) < 0.02)
    assert len(found) == 40 and np.mean(found) > 0.9


def test_a_sky_from_the_ground_and_an_empty_one():
    catalog, curves = simulate_sky(80, np.random.default_rng(2), cadence="ground", oddities=0)
    assert len(catalog) == 80 and len(set(catalog.target)) == 80
    assert curves.lengths.min() >= 100 and curves.lengths.max() <= 500
    assert np.diff(curves.mjd[: curves.offsets[1]]).max() > 100  # seasons
    assert curves.flux_unit == "uJy" and "transit" not in catalog.columns["label"]
    empty, none = simulate_sky(0, np.random.default_rng(2))
    assert len(empty) == len(none) == 0


def test_kinds_come_as_often_as_asked():
    kinds = {"constant": 0.9, "cepheid": 0.1}
    catalog, _ = simulate_sky(400, np.random.default_rng(3), kinds=kinds, oddities=0, first=1000)
    share = (catalog.columns["label"] == "constant").mean()
    assert share == pytest.approx(0.9, abs=0.05)
    assert "SIM 1000" in catalog.target and "SIM 0" not in catalog.target
