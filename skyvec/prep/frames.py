"""Whole frames made ready for subtraction: background, stars, point-spread function, registration.

Images are (y, x), NaN where nothing was measured; places are (x, y) [px] counted from 0 at the
middle of the first pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from skyvec.prep.subtract import detect, matched_filter

Float = NDArray[np.float64]
Image = NDArray[np.floating]

LEAST_STARS = 5
"""Fewer do not make a point-spread function."""

MAD_TO_SIGMA = 1.4826


class FrameError(ValueError):
    """A frame cannot be used; the message says why."""


@dataclass(frozen=True)
class Sky:
    """Background of a frame.

    Args:
        level: Of each pixel, shape (y, x).
        noise: One sigma of an empty pixel.
    """

    level: Float
    noise: float


def background(image: Image, *, box: int = 64, rounds: int = 4) -> Sky:
    """Measure a background that changes slowly, in boxes, from what is not clipped as a source.

    Medians of the pixels of a box within -5 and +2.5 sigma of it, smoothed over 3 x 3 boxes and
    joined by a spline. The noise is that of the pixels below the level: sources are all above.

    Args:
        image: shape (y, x).
        box: [px] side of a box; far larger than a source, far smaller than a gradient.
        rounds: Clippings.

    Raises:
        FrameError: Less than a tenth of the frame was measured.
    """
    if np.isfinite(image).mean() < 0.1:
        raise FrameError("less than a tenth of the frame was measured")
    rows = max(round(image.shape[0] / box), 1)
    columns = max(round(image.shape[1] / box), 1)
    mesh = np.full((rows, columns), np.nan)
    y = np.linspace(0, image.shape[0], rows + 1).astype(int)
    x = np.linspace(0, image.shape[1], columns + 1).astype(int)
    for i in range(rows):
        for j in range(columns):
            values = image[y[i] : y[i + 1], x[j] : x[j + 1]].ravel()
            values = values[np.isfinite(values)].astype(np.float64)
            if len(values) < 0.2 * box:
                continue
            for _ in range(rounds):
                middle = float(np.median(values))
                sigma = _sigma_below(values, middle)
                kept = (values > middle - 5 * sigma) & (values < middle + 2.5 * sigma)
                if kept.all() or not kept.any():
                    break
                values = values[kept]
            # the mode of a field full of stars lies below its median
            mesh[i, j] = 2.5 * np.median(values) - 1.5 * np.mean(values)
    mesh = np.where(np.isfinite(mesh), mesh, np.nanmedian(mesh))
    if min(mesh.shape) >= 3:
        mesh = ndimage.median_filter(mesh, 3, mode="nearest")
    at_y = (np.arange(image.shape[0]) + 0.5) * rows / image.shape[0] - 0.5
    at_x = (np.arange(image.shape[1]) + 0.5) * columns / image.shape[1] - 0.5
    grid = np.meshgrid(at_y, at_x, indexing="ij")
    level = ndimage.map_coordinates(mesh, grid, order=min(3, min(mesh.shape) - 1), mode="nearest")
    rest = (image - level)[np.isfinite(image)]
    noise = _sigma_below(rest, 0.0)
    if not noise > 0:
        raise FrameError("the frame has no noise: it is empty, or was made, not taken")
    return Sky(level, noise)


def _sigma_below(values: Image, level: float) -> float:
    """Deviation of the values below a level, sources being above: 1.4826 times their median."""
    below = level - values[values <= level]
    return MAD_TO_SIGMA * float(np.median(below)) if len(below) else 0.0


def find_stars(
    image: Image,
    noise: float,
    *,
    fwhm: float = 3.0,
    saturation: float = np.inf,
    n: int = 60,
    isolation: float = 12.0,
    threshold: float = 20.0,
) -> NDArray[np.int64]:
    """Find stars that are bright, not full, and alone.

    Args:
        image: Background-subtracted, shape (y, x).
        noise: One sigma of an empty pixel.
        fwhm: [px] about that of the stars.
        saturation: Level above which a pixel is full.
        n: At most so many, the brightest.
        isolation: [px] within which no other source of a fifth of its height may be.
        threshold: Least signal to noise.

    Returns:
        (x, y), brightest first, shape (k, 2).
    """
    grid = np.arange(-int(2 * fwhm), int(2 * fwhm) + 1)
    sigma = fwhm / 2.3548
    psf = np.exp(-0.5 * (grid[None] ** 2 + grid[:, None] ** 2) / sigma**2)
    score, _, _ = matched_filter(image, psf / psf.sum(), noise**2)
    places = detect(score, threshold=5.0, apart=fwhm)
    height = score[places[:, 1], places[:, 0]]
    edge = int(isolation)
    rows, columns = image.shape
    good: list[tuple[int, int]] = []
    for i, (x, y) in enumerate(places.tolist()):
        if height[i] < threshold or len(good) >= n:
            break
        if not (edge <= x < columns - edge and edge <= y < rows - edge):
            continue
        cut = image[y - edge : y + edge + 1, x - edge : x + edge + 1]
        if not np.isfinite(cut).all() or cut.max() >= saturation:
            continue
        away = np.hypot(places[:, 0] - x, places[:, 1] - y)
        rivals = (away < isolation) & (away > 0) & (height > 0.2 * height[i])
        if not rivals.any():
            good.append((x, y))
    return np.array(good, np.int64).reshape(-1, 2)


def measure_psf(
    image: Image,
    noise: float,
    stars: NDArray[np.integer],
    *,
    half: int = 12,
    rounds: int = 4,
) -> Float:
    """Measure the point-spread function from stars: shifted to a common centre, median-combined.

    Each round centres the stars anew by fitting the last one (its shift and height by least
    squares), moves them there by a cubic spline and drops those that look unlike the others.

    Args:
        image: Background-subtracted, shape (y, x).
        noise: One sigma of an empty pixel.
        stars: (x, y), shape (n, 2), at least half + 2 px from the edge or they are left out.
        half: The result is 2 half + 1 pixels wide.
        rounds: Fits.

    Returns:
        Sum 1, the source in the middle pixel, shape (2 half + 1, 2 half + 1).

    Raises:
        FrameError: Fewer than LEAST_STARS stars can be used.
    """
    cuts, margin = [], half + 2
    for x, y in stars.tolist():
        cut = image[max(y - margin, 0) : y + margin + 1, max(x - margin, 0) : x + margin + 1]
        if cut.shape == (2 * margin + 1, 2 * margin + 1) and np.isfinite(cut).all():
            cuts.append(np.asarray(cut, np.float64))
    if len(cuts) < LEAST_STARS:
        raise FrameError(
            f"{len(cuts)} usable stars are too few to measure a point-spread function "
            f"({LEAST_STARS}); the frame is empty, crowded or full"
        )
    cutouts = np.array(cuts)
    grid = np.arange(-margin, margin + 1)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    near = np.hypot(x, y) <= 5
    ring = np.hypot(x, y) > half
    cutouts -= np.median(cutouts[:, ring], axis=1)[:, None, None]
    light = np.where(near, np.maximum(cutouts, 0), 0)
    total = light.sum(axis=(1, 2))
    shift = np.column_stack([(light * x).sum((1, 2)), (light * y).sum((1, 2))]) / total[:, None]
    flux = cutouts[:, near].sum(axis=1)
    psf = np.zeros((2 * margin + 1, 2 * margin + 1))
    used = flux > 0
    for _ in range(rounds):
        centred = np.array(
            [
                ndimage.shift(cut, (-dy, -dx), order=3, mode="nearest") / f
                for cut, (dx, dy), f in zip(cutouts[used], shift[used], flux[used])
            ]
        )
        psf = np.median(centred, axis=0)
        psf /= psf[near].sum()
        rest = np.sqrt(((centred - psf)[:, near] ** 2).mean(axis=1))
        expected = noise / flux[used]
        oddness = rest / np.hypot(expected, 0.003)
        odd = oddness > np.median(oddness) + 4 * MAD_TO_SIGMA * _mad(oddness) + 1e-9
        if odd.any() and (~odd).sum() >= LEAST_STARS:
            rows = np.flatnonzero(used)
            used[rows[odd]] = False
        shift, flux = _recentre(cutouts, psf, shift, near)
        used &= (flux > 0) & (np.abs(shift) < 2).all(axis=1)
        if used.sum() < LEAST_STARS:
            raise FrameError("the frame's stars do not look alike; it was moved during exposure")
    inner = psf[2:-2, 2:-2].copy()
    edge = np.hypot(x, y)[2:-2, 2:-2] > 0.85 * half
    inner -= np.median(inner[edge])
    # beyond where the stars can be told from the noise only noise would be added
    inner[(np.hypot(x, y)[2:-2, 2:-2] > half) | (inner < 0)] = 0
    return np.asarray(inner / inner.sum())


def _mad(values: Float) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def _recentre(
    cutouts: Float, psf: Float, shift: Float, near: NDArray[np.bool_]
) -> tuple[Float, Float]:
    """Fit height and a small further shift of each star, linearly."""
    slope_y, slope_x = (np.asarray(slope) for slope in np.gradient(psf))
    new_shift, flux = shift.copy(), np.zeros(len(cutouts))
    for i, cut in enumerate(cutouts):
        there = ndimage.shift(cut, (-shift[i, 1], -shift[i, 0]), order=3, mode="nearest")
        design = np.column_stack([psf[near], -slope_x[near], -slope_y[near], np.ones(near.sum())])
        a, bx, by, _ = np.linalg.lstsq(design, there[near], rcond=None)[0].tolist()
        flux[i] = a
        if a > 0:
            new_shift[i] += np.clip([bx / a, by / a], -0.5, 0.5)
    return new_shift, flux


def fwhm(psf: Float) -> float:
    """Full width at half maximum [px]: that of a disc of the area above half of the peak."""
    zoomed = ndimage.zoom(psf, 5, order=3)
    # corners stay corners: five times as many places, but not quite five times as close
    rows, columns = ((a - 1) / (b - 1) for a, b in zip(psf.shape, zoomed.shape))
    area = (zoomed > zoomed.max() / 2).sum() * rows * columns
    return float(2 * np.sqrt(area / np.pi))


# --- registration -----------------------------------------------------------------------------


def offset(new: Image, reference: Image, *, most: float = 100.0) -> tuple[float, float]:
    """Shift of the new image's sources against the reference's [px], by cross-correlation.

    Args:
        new: Background-subtracted, shape (y, x).
        reference: The same shape.
        most: [px] largest shift looked for.

    Returns:
        (dx, dy): a source at (x, y) of the reference is at (x + dx, y + dy) of the new image.

    Raises:
        FrameError: No shift stands out: the frames show different fields.
    """
    a, b = (_soften(image) for image in (new, reference))
    shape = [fft.next_fast_len(2 * side, real=True) for side in a.shape]
    product = fft.rfft2(a, shape) * np.conj(fft.rfft2(b, shape))
    correlation = fft.irfft2(product, shape)
    fy, fx = (np.abs(fft.fftfreq(side) * side) for side in shape)
    correlation = np.where((fy[:, None] <= most) & (fx[None] <= most), correlation, -np.inf)
    y, x = np.unravel_index(int(correlation.argmax()), correlation.shape)
    finite = correlation[np.isfinite(correlation)]
    spread = MAD_TO_SIGMA * np.median(np.abs(finite - np.median(finite)))
    if not correlation[y, x] > np.median(finite) + 8 * spread:
        raise FrameError("no shift brings the frames together; are they of the same field?")

    def refine(values: Float, at: int) -> float:
        left, middle, right = values
        bend = left - 2 * middle + right
        place = at - len_of if at > len_of / 2 else at
        return place + (0.5 * (left - right) / bend if bend else 0.0)

    found = []
    for axis, at in ((1, int(x)), (0, int(y))):
        len_of = shape[axis]
        line = correlation[y] if axis == 1 else correlation[:, x]
        found.append(refine(line[[at - 1, at, (at + 1) % len_of]], at))
    return found[0], found[1]


def _soften(image: Image) -> Float:
    """Bend bright stars so that no single one decides, and leave out what is missing."""
    filled = np.nan_to_num(np.asarray(image, np.float64))
    scale = MAD_TO_SIGMA * np.median(np.abs(filled)) or 1.0
    bent = np.maximum(np.arcsinh(filled / (5 * scale)), 0)
    return np.asarray(ndimage.gaussian_filter(bent, 1.0) - bent.mean())


def moved(image: Image, dx: float, dy: float) -> Float:
    """Move an image's content by (dx, dy) [px], NaN where there was none.

    Whole pixels are moved exactly; the rest by a cubic spline.
    """
    whole_x, whole_y = round(dx), round(dy)
    out = np.full(image.shape, np.nan)
    rows, columns = image.shape
    to_y = slice(max(whole_y, 0), min(rows + whole_y, rows))
    to_x = slice(max(whole_x, 0), min(columns + whole_x, columns))
    from_y = slice(to_y.start - whole_y, to_y.stop - whole_y)
    from_x = slice(to_x.start - whole_x, to_x.stop - whole_x)
    out[to_y, to_x] = image[from_y, from_x]
    rest_x, rest_y = dx - whole_x, dy - whole_y
    if max(abs(rest_x), abs(rest_y)) < 1e-3:
        return out
    missing = ~np.isfinite(out)
    filled = np.where(missing, np.nanmedian(out), out)
    shifted = ndimage.shift(filled, (rest_y, rest_x), order=3, mode="nearest")
    spread = ndimage.shift(missing.astype(float), (rest_y, rest_x), order=1, cval=1.0)
    shifted[ndimage.binary_dilation(spread > 0.01)] = np.nan
    return np.asarray(shifted)


# --- artificial stars -------------------------------------------------------------------------


def embed(
    image: Image,
    psf: Float,
    x: Float,
    y: Float,
    flux: Float,
    *,
    gain: float = np.inf,
    rng: np.random.Generator | None = None,
) -> Float:
    """Put artificial stars into an image.

    Args:
        image: shape (y, x).
        psf: Sum 1, odd sides.
        x: [px], shape (n,); places between pixels are reached by a cubic spline.
        y: As x.
        flux: [counts], shape (n,).
        gain: [electrons per count]; finite with a generator, the stars bring their photon noise.
        rng: Generator of that noise.

    Returns:
        A copy with the stars in it.
    """
    out = np.array(image, np.float64)
    half_y, half_x = psf.shape[0] // 2, psf.shape[1] // 2
    rows, columns = out.shape
    for at_x, at_y, f in zip(
        np.asarray(x).tolist(), np.asarray(y).tolist(), np.asarray(flux).tolist()
    ):
        ix, iy = round(at_x), round(at_y)
        star = ndimage.shift(psf, (at_y - iy, at_x - ix), order=3, mode="constant")
        star = f * np.maximum(star, 0)
        if rng is not None and np.isfinite(gain):
            star += np.sqrt(star / gain) * rng.standard_normal(star.shape)
        low_y, low_x = iy - half_y, ix - half_x
        to_y = slice(max(low_y, 0), min(low_y + star.shape[0], rows))
        to_x = slice(max(low_x, 0), min(low_x + star.shape[1], columns))
        if to_y.start >= to_y.stop or to_x.start >= to_x.stop:
            continue
        out[to_y, to_x] += star[
            to_y.start - low_y : to_y.stop - low_y, to_x.start - low_x : to_x.stop - low_x
        ]
    return out


def find_extended(
    image: Image, noise: float, psf: Float, *, threshold: float = 15.0, excess: float = 1.25
) -> NDArray[np.int64]:
    """Find sources that are wider than a star: galaxies, nebulae, and close pairs of stars.

    The light within twice the FWHM is compared with what a star of the same core would have.

    Args:
        image: Background-subtracted, shape (y, x).
        noise: One sigma of an empty pixel.
        psf: Of the image.
        threshold: Least signal to noise.
        excess: Least ratio of that light to a star's.

    Returns:
        (x, y), shape (n, 2).
    """
    width = fwhm(psf)
    score, _, _ = matched_filter(image, psf, noise**2)
    places = detect(score, threshold=threshold, apart=2 * width)
    reach = int(np.ceil(2 * width))
    places = places[
        (places >= reach).all(axis=1)
        & (places[:, 0] < image.shape[1] - reach)
        & (places[:, 1] < image.shape[0] - reach)
    ]
    grid = np.arange(-reach, reach + 1)
    r = np.hypot(grid[:, None], grid[None])
    core, wide = r <= 0.75 * width, r <= 2 * width
    middle = psf.shape[0] // 2
    reach_psf = min(reach, middle)
    star = np.zeros((2 * reach + 1, 2 * reach + 1))
    inner = slice(reach - reach_psf, reach + reach_psf + 1)
    of_psf = slice(middle - reach_psf, middle + reach_psf + 1)
    star[inner, inner] = psf[of_psf, of_psf]
    due = star[wide].sum() / star[core].sum()
    good: list[bool] = []
    for x, y in places.tolist():
        cut = image[y - reach : y + reach + 1, x - reach : x + reach + 1]
        if np.isfinite(cut).all() and cut[core].sum() > 0:
            good.append(bool(cut[wide].sum() / cut[core].sum() > excess * due))
        else:
            good.append(False)
    return places[np.array(good, bool)] if len(places) else places
