"""Light curves on a common grid, for measures of similarity that want sample i beside sample i."""

import numpy as np
from numpy.typing import NDArray

from skyvec.prep.lightcurves import Prepared


def on_grid(prepared: Prepared, cells: int = 128, *, band: int = 0) -> NDArray[np.float32]:
    """Average each curve in equal cells of its own span and z-normalise the result.

    Cells without points are filled on the straight line between their neighbours, so that a gap
    neither invents nor hides a jump. A curve without scatter gives zeros.

    Args:
        prepared: Curves; only the points of one band are used.
        cells: Number of cells, >= 2.
        band: Code of the band.

    Returns:
        Shape (n, cells), each row of mean 0 and standard deviation 1, or all 0.

    Raises:
        ValueError: Fewer than two cells.
    """
    if cells < 2:
        raise ValueError(f"cells must be at least 2, not {cells}")
    n = len(prepared)
    lengths = np.diff(prepared.offsets)
    span = np.zeros(n)
    occupied = lengths > 0
    span[occupied] = prepared.time[prepared.offsets[1:][occupied] - 1]
    wanted = prepared.band == band
    curve = np.repeat(np.arange(n), lengths)[wanted]
    place = prepared.time[wanted] / np.maximum(span, 1e-9)[curve] * cells
    flat = curve * cells + np.clip(place.astype(np.int64), 0, cells - 1)
    count = np.bincount(flat, minlength=n * cells).reshape(n, cells)
    total = np.bincount(flat, prepared.value[wanted], n * cells).reshape(n, cells)
    return znormalise(_fill_gaps(total / np.maximum(count, 1), count > 0))


def _fill_gaps(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Put gaps on the line between the known cells beside them, (n, cells)."""
    n, cells = values.shape
    column = np.arange(cells)
    left = np.maximum.accumulate(np.where(known, column, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, column, cells)[:, ::-1], axis=1)[:, ::-1]
    left, right = np.where(left < 0, right, left), np.where(right >= cells, left, right)
    empty = (left >= cells) | (left < 0)
    left, right = np.where(empty, 0, left), np.where(empty, 0, right)
    rows = np.arange(n)[:, None]
    step = np.maximum(right - left, 1)
    share = np.clip((column - left) / step, 0, 1)
    return values[rows, left] * (1 - share) + values[rows, right] * share


def znormalise(series: np.ndarray) -> NDArray[np.float32]:
    """Give each row mean 0 and standard deviation 1; a row without scatter becomes 0."""
    centred = series - series.mean(axis=1, keepdims=True)
    scatter = centred.std(axis=1, keepdims=True)
    constant = scatter < 1e-9
    return np.where(constant, 0, centred / np.where(constant, 1, scatter)).astype(np.float32)
