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

TEN = (3 / 8, 3 / 4, 4 / 3, 3.0)
"""Points of the largest transform: of simple ratios those that lose the fewest digits."""
_ALL = tuple(float(c) for c in np.poly(np.square(TEN))[::-1])
_BUT = tuple(float(c) for i in range(4) for c in np.poly(np.square(np.delete(TEN, i)))[::-1])


_SIGNED = np.array([0, *(sign * p for p in TEN for sign in (1, -1))])


def _ten() -> NDArray[np.float64]:
    others = [np.prod(np.delete(p - _SIGNED, i)) for i, p in enumerate(_SIGNED)]
    return np.vstack([_SIGNED[:, None] ** np.arange(3) / np.array(others)[:, None], [0, 0, 1]])


KERNEL = {
    6: np.array([
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ]),
    7: np.array([
        [1 / -2, 0, 0], [-1 / 3, -1 / 3, -1 / 3], [1 / 9, -1 / 9, 1 / 9],
        [1 / 36, 1 / 18, 1 / 9], [-1 / 60, 1 / 30, -1 / 15], [32 / 45, 16 / 45, 8 / 45],
        [0, 0, 1],
    ]),
    8: np.array([
        [1, 0, 0], [-2 / 9, -2 / 9, -2 / 9], [-2 / 9, 2 / 9, -2 / 9],
        [1 / 90, 1 / 45, 2 / 45], [1 / 90, -1 / 45, 2 / 45],
        [1 / 45, 1 / 90, 1 / 180], [1 / 45, -1 / 90, 1 / 180], [0, 0, 1],
    ]),
    9: np.array([
        [1 / 2, 0, 0], [-1 / 2, 0, -1 / 2], [-1 / 6, 0, 1 / 6], [1 / 6, 0, 1 / 3], [0, 0, 1],
        [0, 1, 0],
    ]),
    10: _ten(),
}  # fmt: skip
"""G of each number of points: 0, 1, -1, 2, -2, then 1/2 (of 7 and 8), -1/2 (8) and infinity.

Of 10: 0, both signs of ``TEN``, infinity. Of 9, for every second pixel: the outer two of the three
weights at 0, 1, -1, 2 and infinity of the even pixels, and the middle one, the same for each of
four odd pixels.
"""
PIXELS = {6: 4, 7: 5, 8: 6, 9: 4, 10: 8}
"""Pixels of the result that the points give."""

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
def _into_pair(
    which: int, d1: Any, d2: Any, d3: Any, d4: Any, d5: Any, d6: Any, d7: Any, d8: Any
) -> Any:
    """B^T d at a point of ``TEN`` and at its opposite."""
    p, q = spread(np.float32(TEN[which])), 4 * which
    q0, q1 = spread(np.float32(_BUT[q])), spread(np.float32(_BUT[q + 1]))
    q2 = spread(np.float32(_BUT[q + 2]))
    a = q0 * d2 + q1 * d4 + q2 * d6 + d8
    b = p * (q0 * d1 + q1 * d3 + q2 * d5 + d7)
    return a + b, a - b


@njit(**FAST)  # type: ignore[untyped-decorator]
def _out_of_pairs(power: int, a: Any, b: Any, c: Any, d: Any) -> Any:
    """A^T of sums or differences at the points of ``TEN``: their powers times them."""
    p, q = spread(np.float32(TEN[0] ** power)), spread(np.float32(TEN[1] ** power))
    r, s = spread(np.float32(TEN[2] ** power)), spread(np.float32(TEN[3] ** power))
    return p * a + q * b + r * c + s * d


@njit(**FAST)  # type: ignore[untyped-decorator]
def into_points(
    points: int, x: Array, at: int, step: int, v: Array, to: int, hop: int, count: int
) -> None:
    """B^T d of ``count`` eights of columns: d_j at x[at + j step], row i to v[to + i hop]."""
    if points == 6:
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
    if points == 7:
        half, four, five = (spread(np.float32(0.5)), spread(np.float32(4)), spread(np.float32(5)))
        for _ in range(count):
            d0, d1, d2 = load(x, at), load(x, at + step), load(x, at + 2 * step)
            d3, d4, d5 = (load(x, at + 3 * step), load(x, at + 4 * step), load(x, at + 5 * step))
            d6 = load(x, at + 6 * step)
            store(v, to + 5 * hop, four * d1 - five * d3 + d5)
            # the points of six in what is left once the point 1/2 is divided out
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
    if points == 9:
        two, three = spread(np.float32(2)), spread(np.float32(3))
        for _ in range(count):
            e1, e2, e3 = load(x, at + 2 * step), load(x, at + 4 * step), load(x, at + 6 * step)
            a, b = e3 - e1, e3 - e2
            store(v, to, two * (load(x, at) - e2) + a)
            store(v, to + hop, b - two * e1)
            store(v, to + 2 * hop, two * e1 - three * e2 + e3)
            store(v, to + 3 * hop, a)
            store(v, to + 4 * hop, load(x, at + 8 * step) - e2 - two * a)
            for k in range(4):
                store(v, to + (5 + k) * hop, load(x, at + (2 * k + 1) * step))
            at += 8
            to += 8
        return
    if points == 10:
        c0, c1 = spread(np.float32(_ALL[0])), spread(np.float32(_ALL[1]))
        c2, c3 = spread(np.float32(_ALL[2])), spread(np.float32(_ALL[3]))
        for _ in range(count):
            d1, d2, d3 = load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step)
            d4, d5, d6 = load(x, at + 4 * step), load(x, at + 5 * step), load(x, at + 6 * step)
            d7, d8 = load(x, at + 7 * step), load(x, at + 8 * step)
            store(v, to, c0 * load(x, at) + c1 * d2 + c2 * d4 + c3 * d6 + d8)
            last = c0 * d1 + c1 * d3 + c2 * d5 + c3 * d7
            store(v, to + 9 * hop, last + load(x, at + 9 * step))
            r1, r2 = _into_pair(0, d1, d2, d3, d4, d5, d6, d7, d8)
            store(v, to + hop, r1)
            store(v, to + 2 * hop, r2)
            r1, r2 = _into_pair(1, d1, d2, d3, d4, d5, d6, d7, d8)
            store(v, to + 3 * hop, r1)
            store(v, to + 4 * hop, r2)
            r1, r2 = _into_pair(2, d1, d2, d3, d4, d5, d6, d7, d8)
            store(v, to + 5 * hop, r1)
            store(v, to + 6 * hop, r2)
            r1, r2 = _into_pair(3, d1, d2, d3, d4, d5, d6, d7, d8)
            store(v, to + 7 * hop, r1)
            store(v, to + 8 * hop, r2)
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
def three_pairs(v: Array, at: int, step: int) -> Any:
    """Sum and difference at three points and their opposites."""
    m1, m2 = load(v, at + step), load(v, at + 2 * step)
    m3, m4 = load(v, at + 3 * step), load(v, at + 4 * step)
    m5, m6 = load(v, at + 5 * step), load(v, at + 6 * step)
    return m1 + m2, m1 - m2, m3 + m4, m3 - m4, m5 + m6, m5 - m6


@njit(**FAST)  # type: ignore[untyped-decorator]
def _out_of(
    points: int, v: Array, at: int, step: int, x: Array, to: int, hop: int, count: int,
    least: np.float32,
) -> None:  # fmt: skip
    """A^T of ``count`` eights of columns, cut at ``least``."""
    z = spread(least)
    two, four, eight = (spread(np.float32(2)), spread(np.float32(4)), spread(np.float32(8)))
    if points == 6:
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
    if points == 7:
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
    if points == 9:
        for _ in range(count):
            m1, m2, m3 = load(v, at + step), load(v, at + 2 * step), load(v, at + 3 * step)
            a, b = m1 + m2, m1 - m2
            n0, n1 = load(v, at + 5 * step), load(v, at + 6 * step)
            n2, n3 = load(v, at + 7 * step), load(v, at + 8 * step) + load(v, at + 4 * step)
            store(x, to, larger(load(v, at) + a + m3 + n0, z))
            store(x, to + hop, larger(b + two * m3 + n1, z))
            store(x, to + 2 * hop, larger(a + four * m3 + n2, z))
            store(x, to + 3 * hop, larger(b + eight * m3 + n3, z))
            at += 8
            to += 8
        return
    if points == 10:
        for _ in range(count):
            m1, m2 = load(v, at + step), load(v, at + 2 * step)
            m3, m4 = load(v, at + 3 * step), load(v, at + 4 * step)
            a0, b0, a1, b1 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
            m1, m2 = load(v, at + 5 * step), load(v, at + 6 * step)
            m3, m4 = load(v, at + 7 * step), load(v, at + 8 * step)
            a2, b2, a3, b3 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
            store(x, to, larger(load(v, at) + (a0 + a1) + (a2 + a3), z))
            store(x, to + hop, larger(_out_of_pairs(1, b0, b1, b2, b3), z))
            store(x, to + 2 * hop, larger(_out_of_pairs(2, a0, a1, a2, a3), z))
            store(x, to + 3 * hop, larger(_out_of_pairs(3, b0, b1, b2, b3), z))
            store(x, to + 4 * hop, larger(_out_of_pairs(4, a0, a1, a2, a3), z))
            store(x, to + 5 * hop, larger(_out_of_pairs(5, b0, b1, b2, b3), z))
            store(x, to + 6 * hop, larger(_out_of_pairs(6, a0, a1, a2, a3), z))
            last = _out_of_pairs(7, b0, b1, b2, b3) + load(v, at + 9 * step)
            store(x, to + 7 * hop, larger(last, z))
            at += 8
            to += 8
        return
    for _ in range(count):
        a, b, c, d, e, f = three_pairs(v, at, step)
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
    x: Array, shape: tuple[int, int, int, int], points: int, start: int, height: int, width: int,
    kernel: Array, bias: Array, least: np.float32, block: int, v: Array, product: Array,
    t: Array, tile: Array, out: Array, into: tuple[int, int, int, int],
    halves: bool, scale: Array, shift: Array, floor: Array, plain: Array, square: Array,
) -> None:  # fmt: skip
    """Convolve the images of a map; :class:`Conv3` has the meaning of the arguments.

    Args:
        x: The map, flat.
        shape: Of it.
        points: Of the transforms.
        start: Where the first neighbourhood begins, from the corner of the map.
        height: Pixels inside.
        width: Pixels inside.
        kernel: From :func:`prepare_kernel`.
        bias: From :func:`prepare_bias`.
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
    bends, adds = len(scale) > 0, len(plain) > 0
    if adds:
        plain[:] = np.float32(0)
        square[:] = np.float32(0)
    m, stride, distinct = points - 2, 1, points
    made, long = height, width
    if points == 9:
        m, stride, distinct = 4, 2, 6
        made, long = -(-height // 2), -(-width // 2)
    down, across = -(-made // m), -(-long // m)
    tiles, zero = n * down * across, spread(np.float32(0))
    plane, page = block * channels + PAGE, block * outputs + PAGE
    line, edge = points * channels, points * outputs
    origin = np.int64(0)  # a literal would be compiled for itself
    for first in range(0, tiles, block):
        count = min(block, tiles - first)
        for k in range(count):
            i, place = divmod(first + k, down * across)
            row, column = divmod(place, across)
            top, left = start + row * m * stride, start + column * m * stride
            at = ((i * tall + top) * wide + left) * channels
            if bends:
                _bend_tile(
                    x, at, wide * channels, points, top, left, height, width, channels, scale,
                    i * channels, shift, floor, tile,
                )  # fmt: skip
                into_points(points, tile, origin, line, t, origin, line, line // 8)
            else:
                into_points(points, x, at, wide * channels, t, origin, line, line // 8)
            for r in range(points):
                into_points(
                    points, t, r * line, channels, v, r * points * plane + k * channels, plane,
                    channels // 8,
                )  # fmt: skip
        rows = -(-count // 6) * 6
        for p in range(points * points):
            # several points may share their weights
            q = min(p // points, distinct - 1) * distinct + min(p % points, distinct - 1)
            multiply(
                v, p * plane, channels, rows, channels, kernel, q * channels * outputs, outputs,
                bias[p], NEVER, product, p * page, outputs,
            )  # fmt: skip
        for k in range(count):
            i, place = divmod(first + k, down * across)
            row, column = divmod(place, across)
            high, broad = min(m, made - row * m), min(m, long - column * m)
            for j in range(points):
                _out_of(
                    points, product, j * page + k * outputs, points * page, t, j * outputs, edge,
                    outputs // 8, NEVER,
                )  # fmt: skip
            if halves:
                for y in range(high):
                    _out_of(
                        points, t, y * edge, outputs, tile, y * m * outputs, outputs,
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
                _out_of(points, t, y * edge, outputs, out, to, outputs, outputs // 8, least)
                for c in range(broad * outputs, m * outputs, 8):
                    store(out, to + c, zero)
            if adds:  # while the tile is at hand
                _add_tile(
                    out, at, along * outputs, high, broad, outputs, plain, square, i * outputs
                )  # fmt: skip


def prepare_kernel(weight: NDArray[np.floating], points: int) -> Array:
    """G g G^T of a 3x3 kernel, packed.

    Args:
        weight: (out, in, 3, 3).
        points: 6 to 10.

    Returns:
        (points^2, in, out), or 36 instead of 81 that differ, packed for
        :func:`~skyvec.nn.products.multiply`.
    """
    g = KERNEL[points]
    made = np.einsum("ia,jb,ocab->ijco", g, g, np.asarray(weight, np.float64))
    return pack(made.reshape(len(g) ** 2, *made.shape[2:]))


def prepare_bias(bias: NDArray[np.floating], points: int) -> Array:
    """What comes out of A^T as a constant in every pixel, so that a bias is free.

    Args:
        bias: (out,).
        points: 6 to 10.

    Returns:
        (points^2, out).
    """
    one = np.zeros(points)
    one[1] = 1  # every power of the point 1 is 1
    if points == 10:
        one[:-1] = np.linalg.pinv(_SIGNED ** np.arange(8)[:, None]) @ np.ones(8)
    return np.ascontiguousarray(np.outer(np.outer(one, one), bias), np.float32)


class Conv3:
    """A 3x3 convolution with a border of zeros, of every pixel or of every second.

    Args:
        weight: (out, in, 3, 3), in a multiple of eight, out of sixteen.
        bias: (out,).
        points: 6, 7, 8 or 10: the number whose tiles of 4, 5, 6 or 8 pixels cover the map with
            the fewest multiplications; 9 for a stride of 2, the odd pixel of padding last.
        slot: Name of the memory its result is written into; another than that of its input.
        rectify: Let the output pass through max(x, 0).
        tile: Pixels of the tiles in which the result is read, if they are others.
    """

    def __init__(
        self, weight: Array, bias: Array, points: int, slot: str, *, rectify: bool = False,
        tile: int = 0,
    ) -> None:  # fmt: skip
        self.outputs, self.inputs = weight.shape[:2]
        self.kernel = prepare_kernel(weight, points)
        self.bias, self.points, self.slot = prepare_bias(bias, points), points, slot
        self.tile = tile or PIXELS[points]
        self.least = np.float32(0) if rectify else NEVER
        each = 4 * points**2 * (self.inputs + self.outputs)
        # weights that do not fit into the cache should serve many tiles when they come by
        self.block = sixes(max(CACHE // each, 12, self.kernel.nbytes // 25_000))

    def __call__(self, x: Map, bend: Bend | None = None, added: Sums | None = None) -> Map:
        """Convolve a map, square if by twos; the result is good until its slot is written again.

        Args:
            x: The map, of tiles of as many pixels as the points give (of twice as many by twos).
            bend: What its pixels pass through first.
            added: Written to: sums of the result, n of its channels.
        """
        height, width, start = x.height, x.width, 0
        if self.points == 9:
            height, width = -(-height // 2), -(-width // 2)
            start = 1 - max(0, 2 * height + 1 - x.height) // 2
        out = room(self.slot, len(x.data), height, width, self.outputs, self.tile)
        scale, shift, floor = (_NOTHING,) * 3 if bend is None else bend
        plain, square = (_NOTHING,) * 2 if added is None else added
        down, across = (-(-size // PIXELS[self.points]) for size in (height, width))
        block = min(self.block, sixes(len(x.data) * down * across))
        convolve(
            x.flat, x.data.shape, self.points, start, x.height, x.width, self.kernel, self.bias,
            self.least, block,
            *workspace(self.points, block, self.inputs, self.outputs), out.flat,
            out.data.shape, False, scale.reshape(-1), shift, floor, plain.reshape(-1),
            square.reshape(-1),
        )  # fmt: skip
        return out


def workspace(
    points: int, block: int, inputs: int, outputs: int
) -> tuple[Array, Array, Array, Array]:
    """Room that :func:`convolve` works in: transforms, products, a tile twice."""
    size = points**2
    return (
        scratch("winograd in", size * (block * inputs + PAGE)),
        scratch("winograd out", size * (block * outputs + PAGE)),
        scratch("winograd between", size * max(inputs, outputs)),
        scratch("winograd tile", size * max(inputs, outputs)),
    )
