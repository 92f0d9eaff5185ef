"""Hand-crafted numbers and the codes made of them.

Rival tests (astropy's Lomb-Scargle, slow loops over numpy and scipy), truth tests, one simulated
sky, and the real variables of ASAS.
"""

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.timeseries import LombScargle
from safetensors.numpy import load, save
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from skyvec.photometry import flux_from_magnitude
from skyvec.prep.codes import BASELINES, FeatureCode, StatisticsCode, baselines_of
from skyvec.prep.features import package_features, package_names, spectrum_and_statistics
from skyvec.prep.lightcurves import prepare
from skyvec.prep.spectra import (
    FREQUENCY_EDGES,
    fourier_sums,
    log_power_spectrum,
    lomb_scargle,
)
from skyvec.prep.statistics import STATISTICS, simple_statistics, statistics_names
from skyvec.schema import LightCurves
from skyvec.sim.lightcurves import simulate_sky


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
    columns = [np.concatenate(column) for column in zip(*whole)]
    offsets = np.concatenate([[0], np.cumsum([len(curve[0]) for curve in whole])]).astype(np.int64)
    ids = np.array([f"star {i}" for i in range(len(whole))], dtype=np.str_)
    return LightCurves(ids, offsets, *columns, bands)


def nights(rng, n, years):
    """Stamps of a survey from the ground: whole days and some hours."""
    return 55_000 + np.sort(
        rng.choice(int(365 * years), n, replace=False) + rng.uniform(0, 0.2, n)
    )


# --- the spectrum -----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "span", "first"), [(1200, 27, 1), (300, 3000, 1), (7, 1, 90_000)])
def test_fourier_sums_agree_with_the_sum(n, span, first):
    rng = np.random.default_rng(n)
    time, weight, step = rng.uniform(0, span, n), rng.normal(size=n), 1 / (2 * span)
    k = first + np.array([0, 1, 2, 500, 998, 999])
    exact = np.exp(-2j * np.pi * np.outer(k * step, time)) @ weight
    fast = fourier_sums(time, weight, first, step, 1000)[k - first]
    np.testing.assert_allclose(fast, exact, atol=2e-5 * np.abs(weight).sum())


@pytest.mark.parametrize("kind", ["even", "nights", "random"])
def test_power_agrees_with_astropy(kind):
    rng = np.random.default_rng(5)
    stamps = {
        "even": np.arange(1200) / 48,
        "nights": nights(rng, 300, 3),
        "random": np.sort(rng.uniform(0, 27, 200)),
    }
    time = stamps[kind] - stamps[kind][0]
    value = np.sin(2 * np.pi * time / 0.7) + rng.normal(0, 1, len(time))
    step = 1 / (2 * np.ptp(time))
    count = min(int(23.9 / step), 20_000)
    theirs = LombScargle(time, value, fit_mean=False).power(
        step * np.arange(1, count + 1), method="cython"
    )
    np.testing.assert_allclose(lomb_scargle(time, value, step, count), theirs, atol=2e-4)


def test_blocks_of_frequencies_join(monkeypatch):
    rng = np.random.default_rng(2)
    time, value = np.sort(rng.uniform(0, 100, 40)), rng.normal(size=40)
    whole = lomb_scargle(time, value, 0.005, 4801)
    monkeypatch.setattr("skyvec.prep.spectra.BLOCK", 500)
    np.testing.assert_allclose(lomb_scargle(time, value, 0.005, 4801), whole, atol=1e-4)


@pytest.mark.parametrize(("n", "years"), [(300, 8.0), (60, 1.0)])
def test_a_cell_holds_its_highest_power(n, years):
    rng = np.random.default_rng(1)
    mjd = np.sort(55_000 + rng.uniform(0, 365 * years, n))
    flux = 10 + np.sin(2 * np.pi * mjd / 0.31) + rng.normal(0, 0.3, n)
    prepared = prepare(make((mjd, flux)), round_days=0)
    cells = log_power_spectrum(prepared)[0]
    step = 1 / (2 * prepared.time[-1])
    frequency = step * np.arange(1, int(24 / step) + 1)
    power = lomb_scargle(prepared.time, prepared.value.astype(float), step, len(frequency))
    for low, high, cell in zip(FREQUENCY_EDGES[:-1], FREQUENCY_EDGES[1:], cells):
        inside = power[(frequency >= low) & (frequency < high)]
        if len(inside):
            assert cell == pytest.approx(np.log10(1e-4 + inside.max()), abs=1e-3)
    assert FREQUENCY_EDGES[cells.argmax()] < 1 / 0.31 < FREQUENCY_EDGES[cells.argmax() + 1]


@pytest.mark.parametrize("period", [0.06, 0.5, 3.7, 9.0])
def test_a_period_lands_in_its_cell_whatever_the_start_and_span(period):
    rng = np.random.default_rng(3)
    for span in (27.0, 80.0, 700.0):
        mjd = rng.uniform(50_000, 60_000) + np.sort(rng.uniform(0, span, 800))
        prepared = prepare(make((mjd, np.cos(2 * np.pi * mjd / period))), round_days=0)
        cells = log_power_spectrum(prepared)[0]
        peak = FREQUENCY_EDGES[cells.argmax()], FREQUENCY_EDGES[cells.argmax() + 1]
        resolution = 0.5 / span
        assert peak[0] - resolution < 1 / period < peak[1] + resolution
        assert -0.12 < cells.max() <= 1e-4


def test_no_power_without_scatter_points_or_span():
    same = np.full(10, 58_000.0)
    curves = make(
        (np.arange(50) + 58_000.0, np.ones(50)),
        ([], []),
        ([58_000, 58_001], [1, 2]),
        (same, np.arange(10)),
        (58_000 + np.arange(30) * 1e-4, np.random.default_rng(0).normal(size=30)),
    )
    spectrum = log_power_spectrum(prepare(curves, round_days=0))
    np.testing.assert_allclose(spectrum[:4], -4, atol=1e-6)
    assert np.isfinite(spectrum).all()


def test_bands_are_averaged_by_their_points():
    rng = np.random.default_rng(9)
    mjd = np.sort(58_000 + rng.uniform(0, 30, 400))
    band = (rng.random(400) < 0.25).astype(int)
    flux = np.sin(mjd / 0.3) + rng.normal(0, 1, 400) + 5 * band
    both = make((mjd, flux, 0.1, band), bands=("g", "r"))
    each = [
        lomb_scargle(mjd[band == b] - mjd[0], flux[band == b], 1 / (2 * np.ptp(mjd)), 1400)
        for b in (0, 1)
    ]
    expected = ((1 - band.mean()) * each[0] + band.mean() * each[1]).max()
    found = log_power_spectrum(prepare(both, round_days=0)).max()
    assert found == pytest.approx(np.log10(1e-4 + expected), abs=2e-3)


def test_edges_must_ascend():
    prepared = prepare(make(([58_000.0], [1.0])))
    for edges in ([0, 1], [2, 1], [1.0]):
        with pytest.raises(ValueError, match="edges must ascend from above 0"):
            log_power_spectrum(prepared, edges=np.array(edges, float))


# --- statistics -------------------------------------------------------------------------------


def slow_statistics(mjd, flux):
    z = (flux - flux.mean()) / flux.std()
    q = np.quantile(z, (0.05, 0.25, 0.5, 0.75, 0.95))
    return dict(
        zip(
            STATISTICS,
            (
                np.log10(flux.std() / abs(flux.mean())),
                np.arcsinh(stats.skew(flux)),
                np.arcsinh(stats.kurtosis(flux)),
                np.log10(np.mean(np.diff(z) ** 2) + 1e-6),
                np.mean(np.abs(z) > 1),
                np.mean(np.abs(z) > 2),
                np.arcsinh(z.min()),
                *q,
                np.arcsinh(z.max()),
                np.abs(z).mean() / np.sqrt(np.mean(z**2)),
                abs(stats.pearsonr(mjd - mjd[0], flux).statistic),
            ),
        )
    )


def test_statistics_agree_with_a_slow_loop():
    rng = np.random.default_rng(4)
    curves = []
    for n in (5, 40, 333):
        band = rng.integers(0, 2, n) if n > 5 else np.zeros(n, int)
        curves.append((np.sort(58_000 + rng.uniform(0, 90, n)), rng.gamma(2, 3, n) + 5, 0.1, band))
    table = simple_statistics(prepare(make(*curves, bands=("g", "r")), round_days=0))
    names = statistics_names(("g", "r"))
    assert table.shape == (3, 30) == (3, len(names))
    for row, (mjd, flux, _, band) in zip(table, curves):
        for code, name in enumerate("gr"):
            columns = [names.index(f"{statistic}_{name}") for statistic in STATISTICS]
            if (band == code).sum() < 5:
                assert np.isnan(row[columns]).all()
                continue
            slow = slow_statistics(mjd[band == code], flux.astype(np.float32)[band == code])
            np.testing.assert_allclose(row[columns], list(slow.values()), atol=2e-4)


def test_statistics_do_not_see_brightness_but_with_the_mean():
    rng = np.random.default_rng(6)
    mjd, flux = np.arange(60) + 58_000.0, rng.normal(10, 1, 60)
    prepared = prepare(make((mjd, flux), (mjd, 100 * flux), (mjd, flux - 10), (mjd, flux * 0 + 3)))
    table = simple_statistics(prepared, with_mean=True)
    assert statistics_names(("V",), with_mean=True)[-1] == "mean_V"
    np.testing.assert_allclose(table[0, :-1], table[1, :-1], atol=1e-5)
    assert table[1, -1] - table[0, -1] == pytest.approx(2, abs=1e-5)
    shape = np.array(STATISTICS) != "amplitude"
    np.testing.assert_allclose(table[2, :-1][shape], table[0, :-1][shape], atol=1e-4)
    assert np.isnan(table[3, :-1]).all() and table[3, -1] == pytest.approx(np.log10(3))


# --- the light-curve package ------------------------------------------------------------------


def test_package_features_find_a_period_and_say_what_is_missing():
    rng = np.random.default_rng(8)
    mjd = nights(rng, 250, 5)
    flux = 10 + np.sin(2 * np.pi * mjd / 0.413) + rng.normal(0, 0.2, 250)
    curves = make(
        (mjd, flux, 0.2),
        (mjd, 1000 * flux, 200.0),
        (mjd, flux, np.nan),
        (mjd[:4], flux[:4]),
        (mjd, np.ones(250)),
        (np.full(9, 58_000.0), np.arange(9) + 1.0),
        ([], []),
    )
    names = package_names(("V",), with_mean=True)
    table = package_features(curves, with_mean=True)
    assert table.shape == (7, len(names)) and len(set(names)) == len(names)
    period, mean = names.index("periodogram_period_0_V"), names.index("mean_V")
    # one-day aliases have nearly the same power
    frequency = 1 / table[0, period]
    assert (frequency - 1 / 0.413) == pytest.approx(round(frequency - 1 / 0.413), abs=0.02)
    np.testing.assert_allclose(table[0, :mean], table[1, :mean], rtol=2e-3, atol=1e-6)
    assert table[1, mean] - table[0, mean] == pytest.approx(3, abs=1e-5)
    need = np.array([n.startswith(("chi2", "linear_fit", "roms", "stetson", "ex")) for n in names])
    assert np.isnan(table[2, need]).all() and not np.isnan(table[2, ~need]).any()
    assert np.isnan(table[3:, :mean]).all()


# --- codes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables():
    catalog, curves = simulate_sky(450, np.random.default_rng(21))
    return catalog, {n: BASELINES[n].measure(curves) for n in baselines_of("lightcurves")}


@pytest.mark.parametrize(("name", "width"), [("statistics", 45), ("features", None)])
def test_a_code_is_fitted_on_the_training_part_and_stored(tables, name, width):
    table = tables[1][name].copy()
    code = BASELINES[name].code.fit(table[:300])
    table[:, -1] = np.where(np.arange(450) % 3 == 0, np.nan, table[:, -1])
    coded = code.transform(table)
    assert coded.vectors.dtype == np.float32 and np.isfinite(coded.vectors).all()
    assert coded.vectors.shape == (450, width or table.shape[1])
    assert ((coded.n_imputed > 0) == (np.arange(450) % 3 == 0)).all()
    filled = coded.vectors[0].copy()
    assert (code.transform(table[:1]).vectors[0] == filled).all()  # alone as in company
    median = table.copy()
    median[:, -1] = np.where(
        np.isnan(table[:, -1]), np.median(tables[1][name][:300, -1]), table[:, -1]
    )
    np.testing.assert_allclose(code.transform(median).vectors, coded.vectors, atol=1e-5)
    again = type(code).from_arrays(load(save(code.arrays())))
    assert (again.transform(table).vectors == coded.vectors).all()


def test_both_parts_of_the_statistics_code_weigh_the_same(tables):
    table = tables[1]["statistics"]
    vectors = StatisticsCode.fit(table).transform(table).vectors
    np.testing.assert_allclose((vectors[:, :30] ** 2).sum(axis=1).mean(), 15, rtol=1e-3)
    np.testing.assert_allclose((vectors[:, 30:] ** 2).sum(axis=1).mean(), 15, rtol=1e-3)
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=1e-3)
    products = vectors[:, :30].T @ vectors[:, :30]
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-3 * products.max()


def test_what_training_never_saw_is_left_out():
    table = np.random.default_rng(0).normal(size=(50, 4))
    table[:, 1] = np.nan
    table[:, 2] = 7.0
    code = FeatureCode.fit(table)
    assert code.is_kept.tolist() == [True, False, False, True]
    far = np.array([[1e9, 1.0, 1.0, -np.inf], [np.nan, 1.0, 1.0, np.nan]])
    coded = code.transform(far)
    assert coded.vectors.tolist() == [[5, -5], [0, 0]] and coded.n_imputed.tolist() == [0, 2]


@pytest.mark.parametrize("name", baselines_of("lightcurves"))
def test_another_width_is_refused(tables, name):
    table = tables[1][name]
    code = BASELINES[name].code.fit(table[:300])
    with pytest.raises(ValueError, match="measure it with the same bands and options"):
        code.transform(table[:, :-1])
    with pytest.raises(ValueError, match="at least 2 objects to fit"):
        BASELINES[name].code.fit(table[:1])


@pytest.mark.parametrize("name", baselines_of("lightcurves"))
def test_neighbours_of_a_simulated_sky_are_of_its_kind(tables, name):
    catalog, measured = tables
    label = catalog.columns["label"]
    number = np.array([int(target.split()[1]) for target in catalog.target])
    train = number % 3 > 0  # by target: two sectors of a star never part
    vectors = BASELINES[name].code.fit(measured[name][train]).transform(measured[name]).vectors
    seen = catalog.columns["snr"] > 3
    model = KNeighborsClassifier(5, metric="cosine").fit(
        vectors[train & seen], label[train & seen]
    )
    right = model.predict(vectors[~train & seen]) == label[~train & seen]
    assert right.mean() > 0.7  # one in fourteen by chance


def test_codes_of_several_bands_have_statistics_of_each():
    rng = np.random.default_rng(0)
    mjd = np.sort(58_000 + rng.uniform(0, 100, 80))
    curves = make(
        *[(mjd, rng.normal(9, 1, 80), 0.1, rng.integers(0, 2, 80)) for _ in range(5)],
        (mjd, rng.normal(9, 1, 80), 0.1, np.ones(80)),
        bands=("g", "r"),
    )
    table = spectrum_and_statistics(curves)
    assert table.shape == (6, 128 + 30)
    coded = StatisticsCode.fit(table).transform(table)
    assert coded.vectors.shape == (6, 60) and coded.n_imputed.tolist() == [0, 0, 0, 0, 0, 15]
    assert np.isfinite(coded.vectors).all()


@pytest.mark.real
def test_real_variables_have_neighbours_of_their_class(real_data):
    rows = pq.read_table(
        real_data("lightcurves/asas_acvs.parquet"), columns=["time", "value", "label", "n"]
    )
    rows = rows.filter(np.asarray(rows["n"]) > 50)
    rows = rows.take(np.random.default_rng(0).permutation(len(rows))[:180]).to_pylist()
    curves = []
    for row in rows:
        mjd = np.array(row["time"]) - 2_400_000.5
        order = np.argsort(mjd)
        curves.append((mjd[order], flux_from_magnitude(np.array(row["value"]))[0][order]))
    table, label = spectrum_and_statistics(make(*curves)), np.array([row["label"] for row in rows])
    vectors = StatisticsCode.fit(table[:120]).transform(table).vectors
    model = KNeighborsClassifier(5, metric="cosine").fit(vectors[:120], label[:120])
    common = max((label[120:] == name).mean() for name in set(label))
    assert (model.predict(vectors[120:]) == label[120:]).mean() > common + 0.2
