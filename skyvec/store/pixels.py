"""Pixels as little-endian bytes, one value a row; lists would take ten times as long to read."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def to_columns(
    pixels: np.ndarray, error: np.ndarray | None
) -> tuple[dict[str, pa.Array], dict[str, str]]:
    """Give the columns of pixels and of their errors, and the metadata to read them by."""
    kind = _narrow(pixels)
    columns = {"pixels": _as_bytes(pixels.astype(kind))}
    if error is not None:
        columns["pixels_err"] = _as_bytes(error)
    return columns, {"dtype": kind.name, "shape": json.dumps(pixels.shape[1:])}


def _narrow(pixels: np.ndarray) -> np.dtype:
    """Bytes where they hold the pixels exactly, as those of JPEG and PNG do."""
    with np.errstate(invalid="ignore"):  # NaN is no byte, and the comparison says so
        is_exact = bool((pixels.astype(np.uint8) == pixels).all())
    return np.dtype(np.uint8 if is_exact else "<f4")


def _as_bytes(pixels: np.ndarray) -> pa.Array:
    width = int(np.prod(pixels.shape[1:])) * pixels.itemsize
    buffer = pa.py_buffer(np.ascontiguousarray(pixels).data)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(pixels), [None, buffer])


def from_column(
    column: pa.ChunkedArray, shape: Sequence[int], dtype: str, *, copy: bool = True
) -> np.ndarray:
    """Make float32 pixels of a column, shape (n, *shape); a view, if it can be, without a copy."""
    whole = column.chunks[0] if len(column.chunks) == 1 else pa.concat_arrays(column.chunks)
    count = int(np.prod(shape)) * len(whole)
    start = int(np.prod(shape)) * whole.offset
    flat = np.frombuffer(whole.buffers()[1] or b"", dtype)[start : start + count]
    return flat.reshape(len(whole), *shape).astype(np.float32, copy=copy)
