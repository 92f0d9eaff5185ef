"""Does a code know the same signal when it is shifted, interrupted or seen with fewer points?

A signal is put into curves of a survey and encoded; then the same signal, in the same curves, is
moved in phase, loses a share of the span to gaps, or loses points. The distance between the two
codes is held against the distance between two strangers: other objects of the survey.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyvec.checkpoint import Checkpoint
from skyvec.encode import encode_curves
from skyvec.schema import LightCurves
from skyvec.sim.instruments import with_gaps
from skyvec.sim.signals import Signal, inject, relative_noise

PHASES = (0.05, 0.1, 0.25, 0.5, 0.75)
GAPS = (0.1, 0.25, 0.5, 0.75)
POINTS = (0.75, 0.5, 0.25, 0.1, 0.05)


def robustness(
    checkpoint: Checkpoint,
    curves: LightCurves,
    signal: Signal,
    rng: np.random.Generator,
    *,
    depth: float = 100.0,
    phases: Sequence[float] = PHASES,
    gaps: Sequence[float] = GAPS,
    points: Sequence[float] = POINTS,
) -> pa.Table:
    """Measure how far a code moves when its curve changes in ways that should not matter.

    Args:
        checkpoint: The encoder.
        curves: Real curves to put the signal into, one an object, n >= 3 of ten points each.
        signal: With a fixed ``period``; its ``t0`` is what is shifted.
        rng: Generator of phases, gaps and lost points; what else the signal leaves free is the
            same before and after.
        depth: Over the point-to-point noise of each curve.
        phases: Shifts [periods].
        gaps: Shares of the span lost, in three gaps.
        points: Shares of the points kept, at random.

    Returns:
        Columns change (``phase``, ``gaps``, ``points``), amount, n, distance (median Euclidean
        distance of the unit codes before and after), distance_low and distance_high (16 and
        84 %), strangers (median distance of the changed codes to other, untouched objects), share
        (distance over strangers), found (share of the changed curves that a search with the code
        from before the change ranks before every other object).

    Raises:
        ValueError: Fewer than three curves of ten points, or a signal without a fixed period.
    """
    period = signal.parameters.get("period")
    if not isinstance(period, int | float):
        raise ValueError(f"{signal} must have a fixed period, as in {signal.kind}(period=3.2)")
    usable = curves.take(curves.lengths >= 10)
    if len(usable) < 3:
        raise ValueError(f"robustness needs three curves of ten points, not {len(usable)}")
    start = rng.uniform(0, period, len(usable))
    seed = int(rng.integers(2**31))

    def drawn(shift: float) -> LightCurves:
        return _draw_at(usable, signal, start + shift * period, depth, seed)

    untouched = _unit(encode_curves(checkpoint, usable)[0])
    first = drawn(0.0)
    before = _unit(encode_curves(checkpoint, first)[0])
    nearest_other = _distances(before, untouched)
    np.fill_diagonal(nearest_other, np.inf)
    rows = []
    for change, amounts in (("phase", phases), ("gaps", gaps), ("points", points)):
        for amount in amounts:
            changed = drawn(amount) if change == "phase" else _thinned(first, change, amount, rng)
            after = _unit(encode_curves(checkpoint, changed)[0])
            own = np.linalg.norm(after - before, axis=1)
            low, middle, high = np.percentile(own, [16, 50, 84])
            others = _distances(after, untouched)
            strangers = float(np.median(others[~np.eye(len(others), dtype=bool)]))
            rows.append(
                {
                    "change": change,
                    "amount": float(amount),
                    "n": len(own),
                    "distance": float(middle),
                    "distance_low": float(low),
                    "distance_high": float(high),
                    "strangers": strangers,
                    "share": float(middle / max(strangers, 1e-12)),
                    "found": float(np.mean(own < nearest_other.min(axis=1))),
                }
            )
    return pa.Table.from_pylist(rows)


def _draw_at(
    curves: LightCurves,
    signal: Signal,
    t0: NDArray[np.float64],
    depth: float,
    seed: int,
) -> LightCurves:
    """The signal in each curve at a time of its own; what else is free comes from the seed."""
    noise = np.maximum(relative_noise(curves), 1e-9)
    flux = []
    for i, begin in enumerate(t0):
        at = Signal(signal.kind, {**signal.parameters, "t0": float(begin)})
        own = np.random.default_rng([seed, i])
        flux.append(inject(curves.take(np.array([i])), at, own, depth=depth * noise[i])[0].flux)
    return replace(curves, flux=np.concatenate(flux))


def _thinned(
    curves: LightCurves, change: str, amount: float, rng: np.random.Generator
) -> LightCurves:
    """Curves that have lost a share of their span to gaps, or all but a share of their points."""
    kept = np.ones(len(curves.mjd), bool)
    for i in range(len(curves)):
        part = slice(curves.offsets[i], curves.offsets[i + 1])
        if change == "gaps":
            kept[part] = with_gaps(curves.mjd[part], rng, share=amount)
        else:
            kept[part] = rng.random(part.stop - part.start) < amount
    lengths = np.add.reduceat(kept, curves.offsets[:-1]).astype(np.int64)
    return LightCurves(
        curves.id,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        curves.mjd[kept],
        curves.flux[kept],
        curves.flux_err[kept],
        curves.band[kept],
        curves.bands,
        curves.flux_unit,
    )


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.clip(2 - 2 * one @ other.T, 0, None))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norm > 0, norm, 1)
