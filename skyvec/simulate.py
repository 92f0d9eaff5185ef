"""Made-up skies into surveys: chunk by chunk, resumable, each chunk with its own chance.

Which chunk an object falls into is part of the result, so that a run that was killed goes on where
it was and ends with the same objects.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skyvec import store
from skyvec.schema import Catalog
from skyvec.sim.frames import make_detectors
from skyvec.sim.galaxies import TELESCOPES, simulate_galaxies
from skyvec.sim.lightcurves import simulate_sky
from skyvec.sim.stamps import flip_labels, simulate_stamps

CHUNK = 500
"""Light curves or galaxies drawn and stored at a time."""

STAMPS = 5000
"""Detections drawn and stored at a time."""

Progress = Callable[[int, int], object]
"""Called with the objects done and all objects."""

Drawn = list[tuple[Catalog, store.Objects]]


def sky(
    survey: Path,
    n: int,
    *,
    cadence: str = "tess",
    seed: int = 0,
    progress: Progress | None = None,
) -> int:
    """Simulate a sky into a survey; chunks that are there are not made again.

    Returns:
        How many light curves were made now.

    Raises:
        StoreError: The survey holds other objects.
    """

    def draw(first: int, count: int, rng: np.random.Generator) -> Drawn:
        return [simulate_sky(count, rng, cadence=cadence, first=first)]

    title = f"simulated sky, {n} curves, {cadence}, seed {seed}"
    facts: dict[str, object] = {"curves": n, "cadence": cadence, "seed": seed}
    return _fill({survey: title}, n, CHUNK, seed, draw, [facts], progress)


def galaxies(
    survey: Path,
    n: int,
    *,
    pair: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> int:
    """Simulate galaxies into a survey, and as another telescope sees them into a second one.

    Chunks that are there are not made again. The same galaxy has the same target in both surveys.

    Returns:
        How many images were made now.

    Raises:
        ValueError: Both surveys are the same folder.
        StoreError: A survey holds other objects.
        ModuleNotFoundError: GalSim is not installed.
    """
    if pair is not None and survey.resolve() == pair.resolve():
        raise ValueError(f"--survey and --pair are both {survey}; name two folders")
    folders = [survey] if pair is None else [survey, pair]
    telescopes = list(TELESCOPES.values())[: len(folders)]

    def draw(first: int, count: int, rng: np.random.Generator) -> Drawn:
        return [*simulate_galaxies(count, rng, telescopes=telescopes, first=first)]

    titles = {
        folder: f"simulated galaxies, {n}, {telescope.name}, seed {seed}"
        for folder, telescope in zip(folders, telescopes)
    }
    facts: list[dict[str, object]] = [
        {
            "galaxies": n,
            "telescope": telescope.name,
            "pixel_scale": telescope.pixel_scale,
            "seeing": telescope.seeing,
            "seed": seed,
        }
        for telescope in telescopes
    ]
    return _fill(titles, n, CHUNK, seed, draw, facts, progress)


def stamps(
    survey: Path,
    n: int,
    *,
    reals: float = 0.1,
    noise: float = 0.0,
    observed: bool = False,
    variables: float = 0.0,
    focus: float = 1.0,
    negative: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> int:
    """Simulate detections into a survey; chunks that are there are not made again.

    Args:
        survey: Its folder.
        n: Detections.
        reals: Fraction that is real.
        noise: Fraction of each class that is labelled wrong (column ``label``).
        observed: Whether new stars are seen through the true point-spread function of their place.
        variables: Share of the new stars away from galaxies that are known stars brightening.
        focus: Factor of the width of all stars, another camera: 2 where pixels are half as wide,
            4 where it is out of focus. New stars are as much brighter as the limit is.
        negative: Whether what has lost light is detected too, and half of the variables fade.
        seed: Another seed, another survey; the camera is always the same.
        progress: Called with detections made and in all.

    Returns:
        How many were made now.

    Raises:
        ValueError: A fraction is not in [0, 1], or the focus not in [0.5, 5].
        StoreError: The survey holds other objects.
    """
    for name, value in (("reals", reals), ("noise", noise), ("variables", variables)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is a fraction in [0, 1], not {value:g}")

    camera: dict[str, Any] = {}
    other = ""
    if focus != 1:
        other = f"f{focus:g}".replace(".", "p")
        camera["detectors"] = make_detectors(focus=focus)
        brighter = 2.5 * math.log10(focus)  # the noise of an area of the sky grows as its width
        camera["magnitudes"] = 13.5 - brighter, 18.7 - brighter

    if negative:
        camera["negative"] = True
        other += "n"

    def draw(first: int, count: int, rng: np.random.Generator) -> Drawn:
        # rounded so that the parts add up to the fraction of the whole
        n_real = round(reals * (first + count)) - round(reals * first)
        key = f"sim{seed}{'o' if observed else ''}{other}.{first}"
        drawn, truth = simulate_stamps(
            n_real, count - n_real, rng, observed=observed, variables=variables, name=key, **camera
        )
        given = flip_labels(truth.columns["is_real"], noise, noise, rng)
        columns = {k: v for k, v in truth.columns.items() if k not in store.STAMP_COLUMNS}
        columns["label"] = np.where(given, "real", "bogus")
        return [(replace(truth, columns=columns), drawn)]

    title = f"simulated stamps, {n}, reals {reals:g}, noise {noise:g}, {observed=}, seed {seed}"
    if variables:
        title += f", variables {variables:g}"
    if focus != 1:
        title += f", focus {focus:g}"
    if negative:
        title += ", negative too"
    facts: dict[str, object] = {
        "stamps": n,
        "reals": reals,
        "noise": noise,
        "seed": seed,
        "observed": observed,
        "variables": variables,
    }
    if focus != 1:
        facts["focus"] = focus
    if negative:
        facts["negative"] = negative
    return _fill({survey: title}, n, STAMPS, seed, draw, [facts], progress)


def _fill(
    titles: Mapping[Path, str],
    n: int,
    chunk: int,
    seed: int,
    draw: Callable[[int, int, np.random.Generator], Drawn],
    facts: list[dict[str, object]],
    progress: Progress | None,
) -> int:
    """Fill surveys, each with its title and facts, with what is drawn for all of them at once."""
    with ExitStack() as locks:
        done = []
        for survey, title in titles.items():
            store.create_survey(survey)
            locks.enter_context(store.lock(store.objects_folder(survey), "simulate"))
            done.append(store.finished_items(survey))
            # to its end: seed 1 is no beginning of seed 12
            own = f"{title}, from "
            if foreign := sorted(source for source in done[-1] if not source.startswith(own)):
                raise store.StoreError(
                    f"{survey} holds other objects already ({foreign[0]}); simulate into a new "
                    "folder"
                )
        made = 0
        for first in range(0, n, chunk):
            count = min(chunk, n - first)
            lacking = [f"{t}, from {first}" not in d for t, d in zip(titles.values(), done)]
            if any(lacking):
                drawn = draw(first, count, np.random.default_rng([seed, first]))
                for (survey, title), (catalog, objects), lacks in zip(
                    titles.items(), drawn, lacking
                ):
                    if lacks:
                        source = np.full(count, f"{title}, from {first}")
                        store.append_objects(survey, catalog, objects, source)
                        made += count
            if progress is not None:
                progress(first + count, n)
        for survey, known in zip(titles, facts):
            store.note(survey, "simulate", known)
    return made
