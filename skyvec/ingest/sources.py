"""What sources stand for: files, each with the reader that takes it."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from skyvec.io import READERS, hats, images
from skyvec.io.band_files import one_a_band
from skyvec.io.catalogues import beside, is_side_table
from skyvec.io.columns import description_path
from skyvec.io.stamps import table_beside


class IngestError(ValueError):
    """Sources are missing, empty or have changed, or the ledger does not balance."""


def expand(sources: Sequence[Path], survey: Path | None = None) -> list[str]:
    """Give the files that sources stand for, each once, as absolute paths in a fixed order.

    A HATS catalogue, or a collection with one, stands for its partitions without the margin; the
    files of an image that has one for each band, for one file. Left
    out of folders are hidden files, files beginning with ``_``, descriptions beside tables, tables
    about images and the survey itself.

    Raises:
        IngestError: A source is missing, or a folder holds no file.
    """
    if not sources:
        raise IngestError("no source given; name files or folders")
    own = "" if survey is None else os.path.abspath(survey) + os.sep
    files: dict[str, None] = {}
    for source in sources:
        path = os.path.abspath(source)
        if os.path.isdir(path):
            found = [file for file in _walk(path) if not (own and file.startswith(own))]
            if any(images.matches(Path(file)) for file in found if not _is_table(file)):
                found = [file for file in found if not is_side_table(os.path.basename(file))]
            if not found:
                raise IngestError(f"the folder {source} holds no file to read")
            files.update(dict.fromkeys(str(images.first_of(Path(file))) for file in found))
        elif os.path.exists(path):
            files[str(images.first_of(Path(path)))] = None
        else:
            raise IngestError(f"{source} does not exist")
    return list(files)


def _walk(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        if hats.matches(Path(place)):
            folders.clear()
            yield from _partitions(place)
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        described = {description_path(Path(name)).name for name in names if find_reader(name)}
        tables = (table_beside(Path(place, name)) for name in names)
        described |= {table.name for table in tables if table is not None}
        for name in sorted(names):
            if not name.startswith((".", "_")) and name not in described:
                yield os.path.join(place, name)


def _partitions(folder: str) -> list[str]:
    try:
        return [str(file) for file in hats.partition_files(Path(folder))]
    except ValueError as error:
        raise IngestError(str(error)) from error


def _is_table(path: str) -> bool:
    return not path.lower().endswith(images.PICTURES + images.FITS)


def find_reader(path: str) -> ModuleType | None:
    """Give the reader of a file, if there is one."""
    return next((reader for reader in READERS if reader.matches(Path(path))), None)


def count_items(path: str) -> int | None:
    """How many items a file holds, where that can be told without reading it."""
    reader = find_reader(path)
    return 1 if reader is None else reader.count_items(Path(path))


def file_state(path: str, options: Mapping[str, Any]) -> str:
    """Give a short text that changes with all that decides what becomes of a file.

    These are its size and time, those of the files that belong to it (other bands, a description,
    a table of facts), and the options.
    """
    file = Path(path)
    others = [description_path(file), beside(file), table_beside(file), options["catalog"]]
    if path.lower().endswith(images.FITS):
        others += one_a_band(file)[1].values()
    known = sorted({str(other) for other in [path, *others] if other and os.path.exists(other)})
    seen = [[name, os.stat(name).st_size, os.stat(name).st_mtime_ns] for name in known]
    text = json.dumps([seen, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
