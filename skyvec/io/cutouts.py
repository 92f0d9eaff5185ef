"""The door for images: a raw cutout comes in, a clean one or the reason of a refusal goes out."""

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyvec.io.segments import RefusedError, Value, place_on_sky

MOST_PIXELS = 64_000_000
"""A larger image is a mosaic that must be cut, not a cutout."""

LEAST_MEASURED = 0.5
"""An image of which a smaller share was measured is refused."""

_NAMED_PLACE = re.compile(
    r"J(\d{2})(\d{2})(\d{2}(?:\.\d+)?)([+\-\u2212])(\d{2})(\d{2})(\d{2}(?:\.\d+)?)(?!\d)"
)
"""Positions in names as the IAU wants them: JHHMMSS.ss+DDMMSS.s."""


@dataclass(frozen=True)
class Cutout:
    """One clean image with all that is known of it.

    Args:
        id: Unique key of the image.
        target: The object it shows.
        ra: ICRS [deg] in [0, 360), NaN where unknown.
        dec: ICRS [deg] in [-90, 90], NaN where unknown.
        pixels: [flux_unit], float32, NaN where masked or missing, shape (band, y, x).
        flux_err: One-sigma error [flux_unit], float32, > 0 or NaN, of the same shape; or None.
        bands: Names of the bands.
        pixel_scale: [arcsec], NaN where unknown.
        flux_unit: Unit of the pixels.
        columns: Further facts by name: texts and numbers.
    """

    id: str
    target: str
    ra: float
    dec: float
    pixels: NDArray[np.float32]
    flux_err: NDArray[np.float32] | None
    bands: tuple[str, ...]
    pixel_scale: float
    flux_unit: str
    columns: dict[str, Value]


def admit(
    *,
    id: str,
    target: str,
    ra: float,
    dec: float,
    pixels: np.ndarray,
    flux_err: np.ndarray | None,
    bands: tuple[str, ...],
    pixel_scale: float,
    flux_unit: str,
    columns: dict[str, Value],
    size: int = 0,
) -> Cutout:
    """Clean a raw image, or refuse it.

    Pixels that are not finite become NaN, which means "not measured" down the whole river. So do
    pixels whose error is zero, negative or infinite. Nothing is ever filled in.

    Args:
        id: Key of the image.
        target: The object it shows; the id where empty.
        ra: ICRS [deg], NaN where unknown; -180 to 0 is wrapped. Where it is unknown and the id
            holds a position (``J004735.97-005410.2``), that is taken.
        dec: ICRS [deg], NaN where unknown.
        pixels: [flux_unit], shape (band, y, x) or (y, x).
        flux_err: [flux_unit], of the same shape; None where unknown.
        bands: Names of the bands.
        pixel_scale: [arcsec], NaN where unknown.
        flux_unit: Unit of the pixels.
        columns: Further facts by name.
        size: Side of the central square that is kept [pixel]; 0 for the whole image.

    Raises:
        RefusedError: Nothing was measured, or the image is not what it claims to be.
    """
    if not id:
        raise RefusedError("the id is empty")
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise RefusedError(f"an image has the axes (band, y, x), not the shape {pixels.shape}")
    if pixels.size > MOST_PIXELS:
        raise RefusedError(
            f"{pixels.shape[2]} x {pixels.shape[1]} pixels are a mosaic; cut the objects out of "
            "it (--catalog TABLE --cut --size N)"
        )
    if len(bands) != len(pixels):
        raise RefusedError(
            f"{len(pixels)} planes, but {len(bands)} bands are named ({', '.join(bands)})"
        )
    # what overflows is infinite afterwards, and counts as missing
    with np.errstate(over="ignore", invalid="ignore"):
        clean = pixels.astype(np.float32)
        error = None if flux_err is None else flux_err.reshape(clean.shape).astype(np.float32)
    clean[~np.isfinite(clean)] = np.nan
    if error is not None:
        broken = ~(error > 0) & ~np.isnan(error) | np.isinf(error)
        clean[broken], error[broken] = np.nan, np.nan
        error = None if np.isnan(error).all() else error
    if size:
        clean = centre(clean, size)
        error = None if error is None else centre(error, size)
    measured = clean[~np.isnan(clean)]
    if not measured.size:
        raise RefusedError("no pixel was measured: all are missing, masked or not finite")
    missing = int(clean.size - measured.size)
    if measured.size < LEAST_MEASURED * clean.size:
        raise RefusedError(f"{missing / clean.size:.0%} of the image was not measured")
    if measured.min() == measured.max():
        raise RefusedError(f"an empty image: every pixel is {measured[0]:g}")
    if math.isnan(ra) or math.isnan(dec):
        ra, dec = named_place(id)
    ra, dec = place_on_sky(ra, dec)
    # to five digits: headers of one survey differ beyond, its pixels do not
    scale = float(f"{pixel_scale:.5g}") if pixel_scale > 0 else math.nan
    facts: dict[str, Value] = {**columns, "n_missing": missing}
    return Cutout(id, target or id, ra, dec, clean, error, bands, scale, flux_unit, facts)


def centre(pixels: np.ndarray, size: int) -> np.ndarray:
    """Keep the central square of an image, shape (band, y, x) -> (band, size, size).

    Raises:
        RefusedError: The image is smaller.
    """
    height, width = pixels.shape[1:]
    if height < size or width < size:
        raise RefusedError(f"{width} x {height} pixels are less than the {size} x {size} wanted")
    y, x = (height - size) // 2, (width - size) // 2
    return np.ascontiguousarray(pixels[:, y : y + size, x : x + size])


def named_place(name: str) -> tuple[float, float]:
    """Position [deg] that stands in a name such as ``J004735.97-005410.2``; NaN if none does."""
    found = _NAMED_PLACE.search(name)
    if not found:
        return math.nan, math.nan
    h, m, s = (float(found[i]) for i in (1, 2, 3))
    degrees, minutes, seconds = (float(found[i]) for i in (5, 6, 7))
    if h >= 24 or m >= 60 or s >= 60 or minutes >= 60 or seconds >= 60 or degrees > 90:
        return math.nan, math.nan
    sign = 1.0 if found[4] == "+" else -1.0
    return 15 * (h + m / 60 + s / 3600), sign * (degrees + minutes / 60 + seconds / 3600)
