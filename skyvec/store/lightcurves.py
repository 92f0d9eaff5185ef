"""Light curves as nested lists, one row a segment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from skyvec.schema import FLUX_UNIT_RELATIVE, Catalog, LightCurves


def promises(curves: LightCurves) -> dict[str, Any]:
    """What must be the same for all light curves of a survey: nothing."""
    return {}


def to_columns(
    curves: LightCurves, bands: Sequence[str]
) -> tuple[dict[str, pa.Array], dict[str, str]]:
    """Give the columns of a shard, whose band codes refer to ``bands``, and its metadata."""
    offsets = pa.array(curves.offsets, pa.int64())
    codes = np.array([bands.index(band) for band in curves.bands], np.int16)

    def nested(values: np.ndarray) -> pa.Array:
        return pa.LargeListArray.from_arrays(offsets, pa.array(values))

    columns = {
        "mjd": nested(curves.mjd),
        "flux": nested(curves.flux),
        "flux_err": nested(curves.flux_err),
        "band": nested(codes[curves.band] if len(codes) else curves.band),
    }
    return columns, {"flux_unit": curves.flux_unit}


def from_columns(
    table: pa.Table, catalog: Catalog, manifest: Mapping[str, Any], facts: Mapping[str, str]
) -> LightCurves:
    """Make light curves of the columns of a shard."""
    first = table["mjd"].combine_chunks()
    return LightCurves(
        catalog.id,
        _offsets(first),
        _flat(first),
        _flat(table["flux"].combine_chunks()),
        _flat(table["flux_err"].combine_chunks()),
        _flat(table["band"].combine_chunks()),
        tuple(manifest.get("bands", [])),
        facts.get("flux_unit", ""),
    )


def _offsets(lists: pa.LargeListArray) -> np.ndarray:
    offsets = lists.offsets.to_numpy()
    return (offsets - offsets[0]).astype(np.int64)


def _flat(lists: pa.LargeListArray) -> np.ndarray:
    return lists.flatten().to_numpy(zero_copy_only=False)


def join(parts: Sequence[LightCurves], bands: tuple[str, ...]) -> LightCurves:
    """Put light curves one after the other; ``relative`` where their flux units differ."""
    units = {part.flux_unit for part in parts}
    return LightCurves(
        np.concatenate([np.zeros(0, np.str_), *(part.id for part in parts)]),
        np.r_[0, np.cumsum([n for part in parts for n in part.lengths])].astype(np.int64),
        np.concatenate([part.mjd for part in parts] or [np.zeros(0)]),
        np.concatenate([part.flux for part in parts] or [np.zeros(0, np.float32)]),
        np.concatenate([part.flux_err for part in parts] or [np.zeros(0, np.float32)]),
        np.concatenate([part.band for part in parts] or [np.zeros(0, np.int16)]),
        bands,
        units.pop() if len(units) == 1 else FLUX_UNIT_RELATIVE,
    )
