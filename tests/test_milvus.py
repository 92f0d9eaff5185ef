"""Rival: the embedded Milvus answers as brute force does, after adding, replacing and deleting."""

import numpy as np
import pytest

pytest.importorskip("milvus_lite", reason="needs the extra `milvus`")
from skyvec.index.milvus import MilvusIndex

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def filled(tmp_path):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(1500, 40)).astype(np.float32)
    ids = [f"o{i}" for i in range(1500)]
    targets = [f't"{i // 2}' for i in range(1500)]
    index = MilvusIndex(str(tmp_path / "sky.db"), "latents", width=40)
    index.add(ids, targets, vectors)
    yield index, vectors
    index.close()


def brute(vectors, query, k, allowed):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = np.where(allowed, unit @ (query / np.linalg.norm(query)), -np.inf)
    return np.argsort(-similarity)[:k], np.sort(similarity)[::-1][:k]


def test_it_answers_as_brute_force(filled):
    index, vectors = filled
    allowed = np.arange(1500) // 2 != 7
    hits = index.search(vectors[14:16], 10, not_targets=['t"7'])
    for hit, query in zip(hits, vectors[14:16]):
        rows, similarity = brute(vectors, query, 10, allowed)
        assert hit.id.tolist() == [f"o{i}" for i in rows]
        np.testing.assert_allclose(hit.similarity, similarity, atol=1e-5)


def test_replaced_and_deleted_vectors_are_gone(filled):
    index, vectors = filled
    index.add(["o0"], ["t"], -vectors[:1])
    index.delete(["o1", "nobody"])
    assert len(index) == 1499
    found = index.search(vectors[:2], 1500)
    assert found[0].id[-1] == "o0" and "o1" not in found[1].id


def test_what_has_no_direction_is_refused(filled, tmp_path):
    index, vectors = filled
    with pytest.raises(ValueError, match="no direction"):
        index.add(["z"], ["z"], np.zeros((1, 40), np.float32))
    with pytest.raises(ValueError, match="k must be"):
        index.search(vectors[:1], 0)
    with pytest.raises(ValueError, match="give width"):
        MilvusIndex(str(tmp_path / "other.db"), "latents")
