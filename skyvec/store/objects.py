"""Objects on disk: shards of light curves, images or stamps, with their catalogue."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyvec.schema import Catalog, Images, LightCurves, Reject, Stamps
from skyvec.store import images, lightcurves, stamps
from skyvec.store.catalogue import catalog_of
from skyvec.store.columns import strings
from skyvec.store.files import sha256, write_table
from skyvec.store.manifests import read_manifest, write_manifest
from skyvec.store.names import StoreError, objects_folder, rejects_folder, shard_name
from skyvec.store.rejects import rejects_table
from skyvec.store.surveys import object_shards, survey_bands, survey_kind, survey_shape

Objects = LightCurves | Images | Stamps
Kind = TypeVar("Kind", LightCurves, Images, Stamps)

KINDS: dict[str, type] = {"lightcurves": LightCurves, "images": Images, "stamps": Stamps}
"""What a survey can hold, by the name its manifest and the models give to it."""

FORMS: dict[type, ModuleType] = {LightCurves: lightcurves, Images: images, Stamps: stamps}
"""How each kind of object becomes columns, and comes back."""


def append_objects(
    survey: Path,
    catalog: Catalog,
    objects: Objects,
    source: np.ndarray,
    rejects: Iterable[Reject] = (),
) -> None:
    """Add one shard of objects, with what was rejected on the way, in one step.

    Args:
        survey: The survey's folder.
        catalog: One row a segment; may be empty.
        objects: The same segments in the same order: light curves, whose band codes refer to
            ``objects.bands``, images or stamps.
        source: The file each segment came from, shape (n,).
        rejects: What could not be taken since the shard before.

    Raises:
        StoreError: The survey holds objects of another kind or, of images, of another shape, in
            other bands or of another pixel scale.
    """
    folder = objects_folder(survey)
    manifest = read_manifest(folder)
    is_empty = not any(shard["rows"] for shard in manifest["shards"])
    if not is_empty:
        manifest.setdefault("kind", "lightcurves")  # what all surveys held before images came
    if len(objects):
        kind = next(name for name, known in KINDS.items() if isinstance(objects, known))
        promises = {"kind": kind} | FORMS[type(objects)].promises(objects)
        if is_empty:  # shards of nothing but rejects promise nothing
            manifest |= promises
        for name, value in promises.items():
            if manifest.setdefault(name, value) != value:
                raise StoreError(
                    f"{survey} holds objects of {name} {manifest[name]}, these are of {value}; "
                    "put them into another survey"
                )
    bands: list[str] = manifest.setdefault("bands", [])
    if not isinstance(objects, Stamps):
        bands += [band for band in objects.bands if band not in bands]
    file = shard_name(len(manifest["shards"]))
    refused = list(rejects)
    write_table(rejects_folder(survey) / file, rejects_table(refused))
    write_table(folder / file, _objects_table(catalog, objects, bands, source))
    manifest["shards"].append(
        {
            "file": file,
            "rows": len(catalog),
            "points": len(objects.mjd)
            if isinstance(objects, LightCurves)
            else objects.pixels.size,
            "rejects": len(refused),
            "flux_unit": "" if isinstance(objects, Stamps) else objects.flux_unit,
            "sha256": sha256(folder / file),
        }
    )
    write_manifest(folder, manifest)


def _objects_table(
    catalog: Catalog, objects: Objects, bands: Sequence[str], source: np.ndarray
) -> pa.Table:
    light, metadata = FORMS[type(objects)].to_columns(objects, bands)
    columns = {
        "id": pa.array(catalog.id),
        "target": pa.array(catalog.target),
        "ra": pa.array(catalog.ra, pa.float64()),
        "dec": pa.array(catalog.dec, pa.float64()),
        "source": pa.array(source).dictionary_encode(),
        **light,
        **{name: pa.array(column) for name, column in catalog.columns.items()},
    }
    return pa.table(columns).replace_schema_metadata(metadata)


@overload
def read_objects(survey: Path, file: str) -> tuple[Catalog, LightCurves]: ...
@overload
def read_objects(survey: Path, file: str, kind: type[Kind]) -> tuple[Catalog, Kind]: ...
def read_objects(survey: Path, file: str, kind: type[Any] = LightCurves) -> tuple[Catalog, Any]:
    """Read one shard of objects whole: a few tens of megabytes, or a few hundred of images.

    Args:
        survey: The survey's folder.
        file: Name of the shard.
        kind: The type of object wanted, of :mod:`skyvec.schema`.

    Raises:
        StoreError: The survey holds objects of another kind.
    """
    _check_kind(survey, kind)
    return _objects(survey, pq.read_table(objects_folder(survey) / file), kind)


def _objects(survey: Path, table: pa.Table, kind: type) -> tuple[Catalog, Any]:
    catalog, manifest = catalog_of(table), read_manifest(objects_folder(survey))
    facts = {key.decode(): fact.decode() for key, fact in (table.schema.metadata or {}).items()}
    return catalog, FORMS[kind].from_columns(table, catalog, manifest, facts)


def _check_kind(survey: Path, kind: type) -> None:
    held = survey_kind(survey)
    if held not in KINDS or not issubclass(kind, KINDS[held]):
        wanted = next(name for name, known in KINDS.items() if known is kind)
        raise StoreError(f"{survey} holds {held}, not {wanted}; this question is for {wanted}")


@overload
def iterate_objects(survey: Path) -> Iterator[tuple[str, Catalog, LightCurves]]: ...
@overload
def iterate_objects(survey: Path, kind: type[Kind]) -> Iterator[tuple[str, Catalog, Kind]]: ...
def iterate_objects(
    survey: Path, kind: type[Any] = LightCurves
) -> Iterator[tuple[str, Catalog, Any]]:
    """Read the survey shard by shard: file name, catalogue, objects.

    Raises:
        StoreError: The survey holds objects of another kind.
    """
    for shard in object_shards(survey):
        yield shard["file"], *read_objects(survey, shard["file"], kind)


def find_curves(survey: Path, ids: Sequence[str]) -> LightCurves:
    """Read the light curves of some segments, wherever they are stored.

    Args:
        survey: The survey's folder.
        ids: Keys wanted, m of them; each may be wanted once.

    Returns:
        The curves in the order asked for; ``relative`` where their flux units differ.

    Raises:
        KeyError: A segment is not there; the message names the first one missing.
    """
    parts, order = _find(survey, ids, LightCurves)
    return lightcurves.join(parts, survey_bands(survey)).take(order)


def find_images(survey: Path, ids: Sequence[str]) -> Images:
    """Read the images of some segments, wherever they are stored, without reading the others.

    Args:
        survey: The survey's folder.
        ids: Keys wanted, m of them; each may be wanted once.

    Returns:
        The images in the order asked for; ``relative`` where their flux units differ, without
        errors where some have none.

    Raises:
        KeyError: A segment is not there; the message names the first one missing.
    """
    parts, order = _find(survey, ids, Images)
    if not parts:
        none = np.zeros((0, *survey_shape(survey)), np.float32)
        return Images(np.zeros(0, np.str_), none, survey_bands(survey))
    return images.join(parts).take(order)


def _find(survey: Path, ids: Sequence[str], kind: type[Kind]) -> tuple[list[Kind], np.ndarray]:
    """Objects of some segments in the order of the store, and the rows that put them in order."""
    _check_kind(survey, kind)
    wanted = np.array(list(ids), dtype=np.str_)
    parts: list[Any] = []
    for shard in object_shards(survey):
        path = objects_folder(survey) / shard["file"]
        rows = np.flatnonzero(np.isin(strings(pq.read_table(path, columns=["id"])["id"]), wanted))
        if len(rows):
            parts.append(_objects(survey, _read_rows(path, rows), kind)[1])
    found = np.concatenate([part.id for part in parts]) if parts else wanted[:0]
    missing = ~np.isin(wanted, found)
    if missing.any():
        raise KeyError(f"no segment {str(wanted[missing][0])!r} in {survey}")
    order = np.argsort(found, kind="stable")
    return parts, order[np.searchsorted(found[order], wanted)]


def _read_rows(path: Path, rows: np.ndarray) -> pa.Table:
    """Some rows of a shard; only the row groups that hold them are read."""
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        first = np.concatenate([[0], np.cumsum(sizes)])
        groups = np.unique(np.searchsorted(first, rows, side="right") - 1)
        table = file.read_row_groups(groups.tolist())
    start = np.concatenate([np.arange(first[g], first[g + 1]) for g in groups])
    return table.take(pa.array(np.searchsorted(start, rows)))
