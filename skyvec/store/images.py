"""Images as little-endian bytes with their shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from skyvec.schema import FLUX_UNIT_RELATIVE, Catalog, Images
from skyvec.store import pixels


def promises(images: Images) -> dict[str, Any]:
    """What must be the same for all images of a survey."""
    scale = None if np.isnan(images.pixel_scale) else float(images.pixel_scale)
    shape = list(images.pixels.shape[1:])
    return {"shape": shape, "bands": list(images.bands), "pixel_scale": scale}


def to_columns(images: Images, bands: Sequence[str]) -> tuple[dict[str, pa.Array], dict[str, str]]:
    """Give the columns of a shard, and its metadata."""
    columns, facts = pixels.to_columns(images.pixels, images.flux_err)
    return columns, {"flux_unit": images.flux_unit, **facts}


def from_columns(
    table: pa.Table, catalog: Catalog, manifest: Mapping[str, Any], facts: Mapping[str, str]
) -> Images:
    """Make images of the columns of a shard."""
    shape, bands = manifest["shape"], tuple(manifest["bands"])
    scale = manifest.get("pixel_scale") or float("nan")
    if not len(catalog):
        return Images(catalog.id, np.zeros((0, *shape), np.float32), bands, scale)
    error = None
    if "pixels_err" in table.column_names:
        error = pixels.from_column(table["pixels_err"], shape, "<f4")
    light = pixels.from_column(table["pixels"], shape, facts["dtype"])
    return Images(catalog.id, light, bands, scale, facts["flux_unit"], error)


def join(parts: Sequence[Images]) -> Images:
    """Put images one after the other.

    ``relative`` where their flux units differ, without errors where some have none.
    """
    units = {part.flux_unit for part in parts}
    errors = [part.flux_err for part in parts if part.flux_err is not None]
    return Images(
        np.concatenate([part.id for part in parts]),
        np.concatenate([part.pixels for part in parts]),
        parts[0].bands,
        parts[0].pixel_scale,
        units.pop() if len(units) == 1 else FLUX_UNIT_RELATIVE,
        np.concatenate(errors) if len(errors) == len(parts) else None,
    )
