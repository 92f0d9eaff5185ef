"""3x3 convolutions in fewer multiplications, for scoring on a processor.

Winograd's F(m, 3): an m x m piece of the output is A^T [(G g G^T) * (B^T d B)] A with (m + 2)^2
multiplications instead of 9 m^2; m = 6 saves a factor 5, m = 4 a factor 4, where tiles of m fit.
The products over channels become (m + 2)^2 dense matrix products; the transforms around them are
single passes, compiled once for a machine and kept beside this file. A few tiles are worked on at
a time, so that what lies between the passes stays in a core's own cache.

References:
    Winograd 1980, Arithmetic complexity of computations; Lavin & Gray 2016, CVPR
    (arXiv:1509.09308).
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyvec.nn.maps import Map, Sums, halve, room
from skyvec.nn.products import FAST, NEVER, Array, multiply, pack, scratch, sixes
from skyvec.nn.vectors import larger, load, spread, store

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


class Bend(NamedTuple):
    """max(x scale + shift, least) of each channel: scale (n, c), shift and least (c,)."""

    scale: Array
    shift: Array
    least: Array


_NOTHING = np.zeros(0, np.float32)


@njit(**FAST)  # type: ignore[untyped-decorator]
def _six_points(d0: Any, d1: Any, d2: Any, d3: Any, d4: Any, d5: Any) -> Any:
    """B^T d at the points 0, 1, -1, 2, -2 and infinity."""
    four, five, two = (spread(np.float32(4)), spread(np.float32(5)), spread(np.float32(2)))
    a, b = d4 - four * d2, d3 - four * d1
    e, f = d4 - d2, two * (d3 - d1)
    first, last = four * d0 - five * d2 + d4, four * d1 - five * d3 + d5
    return first, a + b, a - b, e + f, e - f, last


@njit(**FAST)  # type: ignore[untyped-decorator]
def into_points(
    m: int, x: Array, at: int, step: int, v: Array, to: int, hop: int, count: int
) -> None:
    """B^T d of ``count`` eights of columns: d_j at x[at + j step], row i to v[to + i hop]."""
    if m == 4:
        for _ in range(count):
            r0, r1, r2, r3, r4, r5 = _six_points(
                load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step),
                load(x, at + 4 * step), load(x, at + 5 * step),
            )  # fmt: skip
            store(v, to, r0)
            store(v, to + hop, r1)
            store(v, to + 2 * hop, r2)
            store(v, to + 3 * hop, r3)
            store(v, to + 4 * hop, r4)
            store(v, to + 5 * hop, r5)
            at += 8
            to += 8
        return
    if m == 5:
        half, four, five = (spread(np.float32(0.5)), spread(np.float32(4)), spread(np.float32(5)))
        for _ in range(count):
            d0, d1, d2 = load(x, at), load(x, at + step), load(x, at + 2 * step)
            d3, d4, d5 = (load(x, at + 3 * step), load(x, at + 4 * step), load(x, at + 5 * step))
            d6 = load(x, at + 6 * step)
            store(v, to + 5 * hop, four * d1 - five * d3 + d5)
            # the points of m = 4 in what is left once the point 1/2 is divided out
            r0, r1, r2, r3, r4, r6 = _six_points(
                d1 - half * d0, d2 - half * d1, d3 - half * d2, d4 - half * d3, d5 - half * d4,
                d6 - half * d5,
            )  # fmt: skip
            store(v, to, r0)
            store(v, to + hop, r1)
            store(v, to + 2 * hop, r2)
            store(v, to + 3 * hop, r3)
            store(v, to + 4 * hop, r4)
            store(v, to + 6 * hop, r6)
            at += 8
            to += 8
        return
    k, l = spread(np.float32(5.25)), spread(np.float32(4.25))
    p, q, r = (spread(np.float32(0.25)), spread(np.float32(1.25)), spread(np.float32(0.5)))
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
    two, four, eight = (spread(np.float32(2)), spread(np.float32(4)), spread(np.float32(8)))
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
def convolve(
    x: Array, shape: tuple[int, int, int, int], m: int, height: int, width: int, kernel: Array,
    bias: Array, none: Array, least: np.float32, block: int, v: Array, product: Array, t: Array,
    tile: Array, out: Array, into: tuple[int, int, int, int], halves: bool, scale: Array,
    shift: Array, floor: Array, plain: Array, square: Array,
) -> None:  # fmt: skip
    """Convolve the images of a map; :class:`Conv3` has the meaning of the arguments.

    Args:
        x: The map, flat.
        shape: Of it.
        m: Of the tiles.
        height: Pixels inside.
        width: Pixels inside.
        kernel: From :func:`prepare_kernel`.
        bias: (out,).
        none: As many zeros.
        least: What is smaller becomes it.
        block: Tiles at a time, a multiple of six.
        v: Room for their transforms.
        product: Room for those of the result.
        t: Room for a tile between two transforms.
        tile: Room for a tile.
        out: Map written to, flat.
        into: Its shape.
        halves: Write the largest of 2 x 2 only.
        scale: Of the bend, (n, in) flat, or nothing.
        shift: Of the bend.
        floor: Of the bend.
        plain: Written to: sums of the result, (n, out) flat; or nothing.
        square: Written to: sums of its squares.
    """
    n, tall, wide, channels = shape
    _, up, along, outputs = into
    down, across, size = (tall - 2) // m, (wide - 2) // m, m + 2
    bends, adds = len(scale) > 0, len(plain) > 0
    if adds:
        plain[:] = np.float32(0)
        square[:] = np.float32(0)
    tiles, zero = n * down * across, spread(np.float32(0))
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
                    scale, i * channels, shift, floor, tile,
                )  # fmt: skip
                into_points(
                    m, tile, 0, size * channels, t, 0, size * channels, size * channels // 8
                )
            else:
                into_points(m, x, at, wide * channels, t, 0, size * channels, size * channels // 8)
            for r in range(size):
                into_points(
                    m, t, r * size * channels, channels, v, r * size * plane + k * channels, plane,
                    channels // 8,
                )  # fmt: skip
        rows = -(-count // 6) * 6
        for p in range(size * size):
            # a constant at the point (1, 1) comes out as one in every pixel: the bias is free
            multiply(
                v, p * plane, channels, rows, channels, kernel, p * channels * outputs, outputs,
                bias if p == size + 1 else none, NEVER, product, p * page, outputs,
            )  # fmt: skip
        for k in range(count):
            i, place = divmod(first + k, down * across)
            row, column = divmod(place, across)
            high, broad = min(m, height - row * m), min(m, width - column * m)
            for j in range(size):
                _out_of(
                    m, product, j * page + k * outputs, size * page, t, j * outputs,
                    size * outputs, outputs // 8, NEVER,
                )  # fmt: skip
            if halves:
                for y in range(high):
                    _out_of(
                        m, t, y * size * outputs, outputs, tile, y * m * outputs, outputs,
                        outputs // 8, least,
                    )  # fmt: skip
                half = m // 2
                to = ((i * up + 1 + row * half) * along + 1 + column * half) * outputs
                halve(
                    tile, 0, m * outputs, high, broad, outputs, out, to, along * outputs,
                    (high + 1) // 2, (broad + 1) // 2,
                )  # fmt: skip
                continue
            at = ((i * up + 1 + row * m) * along + 1 + column * m) * outputs
            for y in range(high):
                to = at + y * along * outputs
                _out_of(m, t, y * size * outputs, outputs, out, to, outputs, outputs // 8, least)
                for c in range(broad * outputs, m * outputs, 8):
                    store(out, to + c, zero)
            if adds:  # while the tile is at hand
                _add_tile(
                    out, at, along * outputs, high, broad, outputs, plain, square, i * outputs
                )  # fmt: skip


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
        out = room(self.slot, len(x.data), x.height, x.width, self.outputs, self.m)
        scale, shift, floor = (_NOTHING,) * 3 if bend is None else bend
        plain, square = (_NOTHING,) * 2 if added is None else added
        convolve(
            x.flat, x.data.shape, self.m, x.height, x.width, self.kernel, self.bias, self.none,
            self.least, self.block, *workspace(self.m, self.block, self.inputs, self.outputs),
            out.flat, out.data.shape, False, scale.reshape(-1), shift, floor, plain.reshape(-1),
            square.reshape(-1),
        )  # fmt: skip
        return out


def workspace(m: int, block: int, inputs: int, outputs: int) -> tuple[Array, Array, Array, Array]:
    """Room that :func:`convolve` works in: transforms, products, a tile twice."""
    size = (m + 2) ** 2
    return (
        scratch("winograd in", size * (block * inputs + PAGE)),
        scratch("winograd out", size * (block * outputs + PAGE)),
        scratch("winograd between", size * max(inputs, outputs)),
        scratch("winograd tile", size * max(inputs, outputs)),
    )
