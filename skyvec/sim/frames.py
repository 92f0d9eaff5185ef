"""Frames of a simulated survey: stars, galaxies and all that is no light from the sky.

Everything that shines is a mixture of round or elliptical Gaussians, so that a source seen through
a point-spread function has a closed form: the covariances add. Fluxes are in electrons of the
exposure, positions in pixels (x along a row), the pixel's own width is a covariance of 1/12.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Frame = NDArray[np.float32]

PIXEL_SCALE = 1.19
"""[arcsec] of a pixel, as that of Tomo-e Gozen."""

ZERO_POINT = 24.7
"""[mag] of one electron an exposure: 5 sigma at about 18 mag under the mean sky."""

MARGIN = 48
"""[px] Sources up to here outside a frame are drawn with what of them falls inside."""

WIDE = 8.0
"""[px] FWHM from which every source is drawn on the largest square."""

MOFFAT_SIGMA = np.array([0.32, 0.48, 0.85])
MOFFAT_WEIGHT = np.array([0.16139, 0.49554, 0.34307])
"""A Moffat profile of beta = 3 as three Gaussians, sigmas in units of its FWHM: within 0.5 % of
the peak everywhere."""

SERSIC_SIGMA = {1: np.array([0.15, 0.4, 0.75, 1.2]), 4: np.array([0.03, 0.12, 0.4, 1.1, 2.8])}
SERSIC_WEIGHT = {
    1: np.array([0.01559, 0.15707, 0.34461, 0.48273]),
    4: np.array([0.03548, 0.11125, 0.29178, 0.28735, 0.27414]),
}
"""Sersic profiles of index 1 and 4 as Gaussians, sigmas in units of the half-light radius, in the
manner of Hogg & Lang 2013. The faint wings beyond six radii are left out and their light given to
the rest: the middle of an n = 4 galaxy, seen through the air, is 8 % too bright."""

REAL_KINDS = ("field", "near_galaxy", "variable")
"""Where new light stands: anywhere, within a few radii of a galaxy, or on a star that has it."""

BOGUS_KINDS = (
    *("noise", "dipole", "residual", "saturated", "galaxy", "spike", "halo", "ghost"),
    *("hot_pixel", "column", "cosmic_ray", "trail", "pattern", "edge"),
)
"""Why a pipeline may detect something where nothing has happened."""

CAUSES = {kind: code for code, kind in enumerate(BOGUS_KINDS, 1)}


@dataclass(frozen=True)
class Detector:
    """A sensor and its habits, the same on every night.

    Args:
        name: Of the sensor.
        gain: [electrons per count].
        read_noise: [electrons].
        saturation: [electrons] above which a pixel is full.
        ellipticity: (e1, e2) that its optics add in the middle.
        ellipticity_slope: Change of (e1, e2) along x and y from the middle to the edge, (2, 2).
        focus: Factor of the seeing's FWHM.
        focus_slope: Relative change of the FWHM along x and y from the middle to the edge, (2,).
        hot: Pixels that are always too bright: x, y, mean electrons, shape (k, 3).
        columns: Bad columns: x, mean electrons (negative ones are dark), shape (c, 2).
        dead: Columns without a measurement, shape (d,).
        pattern: [electrons] rms of the offsets of rows from the read-out.
        amplifiers: Number of amplifiers side by side, each with its own offset.
        step: [electrons] rms of those offsets.
        crosstalk: Share of a bright pixel that appears mirrored on the neighbour amplifier.
        spike_angle: [rad] of the diffraction spikes.
        colour: rms of relative flux errors of stars, from the filter's difference to the
            reference's.
    """

    name: str
    gain: float
    read_noise: float
    saturation: float
    ellipticity: Array
    ellipticity_slope: Array
    focus: float
    focus_slope: Array
    hot: Array
    columns: Array
    dead: NDArray[np.int64]
    pattern: float
    amplifiers: int
    step: float
    crosstalk: float
    spike_angle: float
    colour: float


def make_detectors(
    n: int = 84, *, side: int = 512, seed: int = 0, mosaic: bool = True, focus: float = 1.0
) -> tuple[Detector, ...]:
    """Draw a camera: n sensors, each with habits of its own.

    Args:
        n: Number of sensors; Tomo-e Gozen has 84.
        side: [px] of a frame; hot pixels and columns lie inside.
        seed: Of the camera: the same seed gives the same sensors, whatever else is drawn.
        mosaic: Whether the optics grow worse from the first to the last sensor, as away from the
            middle of a wide field.
        focus: Factor of the FWHM of all of them, such as 2 for a camera of pixels half as wide
            (whose stars are then as many times fainter in a pixel), 4 for one out of focus.

    Raises:
        ValueError: The focus is not between 0.5 and 5.
    """
    if not 0.5 <= focus <= 5:
        raise ValueError(f"focus = {focus} must be a factor between 0.5 and 5")
    made = []
    for i in range(n):
        rng = np.random.default_rng([seed, 84, i])
        outer = i / max(n - 1, 1) if mosaic else 0.5
        n_hot, n_columns = rng.poisson(12), rng.poisson(0.4)
        hot = np.column_stack(
            [
                rng.uniform(0, side, n_hot),
                rng.uniform(0, side, n_hot),
                10 ** rng.uniform(2.0, 4.3, n_hot),
            ]
        )
        columns = np.column_stack(
            [
                rng.integers(0, side, n_columns),
                rng.choice([-1, 1], n_columns) * 10 ** rng.uniform(1.3, 2.5, n_columns),
            ]
        )
        made.append(
            Detector(
                name=f"s{i + 1:02d}",
                gain=rng.uniform(0.2, 3.0),
                read_noise=rng.uniform(5, 14),
                saturation=10 ** rng.uniform(4.6, 5.2),
                ellipticity=rng.normal(0, 0.03 + 0.05 * outer, 2),
                ellipticity_slope=rng.normal(0, 0.02 + 0.05 * outer, (2, 2)),
                focus=focus * (1 + rng.gamma(2.0, 0.02 + 0.03 * outer)),
                focus_slope=rng.normal(0, 0.02 + 0.04 * outer, 2),
                hot=hot,
                columns=columns,
                dead=rng.integers(0, side, rng.poisson(0.15)),
                pattern=rng.gamma(1.0, 2.0),
                amplifiers=int(rng.choice([1, 2, 4, 8])),
                step=rng.gamma(1.0, 2.0),
                crosstalk=10 ** rng.uniform(-4.5, -3.0),
                spike_angle=rng.uniform(0, np.pi / 2),
                colour=rng.uniform(0.01, 0.05),
            )
        )
    return tuple(made)


@dataclass(frozen=True)
class Sources:
    """Things that shine: stars have radius 0.

    Args:
        x: [px], shape (n,).
        y: [px], shape (n,).
        flux: [electrons an exposure], shape (n,).
        radius: Half-light radius [px], shape (n,); 0 for stars.
        index: Sersic index, 1 or 4, shape (n,).
        shape: (e1, e2) of the profile, shape (n, 2).
    """

    x: Array
    y: Array
    flux: Array
    radius: Array
    index: NDArray[np.int64]
    shape: Array

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> "Sources":
        """Give the sources asked for."""
        return Sources(
            self.x[rows],
            self.y[rows],
            self.flux[rows],
            self.radius[rows],
            self.index[rows],
            self.shape[rows],
        )

    def moved(self, dx: Array, dy: Array, factor: Array | float = 1.0) -> "Sources":
        """Give the sources shifted and made brighter by a factor."""
        return replace(self, x=self.x + dx, y=self.y + dy, flux=self.flux * factor)


def stars(x: Array, y: Array, flux: Array) -> Sources:
    """Point sources at given places."""
    n = len(x)
    return Sources(x, y, flux, np.zeros(n), np.ones(n, np.int64), np.zeros((n, 2)))


def electrons(magnitude: Array | float) -> Array:
    """Electrons an exposure of a magnitude: 10^(0.4 (ZERO_POINT - m))."""
    return np.asarray(10 ** (0.4 * (ZERO_POINT - np.asarray(magnitude, np.float64))))


def magnitude(flux: Array | float) -> Array:
    """Magnitude of electrons an exposure, NaN where they are not positive."""
    flux = np.asarray(flux, np.float64)
    positive = flux > 0
    safe = np.where(positive, flux, 1.0)
    return np.where(positive, ZERO_POINT - 2.5 * np.log10(safe), np.nan)


# --- drawing ----------------------------------------------------------------------------------


def shape_matrix(size: Array, e1: Array, e2: Array) -> Array:
    """Covariances (xx, xy, yy) of ellipses of equal area: size^2 [[1+e1, e2], [e2, 1-e1]] / q.

    Args:
        size: Radius of the round Gaussian of the same area, shape (n,).
        e1: In (-1, 1), e1^2 + e2^2 < 1, shape (n,).
        e2: As e1, along the diagonals.

    Returns:
        shape (n, 3); q = sqrt(1 - e1^2 - e2^2).
    """
    e = np.hypot(e1, e2)
    shrink = np.where(e > 0.8, 0.8 / np.maximum(e, 1e-9), 1.0)
    e1, e2 = e1 * shrink, e2 * shrink
    area = size**2 / np.sqrt(1 - e1**2 - e2**2)
    return np.stack([area * (1 + e1), area * e2, area * (1 - e1)], axis=-1)


def mixtures(sources: Sources, psf: Array) -> tuple[Array, Array]:
    """Weights (n, k) and covariances (n, k, 3) of sources seen through a point-spread function.

    Args:
        sources: Stars only, or galaxies only.
        psf: Covariance (xx, xy, yy) of a Gaussian of the function's FWHM for sigma, that is
            ``shape_matrix(fwhm, e1, e2)``, shape (n, 3).
    """
    pixel = np.array([1 / 12, 0.0, 1 / 12])
    seen = MOFFAT_SIGMA[:, None] ** 2 * psf[:, None, :] + pixel  # (n, 3, 3)
    n = len(sources)
    if not sources.radius.any():
        return np.broadcast_to(MOFFAT_WEIGHT, (n, 3)), seen
    is_disc = (sources.index == 1)[:, None]
    sigma = np.where(is_disc, np.append(SERSIC_SIGMA[1], 1.0), SERSIC_SIGMA[4])
    weight = np.where(is_disc, np.append(SERSIC_WEIGHT[1], 0.0), SERSIC_WEIGHT[4])
    own = shape_matrix(sources.radius, sources.shape[:, 0], sources.shape[:, 1])
    covariance = sigma[:, :, None, None] ** 2 * own[:, None, None, :] + seen[:, None]
    both = weight[:, :, None] * MOFFAT_WEIGHT
    return both.reshape(n, -1), covariance.reshape(n, -1, 3)


def paint(image: Frame, sources: Sources, psf: Array) -> None:
    """Add sources to an image that has a margin of MARGIN pixels on each side, in place.

    sum_k w_k exp(-1/2 r^T C_k^-1 r) / (2 pi sqrt(det C_k)), r from the source's place, on a square
    of 19 to 47 pixels that grows with the source's flux and width.

    Args:
        image: Drawn upon, square.
        sources: Stars only, or galaxies only; those outside the frame by more than half its
            margin are left out.
        psf: As ``mixtures`` wants it, shape (n, 3).
    """
    size = image.shape[0] - 2 * MARGIN
    inside = np.flatnonzero(
        (sources.x > -MARGIN / 2)
        & (sources.x < size + MARGIN / 2)
        & (sources.y > -MARGIN / 2)
        & (sources.y < size + MARGIN / 2)
    )
    if not len(inside):
        return
    chosen = sources.take(inside)
    is_star = chosen.radius == 0
    light = np.abs(chosen.flux)  # what has faded is painted dark
    half = np.where(is_star & (light < 5e3), 9, 15)
    half[light > np.where(is_star, 2e5, 4e4)] = MARGIN // 2 - 1
    seen = np.asarray(psf)[inside]
    # out of focus, or of fine pixels: what is wide needs a wide square
    wide = np.sqrt(np.maximum(seen[:, 0], seen[:, 2]))
    half = np.where(wide > WIDE, MARGIN // 2 - 1, half)
    weight, covariance = mixtures(chosen, seen)
    determinant = covariance[..., 0] * covariance[..., 2] - covariance[..., 1] ** 2
    peak = chosen.flux[:, None] * weight / (2 * np.pi * np.sqrt(determinant))
    inverse = covariance / determinant[..., None]
    _add_gaussians(image, chosen.x + MARGIN, chosen.y + MARGIN, half, peak, inverse)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_gaussians(
    image: Frame, x: Array, y: Array, half: NDArray[np.int64], peak: Array, inverse: Array
) -> None:
    """Add peak exp(-(a dx^2 + 2 b dx dy + c dy^2) / 2), (c, -b, a) being ``inverse``.

    Along a row the exponent is a parabola, so each value is the one before times a factor that
    itself changes by a constant factor: three exponentials a row instead of one a pixel. Both
    walks start at the pixel nearest the source, where nothing underflows.
    """
    for i in range(len(x)):
        ix, iy, h = int(np.rint(x[i])), int(np.rint(y[i])), half[i]
        fx = ix - x[i]
        for k in range(peak.shape[1]):
            if peak[i, k] == 0.0:
                continue
            a, b, c = inverse[i, k, 2], -inverse[i, k, 1], inverse[i, k, 0]
            turn = math.exp(-a)
            for row in range(iy - h, iy + h + 1):
                dy = row - y[i]
                start = peak[i, k] * math.exp(-0.5 * (a * fx * fx + 2 * b * fx * dy + c * dy * dy))
                for way in (1, -1):
                    value = start
                    ratio = math.exp(-0.5 * a * (1 + 2 * way * fx) - way * b * dy)
                    if way == 1:
                        image[row, ix] += value
                    for j in range(1, h + 1):
                        value *= ratio
                        ratio *= turn
                        image[row, ix + way * j] += value


# --- a field on the sky -----------------------------------------------------------------------


def draw_field(
    rng: np.random.Generator, side: int, *, galaxies: float = 60.0, density: float | None = None
) -> tuple[Sources, Sources]:
    """Draw the stars and galaxies of a field.

    Stars: numbers rise by 0.25 dex a magnitude from 8.5 to 19.5; galaxies: by 0.5 dex from 13.5 to
    20, larger when brighter, a third of them with a de Vaucouleurs profile.

    Args:
        rng: Generator.
        side: [px] of the field.
        galaxies: Mean number of galaxies.
        density: Mean number of stars; drawn between those of the galactic pole and of the plane
            if not given.

    Returns:
        Stars and galaxies.
    """
    if density is None:
        density = np.exp(rng.uniform(np.log(150), np.log(1000)))
    n = rng.poisson(density)
    found = stars(
        rng.uniform(-20, side + 20, n),
        rng.uniform(-20, side + 20, n),
        electrons(rising(rng, n, 0.25, 8.5, 19.5)),
    )
    n = rng.poisson(galaxies)
    brightness = rising(rng, n, 0.5, 13.5, 20.0)
    radius = 10 ** (0.45 - 0.13 * (brightness - 17) + rng.normal(0, 0.15, n)) / PIXEL_SCALE
    e = np.clip(rng.rayleigh(0.25, n), 0, 0.75)
    angle = rng.uniform(0, 2 * np.pi, n)
    hosts = Sources(
        rng.uniform(0, side, n),
        rng.uniform(0, side, n),
        electrons(brightness),
        np.clip(radius, 0.4, 14.0),
        rng.choice([1, 4], n, p=[0.67, 0.33]),
        np.column_stack([e * np.cos(angle), e * np.sin(angle)]),
    )
    return found, hosts


def rising(rng: np.random.Generator, n: int, slope: float, bright: float, faint: float) -> Array:
    """Magnitudes whose numbers rise by a slope [dex per mag]; uniform where it is 0."""
    u = rng.uniform(size=n)
    if slope == 0:
        return np.asarray(bright + (faint - bright) * u)
    low, high = 10 ** (slope * bright), 10 ** (slope * faint)
    return np.asarray(np.log10(low + (high - low) * u) / slope)


# --- what is no light from the sky ------------------------------------------------------------


class Artefacts:
    """Draws artefacts into a frame and remembers which pixels each kind spoiled.

    Args:
        image: Frame with a margin, in electrons; drawn upon in place.
        noise: [electrons] rms of a pixel of empty sky; weaker traces are not remembered.
    """

    def __init__(self, image: Frame, noise: float) -> None:
        self.image = image
        self.noise = noise
        self.side = image.shape[0] - 2 * MARGIN
        self.cause = np.zeros(image.shape, np.int8)

    def add(self, kind: str, patch: np.ndarray, x: int, y: int, *, least: float = 1.0) -> None:
        """Add a patch whose first pixel is (x, y), counted without the margin."""
        height, width = patch.shape
        full = self.image.shape[0]
        x0, y0 = x + MARGIN, y + MARGIN
        cut_x = slice(max(0, -x0), max(0, min(width, full - x0)))
        cut_y = slice(max(0, -y0), max(0, min(height, full - y0)))
        part = patch[cut_y, cut_x]
        if not part.size:
            return
        rows = slice(y0 + cut_y.start, y0 + cut_y.start + part.shape[0])
        columns = slice(x0 + cut_x.start, x0 + cut_x.start + part.shape[1])
        self.image[rows, columns] += part
        spoiled = np.abs(part) > least * self.noise
        self.cause[rows, columns][spoiled] = CAUSES[kind]

    def hot_pixels(self, detector: Detector, rng: np.random.Generator) -> None:
        """Pixels of the detector that are always bright, some of them resting tonight."""
        awake = detector.hot[rng.uniform(size=len(detector.hot)) < 0.7]
        for x, y, level in awake.tolist():
            # read-out, stacking and resampling share a pixel among its neighbours
            blur = rng.uniform(0.3, 0.62)
            patch = _blob(x % 1 - 0.5, y % 1 - 0.5, blur, 2)
            self.add("hot_pixel", level * rng.lognormal(0, 0.3) * patch, int(x) - 2, int(y) - 2)

    def columns(self, detector: Detector, rng: np.random.Generator) -> None:
        """Bad columns, from a random row on."""
        for x, level in detector.columns.tolist():
            first = int(rng.integers(0, self.side // 2)) * int(rng.integers(0, 2))
            length = self.side - first
            column = level * (1 + 0.3 * rng.standard_normal(length))
            self.add("column", column[:, None].astype(np.float32), int(x), first)

    def cosmic_rays(self, n: int, rng: np.random.Generator) -> None:
        """Straight, sharp tracks of 1 to 25 pixels."""
        for _ in range(n):
            length = 1 + min(rng.exponential(4.0), 24.0)
            angle = rng.uniform(0, 2 * np.pi)
            charge = 10 ** rng.uniform(2.6, 4.2)
            t = np.arange(0, length, 0.25)
            x = 13 + t * np.cos(angle) - length / 2 * np.cos(angle)
            y = 13 + t * np.sin(angle) - length / 2 * np.sin(angle)
            patch = np.zeros((28, 28), np.float32)
            for shift_x, shift_y, share in _NEAR:
                np.add.at(
                    patch,
                    (np.floor(y + shift_y).astype(int), np.floor(x + shift_x).astype(int)),
                    share * charge / len(t) * rng.uniform(0.5, 1.5, len(t)),
                )
            x0, y0 = rng.integers(-13, self.side - 13, 2)
            self.add("cosmic_ray", patch, int(x0), int(y0))

    def trail(self, rng: np.random.Generator, width: float) -> None:
        """A satellite, an aeroplane or a meteor: a line across the frame, steady or flashing."""
        angle = rng.uniform(0, np.pi)
        through = rng.uniform(0.1, 0.9, 2) * self.side
        height = self.noise * 10 ** rng.uniform(0.2, 1.6)
        width = width * (1 if rng.uniform() < 0.7 else rng.uniform(1.5, 3.5))
        y, x = np.ogrid[: self.side, : self.side]
        across = ((x - through[0]) * np.sin(angle) - (y - through[1]) * np.cos(angle)) / width
        near = np.abs(across) < 4
        rows, columns = np.nonzero(near)
        light = np.exp(-0.5 * across[near] ** 2)
        if rng.uniform() < 0.4:
            along = columns * np.cos(angle) + rows * np.sin(angle)
            light *= 0.5 + 0.5 * np.cos(2 * np.pi * along / rng.uniform(15, 120))
        values = (height * light).astype(np.float32)
        self.image[rows + MARGIN, columns + MARGIN] += values
        strong = values > 0.5 * self.noise
        self.cause[rows[strong] + MARGIN, columns[strong] + MARGIN] = CAUSES["trail"]

    def pattern(self, detector: Detector, rng: np.random.Generator) -> None:
        """Offsets of rows and of amplifiers, and now and then a burst of disturbed rows."""
        side = self.side
        inner = self.image[MARGIN : MARGIN + side, MARGIN : MARGIN + side]
        rows = detector.pattern * rng.standard_normal(side).astype(np.float32)
        inner += rows[:, None]
        width = side // detector.amplifiers
        for k in range(detector.amplifiers):
            inner[:, k * width : (k + 1) * width] += np.float32(
                detector.step * rng.standard_normal()
            )
        for _ in range(rng.poisson(0.25)):
            height = int(rng.integers(1, 4))
            first = int(rng.integers(0, side - height))
            k = int(rng.integers(0, detector.amplifiers))
            period = rng.uniform(4, 40)
            x = np.arange(width)
            wave = np.maximum(np.sin(2 * np.pi * x / period + rng.uniform(0, 6)), 0)
            level = self.noise * 10 ** rng.uniform(0.5, 1.3)
            patch = np.broadcast_to(level * wave, (height, width)).astype(np.float32)
            self.add("pattern", patch, k * width, first)

    def around(self, sources: Sources, detector: Detector, rng: np.random.Generator) -> None:
        """Spikes, halo, ghost and crosstalk of the brightest stars."""
        for x, y, flux in zip(sources.x.tolist(), sources.y.tolist(), sources.flux.tolist()):
            ix, iy = round(x), round(y)
            self._spikes(ix, iy, flux, detector, rng)
            if flux > 1.2e6:
                self._ring("halo", ix, iy, 4e-5 * flux, rng.uniform(14, 30), rng)
            if flux > 1.2e6 and rng.uniform() < 0.6:
                away = rng.normal(0, 60, 2)
                at = round(x + away[0]), round(y + away[1])
                self._ring("ghost", *at, 3e-5 * flux, rng.uniform(5, 12), rng)
            mirrored = self.side - 1 - ix
            level = detector.crosstalk * min(flux * 0.08, detector.saturation)
            if detector.amplifiers > 1 and level > self.noise:
                patch = level * rng.choice([-1, 1]) * _blob(0, 0, 1.0, 4) * 2 * np.pi
                self.add("ghost", patch, mirrored - 4, iy - 4)

    def _spikes(
        self, x: int, y: int, flux: float, detector: Detector, rng: np.random.Generator
    ) -> None:
        reach = min(int(12 * (flux / 1e5) ** 0.5), 90)
        if reach < 8:
            return
        grid = np.arange(-reach, reach + 1, dtype=np.float32)
        angle = detector.spike_angle + rng.normal(0, 0.01)
        patch = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        for turn in (angle, angle + np.pi / 2):
            along = grid[None, :] * np.cos(turn) + grid[:, None] * np.sin(turn)
            across = grid[:, None] * np.cos(turn) - grid[None, :] * np.sin(turn)
            fall = 1 / (3 + np.abs(along)) ** 1.3
            patch += np.exp(-0.5 * (across / 1.1) ** 2) * fall * (np.abs(along) < reach)
        self.add("spike", 3e-3 * flux * rng.uniform(0.5, 1.5) * patch, x - reach, y - reach)

    def _ring(
        self, kind: str, x: int, y: int, height: float, radius: float, rng: np.random.Generator
    ) -> None:
        half = int(radius + 6)
        grid = np.arange(-half, half + 1)
        r = np.hypot(grid[:, None], grid[None, :])
        ring = 1 / (1 + np.exp((r - radius) / 0.8))
        if rng.uniform() < 0.5:
            ring = ring - 1 / (1 + np.exp((r - 0.4 * radius) / 0.8))
        self.add(kind, (height * ring).astype(np.float32), x - half, y - half)

    def edge(self, rng: np.random.Generator) -> None:
        """A glow of the read-out along one edge of the sensor."""
        depth = np.exp(-np.arange(12) / rng.uniform(0.7, 2.5))
        level = self.noise * rng.gamma(1.0, 0.5)
        patch = np.tile((level * depth).astype(np.float32)[:, None], (1, self.side))
        turn = int(rng.integers(4))
        far = self.side - 12
        x, y = ((0, 0), (0, 0), (0, far), (far, 0))[turn]
        turned = (patch, patch.T, patch[::-1], patch[::-1].T)[turn]
        self.add("edge", turned, x, y)

    def saturate(self, level: float) -> NDArray[np.bool_]:
        """Fill pixels up to a level, let what is too much bleed along columns; say which."""
        full = self.image > level
        for column in np.flatnonzero(full.any(axis=0)).tolist():
            values = self.image[:, column]
            excess = float(np.sum(values[full[:, column]] - level))
            rows = np.flatnonzero(full[:, column])
            reach = min(int(excess / level), 120)
            low, high = max(rows[0] - reach // 2, 0), rows[-1] + reach // 2 + 1
            values[low:high] = np.maximum(values[low:high], level)
            full[low:high, column] = True
        np.minimum(self.image, level, out=self.image)
        self.cause[full] = CAUSES["saturated"]
        return full


_NEAR = (
    *((0.0, 0.0, 0.76), (1.0, 0.0, 0.06), (-1.0, 0.0, 0.06)),
    *((0.0, 1.0, 0.06), (0.0, -1.0, 0.06)),
)


def _blob(dx: float, dy: float, sigma: float, half: int) -> Frame:
    grid = np.arange(-half, half + 1)
    x = np.exp(-0.5 * ((grid - dx) / sigma) ** 2)
    y = np.exp(-0.5 * ((grid - dy) / sigma) ** 2)
    patch = np.outer(y, x) / (2 * np.pi * sigma**2)
    return np.asarray(patch, np.float32)


def psf_matrix(
    x: Array, y: Array, fwhm: float, shake: Array, detector: Detector | None, side: int
) -> Array:
    """Point-spread function at some places, as ``mixtures`` wants it.

    Args:
        x: [px], shape (n,).
        y: [px], shape (n,).
        fwhm: Seeing [px].
        shake: (e1, e2) of the exposure, from wind and tracking.
        detector: Whose optics add their own; none for a reference of good images.
        side: [px] of the frame.

    Returns:
        Covariances of a Gaussian with the FWHM for sigma, shape (n, 3).
    """
    if detector is None:
        size, e1, e2 = np.full(len(x), fwhm), np.full(len(x), shake[0]), np.full(len(x), shake[1])
        return shape_matrix(size, e1, e2)
    u = np.clip(2 * x / side - 1, -1.1, 1.1)
    v = np.clip(2 * y / side - 1, -1.1, 1.1)
    slope = detector.ellipticity_slope
    e1 = shake[0] + detector.ellipticity[0] + slope[0, 0] * u + slope[0, 1] * v
    e2 = shake[1] + detector.ellipticity[1] + slope[1, 0] * u + slope[1, 1] * v
    change = detector.focus_slope[0] * u + detector.focus_slope[1] * v
    return shape_matrix(fwhm * detector.focus * (1 + change), e1, e2)


def background(rng: np.random.Generator, side: int, level: float, roughness: float) -> Frame:
    """A sky that is not flat: a plane and a bowl of relative strength ``roughness``."""
    u = np.linspace(-1, 1, side, dtype=np.float32)
    c = (level * roughness * rng.standard_normal(5)).astype(np.float32)
    x, y = u[None, :], u[:, None]
    along = np.float32(level) + c[0] * x + c[3] * x**2
    return np.asarray(along + (c[1] * y + c[4] * y**2) + (c[2] * y) * x)


def choose(detectors: Sequence[Detector], rng: np.random.Generator) -> Detector:
    """One detector of a camera."""
    return detectors[int(rng.integers(len(detectors)))]
