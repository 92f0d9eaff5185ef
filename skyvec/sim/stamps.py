"""Detections of a simulated survey, with the truth about each: what happened, and what did not.

A field of stars and galaxies has one deep reference and is visited several times, each time by
another sensor under another seeing. New stars are put in, artefacts of sky, optics and electronics
too; the reference is convolved to the new image's point-spread function as the survey's pipeline
believes it to be, subtracted, and whatever stands out is a detection. Nothing is drawn as a stamp:
residuals, dipoles and blends come about as they do on a mountain.

The pipeline inside is the simulated survey's own (one kernel a frame, mean point-spread
functions, one registration), with its usual faults; it knows nothing of ``prep``.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

from skyvec.schema import Catalog, Stamps
from skyvec.sim import frames
from skyvec.sim.frames import MARGIN, PIXEL_SCALE, Array, Artefacts, Detector, Frame, Sources

SIDE = 512
"""[px] of a frame."""

BORDER = 8
"""[px] around a frame that takes part in convolutions, so that their wrap stays outside."""

SIZE = 29
"""[px] of a stamp, as in Takahashi et al. 2022."""

MOST = 120
"""Bogus detections kept of one frame; of more, a random choice."""

EXTENDED = ("column", "edge", "halo", "pattern", "saturated", "trail")
MOST_OF_ONE = 8
"""Detections kept of one frame of each kind that is detected again and again along its way."""

ON_STAR = -2
"""Host of new light that is a star's own."""

_REGULAR = 1e-3


@dataclass(frozen=True)
class Field:
    """A place on the sky and its reference image.

    Args:
        name: Key of the field.
        stars: Its stars.
        galaxies: Its galaxies.
        reference: [electrons of an exposure] with a border, NaN where it has a hole.
        psf: Covariance of its point-spread function, shape (3,).
        transform: Fourier transform of the reference, its holes filled with 0, over that of its
            point-spread function: ready to be convolved with that of a new image.
    """

    name: str
    stars: Sources
    galaxies: Sources
    reference: Frame
    psf: Array
    transform: NDArray[np.complex64]


@dataclass(frozen=True)
class Visit:
    """One new image of a field, what the pipeline made of it, and what was put in.

    Images are (side, side) float32 in electrons, NaN where there is no measurement.

    Args:
        field: Key of the field.
        exposure: Key of the exposure.
        detector: The sensor.
        new: The new image, its mean sky taken off.
        reference: The reference.
        difference: New minus convolved reference.
        score: Matched-filter signal to noise, of unit variance in the background.
        cause: Code of the artefact that spoiled each pixel (``frames.CAUSES``), 0 for none.
        psf: Covariance of the point-spread function that the pipeline measured, shape (3,).
        seeing: FWHM of the middle of the frame [px].
        sky: [electrons] of a pixel.
        sources: The new stars, as they were put in.
        hosts: Row of the galaxy each was put near, -1 for none, ``ON_STAR`` where the new light
            is that of a star of the field, shape (n,).
        expected: Score each would have on empty sky, shape (n,).
    """

    field: Field
    exposure: str
    detector: Detector
    new: Frame
    reference: Frame
    difference: Frame
    score: Frame
    cause: NDArray[np.int8]
    psf: Array
    seeing: float
    sky: float
    sources: Sources
    hosts: NDArray[np.int64]
    expected: Array


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
        ``x`` and ``y`` [px]. Its targets are the objects of the stamps.

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
            )
            rows = detect(visit, threshold=threshold)
            truth = tell(visit, rows)
            keep = _keep(truth["is_real"], truth["kind"], left, rng)
            if not len(keep):
                continue
            rows = rows[keep]
            pixels[filled : filled + len(keep)] = cut(visit, rows, size)
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


# --- a field and its visits -------------------------------------------------------------------


def draw_field(rng: np.random.Generator, name: str, *, side: int = SIDE) -> Field:
    """Draw a field and take its reference: deep, sharp, with a hole in some bright stars."""
    found, hosts = frames.draw_field(rng, side)
    fwhm = rng.uniform(1.7, 2.3)
    shake = rng.normal(0, 0.02, 2)
    canvas = np.zeros((side + 2 * MARGIN, side + 2 * MARGIN), np.float32)
    for sources in (found, hosts):
        at = frames.psf_matrix(sources.x, sources.y, fwhm, shake, None, side)
        frames.paint(canvas, sources, at)
    image = _inner(canvas, BORDER)
    depth = rng.uniform(0.02, 0.15)  # variance in units of that of an exposure
    variance = depth * (np.maximum(image, 0) + 400.0)
    image = image + np.sqrt(variance, dtype=np.float32) * rng.standard_normal(
        image.shape, np.float32
    )
    if rng.uniform() < 0.4:
        bright = np.flatnonzero(found.flux > 1e6)
        y, x = np.ogrid[-BORDER : side + BORDER, -BORDER : side + BORDER]
        for i in bright[:20]:
            inside = np.hypot(x - found.x[i], y - found.y[i]) < rng.uniform(3, 8)
            image[inside] = np.nan
    psf = frames.psf_matrix(np.zeros(1), np.zeros(1), fwhm, shake, None, side)[0]
    p = _transform(psf, len(image))
    filled = np.where(np.isfinite(image), image, np.float32(0))
    sharp = fft.rfft2(filled) * (p / (p**2 + np.float32(_REGULAR)))
    return Field(name, found, hosts, image, psf, sharp)


def make_visit(
    field: Field,
    detector: Detector,
    rng: np.random.Generator,
    *,
    exposure: str = "exposure",
    n_new: int = 20,
    observed: bool = False,
    magnitudes: tuple[float, float] = (13.5, 18.7),
    slope: float = 0.0,
    near_galaxies: float = 0.5,
    variables: float = 0.0,
    side: int = SIDE,
) -> Visit:
    """Take a new image of a field with a sensor, put new stars in, subtract the reference.

    Args:
        field: Of the same side.
        detector: The sensor.
        rng: Generator.
        exposure: Key of the exposure; its sky, seeing and registration are drawn here.
        n_new: Number of new stars.
        observed: See ``simulate_stamps``; so for what follows.
        magnitudes: Range of the new stars.
        slope: Rise of their number [dex per mag].
        near_galaxies: Share of new stars put near a galaxy.
        variables: Share of the others that are the new light of a star of the field.
        side: [px] of the frame.
    """
    seeing = float(np.clip(rng.lognormal(np.log(2.4), 0.22), 1.6, 5.0))
    shake = rng.normal(0, 0.04, 2)
    sky = float(400 * rng.lognormal(0, 0.45))
    clear = float(np.clip(rng.lognormal(-0.03, 0.12), 0.4, 1.3))
    noise = np.sqrt(sky + detector.read_noise**2)
    shifted = _registration(rng, side)

    image = np.zeros((side + 2 * MARGIN, side + 2 * MARGIN), np.float32)
    seen = []
    for sources, jitter in (
        (field.stars, detector.colour),
        (field.galaxies, 0.5 * detector.colour),
    ):
        dx, dy = shifted(sources.x, sources.y)
        if jitter == detector.colour:  # a few stars move on the sky
            moving = rng.uniform(size=len(sources)) < 0.02
            dx = dx + moving * rng.normal(0, 0.5, len(sources))
            dy = dy + moving * rng.normal(0, 0.5, len(sources))
        factor = clear * (1 + jitter * rng.standard_normal(len(sources)))
        here = sources.moved(dx, dy, np.maximum(factor, 0.1))
        at = frames.psf_matrix(here.x, here.y, seeing, shake, detector, side)
        frames.paint(image, here, at)
        seen.append(here)

    middle = np.array([side / 2.0])
    psf = frames.psf_matrix(middle, middle, seeing, shake, detector, side)[0]
    # the pipeline's measurement of it from the frame's stars is good to a percent or two
    size, e1, e2 = 1 + rng.normal(0, 0.015), *rng.normal(0, 0.012, 2)
    measured = size**2 * (psf + np.array([e1, e2, -e1]) * (psf[0] + psf[2]) / 2)

    new, hosts = _new_stars(field, rng, n_new, magnitudes, slope, near_galaxies, variables, side)
    if observed:
        at = frames.psf_matrix(new.x, new.y, seeing, shake, detector, side)
    else:
        at = np.broadcast_to(measured, (len(new), 3))
    if len(new):
        bright_now = new.moved(np.zeros(len(new)), np.zeros(len(new)), clear)
        frames.paint(image, bright_now, at)

    artefacts = Artefacts(image, float(noise))
    _spoil_light(artefacts, seen[0], detector, rng, seeing)
    inner = image[MARGIN - BORDER : image.shape[0] - MARGIN + BORDER, :]
    inner = inner[:, MARGIN - BORDER : image.shape[1] - MARGIN + BORDER]
    variance = np.maximum(inner, 0) + np.float32(noise**2)
    inner += np.sqrt(variance) * rng.standard_normal(inner.shape, np.float32)
    _spoil_charge(artefacts, detector, rng)
    inner += frames.background(rng, side + 2 * BORDER, 0.0, 1.0) * np.float32(0.01 * sky)
    full = artefacts.saturate(detector.saturation)

    lost = np.zeros((side + 2 * BORDER, side + 2 * BORDER), bool)
    lost[:, detector.dead + BORDER] = True
    if rng.uniform() < 0.3:
        lost |= _inner(full, BORDER)  # pipelines differ: some mask what is full
    new_image = np.where(lost, np.float32(np.nan), inner)
    difference, score, unit = _subtract(new_image, field, measured, clear, float(noise))
    crop = slice(BORDER, BORDER + side)
    expected = clear * new.flux / unit
    return Visit(
        field,
        exposure,
        detector,
        new_image[crop, crop],
        field.reference[crop, crop],
        difference[crop, crop],
        score[crop, crop],
        _inner(artefacts.cause, 0),
        measured,
        seeing * detector.focus,
        sky,
        new,
        hosts,
        np.asarray(expected),
    )


def _inner(image: np.ndarray, border: int) -> np.ndarray:
    cut_off = MARGIN - border
    return np.asarray(
        image[cut_off : image.shape[0] - cut_off, cut_off : image.shape[1] - cut_off]
    )


class _Shift:
    """The registration's error: a shift, and a stretch and turn towards the edges."""

    def __init__(self, linear: Array, side: int) -> None:
        self._linear = linear
        self._side = side

    def __call__(self, x: Array, y: Array) -> tuple[Array, Array]:
        u, v = 2 * x / self._side - 1, 2 * y / self._side - 1
        c = self._linear
        return c[0] + c[2] * u + c[4] * v, c[1] + c[3] * u + c[5] * v


def _registration(rng: np.random.Generator, side: int) -> _Shift:
    size = 0.07 if rng.uniform() < 0.8 else 0.25  # now and then it goes wrong
    return _Shift(size * rng.gamma(2.0, 0.5) * rng.standard_normal(6), side)


def _new_stars(
    field: Field,
    rng: np.random.Generator,
    n: int,
    magnitudes: tuple[float, float],
    slope: float,
    near_galaxies: float,
    variables: float,
    side: int,
) -> tuple[Sources, NDArray[np.int64]]:
    x, y = rng.uniform(3, side - 4, n), rng.uniform(3, side - 4, n)
    hosts = np.full(n, -1, np.int64)
    good = field.galaxies
    inside = (good.x > 8) & (good.x < side - 9) & (good.y > 8) & (good.y < side - 9)
    rows = np.flatnonzero(inside & (good.flux > frames.electrons(19.0)))
    near = rng.uniform(size=n) < near_galaxies
    if len(rows) and near.any():
        chosen = rng.choice(rows, int(near.sum()))
        # as the light lies: within a few half-light radii, most near the middle
        away = good.radius[chosen] * np.minimum(rng.gamma(1.5, 0.8, len(chosen)), 4.0)
        angle = rng.uniform(0, 2 * np.pi, len(chosen))
        x[near] = np.clip(good.x[chosen] + away * np.cos(angle), 3, side - 4)
        y[near] = np.clip(good.y[chosen] + away * np.sin(angle), 3, side - 4)
        hosts[near] = chosen
    flux = np.asarray(frames.electrons(frames.rising(rng, n, slope, *magnitudes)))
    if variables:
        stars, low, high = field.stars, *(frames.electrons(m) for m in magnitudes[::-1])
        inside = (stars.x > 3) & (stars.x < side - 4) & (stars.y > 3) & (stars.y < side - 4)
        rows = np.flatnonzero(inside & (stars.flux > low))
        vary = np.flatnonzero((hosts < 0) & (rng.uniform(size=n) < variables))
        vary = vary[: len(rows)]
        chosen = rng.choice(rows, len(vary), replace=False) if len(vary) else rows[:0]
        x[vary], y[vary], hosts[vary] = stars.x[chosen], stars.y[chosen], ON_STAR
        change = stars.flux[chosen] * 10 ** rng.uniform(-1.3, 0.3, len(vary))
        flux[vary] = np.clip(change, low, high)
    return frames.stars(x, y, flux), hosts


def _spoil_light(
    artefacts: Artefacts,
    seen: Sources,
    detector: Detector,
    rng: np.random.Generator,
    seeing: float,
) -> None:
    """What comes through the optics."""
    inside = (seen.x > 0) & (seen.x < artefacts.side) & (seen.y > 0) & (seen.y < artefacts.side)
    artefacts.around(seen.take(np.flatnonzero(inside & (seen.flux > 6e4))), detector, rng)
    for _ in range(rng.poisson(0.15)):
        artefacts.trail(rng, seeing / 2.35)


def _spoil_charge(artefacts: Artefacts, detector: Detector, rng: np.random.Generator) -> None:
    """What arises in the sensor and its electronics."""
    artefacts.pattern(detector, rng)
    artefacts.edge(rng)
    artefacts.cosmic_rays(int(rng.poisson(rng.gamma(2.0, 5.0))), rng)
    artefacts.hot_pixels(detector, rng)
    artefacts.columns(detector, rng)


# --- the survey's own pipeline ----------------------------------------------------------------


def _transform(psf: Array, side: int) -> NDArray[np.float32]:
    """Fourier transform of a point-spread function, real because it is symmetric."""
    seen = frames.MOFFAT_SIGMA[:, None] ** 2 * psf + np.array([1 / 12, 0, 1 / 12])
    transform = np.zeros((side, side // 2 + 1), np.float32)
    _add_transforms(transform, frames.MOFFAT_WEIGHT, 2 * np.pi**2 * seen)
    return transform


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_transforms(transform: Frame, weights: Array, covariances: Array) -> None:
    """Add w exp(-(xx fx^2 + 2 xy fx fy + yy fy^2)) for each row of covariances, along rows."""
    side, half = transform.shape
    step = 1.0 / side
    for i in range(side):
        fy = (i if i <= (side - 1) // 2 else i - side) * step
        for k in range(len(weights)):
            xx, xy, yy = covariances[k]
            value = weights[k] * math.exp(-yy * fy * fy)
            ratio = math.exp(-xx * step * step - 2 * xy * fy * step)
            turn = math.exp(-2 * xx * step * step)
            for j in range(half):
                transform[i, j] += value
                value *= ratio
                ratio *= turn


def _subtract(
    new: Frame, field: Field, psf: Array, scale: float, noise: float
) -> tuple[Frame, Frame, float]:
    """Convolve the reference, subtract it, filter the difference.

    Returns:
        Difference, score, and the flux [electrons] of a score of one on empty sky.
    """
    side = len(new)
    holes = ~np.isfinite(new) | ~np.isfinite(field.reference)
    filled = np.where(np.isfinite(new), new, np.float32(0))
    p_new = _transform(psf, side)
    t_difference = fft.rfft2(filled) - np.float32(scale) * p_new * field.transform
    difference = fft.irfft2(t_difference, s=new.shape)
    level = np.median(difference[::4, ::4])
    difference -= level
    if holes.any():
        # a hole counts as empty, or its border would be detected for itself alone
        difference[holes] = 0
        t_difference = fft.rfft2(difference)
    filtered = fft.irfft2(t_difference * p_new, s=new.shape)
    if not holes.any():
        filtered -= level
    variance = np.maximum(filled - difference, 0) + np.float32(noise**2)
    power = float(np.sum(p_new**2 @ _doubled(side))) / side**2
    score = filtered / np.sqrt(variance * np.float32(power))
    low, middle, high = np.percentile(score[::4, ::4], [15.87, 50, 84.13])
    spread = max((high - low) / 2, 1e-3)
    score = ((score - middle) / spread).astype(np.float32)
    score[holes] = np.nan
    difference[holes] = np.nan
    return difference.astype(np.float32), score, float(noise * spread / np.sqrt(power))


def detect(visit: Visit, *, threshold: float = 5.0, apart: float = 4.0) -> NDArray[np.int64]:
    """Positive peaks of the score: highest of 5 x 5 pixels, none within ``apart`` of another.

    Returns:
        (x, y) of each, strongest first, shape (n, 2).
    """
    score = visit.score
    with np.errstate(invalid="ignore"):  # NaN is no detection
        y, x = np.divmod(np.flatnonzero(score > threshold), score.shape[1])
    around = _around(score, np.column_stack([x, y]), 2)
    peak = score[y, x] >= np.where(np.isnan(around), -1, around).max(axis=1, initial=-1)
    x, y = x[peak], y[peak]
    order = np.argsort(-score[y, x], kind="stable")
    places = np.column_stack([x[order], y[order]]).astype(np.int64)
    if len(places) < 2:
        return places
    kept = np.ones(len(places), bool)
    for i, j in sorted(cKDTree(places).query_pairs(apart)):  # i < j: i is the stronger
        if kept[i]:
            kept[j] = False
    return places[kept]


def cut(visit: Visit, places: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """Cut stamps out, NaN beyond the frame, shape (n, 3, size, size) [counts].

    New and difference are in counts of the sensor, the reference keeps its own unit.
    """
    half, side = size // 2, len(visit.new)
    stamps = np.full((len(places), 3, size, size), np.nan, np.float32)
    for stamp, (x, y) in zip(stamps, places.tolist()):
        low_x, low_y = max(x - half, 0), max(y - half, 0)
        high_x, high_y = min(x + half + 1, side), min(y + half + 1, side)
        rows = slice(low_y - y + half, high_y - y + half)
        columns = slice(low_x - x + half, high_x - x + half)
        for channel, image in enumerate((visit.new, visit.reference, visit.difference)):
            stamp[channel, rows, columns] = image[low_y:high_y, low_x:high_x]
    stamps[:, [0, 2]] /= np.float32(visit.detector.gain)
    return stamps


def _around(image: np.ndarray, places: NDArray[np.int64], half: int) -> np.ndarray:
    """Pixels of the square around each place, the nearest ones beyond the edge, shape (n, k)."""
    grid = np.arange(-half, half + 1)
    y = np.clip(places[:, 1, None] + grid, 0, image.shape[0] - 1)
    x = np.clip(places[:, 0, None] + grid, 0, image.shape[1] - 1)
    return np.asarray(image[y[:, :, None], x[:, None, :]].reshape(len(places), -1))


# --- the truth --------------------------------------------------------------------------------


def tell(visit: Visit, places: NDArray[np.int64]) -> dict[str, np.ndarray]:
    """Say of each detection what it is.

    A detection is real if a new star lies within 2 px (or 0.7 of the seeing) of it and would give
    at least half of its score alone; otherwise it is bogus, whatever star was put there.

    Args:
        visit: The visit.
        places: (x, y) of the detections, shape (n, 2).

    Returns:
        Columns by name, as ``simulate_stamps`` lists them, with ``id`` and ``object``.
    """
    n = len(places)
    score = visit.score[places[:, 1], places[:, 0]].astype(np.float64)
    unit = _unit(visit)
    match, is_real = np.full(n, -1), np.zeros(n, bool)
    if n and len(visit.sources):
        tree = cKDTree(np.column_stack([visit.sources.x, visit.sources.y]))
        match = tree.query(places)[1]
        near = tree.query_ball_point(places, max(2.0, 0.7 * visit.seeing))
        due = np.array([visit.expected[rows].sum() for rows in near])
        # what counts is the light found, not how it compares with the noise of its place
        is_real = due > 0.5 * score * _local(visit, places)
    kind = np.where(is_real, "field", _causes(visit, places, score))
    host = np.where(is_real, visit.hosts[match] if len(visit.hosts) else -1, -1)
    kind = np.where(is_real & (host >= 0), "near_galaxy", kind)
    kind = np.where(is_real & (host == ON_STAR), "variable", kind)
    star_row, star_away = _nearest(visit.field.stars, places, 20.0)
    galaxy_row, galaxy_away = _nearest(visit.field.galaxies, places, 20.5)
    true = np.where(is_real, visit.sources.flux[match] if len(visit.sources) else np.nan, np.nan)
    names = [
        _object(visit, real, what, place, row, at, galaxy, near)
        for real, what, place, row, at, galaxy, near in zip(
            is_real.tolist(),
            kind.tolist(),
            places.tolist(),
            star_row.tolist(),
            star_away.tolist(),
            np.where(host >= 0, host, galaxy_row).tolist(),
            np.where(host >= 0, 0.0, galaxy_away).tolist(),
        )
    ]
    key = f"{visit.exposure}-{visit.detector.name}"
    return {
        "id": np.array([f"{key}-{x:03d}-{y:03d}" for x, y in places.tolist()], dtype=np.str_),
        "object": np.array(names, dtype=np.str_),
        "is_real": is_real,
        "kind": kind.astype(np.str_),
        "detector": np.full(n, visit.detector.name),
        "exposure": np.full(n, visit.exposure),
        "magnitude": frames.magnitude(score * _local(visit, places) * unit),
        "true_magnitude": np.asarray(frames.magnitude(np.where(is_real, true, -1.0))),
        "snr": score,
        "host_distance": galaxy_away * PIXEL_SCALE,
        "star_distance": star_away * PIXEL_SCALE,
        "seeing": np.full(n, visit.seeing * PIXEL_SCALE),
        "limit": np.full(n, float(frames.magnitude(5 * unit))),
        "x": places[:, 0].astype(np.float64),
        "y": places[:, 1].astype(np.float64),
    }


def _unit(visit: Visit) -> float:
    """[electrons above the atmosphere] of a score of one on empty sky."""
    if len(visit.sources):
        return float(visit.sources.flux[0] / visit.expected[0])
    power = _power(visit.psf)
    return float(np.sqrt((visit.sky + visit.detector.read_noise**2) / power))


def _power(psf: Array) -> float:
    """Sum of the squares of a point-spread function's pixels."""
    return float(np.sum(_transform(psf, 64) ** 2 @ _doubled(64))) / 64**2


def _doubled(side: int) -> Array:
    doubled = np.full(side // 2 + 1, 2.0)
    doubled[0] = doubled[-1] = 1.0
    return doubled


def _local(visit: Visit, places: NDArray[np.int64]) -> Array:
    """Noise at some places in units of that of empty sky."""
    new = visit.new[places[:, 1], places[:, 0]].astype(np.float64)
    difference = visit.difference[places[:, 1], places[:, 0]].astype(np.float64)
    light = np.maximum(np.nan_to_num(new - difference), 0)
    return np.asarray(np.sqrt(1 + light / (visit.sky + visit.detector.read_noise**2)))


def _nearest(
    sources: Sources, places: NDArray[np.int64], limit: float
) -> tuple[np.ndarray, Array]:
    """Row of the nearest source above a limit of brightness, and its distance [px]."""
    rows = np.flatnonzero(sources.flux > frames.electrons(limit))
    if not len(rows) or not len(places):
        return np.full(len(places), -1), np.full(len(places), np.nan)
    away, found = cKDTree(np.column_stack([sources.x[rows], sources.y[rows]])).query(places)
    return rows[found], np.asarray(away)


def _causes(visit: Visit, places: NDArray[np.int64], score: Array) -> np.ndarray:
    """Name the likeliest cause of detections of nothing."""
    n, side = len(places), len(visit.score)
    x, y = places[:, 0], places[:, 1]
    codes = _around(visit.cause, places, 1)
    painted = np.where(codes[:, 4] > 0, codes[:, 4], codes.max(axis=1, initial=0))
    # residuals of a source are expected within its width, wider where it is brighter
    star, star_away = _nearest(visit.field.stars, places, 17.5)
    galaxy, galaxy_away = _nearest(visit.field.galaxies, places, 18.5)
    flux = visit.field.stars.flux[star] if len(visit.field.stars) else np.zeros(n)
    reach = visit.seeing * (1 + 0.5 * np.log10(np.maximum(flux / 1e3, 1)))
    at_star = star_away < reach
    # with NaN distances (no such source) both comparisons are false, as they should be
    radius = visit.field.galaxies.radius[galaxy] if len(visit.field.galaxies) else np.zeros(n)
    at_galaxy = galaxy_away < visit.seeing + radius
    lowest = np.nan_to_num(_around(visit.score, places, 5)).min(axis=1, initial=0.0)
    is_dipole = lowest < -0.35 * score
    named = np.array(["", *frames.BOGUS_KINDS])[painted]
    at_edge = (np.minimum(x, y) < 5) | (np.maximum(x, y) >= side - 5)
    kind = np.where(at_galaxy, "galaxy", "noise")
    kind = np.where(at_star, np.where(is_dipole, "dipole", "residual"), kind)
    kind = np.where((painted == 0) & at_edge, "edge", kind)
    # a star's own spikes and halo begin at its core: there its residual is the cause
    own = np.isin(named, ["spike", "halo"]) & (star_away < 1.5 * visit.seeing)
    return np.where((painted > 0) & ~own, named, kind)


def _object(
    visit: Visit,
    is_real: bool,
    kind: str,
    place: list[int],
    star: int,
    star_away: float,
    galaxy: int,
    galaxy_away: float,
) -> str:
    """What the detection belongs to: what must not be divided between training and test."""
    field = visit.field.name
    if kind in {"hot_pixel", "column"}:
        # the same pixel of the same sensor in every field, and in every part of a survey
        prefix = field.rsplit("-", 1)[0].split(".", maxsplit=1)[0]
        where = f"x{place[0]}" if kind == "column" else f"x{place[0]}y{place[1]}"
        return f"{prefix}-{visit.detector.name}-{where}"
    if star_away < 6 and (not is_real or star_away < galaxy_away):
        return f"{field}-star{star}"
    if galaxy_away < 12:
        return f"{field}-galaxy{galaxy}"
    return f"{visit.exposure}-x{place[0]}y{place[1]}"


def visits(
    rng: np.random.Generator,
    *,
    n: int,
    detectors: Sequence[Detector] | None = None,
    n_new: int = 20,
) -> Iterator[Visit]:
    """Take n images of n fields: whole frames, for those who bring their own subtraction."""
    detectors = frames.make_detectors(side=SIDE) if detectors is None else detectors
    for i in range(n):
        field = draw_field(rng, f"frame-f{i:05d}")
        detector = frames.choose(detectors, rng)
        yield make_visit(field, detector, rng, exposure=f"{field.name}-v0", n_new=n_new)
