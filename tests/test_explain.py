"""Truth: planted reasons are named, planted nuisances are found, and chance is not."""

import numpy as np
import pytest

from skyvec.analysis.audit import audit
from skyvec.analysis.explain import why_alike, why_odd
from skyvec.schema import Latents


def planted(n=600, seed=0):
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([5 + 0.3 * rng.normal(size=(n, 2)), 0.1 * rng.normal(size=(n, 6))], 1)
    vectors[0] = vectors[1:].mean(axis=0)
    vectors[0, 4] += 3.0  # an oddity along one direction that is narrow for the others
    ids = np.array([f"o{i}" for i in range(n)])
    targets = np.array([f"t{i}" if i > 3 else f"t{i // 2}" for i in range(n)])
    nan = np.full(n, np.nan)
    return Latents(ids, targets, vectors.astype(np.float32), "m", "h", nan, nan, nan)


def test_an_oddity_is_explained_by_the_direction_it_was_planted_in():
    latents = planted()
    why = why_odd(latents, "o0")
    assert why.density_ratio > 5
    assert why.directions[0].share > 0.9
    assert "o0" in why.directions[0].examples
    assert "o1" not in why.ordinary and len(why.ordinary) == 3
    plain = why_odd(latents, "o10")
    assert plain.density_ratio < 3 and plain.similarity > why.similarity


def test_the_similarity_of_two_is_the_sum_of_its_parts():
    latents = planted()
    unit = latents.vectors / np.linalg.norm(latents.vectors, axis=1, keepdims=True)
    why = why_alike(latents, "o5", "o9", most=8)
    assert why.similarity == pytest.approx(float(unit[5] @ unit[9]), abs=1e-6)
    assert sum(part for _, part in why.directions) == pytest.approx(why.similarity, abs=1e-6)
    order = np.argsort(-(unit @ unit[5]))
    assert order[why.rank] == 9
    with pytest.raises(KeyError, match="no object 'x'"):
        why_alike(latents, "o5", "x")


def test_an_audit_finds_what_was_mixed_in_and_nothing_else():
    latents = planted()
    rng = np.random.default_rng(1)
    columns = {
        "carried": latents.vectors[:, 0] + 0.05 * rng.normal(size=600),
        "camera": np.where(latents.vectors[:, 1] > 5, "1", "2"),
        "noise": rng.normal(size=600),
        "coin": rng.choice(np.array(["a", "b"]), 600),
        "single": np.full(600, 3.0),
        "unknown": np.full(600, np.nan),
    }
    rows = {row.name: row for row in audit(latents, columns, rng)}
    assert set(rows) == {"carried", "camera", "noise", "coin"}
    # the cosine does not see the length of a code, so not all of what was mixed in is told
    assert rows["carried"].told > 0.3 and rows["camera"].told > 0.3
    assert rows["carried"].is_carried and rows["camera"].is_carried
    assert rows["noise"].told < 0.05 and rows["coin"].told < 0.2
    assert rows["camera"].kind == "class" and rows["noise"].kind == "number"
