"""From cutouts to fixed arrays: crop, block-average, scale; and the same galaxy seen again.

Pixels are float32 of shape (n, band, y, x); NaN is a pixel that was not measured, and stays NaN
through everything here. What a stretch was is recorded in a :class:`Scaling`, which undoes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Pixels = NDArray[np.float32]
Numbers = NDArray[np.float64]

STRETCHES = ("arcsinh", "lupton", "linear")
SOFTENING = 5.0
"""[sky noise] Where a stretch turns from linear to logarithmic."""
LEAST_MEASURED = 0.5
"""A block with a smaller share of measured pixels has no mean."""
MAD_TO_SIGMA = 1.4826


def crop_centre(pixels: Pixels, side: int) -> Pixels:
    """Keep the central square; where the margin is odd the extra row goes at the top and left.

    Args:
        pixels: Shape (..., y, x).
        side: Of the square [pixel].

    Raises:
        ValueError: The images are smaller than the square.
    """
    y, x = pixels.shape[-2:]
    if not 1 <= side <= min(y, x):
        raise ValueError(f"a crop of {side} pixels does not fit into images of {y} x {x}")
    top, left = (y - side + 1) // 2, (x - side + 1) // 2
    return pixels[..., top : top + side, left : left + side]


def block_average(pixels: Pixels, factor: int, *, least: float = LEAST_MEASURED) -> Pixels:
    """Average squares of pixels over what was measured in them.

    Args:
        pixels: Shape (..., y, x); NaN where not measured.
        factor: Side of a square [pixel]; divides y and x.
        least: Share of a square that must be measured; else its mean is NaN.

    Returns:
        Shape (..., y / factor, x / factor), float32.

    Raises:
        ValueError: The factor does not divide the sides.
    """
    y, x = pixels.shape[-2:]
    if factor < 1 or y % factor or x % factor:
        raise ValueError(
            f"blocks of {factor} pixels do not divide images of {y} x {x}; crop them first"
        )
    if factor == 1:
        return pixels.astype(np.float32, copy=False)
    blocks = pixels.reshape(*pixels.shape[:-2], y // factor, factor, x // factor, factor)
    measured = ~np.isnan(blocks)
    count = measured.sum(axis=(-3, -1))
    total = np.where(measured, blocks, 0).sum(axis=(-3, -1), dtype=np.float64)
    enough = count >= max(least * factor**2, 1)
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=enough)
    return mean.astype(np.float32)


def resize(pixels: Pixels, *, crop: int = 0, size: int = 64) -> Pixels:
    """Crop the centre, then average blocks down to a size.

    Args:
        pixels: Shape (..., y, x).
        crop: Side of the central square that is kept [pixel]; 0 = the largest multiple of
            ``size`` that fits.
        size: Side of the result [pixel]; divides the crop.

    Raises:
        ValueError: The images are smaller than the size, or it does not divide the crop.
    """
    side = min(pixels.shape[-2:])
    if not 1 <= size <= side:
        raise ValueError(
            f"images of {side} pixels cannot be averaged down to {size}; "
            "ask for a smaller size ([data] size in the recipe)"
        )
    wanted = crop or side // size * size
    if wanted % size:
        raise ValueError(f"size {size} does not divide the crop of {wanted} pixels")
    return block_average(crop_centre(pixels, wanted), wanted // size)


@dataclass(frozen=True)
class Scaling:
    """How pixels of each band become numbers of about 0 (sky) to 1 (bright).

    With u = (x - sky) / soft, t = (top - sky) / soft:

    * ``arcsinh``: asinh(u) / asinh(t), each band by itself;
    * ``lupton``: u asinh(m) / (m asinh(t)) with m the mean of u over the bands and t the mean of
      theirs: the colour, u of one band over u of another, is kept at any brightness;
    * ``linear``: u / t, for pictures that a viewer has stretched already.

    Args:
        kind: One of ``STRETCHES``.
        sky: Level of the empty sky [flux], (C,).
        soft: Where the stretch turns from linear to logarithmic [flux], > 0, (C,).
        top: What becomes 1 [flux], > sky, (C,).

    Raises:
        ValueError: An unknown kind, or numbers that are not finite or out of order.

    References:
        Lupton et al. 1999, AJ 118, 1406 (asinh magnitudes); Lupton et al. 2004, PASP 116, 133.
    """

    kind: str
    sky: Numbers
    soft: Numbers
    top: Numbers

    def __post_init__(self) -> None:
        if self.kind not in STRETCHES:
            raise ValueError(f"unknown stretch {self.kind!r}; choose from {', '.join(STRETCHES)}")
        stack = np.stack([self.sky, self.soft, self.top])
        if not np.isfinite(stack).all() or (self.soft <= 0).any() or (self.top <= self.sky).any():
            raise ValueError(
                "a scaling needs finite numbers with soft > 0 and top > sky in each band, not "
                f"sky {self.sky}, soft {self.soft}, top {self.top}"
            )

    @classmethod
    def fit(
        cls, pixels: Pixels, kind: str = "arcsinh", *, softening: float = SOFTENING
    ) -> "Scaling":
        """Measure sky, noise and the bright end of many images.

        sky = median over the images of each one's median of its border; the noise likewise from
        the median absolute deviation there; top = 99.9 % quantile of all measured pixels.

        Args:
            pixels: Shape (n, C, y, x) of the training part, at the size they will be used in.
            kind: One of ``STRETCHES``.
            softening: soft / noise, > 0.

        Raises:
            ValueError: A band has nothing measured, or is the same everywhere.
        """
        n_bands, y, x = pixels.shape[1:]
        edge = np.ones((y, x), bool)
        margin = max(1, min(y, x) // 8)
        edge[margin : y - margin, margin : x - margin] = False
        sky, soft, top = np.empty((3, n_bands))
        for band in range(n_bands):
            rim = pixels[:, band][:, edge].astype(np.float64)
            rim = rim[~np.isnan(rim).all(axis=1)]
            everything = pixels[:, band][~np.isnan(pixels[:, band])]
            if not len(rim):
                raise ValueError(f"band {band} has no measured pixel at the border of any image")
            levels = np.nanmedian(rim, axis=1)
            noise = MAD_TO_SIGMA * np.nanmedian(np.abs(rim - levels[:, None]), axis=1)
            sky[band], high = np.median(levels), np.quantile(everything, 0.999)
            if not high > sky[band]:
                raise ValueError(f"band {band} shows nothing above its sky of {sky[band]:g}")
            # quantised pictures may have a sky without noise: a thousandth of the range then
            soft[band] = softening * max(float(np.median(noise)), (high - sky[band]) / 1000)
            top[band] = high
        return cls(kind, sky, soft, top)

    def apply(self, pixels: Pixels) -> Pixels:
        """Scale images (n, C, y, x); NaN stays NaN.

        Of ``lupton`` a pixel that lacks a band is scaled by the bands it has.
        """
        self._check(pixels)
        t = (self.top - self.sky) / self.soft
        # in single precision, as the pixels are: this is half the work of encoding small images
        sky, soft = (_by_band(v).astype(np.float32) for v in (self.sky, self.soft))
        u = (pixels.astype(np.float32, copy=False) - sky) / soft
        if self.kind == "linear":
            return (u / _by_band(t).astype(np.float32)).astype(np.float32, copy=False)
        if self.kind == "arcsinh":
            return (_arcsinh(u) / np.arcsinh(_by_band(t)).astype(np.float32)).astype(
                np.float32, copy=False
            )
        mean = _band_mean(u)
        return (u * _slope(mean) / np.arcsinh(t.mean())).astype(np.float32)

    def undo(self, scaled: Pixels) -> Pixels:
        """Give the flux back, (n, C, y, x)."""
        self._check(scaled)
        t = (self.top - self.sky) / self.soft
        wide = scaled.astype(np.float64)
        if self.kind == "linear":
            u = wide * _by_band(t)
        elif self.kind == "arcsinh":
            u = np.sinh(wide * np.arcsinh(_by_band(t)))
        else:
            stretched = wide * np.arcsinh(t.mean())
            mean = np.sinh(_band_mean(stretched))
            u = stretched / _slope(mean)
        return (u * _by_band(self.soft) + _by_band(self.sky)).astype(np.float32)

    def facts(self) -> dict[str, Any]:
        """All of it as plain values, for a recipe or a note."""
        return {
            "kind": self.kind,
            **{name: getattr(self, name).tolist() for name in ("sky", "soft", "top")},
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Scaling":
        """The scaling that gave these ``facts``."""
        numbers = (np.asarray(facts[name], np.float64) for name in ("sky", "soft", "top"))
        return cls(str(facts["kind"]), *numbers)

    def _check(self, pixels: Pixels) -> None:
        if pixels.ndim != 4 or pixels.shape[1] != len(self.sky):
            raise ValueError(
                f"this scaling is for images (n, {len(self.sky)}, y, x), not {pixels.shape}"
            )


def _arcsinh(u: Pixels) -> Pixels:
    """Give arcsinh to 3e-7, three times as fast as numpy's; squares overflow beyond 1e19 only."""
    root = np.sqrt(u * u + 1)
    root += np.abs(u)
    return np.copysign(np.log(root, out=root), u)


def _by_band(values: Numbers) -> Numbers:
    return values[:, None, None]


def _band_mean(u: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean over the measured bands, (n, 1, y, x); NaN where none is."""
    measured = ~np.isnan(u)
    count = measured.sum(axis=1, keepdims=True)
    total = np.where(measured, u, 0).sum(axis=1, keepdims=True)
    mean = np.full(total.shape, np.nan)
    return np.divide(total, count, out=mean, where=count > 0)


def _slope(mean: NDArray[np.floating]) -> NDArray[np.floating]:
    """asinh(m) / m, 1 at 0."""
    safe = np.where(np.abs(mean) < 1e-6, 1.0, mean)
    return np.where(np.abs(mean) < 1e-6, 1.0, np.arcsinh(safe) / safe)


# --- the same galaxy seen again ---------------------------------------------------------------


def rotate(pixels: Pixels, degrees: float) -> Pixels:
    """Turn images counter-clockwise (x right, y up the rows) about their centre.

    Between pixels linearly; what turns in from outside, or lies beside a pixel that was not
    measured, is NaN.
    """
    if degrees % 90 == 0:
        turned = np.rot90(pixels, -int(degrees // 90) % 4, axes=(-2, -1))
        return np.ascontiguousarray(turned)
    return _move(pixels, np.deg2rad(degrees), 0.0, 0.0)


def shift(pixels: Pixels, dy: float, dx: float) -> Pixels:
    """Move images by fractions of a pixel, linearly; what moves in from outside is NaN."""
    return _move(pixels, 0.0, dy, dx)


def flip(pixels: Pixels) -> Pixels:
    """Mirror images left to right: a galaxy seen from behind, its arms wound the other way."""
    return np.ascontiguousarray(pixels[..., ::-1])


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """See through a wider PSF: convolve with a Gaussian over the measured pixels.

    Args:
        pixels: Shape (..., y, x); NaN stays where it is and spreads to no other pixel.
        sigma: Of the Gaussian [pixel], >= 0.

    Raises:
        ValueError: Sigma is negative.
    """
    if sigma < 0:
        raise ValueError(f"sigma must be >= 0 pixels, not {sigma}")
    measured = ~np.isnan(pixels)
    width = (0.0,) * (pixels.ndim - 2) + (sigma, sigma)
    total = ndimage.gaussian_filter(np.where(measured, pixels, 0), width, mode="nearest")
    weight = ndimage.gaussian_filter(measured.astype(np.float32), width, mode="nearest")
    blurred = np.full(pixels.shape, np.nan, np.float32)
    return np.divide(total, weight, out=blurred, where=measured)


def add_noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """See with a shallower exposure: add white noise of so much [unit of the pixels]."""
    noise = rng.standard_normal(pixels.shape, np.float32)
    return pixels + np.float32(sigma) * noise


def see_again(
    pixels: Pixels,
    rng: np.random.Generator,
    *,
    turn: bool = True,
    mirror: bool = True,
    most_shift: float = 2.0,
    most_blur: float = 1.0,
    most_noise: float = 0.03,
) -> Pixels:
    """Draw another view of each galaxy, as the sky and another telescope might show it.

    Each image on its own: any rotation, a mirror image half of the time, a shift, a wider PSF,
    more noise, each uniform up to its limit.

    Args:
        pixels: Shape (n, C, y, x).
        rng: Draws all of it.
        turn: Whether to rotate.
        mirror: Whether to flip; not where the sense of winding matters.
        most_shift: In y and x [pixel].
        most_blur: Sigma of the Gaussian [pixel].
        most_noise: Sigma of the noise [unit of the pixels].

    Returns:
        Shape (n, C, y, x); NaN where nothing was measured or turned in from outside.
    """
    seen = np.empty_like(pixels)
    for i, image in enumerate(pixels):
        angle = rng.uniform(0, 2 * np.pi) if turn else 0.0
        new = image[..., ::-1] if mirror and rng.random() < 0.5 else image
        new = _move(new, angle, *rng.uniform(-most_shift, most_shift, 2))
        new = blur(new, rng.uniform(0, most_blur))
        seen[i] = add_noise(new, rng.uniform(0, most_noise), rng)
    return seen


def _move(pixels: Pixels, angle: float, dy: float, dx: float) -> Pixels:
    """Rotate by an angle [rad], then shift; bilinear, NaN outside."""
    y, x = pixels.shape[-2:]
    row, column = np.indices((y, x)) - np.array([(y - 1) / 2, (x - 1) / 2])[:, None, None]
    row, column = row - dy, column - dx
    cos, sin = np.cos(angle), np.sin(angle)
    # rounded, as a rotation by 360 degrees would else ask for pixels 1e-14 outside
    from_row = np.round(cos * row - sin * column + (y - 1) / 2, 9)
    from_column = np.round(sin * row + cos * column + (x - 1) / 2, 9)
    low_row = np.clip(np.floor(from_row), 0, max(y - 2, 0)).astype(np.int64)
    low_column = np.clip(np.floor(from_column), 0, max(x - 2, 0)).astype(np.int64)
    inside = (from_row >= 0) & (from_row <= y - 1) & (from_column >= 0) & (from_column <= x - 1)
    part_row, part_column = from_row - low_row, from_column - low_column
    total = np.zeros(pixels.shape)
    for i, row_weight in enumerate((1 - part_row, part_row)):
        for j, column_weight in enumerate((1 - part_column, part_column)):
            weight = row_weight * column_weight
            corner = pixels[..., np.minimum(low_row + i, y - 1), np.minimum(low_column + j, x - 1)]
            # a corner without weight may be NaN and says nothing
            total += np.where(weight > 0, corner * weight, 0.0)
    return np.where(inside, total, np.nan).astype(np.float32)
