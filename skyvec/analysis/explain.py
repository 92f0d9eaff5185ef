"""Why is this odd, and why are these two alike? In the words of the latent space itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import Latents

ORDINARY = 0.5
"""Objects less odd than this quantile count as ordinary."""


@dataclass(frozen=True)
class Direction:
    """One principal direction of all codes.

    Args:
        number: 0 for the widest direction.
        deviation: How far the object lies from the mean of all, in standard deviations.
        share: Of the squared deviation over all directions, in [0, 1].
        examples: Ids at the low and at the high end, so that a person can look what it means.
    """

    number: int
    deviation: float
    share: float
    examples: tuple[str, str]


@dataclass(frozen=True)
class WhyOdd:
    """An explanation of one oddity.

    Args:
        id: Of the object.
        similarity: To its k-th nearest other target.
        density_ratio: Mean distance to its k nearest over the same of those neighbours; 1 = as
            dense as around them, > 1 = lonelier.
        ordinary: Ids of the nearest ordinary objects.
        directions: Where it deviates most, strongest first.
    """

    id: str
    similarity: float
    density_ratio: float
    ordinary: list[str]
    directions: list[Direction]


@dataclass(frozen=True)
class WhyAlike:
    """An explanation of the similarity of two objects.

    Args:
        first: Id.
        second: Id.
        similarity: Cosine of the two codes.
        rank: Of the second among the neighbours of the first, 1 = nearest.
        directions: (number, contribution to the cosine), the largest first; they add up to it.
    """

    first: str
    second: str
    similarity: float
    rank: int
    directions: list[tuple[int, float]]


def why_odd(latents: Latents, id: str, *, k: int = 5, most: int = 3) -> WhyOdd:
    """Explain an oddity by its neighbours, its surroundings and the directions it stands out in.

    Args:
        latents: All codes.
        id: Of the object.
        k: Neighbours to compare with.
        most: How many ordinary objects and directions to name.

    Raises:
        KeyError: There is no such object.
        ValueError: There are no k other targets.
    """
    row = int(latents.rows([id])[0])
    unit = _unit(latents.vectors)
    similarity = _to_others(latents, unit, row)
    near = np.argsort(-similarity, kind="stable")[:k]
    if not np.isfinite(similarity[near[-1]]) or len(near) < k:
        raise ValueError(f"{id} has fewer than {k} other targets to be compared with")
    own = float(np.mean(1 - similarity[near]))
    around = []
    for neighbour in near:
        theirs = np.sort(_to_others(latents, unit, int(neighbour)))[::-1][:k]
        around.append(np.mean(1 - theirs[np.isfinite(theirs)]))
    kth = _kth_of_sample(latents, unit, k)
    ordinary = np.flatnonzero(kth[1] >= np.quantile(kth[1], ORDINARY))
    closest = kth[0][ordinary[np.argsort(-similarity[kth[0][ordinary]], kind="stable")]][:most]
    return WhyOdd(
        id,
        float(similarity[near[-1]]),
        own / max(float(np.mean(around)), 1e-12),
        [str(latents.id[i]) for i in closest],
        _directions(latents, row, most),
    )


def why_alike(latents: Latents, first: str, second: str, *, most: int = 5) -> WhyAlike:
    """Explain the similarity of two objects: the cosine as a sum over principal directions.

    Raises:
        KeyError: There is no such object.
    """
    a, b = (int(row) for row in latents.rows([first, second]))
    unit = _unit(latents.vectors)
    similarity = unit @ unit[a]
    _, axes = _axes(latents.vectors)
    parts = (axes @ unit[a]) * (axes @ unit[b])
    order = np.argsort(-np.abs(parts), kind="stable")[:most]
    rank = int((similarity[np.arange(len(unit)) != a] > similarity[b]).sum()) + 1
    return WhyAlike(
        first, second, float(parts.sum()), rank, [(int(i), float(parts[i])) for i in order]
    )


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norm > 0, norm, 1)


def _to_others(latents: Latents, unit: np.ndarray, row: int) -> NDArray[np.float64]:
    similarity = unit @ unit[row]
    return np.where(latents.target == latents.target[row], -np.inf, similarity)


def _kth_of_sample(latents: Latents, unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of an even sample of objects, and the similarity of each to its k-th other target."""
    rows = np.unique(np.linspace(0, len(unit) - 1, min(len(unit), 1000)).astype(int))
    similarity = unit[rows] @ unit.T
    similarity[latents.target[rows][:, None] == latents.target[None, :]] = -np.inf
    kth = -np.partition(-similarity, min(k, len(unit)) - 1, axis=1)[:, min(k, len(unit)) - 1]
    return rows, kth


def _axes(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviation along, and unit vectors of, the principal directions, widest first."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    variance, axes = np.linalg.eigh(centred.T @ centred / max(len(vectors) - 1, 1))
    return np.sqrt(np.clip(variance[::-1], 0, None)), axes[:, ::-1].T


def _directions(latents: Latents, row: int, most: int) -> list[Direction]:
    scale, axes = _axes(latents.vectors)
    along = (latents.vectors - latents.vectors.mean(axis=0)) @ axes.T
    used = scale > 1e-6 * scale[0]
    deviation = np.where(used, along[row] / np.where(used, scale, 1), 0.0)
    share = deviation**2 / max(float((deviation**2).sum()), 1e-12)
    return [
        Direction(
            int(i),
            float(deviation[i]),
            float(share[i]),
            (str(latents.id[along[:, i].argmin()]), str(latents.id[along[:, i].argmax()])),
        )
        for i in np.argsort(-share, kind="stable")[:most]
    ]
