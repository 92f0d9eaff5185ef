"""Does the code follow what it should not? Distance against noise, sampling, camera and place.

If the nearest neighbours of an object tell its magnitude, its number of points or its camera, then
the code carries that nuisance, and clusters and oddities may be made of it. Not all that is told
is a fault: bright stars are of other kinds than faint ones. Where kinds are known, what they alone
would tell is measured beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skyvec.index.exact import ExactIndex
from skyvec.schema import Floats, Ints, Latents, Strings

NEIGHBOURS = 10
SHUFFLES = 999
RESAMPLES = 1000
LEAST = 50
"""Objects with a value below which nothing is said of it."""

CLASSES = 12
"""Whole numbers with at most so many different values are classes, such as cameras."""

MEMBERS = 5
"""Classes with fewer members on average are names, and not asked about."""

LEVEL = 0.05
"""What is told by chance with a lower probability, all columns considered, counts as carried."""


@dataclass(frozen=True)
class Nuisance:
    """How far neighbours in the code tell one nuisance.

    Args:
        name: Of the column.
        kind: ``number``, ``class`` or ``place``.
        told: For a number, the share of the variance of its rank that the mean rank of the
            neighbours explains (r^2); for a place, the same of its vector; for a class, how much
            more often neighbours share it than chance would have it, over the most they could
            (assortativity). 0 = nothing, 1 = all.
        low: Lower end of its 95 % interval (bootstrap over the objects).
        high: Upper end.
        by_chance: 95th percentile of the same for shuffled values.
        p: Share of the shuffled that tell as much, at least 1 / 1000.
        p_holm: The same, for as many columns as were asked about (Holm).
        by_kind: Mean of the same where values are shuffled within each kind of object only: what
            the kinds alone tell. NaN where no kinds were given.
        p_beyond: Share of those that tell as much; low = it is carried beyond the kinds.
        n: Objects that have a value.
    """

    name: str
    kind: str
    told: float
    low: float
    high: float
    by_chance: float
    p: float
    p_holm: float
    by_kind: float
    p_beyond: float
    n: int

    @property
    def is_carried(self) -> bool:
        """Whether the neighbours tell more than chance does."""
        return self.p_holm < LEVEL


def audit(
    latents: Latents,
    columns: dict[str, NDArray],
    rng: np.random.Generator,
    *,
    k: int = NEIGHBOURS,
    most: int = 5000,
    kinds: Strings | None = None,
) -> list[Nuisance]:
    """Ask of each column how much of it the neighbours in the code tell.

    One segment of each target is asked, drawn at random: two segments of a star are alike and
    share its magnitude, and would make anything look carried.

    Args:
        latents: Codes; those of zeros are left out.
        columns: Nuisances by name, shape (n,) each: numbers (NaN = unknown) or strings (empty =
            unknown); or directions, shape (n, 3), NaN where unknown.
        rng: Chooses the objects and shuffles.
        k: Neighbours to ask.
        most: Objects to ask about, drawn at random.
        kinds: Known class of each segment, an empty string where unknown, shape (n,).

    Returns:
        One row a column, the most told beyond chance first; columns with fewer than 50 values, a
        single value, or hardly two objects of a class are left out.

    References:
        Newman, 2003, Phys. Rev. E 67, 026126 (assortativity). Holm, 1979, Scand. J. Stat. 6, 65.
    """
    chosen = draw_targets(latents, rng, most)
    if kinds is not None:
        chosen = chosen[kinds[chosen] != ""]
    neighbours: dict[bytes, Ints] = {}
    rows = []
    for name, column in columns.items():
        values = column[chosen]
        known = _known(values)
        values, own = values[known], chosen[known]
        if len(own) < max(LEAST, k + 2) or not _asked(values):
            continue
        key = known.tobytes()
        if key not in neighbours:
            neighbours[key] = nearest_others(latents.vectors[own], k)
        of_kind = None if kinds is None else np.unique(kinds[own], return_inverse=True)[1]
        rows.append(_nuisance(name, values, neighbours[key], of_kind, rng))
    return sorted(_holm(rows), key=lambda row: row.by_chance - row.told)


def draw_targets(latents: Latents, rng: np.random.Generator, most: int) -> Ints:
    """Rows of at most so many targets, a segment of each, drawn at random; ascending."""
    usable = rng.permutation(np.flatnonzero(np.any(latents.vectors != 0, axis=1)))
    first = np.sort(np.unique(latents.target[usable], return_index=True)[1])
    return np.sort(usable[first][:most])


def nearest_others(vectors: Floats, k: int) -> Ints:
    """The k nearest of the others by cosine, for each vector, shape (n, k)."""
    found = ExactIndex(vectors).search(vectors, k + 1)[1]
    itself = found == np.arange(len(vectors))[:, None]
    # stable: itself goes to the end, or where copies have displaced it the last one does
    order = np.argsort(itself, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1)


def _known(values: NDArray) -> NDArray[np.bool_]:
    if values.dtype.kind == "U":
        return np.asarray(values != "")
    finite = np.isfinite(np.asarray(values, np.float64))
    return np.asarray(finite if values.ndim == 1 else finite.all(axis=1))


def _asked(values: NDArray) -> bool:
    different = len(np.unique(values, axis=0))
    return different > 1 and (not _is_class(values) or len(values) >= MEMBERS * different)


def _is_class(values: NDArray) -> bool:
    few = values.dtype.kind in "iu" and len(np.unique(values)) <= CLASSES
    return values.ndim == 1 and (values.dtype.kind in "Ub" or few)


def _holm(rows: list[Nuisance]) -> list[Nuisance]:
    """Correct p for the number of questions: the i-th smallest of m counts m - i times."""
    ordered = sorted(rows, key=lambda row: row.p)
    corrected, highest = [], 0.0
    for i, row in enumerate(ordered):
        highest = max(highest, min(1.0, row.p * (len(rows) - i)))
        corrected.append(replace(row, p_holm=highest))
    return corrected


def _nuisance(
    name: str, values: NDArray, neighbours: Ints, of_kind: Ints | None, rng: np.random.Generator
) -> Nuisance:
    kind = "class" if _is_class(values) else "number" if values.ndim == 1 else "place"
    parts: Callable[[NDArray, Ints], NDArray[np.float64]]
    if kind == "class":
        coded, parts, told_by = np.unique(values, return_inverse=True)[1], _class_parts, _ratio
    else:
        coded = values.astype(np.float64)
        coded = np.argsort(np.argsort(coded))[:, None] if kind == "number" else coded
        coded, parts, told_by = coded - coded.mean(axis=0), _number_parts, _r_squared

    def told(shuffled: NDArray) -> float:
        return float(told_by(parts(shuffled, neighbours).sum(axis=0)))

    own = parts(coded, neighbours)
    value = float(told_by(own.sum(axis=0)))
    weight = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), RESAMPLES)
    low, high = np.percentile([told_by(row) for row in weight @ own], [2.5, 97.5])
    null = np.array([told(rng.permutation(coded)) for _ in range(SHUFFLES)])
    by_kind = p_beyond = float("nan")
    if of_kind is not None:
        within = [told(coded[_shuffle_within(of_kind, rng)]) for _ in range(SHUFFLES)]
        by_kind, p_beyond = float(np.mean(within)), _p(value, np.array(within))
    by_chance = float(np.percentile(null, 95))
    p = _p(value, null)
    return Nuisance(name, kind, value, low, high, by_chance, p, p, by_kind, p_beyond, len(values))


def _p(value: float, null: NDArray[np.float64]) -> float:
    return float((1 + (null >= value).sum()) / (1 + len(null)))


def _shuffle_within(group: Ints, rng: np.random.Generator) -> Ints:
    """A permutation that leaves every row in its group, (n,)."""
    result = np.empty(len(group), np.int64)
    # both orders go through the groups one after another, the second at random within each
    result[np.argsort(group, kind="stable")] = np.lexsort((rng.random(len(group)), group))
    return result


def _number_parts(values: NDArray, neighbours: Ints) -> NDArray[np.float64]:
    """What each object adds to the sums that a correlation is made of, (n, 3 + 2 c)."""
    guess = values[neighbours].mean(axis=1)
    products = (guess * values).sum(axis=1), (guess**2).sum(axis=1), (values**2).sum(axis=1)
    return np.column_stack([*products, np.ones(len(values)), guess, values])


def _r_squared(sums: NDArray[np.float64]) -> float:
    """Squared correlation of guess and truth, over all components together; 0 where negative."""
    c = (len(sums) - 4) // 2
    guess, truth = sums[4 : 4 + c], sums[4 + c :]
    covariance, of_guess, of_truth = (
        sums[:3] - np.array([guess @ truth, guess @ guess, truth @ truth]) / sums[3]
    )
    if covariance <= 0 or of_guess <= 0 or of_truth <= 0:
        return 0.0
    return float(covariance**2 / (of_guess * of_truth))


def _class_parts(codes: NDArray, neighbours: Ints) -> NDArray[np.float64]:
    """Shared with the neighbours beyond chance, and the most that could be, (n, 2)."""
    n = len(codes)
    chance = (np.bincount(codes)[codes] - 1) / (n - 1)
    shared = (codes[neighbours] == codes[:, None]).mean(axis=1)
    return np.column_stack([shared - chance, 1 - chance])


def _ratio(sums: NDArray[np.float64]) -> float:
    return max(0.0, float(sums[0] / sums[1])) if sums[1] > 0 else 0.0
