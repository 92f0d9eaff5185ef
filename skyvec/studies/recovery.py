"""Injection and recovery: what fraction of a signal nobody has seen yet would a search find?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from skyvec.checkpoint import Checkpoint
from skyvec.encode import encode_curves
from skyvec.schema import LightCurves
from skyvec.sim.signals import Signal, cloud, inject, parameters_of, relative_noise
from skyvec.studies import rivals

KTH = 5
"""Oddness is the similarity to this neighbour, as in the list of outliers."""


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


@dataclass(frozen=True)
class Cell:
    """Recovery of one signal at one depth and period.

    Args:
        signal: As it was injected.
        depth_over_noise: Depth over the point-to-point scatter of the host.
        period: [day], NaN where it was drawn.
        n: Injections.
        directed: Share found within the first k of a directed search in the latents.
        box: The same for box least squares; None where it was not run.
        matched: The same for the matched filter with known shape; None where it was not run.
        median_rank: Median rank in the directed search, 1 = first.
        top_percent: Share within the first percent of the directed search.
        odd_percentile: Median place in the list of oddities, 0 = oddest, 1 = most ordinary.
    """

    signal: str
    depth_over_noise: float
    period: float
    n: int
    directed: Share
    box: Share | None
    matched: Share | None
    median_rank: float
    top_percent: Share
    odd_percentile: float


@dataclass(frozen=True)
class Field:
    """The survey that hides the signal: its curves, their codes and their classical scores."""

    curves: LightCurves
    vectors: NDArray[np.float32]
    oddness: NDArray[np.float64]
    box: NDArray[np.float64] | None
    periods: NDArray[np.float64]
    durations: NDArray[np.float64]


def survey_field(
    checkpoint: Checkpoint, curves: LightCurves, *, box: bool = True, trials: int = 400
) -> Field:
    """Encode a survey's curves and score them by box least squares, once for all signals.

    Args:
        checkpoint: The encoder.
        curves: One curve a target, so that no star counts twice.
        box: Whether to run box least squares, which is slow.
        trials: How many trial periods, even in frequency.
    """
    vectors = _unit(encode_curves(checkpoint, curves)[0])
    last = np.maximum(curves.offsets[1:] - 1, 0)
    span = float(np.median(curves.mjd[last] - curves.mjd[curves.offsets[:-1]]))
    periods = 1 / np.linspace(2 / span, 1 / 0.8, trials)
    durations = np.array([0.08, 0.16, 0.32])
    scores = rivals.box_least_squares(curves, periods, durations) if box else None
    return Field(curves, vectors, _oddness(vectors, vectors, own=True), scores, periods, durations)


def recover(
    checkpoint: Checkpoint,
    field: Field,
    signal: Signal,
    hosts: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    depths: Sequence[float] = (1.0, 3.0, 10.0, 30.0),
    periods: Sequence[float] = (),
    k: int = 10,
    draws: int = 16,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[Cell]:
    """Inject a signal into hosts at each depth and period and look for it in the whole field.

    For each injection the host's own entry is replaced by the injected curve; its rank is one plus
    the number of other curves that answer the query better. The query knows the signal but not
    the star: a cloud of draws at the stamps of another star, each member a query, the best
    similarity counting.

    Args:
        checkpoint: The encoder that made the field.
        field: The survey.
        signal: What is injected and asked for.
        hosts: Rows of the field that receive the signal.
        rng: Generator of every draw.
        depths: Depth over the point-to-point scatter of each host.
        periods: [day]; left to the draw where empty.
        k: A signal among the first k counts as found.
        draws: Members of the query's cloud.
        progress: Called with (cells done, cells in all).

    Yields:
        One cell after the other.
    """
    takes_period = "period" in parameters_of(signal.kind) and "period" not in signal.parameters
    trials = [float(period) for period in periods] if takes_period and periods else [np.nan]
    grid = [(period, depth) for period in trials for depth in depths]
    for done, (period, depth) in enumerate(grid):
        fixed: dict[str, float | str] = {} if np.isnan(period) else {"period": period}
        asked = replace(signal, parameters=signal.parameters | fixed)
        yield _one_cell(checkpoint, field, asked, hosts, rng, depth, period, k, draws)
        if progress is not None:
            progress(done + 1, len(grid))


def _one_cell(
    checkpoint: Checkpoint,
    field: Field,
    signal: Signal,
    hosts: NDArray[np.int64],
    rng: np.random.Generator,
    depth: float,
    period: float,
    k: int,
    draws: int,
) -> Cell:
    stars = field.curves.take(hosts)
    noise = np.maximum(relative_noise(stars), 1e-9)
    full_depth = _typical_depth(signal, stars, rng)
    scale = depth * noise / full_depth
    injected, _ = inject(stars, signal, rng, scale=scale)
    codes = _unit(encode_curves(checkpoint, injected)[0])
    query = _query(checkpoint, field, signal, hosts, rng, depth, full_depth, draws)
    ranks = _ranks((field.vectors @ query.T).max(axis=1), (codes @ query.T).max(axis=1), hosts)
    odd = _oddness(codes, field.vectors, own=False, hosts=hosts)
    places = _ranks(-field.oddness, -odd, hosts)
    return Cell(
        str(signal),
        depth,
        period,
        len(hosts),
        share(int((ranks <= k).sum()), len(hosts)),
        _box(field, injected, hosts, k),
        _matched(field, injected, signal, hosts, rng, k),
        float(np.median(ranks)),
        share(int((ranks <= max(1, 0.01 * len(field.vectors))).sum()), len(hosts)),
        float(np.median((places - 1) / max(1, len(field.vectors) - 1))),
    )


def _typical_depth(signal: Signal, stars: LightCurves, rng: np.random.Generator) -> float:
    """Median range of the signal as drawn at the stamps of some hosts; never 0."""
    ranges = []
    for i in range(min(len(stars), 16)):
        part = slice(stars.offsets[i], stars.offsets[i + 1])
        flux, _ = signal.draw(stars.mjd[part] - stars.mjd[part.start], rng)
        ranges.append(np.ptp(flux))
    return max(float(np.median(ranges)), 1e-9)


def _query(
    checkpoint: Checkpoint,
    field: Field,
    signal: Signal,
    hosts: NDArray[np.int64],
    rng: np.random.Generator,
    depth: float,
    full_depth: float,
    draws: int,
) -> NDArray[np.float32]:
    """Codes of a cloud of draws at the stamps of a star that is no host, (draws, d)."""
    others = np.setdiff1d(np.arange(len(field.vectors)), hosts)
    star = field.curves.take(rng.choice(others if len(others) else hosts, 1))
    noise = max(float(relative_noise(star)[0]), 1e-9)
    drawn = cloud(signal, star, rng, draws=draws, noise=noise, scale=depth * noise / full_depth)
    return _unit(encode_curves(checkpoint, drawn)[0])


def _ranks(
    everyone: NDArray[np.floating], injected: NDArray[np.floating], hosts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rank of each injected score among all others, its host's own entry left out."""
    ordered = np.sort(everyone)
    above = len(ordered) - np.searchsorted(ordered, injected, side="right")
    return above - (everyone[hosts] > injected) + 1


def _oddness(
    vectors: NDArray[np.float32],
    others: NDArray[np.float32],
    *,
    own: bool,
    hosts: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Similarity to the KTH nearest of the others, (n,); low = odd. Blocked to bound memory."""
    result = np.empty(len(vectors))
    for first in range(0, len(vectors), 1024):
        rows = np.arange(first, min(first + 1024, len(vectors)))
        similarity = vectors[rows] @ others.T
        if own:
            similarity[np.arange(len(rows)), rows] = -np.inf
        elif hosts is not None:
            similarity[np.arange(len(rows)), hosts[rows]] = -np.inf
        kth = min(KTH, similarity.shape[1] - 1)
        result[rows] = -np.partition(-similarity, kth - 1, axis=1)[:, kth - 1]
    return result


def _box(field: Field, injected: LightCurves, hosts: NDArray[np.int64], k: int) -> Share | None:
    if field.box is None:
        return None
    scores = rivals.box_least_squares(injected, field.periods, field.durations)
    return share(int((_ranks(field.box, scores, hosts) <= k).sum()), len(hosts))


def _matched(
    field: Field,
    injected: LightCurves,
    signal: Signal,
    hosts: NDArray[np.int64],
    rng: np.random.Generator,
    k: int,
) -> Share:
    """The filter is given one noiseless draw of the signal, over twice the span of a curve."""
    last = np.maximum(field.curves.offsets[1:] - 1, 0)
    span = float(np.median(field.curves.mjd[last] - field.curves.mjd[field.curves.offsets[:-1]]))
    time = np.arange(0, 2 * span, rivals.CELL)
    template = signal.draw(time, rng)[0]
    template = template - np.median(template)
    everyone = rivals.matched_filter(field.curves, template)
    scores = rivals.matched_filter(injected, template)
    return share(int((_ranks(everyone, scores, hosts) <= k).sum()), len(hosts))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norm > 0, norm, 1)).astype(np.float32)
