"""What is known of the segments of a survey apart from their light."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyvec.schema import Catalog
from skyvec.store.columns import LIGHT_COLUMNS, PLACE_COLUMNS, is_text, values
from skyvec.store.names import StoreError, objects_folder
from skyvec.store.surveys import object_shards


def column_kinds(survey: Path) -> dict[str, str]:
    """Names of the columns of the catalogue, without id, target, ra, dec; ``text`` or ``number``.

    A survey may have many, and some are wide: name those you need to :func:`read_catalog`.
    """
    kinds: dict[str, str] = {}
    for shard in object_shards(survey):
        for field in pq.read_schema(objects_folder(survey) / shard["file"]):
            if field.name not in LIGHT_COLUMNS + PLACE_COLUMNS:
                kinds.setdefault(field.name, "text" if is_text(field.type) else "number")
    return kinds


def read_catalog(survey: Path, columns: Sequence[str] | None = None) -> Catalog:
    """Read what is known of all segments of the survey apart from their light.

    Args:
        survey: The survey's folder.
        columns: Names of the columns wanted beside id, target, ra and dec; None = all there are.
            One that some shards lack is filled with NaN (numbers) or an empty string.

    Raises:
        StoreError: The survey has no column of that name.
    """
    files = [shard["file"] for shard in object_shards(survey)]
    wanted = list(column_kinds(survey)) if columns is None else columns
    if not files:
        if wanted:
            raise StoreError(f"no column {wanted[0]!r} in {survey}; it holds no objects")
        none = np.zeros(0)
        return Catalog(none.astype(np.str_), none.astype(np.str_), none, none)
    found = read_columns(survey, [*PLACE_COLUMNS, *wanted], files)
    return _catalog_of(found)


def read_columns(
    survey: Path, names: Sequence[str], files: Sequence[str]
) -> dict[str, np.ndarray]:
    """Read some columns of the catalogue from some object shards, one after another.

    A column that some of the shards lack is filled with NaN (numbers) or an empty string.

    Raises:
        StoreError: None of the shards has a column of that name.
    """
    paths = [objects_folder(survey) / file for file in files]
    known = [[n for n in pq.read_schema(path).names if n not in LIGHT_COLUMNS] for path in paths]
    everything = sorted({name for there in known for name in there})
    for name in names:
        if name not in everything:
            raise StoreError(f"no column {name!r} in {survey}; there are: {', '.join(everything)}")
    tables = [
        pq.read_table(path, columns=[name for name in names if name in there])
        for path, there in zip(paths, known)
    ]
    # a table without columns has no rows either, so a column of nulls stands for what is missing
    rows = [pq.read_metadata(path).num_rows for path in paths]
    tables = [
        table if table.column_names else pa.table({names[0]: pa.nulls(n)})
        for table, n in zip(tables, rows)
    ]
    table = pa.concat_tables(tables, promote_options="permissive")
    return {name: values(table[name]) for name in names}


def catalog_of(table: pa.Table) -> Catalog:
    """Make a catalogue of the columns of a shard that are not light."""
    names = [name for name in table.column_names if name not in LIGHT_COLUMNS]
    return _catalog_of({name: values(table[name]) for name in names})


def _catalog_of(columns: dict[str, np.ndarray]) -> Catalog:
    own = {name: column for name, column in columns.items() if name not in PLACE_COLUMNS}
    return Catalog(columns["id"], columns["target"], columns["ra"], columns["dec"], own)
