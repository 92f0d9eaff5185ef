"""Files whole or not at all: written under another name, flushed to the disk, then renamed."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skyvec.store.columns import PIXEL_COLUMNS
from skyvec.store.names import TEMPORARY, StoreError

GROUP_BYTES = 1 << 22
"""Images are written in row groups of about so many bytes, so that a few can be read alone."""


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it into place.

    Args:
        path: Where the finished file shall stand; its folder is made if needed.
        write: Called with the temporary path; must write the whole file there.

    Raises:
        OSError: The disk is full or not writable; nothing is visible at ``path`` then, and what
            stood there before still does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file whole or not at all."""
    rows = None
    names = [name for name in table.column_names if name not in PIXEL_COLUMNS]
    if "pixels" in table.column_names:
        rows = max(1, GROUP_BYTES // max(1, table.schema.field("pixels").type.byte_width))

    def write(temporary: Path) -> None:
        pq.write_table(
            table, temporary, compression="zstd", use_dictionary=names, row_group_size=rows
        )

    write_atomic(path, write)


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
