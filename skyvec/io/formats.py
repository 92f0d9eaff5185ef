"""Tables of four formats, each opened as something that can be walked through in parts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from astropy.io.registry import IORegistryError
from astropy.table import Table
from astropy.time import Time

from skyvec.io.segments import RefusedError

PARQUET = (".parquet", ".pq", ".parq")
CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
ECSV = (".ecsv", ".ecsv.gz")
VOTABLE = (".vot", ".votable", ".vot.gz", ".xml")

BATCH_POINTS = 500_000
"""A batch of rows holds about so many points."""

DAMAGED = (pa.ArrowException, IORegistryError, OSError, ValueError, TypeError, LookupError)
"""What readers of formats raise at damaged files (MemoryError and the like are not ours)."""


class Opened(NamedTuple):
    """A table that can be walked through, more than once, in parts."""

    schema: pa.Schema
    units: Mapping[str, str]
    parts: Callable[[Sequence[str]], Iterator[pa.Table]]


def open_table(path: Path) -> Opened:
    """Open a table of any format.

    Raises:
        RefusedError: It is empty.
        OSError: It is not there or not readable; formats raise other errors of DAMAGED too.
    """
    name = path.name.lower()
    if not path.stat().st_size:
        raise RefusedError("the file is empty")
    if name.endswith(PARQUET):
        return _open_parquet(path)
    return _open_csv(path) if name.endswith(CSV) else _open_astropy(path, name)


def opened_table(table: pa.Table) -> Opened:
    """A table in memory as one that is walked through in parts."""
    flat = table.flatten()
    lists = [c for c in flat.columns if pa.types.is_list(c.type) or pa.types.is_large_list(c.type)]
    n_values = max((pc.sum(pc.list_value_length(c)).as_py() or 0 for c in lists), default=0)
    rows = max(1, BATCH_POINTS * flat.num_rows // max(n_values, flat.num_rows, 1))

    def parts(columns: Sequence[str]) -> Iterator[pa.Table]:
        chosen = flat.select(list(columns))
        for first in range(0, chosen.num_rows, rows):
            yield chosen.slice(first, rows)

    return Opened(flat.schema, {}, parts)


def _open_parquet(path: Path) -> Opened:
    with pq.ParquetFile(path) as file:
        meta = file.metadata
        groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
        n_values = sum(
            max((g.column(j).num_values for j in range(g.num_columns)), default=0) for g in groups
        )
        top = file.schema_arrow
    flat = top.empty_table().flatten().schema
    rows = max(1, BATCH_POINTS * meta.num_rows // max(n_values, 1))

    def parts(columns: Sequence[str]) -> Iterator[pa.Table]:
        tops = {name if name in top.names else name.split(".", 1)[0] for name in columns}
        wanted = [name for name in top.names if name in tops]
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                yield pa.Table.from_batches([batch]).flatten().select(list(columns))

    return Opened(flat, {}, parts)


def _open_csv(path: Path) -> Opened:
    separator = "\t" if ".tsv" in path.name.lower() else ","
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(1 << 16).decode("utf-8", "replace").splitlines()
    n_comments = next((i for i, line in enumerate(head) if not line.startswith("#")), len(head))
    if n_comments == len(head):
        raise RefusedError("the table has no line of column names")
    names = [name.strip().strip('"') for name in head[n_comments].split(separator)]
    # numbers are recognised when they are used: guessing types from the first lines of a file
    # loses leading zeros of ids and trips over the first odd value later on
    convert = pacsv.ConvertOptions(column_types={name: pa.string() for name in names})
    parse = pacsv.ParseOptions(delimiter=separator)
    reading = pacsv.ReadOptions(column_names=names, skip_rows=n_comments + 1, block_size=1 << 23)

    def parts(columns: Sequence[str]) -> Iterator[pa.Table]:
        with pa.input_stream(str(path), compression="detect") as stream:
            reader = pacsv.open_csv(stream, reading, parse, convert)
            for batch in reader:
                yield pa.Table.from_batches([batch]).select(list(columns))

    return Opened(pa.schema([(name, pa.string()) for name in names]), {}, parts)


def _open_astropy(path: Path, name: str) -> Opened:
    form = "ascii.ecsv" if name.endswith(ECSV) else "votable"
    table = Table.read(path, format=form)
    arrays = {}
    for column in table.itercols():
        if isinstance(column, Time):
            arrays[column.info.name] = pa.array(np.atleast_1d(column.tdb.mjd))
        elif np.ndim(column) > 1 or column.dtype == object:
            arrays[column.info.name] = pa.array([_plain(cell) for cell in column])
        else:
            mask = getattr(column, "mask", None)
            plain = np.asarray(getattr(column, "value", column))
            arrays[column.info.name] = pa.array(
                plain.astype(str) if plain.dtype.kind in "SU" else plain.astype(plain.dtype.type),
                mask=None if mask is None else np.asarray(mask),
            )
    whole = pa.table(arrays)
    units = {c.info.name: str(c.info.unit) for c in table.itercols() if c.info.unit}
    return Opened(whole.schema, units, lambda columns: iter([whole.select(list(columns))]))


def _plain(cell: object) -> object:
    """A cell as lists, numbers and text, None where it is masked."""
    if isinstance(cell, np.ndarray):
        return np.ma.filled(cell.astype(np.float64), np.nan).tolist() if cell.ndim else cell.item()
    return None if cell is np.ma.masked else cell


# --- columns ----------------------------------------------------------------------------------


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def numbers(column: pa.Array, what: str) -> np.ndarray:
    """A column as float64, NaN where it is empty.

    Raises:
        RefusedError: It holds something else than numbers; ``what`` names it in the message.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        is_empty = pc.is_in(pc.utf8_lower(column), pa.array(_NO_NUMBER, column.type))
        column = pc.if_else(is_empty, pa.scalar(None, column.type), column)
    try:
        cast = pc.cast(column, pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise RefusedError(f"the column of {what} holds no numbers: {error}") from error
    return np.asarray(cast.to_numpy(zero_copy_only=False), np.float64)


_NO_NUMBER = ["", "nan", "na", "n/a", "null", "none", "--", "-", "indef", "masked"]
