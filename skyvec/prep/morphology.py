"""Shapes of galaxies in numbers measured by hand: the rows that a learned code has to beat.

Concentration, asymmetry, smoothness, Gini and M20 as published, with size, ellipticity, colours
and what lies around. What cannot be measured is NaN.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Numbers = NDArray[np.float64]
Pixels = NDArray[np.float32]

SHAPES = (
    "concentration",  # 5 log10(r80 / r20)
    "asymmetry",  # sum |I - I turned by 180 deg| / sum |I|, less that of the sky
    "asymmetry_90",  # the same for 90 deg
    "smoothness",  # sum of what a box of rp / 4 takes away / sum I
    "gini",  # how unequally the light is shared among the pixels
    "m20",  # log10 of the share of the brightest 20 % in the second moment
    "ellipticity",  # 1 - b / a of the galaxy's own pixels
    "petrosian",  # log10 of the Petrosian radius [side]
    "half_light",  # log10 of the half-light radius [side]
    "brightness",  # arcsinh of the mean within the half-light radius [noise]
    "second_peak",  # brightness of the second local peak within 2 rp / that of the first
    "offset",  # distance of the light's centre from the brightest place [rp]
    "around",  # light outside 2 rp / light inside
)
ETA = 0.2
"""The Petrosian radius is where a ring is this much fainter than what it encloses."""


def shape_names(bands: int) -> list[str]:
    """Name the columns of :func:`shape_statistics`."""
    return [*SHAPES, *(f"colour_{i}" for i in range(1, bands))]


def shape_statistics(pixels: Pixels) -> Numbers:
    """Thirteen shapes of each galaxy at the centre of its image, and its colours.

    Of the mean of the bands, less the sky (median of the border). The centre is the brightest
    place near the middle after smoothing, moved so that the asymmetry is least. Pixels that were
    not measured take no part; a turned pixel whose partner was not measured neither.

    Args:
        pixels: Shape (n, C, y, y), square; NaN where not measured. Linear in flux, or stretched:
            the numbers then mean the picture.

    Returns:
        Shape (n, 13 + C - 1), named by :func:`shape_names`; NaN where there is no galaxy above
        the noise.

    References:
        Conselice 2003, ApJS 147, 1 (concentration, asymmetry, smoothness); Lotz, Primack &
        Madau 2004, AJ 128, 163 (Gini, M20); Petrosian 1976, ApJ 209, L1.
    """
    if pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3]:
        raise ValueError(f"images must have shape (n, C, y, y), not {pixels.shape}")
    n, bands = pixels.shape[:2]
    table = np.full((n, len(SHAPES) + bands - 1), np.nan)
    for i, image in enumerate(pixels.astype(np.float64)):
        measured = ~np.isnan(image)
        seen = measured.any(axis=0)
        if not seen.any():
            continue
        count = np.maximum(measured.sum(axis=0), 1)
        grey = np.where(measured, image, 0).sum(axis=0) / count
        found = _shapes(np.where(seen, grey, np.nan))
        if found is None:
            continue
        row, inner = found
        table[i, : len(SHAPES)] = row
        flux = np.array([_net(band, inner) for band in image])
        good = (flux > 0).all()
        table[i, len(SHAPES) :] = -2.5 * np.log10(flux[:-1] / flux[1:]) if good else np.nan
    return table


def _net(band: Numbers, inner: NDArray[np.bool_]) -> float:
    """Flux of a band inside, less its sky; NaN where nothing is measured."""
    sky, _ = _sky(band)
    within = band[inner]
    within = within[~np.isnan(within)]
    return float(within.mean() - sky) if len(within) else float("nan")


def _sky(image: Numbers) -> tuple[float, float]:
    """Level and noise of the border; NaN where it was not measured."""
    side = len(image)
    margin = max(1, side // 8)
    edge = np.ones(image.shape, bool)
    edge[margin:-margin, margin:-margin] = False
    rim = image[edge]
    rim = rim[~np.isnan(rim)]
    if not len(rim):
        return float("nan"), float("nan")
    level = float(np.median(rim))
    low = rim[rim <= level]  # the brighter half has neighbours in it
    return level, max(1.4826 * float(np.median(level - low)), 1e-9)


def _shapes(image: Numbers) -> tuple[Numbers, NDArray[np.bool_]] | None:
    """The ``SHAPES`` of one image, and what lies within the Petrosian radius."""
    side = len(image)
    sky, noise = _sky(image)
    if np.isnan(sky):
        return None
    seen = ~np.isnan(image)
    light = np.where(seen, image - sky, 0.0)
    soft = ndimage.gaussian_filter(light, side / 64)
    grid = np.indices(image.shape).astype(np.float64)
    row, column = grid[0], grid[1]
    middle = (side - 1) / 2
    near = np.hypot(row - middle, column - middle) < side / 6
    peak = np.unravel_index(np.where(near, soft, -np.inf).argmax(), soft.shape)
    if soft[peak] < 3 * noise / 2:
        return None
    centre = _centre(light, seen, (float(peak[0]), float(peak[1])), side / 5)
    r = np.hypot(row - centre[0], column - centre[1])
    rp = _petrosian(light, seen, r, side)
    if rp is None:
        return None
    aperture = seen & (r < 1.5 * rp)
    total = light[aperture].sum()
    if total <= 0:
        return None
    radii, growth = _growth(light, aperture, r)
    r20, r50, r80 = np.interp([0.2, 0.5, 0.8], growth, radii)
    box = max(3, round(rp / 4))
    rough = np.maximum(light - ndimage.uniform_filter(light, box), 0)
    ring = aperture & (r > 0.25 * rp)
    own = _segment(soft, light, r, rp)
    inner = seen & (r < rp)
    values = np.sort(np.abs(light[own & seen]))
    if len(values) < 10 or values.sum() <= 0:
        return None
    yy, xx, xy = _moments(light, own & seen, row, column)
    spread = np.sqrt(max((xx - yy) ** 2 / 4 + xy**2, 0))
    long, short = (xx + yy) / 2 + spread, (xx + yy) / 2 - spread
    weight = light[own & seen].sum()
    mean = [(light * axis)[own & seen].sum() / weight for axis in (row, column)]
    outside = light[seen & (r > 2 * rp)].sum()
    shapes = np.array(
        [
            5 * np.log10(r80 / r20) if r20 > 0 else np.nan,
            _asymmetry(light, seen, centre, aperture, 180, noise),
            _asymmetry(light, seen, centre, aperture, 90, noise),
            rough[ring].sum() / total - 0.4 * noise * ring.sum() / total,
            _gini(values),
            _m20(light, own & seen, r),
            1 - np.sqrt(max(short, 0) / long) if long > 0 else np.nan,
            np.log10(rp / side),
            np.log10(max(r50, 0.3) / side),
            np.arcsinh(light[seen & (r < max(r50, 1))].mean() / noise),
            _second_peak(soft, r < 2 * rp),
            np.hypot(mean[0] - centre[0], mean[1] - centre[1]) / rp,
            np.arcsinh(outside / total),
        ]
    )
    return shapes, inner


def _turned(centre: tuple[float, float], shape: tuple[int, ...], quarter: int) -> Numbers:
    """Where each pixel's partner lies, turned about a centre by 90 or 180 degrees."""
    row, column = np.indices(shape).astype(np.float64)
    row, column = row - centre[0], column - centre[1]
    moved = (-row, -column) if quarter == 180 else (column, -row)
    return np.stack([moved[0] + centre[0], moved[1] + centre[1]])


def _asymmetry(
    light: Numbers,
    seen: NDArray[np.bool_],
    centre: tuple[float, float],
    aperture: NDArray[np.bool_],
    degrees: int,
    noise: float,
) -> float:
    """A of the aperture, less what white noise alone would give."""
    places = _turned(centre, light.shape, degrees)
    partner = ndimage.map_coordinates(light, places, order=1, mode="constant")
    there = ndimage.map_coordinates(seen.astype(np.float64), places, order=1) > 0.99
    both = aperture & there
    whole = np.abs(light[both]).sum()
    if not whole > 0:
        return float("nan")
    # mean |difference| of two normal numbers of that noise
    by_chance = 2 / np.sqrt(np.pi) * noise * both.sum()
    return float((np.abs(light - partner)[both].sum() - by_chance) / whole)


def _centre(
    light: Numbers, seen: NDArray[np.bool_], start: tuple[float, float], radius: float
) -> tuple[float, float]:
    """Walk to the half pixel about which the image is least asymmetric."""
    row, column = np.indices(light.shape)
    best, least = start, np.inf
    for _ in range(6):
        steps = [
            (best[0] + dy, best[1] + dx) for dy in (-0.5, 0.0, 0.5) for dx in (-0.5, 0.0, 0.5)
        ]
        found = []
        for place in steps:
            aperture = seen & (np.hypot(row - place[0], column - place[1]) < radius)
            found.append(_asymmetry(light, seen, place, aperture, 180, 0.0))
        lowest = int(np.nanargmin(found)) if not np.isnan(found).all() else 4
        if not found[lowest] < least - 1e-12:
            break
        best, least = steps[lowest], found[lowest]
    return best


def _petrosian(light: Numbers, seen: NDArray[np.bool_], r: Numbers, side: int) -> float | None:
    """Radius where a ring has ``ETA`` times the mean of what it encloses [pixel]."""
    edges = np.arange(0, side / 2 + 1)
    which = np.digitize(r[seen], edges) - 1
    inside = which < len(edges) - 1
    count = np.bincount(which[inside], minlength=len(edges) - 1)
    sums = np.bincount(which[inside], light[seen][inside], len(edges) - 1)
    ring = sums / np.maximum(count, 1)
    enclosed = np.cumsum(sums) / np.maximum(np.cumsum(count), 1)
    if not enclosed[1] > 0:
        return None
    eta = ring / np.where(enclosed > 0, enclosed, np.inf)
    below = np.flatnonzero((eta < ETA) & (np.arange(len(eta)) >= 1))
    if not len(below):
        return float(edges[-1] / 1.5)
    i = int(below[0])
    high, low = eta[i - 1], eta[i]
    part = (high - ETA) / (high - low) if high > low else 0.0
    return float(np.clip(i - 0.5 + part, 1.5, side / 3))


def _growth(light: Numbers, aperture: NDArray[np.bool_], r: Numbers) -> tuple[Numbers, Numbers]:
    """Radii and the share of the light within them, ascending."""
    order = np.argsort(r[aperture], kind="stable")
    growth = np.maximum.accumulate(np.cumsum(light[aperture][order]))
    # the pixels in the middle are wider than their distance: start from nothing at r = 0
    radii = np.sqrt(np.arange(1, len(growth) + 1) / np.pi)
    return np.concatenate([[0], radii]), np.concatenate([[0], growth / growth[-1]])


def _segment(soft: Numbers, light: Numbers, r: Numbers, rp: float) -> NDArray[np.bool_]:
    """The galaxy's own pixels: brighter than at the Petrosian radius, joined to the centre."""
    ring = np.abs(r - rp) < 0.75
    level = float(np.median(soft[ring])) if ring.any() else 0.0
    labels, _ = ndimage.label((soft >= level) & (r < 2 * rp))
    middle = np.unravel_index(r.argmin(), r.shape)
    own = labels == labels[middle] if labels[middle] else r < rp
    return np.asarray(own)


def _gini(ascending: Numbers) -> float:
    """G = sum_i (2 i - n - 1) |x_i| / (mean n (n - 1)), 0 = all alike, 1 = all in one pixel."""
    n = len(ascending)
    rank = 2 * np.arange(1, n + 1) - n - 1
    return float((rank * ascending).sum() / (ascending.mean() * n * (n - 1)))


def _m20(light: Numbers, own: NDArray[np.bool_], r: Numbers) -> float:
    """log10 (second moment of the brightest pixels that make up 20 % / of all)."""
    flux, square = light[own], r[own] ** 2
    order = np.argsort(flux)[::-1]
    flux, square = flux[order], square[order]
    brightest = np.cumsum(flux) <= 0.2 * flux.sum()
    brightest[0] = True
    whole, part = (flux * square).sum(), (flux * square)[brightest].sum()
    return float(np.log10(part / whole)) if part > 0 and whole > 0 else float("nan")


def _moments(
    light: Numbers, own: NDArray[np.bool_], row: Numbers, column: Numbers
) -> tuple[float, float, float]:
    weight = np.maximum(light[own], 0)
    y, x = row[own], column[own]
    y, x = y - np.average(y, weights=weight), x - np.average(x, weights=weight)
    return tuple(float(np.average(a, weights=weight)) for a in (y * y, x * x, x * y))  # type: ignore[return-value]


def _second_peak(soft: Numbers, near: NDArray[np.bool_]) -> float:
    """Brightness of the second local maximum over that of the first; 0 where there is one."""
    peaks = (soft == ndimage.maximum_filter(soft, 5)) & near & (soft > 0)
    heights = np.sort(soft[peaks])[::-1]
    return float(heights[1] / heights[0]) if len(heights) > 1 else 0.0
