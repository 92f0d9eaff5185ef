"""Detections of a simulated survey, with the truth about each: what happened, and what did not.

Exposures are those of ``visits``, detections and their truth those of ``detections``; here they
are taken until there are as many of each class as were asked for.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import Catalog, Stamps
from skyvec.sim import frames
from skyvec.sim.detections import cut, detect, tell, turned
from skyvec.sim.frames import MARGIN, Detector
from skyvec.sim.visits import SIDE, Visit, draw_field, make_visit

SIZE = 29
"""[px] of a stamp, as in Takahashi et al. 2022."""

MOST = 120
"""Bogus detections kept of one frame; of more, a random choice."""

EXTENDED = ("column", "edge", "halo", "pattern", "saturated", "trail")
MOST_OF_ONE = 8
"""Detections kept of one frame of each kind that is detected again and again along its way."""


def simulate_stamps(
    n_real: int,
    n_bogus: int,
    rng: np.random.Generator,
    *,
    detectors: Sequence[Detector] | None = None,
    size: int = SIZE,
    observed: bool = False,
    magnitudes: tuple[float, float] = (13.5, 18.7),
    slope: float | None = None,
    near_galaxies: float = 0.5,
    variables: float = 0.0,
    negative: bool = False,
    threshold: float = 5.0,
    visits: int = 6,
    name: str = "sim",
) -> tuple[Stamps, Catalog]:
    """Simulate a survey until it has made so many detections of each class.

    Args:
        n_real: Detections of something new.
        n_bogus: Detections of nothing.
        rng: Generator.
        detectors: The camera; by default the 84 sensors of ``make_detectors()``.
        size: [px] of a stamp, odd.
        observed: If False, new stars are embedded as a training set's are: with the frame's mean
            point-spread function as measured from its stars. If True they are seen through the
            true one of their place, as a test set's are.
        magnitudes: Range of the new stars.
        slope: Rise of their number [dex per mag]; 0 (as many bright as faint) if they are
            embedded, 0.2 if observed.
        near_galaxies: Share of new stars put near a galaxy, the rest anywhere.
        variables: Share of those not near a galaxy that are the new light of a star of the field,
            5 % to twice its own. A survey of transients calls such a detection bogus, or has it
            removed by a catalogue (0, as published); one of variables, ZTF's or LSST's, real.
        negative: Whether the pipeline detects what has lost light too, reference minus new, and
            half of the variables fade: as in ZTF's alerts.
        threshold: Score above which the pipeline detects.
        visits: Exposures of each field.
        name: Begins all keys; sets of different names share no object. Parts of one survey are
            called ``survey.part``: they share the sensors' bad pixels, as objects too.

    Returns:
        The stamps [counts of the sensor; the reference in electrons], mixed as they were made, and
        a catalogue of the same rows with the columns ``is_real``, ``kind`` (of ``REAL_KINDS`` or
        ``BOGUS_KINDS``), ``detector``, ``exposure``, ``magnitude`` (measured),
        ``true_magnitude`` (NaN of bogus), ``snr``, ``host_distance`` [arcsec] to the nearest
        galaxy, ``star_distance`` [arcsec], ``seeing`` [arcsec], ``limit`` [mag] of the frame,
        ``x`` and ``y`` [px]; with ``negative`` also ``sign``, 1 or -1. Its targets are the
        objects of the stamps.

    Raises:
        ValueError: A number or a range makes no sense.
    """
    shares = {"near_galaxies": near_galaxies, "variables": variables}
    _check(n_real, n_bogus, size, magnitudes, shares)
    detectors = frames.make_detectors(side=SIDE) if detectors is None else detectors
    slope = (0.2 if observed else 0.0) if slope is None else slope
    wanted = {True: n_real, False: n_bogus}
    have = {True: 0, False: 0}
    n = n_real + n_bogus
    pixels = np.empty((n, 3, size, size), np.float32)
    parts: list[dict[str, np.ndarray]] = []
    filled, number, found_share, per_visit = 0, 0, 0.6, 60.0
    while filled < n:
        field = draw_field(rng, f"{name}-f{number:05d}")
        number += 1
        for k in range(visits):
            left = {c: wanted[c] - have[c] for c in wanted}
            if not (left[True] or left[False]):
                break
            # as many new stars as keep both classes growing together
            share = left[True] / max(left[True] + left[False], 1)
            mean = min(share / max(1 - share, 0.3) * per_visit / found_share, 45.0)
            at_least = 1 if left[True] and not left[False] else 0
            visit = make_visit(
                field,
                frames.choose(detectors, rng),
                rng,
                exposure=f"{field.name}-v{k}",
                n_new=max(int(rng.poisson(mean)), at_least),
                observed=observed,
                magnitudes=magnitudes,
                slope=slope,
                near_galaxies=near_galaxies,
                variables=variables,
                fading=negative,
            )
            images, truth = _found(visit, threshold, size, negative)
            keep = _keep(truth["is_real"], truth["kind"], left, rng)
            if not len(keep):
                continue
            pixels[filled : filled + len(keep)] = images(keep)
            part = {key: column[keep] for key, column in truth.items()}
            parts.append(part)
            filled += len(keep)
            for c in wanted:
                have[c] += int(np.count_nonzero(part["is_real"] == c))
            per_visit = 0.9 * per_visit + 0.1 * np.count_nonzero(~truth["is_real"])
            if len(visit.sources) > 3:
                share_found = np.count_nonzero(truth["is_real"]) / len(visit.sources)
                found_share = max(0.9 * found_share + 0.1 * share_found, 0.1)
    return _gather(pixels, parts)


def flip_labels(
    is_real: NDArray[np.bool_],
    fraction_real: float,
    fraction_bogus: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Label samples with errors: an exact share of each class gets the other's label.

    Args:
        is_real: The truth, shape (n,).
        fraction_real: Share of the real ones labelled bogus, in [0, 1].
        fraction_bogus: Share of the bogus ones labelled real, in [0, 1].
        rng: Generator.

    Returns:
        The labels that every arm of an experiment must see, shape (n,).

    Raises:
        ValueError: A share is not in [0, 1].
    """
    labels = is_real.copy()
    for value, fraction in ((True, fraction_real), (False, fraction_bogus)):
        if not 0 <= fraction <= 1:
            raise ValueError(f"a share of wrong labels must be in [0, 1], not {fraction}")
        rows = np.flatnonzero(is_real == value)
        wrong = rng.choice(rows, round(fraction * len(rows)), replace=False)
        labels[wrong] = not value
    return labels


def _check(
    n_real: int,
    n_bogus: int,
    size: int,
    magnitudes: tuple[float, float],
    shares: Mapping[str, float],
) -> None:
    if n_real < 0 or n_bogus < 0 or n_real + n_bogus == 0:
        raise ValueError(f"n_real ({n_real}) and n_bogus ({n_bogus}) must be >= 0, and not both 0")
    if not (size % 2 == 1 and 5 <= size <= 2 * MARGIN):
        raise ValueError(f"size must be odd, from 5 to {2 * MARGIN - 1}, not {size}")
    if not magnitudes[0] < magnitudes[1]:
        raise ValueError(f"magnitudes must be (bright, faint), not {magnitudes}")
    if magnitudes[0] > 18:
        raise ValueError(f"new stars of {magnitudes[0]} mag and fainter are never detected")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is a share in [0, 1], not {share}")


def _found(
    visit: Visit, threshold: float, size: int, negative: bool
) -> tuple[Callable[[NDArray[np.int64]], NDArray[np.float32]], dict[str, np.ndarray]]:
    """Detections of a visit: what cuts out those that are asked for, and what each is."""
    sides = [visit, turned(visit)] if negative else [visit]
    places = [detect(one, threshold=threshold) for one in sides]
    truths = [tell(one, rows) for one, rows in zip(sides, places)]
    truth = {key: np.concatenate([one[key] for one in truths]) for key in truths[0]}
    if negative:
        truth["sign"] = np.repeat([1, -1], [len(rows) for rows in places])

    def images(keep: NDArray[np.int64]) -> NDArray[np.float32]:
        ends = np.cumsum([0, *map(len, places)])
        parts = []
        for one, rows, low, high in zip(sides, places, ends[:-1], ends[1:]):
            here = keep[(keep >= low) & (keep < high)] - low
            parts.append(cut(one, rows[here], size))
        return np.concatenate(parts)

    return images, truth


def _keep(
    is_real: NDArray[np.bool_],
    kind: np.ndarray,
    left: dict[bool, int],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    order = rng.permutation(len(is_real))
    real, bogus = order[is_real[order]], order[~is_real[order]]
    for name in EXTENDED:
        of_it = np.flatnonzero(kind[bogus] == name)
        bogus = np.delete(bogus, of_it[MOST_OF_ONE:])
    real, bogus = real[: left[True]], bogus[: min(left[False], MOST)]
    return np.sort(np.concatenate([real, bogus]))


def _gather(
    pixels: NDArray[np.float32], parts: list[dict[str, np.ndarray]]
) -> tuple[Stamps, Catalog]:
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    ids, objects = columns.pop("id"), columns.pop("object")
    unknown = np.full(len(ids), np.nan)
    stamps = Stamps(ids, pixels, columns["detector"], columns["exposure"], objects)
    return stamps, Catalog(ids, objects, unknown, unknown.copy(), columns)
