"""Stamps as little-endian bytes with their shape, and the sensor, exposure and object of each."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skyvec.schema import Catalog, Stamps
from skyvec.store import pixels
from skyvec.store.columns import STAMP_COLUMNS, strings
from skyvec.store.names import StoreError, objects_folder
from skyvec.store.surveys import survey_kind, survey_shape


def promises(stamps: Stamps) -> dict[str, Any]:
    """What must be the same for all stamps of a survey."""
    return {"shape": list(stamps.pixels.shape[1:])}


def to_columns(stamps: Stamps, bands: Sequence[str]) -> tuple[dict[str, pa.Array], dict[str, str]]:
    """Give the columns of a shard, and its metadata."""
    columns, facts = pixels.to_columns(stamps.pixels, None)
    return {name: pa.array(getattr(stamps, name)) for name in STAMP_COLUMNS} | columns, facts


def from_columns(
    table: pa.Table, catalog: Catalog, manifest: Mapping[str, Any], facts: Mapping[str, str]
) -> Stamps:
    """Make stamps of the columns of a shard."""
    shape, none = manifest["shape"], catalog.id
    if not len(catalog):
        return Stamps(none, np.zeros((0, *shape), np.float32), none, none, none)
    return Stamps(
        catalog.id,
        pixels.from_column(table["pixels"], shape, facts["dtype"]),
        *(strings(table[name]) for name in STAMP_COLUMNS),
    )


def stamp_blocks(survey: Path, file: str, least: int) -> list[list[int]]:
    """Divide a shard into blocks of row groups, for :func:`read_stamp_block`, in its order.

    Args:
        survey: The survey's folder.
        file: Name of the shard.
        least: Stamps of a block, if there are as many; a block ends with a row group.

    Raises:
        StoreError: The survey holds other things than stamps.
    """
    metadata = pq.read_metadata(objects_folder(survey) / file)
    if not metadata.num_rows:  # a night of which all was refused is of no kind
        return []
    if (held := survey_kind(survey)) != "stamps":
        raise StoreError(f"{survey} holds {held}, not stamps; this question is for stamps")
    blocks: list[list[int]] = [[]]
    rows = 0
    for i in range(metadata.num_row_groups):
        blocks[-1].append(i)
        rows += metadata.row_group(i).num_rows
        if rows >= least:
            blocks.append([])
            rows = 0
    return [block for block in blocks if block]


def read_ahead(survey: Path, file: str) -> None:
    """Ask the system to fetch a shard from the disk while something else is computed.

    It fetches into memory that it takes back when that is needed. Where a system cannot be asked
    (macOS, Windows) nothing happens.
    """
    if hasattr(os, "posix_fadvise"):
        with (objects_folder(survey) / file).open("rb") as shard:
            os.posix_fadvise(shard.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def read_stamp_block(
    survey: Path, file: str, groups: Sequence[int]
) -> tuple[pa.ChunkedArray, NDArray[np.float32]]:
    """Read keys and pixels alone, of some row groups of a shard: all that scoring needs.

    Returns:
        The keys, n of them, and float32 pixels, shape (n, 3, y, x), not to be written into.
    """
    # of one thread: callers read blocks side by side
    with pq.ParquetFile(objects_folder(survey) / file) as shard:
        table = shard.read_row_groups(groups, columns=["id", "pixels"], use_threads=False)
        facts = shard.schema_arrow.metadata or {}
    shape, dtype = survey_shape(survey), facts[b"dtype"].decode()
    return table["id"], pixels.from_column(table["pixels"], shape, dtype, copy=False)
