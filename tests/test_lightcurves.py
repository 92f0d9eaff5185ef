"""Light curves made ready, and made up. Truth and rival tests, and one simulated sky."""

import numpy as np
import pytest

from skyvec.prep.lightcurves import prepare
from skyvec.schema import LightCurves


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
