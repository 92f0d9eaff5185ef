"""What ingest could not take, and how far it has come."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skyvec.schema import Reject
from skyvec.store.manifests import read_manifest, write_manifest
from skyvec.store.names import objects_folder, rejects_folder
from skyvec.store.surveys import object_shards

WITHDRAWN = "withdrawn"
"""In the manifest of the objects: source -> in so many shards its rejects count no more."""


def rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """Give rejects as a table: source, row, id, reason, state."""
    return pa.table(
        {
            "source": pa.array([r.source for r in rejects], pa.string()),
            "row": pa.array([r.row for r in rejects], pa.int64()),
            "id": pa.array([r.id for r in rejects], pa.string()),
            "reason": pa.array([r.reason for r in rejects], pa.string()),
            "state": pa.array([r.state for r in rejects], pa.string()),
        }
    )


def _counting(survey: Path) -> Iterator[pa.Table]:
    """The rejects of each shard that have not been withdrawn."""
    withdrawn = read_manifest(objects_folder(survey)).get(WITHDRAWN, {})
    for i, shard in enumerate(object_shards(survey)):
        table = pq.read_table(rejects_folder(survey) / shard["file"])
        if "state" not in table.column_names:  # written before states were kept
            table = table.append_column("state", pa.array([""] * len(table), pa.string()))
        gone = pa.array([source for source, n in withdrawn.items() if i < n], pa.string())
        yield table.filter(pc.invert(pc.is_in(table["source"], gone))) if len(gone) else table


def read_rejects(survey: Path) -> pa.Table:
    """Read all that ingest could not take: source, row, id, reason."""
    return pa.concat_tables([rejects_table([]), *_counting(survey)]).drop_columns("state")


def rejected_items(survey: Path) -> dict[str, Counter[str]]:
    """How many items of each source file are rejected, by the state they were tried in."""
    found: dict[str, Counter[str]] = {}
    for table in _counting(survey):
        for source, state in zip(table["source"].to_pylist(), table["state"].to_pylist()):
            found.setdefault(source, Counter())[state] += 1
    return found


def withdraw_rejects(survey: Path, sources: Iterable[str]) -> None:
    """Let all rejects of some source files count no more, in one step.

    They stay in the table of their shard, which is never written again.
    """
    folder = objects_folder(survey)
    manifest = read_manifest(folder)
    n = len(manifest["shards"])
    manifest[WITHDRAWN] = manifest.get(WITHDRAWN, {}) | dict.fromkeys(sources, n)
    write_manifest(folder, manifest)


def finished_items(survey: Path) -> dict[str, int]:
    """How many items of each source file are already stored or rejected.

    Readers give the items of a file in a fixed order, so this count is where to go on.
    """
    done: Counter[str] = Counter()
    for shard in object_shards(survey):
        stored = pq.read_table(objects_folder(survey) / shard["file"], columns=["source"])
        _count(stored, done)
    for table in _counting(survey):
        _count(table, done)
    return dict(done)


def _count(table: pa.Table, done: Counter[str]) -> None:
    for entry in table["source"].value_counts().to_pylist():
        done[entry["values"]] += entry["counts"]
