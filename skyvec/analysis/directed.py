"""Directed search: rank a survey by how much it looks like a signal rather than like itself.

The query is a cloud of codes: the signal as it would be seen, injected into objects of the survey
at many phases, depths and noises. What is nearest to any member of the cloud is mostly what is
nearest to the star that lent its noise; therefore the cloud is held against the survey:

    score(v) = log r(v, survey) - log r(v, signal),
    r(v, Q) = mean of 1 - cos(Wv, Wq) over the nearest SHARE of all q in Q,

with W the whitening of the survey's unit codes: a direction in which all stars differ says little.
The ratio of likelihoods is the best test there is where both densities are known (Neyman & Pearson
1933, Phil. Trans. A 231, 289). A density is the inverse of the distance within which an equal
share of the draws lies, to the power of the dimension (Loftsgaarden & Quesenberry 1965, Ann. Math.
Stat. 36, 1049): the score is the logarithm of that ratio for one dimension, and the dimension
changes no order. Such a width follows the density: strong signals lie close together, faint ones
far apart, and what only resembles a strong one is not among them. Codes of the same target are
left out on both sides, so that no star votes for or against itself.
"""

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import Floats, Ints, Strings

SHARE = 0.05
"""Share of the cloud, and of the survey, whose distance is taken; docs/design.md tells others."""

FEWEST = 3
"""But never fewer codes than these."""

FLOOR = 0.005
"""Added to a distance: codes nearer than this [1 - cosine, whitened] are the same."""

SHRINKAGE = 0.05
"""Share of the mean variance that is added to each direction before whitening."""

BACKGROUND = 4096
"""So many codes of the survey, evenly taken, stand for all of them."""

BLOCK = 2048


class Contrast:
    """A cloud of codes held against a survey.

    Args:
        cloud: Codes of the signal, shape (m, d).
        cloud_target: Target whose stamps and noise each member has; an empty text for none,
            shape (m,).
        survey: Codes of the survey, shape (n, d); rows of zeros (no points) are left out.
        survey_target: Target of each, shape (n,).
        share: Share of each whose distance is taken, in (0, 1].

    Raises:
        ValueError: An empty cloud, fewer than two usable codes in the survey, codes of different
            width, or no such share.
    """

    def __init__(
        self,
        cloud: Floats | NDArray[np.float32],
        cloud_target: Strings,
        survey: Floats | NDArray[np.float32],
        survey_target: Strings,
        *,
        share: float = SHARE,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], not {share}")
        if cloud.ndim != 2 or survey.ndim != 2 or cloud.shape[1] != survey.shape[1]:
            raise ValueError(
                f"cloud {cloud.shape} and survey {survey.shape} must hold codes of one width"
            )
        usable = np.flatnonzero(np.any(survey != 0, axis=1))
        if not len(cloud) or len(usable) < 2:
            raise ValueError(
                f"a directed search needs a cloud (here {len(cloud)} codes) and at least two "
                f"usable codes in the survey (here {len(usable)})"
            )
        if len(usable) > BACKGROUND:
            usable = usable[np.linspace(0, len(usable) - 1, BACKGROUND).astype(np.int64)]
        background = _unit(survey[usable])
        self.share = share
        self._mean = background.mean(axis=0)
        covariance = np.cov(background.T).reshape(background.shape[1], -1)
        covariance += (SHRINKAGE * np.trace(covariance) / len(covariance) + 1e-12) * np.eye(
            len(covariance)
        )
        self._whitening = np.linalg.cholesky(np.linalg.inv(covariance))
        self._cloud, self._cloud_target = self._whiten(cloud), np.asarray(cloud_target, np.str_)
        self._survey, self._survey_target = self._whiten(survey[usable]), survey_target[usable]

    def score(self, vectors: Floats | NDArray[np.float32], target: Strings) -> Floats:
        """Log ratio of the distances to the survey and to the signal, (n,); -inf for zeros.

        Args:
            vectors: Codes, shape (n, d).
            target: Target of each, shape (n,); members of the same target have no say.
        """
        result = np.full(len(vectors), -np.inf)
        for first in range(0, len(vectors), BLOCK):
            rows = np.arange(first, min(first + BLOCK, len(vectors)))
            rows = rows[np.any(vectors[rows] != 0, axis=1)]
            place = self._whiten(vectors[rows])
            result[rows] = np.log(
                self._distance(place, target[rows], self._survey, self._survey_target)
            ) - np.log(self._distance(place, target[rows], self._cloud, self._cloud_target))
        return result

    def _whiten(self, vectors: Floats | NDArray[np.float32]) -> Floats:
        return _unit((_unit(vectors) - self._mean) @ self._whitening)

    def _distance(
        self, place: Floats, target: Strings, others: Floats, other_target: Strings
    ) -> Floats:
        """Mean distance to the nearest share of the others, (n,)."""
        distance = 1 - place @ others.T
        # as far as can be, so that a star whose own draws are the whole cloud comes last
        distance[target[:, None] == other_target[None, :]] = 2
        nearest = min(max(FEWEST, round(self.share * len(others))), len(others))
        return np.asarray(np.partition(distance, nearest - 1)[:, :nearest].mean(axis=1) + FLOOR)


def ranking(score: Floats, target: Strings) -> Ints:
    """Rows in falling order of score, each target once, by its best segment.

    Args:
        score: Of each segment, shape (n,); ties go to the lower row.
        target: Of each segment, shape (n,).
    """
    order = np.argsort(-score, kind="stable")
    first = np.unique(target[order], return_index=True)[1]
    return np.asarray(order[np.sort(first)])


def best_of_each(score: Floats, target: Strings) -> tuple[Strings, Floats]:
    """Targets in order of name, and the best score of each, shape (m,) each."""
    names, place = np.unique(target, return_inverse=True)
    best = np.full(len(names), -np.inf)
    np.maximum.at(best, place, score)
    return names, best


def rank_of(
    score: Floats, target: Strings, survey_score: Floats, survey_target: Strings
) -> NDArray[np.int64]:
    """Rank of each new curve among the other targets of a survey, 1 = first, (n,).

    A target counts once, by its best segment; the new curve's own target does not count.

    Args:
        score: Of the new curves, shape (n,).
        target: Theirs, shape (n,).
        survey_score: Of the survey's segments, shape (m,).
        survey_target: Theirs, shape (m,).
    """
    names, best = best_of_each(survey_score, survey_target)
    ordered = np.sort(best)
    above = len(ordered) - np.searchsorted(ordered, score, side="right")
    place = np.minimum(np.searchsorted(names, target), len(names) - 1)
    own_above = (names[place] == target) & (best[place] > score)
    return np.asarray(above - own_above + 1, np.int64)


def _unit(vectors: Floats | NDArray[np.float32]) -> Floats:
    wide = np.asarray(vectors, np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(norm > 0, norm, 1))
