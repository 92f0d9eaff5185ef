"""How a survey leaves skyvec: objects and latents as HATS catalogues that LSDB opens."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skyvec import store
from skyvec.io import hats


@dataclass(frozen=True)
class Published:
    """What was written.

    Args:
        folder: Of the HATS collection.
        rows: How many rows it holds.
        left_out: Rows without a position, which have no place in a HATS catalogue.
    """

    folder: Path
    rows: int
    left_out: int


def publish_objects(
    survey: Path, folder: Path, *, margin_arcsec: float = 10.0, rows_per_partition: int = 50_000
) -> Published:
    """Write the objects of a survey as a HATS collection: one row a segment, curves as lists.

    Args:
        survey: The survey's folder.
        folder: Where the collection shall stand; must not exist.
        margin_arcsec: Width of the margin cache [arcsec].
        rows_per_partition: Most rows of a partition; light curves are heavy, so fewer than usual.

    Raises:
        ValueError: The survey is empty or no object has a position.
        FileExistsError: The folder is there already.
    """
    shards = [shard["file"] for shard in store.object_shards(survey)]
    bands = store.survey_bands(survey)

    def tables() -> Iterator[pa.Table]:
        whole = _common_schema([store.objects_folder(survey) / file for file in shards])
        for file in shards:
            yield _with_band_names(_read(store.objects_folder(survey) / file, whole), bands)

    return _write(folder, tables, shards, "objects", margin_arcsec, rows_per_partition)


def publish_latents(
    survey: Path,
    model: str,
    folder: Path,
    *,
    margin_arcsec: float = 10.0,
    rows_per_partition: int = hats.ROWS_PER_PARTITION,
) -> Published:
    """Write the latents of one model as a HATS collection, keyed by the id of the objects.

    Args:
        survey: The survey's folder.
        model: Name of the model.
        folder: Where the collection shall stand; must not exist.
        margin_arcsec: Width of the margin cache [arcsec].
        rows_per_partition: Most rows of a partition.

    Raises:
        ValueError: The model has no latents here, or none has a position.
        FileExistsError: The folder is there already.
    """
    source = store.latents_folder(survey, model)
    shards = [shard["file"] for shard in store.read_manifest(source)["shards"]]
    if not shards:
        raise store.StoreError(
            f"no latents of {model!r} in {survey}; "
            f"make them with `skyvec encode {model} --survey {survey}`"
        )

    def tables() -> Iterator[pa.Table]:
        for file in shards:
            yield pq.read_table(source / file)

    return _write(folder, tables, shards, "latents", margin_arcsec, rows_per_partition)


def _write(
    folder: Path,
    tables: hats.Tables,
    shards: list[str],
    name: str,
    margin_arcsec: float,
    rows_per_partition: int,
) -> Published:
    if not shards:
        raise store.StoreError("the survey is empty; fill it with `skyvec ingest`")
    left_out = hats.write_catalog(
        folder,
        tables,
        name=name,
        margin_arcsec=margin_arcsec,
        rows_per_partition=rows_per_partition,
    )
    rows = sum(len(table) for table in hats.read_partitions(folder, columns=["id"]))
    return Published(folder, rows, left_out)


def _common_schema(paths: list[Path]) -> pa.Schema:
    """One schema for all shards: Parquet datasets have one, survey shards may differ by source."""
    schemas = [pq.read_schema(path).remove_metadata() for path in paths]
    unified = pa.unify_schemas(schemas, promote_options="permissive")
    return pa.schema([field.with_type(_lsdb_type(field.type)) for field in unified])


def _lsdb_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind):
        return pa.list_(kind.value_type)
    if pa.types.is_dictionary(kind):
        return pa.string()
    return kind


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    table = pq.read_table(path)
    unit = (table.schema.metadata or {}).get(b"flux_unit", b"").decode()
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    made = pa.table(columns, schema=schema)
    return made.append_column("flux_unit", pa.array([unit] * len(table), pa.string()))


def _with_band_names(table: pa.Table, bands: tuple[str, ...]) -> pa.Table:
    """Replace the survey's band codes, which mean nothing outside it, by the bands' names."""
    lists = table["band"].combine_chunks()
    names = pa.array(bands, pa.string()).take(lists.flatten())
    offsets = lists.offsets
    if lists.offset or (len(offsets) and offsets[0].as_py()):
        offsets = pa.array(offsets.to_numpy() - offsets[0].as_py(), pa.int32())
    named = pa.ListArray.from_arrays(offsets, names)
    return table.set_column(table.column_names.index("band"), "band", named)
