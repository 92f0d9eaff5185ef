"""Signals to search for: any kind of star, any silhouette in transit, any beacon, by name.

A signal is written as it is called: ``transit(rp=0.1, period=3.2)``, ``louver(period=5)``,
``pi_beacon(slot=0.8)``, ``rr_lyrae_ab(period=0.6)``, ``picture(file='ship.png', width=0.4)``.
What is not given is drawn anew each time. A light curve can be a signal too (:class:`Template`).
"""

import ast
import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import LightCurves
from skyvec.sim import transits
from skyvec.sim.instruments import SYSTEMATICS
from skyvec.sim.silhouettes import FROM_FILES, SILHOUETTES, Silhouette
from skyvec.sim.variables import KINDS, ODDITIES

Flux = NDArray[np.float64]
Made = tuple[Flux, dict[str, float]]
ORBIT = ("period", "t0", "a_over_r", "impact", "exposure")
OUTLINES = SILHOUETTES | FROM_FILES
SIZES = frozenset({"amplitude", "rp", "radius", "side", "width", "height", "size"})
"""Who gives one of these wants the signal as deep as written."""

WHOLE = frozenset({"n_flares", "modes", "spots", "slats", "count", "digits", "groups", "n_steps"})
"""Parameters that count something."""

SUN_LIKE = 4.2
"""a/R = 4.2 (P / day)^(2/3) for a circular orbit around a star as dense as the Sun."""


class Drawable(Protocol):
    """What can be drawn at any time stamps: a :class:`Signal` or a :class:`Template`."""

    @property
    def has_own_size(self) -> bool:
        """Whether its depth is fixed, not left to the draw."""
        ...

    def draw(self, time: Flux, rng: np.random.Generator) -> Made:
        """Relative flux at the times [day], (n,), and the truth."""
        ...


@dataclass(frozen=True)
class Signal:
    """A kind of signal with some of its parameters fixed.

    Args:
        kind: A name in ``SIGNALS``.
        parameters: Fixed values by name: numbers, and for ``file`` a path.

    Raises:
        ValueError: An unknown kind or parameter; the message names the nearest ones.
    """

    kind: str
    parameters: dict[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in SIGNALS:
            raise ValueError(
                f"unknown signal {self.kind!r}{_nearest(self.kind, list(SIGNALS))}; "
                f"choose from {', '.join(SIGNALS)}"
            )
        accepted = parameters_of(self.kind)
        for name in self.parameters:
            if name not in accepted:
                raise ValueError(
                    f"{self.kind} has no parameter {name!r}{_nearest(name, accepted)}; "
                    f"it has {', '.join(accepted)}"
                )
        if self.kind in FROM_FILES and "file" not in self.parameters:
            raise ValueError(f"{self.kind} needs a file, as in {self.kind}(file='body.png')")

    def __str__(self) -> str:
        inside = ", ".join(
            f"{name}={value!r}" if isinstance(value, str) else f"{name}={value:g}"
            for name, value in self.parameters.items()
        )
        return f"{self.kind}({inside})"

    @property
    def has_own_size(self) -> bool:
        """Whether its depth is fixed by a parameter, not left to the draw."""
        return bool(SIZES & set(self.parameters))

    def draw(self, time: Flux, rng: np.random.Generator) -> Made:
        """Relative flux at the times [day], (n,), and the truth, with what is free drawn."""
        given = {name: int(x) if name in WHOLE else x for name, x in self.parameters.items()}
        return SIGNALS[self.kind](np.asarray(time, np.float64), rng, **given)


@dataclass(frozen=True)
class Template:
    """A light curve as a signal: shifted in time at random, straight lines between its points.

    Args:
        name: What to call it.
        time: [day], ascending, shape (n,), n >= 2.
        flux: Of any positive median, shape (n,), finite.
        repeats: Begin anew after its end; else the flux is the median outside.

    Raises:
        ValueError: Fewer than two points, times out of order, or a median that is not positive.
    """

    name: str
    time: Flux
    flux: Flux
    repeats: bool = False

    def __post_init__(self) -> None:
        if len(self.time) < 2 or len(self.time) != len(self.flux):
            raise ValueError(
                f"{self.name}: a signal needs two points at least and a flux for each time, "
                f"not {len(self.time)} times and {len(self.flux)} fluxes"
            )
        if not (np.isfinite(self.flux).all() and (np.diff(self.time) >= 0).all()):
            raise ValueError(f"{self.name}: fluxes must be finite and times ascend")
        if not (np.median(self.flux) > 0 and self.time[-1] > self.time[0]):
            raise ValueError(
                f"{self.name}: the median flux must be > 0 (give flux, not magnitude or "
                "difference flux) and the times must span something"
            )

    def __str__(self) -> str:
        return self.name

    @property
    def has_own_size(self) -> bool:
        """A light curve is searched for as deep as it is."""
        return True

    def draw(self, time: Flux, rng: np.random.Generator) -> Made:
        """Relative flux at the times [day], (n,), and the truth: ``t0``, where it begins.

        The two stretches overlap by at least half of the shorter one.
        """
        own = self.time - self.time[0]
        relative = self.flux / np.median(self.flux)
        length, span = float(own[-1]), float(time[-1] - time[0])
        if self.repeats:
            t0 = float(time[0] - rng.uniform(0, length))
            flux = np.interp((time - t0) % length, own, relative)
        else:
            half = min(length, span) / 2
            t0 = float(time[0] + rng.uniform(half - length, span - half))
            flux = np.interp(time - t0, own, relative, left=1.0, right=1.0)
        truth = {"period": length if self.repeats else np.nan, "t0": t0}
        return flux, truth | {"amplitude": float(np.ptp(relative))}


def parse(text: str) -> Signal:
    """Read a signal such as ``transit(rp=0.1, period=3.2)`` or plain ``flares``.

    Raises:
        ValueError: It does not parse, or a value is no number, or the signal is unknown.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"cannot read the signal {text!r}: {error.msg}") from error
    match tree:
        case ast.Name(id=kind):
            return Signal(kind)
        case ast.Call(func=ast.Name(id=kind), args=[], keywords=keywords):
            return Signal(kind, {k.arg: _value(k.arg, k.value, text) for k in keywords if k.arg})
    raise ValueError(f"a signal looks like transit(rp=0.1, period=3.2), not {text!r}")


def _value(name: str, node: ast.expr, text: str) -> float | str:
    match node:
        case ast.Constant(value=str() as path) if name == "file":
            return path
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as size)):
            return -float(size)
        case ast.Constant(value=int() | float() as size) if not isinstance(size, bool):
            return float(size)
    raise ValueError(f"{ast.unparse(node)!r} in {text!r} is no number")


def parameters_of(kind: str) -> list[str]:
    """Names of the parameters that a kind of signal takes."""
    function = SIGNALS[kind]
    shape = getattr(function, "shape", None)
    own = list(inspect.signature(function).parameters.values())[2:]
    names = [p.name for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
    if shape is not None:
        names += [p for p in inspect.signature(OUTLINES[shape]).parameters if p != "pitch"]
    return names


class _Crossing:
    """A silhouette in transit, as a kind of signal.

    What is not given is drawn: period even in its logarithm from 1 d to half the span, the time
    of the first transit from one period, the impact parameter from [0, 0.6]. With ``spin`` [day]
    the body turns in the plane of the sky.
    """

    def __init__(self, shape: str) -> None:
        self.shape = shape

    def __call__(
        self,
        time: Flux,
        rng: np.random.Generator,
        *,
        period: float | None = None,
        t0: float | None = None,
        a_over_r: float | None = None,
        impact: float | None = None,
        exposure: float = 0.0,
        spin: float = 0.0,
        **shape: float | str,
    ) -> Made:
        body = _body(self.shape, tuple(sorted(shape.items())))
        span = max(float(time[-1] - time[0]), 2.0)
        if period is None:
            period = float(np.exp(rng.uniform(0, np.log(span / 2))))
        t0 = float(time[0] + rng.uniform(0, period)) if t0 is None else t0
        impact = float(rng.uniform(0, 0.6)) if impact is None else impact
        a_over_r = SUN_LIKE * period ** (2 / 3) if a_over_r is None else a_over_r
        if spin:
            flux = transits.rotating_transit(
                time,
                body,
                spin_period=spin,
                period=period,
                t0=t0,
                a_over_r=a_over_r,
                impact=impact,
            )
        else:
            flux = transits.transit(
                time,
                body,
                period=period,
                t0=t0,
                a_over_r=a_over_r,
                impact=impact,
                exposure=exposure,
            )
        depth = 1 - float(
            transits.transit(
                np.array([t0]), body, period=period, t0=t0, a_over_r=a_over_r, impact=impact
            )[0]
        )
        return flux, {"period": period, "amplitude": depth, "t0": t0, "impact": impact}


def planet(
    time: Flux,
    rng: np.random.Generator,
    *,
    rp: float = 0.1,
    amplitude: float | None = None,
    period: float | None = None,
    t0: float | None = None,
    a_over_r: float | None = None,
    impact: float | None = None,
    exposure: float = 0.0,
) -> Made:
    """A sphere of radius rp [stellar radii] in transit; amplitude is another way to give rp^2."""
    if amplitude is not None:
        if not 0 < amplitude < 1:
            raise ValueError(f"amplitude must be in (0, 1), not {amplitude}")
        rp = float(np.sqrt(amplitude))
    return _Crossing("disc")(
        time,
        rng,
        period=period,
        t0=t0,
        a_over_r=a_over_r,
        impact=impact,
        exposure=exposure,
        radius=rp,
    )


def pi_beacon(
    time: Flux,
    rng: np.random.Generator,
    *,
    rp: float = 0.15,
    slot: float | None = None,
    digits: float = 24,
    t0: float | None = None,
) -> Made:
    """Spell the first binary digits of pi in transits, one slot [day] a digit, over the span."""
    return _train(time, rng, rp, slot, t0, int(digits), transits.pi_beacon)


def prime_beacon(
    time: Flux,
    rng: np.random.Generator,
    *,
    rp: float = 0.15,
    slot: float | None = None,
    groups: float = 4,
    t0: float | None = None,
) -> Made:
    """Send groups of 2, 3, 5, 7 ... transits, a slot [day] apart (Arnold 2005, ApJ 627, 534)."""
    return _train(time, rng, rp, slot, t0, int(groups), transits.prime_beacon)


def _train(
    time: Flux,
    rng: np.random.Generator,
    rp: float,
    slot: float | None,
    t0: float | None,
    count: int,
    beacon: Callable[[int, float], tuple[list[float], list[float]]],
) -> Made:
    length = beacon(count, 1.0)[0][-1] + 1
    span = max(float(time[-1] - time[0]), 1e-3)
    slot = span / (length + 1) if slot is None else slot
    t0 = float(time[0] + rng.uniform(0.5, 1.5) * slot) if t0 is None else t0
    offsets, depths = beacon(count, slot)
    # one pass of the train, each transit a third of its slot: 2 R / v = P / (pi a) = slot / 3
    period = 4 * (span + length * slot)
    a_over_r = max(3 * period / (np.pi * slot), 1.5)
    flux = transits.transit(
        time,
        _body("disc", (("radius", rp),)),
        period=period,
        t0=t0,
        a_over_r=a_over_r,
        offsets=offsets,
        depths=depths,
    )
    return flux, {"period": np.nan, "amplitude": rp**2, "t0": t0, "slot": slot}


@lru_cache(maxsize=64)
def _body(shape: str, parameters: tuple[tuple[str, float | str], ...]) -> Silhouette:
    return OUTLINES[shape](**dict(parameters))


SIGNALS: dict[str, Callable[..., Made]] = {
    **KINDS,
    **ODDITIES,
    **SYSTEMATICS,
    **{shape: _Crossing(shape) for shape in OUTLINES},
    "transit": planet,
    "pi_beacon": pi_beacon,
    "prime_beacon": prime_beacon,
}


def inject(
    curves: LightCurves,
    signal: Drawable,
    rng: np.random.Generator,
    *,
    scale: float | NDArray[np.floating] = 1.0,
    depth: float | NDArray[np.floating] | None = None,
) -> tuple[LightCurves, list[dict[str, float]]]:
    """Put a fresh draw of a signal into each curve, multiplicatively; noise and gaps stay.

    flux' = flux * (1 + scale * (s(t) - 1)) for a positive median level. A band whose level is not
    positive (difference flux) gets level |median| * scale * (s - 1) added instead.

    Args:
        curves: Real curves.
        signal: What to inject; its free parameters are drawn anew for each curve.
        rng: Generator of the draws.
        scale: Multiplies the depth; one number or one for each curve, shape (n,).
        depth: Depth (the truth's amplitude) to give each draw [relative flux], instead of a
            scale; one number or one for each curve. What falls into gaps stays lost.

    Returns:
        Curves with the same ids, stamps and errors, and the truth of each.
    """
    flux = curves.flux.astype(np.float64)
    wanted = np.broadcast_to(np.asarray(scale if depth is None else depth, float), (len(curves),))
    truths: list[dict[str, float]] = []
    for i in range(len(curves)):
        part = slice(curves.offsets[i], curves.offsets[i + 1])
        if part.start == part.stop:
            truths.append({})
            continue
        shape, truth = signal.draw(curves.mjd[part] - curves.mjd[part.start], rng)
        level = np.median(flux[part])
        base = flux[part] if level > 0 else abs(level)
        factor = float(wanted[i])
        if depth is not None:
            factor /= max(abs(truth["amplitude"]), 1e-6)
        flux[part] += base * factor * (shape - 1)
        truths.append(truth | {"scale": factor})
    injected = LightCurves(
        curves.id,
        curves.offsets,
        curves.mjd,
        flux.astype(np.float32),
        curves.flux_err,
        curves.band,
        curves.bands,
        curves.flux_unit,
    )
    return injected, truths


def cloud(
    signal: Drawable,
    like: LightCurves,
    rng: np.random.Generator,
    *,
    draws: int = 8,
    noise: float | None = None,
    scale: float = 1.0,
) -> LightCurves:
    """Draw a signal several times at the stamps of one curve: the query of a directed search.

    Args:
        signal: What to look for.
        like: One curve (the first is taken) whose stamps, band and errors are used.
        rng: Generator of phases, free parameters and noise.
        draws: How many members the cloud has.
        noise: Relative scatter of the noise added; that of the curve (1.4826 MAD of differences
            of neighbours over root two) by default.
        scale: Multiplies the depth of the signal.

    Raises:
        ValueError: The curve has fewer than two points, or draws < 1.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    stop = int(like.offsets[1]) if len(like) else 0
    if stop < 2:
        raise ValueError("a signal needs the time stamps of a curve of at least two points")
    mjd = like.mjd[:stop]
    if noise is None:
        noise = float(relative_noise(like)[0])
    drawn = [
        1 + scale * (signal.draw(mjd - mjd[0], rng)[0] - 1) + noise * rng.normal(size=stop)
        for _ in range(draws)
    ]
    return LightCurves(
        np.array([f"{signal}#{i}" for i in range(draws)]),
        np.arange(draws + 1, dtype=np.int64) * stop,
        np.tile(mjd, draws),
        np.concatenate(drawn).astype(np.float32),
        np.full(draws * stop, noise if noise > 0 else np.nan, np.float32),
        np.tile(like.band[:stop], draws),
        like.bands,
    )


def cloud_in(
    hosts: LightCurves,
    signal: Drawable,
    rng: np.random.Generator,
    *,
    draws: int = 256,
    spread: tuple[float, float] = (10.0, 1000.0),
    as_written: bool = True,
) -> tuple[LightCurves, NDArray[np.int64]]:
    """Draw a signal into many real curves: the query of a directed search.

    Each member has the stamps, the gaps and the noise of a survey's object, a phase of its own and
    whatever else the signal leaves free. A signal whose size is left open is drawn at depths from
    ``spread`` times the noise of each host, even in the logarithm. One that is as deep as written
    goes into the hosts that are quiet enough to show it, or, where fewer than eight are, into the
    quietest eight.

    Args:
        hosts: Curves to draw into, n >= 1 with two points.
        signal: What to look for.
        rng: Generator of hosts, phases, free parameters and depths.
        draws: How many members the cloud has.
        spread: Least and greatest depth over the point-to-point noise.
        as_written: Keep the size of a signal that gives its own.

    Returns:
        The cloud, and the row of each member's host, shape (draws,).

    Raises:
        ValueError: draws < 1, or no host with two points.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    usable = np.flatnonzero(hosts.lengths >= 2)
    if not len(usable):
        raise ValueError("a signal needs the time stamps of a curve of at least two points")
    noise = np.maximum(relative_noise(hosts.take(usable)), 1e-9)
    low, high = np.log(spread)
    if as_written and signal.has_own_size:
        written = typical_depth(signal, hosts.take(usable), rng)
        quiet = np.flatnonzero(noise * spread[0] <= written)
        if len(quiet) < 8:
            quiet = np.argsort(noise, kind="stable")[:8]
        rows = usable[_in_turn(quiet, draws, rng)]
        drawn, _ = inject(hosts.take(rows), signal, rng)
    else:
        chosen = _in_turn(np.arange(len(usable)), draws, rng)
        depth = np.exp(rng.uniform(low, high, draws)) * noise[chosen]
        rows = usable[chosen]
        drawn, _ = inject(hosts.take(rows), signal, rng, depth=depth)
    return replace(drawn, id=np.array([f"{signal}#{i}" for i in range(draws)])), rows


def _in_turn(rows: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Take n of the rows at random, none twice before each was taken once."""
    rounds = [rng.permutation(rows) for _ in range(-(-n // len(rows)))]
    return np.concatenate(rounds)[:n]


def typical_depth(signal: Drawable, curves: LightCurves, rng: np.random.Generator) -> float:
    """Median range of a signal at the stamps of up to 16 curves [relative flux]; never 0."""
    ranges = []
    for i in np.flatnonzero(curves.lengths > 1)[:16]:
        part = slice(curves.offsets[i], curves.offsets[i + 1])
        flux, _ = signal.draw(curves.mjd[part] - curves.mjd[part.start], rng)
        ranges.append(np.ptp(flux))
    return max(float(np.median(ranges)), 1e-9) if ranges else 1e-9


def relative_noise(curves: LightCurves) -> NDArray[np.float64]:
    """Scatter from point to point over the median level of each curve, (n,).

    1.4826 MAD of the differences of neighbours / sqrt(2) / |median|, which a slow variation does
    not raise; 0 for a curve of fewer than three points.
    """
    noise = np.zeros(len(curves))
    for i in range(len(curves)):
        flux = curves.flux[curves.offsets[i] : curves.offsets[i + 1]].astype(np.float64)
        if len(flux) > 2:
            steps = np.diff(flux)
            scatter = 1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2)
            noise[i] = scatter / max(abs(float(np.median(flux))), 1e-12)
    return noise


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
