"""Vectors made ready for the scan: turned, sorted into cells, coded in 8 bits with errors."""

import numpy as np
from numpy.typing import NDArray

from skyvec.index import kernels

CELL = 512
"""Vectors in a cell, on average, or the square root of their number where that is more."""

SAMPLE_CELL = 32
"""Vectors a cell that the k-means looks at."""

ROUNDS = 6
"""Rounds of the k-means."""

BLOCK = 4096
"""Vectors compared with all centres at once."""

HEAD_SLOTS = 16
"""Codes of the coarse stage, the length of the rest being the last."""


def checked(vectors: np.ndarray, name: str = "vectors") -> NDArray[np.float32]:
    """Vectors as float32 (n, d).

    Raises:
        ValueError: Not two-dimensional, no dimension, or not finite.
    """
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"{name} must have shape (n, d) with d > 0, not {vectors.shape}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise ValueError(f"{name} must be finite, but row {row} is not; drop such rows first")
    return vectors


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1 (float64 inside, rounded once); zero vectors stay zero."""
    wide = vectors.astype(np.float64)
    length = np.sqrt((wide**2).sum(axis=1, keepdims=True))
    return (wide / np.where(length > 0, length, 1.0)).astype(np.float32)


def quantise(values: NDArray[np.float64]) -> tuple[kernels.Codes, NDArray[np.uint8]]:
    """Give each column 8 bits over its own range, and measure the largest error.

    Args:
        values: Shape (n, m).

    Returns:
        The codes' description (nothing packed yet) and the codes, 1 to 255, shape (n, m).
    """
    low, high = values.min(axis=0), values.max(axis=0)
    offset, scale = (low + high) / 2, (high - low) / 254
    scale = np.where(scale > 0, scale, 1.0)
    moved = values - offset
    whole = moved / scale
    np.clip(np.rint(whole, out=whole), -127, 127, out=whole)
    length = np.sqrt(np.einsum("ij,ij->i", whole, whole).max())
    moved -= scale * whole
    error = np.sqrt(np.einsum("ij,ij->i", moved, moved).max())
    described = kernels.Codes(
        np.zeros(0, np.uint8),
        0,
        scale,
        offset,
        float(error) * (1 + 1e-9),
        float(length) * (1 + 1e-9),
    )
    return described, (whole + 128).astype(np.uint8)


def pack(described: kernels.Codes, codes: NDArray[np.uint8]) -> kernels.Codes:
    """Lay codes out as the scan reads them: blocks of 64 vectors, four codes of each together."""
    n, m = codes.shape
    groups = -(-m // kernels.GROUP)
    wide = np.zeros((n, groups * kernels.GROUP), np.uint8)
    wide[:, :m] = codes
    blocks = wide.reshape(n // kernels.LANES, kernels.LANES, groups, kernels.GROUP)
    packed = np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(-1)
    return described._replace(packed=packed, groups=groups)


def nearest_centre(
    vectors: NDArray[np.float32], centres: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Number of the centre nearest to each vector, to float32's rounding, shape (n,)."""
    half = 0.5 * (centres**2).sum(axis=1)
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), BLOCK):
        closeness = vectors[start : start + BLOCK] @ centres.T
        closeness -= half
        nearest[start : start + BLOCK] = closeness.argmax(axis=1)
    return nearest


def assign_cells(vectors: NDArray[np.float32], n_cells: int) -> NDArray[np.int64]:
    """Cell of each vector by k-means on every few of them, shape (n,). Any cells are correct."""
    n = len(vectors)
    sample = vectors[:: max(1, n // (n_cells * SAMPLE_CELL))]
    centres = sample[:: max(1, len(sample) // n_cells)][:n_cells].copy()
    for _ in range(ROUNDS):
        near = nearest_centre(sample, centres)
        order = np.argsort(near, kind="stable")
        kept, first, count = np.unique(near[order], return_index=True, return_counts=True)
        centres[kept] = np.add.reduceat(sample[order], first) / count[:, None]
    return nearest_centre(vectors, centres)


def build_store(vectors: NDArray[np.float32], target: np.ndarray, metric: str) -> kernels.Store:
    """Turn, sort, pad and code vectors.

    Args:
        vectors: Of length 1 or 0 for ``cosine``, any for ``l2``, shape (n, d).
        target: Code of the object of each, >= 0, shape (n,).
        metric: ``cosine`` or ``l2``.
    """
    n, d = vectors.shape
    wide = vectors.astype(np.float64)
    mean = wide.mean(axis=0) if metric == "l2" else np.zeros(d)
    wide -= mean
    _, turn = np.linalg.eigh(wide.T @ wide)
    turned = wide @ np.ascontiguousarray(turn[:, ::-1])
    cell = assign_cells(
        (turned - turned.mean(axis=0)).astype(np.float32), max(1, int(n / max(CELL, np.sqrt(n))))
    )
    order = np.lexsort((np.arange(n), cell))
    counts = np.bincount(cell)
    counts = counts[counts > 0]
    blocks = -(-counts // kernels.LANES)
    first = np.concatenate([[0], np.cumsum(blocks)])
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    place = np.arange(n) + np.repeat(first[:-1] * kernels.LANES - starts, counts)
    size = int(first[-1]) * kernels.LANES
    turned = turned[order]
    centre = np.add.reduceat(turned, starts) / counts[:, None]
    apart = np.sqrt(((turned - np.repeat(centre, counts, axis=0)) ** 2).sum(axis=1))
    power = (turned**2).sum(axis=1)
    head = min(HEAD_SLOTS - 1, d)
    rest = np.sqrt((turned[:, head:] ** 2).sum(axis=1))
    coarse, coarse_codes = quantise(np.column_stack([turned[:, :head], rest]))
    fine, fine_codes = quantise(turned)

    def spread(values: np.ndarray, fill: float = 0) -> np.ndarray:
        padded = np.full((size, *values.shape[1:]), fill, values.dtype)
        padded[place] = values
        return padded

    width = -(-d // 8) * 8
    kept = np.zeros((size, width), np.float32)
    kept[place, :d] = vectors[order]
    bias = spread(-0.5 * power.astype(np.float32)) if metric == "l2" else np.zeros(0, np.float32)
    return kernels.Store(
        kept,
        spread(order, -1),
        spread(target[order].astype(np.int64), -2),
        first,
        np.ascontiguousarray(turn[:, ::-1]),
        mean,
        np.ascontiguousarray(centre.T),
        np.maximum.reduceat(apart, starts) * (1 + 1e-9),
        np.maximum.reduceat(power, starts) * (1 + 1e-9),
        pack(coarse, spread(coarse_codes)),
        pack(fine, spread(fine_codes)),
        bias,
        float(np.sqrt(power.max())) * (1 + 1e-9),
        float(np.sqrt((mean**2).sum())),
    )
