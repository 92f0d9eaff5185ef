"""Injection and recovery: what fraction of a signal nobody has seen yet would a search find?

A signal is put into real curves, one at a time; each is encoded and takes its place among the
codes of the whole survey. Three searches then look for it: the directed search in the codes, box
least squares, and matched filters in the time domain.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import beta

from skyvec.analysis.directed import Contrast, rank_of
from skyvec.analysis.matched import FLAT, Bank, SecondLook, filtered, median_span
from skyvec.checkpoint import Checkpoint
from skyvec.encode import encode_curves
from skyvec.schema import Floats, LightCurves, Strings
from skyvec.sim.signals import (
    Drawable,
    Signal,
    cloud_in,
    inject,
    relative_noise,
)
from skyvec.studies.rivals import box_least_squares

KTH = 5
"""Oddness is the similarity to this neighbour, as in the list of outliers."""

ODDEST = 20
"""Length of the list of oddities that a person looks through."""

DOMINANT = 0.8
"""A signal that makes more than this share of a curve's variance is the chief thing in it: neither
lost in a gap, nor small beside what the star does of itself."""

DEPTH = "depth"
"""Axis of the grid: depth over the point-to-point noise of the host."""


@dataclass(frozen=True)
class Share:
    """A fraction with its 95 % interval (Clopper & Pearson 1934, Biometrika 26, 404)."""

    value: float
    low: float
    high: float


def share(hits: int, n: int) -> Share:
    """Give hits / n with its exact binomial 95 % interval."""
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n} is no fraction")
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return Share(hits / n, low, high)


SHARES = (
    "directed",
    "checked",
    "box",
    "matched",
    "top_percent",
    "top_dominant",
    "checked_dominant",
    "oddest",
)


@dataclass(frozen=True)
class Cell:
    """Recovery of one signal at one place of the grid.

    Args:
        signal: As it was injected.
        depth: Depth over the point-to-point noise of the host.
        place: The other axes of the grid by name, such as ``period`` [day].
        n: Injections.
        directed: Share found among the first k targets of the directed search.
        checked: The same after a second look at the curves
            (:class:`skyvec.analysis.matched.SecondLook`); None where the filters were not run.
        box: The same for box least squares on flattened curves; None where it was not run.
        matched: The same for matched filters of known shape, on raw or on flattened curves,
            whichever finds more; None where they were not run.
        top_percent: Share in the first percent of the directed search: with at most one in a
            hundred of the other targets before them.
        dominant: How many of the injections make more than ``DOMINANT`` of their curve's variance.
        top_dominant: Share of these among the first percent; None where there are none.
        checked_dominant: The same after a second look.
        median_rank: Median rank in the directed search, 1 = first.
        oddest: Share among the ``ODDEST`` oddest targets.
        odd_rank: Median rank in the list of oddities, 1 = oddest.
        targets: How many targets are ranked.
    """

    signal: str
    depth: float
    place: dict[str, float]
    n: int
    directed: Share
    checked: Share | None
    box: Share | None
    matched: Share | None
    top_percent: Share
    dominant: int
    top_dominant: Share | None
    checked_dominant: Share | None
    median_rank: float
    oddest: Share
    odd_rank: float
    targets: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which :meth:`from_json` makes the same cell again."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Cell":
        """Make a cell of what :meth:`to_json` gave."""
        shares = {
            name: None if content[name] is None else Share(**content[name]) for name in SHARES
        }
        return cls(**{**content, **shares})


@dataclass(frozen=True)
class Field:
    """The survey that hides the signal: its curves, their codes and their classical scores.

    Args:
        curves: Of the survey, n.
        target: Object of each; other segments of a host's target never compete with it.
        vectors: Their codes, shape (n, d).
        oddness: Similarity to the KTH nearest other target, shape (n,); low = odd.
        box: Box least squares of each; None where it is not to be run.
        periods: Trial periods [day].
        durations: Trial durations [day].
    """

    curves: LightCurves
    target: Strings
    vectors: NDArray[np.float32]
    oddness: Floats
    box: Floats | None
    periods: NDArray[np.float64]
    durations: NDArray[np.float64]


def survey_field(
    checkpoint: Checkpoint,
    curves: LightCurves,
    target: Strings | None = None,
    *,
    box: bool = True,
    trials: int = 1000,
) -> Field:
    """Encode a survey's curves and score them by box least squares, once for all signals.

    Args:
        checkpoint: The encoder.
        curves: Any number of curves a target.
        target: Object of each curve, shape (n,); each its own by default.
        box: Whether to run box least squares, which is slow.
        trials: How many trial periods, even in frequency: 1,000 follow a transit of 0.1 d with a
            period of 5 d through a month.
    """
    names = curves.id if target is None else target
    vectors = _unit(encode_curves(checkpoint, curves)[0])
    span = median_span(curves)
    periods = 1 / np.linspace(2 / span, 1 / 0.8, trials)
    durations = np.array([0.08, 0.16, 0.32])
    scores = box_least_squares(curves, periods, durations, flat=FLAT) if box else None
    oddness = _oddness(vectors, names, vectors, names)
    return Field(curves, names, vectors, oddness, scores, periods, durations)


def choose_hosts(field: Field, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of the field to inject into: one segment of each of n targets, at random.

    Raises:
        ValueError: Fewer than n + 2 targets have a curve of ten points; the search needs others.
    """
    usable = rng.permutation(np.flatnonzero(field.curves.lengths >= 10))
    rows = usable[np.sort(np.unique(field.target[usable], return_index=True)[1])]
    if len(rows) < n + 2:
        raise ValueError(
            f"{n} injections need at least {n + 2} objects with ten points, the survey has "
            f"{len(rows)}; ask for fewer injections"
        )
    return np.sort(rows[:n])


def grid_places(grid: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Every place of a grid, depth running fastest; axes in the order given.

    Raises:
        ValueError: No axis ``depth``, an empty axis, or a depth that is not > 0.
    """
    if DEPTH not in grid:
        raise ValueError(f"the grid needs an axis {DEPTH!r}, such as {DEPTH}=10,30,100")
    for name, values in grid.items():
        if not len(values):
            raise ValueError(f"the axis {name!r} of the grid is empty")
    if not all(depth > 0 for depth in grid[DEPTH]):
        raise ValueError(f"depths must be > 0 noises, not {list(grid[DEPTH])}")
    others = {name: list(values) for name, values in grid.items() if name != DEPTH}
    return [
        {**dict(zip(others, place)), DEPTH: float(depth)}
        for place in product(*others.values())
        for depth in grid[DEPTH]
    ]


def check_grid(signal: Drawable, grid: Mapping[str, Sequence[float]]) -> None:
    """Make sure that the signal takes what the grid varies.

    Raises:
        ValueError: It does not, or the grid is none.
    """
    for name in set(grid) - {DEPTH}:
        if not isinstance(signal, Signal):
            raise ValueError(f"a light curve has no {name!r} to vary; only {DEPTH!r}")
        Signal(signal.kind, {**signal.parameters, name: float(grid[name][0])})
    grid_places(grid)


def recover(
    checkpoint: Checkpoint,
    field: Field,
    signal: Drawable,
    hosts: NDArray[np.int64],
    grid: Mapping[str, Sequence[float]],
    *,
    seed: int = 0,
    k: int = 10,
    draws: int = 256,
    matched: bool = True,
    known: Callable[[int], Cell | None] | None = None,
) -> Iterator[tuple[int, Cell]]:
    """Inject a signal into hosts at each place of a grid and look for it in the whole field.

    For each injection the host's own target is replaced by the injected curve; its rank is one
    plus the number of other targets that answer better. The query knows the signal but not the
    stars: draws of it injected into other objects of the survey (never into a host's target), of
    many depths, held against the survey (:class:`skyvec.analysis.directed.Contrast`).

    Each cell draws from (seed, its number) alone, so a resumed study ends as an uninterrupted one.

    Args:
        checkpoint: The encoder that made the field.
        field: The survey.
        signal: What is injected and asked for; what it leaves free is drawn anew each time.
        hosts: Rows of the field that receive the signal.
        grid: Values by axis: ``depth`` and any numeric parameter of the signal.
        seed: Of every draw.
        k: A signal among the first k targets counts as found.
        draws: Members of the query's cloud.
        matched: Whether to run the matched filters.
        known: Gives a cell that is there already, by its number.

    Yields:
        Number and cell, one after the other, those known included.
    """
    check_grid(signal, grid)
    places = grid_places(grid)
    searched: _Searched | None = None
    for number, place in enumerate(places):
        if known is not None and (cell := known(number)) is not None:
            yield number, cell
            continue
        fixed = {name: value for name, value in place.items() if name != DEPTH}
        asked = signal
        if fixed and isinstance(signal, Signal):
            asked = Signal(signal.kind, {**signal.parameters, **fixed})
        first = number - number % len(grid[DEPTH])
        if searched is None or searched.number != first:
            rng = np.random.default_rng([seed, 1, first])
            searched = _Searched(checkpoint, field, asked, hosts, rng, draws, matched, first)
        yield (
            number,
            _one_cell(
                checkpoint,
                field,
                searched,
                hosts,
                np.random.default_rng([seed, 2, number]),
                place[DEPTH],
                fixed,
                k,
            ),
        )


class _Searched:
    """The field as seen by the searches for one signal; the same for all depths."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        field: Field,
        signal: Drawable,
        hosts: NDArray[np.int64],
        rng: np.random.Generator,
        draws: int,
        matched: bool,
        number: int,
    ) -> None:
        self.signal, self.number = signal, number
        others = np.flatnonzero(
            ~np.isin(field.target, field.target[hosts]) & (field.curves.lengths >= 10)
        )
        lenders = field.curves.take(others)
        drawn, rows = cloud_in(lenders, signal, rng, draws=draws, as_written=False)
        codes = encode_curves(checkpoint, drawn)[0]
        targets = field.target[others[rows]]
        self.contrast = Contrast(codes, targets, field.vectors, field.target)
        self.directed = self.contrast.score(field.vectors, field.target)
        self.bank: Bank | None = None
        if matched:
            self.bank = Bank(signal, median_span(field.curves), rng)
            self.matched = filtered(field.curves, self.bank)
            own = self.contrast.score(codes, targets)
            self.second = SecondLook(own, filtered(drawn, self.bank), self.directed, self.matched)
            self.checked = self.second.odds(self.directed, self.matched)


def _one_cell(
    checkpoint: Checkpoint,
    field: Field,
    searched: _Searched,
    hosts: NDArray[np.int64],
    rng: np.random.Generator,
    depth: float,
    place: dict[str, float],
    k: int,
) -> Cell:
    stars, target = field.curves.take(hosts), field.target[hosts]
    noise = np.maximum(relative_noise(stars), 1e-9)
    injected, _ = inject(stars, searched.signal, rng, depth=depth * noise)
    codes = _unit(encode_curves(checkpoint, injected)[0])
    n, n_targets = len(hosts), len(np.unique(field.target))

    def ranks(score: Floats, everyone: Floats) -> NDArray[np.int64]:
        return rank_of(score, target, everyone, field.target)

    def found(score: Floats, everyone: Floats) -> int:
        return int((ranks(score, everyone) <= k).sum())

    score = searched.contrast.score(codes, target)
    place_directed = ranks(score, searched.directed)
    first_percent = 1 + (n_targets - 1) // 100
    is_chief = variance_share(stars, injected) > DOMINANT

    def chief_share(place: NDArray[np.int64]) -> Share | None:
        hits, chief = int((place[is_chief] <= first_percent).sum()), int(is_chief.sum())
        return share(hits, chief) if chief else None

    odd = ranks(-_oddness(codes, target, field.vectors, field.target), -field.oddness)
    box = None
    if field.box is not None:
        scores = box_least_squares(injected, field.periods, field.durations, flat=FLAT)
        box = share(found(scores, field.box), n)
    matched = checked = checked_dominant = None
    if searched.bank is not None:
        snr = filtered(injected, searched.bank)
        hits = [found(snr[:, column], searched.matched[:, column]) for column in (0, 1)]
        matched = share(max(hits), n)
        place_checked = ranks(searched.second.odds(score, snr), searched.checked)
        checked = share(int((place_checked <= k).sum()), n)
        checked_dominant = chief_share(place_checked)
    return Cell(
        str(searched.signal),
        depth,
        place,
        n,
        share(int((place_directed <= k).sum()), n),
        checked,
        box,
        matched,
        share(int((place_directed <= first_percent).sum()), n),
        int(is_chief.sum()),
        chief_share(place_directed),
        checked_dominant,
        float(np.median(place_directed)),
        share(int((odd <= ODDEST).sum()), n),
        float(np.median(odd)),
        n_targets,
    )


def variance_share(before: LightCurves, after: LightCurves) -> Floats:
    """Variance that was put into each curve over that and its own, as sampled, (n,); 0 for none.

    Args:
        before: Curves, n.
        after: The same with something added.
    """
    result = np.zeros(len(before))
    for i in np.flatnonzero(before.lengths > 1):
        part = slice(before.offsets[i], before.offsets[i + 1])
        own = before.flux[part].astype(np.float64)
        added = float(np.var(after.flux[part] - own))
        result[i] = added / max(added + float(np.var(own)), 1e-300)
    return result


def _oddness(
    vectors: NDArray[np.float32],
    target: Strings,
    others: NDArray[np.float32],
    other_target: Strings,
) -> Floats:
    """Similarity to the KTH most similar other target, (n,); low = odd. Blocked."""
    names, place = np.unique(other_target, return_inverse=True)
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], np.arange(len(names)))
    own = np.searchsorted(names, target)
    result = np.empty(len(vectors))
    kth = min(KTH, len(names) - 1)
    for start in range(0, len(vectors), 1024):
        rows = np.arange(start, min(start + 1024, len(vectors)))
        best = np.maximum.reduceat(vectors[rows] @ others[order].T, first, axis=1)
        best[np.arange(len(rows)), np.minimum(own[rows], len(names) - 1)] = -np.inf
        result[rows] = -np.partition(-best, kth - 1, axis=1)[:, kth - 1]
    return result


def completeness(cells: Sequence[Cell]) -> pa.Table:
    """Lay cells out as a table: one row each, the intervals of every share beside it.

    Columns signal, depth, the grid's other axes, n, targets, dominant, then for each of ``SHARES``
    the share and its ``_low`` and ``_high`` (NaN
    where there is none), ``median_rank`` and ``odd_rank``.
    """
    columns: dict[str, list[Any]] = {
        "signal": [cell.signal for cell in cells],
        "depth": [cell.depth for cell in cells],
    }
    for name in cells[0].place if cells else ():
        columns[name] = [cell.place[name] for cell in cells]
    columns["n"] = [cell.n for cell in cells]
    columns["targets"] = [cell.targets for cell in cells]
    columns["dominant"] = [cell.dominant for cell in cells]
    for name in SHARES:
        shares = [getattr(cell, name) or Share(np.nan, np.nan, np.nan) for cell in cells]
        columns[name] = [one.value for one in shares]
        columns[f"{name}_low"] = [one.low for one in shares]
        columns[f"{name}_high"] = [one.high for one in shares]
    columns["median_rank"] = [cell.median_rank for cell in cells]
    columns["odd_rank"] = [cell.odd_rank for cell in cells]
    return pa.table(columns)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norm > 0, norm, 1)).astype(np.float32)
