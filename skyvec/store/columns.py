"""Columns of Parquet as arrays, and which of them are light."""

import numpy as np
import pyarrow as pa

CURVE_COLUMNS = ("mjd", "flux", "flux_err", "band")
PIXEL_COLUMNS = ("pixels", "pixels_err")
STAMP_COLUMNS = ("detector", "exposure", "object")

LIGHT_COLUMNS = CURVE_COLUMNS + PIXEL_COLUMNS
"""The heavy columns: everything else of a shard is its catalogue."""

PLACE_COLUMNS = ("id", "target", "ra", "dec")
"""Every catalogue begins with them."""


def strings(column: pa.ChunkedArray) -> np.ndarray:
    """A column as text, empty where there is none."""
    text = column.cast(pa.string())
    return np.array(text.fill_null("").to_pylist(), dtype=np.str_).reshape(len(column))


def values(column: pa.ChunkedArray) -> np.ndarray:
    """A column of text or numbers, NaN where there is none."""
    return strings(column) if is_text(column.type) else column.to_numpy()


def is_text(kind: pa.DataType) -> bool:
    """Say whether a column of this type holds text."""
    kinds = pa.types
    return kinds.is_dictionary(kind) or kinds.is_string(kind) or kinds.is_large_string(kind)
