"""An answer as a table: printed for people, or written as JSON, CSV, VOTable or Parquet."""

import json
import math
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

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

MOST_TURNED = 6
"""A table too wide for the page that has so few rows is printed with its rows as columns."""
FOLDED = 24
"""Longer texts may be broken over several lines."""


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
    """A table as wide as the page; a wider one lies on its side, or is printed in parts."""
    columns = [_column(table, name) for name in table.column_names]
    if _width(columns) <= width:
        return _grid(columns, width)
    if 0 < table.num_rows <= MOST_TURNED:
        turned = _turned(columns)
        if _width(turned) <= width:
            return _grid(turned, width)
    first = min(table.column_names.index("id") + 1 if "id" in table.column_names else 1, 3)
    parts = [columns[:first]]
    for column in columns[first:]:
        if len(parts[-1]) > first and _width([*parts[-1], column]) > width:
            parts.append(columns[:first])
        parts[-1] = [*parts[-1], column]
    return "".join(_grid(part, width) for part in parts)


class _Column(NamedTuple):
    """A column as it is printed."""

    title: str
    cells: list[str]
    is_text: bool


def _column(table: pa.Table, name: str) -> _Column:
    kind = table.schema.field(name).type
    unit = f" [{UNITS[name]}]" if UNITS.get(name, "relative") != "relative" else ""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return _Column(name + unit, [cell(value) for value in table[name].to_pylist()], is_text)


def _width(columns: list[_Column]) -> int:
    """Characters that columns need where long texts are folded."""
    needed = 0
    for column in columns:
        longest = max([len(column.title), *map(len, column.cells)])
        needed += 3 + (max(min(longest, FOLDED), len(column.title)) if column.is_text else longest)
    return needed


def _turned(columns: list[_Column]) -> list[_Column]:
    key, *others = columns
    rows = [
        _Column(name, [column.cells[i] for column in others], is_text=False)
        for i, name in enumerate(key.cells)
    ]
    return [_Column(key.title, [column.title for column in others], is_text=True), *rows]


def _grid(columns: list[_Column], width: int) -> str:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(
            column.title,
            justify="left" if column.is_text else "right",
            overflow="fold",
            no_wrap=not column.is_text,
        )
    for row in zip(*(column.cells for column in columns)):
        grid.add_row(*row)
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
