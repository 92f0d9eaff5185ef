"""Exposures of a simulated survey: fields, what is put into them, and the survey's own pipeline.

A field of stars and galaxies has one deep reference and is visited several times, each time by
another sensor under another seeing. New stars are put in, artefacts of sky, optics and electronics
too; the reference is convolved to the new image's point-spread function as the survey's pipeline
believes it to be, and subtracted.

The pipeline is the simulated survey's own (one kernel a frame, mean point-spread functions, one
registration), with its usual faults; it knows nothing of ``prep``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from skyvec.sim import frames
from skyvec.sim.frames import MARGIN, Array, Artefacts, Detector, Frame, Sources

SIDE = 512
"""[px] of a frame."""

BORDER = 8
"""[px] around a frame that takes part in convolutions, so that their wrap stays outside."""

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
        expected: Score each would have on empty sky, shape (n,); negative of what has faded.
        sign: -1 where difference, score and ``expected`` are turned round.
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
    sign: int = 1


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
    fading: bool = False,
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
        fading: Whether half of these have lost light instead.
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

    new, hosts = _new_stars(
        field, rng, n_new, magnitudes, slope, near_galaxies, variables, fading, side
    )
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
    fading: bool,
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
        if fading:
            faded = rng.uniform(size=len(vary)) < 0.5
            least = np.minimum(change, 0.95 * stars.flux[chosen])  # nothing loses more than it has
            flux[vary[faded]] = -np.clip(least, 0, high)[faded]
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


def power(psf: Array) -> float:
    """Sum of the squares of a point-spread function's pixels."""
    return float(np.sum(_transform(psf, 64) ** 2 @ _doubled(64))) / 64**2


def _doubled(side: int) -> Array:
    doubled = np.full(side // 2 + 1, 2.0)
    doubled[0] = doubled[-1] = 1.0
    return doubled
