"""Does the code follow what it should not? Distance against noise, sampling, camera and place.

If the nearest neighbours of an object tell its magnitude, its number of points or its camera, then
the code carries that nuisance, and clusters and oddities may be made of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from skyvec.schema import Latents

NEIGHBOURS = 10
SHUFFLES = 20


@dataclass(frozen=True)
class Nuisance:
    """How far neighbours in the code tell one nuisance.

    Args:
        name: Of the column.
        kind: ``number`` or ``class``.
        told: For a number, the share of the variance of its rank that the mean rank of the
            neighbours explains; for a class, the balanced accuracy of the neighbours' majority
            beyond chance, (accuracy - 1/c) / (1 - 1/c). 0 = nothing, 1 = all.
        by_chance: 95th percentile of the same for shuffled values.
        n: Objects that have a value.
    """

    name: str
    kind: str
    told: float
    by_chance: float
    n: int

    @property
    def is_carried(self) -> bool:
        """Whether the neighbours tell more than chance does."""
        return self.told > self.by_chance


def audit(
    latents: Latents,
    columns: dict[str, NDArray],
    rng: np.random.Generator,
    *,
    k: int = NEIGHBOURS,
    most: int = 5000,
) -> list[Nuisance]:
    """Ask of each column how much of it the neighbours in the code tell.

    Args:
        latents: Codes; neighbours of the same target are left out.
        columns: Nuisances by name, shape (n,) each: numbers (NaN = unknown) or strings.
        rng: Chooses the objects and shuffles.
        k: Neighbours to ask.
        most: Objects to ask about, drawn at random.

    Returns:
        One row a column, the most told first; columns with fewer than 50 values or a single value
        are left out.
    """
    norm = np.linalg.norm(latents.vectors, axis=1, keepdims=True)
    unit = latents.vectors / np.where(norm > 0, norm, 1)
    rows = []
    for name, values in columns.items():
        known = values != "" if values.dtype.kind == "U" else np.isfinite(_number(values))
        chosen = np.flatnonzero(known)
        if len(chosen) > most:
            chosen = np.sort(rng.choice(chosen, most, replace=False))
        if len(chosen) < 50 or len(np.unique(values[chosen])) < 2:
            continue
        neighbours = _other_targets(unit[chosen], latents.target[chosen], k)
        rows.append(_nuisance(name, values[chosen], neighbours, rng))
    return sorted(rows, key=lambda row: row.by_chance - row.told)


def _number(values: NDArray) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _other_targets(unit: np.ndarray, target: np.ndarray, k: int) -> list[np.ndarray]:
    """The k nearest rows of other targets for each row."""
    sizes = np.unique(target, return_counts=True)[1]
    reach = min(len(unit), k + int(sizes.max()))
    found = NearestNeighbors(n_neighbors=reach).fit(unit).kneighbors(unit, return_distance=False)
    return [row[target[row] != target[i]][:k] for i, row in enumerate(found)]


def _nuisance(
    name: str, values: NDArray, neighbours: list[np.ndarray], rng: np.random.Generator
) -> Nuisance:
    is_class = values.dtype.kind in "Ub" or (
        values.dtype.kind in "iu" and len(np.unique(values)) <= 12
    )
    measure = _class_told if is_class else _number_told
    coded = (
        np.unique(values, return_inverse=True)[1]
        if is_class
        else np.argsort(np.argsort(_number(values))).astype(np.float64)
    )
    null = [measure(rng.permutation(coded), neighbours) for _ in range(SHUFFLES)]
    kind = "class" if is_class else "number"
    told = max(0.0, measure(coded, neighbours))
    return Nuisance(name, kind, told, max(0.0, float(np.percentile(null, 95))), len(values))


def _number_told(ranks: np.ndarray, neighbours: list[np.ndarray]) -> float:
    usable = [i for i, row in enumerate(neighbours) if len(row)]
    guess = np.array([ranks[neighbours[i]].mean() for i in usable])
    truth = ranks[usable]
    correlation = np.corrcoef(guess, truth)[0, 1] if np.ptp(guess) > 0 else 0.0
    return float(max(correlation, 0.0) ** 2)


def _class_told(codes: np.ndarray, neighbours: list[np.ndarray]) -> float:
    n_classes = int(codes.max()) + 1
    right, count = np.zeros(n_classes), np.zeros(n_classes)
    for i, row in enumerate(neighbours):
        if len(row):
            right[codes[i]] += np.bincount(codes[row], minlength=n_classes).argmax() == codes[i]
            count[codes[i]] += 1
    balanced = float((right[count > 0] / count[count > 0]).mean())
    chance = 1 / n_classes
    return (balanced - chance) / (1 - chance)
