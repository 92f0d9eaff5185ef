"""3x3 convolutions in fewer multiplications, for scoring on a processor.

Winograd's F(m, 3): an m x m piece of the output is A^T [(G g G^T) * (B^T d B)] A with (m + 2)^2
multiplications instead of 9 m^2; m = 6 saves a factor 5, m = 4 a factor 4, where tiles of m fit.
The products over channels become (m + 2)^2 dense matrix products; the transforms around them are
single passes, compiled once for a machine and kept beside this file. A few tiles are worked on at
a time, so that what lies between the passes stays in a core's own cache.

Maps are (n, tall, wide, channel), float32, with a border of zeros: one pixel before, as many after
as fill the last tile and one more.

References:
    Winograd 1980, Arithmetic complexity of computations; Lavin & Gray 2016, CVPR
    (arXiv:1509.09308).
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyvec.nn.products import FAST, NEVER, Array, multiply, pack, scratch, sixes
from skyvec.nn.vectors import larger, load, spread, store, total

KERNEL = {
    4: np.array([
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ]),
    5: np.array([
        [1 / -2, 0, 0], [-1 / 3, -1 / 3, -1 / 3], [1 / 9, -1 / 9, 1 / 9],
        [1 / 36, 1 / 18, 1 / 9], [-1 / 60, 1 / 30, -1 / 15], [32 / 45, 16 / 45, 8 / 45],
        [0, 0, 1],
    ]),
    6: np.array([
        [1, 0, 0], [-2 / 9, -2 / 9, -2 / 9], [-2 / 9, 2 / 9, -2 / 9],
        [1 / 90, 1 / 45, 2 / 45], [1 / 90, -1 / 45, 2 / 45],
        [1 / 45, 1 / 90, 1 / 180], [1 / 45, -1 / 90, 1 / 180], [0, 0, 1],
    ]),
}  # fmt: skip
"""G of each m: at the points 0, 1, -1, 2, -2, then 1/2 (m >= 5), -1/2 (m = 6) and infinity."""

CACHE = 400_000
"""Bytes that tiles may take between the passes, less than half of a core's second cache."""
PAGE = 16
"""Floats between two planes of products, lest they fall on the same lines of the cache."""


class Map(NamedTuple):
    """Images with their border of zeros: data (n, tall, wide, c), and pixels inside."""

    data: Array
    height: int
    width: int

    @property
    def flat(self) -> Array:
        """The data in one row."""
        return self.data.reshape(-1)


class Bend(NamedTuple):
    """max(x scale + shift, least) of each channel: scale (n, c), shift and least (c,)."""

    scale: Array
    shift: Array
    least: Array


class Sums(NamedTuple):
    """Sums of x and of x^2 over the pixels of each channel, (n, c)."""

    plain: Array
    square: Array


_NOTHING = np.zeros(0, np.float32)


def room(slot: str, n: int, height: int, width: int, channels: int, m: int) -> Map:
    """Make a map for tiles of m pixels; its border is yet to be cleared."""
    tall, wide = (-(-size // m) * m + 2 for size in (height, width))
    return Map(scratch(slot, n, tall, wide, channels), height, width)


@njit(**FAST)  # type: ignore[untyped-decorator]
def _into(m: int, x: Array, at: int, step: int, v: Array, to: int, hop: int, count: int) -> None:
    """B^T d of ``count`` eights of columns: d_j at x[at + j step], row i to v[to + i hop]."""
    if m == 4:
        four, five, two = spread(np.float32(4)), spread(np.float32(5)), spread(np.float32(2))
        for _ in range(count):
            d0, d1, d2 = load(x, at), load(x, at + step), load(x, at + 2 * step)
            d3, d4, d5 = load(x, at + 3 * step), load(x, at + 4 * step), load(x, at + 5 * step)
            a, b = d4 - four * d2, d3 - four * d1
            e, f = d4 - d2, two * (d3 - d1)
            store(v, to, four * d0 - five * d2 + d4)
            store(v, to + hop, a + b)
            store(v, to + 2 * hop, a - b)
            store(v, to + 3 * hop, e + f)
            store(v, to + 4 * hop, e - f)
            store(v, to + 5 * hop, four * d1 - five * d3 + d5)
            at += 8
            to += 8
        return
    if m == 5:
        half, four, five = spread(np.float32(0.5)), spread(np.float32(4)), spread(np.float32(5))
        two = spread(np.float32(2))
        for _ in range(count):
            d0, d1, d2 = load(x, at), load(x, at + step), load(x, at + 2 * step)
            d3, d4, d5 = load(x, at + 3 * step), load(x, at + 4 * step), load(x, at + 5 * step)
            d6 = load(x, at + 6 * step)
            store(v, to + 5 * hop, four * d1 - five * d3 + d5)
            # the points of m = 4 in what is left once the point 1/2 is divided out
            d0, d1, d2 = d1 - half * d0, d2 - half * d1, d3 - half * d2
            d3, d4, d5 = d4 - half * d3, d5 - half * d4, d6 - half * d5
            a, b = d4 - four * d2, d3 - four * d1
            e, f = d4 - d2, two * (d3 - d1)
            store(v, to, four * d0 - five * d2 + d4)
            store(v, to + hop, a + b)
            store(v, to + 2 * hop, a - b)
            store(v, to + 3 * hop, e + f)
            store(v, to + 4 * hop, e - f)
            store(v, to + 6 * hop, four * d1 - five * d3 + d5)
            at += 8
            to += 8
        return
    k, l = spread(np.float32(5.25)), spread(np.float32(4.25))
    p, q, r = spread(np.float32(0.25)), spread(np.float32(1.25)), spread(np.float32(0.5))
    s, two, four, five = (
        spread(np.float32(2.5)), spread(np.float32(2)), spread(np.float32(4)),
        spread(np.float32(5)),
    )  # fmt: skip
    for _ in range(count):
        d0, d1, d2, d3 = (
            load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step),
        )  # fmt: skip
        d4, d5, d6, d7 = (
            load(x, at + 4 * step), load(x, at + 5 * step), load(x, at + 6 * step),
            load(x, at + 7 * step),
        )  # fmt: skip
        store(v, to, d0 - d6 + k * (d4 - d2))
        store(v, to + 7 * hop, d7 - d1 + k * (d3 - d5))
        a, b = d2 + d6 - l * d4, d1 + d5 - l * d3
        store(v, to + hop, a + b)
        store(v, to + 2 * hop, a - b)
        a, b = p * d2 + d6 - q * d4, r * d1 - s * d3 + two * d5
        store(v, to + 3 * hop, a + b)
        store(v, to + 4 * hop, a - b)
        a, b = four * d2 + d6 - five * d4, two * d1 - s * d3 + r * d5
        store(v, to + 5 * hop, a + b)
        store(v, to + 6 * hop, a - b)
        at += 8
        to += 8


@njit(**FAST)  # type: ignore[untyped-decorator]
def _out_of(
    m: int, v: Array, at: int, step: int, x: Array, to: int, hop: int, count: int,
    least: np.float32,
) -> None:  # fmt: skip
    """A^T of ``count`` eights of columns, cut at ``least``."""
    z = spread(least)
    two, four, eight = spread(np.float32(2)), spread(np.float32(4)), spread(np.float32(8))
    if m == 4:
        for _ in range(count):
            m1, m2 = load(v, at + step), load(v, at + 2 * step)
            m3, m4 = load(v, at + 3 * step), load(v, at + 4 * step)
            a, b, c, d = m1 + m2, m1 - m2, m3 + m4, m3 - m4
            store(x, to, larger(load(v, at) + a + c, z))
            store(x, to + hop, larger(b + two * d, z))
            store(x, to + 2 * hop, larger(a + four * c, z))
            store(x, to + 3 * hop, larger(b + eight * d + load(v, at + 5 * step), z))
            at += 8
            to += 8
        return
    more, most = spread(np.float32(16)), spread(np.float32(32))
    if m == 5:
        half = spread(np.float32(0.5))
        for _ in range(count):
            m1, m2 = load(v, at + step), load(v, at + 2 * step)
            m3, m4 = load(v, at + 3 * step), load(v, at + 4 * step)
            a, b, c, d, h = m1 + m2, m1 - m2, m3 + m4, m3 - m4, load(v, at + 5 * step)
            store(x, to, larger(load(v, at) + a + c + h, z))
            h = half * h
            store(x, to + hop, larger(b + two * d + h, z))
            h = half * h
            store(x, to + 2 * hop, larger(a + four * c + h, z))
            h = half * h
            store(x, to + 3 * hop, larger(b + eight * d + h, z))
            h = half * h
            store(x, to + 4 * hop, larger(a + more * c + h + load(v, at + 6 * step), z))
            at += 8
            to += 8
        return
    for _ in range(count):
        m1, m2 = load(v, at + step), load(v, at + 2 * step)
        m3, m4 = load(v, at + 3 * step), load(v, at + 4 * step)
        m5, m6 = load(v, at + 5 * step), load(v, at + 6 * step)
        a, b, c, d, e, f = m1 + m2, m1 - m2, m3 + m4, m3 - m4, m5 + m6, m5 - m6
        store(x, to, larger(load(v, at) + a + c + most * e, z))
        store(x, to + hop, larger(b + two * d + more * f, z))
        store(x, to + 2 * hop, larger(a + four * c + eight * e, z))
        store(x, to + 3 * hop, larger(b + eight * d + four * f, z))
        store(x, to + 4 * hop, larger(a + more * c + two * e, z))
        store(x, to + 5 * hop, larger(b + most * d + f + load(v, at + 7 * step), z))
        at += 8
        to += 8


@njit(**FAST)  # type: ignore[untyped-decorator]
def _bend_tile(
    x: Array, at: int, hop: int, size: int, top: int, left: int, height: int, width: int,
    channels: int, scale: Array, first: int, shift: Array, floor: Array, out: Array,
) -> None:  # fmt: skip
    """max(x scale + shift, floor) of a tile that begins at (top, left) of a map; 0 outside."""
    zero = spread(np.float32(0))
    for r in range(size):
        inside = 1 <= top + r <= height
        for z in range(size):
            here, to = at + r * hop + z * channels, (r * size + z) * channels
            if inside and 1 <= left + z <= width:
                for c in range(0, channels, 8):
                    value = load(x, here + c) * load(scale, first + c) + load(shift, c)
                    store(out, to + c, larger(value, load(floor, c)))
            else:
                for c in range(0, channels, 8):
                    store(out, to + c, zero)


@njit(**FAST)  # type: ignore[untyped-decorator]
def _add_tile(
    x: Array, at: int, hop: int, high: int, broad: int, channels: int, plain: Array,
    square: Array, to: int,
) -> None:  # fmt: skip
    """Add x and x^2 of a tile to the sums of its map."""
    for c in range(0, channels, 8):
        one, two = load(plain, to + c), load(square, to + c)
        for y in range(high):
            here = at + y * hop + c
            for _ in range(broad):
                a = load(x, here)
                one, two = one + a, two + a * a
                here += channels
        store(plain, to + c, one)
        store(square, to + c, two)


@njit(**FAST)  # type: ignore[untyped-decorator]
def _convolve(
    x: Array, shape: tuple[int, int, int, int], m: int, height: int, width: int, kernel: Array,
    outputs: int, bias: Array, none: Array, least: np.float32, block: int, v: Array,
    product: Array, t: Array, out: Array, scale: Array, shift: Array, floor: Array, bent: Array,
    plain: Array, square: Array,
) -> None:  # fmt: skip
    n, tall, wide, channels = shape
    down, across, size = (tall - 2) // m, (wide - 2) // m, m + 2
    bends, adds = len(scale) > 0, len(plain) > 0
    if adds:
        plain[:] = np.float32(0)
        square[:] = np.float32(0)
    tiles = n * down * across
    plane, page = block * channels + PAGE, block * outputs + PAGE
    for first in range(0, tiles, block):
        count = min(block, tiles - first)
        for k in range(count):
            i, place = divmod(first + k, down * across)
            row, column = divmod(place, across)
            at = ((i * tall + row * m) * wide + column * m) * channels
            if bends:
                _bend_tile(
                    x, at, wide * channels, size, row * m, column * m, height, width, channels,
                    scale, i * channels, shift, floor, bent,
                )  # fmt: skip
                _into(m, bent, 0, size * channels, t, 0, size * channels, size * channels // 8)
            else:
                _into(m, x, at, wide * channels, t, 0, size * channels, size * channels // 8)
            for r in range(size):
                _into(
                    m, t, r * size * channels, channels, v, r * size * plane + k * channels, plane,
                    channels // 8,
                )  # fmt: skip
        rows = -(-count // 6) * 6
        for p in range(size * size):
            # a constant at the point (1, 1) comes out as one in every pixel: the bias is free
            multiply(
                v, p * plane, channels, 0, 1, rows, channels, kernel, p * channels * outputs,
                outputs, bias if p == size + 1 else none, NEVER, product, p * page, outputs,
            )  # fmt: skip
        for k in range(count):
            i, place = divmod(first + k, down * across)
            row, column = divmod(place, across)
            for j in range(size):
                _out_of(
                    m, product, j * page + k * outputs, size * page, t, j * outputs,
                    size * outputs, outputs // 8, NEVER,
                )  # fmt: skip
            for y in range(min(m, height - row * m)):
                to = ((i * tall + 1 + row * m + y) * wide + 1 + column * m) * outputs
                _out_of(m, t, y * size * outputs, outputs, out, to, outputs, outputs // 8, least)
            if adds:  # while the tile is at hand
                at = ((i * tall + 1 + row * m) * wide + 1 + column * m) * outputs
                _add_tile(
                    out, at, wide * outputs, min(m, height - row * m), min(m, width - column * m),
                    outputs, plain, square, i * outputs,
                )  # fmt: skip


@njit(**FAST)  # type: ignore[untyped-decorator]
def clear_border(x: Array, shape: tuple[int, int, int, int], height: int, width: int) -> None:
    """Set all that lies outside the pixels of a map to 0."""
    n, tall, wide, channels = shape
    for i in range(n):
        for y in range(tall):
            row = (i * tall + y) * wide
            first = wide if y < 1 or y > height else 1
            for at in range(row * channels, (row + first) * channels):
                x[at] = np.float32(0)
            if first == 1:
                for at in range((row + 1 + width) * channels, (row + wide) * channels):
                    x[at] = np.float32(0)


@njit(**FAST)  # type: ignore[untyped-decorator]
def bend(
    x: Array, shape: tuple[int, int, int, int], height: int, width: int, scale: Array,
    shift: Array, least: Array, out: Array,
) -> None:  # fmt: skip
    """max(x scale + shift, least), scale (n, c) flat, shift and least (c,); the border stays 0."""
    n, tall, wide, channels = shape
    for i in range(n):
        for y in range(1, height + 1):
            at = ((i * tall + y) * wide + 1) * channels
            for _ in range(width):
                for c in range(0, channels, 8):
                    value = load(x, at + c) * load(scale, i * channels + c) + load(shift, c)
                    store(out, at + c, larger(value, load(least, c)))
                at += channels
    clear_border(out, shape, height, width)


@njit(**FAST)  # type: ignore[untyped-decorator]
def sums(
    x: Array, shape: tuple[int, int, int, int], height: int, width: int, plain: Array,
    square: Array,
) -> None:  # fmt: skip
    """Sums of x and of x^2 over the pixels of each channel, (n, c) flat, c in sixteens."""
    n, tall, wide, channels = shape
    for i in range(n):
        for c in range(0, channels, 16):  # whole lines of the cache
            one0 = one1 = two0 = two1 = spread(np.float32(0))
            for y in range(1, height + 1):
                at = ((i * tall + y) * wide + 1) * channels + c
                for _ in range(width):
                    a, b = load(x, at), load(x, at + 8)
                    one0, one1 = one0 + a, one1 + b
                    two0, two1 = two0 + a * a, two1 + b * b
                    at += channels
            to = i * channels + c
            store(plain, to, one0)
            store(plain, to + 8, one1)
            store(square, to, two0)
            store(square, to + 8, two1)


@njit(**FAST)  # type: ignore[untyped-decorator]
def halve(
    x: Array, shape: tuple[int, int, int, int], edge: int, height: int, width: int, out: Array,
    into: tuple[int, int, int, int], margin: int, high: int, broad: int,
) -> None:  # fmt: skip
    """Largest of 2 x 2, the odd row and column alone.

    The pixels of x begin ``edge`` from its corner, those of the result, ``high`` by ``broad``,
    ``margin`` from its own.
    """
    n, tall, wide, channels = shape
    for i in range(n):
        for y in range(high):
            one = (i * tall + edge + 2 * y) * wide + edge
            two = (i * tall + edge + min(2 * y + 1, height - 1)) * wide + edge
            to = (i * into[1] + margin + y) * into[2] + margin
            for z in range(broad):
                a, b = 2 * z, min(2 * z + 1, width - 1)
                for c in range(0, channels, 8):
                    up = larger(
                        load(x, (one + a) * channels + c), load(x, (one + b) * channels + c)
                    )
                    low = larger(
                        load(x, (two + a) * channels + c), load(x, (two + b) * channels + c)
                    )
                    store(out, (to + z) * channels + c, larger(up, low))


@njit(**FAST)  # type: ignore[untyped-decorator]
def gather(
    x: Array, shape: tuple[int, int, int, int], kernel: int, stride: int, start: int, high: int,
    broad: int, out: Array,
) -> None:  # fmt: skip
    """Lay the neighbourhood (y, x, channel) of every ``stride``-th pixel in a row.

    The first begins ``start`` from the corner of the map.
    """
    n, tall, wide, channels = shape
    to, run = 0, kernel * channels
    for i in range(n):
        for y in range(high):
            for z in range(broad):
                for a in range(kernel):
                    at = (
                        (i * tall + start + y * stride + a) * wide + start + z * stride
                    ) * channels
                    for c in range(0, run, 8):
                        store(out, to + c, load(x, at + c))
                    to += run


@njit(**FAST)  # type: ignore[untyped-decorator]
def convolve_first(
    pixels: Array, border: int, kernel: int, weight: Array, outputs: int, bias: Array,
    least: np.float32, laid: Array, out: Array, shape: tuple[int, int, int, int], edge: int,
) -> None:  # fmt: skip
    """Convolve few channels directly, (n, c, y, x) -> a map whose pixels begin at ``edge``.

    Neighbours in a row of an image are neighbours in memory: nothing is copied for a product.
    Writes up to five pixels beyond the last of each row.
    """
    n, channels, height, width = pixels.shape
    _, tall, wide, _ = shape
    high, broad = height + 2 * border - kernel + 1, width + 2 * border - kernel + 1
    rows = -(-broad // 6) * 6
    line = (rows + kernel - 1) * channels
    for i in range(n):
        for c in range(channels):
            for y in range(height):
                at = (y + border) * line + border * channels + c
                for z in range(width):
                    laid[at + z * channels] = pixels[i, c, y, z]
        for y in range(high):
            multiply(
                laid, y * line, channels, line, kernel, rows, kernel * channels, weight, 0,
                outputs, bias, least, out, ((i * tall + edge + y) * wide + edge) * outputs,
                outputs,
            )  # fmt: skip


@njit(**FAST)  # type: ignore[untyped-decorator]
def gather_and_multiply(
    x: Array, shape: tuple[int, int, int, int], kernel: int, stride: int, start: int, high: int,
    broad: int, some: int, rows: Array, weight: Array, bias: Array, out: Array,
) -> None:  # fmt: skip
    """A convolution as products of neighbourhoods, those of ``some`` images at a time.

    Args:
        x: As in :func:`gather`, and so up to ``broad``.
        shape: Of x.
        kernel: Pixels along its side.
        stride: Of the convolution.
        start: Of the first neighbourhood.
        high: Of the result.
        broad: Of the result.
        some: Images whose neighbourhoods stay in the cache.
        rows: Room for them, a multiple of six.
        weight: Packed.
        bias: Shape (out,).
        out: Pixels without a border, and five rows more.
    """
    n, tall, wide, channels = shape
    depth, columns, pixels = kernel * kernel * channels, len(bias), high * broad
    for i in range(0, n, some):
        count = min(some, n - i)
        part = (count, tall, wide, channels)
        gather(
            x[i * tall * wide * channels :], part, kernel, stride, start, high, broad, rows
        )  # fmt: skip
        many = -(-count * pixels // 6) * 6
        multiply(
            rows, 0, depth, 0, 1, many, depth, weight, 0, columns, bias, NEVER, out,
            i * pixels * columns, columns,
        )  # fmt: skip


@njit(**FAST)  # type: ignore[untyped-decorator]
def weigh_and_add(
    u: Array, shape: tuple[int, int, int, int], height: int, width: int, place: Array,
    offset: np.float32, channel: Array, shortcut: Array, out: Array, plain: Array, square: Array,
) -> None:  # fmt: skip
    """Give u (sigmoid(place . u + offset) + channel) + shortcut, pixel by pixel.

    u and out are maps, ``place`` (c,), ``channel`` (n, c) flat, already squashed, ``shortcut`` the
    pixels without a border. The sums of the result and of its square are written, (n, c) flat.
    """
    n, tall, wide, channels = shape
    row = 0
    plain[:] = np.float32(0)
    square[:] = np.float32(0)
    for i in range(n):
        for y in range(1, height + 1):
            at = ((i * tall + y) * wide + 1) * channels
            for _ in range(width):
                dot = spread(np.float32(0))
                for c in range(0, channels, 8):
                    dot = dot + load(u, at + c) * load(place, c)
                gate = np.float32(1) / (np.float32(1) + np.exp(-(total(dot) + offset)))
                everywhere = spread(gate)
                for c in range(0, channels, 8):
                    factor = everywhere + load(channel, i * channels + c)
                    store(out, at + c, load(u, at + c) * factor + load(shortcut, row + c))
                at += channels
                row += channels
            at -= width * channels
            _add_tile(out, at, 0, 1, width, channels, plain, square, i * channels)
    clear_border(out, shape, height, width)


def prepare_kernel(weight: NDArray[np.floating], m: int) -> Array:
    """G g G^T of a 3x3 kernel, packed.

    Args:
        weight: (out, in, 3, 3).
        m: 4, 5 or 6.

    Returns:
        ((m + 2)^2, in, out), packed for :func:`~skyvec.nn.products.multiply`.
    """
    g = KERNEL[m]
    made = np.einsum("ia,jb,ocab->ijco", g, g, np.asarray(weight, np.float64))
    return pack(made.reshape((m + 2) ** 2, *made.shape[2:]))


class Conv3:
    """A 3x3 convolution of stride 1 with a border of zeros.

    Args:
        weight: (out, in, 3, 3), in a multiple of eight, out of sixteen.
        bias: (out,).
        m: 4, 5 or 6: the one whose tiles cover the map with the fewest multiplications.
        slot: Name of the memory its result is written into; another than that of its input.
        rectify: Let the output pass through max(x, 0).
    """

    def __init__(
        self, weight: Array, bias: Array, m: int, slot: str, *, rectify: bool = False
    ) -> None:
        self.outputs, self.inputs = weight.shape[:2]
        self.kernel = prepare_kernel(weight, m)
        self.bias, self.m, self.slot = np.ascontiguousarray(bias), m, slot
        self.none = np.zeros_like(self.bias)
        self.least = np.float32(0) if rectify else NEVER
        tile = 4 * (m + 2) ** 2 * (self.inputs + self.outputs)
        # weights that do not fit into the cache should serve many tiles when they come by
        self.block = sixes(max(CACHE // tile, 12, self.kernel.nbytes // 33_000))

    def __call__(self, x: Map, bend: Bend | None = None, added: Sums | None = None) -> Map:
        """Convolve a map of tiles of m; the result is good until its slot is written to again.

        Args:
            x: The map.
            bend: What its pixels pass through first.
            added: Written to: sums of the result, n of its channels.
        """
        n, tall, wide, _ = x.data.shape
        size, block = (self.m + 2) ** 2, self.block
        out = Map(scratch(self.slot, n, tall, wide, self.outputs), x.height, x.width)
        v = scratch("winograd in", size * (block * self.inputs + PAGE))
        product = scratch("winograd out", size * (block * self.outputs + PAGE))
        t = scratch("winograd tile", size * max(self.inputs, self.outputs))
        bent = scratch("winograd bent", size * self.inputs)
        scale, shift, floor = (_NOTHING,) * 3 if bend is None else bend
        plain, square = (_NOTHING,) * 2 if added is None else added
        _convolve(
            x.flat, x.data.shape, self.m, x.height, x.width, self.kernel, self.outputs, self.bias,
            self.none, self.least, block, v, product, t, out.flat, scale.reshape(-1), shift,
            floor, bent, plain.reshape(-1), square.reshape(-1),
        )  # fmt: skip
        clear_border(out.flat, out.data.shape, out.height, out.width)
        return out
