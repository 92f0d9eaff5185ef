"""Truth and rival: measures of similarity against their definitions and against slow loops."""

import itertools

import numpy as np
import pytest

from skyvec.index import measures
from skyvec.prep.grid import on_grid, znormalise
from skyvec.prep.lightcurves import Prepared


def walks(n=200, m=64, seed=0):
    rng = np.random.default_rng(seed)
    smooth = rng.uniform(0.2, 1.0, (n, 1))
    return znormalise(
        np.cumsum(rng.normal(size=(n, m)), axis=1) * smooth + rng.normal(size=(n, m))
    )


def test_correlation_is_the_pearson_correlation():
    series = walks()
    rho = np.corrcoef(series.astype(np.float64))[0]
    expected = np.sqrt(np.clip(2 * (1 - rho), 0, None))
    np.testing.assert_allclose(measures.correlation(series[0], series), expected, atol=1e-5)


def test_complexity_equals_a_slow_loop():
    series = walks(20)
    for i in range(20):
        ed = sum((float(a) - float(b)) ** 2 for a, b in zip(series[3], series[i])) ** 0.5
        ce = [
            sum((float(b) - float(a)) ** 2 for a, b in itertools.pairwise(x)) ** 0.5
            for x in (series[3], series[i])
        ]
        cid = measures.complexity_invariant(series[3], series)[i]
        assert cid == pytest.approx(ed * max(ce) / min(ce), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("measure", list(measures.MEASURES))
@pytest.mark.parametrize("k", [1, 7, 500])
def test_full_search_equals_brute_force(measure, k):
    series = walks(300)
    queries = series[[5, 17]] + np.float32(0.01)
    found = measures.search(queries, series, k, measure)
    for i, query in enumerate(queries):
        distance = measures.MEASURES[measure](query, series)
        order = np.lexsort((np.arange(300), distance))[:k]
        np.testing.assert_array_equal(found.rows[i], order)
        np.testing.assert_allclose(found.distance[i], distance[order], rtol=1e-6, atol=1e-9)


def test_complexity_search_visits_few_where_the_neighbours_are_close():
    series = walks(2000)
    twins = series.copy()
    twins[1000:] = series[:1000]
    found = measures.search(twins[:5], twins, 2, "complexity")
    assert {tuple(sorted(rows)) for rows in found.rows.tolist()} == {
        (i, i + 1000) for i in range(5)
    }


def test_phase_free_measures_do_not_mind_a_shift():
    t = np.linspace(0, 8 * np.pi, 256, endpoint=False)
    wave, shifted, other = np.sin(t), np.sin(t + 2.0), np.sign(np.sin(2.3 * t))
    series = znormalise(np.stack([wave, shifted, other]))
    for measure in ("autocorrelation", "shape"):
        d = measures.MEASURES[measure](series[0], series)
        assert d[1] < 0.25 * d[2], measure
    d = measures.MEASURES["correlation"](series[0], series)
    assert d[1] > 0.9 * d[2]


def test_autocorrelation_equals_its_definition():
    series = walks(5, 40)
    lags = measures.autocorrelations(series, 10, decay=0.0)
    x = series[2].astype(np.float64)
    expected = [(x[:-lag] * x[lag:]).sum() / (x * x).sum() for lag in range(1, 11)]
    np.testing.assert_allclose(lags[2], expected, atol=1e-5)
    with pytest.raises(ValueError, match="lags must be between"):
        measures.autocorrelations(series, 40)


def test_rerank_orders_only_the_candidates():
    series = walks()
    candidates = np.array([9, 3, 50])
    found = measures.rerank(series[3], series, candidates, "shape")
    assert set(found.rows[0]) == {3, 9, 50} and found.rows[0, 0] == 3
    with pytest.raises(ValueError, match="choose from correlation"):
        measures.rerank(series[3], series, candidates, "taste")


def prepared(times, values):
    lengths = [len(t) for t in times]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n, total = len(times), int(offsets[-1])
    nothing = np.full((n, 1), np.nan)
    return Prepared(
        np.array([f"c{i}" for i in range(n)]),
        offsets,
        np.concatenate(times),
        np.concatenate(values).astype(np.float32),
        np.full(total, np.nan, np.float32),
        np.zeros(total, np.int16),
        np.zeros(n),
        nothing,
        nothing,
        np.zeros(n, bool),
    )


def test_gaps_lie_on_the_line_between_their_neighbours():
    t = np.linspace(0, 10, 201)
    keep = (t < 3) | (t > 6)
    grid = on_grid(prepared([t[keep], t[:1]], [2 * t[keep] + 1, t[:1]]), 20)
    np.testing.assert_allclose(np.diff(grid[0]), np.diff(grid[0]).mean(), rtol=0.1)
    assert (grid[1] == 0).all()
    assert grid[0].mean() == pytest.approx(0, abs=1e-6) and grid[0].std() == pytest.approx(1)
