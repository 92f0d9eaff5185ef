"""Stamps as little-endian bytes with their shape, and the sensor, exposure and object of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from skyvec.schema import Catalog, Stamps
from skyvec.store import pixels
from skyvec.store.columns import STAMP_COLUMNS, strings


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
