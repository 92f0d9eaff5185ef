"""Who the rows of a segment are: ids, objects and places on the sky, mapped from files."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyvec import sky, store
from skyvec.indexing.disk import dump, mapped
from skyvec.schema import Floats, Strings

NAMES, KEYS, SKY, SKY_ROWS = "names.arrow", "keys.i64", "sky.i64", "sky_rows.u32"
COLUMNS = ["id", "target", "ra", "dec"]


def code_of(names: Iterable[str]) -> NDArray[np.int64]:
    """A number >= 0 for each name: 63 bits of its BLAKE2b hash.

    Among 10^7 names two share a number with a probability of 5e-6.
    """
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, np.int64) & np.int64(2**63 - 1)


def write_names(folder: Path, survey: Path, model: str, files: Sequence[str], n: int) -> None:
    """Write the names of a segment's n rows, shard by shard, with what finds them again."""
    if (folder / SKY_ROWS).exists():
        return
    schema = pa.schema(
        [("id", pa.string()), ("target", pa.string()), ("ra", pa.float64()), ("dec", pa.float64())]
    )
    keys, cells = np.empty(n, np.int64), np.empty(n, np.int64)

    def write(temporary: Path) -> None:
        first = 0
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
            for name in files:
                table = store.read_latent_columns(survey, model, name, COLUMNS).cast(schema)
                end = first + len(table)
                keys[first:end] = code_of(table["id"].to_pylist())
                place = (table[axis].to_numpy() for axis in ("ra", "dec"))
                cells[first:end] = sky.healpix_cell(*place)
                file.write_table(table)
                first = end

    store.write_atomic(folder / NAMES, write)
    dump(folder / KEYS, keys)
    order = np.argsort(cells, kind="stable").astype(np.uint32)
    order = order[np.count_nonzero(cells < 0) :]  # no place is cell -1
    dump(folder / SKY, cells[order])
    dump(folder / SKY_ROWS, order)


class Names:
    """The names of one segment, read where they are needed.

    Args:
        folder: Of the segment.
    """

    def __init__(self, folder: Path) -> None:
        self._table = pa.ipc.open_file(pa.memory_map(str(folder / NAMES))).read_all()
        self._keys = mapped(folder / KEYS, np.int64)
        self._cells = mapped(folder / SKY, np.int64)
        self._cell_rows = mapped(folder / SKY_ROWS, np.uint32)

    def __len__(self) -> int:
        return len(self._keys)

    def rows_with_id(self, name: str) -> NDArray[np.int64]:
        """Rows of a segment key: one or none."""
        rows = np.flatnonzero(self._keys == code_of([name])[0])
        return rows[self.strings("id", rows) == name]

    def strings(self, column: str, rows: NDArray[np.int64]) -> Strings:
        """``id`` or ``target`` of some rows, (m,)."""
        return np.array(self._table[column].take(rows).to_pylist(), np.str_).reshape(len(rows))

    def places(self, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Give ra and dec [deg] of some rows, (m,) each."""
        ra, dec = (self._table[name].take(rows).to_numpy() for name in ("ra", "dec"))
        return ra, dec

    def rows_in(self, ranges: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows whose finest HEALPix cell is in [low, high) of any range, shape (m, 2)."""
        low = np.searchsorted(self._cells, ranges[:, 0])
        high = np.searchsorted(self._cells, ranges[:, 1])
        parts = [self._cell_rows[a:b] for a, b in zip(low, high) if b > a]
        return np.concatenate(parts or [self._cell_rows[:0]]).astype(np.int64)

    @property
    def placed(self) -> int:
        """How many rows have a place on the sky."""
        return len(self._cells)
