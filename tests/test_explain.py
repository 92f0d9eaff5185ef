"""Truth: planted reasons are named, planted nuisances are found, and chance is not."""

import dataclasses

import numpy as np
import pytest

from skyvec.analysis.audit import audit
from skyvec.analysis.explain import Reasons, why_alike, why_odd
from skyvec.analysis.outliers import far_from_others, outliers
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
    assert why.density_ratio < 0.2 and why.odder < 0.01
    assert why.directions[0].share > 0.9
    assert "o0" in why.directions[0].examples
    assert "o1" not in why.ordinary and len(why.ordinary) == 3
    plain = why_odd(latents, "o10")
    assert plain.density_ratio > 0.3 and plain.similarity > why.similarity


def test_what_is_odd_by_the_length_of_its_code_is_odd_by_distance_alone():
    latents = planted()
    vectors = latents.vectors.copy()
    vectors[50] = 3 * vectors[51]  # the direction of others, as of an image with a bright trail
    latents = dataclasses.replace(latents, vectors=vectors)
    by_cosine, by_distance = (Reasons(latents, far=far).odd("o50") for far in (False, True))
    assert by_cosine.odder > 0.4 and np.isnan(by_cosine.distance)
    assert by_distance.odder <= 0.002 and "o50" not in by_distance.ordinary
    away = np.linalg.norm(vectors - vectors[50], axis=1)
    assert by_distance.distance == pytest.approx(np.sort(away)[5], rel=1e-6)


def test_distances_are_those_of_the_list_of_outliers():
    rng = np.random.default_rng(3)
    names = np.array([f"t{i // 7}" for i in range(300)])  # many segments of each target
    vectors = rng.normal(size=(300, 4)).astype(np.float32)
    ids, nan = np.array([f"o{i}" for i in range(300)]), np.full(300, np.nan)
    latents = Latents(ids, names, vectors, "m", "h", nan, nan, nan)
    reasons, far = Reasons(latents, k=5, far=True), far_from_others(latents, 5)
    for i in (0, 100, 299):
        assert reasons.odd(ids[i]).distance == pytest.approx(far[i], rel=1e-5)
        farthest = np.flatnonzero(names == names[i])[far[names == names[i]].argmax()]
        assert reasons.odd(names[i]).id == ids[farthest]
    limit = np.median(far)
    assert all(far[int(name[1:])] <= limit for name in reasons.odd("o3").ordinary)


def test_oddity_is_that_of_the_list_of_outliers():
    rng = np.random.default_rng(3)
    names = np.array([f"t{i // 7}" for i in range(300)])  # many segments of each target
    vectors = rng.normal(size=(300, 4)).astype(np.float32)
    ids, nan = np.array([f"o{i}" for i in range(300)]), np.full(300, np.nan)
    latents = Latents(ids, names, vectors, "m", "h", nan, nan, nan)
    reasons = Reasons(latents, k=3)
    listed = outliers(latents, None, 3)
    for i in range(len(listed)):
        why = reasons.odd(str(listed.target[i]))
        assert why.id == listed.id[i]
        assert why.similarity == pytest.approx(listed.similarity[i], abs=1e-6)
        assert why.density_ratio == pytest.approx(listed.density_ratio[i], abs=1e-4)
        own = latents.target[latents.rows(why.ordinary)]
        assert listed.target[i] not in own


def test_a_code_of_zeros_has_no_reasons():
    latents = planted()
    vectors = latents.vectors.copy()
    vectors[7] = 0
    empty = dataclasses.replace(latents, vectors=vectors)
    with pytest.raises(ValueError, match="no point in the model's bands"):
        Reasons(empty).odd("o7")
    with pytest.raises(ValueError, match="k must be between"):
        Reasons(latents, k=1000)


def test_a_direction_is_named_after_what_it_follows():
    latents = planted()
    reasons = Reasons(latents)
    rng = np.random.default_rng(2)
    rows = reasons.sample
    columns = {
        "first": latents.vectors[rows, 0] ** 3,
        "noise": rng.normal(size=len(rows)),
        "unknown": np.full(len(rows), np.nan),
    }
    found = reasons.follow(columns)
    assert {name for name, _ in found.values()} == {"first"}
    # with the chosen sign of the direction, the sign of the correlation is that of its ends
    number = next(iter(found))
    ends = next(d.examples for d in reasons._directions(5, 8) if d.number == number)
    low, high = latents.vectors[latents.rows(ends), 0]
    assert (high > low) == (found[number].correlation > 0)


def test_the_similarity_of_two_is_the_sum_of_its_parts():
    latents = planted()
    unit = latents.vectors / np.linalg.norm(latents.vectors, axis=1, keepdims=True)
    why = why_alike(latents, "o5", "o9", most=8)
    assert why.similarity == pytest.approx(float(unit[5] @ unit[9]), abs=1e-6)
    assert sum(shared.part for shared in why.directions) == pytest.approx(why.similarity, abs=1e-6)
    order = np.argsort(-(unit @ unit[5]))
    assert order[why.rank] == 9
    with pytest.raises(KeyError, match="no segment or target 'x'"):
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
