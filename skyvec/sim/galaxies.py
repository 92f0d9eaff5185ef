"""Made-up galaxies with exact truth, seen by one telescope or by two: paired surveys.

A galaxy is a sum of parts, each with its own colour: bulge and disc by GalSim, arms, bars and
tidal tails by warped profiles in the plane of the disc. Each telescope sees all parts through its
own PSF, pixels, bands' response and noise. The truth travels as columns of the catalogue.

GalSim is an extra: ``pip install 'skyvec[galaxies]'``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import Catalog, Images
from skyvec.sim.artefacts import ARTEFACTS, inject

Numbers = NDArray[np.float64]

KINDS = ("elliptical", "edge_on", "disc", "spiral", "barred", "merger")
"""``barred`` are spirals with a bar; ``disc`` has neither arms nor bar."""

FINE = 2
"""Arms are drawn on a grid so many times finer than the pixels."""
SEEINGS = (0.85, 0.93, 1.0, 1.08, 1.2)
"""A galaxy is seen at one of these multiples of the telescope's usual seeing."""
ZERO_POINT = 22.5
"""[mag] of 1 nanomaggy."""

COLOURS = {  # flux in g, r, z of a part whose flux in r is 1
    "old": (0.45, 1.0, 1.7),
    "disc": (0.60, 1.0, 1.4),
    "young": (0.85, 1.0, 1.1),
}
STAR_COLOURS = ((0.35, 1.0, 2.0), (0.7, 1.0, 1.25), (1.2, 1.0, 0.8))


@dataclass(frozen=True)
class Telescope:
    """What makes two surveys of the same sky look different.

    Args:
        name: Part of the ids of its images.
        pixel_scale: [arcsec].
        seeing: Full width of the PSF at half maximum, usually [arcsec].
        beta: Exponent of its Moffat profile, > 1.
        noise: Of the sky in each band [nanomaggy per arcsec, over an area A: noise sqrt(A)].
        exposure: Photons in g, r, z for one nanomaggy.
        response: What each band sees of the true flux.
        bands: Names of the bands.
    """

    name: str
    pixel_scale: float
    seeing: float
    beta: float
    noise: tuple[float, ...]
    exposure: float
    response: tuple[float, ...] = (1.0, 1.0, 1.0)
    bands: tuple[str, ...] = ("g", "r", "z")

    def __post_init__(self) -> None:
        if not (self.pixel_scale > 0 and self.seeing > 0 and self.beta > 1):
            raise ValueError(
                f"telescope {self.name} needs pixel_scale and seeing > 0 and beta > 1, not "
                f"{self.pixel_scale}, {self.seeing} and {self.beta}"
            )


TELESCOPES = {
    # 0.396 arcsec, 54 s: about 22.2 mag for a star at five sigma in r
    "sdss": Telescope("sdss", 0.396, 1.35, 3.0, (0.035, 0.05, 0.17), 25.0),
    # 0.262 arcsec, a larger mirror and longer exposures: 1.3 mag deeper
    "decals": Telescope(
        "decals", 0.262, 1.15, 3.5, (0.011, 0.015, 0.05), 300.0, (0.92, 1.05, 1.1)
    ),
}


class _Part(NamedTuple):
    """One part of a galaxy.

    Args:
        flux: In r [nanomaggy].
        colour: Key of ``COLOURS``.
        profile: A GalSim profile of flux 1, or the parameters of a map by name.
        place: Offset of its centre in x and y [arcsec].
    """

    flux: float
    colour: str
    profile: Any
    place: tuple[float, float]


class _Plane(NamedTuple):
    """The plane of a disc on the sky: axis ratio and position angle of the major axis [rad]."""

    axis_ratio: float
    angle: float


class _Map(NamedTuple):
    """A profile warped in the plane of a disc, in arcsec and radians; see :func:`_light`."""

    shape: str
    plane: _Plane
    scale: float
    arms: int = 0
    winding: int = 0
    pitch: float = 0.0
    phase: float = 0.0
    length: float = 0.0


TRUTHS = (
    "arms",
    "winding",
    "pitch",
    "bar",
    "bulge",
    "axis_ratio",
    "angle",
    "radius",
    "magnitude",
)
Truth = dict[str, float]


def simulate_galaxies(
    n: int,
    rng: np.random.Generator,
    *,
    telescopes: Sequence[Telescope] = (TELESCOPES["sdss"],),
    kinds: Sequence[str] = KINDS,
    size: int = 64,
    artefacts: float = 0.02,
    first: int = 0,
) -> list[tuple[Catalog, Images]]:
    """Draw galaxies and see each with every telescope.

    Columns of the catalogue: ``label`` (kind), ``artefact`` (what was injected into this image,
    or empty; drawn for each telescope by itself), ``arms`` (number, 0 = none), ``winding`` (1 =
    the arms trail counter-clockwise outwards with x right and y up, -1 = clockwise, 0 = no arms),
    ``pitch`` [deg], ``bar`` (length / scale radius), ``bulge`` (share of the flux in r),
    ``axis_ratio``, ``angle`` (of the major axis from x towards y [deg, 0 to 180)), ``radius``
    (half-light or scale radius [arcsec]), ``magnitude`` (in r, of the whole). Of mergers these are
    of the first galaxy, but the magnitude is of all.

    Args:
        n: How many galaxies.
        rng: Draws all of it; each galaxy has a stream of its own.
        telescopes: Who looks; the same galaxies in the same order for each.
        kinds: What to draw, each equally often, from ``KINDS``.
        size: Side of the images [pixel], even.
        artefacts: Share of the images with a trail, a saturated star, a ghost or a gap.
        first: Number of the first galaxy; the target is ``GAL <number>``.

    Returns:
        For each telescope its catalogue and images [nanomaggy a pixel]; NaN in gaps.

    Raises:
        ValueError: An unknown kind, an odd size, a share outside [0, 1], or no telescope.
        ModuleNotFoundError: GalSim is not installed.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"unknown kind of galaxy {unknown}; choose from {', '.join(KINDS)}")
    if size < 16 or size % 2:
        raise ValueError(f"size = {size} must be even and at least 16 pixels")
    if not 0 <= artefacts <= 1 or n < 0:
        raise ValueError(f"artefacts = {artefacts} must be in [0, 1] and n = {n} >= 0")
    if not telescopes:
        raise ValueError("galaxies need at least one telescope to be seen with")
    pixels = [np.empty((n, len(t.bands), size, size), np.float32) for t in telescopes]
    wrong = [[""] * n for _ in telescopes]
    drawn = rng.permutation(np.array(kinds)[np.arange(first, first + n) % len(kinds)])
    ra, dec = rng.uniform(0, 360, n), np.rad2deg(np.arcsin(rng.uniform(-1, 1, n)))
    truths: list[Truth] = []
    for i, own in enumerate(rng.spawn(n)):
        parts, truth = _draw(str(drawn[i]), own)
        truths.append(truth)
        for which, (telescope, eye) in enumerate(zip(telescopes, own.spawn(len(telescopes)))):
            seen = _see(parts, telescope, size, eye)
            if eye.random() < artefacts:
                name = str(eye.choice(ARTEFACTS))
                seen, wrong[which][i] = inject(seen, name, eye), name
            pixels[which][i] = seen
    target = np.array([f"GAL {first + i}" for i in range(n)], dtype=np.str_)
    columns: dict[str, np.ndarray] = {"label": drawn.astype(np.str_)}
    columns |= {name: np.array([truth[name] for truth in truths]) for name in TRUTHS}
    return [
        (
            Catalog(
                _ids(target, telescope),
                target,
                ra,
                dec,
                {**columns, "artefact": np.array(wrong[which], dtype=np.str_)},
            ),
            Images(
                _ids(target, telescope),
                pixels[which],
                telescope.bands,
                telescope.pixel_scale,
                "nmgy",
            ),
        )
        for which, telescope in enumerate(telescopes)
    ]


def _ids(target: NDArray[np.str_], telescope: Telescope) -> NDArray[np.str_]:
    return np.array([f"{name}/{telescope.name}" for name in target.tolist()], dtype=np.str_)


# --- what there is ----------------------------------------------------------------------------


def _draw(kind: str, rng: np.random.Generator) -> tuple[list[_Part], Truth]:
    """Draw a galaxy of a kind: its parts and its truth."""
    magnitude = float(rng.uniform(15.0, 17.8))
    flux = 10 ** (0.4 * (ZERO_POINT - magnitude))
    if kind == "merger":
        return _draw_merger(flux, rng)
    if kind == "elliptical":
        return _draw_elliptical(flux, rng)
    return _draw_disc(kind, flux, rng)


def _draw_elliptical(flux: float, rng: np.random.Generator) -> tuple[list[_Part], Truth]:
    radius, axis_ratio = float(rng.uniform(0.8, 2.6)), float(rng.uniform(0.6, 1.0))
    angle = float(rng.uniform(0, np.pi))
    profile = _sersic(float(rng.choice([2.5, 3.0, 4.0])), radius, axis_ratio, angle)
    truth = _truth(flux, bulge=1.0, axis_ratio=axis_ratio, angle=angle, radius=radius)
    return [_Part(flux, "old", profile, (0.0, 0.0))], truth


def _draw_disc(kind: str, flux: float, rng: np.random.Generator) -> tuple[list[_Part], Truth]:
    """Bulge and disc, with arms and a bar as the kind asks."""
    galsim = _galsim()
    angle, scale = float(rng.uniform(0, np.pi)), float(rng.uniform(1.2, 2.4))
    inclination = float(rng.uniform(82, 90) if kind == "edge_on" else rng.uniform(0, 55))
    axis_ratio = float(np.cos(np.deg2rad(inclination)))
    plane = _Plane(max(axis_ratio, 0.1), angle)
    bulge = float(rng.uniform(0.03, 0.35))
    disc = galsim.InclinedExponential(
        inclination * galsim.degrees, scale_radius=scale, scale_h_over_r=0.1
    ).rotate(angle * galsim.radians)
    core = _sersic(1.5, 0.25 * scale, max(0.6, axis_ratio), angle)
    bar = float(rng.uniform(0.8, 1.4)) if kind == "barred" else 0.0
    arms, winding, pitch = 0, 0, 0.0
    share = {"bar": 0.12 if bar else 0.0, "arms": 0.0}
    maps: dict[str, _Map] = {}
    if bar:
        maps["bar"] = _Map(
            "bar", plane, scale, phase=float(rng.uniform(0, np.pi)), length=bar * scale
        )
    if kind in ("spiral", "barred"):
        arms = int(rng.choice([2, 3, 4], p=[0.65, 0.2, 0.15]))
        winding, pitch = int(rng.choice([-1, 1])), float(rng.uniform(12, 30))
        share["arms"] = float(rng.uniform(0.2, 0.45))
        maps["arms"] = _Map(
            "arms",
            plane,
            scale,
            arms,
            winding,
            np.deg2rad(pitch),
            float(rng.uniform(0, 2 * np.pi)),
            bar * scale,
        )
    smooth = (1 - bulge) * (1 - sum(share.values()))
    here = (0.0, 0.0)
    parts = [_Part(flux * bulge, "old", core, here), _Part(flux * smooth, "disc", disc, here)]
    for name, one in maps.items():
        colour = "old" if name == "bar" else "young"
        parts.append(_Part(flux * (1 - bulge) * share[name], colour, one, here))
    truth = _truth(
        flux,
        arms=arms,
        winding=winding,
        pitch=pitch,
        bar=bar,
        bulge=bulge,
        axis_ratio=axis_ratio,
        angle=angle,
        radius=scale,
    )
    return parts, truth


def _draw_merger(flux: float, rng: np.random.Generator) -> tuple[list[_Part], Truth]:
    """Two galaxies close together, and the tails they draw out of each other."""
    share = float(rng.uniform(0.3, 0.5))
    apart, towards = float(rng.uniform(1.6, 4.0)), float(rng.uniform(0, 2 * np.pi))
    parts: list[_Part] = []
    truth: Truth = {}
    for i, part in enumerate((1 - share, share)):
        kind = str(rng.choice(["elliptical", "disc", "spiral"]))
        own, own_truth = _draw_elliptical(1.0, rng) if kind == "elliptical" else _draw_disc(
            kind, 1.0, rng
        )  # fmt: skip
        truth = truth or own_truth
        far = apart * (share if i == 0 else share - 1)
        place = (far * np.cos(towards), far * np.sin(towards))
        parts += [one._replace(flux=one.flux * part * flux * 0.85, place=place) for one in own]
    for winding in (-1, 1)[: int(rng.integers(1, 3))]:
        tail = _Map(
            "tail",
            _Plane(float(rng.uniform(0.4, 1)), float(rng.uniform(0, np.pi))),
            apart,
            winding=winding,
            phase=float(rng.uniform(0, 2 * np.pi)),
        )
        parts.append(_Part(0.15 * flux, "young", tail, (0.0, 0.0)))
    whole = sum(part.flux for part in parts)
    parts = [part._replace(flux=part.flux * flux / whole) for part in parts]
    truth["magnitude"] = float(ZERO_POINT - 2.5 * np.log10(flux))
    return parts, truth


def _truth(flux: float, *, angle: float, **known: float) -> Truth:
    truth = dict.fromkeys(TRUTHS, 0.0) | known
    truth["angle"] = float(np.rad2deg(angle))
    truth["magnitude"] = float(ZERO_POINT - 2.5 * np.log10(flux))
    return truth


def _sersic(index: float, radius: float, axis_ratio: float, angle: float) -> Any:
    """A bulge; without the faintest part of its wings, which would need huge transforms."""
    galsim = _galsim()
    profile = galsim.Sersic(index, half_light_radius=radius, trunc=6 * radius)
    return profile.shear(q=axis_ratio, beta=angle * galsim.radians)


# --- what is seen -----------------------------------------------------------------------------


def _see(
    parts: list[_Part], telescope: Telescope, size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """One image of a galaxy and what happens to lie around it, (C, size, size)."""
    seeing = float(rng.choice(SEEINGS))
    response = np.array(telescope.response)
    off = rng.uniform(-0.5, 0.5, 2) * telescope.pixel_scale  # catalogues point a little beside
    image = np.zeros((len(telescope.bands), size, size))
    fine: dict[str, Numbers] = {}
    for part in parts:
        place = (part.place[0] + off[0], part.place[1] + off[1])
        if isinstance(part.profile, _Map):
            light = _light(part.profile, telescope.pixel_scale / FINE, size * FINE, place)
            fine[part.colour] = fine.get(part.colour, 0.0) + part.flux * light
        else:
            light = _drawn(part.profile, telescope, seeing, size, place)
            colour = np.array(COLOURS[part.colour]) * response
            image += part.flux * colour[:, None, None] * light
    for name, light in fine.items():
        blurred = _through(light, telescope, seeing, size)
        image += (np.array(COLOURS[name]) * response)[:, None, None] * blurred
    image += _stars(telescope, seeing, size, rng) * response[:, None, None]
    photons = np.maximum(image, 0) / telescope.exposure
    sky = np.array(telescope.noise) * telescope.pixel_scale
    sigma = np.sqrt(sky[:, None, None] ** 2 + photons)
    return (image + sigma * rng.standard_normal(image.shape)).astype(np.float32)


def _drawn(
    profile: Any, telescope: Telescope, seeing: float, size: int, place: tuple[float, float]
) -> Numbers:
    """A GalSim profile through PSF and pixels, (size, size)."""
    galsim = _galsim()
    seen = galsim.Convolve([profile, _psf(telescope, seeing)], gsparams=_accuracy())
    image = seen.shift(*place).drawImage(nx=size, ny=size, scale=telescope.pixel_scale)
    return np.asarray(image.array, np.float64)


def _light(one: _Map, step: float, size: int, place: tuple[float, float]) -> Numbers:
    """Light of a warped profile on a fine grid, of sum 1, (size, size).

    In the plane of the disc, with radius r and azimuth t, h the scale radius:

    * arms: r exp(-r / h) / (r + h/2) max(0, cos(m (t - w ln(r / h) / tan(pitch)) + phase))^2,
      from the end of the bar (or h/2) outwards;
    * bar: exp(-(u / length)^4 - (v / (0.22 length))^2), u along the bar;
    * tail: a ridge of width h/4 along the radius h (0.6 + 0.5 |t|) from t = 0 to 3.5 rad.
    """
    axis = (np.arange(size) - (size - 1) / 2) * step
    x, y = axis[None] - place[0], axis[:, None] - place[1]
    cos, sin = np.cos(one.plane.angle), np.sin(one.plane.angle)
    u, v = x * cos + y * sin, (y * cos - x * sin) / one.plane.axis_ratio
    r = np.hypot(u, v) + 1e-6
    if one.shape == "bar":
        along = (u * np.cos(one.phase) + v * np.sin(one.phase)) / one.length
        across = (v * np.cos(one.phase) - u * np.sin(one.phase)) / one.length
        light = np.exp(-(along**4) - (across / 0.22) ** 2)
    elif one.shape == "arms":
        t = np.arctan2(v, u) - one.winding * np.log(r / one.scale) / np.tan(one.pitch)
        ridge = np.maximum(0, np.cos(one.arms * t + one.phase)) ** 2
        start = max(0.7 * one.length, 0.4 * one.scale)
        opening = 1 / (1 + np.exp(-(r - start) / (0.15 * one.scale)))
        light = ridge * opening * np.exp(-r / (1.2 * one.scale))
    else:
        t = (one.winding * (np.arctan2(v, u) - one.phase)) % (2 * np.pi)
        ridge = one.scale * (0.6 + 0.5 * t)
        fades = np.exp(-t / 1.5) * (t < 3.5)
        light = fades * np.exp(-(((r - ridge) / (0.25 * one.scale)) ** 2) / 2)
    total = light.sum()
    return np.asarray(light / total if total > 0 else light)


def _stars(telescope: Telescope, seeing: float, size: int, rng: np.random.Generator) -> Numbers:
    """Up to three stars anywhere in the field, (C, size, size)."""
    field = size * telescope.pixel_scale
    image = np.zeros((len(telescope.bands), size, size))
    for _ in range(rng.binomial(3, min(1.0, field**2 / 3600))):
        colour = STAR_COLOURS[rng.integers(len(STAR_COLOURS))]
        place = rng.uniform(-field / 2, field / 2, 2)
        flux = 10 ** (0.4 * (ZERO_POINT - rng.uniform(17, 22)))
        light = _psf(telescope, seeing).shift(*place)
        light = light.drawImage(nx=size, ny=size, scale=telescope.pixel_scale).array
        image += flux * np.array(colour)[:, None, None] * light
    return image


@lru_cache(maxsize=64)
def _psf(telescope: Telescope, seeing: float) -> Any:
    return _galsim().Moffat(beta=telescope.beta, fwhm=telescope.seeing * seeing, trunc=0.0)


@lru_cache(maxsize=1)
def _accuracy() -> Any:
    """Wings below 1 % of the flux may wrap around; they lie below the noise."""
    return _galsim().GSParams(folding_threshold=1e-2, maxk_threshold=3e-3, kvalue_accuracy=1e-4)


@lru_cache(maxsize=64)
def _transfer(telescope: Telescope, seeing: float, size: int) -> NDArray[np.complex128]:
    """Fourier transform of the PSF, drawn on twice the fine grid so that nothing wraps."""
    side, step = 2 * size * FINE, telescope.pixel_scale / FINE
    image = _psf(telescope, seeing).drawImage(
        nx=side, ny=side, scale=step, method="no_pixel", use_true_center=False
    )
    kernel = np.asarray(image.array, np.float64)
    return np.fft.rfft2(np.fft.ifftshift(kernel / kernel.sum()))


def _through(light: Numbers, telescope: Telescope, seeing: float, size: int) -> Numbers:
    """A fine map through the PSF, summed over the pixels, (size, size)."""
    from scipy.fft import irfft2, rfft2

    side = 2 * size * FINE
    transform = rfft2(light, (side, side)) * _transfer(telescope, seeing, size)
    seen = irfft2(transform, (side, side))[: size * FINE, : size * FINE]
    return np.asarray(seen.reshape(size, FINE, size, FINE).sum(axis=(1, 3)))


@lru_cache(maxsize=1)
def _galsim() -> Any:
    # an extra, and slow to import
    try:
        import galsim
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "GalSim is not installed; run pip install 'skyvec[galaxies]'"
        ) from error
    return galsim
