"""From stamps as they come to what a classifier sees: mask, centre, crop, put on one scale.

The scale's name belongs to a model and is stored with it: a network that was trained on one and
is given another is wrong by more than most training gains (braai's scores move by 0.13 in the
median when the norm of a row is taken for that of a frame). Pixels are float32 of shape
(n, 3, y, x); NaN is a pixel that was not measured. What comes out is finite everywhere.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

SENTINEL = 1e30
"""No survey measures so much: -3.4028235e38 (the float's own limit) marks a missing pixel."""

TINY = np.finfo(np.float32).tiny
"""Smallest normal number; of smaller ones single precision has no inverse."""

MAD_TO_SIGMA = 1.4826
CHUNK = 16
"""Stamps worked on at a time, so that the parts stay in the cache of a core (0.6 MB at 29 px)."""


def mask_sentinels(pixels: np.ndarray, *, null: float | None = None) -> Pixels:
    """Turn infinities, the float's limits and a survey's own null value into NaN.

    Args:
        pixels: Any shape, any kind of number.
        null: A value that means nothing was measured, such as DES autoScan's 1e-30; compared
            exactly, in the precision of the pixels.

    Returns:
        float32, a copy.
    """
    values = np.asarray(pixels)
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    # asked before the conversion: a large double becomes infinite in float32, with a warning
    is_bad = ~(np.abs(values.astype(kind, copy=False)) < SENTINEL)
    if null is not None:
        is_bad |= values == kind.type(null)
    return np.where(is_bad, np.float32(np.nan), np.where(is_bad, 0, values).astype(np.float32))


def place(cutout: np.ndarray, side: int, centre: tuple[float, float] | None = None) -> Pixels:
    """Put a cutout of any size into a square whose middle pixel is the detection.

    A cutout clipped by the edge of a sensor is smaller and its detection is not in its middle:
    what is missing is filled with NaN on the side it is missing from.

    Args:
        cutout: Shape (y, x).
        side: Of the square [px], odd.
        centre: (y, x) of the detection in the cutout [px], counted from 0; its middle where it is
            not known, so that the padding is the same on both sides (of an even cutout, the
            upper right of the four middle pixels).

    Returns:
        shape (side, side).

    Raises:
        ValueError: The side is even, the cutout is no image or the centre lies outside it.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"a stamp's side must be odd, so that a pixel is its centre, not {side}")
    if cutout.ndim != 2 or not cutout.size:
        raise ValueError(f"a cutout has two axes and some pixels, not the shape {cutout.shape}")
    height, width = cutout.shape
    y, x = (height // 2, width // 2) if centre is None else (round(centre[0]), round(centre[1]))
    if not (0 <= y < height and 0 <= x < width):
        raise ValueError(f"the detection at (y, x) = {centre} is outside a cutout {cutout.shape}")
    half = side // 2
    square = np.full((side, side), np.nan, np.float32)
    top, left = half - y, half - x
    low_y, low_x = max(top, 0), max(left, 0)
    high_y, high_x = min(top + height, side), min(left + width, side)
    square[low_y:high_y, low_x:high_x] = cutout[
        low_y - top : high_y - top, low_x - left : high_x - left
    ]
    return square


def crop(pixels: Pixels, side: int) -> Pixels:
    """Keep the central square of stamps with odd sides.

    Raises:
        ValueError: The side is even or larger than the stamps.
    """
    height, width = pixels.shape[-2:]
    if side % 2 == 0 or not 1 <= side <= min(height, width):
        raise ValueError(
            f"a crop must have an odd side of at most {min(height, width)} px, not {side}; read "
            "the stamps larger, or train a network for small ones"
        )
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[..., top : top + side, left : left + side]


# --- scales -----------------------------------------------------------------------------------


def minmax(pixels: Pixels) -> Pixels:
    """Scale to x' = (x - min) / (max - min) per stamp and channel, in [0, 1]: the paper's.

    Missing pixels get the channel's median; a flat or empty channel is 0 everywhere.

    References:
        Takahashi et al. 2022, PASJ (arXiv 2206.12478).
    """
    filled = _fill(pixels.reshape(-1, *pixels.shape[2:])).reshape(pixels.shape)
    low = filled.min(axis=(2, 3), keepdims=True)
    span = filled.max(axis=(2, 3), keepdims=True) - low
    # subtract first: an offset of 1e6 counts would eat the digits of a product
    scaled = filled - low
    # a span so small that its inverse is infinite is flat, too
    scaled *= np.divide(1, span, out=np.zeros_like(span), where=span >= TINY)
    return scaled


def robust(pixels: Pixels) -> Pixels:
    """Scale to x' = clip((x - median) / (10 s), -1, 5), s = 1.4826 MAD of the channel.

    Unlike ``minmax`` it keeps zero and the noise at their places whatever else is
    in the stamp; what is brighter than 50 s is cut off.
    """
    centred, scale = _centred(pixels)
    return np.clip(centred / (10 * scale), -1, 5)


def asinh(pixels: Pixels) -> Pixels:
    """Scale to x' = arcsinh((x - median) / s) / 5, s = 1.4826 MAD of the channel.

    Linear in the noise, logarithmic in bright stars: neither is lost.
    """
    x, scale = _centred(pixels)
    x /= scale
    # log(|x| + sqrt(x^2 + 1)): numpy has fast forms of these, but none of arcsinh
    away = np.abs(x)
    np.minimum(away, np.float32(1e18), out=away)  # whose square float32 can hold
    root = away * away
    root += 1
    np.sqrt(root, out=root)
    root += away
    np.log(root, out=root)
    root *= np.float32(0.2)
    return np.copysign(root, x, out=root)


def row_norm(pixels: Pixels) -> Pixels:
    """Each row of pixels over its own L2 norm: braai up to d6_m7 (missing pixels are 0 first)."""
    return _over_norm(pixels, (3,))


def frame_norm(pixels: Pixels) -> Pixels:
    """Each channel over its L2 norm: braai from d6_m9 on (missing pixels are 0 first)."""
    return _over_norm(pixels, (2, 3))


def _over_norm(pixels: Pixels, axes: tuple[int, ...]) -> Pixels:
    zeroed = np.where(np.isfinite(pixels), pixels, np.float32(0))
    norm = np.sqrt(np.sum(zeroed.astype(np.float64) ** 2, axis=axes, keepdims=True))
    return (zeroed / np.where(norm > 0, norm, 1)).astype(np.float32)


SCALES: dict[str, Callable[[Pixels], Pixels]] = {
    "minmax": minmax,
    "robust": robust,
    "asinh": asinh,
    "row_norm": row_norm,
    "frame_norm": frame_norm,
}
"""Every scale a model may ask for, by the name its recipe keeps."""


def normalise(pixels: np.ndarray, scale: str = "minmax", *, side: int | None = None) -> Pixels:
    """Mask, crop and scale stamps: all that lies between a file and a network.

    Args:
        pixels: Shape (n, 3, y, x); NaN, infinities and sentinels mark what is missing.
        scale: Name in ``SCALES``.
        side: Of the central square to keep [px], odd; all by default.

    Returns:
        float32, finite, shape (n, 3, side, side).

    Raises:
        ValueError: There is no such scale, or the stamps are smaller than asked for.
    """
    if scale not in SCALES:
        raise ValueError(f"no scale {scale!r}; there are {', '.join(SCALES)}")
    if pixels.ndim != 4:
        raise ValueError(f"stamps have the shape (n, channel, y, x), not {pixels.shape}")
    kept = pixels if side is None else crop(pixels, side)
    scaled = np.empty(kept.shape, np.float32)
    for first in range(0, len(kept), CHUNK):
        part = kept[first : first + CHUNK]
        if part.dtype != np.float32:
            part = mask_sentinels(part)
        elif len(holed := np.flatnonzero(~is_whole(part))):
            part = part.copy()
            part[holed] = mask_sentinels(part[holed])
        scaled[first : first + CHUNK] = SCALES[scale](part)
    return scaled


def is_whole(pixels: np.ndarray) -> Mask:
    """Say of each stamp whether all its pixels were measured: no NaN, infinity or sentinel.

    Args:
        pixels: Shape (n, 3, y, x).

    Returns:
        Shape (n,).
    """
    rows = pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))
    # a NaN makes both comparisons false
    return np.asarray((rows.max(axis=1) < SENTINEL) & (rows.min(axis=1) > -SENTINEL))


def _fill(images: Pixels) -> Pixels:
    """Images whose missing pixels are the median of the others, 0 where there are no others."""
    is_missing = ~np.isfinite(images)
    holed = np.flatnonzero(is_missing.any(axis=(1, 2)))
    if not len(holed):
        return images
    filled = images.copy()
    for i in holed:
        filled[i][is_missing[i]] = _middle(images[i][~is_missing[i]])
    return filled


def _centred(pixels: Pixels) -> tuple[Pixels, NDArray[np.float32]]:
    """Stamps less their channels' medians, missing pixels 0, and the channels' deviations.

    A deviation that is 0 (more than half the pixels are equal) becomes the mean deviation, and
    where that is 0 too, 1.
    """
    n, channels, height, width = pixels.shape
    centred = np.array(pixels, order="C")
    rows = centred.reshape(n * channels, height * width)
    # new memory costs more than the sums: one array is the other's working copy throughout
    there = np.isfinite(rows)
    holed = np.flatnonzero(~there.all(axis=1))
    for i in holed:
        rows[i][~there[i]] = _middle(rows[i][there[i]])
    work = rows.copy()
    rows -= _median(work)[:, None]
    np.abs(rows, out=work)
    scale = np.float32(MAD_TO_SIGMA) * _median(work)
    # pixels filled in are equal to the median and would make the deviation too small
    for i in holed:
        scale[i] = np.float32(MAD_TO_SIGMA) * _middle(np.abs(rows[i][there[i]]))
    quiet = ~(scale > 0)
    scale[quiet] = np.abs(rows[quiet]).mean(axis=1)
    scale[~(scale > 0)] = 1
    return centred, scale.reshape(n, channels, 1, 1)


def _median(values: Pixels) -> NDArray[np.float32]:
    """Median of each row (the upper one of an even number); their order is lost."""
    middle = values.shape[1] // 2
    values.partition(middle, axis=1)
    return values[:, middle].copy()


def _middle(values: Pixels) -> np.float32:
    """Median of some numbers, 0 of none."""
    half = len(values) // 2
    if not len(values):
        return np.float32(0)
    if len(values) % 2:
        values.partition(half)
        return np.float32(values[half])
    values.partition([half - 1, half])
    return np.float32((values[half - 1] + values[half]) / 2)
