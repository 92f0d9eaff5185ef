"""The exact index: rival (brute force in float64, row by row), truth, contract."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyvec.index.exact import ExactIndex, distance, unit


def brute_force(vectors, queries, k):
    """Cosine of everything with everything; ties by row."""
    a, b = unit(queries).astype(float), unit(vectors).astype(float)
    similarity, rows = [], []
    for query in a:
        dots = []
        for vector in b:
            lengths = [np.sqrt((x**2).sum()) or 1.0 for x in (query, vector)]
            dots.append((query * vector).sum() * (1 / lengths[0]) * (1 / lengths[1]))
        score = np.clip(dots, -1, 1).reshape(len(b))
        order = np.lexsort((np.arange(len(b)), -score))[:k]
        similarity.append(score[order])
        rows.append(order)
    return np.array(similarity), np.array(rows)


def assert_equals_brute_force(vectors, queries, k):
    similarity, rows = ExactIndex(vectors).search(queries, k)
    wanted, wanted_rows = brute_force(vectors, queries, k)
    assert similarity.tolist() == wanted.tolist()
    assert rows.tolist() == wanted_rows.tolist()


@pytest.mark.parametrize("n_queries", [1, 3, 25])
def test_equals_brute_force(n_queries):
    rng = np.random.default_rng(n_queries)
    vectors = rng.normal(size=(500, 12)).astype(np.float32)
    assert_equals_brute_force(vectors, rng.normal(size=(n_queries, 12)), 7)
    assert_equals_brute_force(vectors, vectors[:n_queries], 7)


# few directions, many copies, zeros and opposite signs: ties everywhere
small = st.lists(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=3, max_size=3),
    min_size=1,
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(small, small, st.integers(1, 50))
def test_equals_brute_force_where_everything_ties(vectors, queries, k):
    assert_equals_brute_force(np.array(vectors), np.array(queries), k)


def test_equals_brute_force_where_float32_cannot_tell():
    rng = np.random.default_rng(1)
    vectors = np.ones((300, 8)) + 1e-7 * rng.normal(size=(300, 8))
    assert_equals_brute_force(vectors, vectors[:30], 5)


def test_float32_alone_would_not_do():
    # the test above has something to find: Faiss by itself gives other rows there
    rng = np.random.default_rng(1)
    vectors = unit(np.ones((300, 8)) + 1e-7 * rng.normal(size=(300, 8)))
    index = faiss.IndexFlatIP(8)
    index.add(vectors)
    _, rows = index.search(vectors[:30], 5)
    assert (rows != ExactIndex(vectors).search(vectors[:30], 5)[1]).any()


def test_the_answer_is_the_same_alone_and_in_any_batch():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(2000, 40)).astype(np.float32)
    index = ExactIndex(vectors)
    together = index.search(vectors[:64], 9)
    for i in (0, 7, 63):
        alone = index.search(vectors[i : i + 1], 9)
        assert alone[0][0].tolist() == together[0][i].tolist()
        assert alone[1][0].tolist() == together[1][i].tolist()


def test_similarities_of_known_angles():
    angle = np.radians([0, 60, 90, 180])
    vectors = 3.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    similarity, rows = ExactIndex(vectors).search(np.array([[0.1, 0.0]]), 4)
    assert similarity[0] == pytest.approx([1, 0.5, 0, -1], abs=1e-7)
    assert rows[0].tolist() == [0, 1, 2, 3]
    assert distance(similarity[0]) == pytest.approx([0, 1, np.sqrt(2), 2], abs=1e-3)


def test_zeros_are_kept_and_like_nothing():
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    index = ExactIndex(vectors)
    similarity, rows = index.search(np.array([[2.0, 0.0], [0.0, 0.0]]), 4)
    assert rows.tolist() == [[1, 0, 3, 2], [0, 1, 2, 3]]
    assert similarity.tolist() == [[1, 0, 0, -1], [0, 0, 0, 0]]


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e20, 3e38])
def test_lengths_do_not_matter(scale):
    rng = np.random.default_rng(3)
    vectors = rng.uniform(-1, 1, size=(50, 4)).astype(np.float32)
    _, rows = ExactIndex(vectors).search(vectors, 3)
    _, scaled = ExactIndex(vectors * np.float32(scale)).search(vectors, 3)
    assert (rows == scaled).mean() > 0.95  # at 1e-38 floats have few digits left


def test_more_neighbours_than_rows_gives_all_rows():
    index = ExactIndex(np.eye(3))
    similarity, rows = index.search(np.eye(3)[:1], 10)
    assert rows.tolist() == [[0, 1, 2]]
    assert similarity.shape == (1, 3)
    assert len(index) == 3


def test_an_empty_index_and_no_queries_are_no_error():
    empty = ExactIndex(np.zeros((0, 4)))
    assert empty.search(np.ones((2, 4)), 5)[1].shape == (2, 0)
    assert ExactIndex(np.eye(4)).search(np.zeros((0, 4)), 2)[0].shape == (0, 2)


def test_a_collapsed_code_is_searched_as_fast_as_any():
    # 20,000 copies of two vectors: a search that opened every tie would hold 4e8 candidates
    vectors = np.repeat(np.eye(2), 10_000, axis=0)
    similarity, rows = ExactIndex(vectors).search(vectors, 3)
    assert (similarity == 1).all()
    assert rows[0].tolist() == [0, 1, 2]
    assert rows[-1].tolist() == [10_000, 10_001, 10_002]


def test_what_cannot_be_searched_is_refused():
    index = ExactIndex(np.eye(3))
    with pytest.raises(ValueError, match=r"1 of 2 are not; the first is row 1"):
        ExactIndex(np.array([[1.0, 2.0], [np.nan, 0.0]]))
    with pytest.raises(ValueError, match="must be finite"):
        index.search(np.array([[np.inf, 0, 0]]), 1)
    with pytest.raises(ValueError, match="made by the same model"):
        index.search(np.ones((1, 2)), 1)
    with pytest.raises(ValueError, match=r"shape \(n, d\), not \(3,\)"):
        index.search(np.ones(3), 1)
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        index.search(np.ones((1, 3)), 0)
