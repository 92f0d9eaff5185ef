"""Why is this odd, and why are these two alike? In the words of the latent space itself."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from skyvec.analysis.neighbours import find_rows
from skyvec.index.exact import ExactIndex, distance, unit
from skyvec.schema import Floats, Ints, Latents

ORDINARY = 0.5
"""Objects less odd than this quantile of a sample count as ordinary."""

SAMPLE = 1000
"""Objects that say what is ordinary."""

WALK = 200
"""So many nearest objects are looked at for ordinary ones."""

FOLLOWS = 0.5
"""A rank correlation below this is not worth naming."""


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


class Shared(NamedTuple):
    """What one principal direction adds to the cosine of two codes.

    Args:
        number: 0 for the widest direction.
        part: Its term of the cosine; over all directions they add up to it.
        usual: The same for two objects at random.
    """

    number: int
    part: float
    usual: float


class Follows(NamedTuple):
    """What a direction follows: the name of a quantity, and Spearman's rank correlation."""

    name: str
    correlation: float


@dataclass(frozen=True)
class WhyOdd:
    """An explanation of one oddity.

    Args:
        id: Of the segment.
        similarity: Cosine to its k-th nearest other target.
        density_ratio: Mean of the neighbours' own distance to their k-th, over the segment's, as
            :func:`skyvec.analysis.outliers.outliers` gives it: about 1 = as dense as its
            surroundings, far below 1 = alone beside a dense group.
        odder: Share of a sample of all objects that are at least as odd, in [0, 1].
        ordinary: Ids of the nearest ordinary objects of other targets, nearest first.
        directions: Where it deviates most, strongest first.
        distance: Euclidean distance to its k-th nearest other target, where oddity is that; else
            NaN.
    """

    id: str
    similarity: float
    density_ratio: float
    odder: float
    ordinary: list[str]
    directions: list[Direction]
    distance: float = float("nan")


@dataclass(frozen=True)
class WhyAlike:
    """An explanation of the similarity of two objects.

    Args:
        first: Id.
        second: Id.
        similarity: Cosine of the two codes.
        rank: Of the second among the neighbours of the first, 1 = nearest.
        usual: Mean cosine of two objects at random.
        between: Ids of the objects of other targets that are most like both.
        directions: What makes them more alike than others, the most first.
    """

    first: str
    second: str
    similarity: float
    rank: int
    usual: float
    between: list[str]
    directions: list[Shared]


class Reasons:
    """What the codes of a survey are like on the whole; asked about one object after another.

    Args:
        latents: All codes. Those of zeros (no point in the model's bands) have no direction and
            are left out.
        k: Neighbours to compare with.
        far: Whether oddity is the Euclidean distance to the k-th nearest other target, as in
            :func:`skyvec.analysis.outliers.far_from_others`, instead of the cosine.

    Raises:
        ValueError: There are no k other targets.
    """

    def __init__(self, latents: Latents, *, k: int = 5, far: bool = False) -> None:
        self.latents = latents.take(np.any(latents.vectors != 0, axis=1))
        self._all, self.k = latents, k
        names, self._target = np.unique(self.latents.target, return_inverse=True)
        if not 1 <= k < len(names):
            raise ValueError(
                f"k must be between 1 and {len(names) - 1}, one less than there are targets, "
                f"not {k}"
            )
        self._index = ExactIndex(self.latents.vectors)
        self._unit = unit(self.latents.vectors)
        self._mean = self.latents.vectors.mean(axis=0, dtype=np.float64)
        self._square = (self.latents.vectors**2).sum(axis=1)
        self._scale, self._axes = _axes(self.latents.vectors, self._mean)
        rows = np.linspace(0, len(self.latents) - 1, min(len(self.latents), SAMPLE))
        self.sample = np.unique(rows.astype(np.int64))
        self.kth = self._to_kth(self.sample)
        self.far = far
        self.kth_away = self._away_to_kth(self.sample) if far else np.full(len(rows), np.nan)

    def row(self, name: str) -> int:
        """Row of a segment; of a target, that of its oddest segment.

        Raises:
            KeyError: There is no such segment or target.
            ValueError: It has no code.
        """
        found = find_rows(self._all, name)
        usable = np.flatnonzero(np.isin(self.latents.id, self._all.id[found]))
        if not len(usable):
            raise ValueError(f"{name} has no point in the model's bands, so there is no code")
        if self.far:
            return int(usable[np.argmax(self._away_to_kth(usable))])
        return int(usable[np.argmin(self._to_kth(usable))])

    def odd(self, name: str, *, most: int = 3) -> WhyOdd:
        """Explain an oddity by its neighbours, surroundings and the directions it stands out in.

        Args:
            name: Of a segment or target.
            most: How many ordinary objects and directions to name.
        """
        row = self.row(name)
        similarity, near = self._nearest(self.latents.vectors[row], self._target[row], self.k)
        own = float(distance(similarity[-1:])[0])
        around = float(distance(self._to_kth(near)).mean())
        away = float(self._away_to_kth(np.array([row]))[0]) if self.far else float("nan")
        odder = self.kth_away >= away if self.far else self.kth <= similarity[-1]
        return WhyOdd(
            str(self.latents.id[row]),
            float(similarity[-1]),
            around / own if own > 0 else 1.0,
            float(odder.mean()),
            self._near(row, most) if self.far else self._ordinary(row, most),
            self._directions(row, most),
            away,
        )

    def alike(self, first: str, second: str, *, most: int = 5) -> WhyAlike:
        """Explain the similarity of two objects: the cosine as a sum over principal directions.

        Args:
            first: A segment or target.
            second: Another.
            most: How many directions and objects in between to name.
        """
        a, b = self.row(first), self.row(second)
        one, other = self._unit[a].astype(np.float64), self._unit[b].astype(np.float64)
        similarity = self._unit @ self._unit[a]
        parts = (self._axes @ one) * (self._axes @ other)
        usual = (self._axes @ self._unit.mean(axis=0, dtype=np.float64)) ** 2
        order = np.argsort(usual - parts, kind="stable")[:most]
        rank = int((similarity[np.arange(len(similarity)) != a] > similarity[b]).sum()) + 1
        return WhyAlike(
            str(self.latents.id[a]),
            str(self.latents.id[b]),
            float(one @ other),
            rank,
            float(usual.sum()),
            self._between(a, b, min(most, 3)),
            [Shared(int(i), float(parts[i]), float(usual[i])) for i in order],
        )

    def similarity(self, code: Floats, target: str) -> float:
        """Cosine of any code to the k-th nearest target but one of that name, or none."""
        number = np.flatnonzero(self.latents.target == target)
        own = int(self._target[number[0]]) if len(number) else -1
        return float(self._nearest(code, own, self.k)[0][-1])

    def distance(self, code: Floats, target: str) -> float:
        """Euclidean distance of any code to the k-th nearest target but one of that name."""
        number = np.flatnonzero(self.latents.target == target)
        own = int(self._target[number[0]]) if len(number) else -1
        return float(self._nearest_away(code, own, self.k)[0][-1])

    def follow(self, columns: dict[str, NDArray]) -> dict[int, Follows]:
        """Name what each direction follows most, where anything at all.

        Args:
            columns: Numbers of the objects of ``sample`` by name, NaN = unknown, shape (m,) each.

        Returns:
            By number of the direction: the quantity of the highest rank correlation, if |rho| is
            at least 0.5 over 30 objects or more.
        """
        along = (self.latents.vectors[self.sample] - self._mean) @ self._axes.T
        found: dict[int, Follows] = {}
        for name, column in columns.items():
            known = np.isfinite(column)
            if known.sum() < 30 or np.ptp(column[known]) == 0:
                continue
            ranks = stats.rankdata(column[known])
            for i in np.flatnonzero(self._scale > 1e-6 * self._scale[0]):
                if np.ptp(along[known, i]) == 0:
                    continue
                rho = float(np.corrcoef(stats.rankdata(along[known, i]), ranks)[0, 1])
                if abs(rho) >= FOLLOWS and abs(rho) > abs(found.get(int(i), (name, 0.0))[1]):
                    found[int(i)] = Follows(name, rho)
        return found

    def _nearest(self, code: Floats, own: int, k: int) -> tuple[Floats, Ints]:
        """Cosine and row of the nearest segment of each of the k nearest targets but one."""
        room = k + 2
        while True:
            score, found = self._index.search(code[None], min(room, len(self.latents)))
            others = found[0][self._target[found[0]] != own]
            first = np.sort(np.unique(self._target[others], return_index=True)[1])[:k]
            if len(first) == k or room >= len(self.latents):
                rows = others[first]
                return score[0][np.isin(found[0], rows)], rows
            room *= 4

    def _to_kth(self, rows: Ints) -> Floats:
        """Cosine of each row to its k-th nearest other target, (m,)."""
        vectors, room = self.latents.vectors, min(self.k + 2, len(self.latents))
        result = np.empty(len(rows))
        score, found = self._index.search(vectors[rows], room)
        for i, row in enumerate(rows):
            target = self._target[found[i]]
            first = np.sort(np.unique(target, return_index=True)[1])
            first = first[target[first] != self._target[row]][: self.k]
            # with many segments of one target around it, it is asked again alone
            enough = len(first) == self.k
            result[i] = (
                score[i, first[-1]]
                if enough
                else self._nearest(vectors[row], self._target[row], self.k)[0][-1]
            )
        return result

    def _nearest_away(self, code: Floats, own: int, k: int) -> tuple[Floats, Ints]:
        """Distance and row of the nearest segment of each of the k nearest targets but one."""
        vectors, code = self.latents.vectors, code.astype(np.float32)
        away = self._square - 2 * (vectors @ code)  # orders as the distance does
        away[self._target == own] = np.inf
        room = k
        while True:
            near = np.argpartition(away, min(room, len(away) - 1))[: room + 1]
            near = near[np.argsort(away[near], kind="stable")]
            first = np.sort(np.unique(self._target[near], return_index=True)[1])[:k]
            if len(first) == k or room >= len(away):
                rows = near[first]
                return np.linalg.norm(vectors[rows].astype(np.float64) - code, axis=1), rows
            room *= 4

    def _away_to_kth(self, rows: Ints) -> Floats:
        """Euclidean distance of each row to its k-th nearest other target, (m,)."""
        vectors = self.latents.vectors
        return np.array(
            [self._nearest_away(vectors[i], int(self._target[i]), self.k)[0][-1] for i in rows]
        )

    def _near(self, row: int, most: int) -> list[str]:
        """The nearest objects by distance that are less odd than most."""
        limit = np.quantile(self.kth_away, ORDINARY)
        walk = min(WALK, int(self._target.max()))
        own = int(self._target[row])
        near = self._nearest_away(self.latents.vectors[row], own, walk)[1]
        found: list[int] = []
        for i in near:
            if len(found) < most and self._away_to_kth(np.array([i]))[0] <= limit:
                found.append(int(i))
        if not found:
            plain = self.sample[(self.kth_away <= limit) & (self._target[self.sample] != own)]
            away = np.linalg.norm(self.latents.vectors[plain] - self.latents.vectors[row], axis=1)
            found = plain[np.argsort(away, kind="stable")[:most]].tolist()
        return [str(self.latents.id[i]) for i in found]

    def _ordinary(self, row: int, most: int) -> list[str]:
        """The nearest objects that are less odd than most; from the sample if none is near."""
        limit = np.quantile(self.kth, ORDINARY)
        most_targets = int(self._target.max())
        near = self._nearest(
            self.latents.vectors[row], self._target[row], min(WALK, most_targets)
        )[1]
        found = near[self._to_kth(near) >= limit][:most].tolist()
        if not found:
            plain = self.sample[self.kth >= limit]
            plain = plain[self._target[plain] != self._target[row]]
            closest = np.argsort(-(self._unit[plain] @ self._unit[row]), kind="stable")[:most]
            found = plain[closest].tolist()
        return [str(self.latents.id[i]) for i in found]

    def _between(self, a: int, b: int, most: int) -> list[str]:
        to_both = np.minimum(self._unit @ self._unit[a], self._unit @ self._unit[b])
        to_both[np.isin(self._target, self._target[[a, b]])] = -np.inf
        order = np.argsort(-to_both, kind="stable")
        first = np.sort(np.unique(self._target[order], return_index=True)[1])
        chosen = [i for i in order[first] if np.isfinite(to_both[i])][:most]
        return [str(self.latents.id[i]) for i in chosen]

    def _directions(self, row: int, most: int) -> list[Direction]:
        used = self._scale > 1e-6 * self._scale[0]
        own = self._axes @ (self.latents.vectors[row] - self._mean)
        deviation = np.where(used, own / np.where(used, self._scale, 1), 0.0)
        share = deviation**2 / max(float((deviation**2).sum()), 1e-12)
        found = []
        for i in np.argsort(-share, kind="stable")[:most]:
            along = self.latents.vectors @ self._axes[i].astype(np.float32)
            ends = str(self.latents.id[along.argmin()]), str(self.latents.id[along.argmax()])
            found.append(Direction(int(i), float(deviation[i]), float(share[i]), ends))
        return found


def why_odd(latents: Latents, id: str, *, k: int = 5, most: int = 3) -> WhyOdd:
    """Explain one oddity; ask :class:`Reasons` for several."""
    return Reasons(latents, k=k).odd(id, most=most)


def why_alike(latents: Latents, first: str, second: str, *, most: int = 5) -> WhyAlike:
    """Explain the similarity of two objects; ask :class:`Reasons` for several."""
    return Reasons(latents, k=1).alike(first, second, most=most)


def _axes(
    vectors: NDArray[np.float32], mean: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviation along, and unit vectors of, the principal directions, widest first."""
    centred = vectors.astype(np.float64) - mean
    variance, axes = np.linalg.eigh(centred.T @ centred / max(len(vectors) - 1, 1))
    return np.sqrt(np.clip(variance[::-1], 0, None)), axes[:, ::-1].T
