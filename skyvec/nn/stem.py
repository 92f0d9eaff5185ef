"""The first convolutions of a network, where maps are large and channels few, for scoring.

The first of all is of few channels: there a convolution of 5 x 5 is taken apart along y alone,
F(4, 5) with the eight points of F(6, 3), whose 8 products for 4 rows of pixels stand instead of
20; along x neighbours in a row of an image are neighbours in memory, and nothing is copied for a
product. Those that follow are worked on a few images at a time by one compiled pass, so that what
one leaves the next finds in the cache; the last leaves its largest of 2 x 2 only.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyvec.nn.maps import Map, room
from skyvec.nn.products import FAST, NEVER, Array, multiply, pack, scratch, sixes
from skyvec.nn.vectors import larger, load, spread, store
from skyvec.nn.winograd import (
    KERNEL,
    PIXELS,
    convolve,
    into_points,
    prepare_bias,
    prepare_kernel,
    three_pairs,
    workspace,
)

POINTS, TAPS = 8, 5
LINES = POINTS - TAPS + 1
"""Rows of pixels that eight points give."""
TILE = PIXELS[POINTS]
"""Pixels of a tile of the convolutions that follow."""
BLOCK, TOGETHER = 30, 2
"""Tiles, and images, worked on at a time: fifty tiles of two images of 29 pixels in 54 rows."""

_WHERE = np.array([0, 1, -1, 2, -2, 0.5, -0.5])


def prepare_first(weight: NDArray[np.floating]) -> Array:
    """G g of a 5 x 5 kernel along y: (out, in, 5, 5) -> (8, 5 in, out), packed.

    Raises:
        ValueError: The kernel is another one.
    """
    if weight.shape[2:] != (TAPS, TAPS):
        raise ValueError(f"a kernel of shape {weight.shape}; expected (out, in, {TAPS}, {TAPS})")
    g = np.zeros((POINTS, TAPS))
    g[:-1] = KERNEL[8][:-1, :1] * _WHERE[:, None] ** np.arange(TAPS)
    g[-1, -1] = 1
    made = np.einsum("pk,ocky->pyco", g, np.asarray(weight, np.float64))
    return pack(made.reshape(POINTS, -1, len(weight)))


@njit(**FAST)  # type: ignore[untyped-decorator]
def _four_lines(
    v: Array, page: int, x: Array, to: int, hop: int, count: int, least: np.float32
) -> None:
    """A^T of ``count`` eights of columns, four rows of eight points, cut at ``least``."""
    z = spread(least)
    two, four, eight = (spread(np.float32(2)), spread(np.float32(4)), spread(np.float32(8)))
    more, most = spread(np.float32(16)), spread(np.float32(32))
    at = 0
    for _ in range(count):
        a, b, c, d, e, f = three_pairs(v, at, page)
        store(x, to, larger(load(v, at) + a + c + most * e, z))
        store(x, to + hop, larger(b + two * d + more * f, z))
        store(x, to + 2 * hop, larger(a + four * c + eight * e, z))
        store(x, to + 3 * hop, larger(b + eight * d + four * f + load(v, at + 7 * page), z))
        at += 8
        to += 8


@njit(**FAST)  # type: ignore[untyped-decorator]
def convolve_first(
    pixels: NDArray[np.float32], border: int, weight: Array, bias: Array, laid: Array, v: Array,
    product: Array, out: Array, shape: tuple[int, int, int, int], edge: int,
) -> None:  # fmt: skip
    """max(x, 0) of a 5 x 5 convolution, (n, c, y, x) -> a map whose pixels begin at ``edge``.

    Args:
        pixels: Images, at least 4 pixels of result high.
        border: Zeros around them.
        weight: From :func:`prepare_first`.
        bias: Of the eight products, (8, out).
        laid: Room for an image with its border, 0.
        v: Room for eight lines of it.
        product: Room for the eight products of a line of pixels.
        out: Map written to, flat.
        shape: Of it.
        edge: Where its pixels begin.
    """
    n, channels, height, width = pixels.shape
    _, tall, wide, outputs = shape
    points, origin = len(bias), np.int64(0)  # literals would be compiled for themselves
    high, broad = height + 2 * border - 4, width + 2 * border - 4
    rows, depth = -(-broad // 6) * 6, 5 * channels
    line = -(-(rows + 4) * channels // 8) * 8
    for i in range(n):
        for c in range(channels):
            for y in range(height):
                at = (y + border) * line + border * channels + c
                for z in range(width):
                    laid[at + z * channels] = pixels[i, c, y, z]
        for k in range(-(-high // LINES)):
            y = min(k * LINES, high - LINES)  # the last once more rather than beyond
            into_points(points, laid, y * line, line, v, origin, line, line // 8)
            for p in range(POINTS):
                multiply(
                    v, p * line, channels, rows, depth, weight, p * depth * outputs, outputs,
                    bias[p], NEVER, product, p * rows * outputs, outputs,
                )  # fmt: skip
            to = ((i * tall + edge + y) * wide + edge) * outputs
            _four_lines(
                product, rows * outputs, out, to, wide * outputs, broad * outputs // 8,
                np.float32(0),
            )  # fmt: skip


@njit(**FAST)  # type: ignore[untyped-decorator]
def _convolve_all(
    pixels: NDArray[np.float32], border: int, weight: Array, bias: Array, laid: Array,
    lines: Array, products: Array, kernels: Array, biases: Array, some: int,
    block: int, v: Array, product: Array, t: Array, tile: Array, one: Array, two: Array,
    shape: tuple[int, int, int, int], out: Array, into: tuple[int, int, int, int],
) -> None:  # fmt: skip
    n, _, height, width = pixels.shape
    last, nothing, zero = len(kernels) - 1, tile[:0], np.float32(0)
    points, start = len(bias), np.int64(0)  # literals would be compiled for themselves
    _, tall, wide, channels = shape
    step = into[1] * into[2] * into[3]
    for i in range(0, n, some):
        part = pixels[i : i + some]
        here = (len(part), tall, wide, channels)
        pooled = (len(part), into[1], into[2], into[3])
        convolve_first(part, border, weight, bias, laid, lines, products, one, here, 1)
        a, b = one, two
        for k in range(last + 1):
            halves = k == last
            convolve(
                a, here, points, start, height, width, kernels[k], biases[k], zero, block, v,
                product, t, tile, out[i * step :] if halves else b, pooled if halves else here,
                halves, nothing, nothing, nothing, nothing, nothing,
            )  # fmt: skip
            a, b = b, a


class First:
    """The first convolution, of few channels, and max(x, 0).

    Args:
        weight: (out, in, 5, 5), out a multiple of sixteen.
        bias: (out,).
        border: Zeros around an image.
    """

    def __init__(self, weight: Array, bias: Array, border: int) -> None:
        self.weight, self.border = prepare_first(weight), border
        self.bias = np.zeros((POINTS, len(bias)), np.float32)
        self.bias[1] = bias  # a constant at the point 1 comes out as one

    def room(self, pixels: NDArray[np.float32]) -> tuple[Array, Array, Array]:
        """Room for :func:`convolve_first` to work in: an image, its lines, their products."""
        _, channels, height, width = pixels.shape
        rows = sixes(width + 2 * self.border - TAPS + 1)
        line = -(-(rows + TAPS - 1) * channels // 8) * 8
        laid = np.zeros((height + 2 * self.border) * line, np.float32)
        return (
            laid,
            scratch("lines", POINTS * line),
            scratch("line products", rows * self.bias.size),
        )

    def __call__(self, pixels: NDArray[np.float32], out: Map, edge: int) -> None:
        """Convolve images (n, in, y, x) into a map whose pixels begin at ``edge``."""
        convolve_first(
            pixels, self.border, self.weight, self.bias, *self.room(pixels), out.flat,
            out.data.shape, edge,
        )  # fmt: skip


class Stem:
    """A 5 x 5 convolution, 3 x 3 ones of as many channels, each max(x, 0), and pooling.

    Args:
        first: The first, whose output is of as many pixels as its input.
        convs: Weights (out, out, 3, 3) and biases (out,) of the others, one or more.
    """

    def __init__(self, first: First, convs: list[tuple[Array, Array]]) -> None:
        self.first = first
        self.kernels = np.stack([prepare_kernel(weight, POINTS) for weight, _ in convs])
        self.biases = np.stack([prepare_bias(bias, POINTS) for _, bias in convs])

    def __call__(self, pixels: NDArray[np.float32], out: Map) -> None:
        """Write the largest of 2 x 2, the odd row and column alone, of images (n, in, y, x)."""
        n, _, height, width = pixels.shape
        some, first, channels = min(n, TOGETHER), self.first, self.biases.shape[2]
        one, two = (room(f"stem {k}", some, height, width, channels, TILE) for k in range(2))
        _convolve_all(
            pixels, first.border, first.weight, first.bias, *first.room(pixels), self.kernels,
            self.biases, some, BLOCK, *workspace(POINTS, BLOCK, channels, channels),
            one.flat, two.flat, one.data.shape, out.flat, out.data.shape,
        )  # fmt: skip
