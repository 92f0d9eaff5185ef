"""Rival: the staged search for the oddest objects against all pairs in numpy, bit for bit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from skyvec.index.certified import CertifiedIndex
from skyvec.index.oddest import oddest


def unit(vectors):
    wide = vectors.astype(np.float64)
    length = np.sqrt((wide**2).sum(1, keepdims=True))
    return (wide / np.where(length > 0, length, 1)).astype(np.float32)


def all_pairs(x, target, k, metric):
    """Score of each vector: its k-th nearest other target, each target by its nearest vector."""
    x = unit(x) if metric == "cosine" else x
    wide = np.zeros((len(x), -(-x.shape[1] // 8) * 8))
    wide[:, : x.shape[1]] = x
    scores = np.empty(len(x))
    for i, q in enumerate(wide):
        terms = wide * q if metric == "cosine" else -((wide - q) ** 2)
        t = np.zeros((8, len(x)))
        for j in range(0, wide.shape[1], 8):
            t += terms[:, j : j + 8].T
        s = ((t[0] + t[4]) + (t[2] + t[6])) + ((t[1] + t[5]) + (t[3] + t[7]))
        best = np.full(target.max() + 1, -np.inf)
        np.maximum.at(best, target, s)
        best[target[i]] = -np.inf
        scores[i] = np.sort(best)[-k]
    return scores if metric == "cosine" else np.sqrt(np.abs(scores))


def cloud(kind, n, d, rng):
    x = rng.standard_normal((n, d))
    if kind == "clusters":
        x = x * 0.1 + 2 * rng.standard_normal((5, d))[rng.integers(0, 5, n)]
        x[rng.integers(0, n, 1 + n // 50)] *= -1
    if kind == "duplicates":
        x = x[rng.integers(0, 1 + n // 4, n)]
        x[rng.random(n) < 0.1] = 0
    return x.astype(np.float32)


def check(x, target, n, k, metric):
    index = CertifiedIndex(x, metric=metric, target=target, threads=2)
    answer = oddest(index, n=n, k=k)
    truth = all_pairs(x, target, k, metric)
    order = np.lexsort((np.arange(len(x)), truth if metric == "cosine" else -truth))[:n]
    assert_array_equal(answer.rows, order)
    assert_array_equal(answer.similarity, truth[order].astype(np.float32))
    return answer


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["gauss", "clusters", "duplicates"]),
    st.sampled_from(["cosine", "l2"]),
    st.integers(12, 400),
    st.integers(1, 20),
    st.integers(1, 6),
    st.integers(1, 30),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_equals_all_pairs(kind, metric, size, d, k, n, is_shared, seed):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, size // 2, size) if is_shared else np.arange(size)
    target[: k + 1] = np.arange(k + 1)
    check(cloud(kind, size, d, rng), target, n, k, metric)


@pytest.mark.parametrize("kind", ["gauss", "clusters"])
@pytest.mark.parametrize("is_shared", [False, True])
def test_stages_leave_most_unverified(kind, is_shared):
    rng = np.random.default_rng(11)
    x = cloud(kind, 4000, 12, rng)
    target = rng.integers(0, 1500, 4000) if is_shared else np.arange(4000)
    proof = check(x, target, 20, 3, "cosine").proof
    assert proof.n_verified < 2000
    assert proof.n_bounded[0] == 4000
    assert proof.next_bound > proof.cutoff


def test_a_lone_object_is_the_oddest():
    rng = np.random.default_rng(12)
    x = cloud("clusters", 5000, 30, rng)
    x[:, :2] = np.abs(x[:, :2])
    x[1234] = 0
    x[1234, 0] = -1
    assert oddest(CertifiedIndex(x, threads=1), n=1).rows[0] == 1234


def test_refusals():
    index = CertifiedIndex(np.eye(4, dtype=np.float32), target=np.array([0, 0, 1, 1]), threads=1)
    with pytest.raises(ValueError, match="targets"):
        oddest(index, n=2, k=2)
    with pytest.raises(ValueError, match="at least 1"):
        oddest(index, n=0)
    assert len(oddest(index, n=100).rows) == 4
