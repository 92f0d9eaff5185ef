"""Rival and contract: certified search against brute force written in numpy, bit for bit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skyvec.index import certified, kernels
from skyvec.index.certified import CertifiedIndex

KINDS = ("gauss", "clusters", "duplicates", "grid", "close", "line", "offset")


def unit(vectors):
    wide = vectors.astype(np.float64)
    length = np.sqrt((wide**2).sum(1, keepdims=True))
    return (wide / np.where(length > 0, length, 1)).astype(np.float32)


def scores(vectors, query, metric):
    """The definition, in numpy: eight running sums in float64."""
    d = vectors.shape[1]
    wide = np.zeros((len(vectors), -(-d // 8) * 8))
    other = np.zeros(wide.shape[1])
    wide[:, :d], other[:d] = vectors, query
    total = np.zeros((len(vectors), 8))
    for i in range(0, wide.shape[1], 8):
        x, q = wide[:, i : i + 8], other[i : i + 8]
        total += x * q if metric == "cosine" else -((x - q) ** 2)
    t = total.T
    value = ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]))
    return value if metric == "cosine" else 0.5 * value


def brute(vectors, queries, k, metric, target=None, excluded=None, by_target=False):
    if metric == "cosine":
        vectors, queries = unit(vectors), unit(queries)
    rows = np.full((len(queries), k), -1)
    values = np.full((len(queries), k), np.nan, np.float32)
    for i, query in enumerate(queries):
        score = scores(vectors, query, metric)
        order = np.lexsort((np.arange(len(score)), -score))
        if excluded is not None:
            order = order[target[order] != excluded[i]]
        if by_target:
            _, first = np.unique(target[order], return_index=True)
            order = order[np.sort(first)]
        order = order[:k]
        rows[i, : len(order)] = order
        value = score[order] if metric == "cosine" else np.sqrt(-2 * score[order])
        values[i, : len(order)] = value
    return values, rows


def cloud(kind, n, d, rng):
    x = rng.standard_normal((n, d))
    if kind == "clusters":
        x = x * 0.05 + 3 * rng.standard_normal((6, d))[rng.integers(0, 6, n)]
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 5), n)]
        x[rng.random(n) < 0.2] = 0
    elif kind == "grid":
        x = rng.integers(-1, 2, (n, d)).astype(float)
    elif kind == "close":
        x = 1 + 1e-6 * x
    elif kind == "line":
        x = np.outer(x[:, 0], np.ones(d)) * np.exp(3 * x[:, :1])
    elif kind == "offset":
        x = 1e4 + x
    return x.astype(np.float32)


def same(answer, truth):
    assert_array_equal(answer.rows, truth[1])
    if np.array_equal(np.isnan(answer.similarity), np.isnan(truth[0])):
        # the l2 score squares differences: a fused multiply-add may move its last bit
        np.testing.assert_allclose(answer.similarity, truth[0], rtol=2e-7, atol=0)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(KINDS),
    st.sampled_from(certified.METRICS),
    st.integers(1, 700),
    st.integers(1, 47),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_equals_brute_force(kind, metric, n, d, k, seed):
    rng = np.random.default_rng(seed)
    x = cloud(kind, n, d, rng)
    queries = np.concatenate([x[rng.integers(0, n, 3)], cloud(kind, 2, d, rng), x[:1] * 0])
    index = CertifiedIndex(x, metric=metric, threads=1)
    for way in ("coarse", "fine", "flat"):
        index.plan = index.plan._replace(way=way)
        same(index.search(queries, k), brute(x, queries, k, metric))


@pytest.mark.parametrize("metric", certified.METRICS)
@pytest.mark.parametrize("kind", ["gauss", "clusters", "duplicates", "close"])
def test_equals_brute_force_in_many_cells(kind, metric):
    rng = np.random.default_rng(7)
    x = cloud(kind, 6000, 40, rng)
    queries = np.concatenate([x[:40], cloud(kind, 30, 40, rng)])
    index = CertifiedIndex(x, metric=metric, threads=2)
    assert index.n_cells > 5
    truth = brute(x, queries, 10, metric)
    for way in ("coarse", "fine", "flat"):
        index.plan = index.plan._replace(way=way)
        same(index.search(queries, 10), truth)


@pytest.mark.parametrize("by_target", [False, True])
def test_same_targets_are_passed_over(by_target):
    rng = np.random.default_rng(3)
    x = cloud("clusters", 2000, 12, rng)
    target = rng.integers(0, 700, 2000)
    index = CertifiedIndex(x, target=target, threads=2)
    excluded = target[:50]
    answer = index.search(x[:50], 8, excluded=excluded, by_target=by_target)
    same(answer, brute(x, x[:50], 8, "cosine", target, excluded, by_target))
    found = target[answer.rows]
    assert not (found == excluded[:, None]).any()
    if by_target:
        assert all(len(set(row)) == 8 for row in found)


@pytest.mark.parametrize("by_target", [False, True])
def test_threads_share_one_query(monkeypatch, by_target):
    monkeypatch.setattr(certified, "SPLIT", 100)
    rng = np.random.default_rng(4)
    x = cloud("duplicates", 3000, 9, rng)
    target = rng.integers(0, 900, 3000)
    index = CertifiedIndex(x, target=target, threads=2)
    for row, k in enumerate((1, 20, 20, 899, 1300)):
        answer = index.search(x[row : row + 1], k, excluded=target[[row]], by_target=by_target)
        same(answer, brute(x, x[[row]], k, "cosine", target, target[[row]], by_target))


def test_near_ties_at_the_bound():
    """Vectors that differ from the k-th best by one bit of float32, on either side."""
    rng = np.random.default_rng(5)
    base = rng.standard_normal(40).astype(np.float32)
    x = np.repeat(base[None], 3000, axis=0)
    where = rng.integers(0, 40, 3000)
    toward = np.where(rng.random(3000) < 0.5, np.inf, -np.inf).astype(np.float32)
    x[np.arange(3000), where] = np.nextafter(x[np.arange(3000), where], toward)
    for metric in certified.METRICS:
        index = CertifiedIndex(x, metric=metric, threads=1)
        same(index.search(base[None], 50), brute(x, base[None], 50, metric))


def test_bounds_are_bounds():
    """No vector's score exceeds what either set of codes or its cell promises."""
    rng = np.random.default_rng(6)
    for metric in certified.METRICS:
        x = cloud("clusters", 3000, 21, rng)
        index = CertifiedIndex(x, metric=metric, threads=1)
        store = index.store
        queries = unit(x[:20]) if metric == "cosine" else x[:20]
        asked = index.asked(queries, np.full(20, -1), 3)
        cells = index.n_cells
        kernels.search_cells(store, asked, 0, cells, 1, 1.0, True, False, np.inf)
        cell = np.repeat(np.arange(cells), np.diff(store.first) * kernels.LANES)
        for g, query in enumerate(queries):
            score = scores(store.vectors[:, :21], query, metric)
            real = store.rows >= 0
            assert (score[real] <= asked.upper[g][cell[real]]).all()
            for stage, codes in enumerate((store.coarse, store.fine)):
                at = (stage * 20 + g) * asked.stride
                weights = asked.weights[at : at + codes.groups].view(np.int8).astype(np.int64)
                blocks = codes.packed.reshape(-1, codes.groups, kernels.LANES, 4).astype(np.int64)
                whole = np.einsum("bglj,gj->bl", blocks, weights.reshape(-1, 4)).ravel()
                bound = asked.base[stage, g] + asked.unit[stage, g] * whole
                if metric == "l2":
                    bound = bound + store.bias
                assert (score[real] <= bound[real]).all()
                loose = bound[real] - score[real]
                assert np.median(loose) < 0.2 * np.ptp(score[real]) + 1e-6


def test_both_multiply_adds_agree(monkeypatch):
    """The 16-bit form that stands in where the 8-bit instruction is missing."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((500, 13)).astype(np.float32)
    truth = CertifiedIndex(x, threads=1).search(x[:9], 5)
    same(CertifiedIndex(x, threads=1).search(x[:9], 5), truth)
    weights = rng.integers(-127, 128, 12).astype(np.int8)
    codes = rng.integers(1, 256, (1, 3, 64, 4)).astype(np.uint8)
    sums = (codes.astype(int) * weights.reshape(1, 3, 1, 4)).sum((1, 3))[0]
    none = np.zeros(0, np.float32)
    for has_instruction in {kernels.HAS_DOT_INSTRUCTION, False}:
        monkeypatch.setattr(kernels, "HAS_DOT_INSTRUCTION", has_instruction)
        scan = kernels.compile_lanes_above()
        for limit in (*np.quantile(sums, [0, 0.3, 0.9, 1]).astype(np.int32), kernels.LOWEST):
            mask = scan(codes.ravel(), 0, weights.view(np.int32), 0, 3, none, 0, 1.0, limit)
            assert_array_equal(
                (mask >> np.arange(64, dtype=np.uint64)) & np.uint64(1), sums > limit
            )


def test_fewer_than_k_and_probing():
    rng = np.random.default_rng(9)
    x = cloud("gauss", 3000, 16, rng)
    index = CertifiedIndex(x, threads=1)
    exact = index.search(x[:50], 10)
    assert_array_equal(index.search(x[:50], 10, radii=1.0).rows, exact.rows)
    few = index.search(x[:50], 10, radii=0.0)
    assert (few.similarity[:, -1] <= exact.similarity[:, -1]).all()
    assert (few.rows != exact.rows).any()
    assert np.mean(few.rows[:, 0] == np.arange(50)) > 0.7
    tiny = CertifiedIndex(x[:3], threads=1).search(x[:2], 5)
    assert (tiny.rows[:, 3:] == -1).all() and np.isnan(tiny.similarity[:, 3:]).all()
    assert index.search(x[:0], 4).rows.shape == (0, 4)


def test_refusals():
    x = np.ones((5, 3), np.float32)
    bad = x.copy()
    bad[2, 1] = np.nan
    index = CertifiedIndex(x, threads=1)
    for call, message in [
        (lambda: CertifiedIndex(bad), "row 2"),
        (lambda: CertifiedIndex(x[:0]), "no vectors"),
        (lambda: CertifiedIndex(x[0]), "shape"),
        (lambda: CertifiedIndex(x, metric="l1"), "choose from"),
        (lambda: CertifiedIndex(x, target=np.arange(4)), "target"),
        (lambda: index.search(bad, 2), "row 2"),
        (lambda: index.search(x[:, :2], 2), "2 numbers"),
        (lambda: index.search(x, 0), "k must"),
        (lambda: index.search(x, 1, excluded=np.arange(2)), "excluded"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
