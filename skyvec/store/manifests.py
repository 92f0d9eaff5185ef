"""The manifest of a folder: only the shards it names are there."""

import json
from pathlib import Path
from typing import Any

from skyvec.store.files import write_json
from skyvec.store.names import MANIFEST, SCHEMA_VERSION, TEMPORARY, StoreError


def read_manifest(folder: Path) -> dict[str, Any]:
    """Give a folder's manifest; an empty one (no shards) where there is none yet.

    Raises:
        StoreError: The manifest was written by another schema version.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {"schema": SCHEMA_VERSION, "shards": []}
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("schema") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {manifest.get('schema')}, this skyvec reads {SCHEMA_VERSION}; "
            "make the survey again with this version"
        )
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Replace a folder's manifest by one rename."""
    write_json(folder / MANIFEST, manifest)


def clean(folder: Path, *, listed_in: Path | None = None) -> int:
    """Remove what a killed run left behind: temporary files and shards no manifest names.

    Args:
        folder: Where to clean.
        listed_in: Folder whose manifest names the shards; by default the same one. The shards of
            ``rejects/`` are named in that of ``objects/``.

    Returns:
        How many files were removed.
    """
    if not folder.is_dir():
        return 0
    listed = {shard["file"] for shard in read_manifest(listed_in or folder)["shards"]}
    stray = [
        path
        for path in folder.iterdir()
        if path.name.startswith(TEMPORARY)
        or (path.name.startswith("part-") and path.name not in listed)
    ]
    for path in stray:
        path.unlink()
    return len(stray)
