"""Products of small matrices near what a processor's core can do, for scoring.

Six rows and sixteen columns of a product are held in registers while the weights, packed in panels
of sixteen columns, stream by. A library's product of such sizes reaches about two thirds of a
core's peak (28 of 44 thousand million multiply-adds a second on the machine of the bench), this
one nine tenths. It asks for rows in sixes, which callers lay out.
"""

import math
import threading
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyvec.nn.vectors import fused, larger, load, single, spread, store

FAST: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": {"contract", "nsz"}}
Array = NDArray[np.float32]
Places = NDArray[np.int64]

ROWS, COLUMNS = 6, 16
"""Rows and columns of a product that are worked on at a time."""

NEVER = np.float32(-np.inf)
"""A threshold that cuts nothing."""

_POOL = threading.local()


def scratch(slot: str, *shape: int) -> Array:
    """Give an array of this thread's own to write into; the next call with the slot reuses it.

    New memory would be cleared by the system page by page, which takes as long as the sums. It
    begins as zeros; what is left in it from before is finite.
    """
    size = math.prod(shape)
    held: dict[str, Array] = _POOL.__dict__
    if slot not in held or len(held[slot]) < size:
        held[slot] = aligned(size)
    return held[slot][:size].reshape(shape)


def aligned(size: int) -> Array:
    """Give zeros that begin with a line of the cache, so that no eight of them lie on two."""
    raw = np.zeros(size + 15, np.float32)
    first = -raw.ctypes.data % 64 // 4
    return raw[first : first + size]


def sixes(rows: int) -> int:
    """Give the next number of rows that can be worked on, a multiple of six."""
    return -(-rows // ROWS) * ROWS


def pack(weight: NDArray[np.floating]) -> Array:
    """Lay out weights in panels: (..., in, out) -> flat, sixteen columns of all rows at a time.

    Raises:
        ValueError: The columns are no multiple of sixteen.
    """
    *others, depth, columns = weight.shape
    if columns % COLUMNS:
        raise ValueError(f"{columns} columns of weights are no multiple of {COLUMNS}")
    panels = weight.reshape(*others, depth, columns // COLUMNS, COLUMNS)
    made = aligned(weight.size)
    made[:] = np.moveaxis(panels, -2, -3).reshape(-1)
    return made


@njit(**FAST)  # type: ignore[untyped-decorator]
def _six(
    a: Array, i0: int, i1: int, i2: int, i3: int, i4: int, i5: int, hop: int, runs: int,
    depth: int, b: Array, j: int, bias: Array, q: int, least: np.float32, c: Array, to: int,
    far: int,
) -> None:  # fmt: skip
    p0, p1 = load(bias, q), load(bias, q + 8)
    c00, c01, c10, c11, c20, c21 = p0, p1, p0, p1, p0, p1
    c30, c31, c40, c41, c50, c51 = p0, p1, p0, p1, p0, p1
    for _ in range(runs):
        for d in range(depth):
            b0, b1 = load(b, j), load(b, j + 8)
            j += 16
            v = single(a, i0 + d)
            c00, c01 = fused(v, b0, c00), fused(v, b1, c01)
            v = single(a, i1 + d)
            c10, c11 = fused(v, b0, c10), fused(v, b1, c11)
            v = single(a, i2 + d)
            c20, c21 = fused(v, b0, c20), fused(v, b1, c21)
            v = single(a, i3 + d)
            c30, c31 = fused(v, b0, c30), fused(v, b1, c31)
            v = single(a, i4 + d)
            c40, c41 = fused(v, b0, c40), fused(v, b1, c41)
            v = single(a, i5 + d)
            c50, c51 = fused(v, b0, c50), fused(v, b1, c51)
        i0, i1, i2, i3, i4, i5 = (i0 + hop, i1 + hop, i2 + hop, i3 + hop, i4 + hop, i5 + hop)
    z = spread(least)
    store(c, to, larger(c00, z))
    store(c, to + 8, larger(c01, z))
    store(c, to + far, larger(c10, z))
    store(c, to + far + 8, larger(c11, z))
    store(c, to + 2 * far, larger(c20, z))
    store(c, to + 2 * far + 8, larger(c21, z))
    store(c, to + 3 * far, larger(c30, z))
    store(c, to + 3 * far + 8, larger(c31, z))
    store(c, to + 4 * far, larger(c40, z))
    store(c, to + 4 * far + 8, larger(c41, z))
    store(c, to + 5 * far, larger(c50, z))
    store(c, to + 5 * far + 8, larger(c51, z))


@njit(**FAST)  # type: ignore[untyped-decorator]
def multiply(
    a: Array, at: int, lead: int, rows: int, depth: int, b: Array, first: int, columns: int,
    bias: Array, least: np.float32, c: Array, to: int, far: int,
) -> None:  # fmt: skip
    """c_rn = max(least, bias_n + sum_d a[at + r lead + d] b_dn), all arrays flat.

    Args:
        a: Left factors.
        at: Where they begin.
        lead: From a row to the next.
        rows: A multiple of six; as many are read and written.
        depth: Floats of a row.
        b: Packed weights.
        first: Where they begin.
        columns: A multiple of sixteen.
        bias: Shape (columns,).
        least: What is smaller becomes it.
        c: Written to.
        to: From where on.
        far: From a row of it to the next.
    """
    for n in range(0, columns, 16):
        for i in range(0, rows, 6):
            k = at + i * lead
            _six(
                a, k, k + lead, k + 2 * lead, k + 3 * lead, k + 4 * lead, k + 5 * lead, 0, 1,
                depth, b, first + n * depth, bias, n, least, c, to + i * far + n, far,
            )  # fmt: skip


@njit(**FAST)  # type: ignore[untyped-decorator]
def multiply_at(
    a: Array, at: Places, first: int, rows: int, hop: int, runs: int, depth: int, b: Array,
    bias: Array, c: Array, far: int,
) -> None:  # fmt: skip
    """c_rn = bias_n + sum_sd a[at[first + r] + s hop + d] b_sdn, all arrays flat.

    Neighbourhoods are read where they lie, each in as many runs as it has rows.

    Args:
        a: Left factors.
        at: Where each of their rows begins.
        first: Of them.
        rows: A multiple of six.
        hop: From a run of a row to the next.
        runs: Of a row.
        depth: Floats of a run.
        b: Packed weights.
        bias: One for each column.
        c: Written to.
        far: From a row of it to the next.
    """
    for n in range(0, len(bias), 16):
        for i in range(0, rows, 6):
            k = first + i
            _six(
                a, at[k], at[k + 1], at[k + 2], at[k + 3], at[k + 4], at[k + 5], hop, runs,
                depth, b, n * depth * runs, bias, n, NEVER, c, i * far + n, far,
            )  # fmt: skip
