"""Maps as the fast engines hold them, and the passes over them between convolutions.

Maps are (n, tall, wide, channel), float32, with a border of zeros: one pixel before, as many after
as fill the last tile and one more. The border is cleared when the memory is new, and nothing
writes to it later: to clear it after every layer took as long as a twentieth of all.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit

from skyvec.nn.products import FAST, Array, Places, multiply_at, scratch
from skyvec.nn.vectors import larger, load, spread, store, total

SOME = 24
"""Pixels of a shortcut that are at hand when they are added."""


class Map(NamedTuple):
    """Images with their border of zeros: data (n, tall, wide, c), and pixels inside."""

    data: Array
    height: int
    width: int

    @property
    def flat(self) -> Array:
        """The data in one row."""
        return self.data.reshape(-1)


class Sums(NamedTuple):
    """Sums of x and of x^2 over the pixels of each channel, (n, c)."""

    plain: Array
    square: Array


def room(slot: str, n: int, height: int, width: int, channels: int, m: int) -> Map:
    """Make a map for tiles of m pixels; its border is 0, its pixels are what they were."""
    tall, wide = (-(-size // m) * m + 2 for size in (height, width))
    # other sizes must not write to this one's border
    name = f"{slot} {height} {width} {channels} {m}"
    return Map(scratch(name, n, tall, wide, channels), height, width)


@lru_cache(maxsize=64)
def places(
    shape: tuple[int, int, int, int], high: int, broad: int, stride: int = 1, start: int = 1
) -> Places:
    """Where in a flat map every ``stride``-th pixel lies, (n high broad,) and five times the last.

    Args:
        shape: Of the map.
        high: Pixels along y.
        broad: Pixels along x.
        stride: From one to the next.
        start: The first, from the corner of the map.
    """
    n, tall, wide, channels = shape
    y, x = (start + stride * np.arange(count) for count in (high, broad))
    image = np.arange(n)[:, None, None] * tall
    made = (((image + y[:, None]) * wide + x) * channels).reshape(-1)
    return np.concatenate([made, np.full(5, made[-1])])


@njit(**FAST)  # type: ignore[untyped-decorator]
def halve(
    x: Array, at: int, hop: int, height: int, width: int, channels: int, out: Array, to: int,
    far: int, high: int, broad: int,
) -> None:  # fmt: skip
    """Largest of 2 x 2 of one image, the odd row and column alone.

    Args:
        x: Flat.
        at: Its first pixel.
        hop: From a row of it to the next.
        height: Of the image.
        width: Of the image.
        channels: A multiple of eight.
        out: Written to, flat.
        to: Its first pixel.
        far: From a row of it to the next.
        high: Of the result, half of the height, rounded either way.
        broad: Of the result.
    """
    for y in range(high):
        one, two = at + 2 * y * hop, at + min(2 * y + 1, height - 1) * hop
        for z in range(broad):
            a, b = 2 * z * channels, min(2 * z + 1, width - 1) * channels
            here = to + y * far + z * channels
            for c in range(0, channels, 8):
                up = larger(load(x, one + a + c), load(x, one + b + c))
                low = larger(load(x, two + a + c), load(x, two + b + c))
                store(out, here + c, larger(up, low))


@njit(**FAST)  # type: ignore[untyped-decorator]
def halve_all(
    x: Array, shape: tuple[int, int, int, int], edge: int, height: int, width: int, out: Array,
    into: tuple[int, int, int, int], margin: int, high: int, broad: int,
) -> None:  # fmt: skip
    """:func:`halve` for every image of a map.

    The pixels of x begin ``edge`` from its corner, those of the result ``margin`` from its own.
    """
    n, tall, wide, channels = shape
    for i in range(n):
        halve(
            x, ((i * tall + edge) * wide + edge) * channels, wide * channels, height, width,
            channels, out, ((i * into[1] + margin) * into[2] + margin) * channels,
            into[2] * channels, high, broad,
        )  # fmt: skip


@njit(**FAST)  # type: ignore[untyped-decorator]
def weigh_and_add(
    u: Array, at: Places, pixels: int, channel: Array, place: Array, offset: np.float32, x: Array,
    where: Places, depth: int, weight: Array, bias: Array, short: Array, plain: Array,
    square: Array,
) -> None:  # fmt: skip
    """Let u become u (sigmoid(place . u + offset) + channel) + W x + bias, pixel by pixel.

    Args:
        u: A map, flat.
        at: Where its pixels lie.
        pixels: Of an image.
        channel: (n, c) flat, already squashed.
        place: (c,).
        offset: Added to the product of ``place`` and a pixel.
        x: The map that the shortcut comes from, flat.
        where: Where the pixels lie in it.
        depth: Its channels.
        weight: W, packed.
        bias: (c,).
        short: Room for ``SOME`` pixels of the shortcut.
        plain: Written to: sums of the result, (n, c) flat.
        square: Written to: sums of its squares.
    """
    channels, most = len(bias), len(at) - 5
    plain[:] = np.float32(0)
    square[:] = np.float32(0)
    for first in range(0, most, SOME):
        count = min(SOME, most - first)
        rows = -(-count // 6) * 6
        multiply_at(x, where, first, rows, 0, 1, depth, weight, bias, short, channels)
        for k in range(count):
            here, gate = at[first + k], (first + k) // pixels * channels
            dot = spread(np.float32(0))
            for c in range(0, channels, 8):
                dot = dot + load(u, here + c) * load(place, c)
            everywhere = spread(np.float32(1) / (np.float32(1) + np.exp(-(total(dot) + offset))))
            for c in range(0, channels, 8):
                factor = everywhere + load(channel, gate + c)
                store(u, here + c, load(u, here + c) * factor + load(short, k * channels + c))
        begin = first
        while begin < first + count:
            image = begin // pixels
            end = min(first + count, (image + 1) * pixels)
            for c in range(0, channels, 8):
                to = image * channels + c
                one, two = load(plain, to), load(square, to)
                for k in range(begin, end):
                    a = load(u, at[k] + c)
                    one, two = one + a, two + a * a
                store(plain, to, one)
                store(square, to, two)
            begin = end
