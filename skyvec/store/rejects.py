"""What ingest could not take, and how far it has come."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skyvec.schema import Reject
from skyvec.store.names import objects_folder, rejects_folder
from skyvec.store.surveys import object_shards


def rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """Give rejects as a table: source, row, id, reason."""
    return pa.table(
        {
            "source": pa.array([r.source for r in rejects], pa.string()),
            "row": pa.array([r.row for r in rejects], pa.int64()),
            "id": pa.array([r.id for r in rejects], pa.string()),
            "reason": pa.array([r.reason for r in rejects], pa.string()),
        }
    )


def read_rejects(survey: Path) -> pa.Table:
    """Read all that ingest could not take: source, row, id, reason."""
    folder = rejects_folder(survey)
    tables = [pq.read_table(folder / shard["file"]) for shard in object_shards(survey)]
    return pa.concat_tables(tables) if tables else rejects_table([])


def finished_items(survey: Path) -> dict[str, int]:
    """How many items of each source file are already stored or rejected.

    Readers give the items of a file in a fixed order, so this count is where to go on.
    """
    done: dict[str, int] = {}
    folder = objects_folder(survey)
    for shard in object_shards(survey):
        for table in (
            pq.read_table(folder / shard["file"], columns=["source"]),
            pq.read_table(rejects_folder(survey) / shard["file"], columns=["source"]),
        ):
            for entry in table["source"].value_counts().to_pylist():
                done[entry["values"]] = done.get(entry["values"], 0) + entry["counts"]
    return done
