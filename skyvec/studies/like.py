"""Made-up curves that look as if a survey had observed them: its stamps, its gaps, its noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from skyvec import store
from skyvec.schema import LightCurves
from skyvec.sim.signals import Drawable, cloud, inject


def draw_like(
    survey: Path,
    name: str,
    signal: Drawable,
    *,
    draws: int = 8,
    into: bool = False,
    seed: int = 0,
) -> LightCurves:
    """Draw a signal several times as a survey would have seen it in place of one of its objects.

    Args:
        survey: The survey's folder.
        name: A segment, or a target, of which the segment with most points is taken.
        signal: What to draw; free parameters are drawn anew each time.
        draws: How many curves.
        into: Put the signal into the object's own curve, with all that is in it; else the curve
            has white noise of the size of the object's own.
        seed: Of everything that is drawn.

    Returns:
        Curves named ``SIGNAL#0``, ``SIGNAL#1``, ...; of relative flux unless ``into``.

    Raises:
        KeyError: There is no such object.
        ValueError: draws < 1, or a curve of fewer than two points.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    catalog = store.read_catalog(survey, [])
    rows = np.flatnonzero((catalog.id == name) | (catalog.target == name))
    if not len(rows):
        raise KeyError(f"no segment or target {name!r} in {survey}")
    curves = store.find_curves(survey, catalog.id[rows].tolist())
    star = curves.take(np.array([int(np.argmax(curves.lengths))]))
    rng = np.random.default_rng(seed)
    if not into:
        return cloud(signal, star, rng, draws=draws)
    if star.lengths[0] < 2:
        raise ValueError(f"{name} has fewer than two points to put a signal into")
    copies = star.take(np.zeros(draws, np.int64))
    ids = np.array([f"{signal}#{i}" for i in range(draws)])
    return inject(replace(copies, id=ids), signal, rng)[0]
