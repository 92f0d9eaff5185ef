"""Objects side by side: the catalogue and the arrays of a shard."""

from collections.abc import Mapping, Sequence

import numpy as np

from skyvec.io.cutouts import Cutout
from skyvec.io.segments import Segment, Value
from skyvec.io.stamps import Triplet
from skyvec.schema import FLUX_UNIT_RELATIVE, Catalog, Images, LightCurves, Stamps

Object = Segment | Cutout | Triplet


def to_tables(
    objects: Sequence[Object], kinds: dict[str, str]
) -> tuple[Catalog, LightCurves | Images | Stamps]:
    """Put objects of one form side by side.

    Args:
        objects: As readers give them.
        kinds: Text or number: what each column of the survey holds; new ones are added.
    """
    ids = np.array([item.id for item in objects], dtype=np.str_)
    catalog = Catalog(
        ids,
        np.array([item.target for item in objects], dtype=np.str_),
        np.array([item.ra for item in objects], dtype=np.float64),
        np.array([item.dec for item in objects], dtype=np.float64),
        _columns(objects, kinds),
    )
    cutouts = [item for item in objects if isinstance(item, Cutout)]
    if cutouts:
        return catalog, _stack(ids, cutouts)
    triplets = [item for item in objects if isinstance(item, Triplet)]
    if triplets:
        return catalog, Stamps(
            ids,
            np.stack([item.pixels for item in triplets]),
            np.array([item.detector for item in triplets], dtype=np.str_),
            np.array([item.exposure for item in triplets], dtype=np.str_),
            catalog.target,
        )
    return catalog, light_curves([item for item in objects if isinstance(item, Segment)])


def _stack(ids: np.ndarray, cutouts: Sequence[Cutout]) -> Images:
    first = cutouts[0]
    errors = [item.flux_err for item in cutouts if item.flux_err is not None]
    return Images(
        ids,
        np.stack([item.pixels for item in cutouts]),
        first.bands,
        first.pixel_scale,
        first.flux_unit,
        np.stack(errors) if errors else None,
    )


def light_curves(segments: Sequence[Segment]) -> LightCurves:
    """Put the light curves of segments of one flux unit one after the other."""
    ids = np.array([segment.id for segment in segments], dtype=np.str_)
    bands = tuple(dict.fromkeys(band for segment in segments for band in segment.bands))
    code = {names: _codes(names, bands) for names in {segment.bands for segment in segments}}
    offsets = np.zeros(len(segments) + 1, np.int64)
    np.cumsum([len(segment.mjd) for segment in segments], out=offsets[1:])
    return LightCurves(
        ids,
        offsets,
        np.concatenate([np.zeros(0), *(s.mjd for s in segments)]),
        np.concatenate([np.zeros(0, np.float32), *(s.flux for s in segments)]),
        np.concatenate([np.zeros(0, np.float32), *(s.flux_err for s in segments)]),
        np.concatenate([np.zeros(0, np.int16), *(code[s.bands][s.band] for s in segments)]),
        bands,
        segments[0].flux_unit if segments else FLUX_UNIT_RELATIVE,
    )


def _codes(names: tuple[str, ...], bands: tuple[str, ...]) -> np.ndarray:
    return np.array([bands.index(name) for name in names], np.int16)


def _columns(objects: Sequence[Object], kinds: dict[str, str]) -> dict[str, np.ndarray]:
    """Put the facts of objects side by side; one that some lack is NaN or empty there.

    A name stands for one kind in the whole survey: where a text arrives under the name of a
    number (or the other way round), it gets a column of its own, ``NAME_text``.
    """
    found: dict[str, dict[int, Value]] = {}
    for row, item in enumerate(objects):
        for name, value in item.columns.items():
            kind = "text" if isinstance(value, str) else "number"
            is_other = kinds.setdefault(name, kind) != kind
            free = f"{name}_{kind}" if is_other else name
            kinds.setdefault(free, kind)
            found.setdefault(free, {})[row] = value
    n = len(objects)
    return {name: _column(values, n, kinds[name]) for name, values in found.items()}


def _column(values: Mapping[int, Value], n: int, kind: str) -> np.ndarray:
    if kind == "text":
        return np.array([values.get(row, "") for row in range(n)], dtype=object)
    if len(values) == n and all(isinstance(value, int) for value in values.values()):
        return np.array([values[row] for row in range(n)], np.int64)
    return np.array([values.get(row, np.nan) for row in range(n)], np.float64)
