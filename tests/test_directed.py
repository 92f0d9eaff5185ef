"""Truth and contract: a directed search ranks by a ratio of densities, each star once."""

import numpy as np
import pytest

from skyvec.analysis.directed import Contrast, rank_of, ranking


def gaussians(rng, n=400, d=20, shift=1.0):
    """A survey that varies much along ten directions, and a signal that moves along another."""
    survey = rng.normal(size=(n, d)) * np.r_[np.full(10, 3.0), np.full(d - 10, 0.3)]
    moved = np.eye(d)[12] * shift
    return survey, survey[:60] + moved, survey[300:340] + moved


def names(n, first=0):
    return np.array([f"t{i + first}" for i in range(n)])


def test_what_moves_as_the_signal_does_ranks_above_what_is_near_its_stars():
    """A cosine to the cloud finds stars like the cloud's own; the ratio finds the signal."""
    rng = np.random.default_rng(1)
    survey, cloud, shifted = gaussians(rng)
    contrast = Contrast(cloud, names(60), survey, names(400))
    scores = contrast.score(survey, names(400))
    ranks = rank_of(contrast.score(shifted, names(40, 300)), names(40, 300), scores, names(400))
    assert np.median(ranks) <= 10

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    nearest = (unit(survey) @ unit(cloud).T).max(axis=1)
    own = (unit(shifted) @ unit(cloud).T).max(axis=1)
    assert np.median(rank_of(own, names(40, 300), nearest, names(400))) > 40


def test_the_ratio_is_that_of_the_distances_by_hand():
    rng = np.random.default_rng(4)
    survey, cloud = rng.normal(size=(20, 2)), rng.normal(size=(10, 2)) + 2
    contrast = Contrast(cloud, names(10, 20), survey, names(20), share=0.4)
    unit = survey / np.linalg.norm(survey, axis=1, keepdims=True)
    covariance = np.cov(unit.T)
    covariance += (0.05 * np.trace(covariance) / 2 + 1e-12) * np.eye(2)
    white = np.linalg.cholesky(np.linalg.inv(covariance))

    def place(x):
        moved = (x / np.linalg.norm(x, axis=1, keepdims=True) - unit.mean(axis=0)) @ white
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    at = place(survey[:1])
    to_cloud = np.sort(1 - (at @ place(cloud).T)[0])[:4].mean() + 0.005
    to_survey = np.sort(1 - (at @ place(survey[1:]).T)[0])[:8].mean() + 0.005  # without itself
    found = contrast.score(survey[:1], names(1))[0]
    assert found == pytest.approx(np.log(to_survey / to_cloud))


def test_what_only_resembles_a_strong_signal_ranks_below_one():
    """Kernels of one width cannot tell the middle of a narrow cloud from its outskirts."""
    rng = np.random.default_rng(6)
    survey = rng.normal(size=(400, 20))
    mark = 9 * np.eye(20)[3]
    cloud = survey[:200] * np.geomspace(0.1, 2, 200)[:, None] + mark
    strong = 0.1 * survey[300:340] + mark
    near = 0.1 * survey[380:] + mark + np.eye(20)[7]
    contrast = Contrast(cloud, names(200), survey, names(400))
    scores = contrast.score(np.vstack([survey[:380], near]), names(400))
    ranks = rank_of(contrast.score(strong, names(40, 300)), names(40, 300), scores, names(400))
    assert np.mean(ranks == 1) > 0.9


def test_no_star_votes_for_itself():
    rng = np.random.default_rng(2)
    survey, cloud, _ = gaussians(rng)
    with_own = Contrast(cloud, names(60), survey, names(400))
    without = Contrast(cloud[1:], names(59, 1), survey, names(400))  # the nearest 3 in both
    np.testing.assert_allclose(
        with_own.score(survey[:1], names(1)), without.score(survey[:1], names(1))
    )


def test_each_target_stands_once_by_its_best_segment():
    score = np.array([0.1, 0.9, 0.5, 0.9, -np.inf])
    target = np.array(["a", "b", "a", "c", "d"])
    assert ranking(score, target).tolist() == [1, 3, 2, 4]


def test_a_rank_counts_other_targets_once_and_never_its_own():
    survey = np.array([0.9, 0.8, 0.8, 0.1, 0.5])
    target = np.array(["a", "b", "b", "c", "d"])
    ranks = rank_of(
        np.array([0.85, 0.2, 0.95, 0.0]), np.array(["a", "b", "c", "new"]), survey, target
    )
    assert ranks.tolist() == [1, 3, 1, 5]


def test_rows_without_points_come_last_and_nonsense_is_refused():
    rng = np.random.default_rng(3)
    survey, cloud, _ = gaussians(rng)
    survey[7] = 0
    contrast = Contrast(cloud, names(60), survey, names(400))
    scores = contrast.score(survey, names(400))
    assert np.isneginf(scores[7]) and np.isfinite(np.delete(scores, 7)).all()
    with pytest.raises(ValueError, match="needs a cloud"):
        Contrast(cloud[:0], names(0), survey, names(400))
    with pytest.raises(ValueError, match="one width"):
        Contrast(cloud[:, :3], names(60), survey, names(400))
    with pytest.raises(ValueError, match="share"):
        Contrast(cloud, names(60), survey, names(400), share=0)
