"""3x3 convolutions in fewer multiplications, for scoring on a processor.

Winograd's F(m, 3): an m x m piece of the output is A^T [(G g G^T) * (B^T d B)] A with (m + 2)^2
multiplications instead of 9 m^2; m = 6 saves a factor 5, m = 4 a factor 4. The products over
channels become (m + 2)^2 dense matrix products; the transforms around them are single passes,
compiled once for a machine and kept beside this file. Maps are (n, y, x, channel), float32.

References:
    Winograd 1980, Arithmetic complexity of computations; Lavin & Gray 2016, CVPR
    (arXiv:1509.09308).
"""

import math
import threading
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

_FAST = {"cache": True, "nogil": True, "fastmath": {"contract", "arcp", "nsz", "reassoc"}}
Array = NDArray[np.float32]

KERNEL = {
    4: np.array([
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ]),
    6: np.array([
        [1, 0, 0], [-2 / 9, -2 / 9, -2 / 9], [-2 / 9, 2 / 9, -2 / 9],
        [1 / 90, 1 / 45, 2 / 45], [1 / 90, -1 / 45, 2 / 45],
        [1 / 45, 1 / 90, 1 / 180], [1 / 45, -1 / 90, 1 / 180], [0, 0, 1],
    ]),
}  # fmt: skip
"""G of each m."""


INTO = {
    4: np.array([
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ], np.float32),
    6: np.array([
        [1, 0, -5.25, 0, 5.25, 0, -1, 0], [0, 1, 1, -4.25, -4.25, 1, 1, 0],
        [0, -1, 1, 4.25, -4.25, -1, 1, 0], [0, 0.5, 0.25, -2.5, -1.25, 2, 1, 0],
        [0, -0.5, 0.25, 2.5, -1.25, -2, 1, 0], [0, 2, 4, -2.5, -5, 0.5, 1, 0],
        [0, -2, 4, 2.5, -5, -0.5, 1, 0], [0, -1, 0, 5.25, 0, -5.25, 0, 1],
    ], np.float32),
}  # fmt: skip
"""B^T of each m."""

FROM = {
    4: np.array([
        [1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1],
    ], np.float32),
    6: np.array([
        [1, 1, 1, 1, 1, 32, 32, 0], [0, 1, -1, 2, -2, 16, -16, 0], [0, 1, 1, 4, 4, 8, 8, 0],
        [0, 1, -1, 8, -8, 4, -4, 0], [0, 1, 1, 16, 16, 2, 2, 0], [0, 1, -1, 32, -32, 1, -1, 1],
    ], np.float32),
}  # fmt: skip
"""A^T of each m."""


@njit(**_FAST)  # type: ignore[untyped-decorator]
def _mix(out: Array, a: Array, b: Array, c: Array, d: Array, e: Array, f: Array, k: Array) -> None:
    """Six rows weighted and summed: as many as a compiler is sure not to overlap."""
    p, q, r, s, t, u = k[0], k[1], k[2], k[3], k[4], k[5]
    for i in range(len(out)):
        out[i] = p * a[i] + q * b[i] + r * c[i] + s * d[i] + t * e[i] + u * f[i]


@njit(**_FAST)  # type: ignore[untyped-decorator]
def _mix4(
    out: Array, a: Array, b: Array, c: Array, d: Array, p: Any, q: Any, r: Any, s: Any
) -> None:
    for i in range(len(out)):
        out[i] = p * a[i] + q * b[i] + r * c[i] + s * d[i]


@njit(**_FAST)  # type: ignore[untyped-decorator]
def _add(out: Array, a: Array) -> None:
    for i in range(len(out)):
        out[i] += a[i]


@njit(**_FAST)  # type: ignore[untyped-decorator]
def _rows(
    x: Array, at: int, first: int, matrix: Array, out: Array, to: int, start: int, n: int
) -> None:
    """Weigh rows: out[to + i, start + l] = sum_j matrix_ij x[at + j, first + l], l < n.

    Every slice is of one contiguous row, which the compiler is told of by its type.
    """
    if matrix.shape[1] == 6:
        a, b, c, d, e, f = (
            x[at][first : first + n], x[at + 1][first : first + n], x[at + 2][first : first + n],
            x[at + 3][first : first + n], x[at + 4][first : first + n],
            x[at + 5][first : first + n],
        )  # fmt: skip
        for i in range(len(matrix)):
            _mix(out[to + i][start : start + n], a, b, c, d, e, f, matrix[i])
        return
    z = x[at][first : first + n]
    a, b, c, d, e, f, g = (
        x[at + 1][first : first + n], x[at + 2][first : first + n], x[at + 3][first : first + n],
        x[at + 4][first : first + n], x[at + 5][first : first + n], x[at + 6][first : first + n],
        x[at + 7][first : first + n],
    )  # fmt: skip
    for i in range(len(matrix)):
        k, row = matrix[i], out[to + i][start : start + n]
        if k[0] == 0 and k[7] == 0:
            _mix(row, a, b, c, d, e, f, k[1:])
        elif k[0] != 0 and k[1] == 0:  # the first of the way in: even rows alone
            _mix4(row, z, b, d, f, k[0], k[2], k[4], k[6])
        elif k[7] != 0 and k[2] == 0:  # the last of the way in: odd rows alone
            _mix4(row, a, c, e, g, k[1], k[3], k[5], k[7])
        else:  # the first or last of the way out
            _mix(row, a, b, c, d, e, f, k[1:])
            _add(row, z if k[0] != 0 else g)


@njit(**_FAST)  # type: ignore[untyped-decorator]
def _load(
    x: Array, i: int, top: int, m: int, bend: bool, scale: Array, shift: Array, least: Array,
    d: Array,
) -> None:  # fmt: skip
    """Copy a row of tiles, 0 beyond the border, through max(x scale + shift, least).

    d: (m + 2, m + 2, tiles c).
    """
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    tiles = d.shape[2] // channels
    for y in range(m + 2):
        for z in range(m + 2):
            for k in range(tiles):
                v, w = top + y, m * k - 1 + z
                to = d[y, z][k * channels : (k + 1) * channels]
                if v < 0 or w < 0 or v >= height or w >= width:
                    to[:] = np.float32(0)
                    continue
                at = x[i, v, w]
                if bend:
                    factor = scale[i]
                    for c in range(channels):
                        to[c] = max(at[c] * factor[c] + shift[c], least[c])
                else:
                    for c in range(channels):
                        to[c] = at[c]


@njit(**_FAST)  # type: ignore[untyped-decorator]
def into(
    x: Array, m: int, matrix: Array, bend: bool, scale: Array, shift: Array, least: Array, v: Array
) -> None:
    """B^T d B of all tiles, a row at a time: x (n, y, x, c) -> v ((m + 2)^2, n tiles c)."""
    n, height, width, channels = x.shape
    rows, columns = -(-height // m), -(-width // m)
    length, size = columns * channels, m + 2
    d = np.empty((size, size, length), np.float32)
    t = np.empty((size, size, length), np.float32)
    flat, across = d.reshape(size, size * length), t.reshape(size, size * length)
    for i in range(n):
        for row in range(rows):
            first = (i * rows + row) * length
            _load(x, i, row * m - 1, m, bend, scale, shift, least, d)
            _rows(flat, 0, 0, matrix, across, 0, 0, size * length)
            for j in range(size):
                _rows(t[j], 0, 0, matrix, v, size * j, first, length)


@njit(**_FAST)  # type: ignore[untyped-decorator]
def out_of(
    v: Array, m: int, matrix: Array, bias: Array, rectify: bool, x: Array, total: Array,
    square: Array,
) -> None:  # fmt: skip
    """A^T M A of all tiles, plus bias: v ((m + 2)^2, n tiles c) -> x (n, y, x, c).

    ``total`` and ``square`` (n, c), zeroed, get the sums of x and of x^2 over the pixels.
    """
    n, height, width, channels = x.shape
    rows, columns = -(-height // m), -(-width // m)
    length, size = columns * channels, m + 2
    t = np.empty((size, m, length), np.float32)
    piece = np.empty((m, m * length), np.float32)
    for i in range(n):
        sums, squares = total[i], square[i]
        for row in range(rows):
            first = (i * rows + row) * length
            for j in range(size):
                _rows(v, size * j, first, matrix, t[j], 0, 0, length)
            _rows(t.reshape(size, m * length), 0, 0, matrix, piece, 0, 0, m * length)
            for y in range(min(m, height - row * m)):
                for w in range(width):
                    k, z = w // m, w % m
                    at = z * length + k * channels
                    source = piece[y][at : at + channels]
                    to = x[i, row * m + y, w]
                    least = np.float32(0) if rectify else np.float32(-np.inf)
                    for c in range(channels):
                        to[c] = max(source[c] + bias[c], least)
                    for c in range(channels):
                        sums[c] += to[c]
                    for c in range(channels):
                        squares[c] += to[c] * to[c]


@njit(**_FAST)  # type: ignore[untyped-decorator]
def pool2(x: Array, out: Array, square: Array) -> None:
    """Largest of 2 x 2, the odd row and column alone; ``square`` (n, c) gets the sum of x^2."""
    n, height, width, channels = x.shape
    for i in range(n):
        for y in range(out.shape[1]):
            for z in range(out.shape[2]):
                v, w = min(2 * y + 1, height - 1), min(2 * z + 1, width - 1)
                for c in range(channels):
                    u = max(x[i, 2 * y, 2 * z, c], x[i, 2 * y, w, c])
                    u = max(u, x[i, v, 2 * z, c], x[i, v, w, c])
                    out[i, y, z, c] = u
                    square[i, c] += u * u


@njit(**_FAST)  # type: ignore[untyped-decorator]
def patches(
    x: Array, kernel: int, stride: int, before: int, bend: bool, scale: Array, shift: Array,
    least: Array, out: Array,
) -> None:  # fmt: skip
    """Lay the neighbourhood of each pixel in a row: x (n, y, x, c) -> (n y' x', k k c).

    ``before`` pixels of zeros lie before the border, as many as needed after it; values pass
    through max(x scale + shift, least) where ``bend`` is set.
    """
    n, height, width, channels = x.shape
    high, wide = -(-height // stride), -(-width // stride)
    row = 0
    for i in range(n):
        for y in range(high):
            for z in range(wide):
                at = 0
                for a in range(kernel):
                    for b in range(kernel):
                        v, w = y * stride + a - before, z * stride + b - before
                        if v < 0 or w < 0 or v >= height or w >= width:
                            for c in range(channels):
                                out[row, at + c] = np.float32(0)
                        elif bend:
                            for c in range(channels):
                                out[row, at + c] = max(
                                    x[i, v, w, c] * scale[i, c] + shift[c], least[c]
                                )
                        else:
                            for c in range(channels):
                                out[row, at + c] = x[i, v, w, c]
                        at += channels
                row += 1


@njit(**_FAST)  # type: ignore[untyped-decorator]
def weigh_and_add(
    u: Array, place: Array, offset: np.float32, channel: Array, shortcut: Array, out: Array,
    square: Array,
) -> None:  # fmt: skip
    """Weigh and add: u (sigmoid(place . u + offset) + channel) + shortcut, pixel by pixel.

    u, shortcut and out (n, y, x, c), ``place`` (c,), ``channel`` (n, c), already squashed;
    ``square`` (n, c), zeroed, gets the sum of out^2.
    """
    n, height, width, channels = u.shape
    for i in range(n):
        for y in range(height):
            for z in range(width):
                dot = offset
                for c in range(channels):
                    dot += u[i, y, z, c] * place[c]
                gate = np.float32(1) / (np.float32(1) + np.exp(-dot))
                for c in range(channels):
                    o = u[i, y, z, c] * (gate + channel[i, c]) + shortcut[i, y, z, c]
                    out[i, y, z, c] = o
                    square[i, c] += o * o


def prepare_kernel(weight: NDArray[np.floating], m: int) -> torch.Tensor:
    """G g G^T of a 3x3 kernel.

    Args:
        weight: (out, in, 3, 3).
        m: 4 or 6.

    Returns:
        ((m + 2)^2, in, out), float32.
    """
    g = KERNEL[m]
    made = np.einsum("ia,jb,ocab->ijco", g, g, np.asarray(weight, np.float64))
    size = (m + 2) ** 2
    return torch.from_numpy(np.ascontiguousarray(made.reshape(size, *made.shape[2:]), np.float32))


_POOL = threading.local()


def scratch(slot: str, *shape: int) -> Array:
    """Give an array of this thread's own to write into; the next call with the slot reuses it.

    New memory would be cleared by the system page by page, which takes as long as the sums.
    """
    size = math.prod(shape)
    held: dict[str, Array] = _POOL.__dict__
    if slot not in held or len(held[slot]) < size:
        held[slot] = np.empty(size, np.float32)
    return held[slot][:size].reshape(shape)


class Conv3:
    """A 3x3 convolution of stride 1 with a border of zeros, and what surrounds it.

    Args:
        weight: (out, in, 3, 3).
        bias: (out,).
        m: 6 for large maps, 4 where 6 would overlap too much.
        slot: Name of the memory its result is written into; another than that of its input.
        rectify: Let the output pass through max(x, 0).
    """

    def __init__(
        self, weight: Array, bias: Array, m: int, slot: str, *, rectify: bool = False
    ) -> None:
        self.kernel = prepare_kernel(weight, m)
        self.bias, self.m, self.rectify = np.ascontiguousarray(bias), m, rectify
        self.slot = slot

    def __call__(
        self, x: Array, bend: tuple[Array, Array, Array] | None = None
    ) -> tuple[Array, Array, Array]:
        """Convolve max(x scale + shift, least), or x.

        Args:
            x: (n, y, x, in).
            bend: ``scale`` (n, in), ``shift`` and ``least`` (in,).

        Returns:
            (n, y, x, out), good until the slot is written to again, and the sums of it and of
            its square over pixels, (n, out).
        """
        n, height, width, channels = x.shape
        m, tiles = self.m, n * -(-height // self.m) * -(-width // self.m)
        size, _, outputs = self.kernel.shape
        v = scratch("winograd in", size, tiles * channels)
        product = scratch("winograd out", size, tiles * outputs)
        none = np.zeros((1, 1), np.float32)
        scale, shift, least = bend or (none, none[0], none[0])
        into(x, m, INTO[m], bend is not None, scale, shift, least, v)
        laid = torch.from_numpy(v.reshape(size, tiles, channels))
        result = torch.from_numpy(product.reshape(size, tiles, outputs))
        torch.bmm(laid, self.kernel, out=result)
        out = scratch(self.slot, n, height, width, outputs)
        total, square = (np.zeros((n, outputs), np.float32) for _ in range(2))
        out_of(product, m, FROM[m], self.bias, self.rectify, out, total, square)
        return out, total, square
