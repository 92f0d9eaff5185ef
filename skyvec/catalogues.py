"""HATS catalogues of light curves in, of vectors out: here or wherever LSDB runs.

One function encodes a table of rows, each an object with its curve in lists, in chunks of bounded
size. The local loop, a Dask cluster and LSDB's ``map_partitions`` all call it with a partition, so
their vectors are the same to the last bit. Nothing here holds more than a partition.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyvec import store
from skyvec.batches import use_threads
from skyvec.checkpoint import Checkpoint, load
from skyvec.cluster import as_finished
from skyvec.encode import encode_curves
from skyvec.ingest import light_curves
from skyvec.io import hats, tables
from skyvec.io.formats import numbers, whole
from skyvec.io.segments import Segment
from skyvec.schema import Reject

if TYPE_CHECKING:
    import lsdb
    import pandas as pd

CHUNK_POINTS = 2_000_000
"""Points of the curves that are encoded together."""

CHUNK_ROWS = 10_000
"""At most so many curves together, however short."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("target", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("latent", pa.list_(pa.float32())),
        ("error", pa.float32()),
        ("reject", pa.string()),
    ]
)
"""What is known of a row: ``reject`` says why it was refused, and is empty where it was not."""


def encode_table(table: pa.Table, checkpoint: Checkpoint, **options: Any) -> pa.Table:
    """Encode the light curves of a table, one row an object.

    Args:
        table: With lists (or a struct of lists) of times, fluxes or magnitudes, and bands.
        checkpoint: A trained model.
        options: As of `skyvec.io.tables.read`: columns, time, values, bands, max_points.

    Returns:
        One row a row, in order: SCHEMA. A refused row has the zero vector, which has no direction,
        and error NaN.

    Raises:
        ValueError: A row is not an object, no column of times or values is known, or none of the
            model's bands is there.
    """
    vectors: list[np.ndarray] = []
    errors: list[np.ndarray] = []
    facts: list[tuple[str, str, float, float, str]] = []
    for chunk in _chunks(table, options):
        vector = np.zeros((len(chunk), checkpoint.model.latent), np.float32)
        error = np.full(len(chunk), np.nan, np.float32)
        good = [i for i, item in enumerate(chunk) if isinstance(item, Segment)]
        segments = [item for item in chunk if isinstance(item, Segment)]
        if segments:
            vector[good], error[good] = encode_curves(checkpoint, light_curves(segments))
        vectors.append(vector)
        errors.append(error)
        facts += [_facts(item) for item in chunk]
    if len(facts) != table.num_rows:
        raise ValueError(
            f"{table.num_rows} rows hold {len(facts)} objects; a row must be an object with its "
            "curve in lists (long tables: `skyvec ingest` them)"
        )
    ids, targets, ra, dec, reasons = zip(*facts) if facts else ((),) * 5
    vector = np.concatenate([np.zeros((0, checkpoint.model.latent), np.float32), *vectors])
    starts = np.arange(len(vector) + 1, dtype=np.int32) * vector.shape[1]
    lists = pa.ListArray.from_arrays(pa.array(starts), pa.array(vector.ravel()))
    error = np.concatenate([np.zeros(0, np.float32), *errors])
    columns = [
        *(pa.array(list(texts), pa.string()) for texts in (ids, targets)),
        *(_places(table, axis, given, options) for axis, given in (("ra", ra), ("dec", dec))),
        *(lists, pa.array(error), pa.array(list(reasons), pa.string())),
    ]
    return pa.table(columns, schema=SCHEMA)


def encode_catalog(catalog: "lsdb.Catalog", model: Path, **options: Any) -> "lsdb.Catalog":
    """Encode the light curves of an LSDB catalogue, lazily, wherever its partitions are computed.

    Workers must see the model's folder; each process loads it once and uses one thread.

    Args:
        catalog: With lists or nested columns of times, fluxes or magnitudes, and bands.
        model: Folder of a trained model.
        options: As of `encode_table`.

    Returns:
        A catalogue of SCHEMA, on the same partitions.

    Raises:
        CheckpointError: The model is missing or damaged.
    """
    load(model)
    made: lsdb.Catalog = catalog.map_partitions(
        _encode_frame, str(model.resolve()), options, meta=_frame(SCHEMA.empty_table())
    )
    return made


def encode_hats(
    model: Path,
    source: Path,
    folder: Path,
    *,
    scheduler: str | None = None,
    progress: Callable[[int, int], object] | None = None,
    margin_arcsec: float = 10.0,
    **options: Any,
) -> tuple[int, int]:
    """Encode a HATS catalogue of light curves into one of vectors; an interrupted run goes on.

    Args:
        model: Folder of a trained model.
        source: The catalogue, or its collection.
        folder: Where the new collection shall stand; must not exist.
        scheduler: As of `skyvec.encode.encode`: workers encode, this process writes.
        progress: Called with the partitions done and all.
        margin_arcsec: Width of the new margin cache [arcsec].
        options: As of `encode_table`.

    Returns:
        Rows, and how many of them were refused.

    Raises:
        FileExistsError: The folder is there already.
        ValueError: As `encode_table`, or the source is no catalogue of objects.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another folder or remove it")
    checkpoint, files = load(model), hats.partition_files(source)
    work = folder.parent / f".encoding-{folder.name}"
    asked = {
        "model": checkpoint.hash,
        "options": {name: repr(value) for name, value in sorted(options.items())},
        "files": [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
    }
    if not (work / PLAN).exists() or store.read_json(work / PLAN) != asked:
        shutil.rmtree(work, ignore_errors=True)
        store.write_json(work / PLAN, asked)
    parts = [work / f"part-{i:06d}.parquet" for i in range(len(files))]
    waiting = [i for i, part in enumerate(parts) if not part.exists()]
    done = len(files) - len(waiting)
    for i, table in _encoded(str(model.resolve()), files, waiting, options, scheduler):
        store.write_table(parts[i], table)
        done += 1
        if progress is not None:
            progress(done, len(files))
    hats.write_catalog(
        folder,
        lambda: (pq.read_table(part) for part in parts),
        name="latents",
        margin_arcsec=margin_arcsec,
    )
    refused = sum(
        sum(map(bool, pq.read_table(part, columns=["reject"])["reject"].to_pylist()))
        for part in parts
    )
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    shutil.rmtree(work)
    return rows, refused


PLAN = "plan.json"


# --- a partition ------------------------------------------------------------------------------


def _chunks(table: pa.Table, options: dict[str, Any]) -> Iterator[list[Segment | Reject]]:
    """The items of a table, so many at a time as shall be encoded together."""
    chunk: list[Segment | Reject] = []
    points, unit = 0, ""
    for item in tables.read(Path("partition"), table=table, **options) if len(table) else ():
        if isinstance(item, Reject) and item.row < 0:
            raise ValueError(item.reason)
        new, own = (len(item.mjd), item.flux_unit) if isinstance(item, Segment) else (0, unit)
        is_full = points + new > CHUNK_POINTS or len(chunk) >= CHUNK_ROWS
        if chunk and (is_full or (own != unit and points)):
            yield chunk
            chunk, points = [], 0
        chunk.append(item)
        points, unit = points + new, own
    if chunk:
        yield chunk


def _places(table: pa.Table, axis: str, given: Any, options: dict[str, Any]) -> pa.Array:
    """The places of the items [deg], those of refused rows as the table has them."""
    angle = np.array(given, np.float64)
    name = dict(options.get("columns") or {}).get(axis, axis)
    if name in table.column_names:
        angle = np.where(np.isnan(angle), numbers(whole(table[name]), axis), angle)
    return pa.array(angle)


def _facts(item: Segment | Reject) -> tuple[str, str, float, float, str]:
    if isinstance(item, Reject):
        return item.id, item.id, float("nan"), float("nan"), item.reason
    return item.id, item.target, float(item.ra), float(item.dec), ""


def _encode_frame(frame: "pd.DataFrame", model: str, options: dict[str, Any]) -> "pd.DataFrame":
    with use_threads(1):
        made = encode_table(_table(frame), _loaded(model), **options)
    return _frame(made).set_index(frame.index)


def _table(frame: "pd.DataFrame") -> pa.Table:
    return pa.table({str(name): pa.array(frame[name]) for name in frame.columns})


def _frame(table: pa.Table) -> "pd.DataFrame":
    import nested_pandas
    import pandas as pd

    return nested_pandas.NestedFrame(
        {
            name: pd.Series(table[name], dtype=pd.ArrowDtype(table[name].type))
            for name in SCHEMA.names
        }
    )


@lru_cache(maxsize=4)
def _loaded(model: str) -> Checkpoint:
    return load(Path(model))


def _encode_file(model: str, file: str, options: dict[str, Any]) -> pa.Table:
    with use_threads(1):
        return encode_table(pq.read_table(file), _loaded(model), **options)


def _encoded(
    model: str,
    files: list[Path],
    waiting: list[int],
    options: dict[str, Any],
    scheduler: str | None,
) -> Iterator[tuple[int, pa.Table]]:
    """Partitions as they are finished; on a cluster only a few wait to be written."""
    if scheduler is None:
        for i in waiting:
            yield i, _encode_file(model, str(files[i]), options)
        return
    calls = [(model, str(files[i].resolve()), options) for i in waiting]
    for number, table in as_finished(_encode_file, calls, scheduler):
        yield waiting[number], table
