"""An answer as a table: printed for people, or written as JSON, CSV, VOTable or Parquet."""

import json
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from astropy.io.votable import from_table, writeto
from astropy.table import Table
from rich import box
from rich.console import Console
from rich.table import Table as Grid

from skyvec.store import write_atomic

FORMATS = ("table", "json", "csv", "votable", "parquet")
SUFFIXES = {
    ".json": "json",
    ".csv": "csv",
    ".vot": "votable",
    ".xml": "votable",
    ".votable": "votable",
    ".parquet": "parquet",
    ".txt": "table",
}
UNITS = {"ra": "deg", "dec": "deg", "period": "d", "mjd": "d", "flux": "relative"}
"""Units of columns that have one, for the formats that can say so."""


def choose_format(asked: str | None, out: Path | None) -> str:
    """Decide the form: what was asked for, else what the file's ending says, else a table.

    Raises:
        ValueError: An unknown form.
    """
    if asked is not None and asked not in FORMATS:
        raise ValueError(f"unknown format {asked!r}; choose from {', '.join(FORMATS)}")
    if asked is None:
        return SUFFIXES.get(out.suffix.lower(), "table") if out is not None else "table"
    return asked


def render(table: pa.Table, form: str, *, width: int = 160) -> bytes:
    """Give a table in one of ``FORMATS``, as the bytes of a file.

    Args:
        table: Columns of numbers, strings and booleans; NaN and null mean unknown.
        form: One of ``FORMATS``.
        width: Characters a line, for the printed form.
    """
    if form == "table":
        return _printed(table, width).encode()
    if form == "json":
        return (json.dumps([_plain(row) for row in table.to_pylist()], indent=1) + "\n").encode()
    buffer = BytesIO()
    if form == "csv":
        pcsv.write_csv(_without_nan(table), buffer)
    elif form == "parquet":
        pq.write_table(table, buffer, compression="zstd")
    elif form == "votable":
        writeto(from_table(_with_units(table)), buffer)
    else:
        raise ValueError(f"unknown format {form!r}; choose from {', '.join(FORMATS)}")
    return buffer.getvalue()


def save(table: pa.Table, path: Path, form: str) -> None:
    """Write a table whole or not at all."""
    content = render(table, form)
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _plain(row: dict[str, object]) -> dict[str, object]:
    """JSON knows no NaN: what is unknown becomes null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _without_nan(table: pa.Table) -> pa.Table:
    """CSV says unknown by an empty field."""
    columns = [
        pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(kind) else column
        for column, kind in zip(table.columns, table.schema.types)
    ]
    return pa.table(columns, names=table.column_names)


def _with_units(table: pa.Table) -> Table:
    """Astropy's table of the same columns; a missing text is empty, a missing number NaN."""
    result = Table()
    for name in table.column_names:
        column = table[name]
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            values = np.array([text or "" for text in column.to_pylist()], dtype=np.str_)
        else:
            values = column.to_numpy()
        result[name] = values
        if name in UNITS and UNITS[name] != "relative":
            result[name].unit = UNITS[name]
    return result


def _printed(table: pa.Table, width: int) -> str:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, kind in zip(table.column_names, table.schema.types):
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        unit = f" [{UNITS[name]}]" if UNITS.get(name, "relative") != "relative" else ""
        grid.add_column(
            name + unit,
            justify="left" if is_text else "right",
            overflow="fold",
            no_wrap=not is_text,
        )
    for row in table.to_pylist():
        grid.add_row(*(cell(value) for value in row.values()))
    console = Console(width=width, color_system=None, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(grid)
    return captured.get()


def cell(value: object) -> str:
    """Give a value as people read it: four digits, thousands apart, a dash where unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"
    return str(value)
