"""Tables that say what is known of images: found beside them, or named by the caller."""

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from skyvec.io.columns import ROLES
from skyvec.io.facts import RESERVED
from skyvec.io.formats import CSV, DAMAGED, ECSV, PARQUET, VOTABLE, numbers, open_table, whole
from skyvec.io.segments import RefusedError, Value

STEMS = ("labels", "catalog", "catalogue")
"""A table of such a name beside a folder of images, or in it, is about them."""

ENDINGS = PARQUET + CSV + ECSV + VOTABLE
FILE_NAMES = ("file", "filename", "file_name", "file_loc", "path", "image", "cutout")
ID_NAMES = (*ROLES["id"], "id_str", "dr8_id", "dr7objid", "iauname", "galaxy", "galaxy_id")


class SideTable(NamedTuple):
    """What is known of each image, one row an image.

    Args:
        row: Row of each key: an id, or the name of a file without its ending.
        id: The keys in the order of the rows.
        ra: ICRS [deg], NaN where unknown.
        dec: ICRS [deg], NaN where unknown.
        columns: All else by name: numbers, or texts.
    """

    row: dict[str, int]
    id: list[str]
    ra: np.ndarray
    dec: np.ndarray
    columns: dict[str, list[Value]]

    def facts(self, key: str) -> tuple[float, float, dict[str, Value]]:
        """Position and facts of an image; NaN and none where the table does not know it."""
        row = self.row.get(key)
        if row is None:
            return float("nan"), float("nan"), {}
        facts = {name: values[row] for name, values in self.columns.items()}
        return float(self.ra[row]), float(self.dec[row]), facts


def beside(image: Path) -> Path | None:
    """The table about an image: in its folder, or in the folder above."""
    for folder in (image.parent, image.parent.parent):
        for stem in STEMS:
            for ending in ENDINGS:
                if (folder / (stem + ending)).is_file():
                    return folder / (stem + ending)
    return None


def is_side_table(name: str) -> bool:
    """Say whether a file's name is that of a table about images."""
    lower = name.lower()
    return any(lower == stem + ending for stem in STEMS for ending in ENDINGS)


def read_side_table(path: Path) -> SideTable:
    """Read a table about images.

    The column of keys is one called like an id, or one of file names. Columns of numbers become
    numbers; whole numbers of 16 digits and more stay text, as ids do.

    Raises:
        RefusedError: It cannot be read, or has no column of ids or file names, or names one twice.
    """
    return _read_side_table(path, path.stat().st_mtime_ns)  # of each image, but read once


@lru_cache(maxsize=8)
def _read_side_table(path: Path, _changed: int) -> SideTable:
    try:
        opened = open_table(path)
        table = pa.concat_tables(opened.parts(opened.schema.names))
    except DAMAGED as error:
        raise RefusedError(f"the table {path.name} is not readable: {error}") from error
    plain = {name.lower(): name for name in reversed(table.column_names)}
    key = next((plain[n] for n in (*ID_NAMES, *FILE_NAMES) if n in plain), "")
    if not key:
        raise RefusedError(
            f"the table {path.name} has no column of ids or file names among "
            f"{', '.join(table.column_names)}; call one id or file"
        )
    ids = [_stem(str(value)) if value is not None else "" for value in table[key].to_pylist()]
    row = {name: i for i, name in enumerate(ids)}
    if len(row) < len(ids):
        twice = next(name for i, name in enumerate(ids) if row[name] != i)
        raise RefusedError(f"the table {path.name} names {twice!r} twice in its column {key}")
    for name in FILE_NAMES:  # files may be called otherwise than the objects
        if name in plain and plain[name] != key:
            files = (str(v) for v in table[plain[name]].to_pylist())
            row |= {_stem(file): i for i, file in enumerate(files)}
    places = {}
    for role in ("ra", "dec"):
        found = next((plain[n] for n in ROLES[role] if n in plain), "")
        nan = np.full(len(ids), np.nan)
        places[role] = numbers(whole(table[found]), role) if found else nan
        plain = {low: name for low, name in plain.items() if name != found}
    columns = {
        (f"{name}_given" if name in RESERVED else name): _values(table[name])
        for name in table.column_names
        if name != key and name in plain.values()
    }
    return SideTable(row, ids, places["ra"], places["dec"], columns)


def _stem(name: str) -> str:
    """Name of a file without folders and the endings of images."""
    last = name.strip().replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"\.(jpe?g|png|fits?|h5|hdf5)(\.gz)?$", "", last, flags=re.IGNORECASE)


def _values(column: pa.ChunkedArray) -> list[Value]:
    texts = ["" if value is None else str(value).strip() for value in column.to_pylist()]
    if any(re.fullmatch(r"-?\d{16,}", text) for text in texts):
        return list(texts)
    try:
        values = numbers(whole(column), "a fact")
    except RefusedError:
        return list(texts)
    return list(texts) if np.isnan(values).all() else values.tolist()
