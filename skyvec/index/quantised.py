"""Vectors made ready for the scan: turned, sorted into cells, coded in 8 bits with errors.

Two walks over the vectors, block by block, so that they need not fit in memory: the first finds
the cell of each and the range of every axis, the second lays out whole cells.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.index import kernels
from skyvec.index.blas import one_thread

CELL = 512
"""Vectors in a cell, on average, or the square root of their number where that is more."""

SAMPLE_CELL = 32
"""Vectors a cell that the frame is fitted to."""

ROUNDS = 6
"""Rounds of the k-means."""

BLOCK = 4096
"""Vectors turned and compared with all centres at once."""

GROUP_ROWS = 16_384
"""Vectors laid out at once, or one cell where it is larger."""

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
    units = np.empty_like(vectors)
    for start in range(0, len(vectors), BLOCK):
        wide = vectors[start : start + BLOCK].astype(np.float64)
        length = np.sqrt((wide**2).sum(axis=1, keepdims=True))
        units[start : start + BLOCK] = wide / np.where(length > 0, length, 1.0)
    return units


def pack(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay codes out as the scan reads them: blocks of 64 vectors, four codes of each together.

    Args:
        codes: Shape (n, m), n a multiple of 64.

    Returns:
        Shape (n 4 ceil(m / 4),).
    """
    n, m = codes.shape
    groups = -(-m // kernels.GROUP)
    wide = np.zeros((n, groups * kernels.GROUP), np.uint8)
    wide[:, :m] = codes
    blocks = wide.reshape(n // kernels.LANES, kernels.LANES, groups, kernels.GROUP)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(-1)


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


# --- the first walk ---------------------------------------------------------------------------


class Frame(NamedTuple):
    """What vectors are turned and sorted by; fitted to some of them, correct for any.

    Args:
        mean: Subtracted before the turn: of the vectors for ``l2``, 0 for ``cosine``, (d,).
        turn: Orthogonal axes, columns by falling power, (d, d).
        middle: Of the turned vectors, (d,).
        centres: Of the cells, turned and less the middle, float32 (cells, d).
        is_distance: The metric is ``l2``.
    """

    mean: NDArray[np.float64]
    turn: NDArray[np.float64]
    middle: NDArray[np.float64]
    centres: NDArray[np.float32]
    is_distance: bool

    def turned(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Vectors in this frame, float64."""
        wide = vectors.astype(np.float64)
        wide -= self.mean
        return wide @ self.turn

    @property
    def head(self) -> int:
        """How many axes the coarse codes hold."""
        return min(HEAD_SLOTS - 1, len(self.mean))


def sample_size(n: int) -> int:
    """How many of n vectors the frame is fitted to."""
    return min(n, SAMPLE_CELL * n_cells(n))


def n_cells(n: int) -> int:
    """Into how many cells n vectors are sorted."""
    return max(1, int(n / max(CELL, np.sqrt(n))))


def fit_frame(sample: NDArray[np.float32], cells: int, metric: str) -> Frame:
    """Find axes by power and cells by k-means.

    Args:
        sample: Of length 1 or 0 for ``cosine``, any for ``l2``, shape (m, d).
        cells: How many; fewer where the sample is smaller.
        metric: ``cosine`` or ``l2``.
    """
    d = sample.shape[1]
    wide = sample.astype(np.float64)
    mean = wide.mean(axis=0) if metric == "l2" else np.zeros(d)
    wide -= mean
    _, axes = np.linalg.eigh(wide.T @ wide)
    turn = np.ascontiguousarray(axes[:, ::-1])
    turned = wide @ turn
    middle = turned.mean(axis=0)
    points = (turned - middle).astype(np.float32)
    centres = points[:: max(1, len(points) // cells)][:cells].copy()
    for _ in range(ROUNDS):
        near = nearest_centre(points, centres)
        order = np.argsort(near, kind="stable")
        kept, first, count = np.unique(near[order], return_index=True, return_counts=True)
        centres[kept] = np.add.reduceat(points[order], first) / count[:, None]
    return Frame(mean, turn, middle, centres, metric == "l2")


class Ranges(NamedTuple):
    """Lowest and highest value of each axis and, last, of the length of the axes after the head.

    Args:
        low: Shape (d + 1,).
        high: Shape (d + 1,).
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def join(self, other: "Ranges") -> "Ranges":
        """Give the ranges of both."""
        return Ranges(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


def survey(vectors: NDArray[np.float32], frame: Frame) -> tuple[NDArray[np.int32], Ranges]:
    """Cell of each vector and the ranges of all; shape (n, d) with n > 0."""
    cell = np.empty(len(vectors), np.int32)
    ranges = Ranges(np.full(vectors.shape[1] + 1, np.inf), np.full(vectors.shape[1] + 1, -np.inf))
    for start in range(0, len(vectors), BLOCK):
        turned = frame.turned(vectors[start : start + BLOCK])
        rest = _rest(turned, frame.head)
        low, high = (
            np.append(turned.min(axis=0), rest.min()),
            np.append(turned.max(axis=0), rest.max()),
        )
        ranges = ranges.join(Ranges(low, high))
        turned -= frame.middle
        cell[start : start + BLOCK] = nearest_centre(turned.astype(np.float32), frame.centres)
    return cell, ranges


def survey_all(
    vectors: NDArray[np.float32], frame: Frame, pool: ThreadPoolExecutor
) -> tuple[NDArray[np.int32], Ranges]:
    """The same as `survey`, on several threads."""
    starts = range(0, len(vectors), GROUP_ROWS)
    with one_thread():
        parts = list(pool.map(lambda at: survey(vectors[at : at + GROUP_ROWS], frame), starts))
    ranges = parts[0][1]
    for _, other in parts[1:]:
        ranges = ranges.join(other)
    return np.concatenate([cell for cell, _ in parts]), ranges


def _rest(turned: NDArray[np.float64], head: int) -> NDArray[np.float64]:
    tail = turned[:, head:]
    return np.sqrt(np.einsum("ij,ij->i", tail, tail))


# --- the second walk --------------------------------------------------------------------------


class Scale(NamedTuple):
    """How values become whole numbers: value = offset + scale whole + error, |whole| <= 127."""

    offset: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def spanning(cls, low: NDArray[np.float64], high: NDArray[np.float64]) -> "Scale":
        """Give each column its own range."""
        scale = (high - low) / 254
        return cls((low + high) / 2, np.where(scale > 0, scale, 1.0))

    def quantise(self, values: NDArray[np.float64]) -> tuple[NDArray[np.uint8], float, float]:
        """Codes 1 to 255 of values (n, m), the largest error and the largest length of a row."""
        moved = values - self.offset
        whole = moved / self.scale
        np.clip(np.rint(whole, out=whole), -127, 127, out=whole)
        length = np.sqrt(np.einsum("ij,ij->i", whole, whole).max())
        moved -= self.scale * whole
        error = np.sqrt(np.einsum("ij,ij->i", moved, moved).max())
        return (whole + 128).astype(np.uint8), float(error), float(length)


class Piece(NamedTuple):
    """Whole cells as they stand in a store, and what is to be known of them."""

    vectors: NDArray[np.float32]
    rows: NDArray[np.int64]
    target: NDArray[np.int64]
    coarse: NDArray[np.uint8]
    fine: NDArray[np.uint8]
    bias: NDArray[np.float32]
    centre: NDArray[np.float64]
    radius: NDArray[np.float64]
    power: NDArray[np.float64]
    error: tuple[float, float]
    length: tuple[float, float]

    def without_arrays(self) -> "Piece":
        """What is to be known of the cells, without their members."""
        none = np.zeros(0, np.float32)  # an empty slice would keep the array it was cut from
        whole = np.zeros(0, np.int64)
        codes = np.zeros(0, np.uint8)
        return self._replace(
            vectors=none, rows=whole, target=whole, coarse=codes, fine=codes, bias=none
        )


def lay_out(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    target: NDArray[np.int64],
    counts: NDArray[np.int64],
    frame: Frame,
    ranges: Ranges,
) -> Piece:
    """Lay out the members of some cells, in the order of the cells, each cell padded to blocks.

    Args:
        vectors: Shape (n, d).
        rows: The caller's row of each, (n,).
        target: Code of the object of each, (n,).
        counts: Members of each cell, all > 0, (c,).
        frame: What the cells were found in.
        ranges: Of all vectors.
    """
    n, d = vectors.shape
    blocks = -(-counts // kernels.LANES)
    first = np.cumsum(blocks) - blocks
    starts = np.cumsum(counts) - counts
    place = np.arange(n) + np.repeat(first * kernels.LANES - starts, counts)
    size = int(blocks.sum()) * kernels.LANES
    turned = frame.turned(vectors)
    centre = np.add.reduceat(turned, starts) / counts[:, None]
    apart = turned - np.repeat(centre, counts, axis=0)
    radius = np.sqrt(np.maximum.reduceat(np.einsum("ij,ij->i", apart, apart), starts))
    power = np.einsum("ij,ij->i", turned, turned)
    head = frame.head
    span = [*range(head), d]
    coarse_scale = Scale.spanning(ranges.low[span], ranges.high[span])
    fine_scale = Scale.spanning(ranges.low[:d], ranges.high[:d])
    outline = np.column_stack([turned[:, :head], _rest(turned, head)])
    coarse, coarse_error, coarse_length = coarse_scale.quantise(outline)
    fine, fine_error, fine_length = fine_scale.quantise(turned)

    def spread(values: np.ndarray, fill: float = 0) -> np.ndarray:
        padded = np.full((size, *values.shape[1:]), fill, values.dtype)
        padded[place] = values
        return padded

    kept = np.zeros((size, -(-d // 8) * 8), np.float32)
    kept[place, :d] = vectors
    half = -0.5 * power.astype(np.float32)
    return Piece(
        kept,
        spread(rows.astype(np.int64), -1),
        spread(target.astype(np.int64), -2),
        pack(spread(coarse)),
        pack(spread(fine)),
        spread(half) if frame.is_distance else half[:0],
        centre,
        radius,
        np.maximum.reduceat(power, starts),
        (coarse_error, fine_error),
        (coarse_length, fine_length),
    )


SAFE = 1 + 1e-9
"""Lengths are rounded up by this much, which is more than float64 can lose in computing them."""


def assemble(
    arrays: dict[str, np.ndarray],
    pieces: list[Piece],
    blocks: NDArray[np.int64],
    frame: Frame,
    ranges: Ranges,
) -> kernels.Store:
    """Put a store together.

    Args:
        arrays: ``vectors rows target coarse fine bias``, whole.
        pieces: All, in order; of each only what is to be known of its cells is read.
        blocks: Of every cell, (cells,).
        frame: What the cells were found in.
        ranges: Of all vectors.
    """
    d = len(frame.mean)
    span = [*range(frame.head), d]
    power = np.concatenate([piece.power for piece in pieces])
    codes: list[kernels.Codes] = []
    for stage, (name, columns) in enumerate((("coarse", span), ("fine", [*range(d)]))):
        scale = Scale.spanning(ranges.low[columns], ranges.high[columns])
        codes.append(
            kernels.Codes(
                arrays[name],
                -(-len(columns) // kernels.GROUP),
                scale.scale,
                scale.offset,
                max(piece.error[stage] for piece in pieces) * SAFE,
                max(piece.length[stage] for piece in pieces) * SAFE,
            )
        )
    coarse, fine = codes
    return kernels.Store(
        arrays["vectors"],
        arrays["rows"],
        arrays["target"],
        np.concatenate([[0], np.cumsum(blocks)]),
        frame.turn,
        frame.mean,
        np.ascontiguousarray(np.concatenate([piece.centre for piece in pieces]).T),
        np.concatenate([piece.radius for piece in pieces]) * SAFE,
        power * SAFE,
        coarse,
        fine,
        arrays["bias"],
        float(np.sqrt(power.max())) * SAFE,
        float(np.sqrt((frame.mean**2).sum())),
    )


def group_cells(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Runs of whole cells to lay out together: first cell and end of each."""
    runs, first, held = [], 0, 0
    for cell, count in enumerate(counts.tolist()):
        if held and held + count > GROUP_ROWS:
            runs.append((first, cell))
            first, held = cell, 0
        held += count
    return [*runs, (first, len(counts))]


def build_store(
    vectors: NDArray[np.float32], target: np.ndarray, metric: str, pool: ThreadPoolExecutor
) -> kernels.Store:
    """Turn, sort, pad and code vectors held in memory.

    Args:
        vectors: Of length 1 or 0 for ``cosine``, any for ``l2``, shape (n, d).
        target: Code of the object of each, >= 0, shape (n,).
        metric: ``cosine`` or ``l2``.
        pool: Threads to share the work between.
    """
    n, d = vectors.shape
    sample = vectors[:: max(1, n // sample_size(n))]
    frame = fit_frame(sample, n_cells(n), metric)
    cell, ranges = survey_all(vectors, frame, pool)
    order = np.argsort(cell, kind="stable")
    counts = np.bincount(cell)
    counts = counts[counts > 0]
    blocks = -(-counts // kernels.LANES)
    starts = np.concatenate([[0], np.cumsum(counts)])
    places = np.concatenate([[0], np.cumsum(blocks)]) * kernels.LANES
    size = int(places[-1])
    groups = [-(-slots // kernels.GROUP) for slots in (frame.head + 1, d)]
    arrays = {
        "vectors": np.empty((size, -(-d // 8) * 8), np.float32),
        "rows": np.empty(size, np.int64),
        "target": np.empty(size, np.int64),
        "coarse": np.empty(size * groups[0] * kernels.GROUP, np.uint8),
        "fine": np.empty(size * groups[1] * kernels.GROUP, np.uint8),
        "bias": np.empty(size if metric == "l2" else 0, np.float32),
    }

    def work(run: tuple[int, int]) -> Piece:
        first, end = run
        rows = order[starts[first] : starts[end]]
        piece = lay_out(vectors[rows], rows, target[rows], counts[first:end], frame, ranges)
        for name, whole in arrays.items():
            part = getattr(piece, name)
            step = len(whole) // size
            whole[places[first] * step : places[end] * step] = part
        return piece.without_arrays()

    pieces = list(pool.map(work, group_cells(counts)))
    return assemble(arrays, pieces, blocks, frame, ranges)
