"""The stage itself: sources in, shards out, and the account of both."""

import os
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from skyvec import store
from skyvec.ingest.reading import Work, in_order
from skyvec.ingest.shards import Shard, stored_columns
from skyvec.ingest.sources import IngestError, count_items, expand, file_state, find_reader
from skyvec.io import READERS, fits_lightcurves
from skyvec.io.catalogues import read_side_table
from skyvec.io.segments import MAX_POINTS

SHARD_POINTS = 4_000_000
SHARD_PIXELS = 50_000_000
SHARD_ROWS = 50_000
"""A shard is closed when it holds so many points or pixels, or so many rows and rejects."""

MANY_TABLES = 1_000
"""Beyond this, tables are not opened only to count their rows for the progress bar."""

Progress = Callable[[int, int | None, str], object]
"""Called with items done, items in all (None = unknown) and a word on it."""


@dataclass(frozen=True)
class Counts:
    """What became of the items of some sources: items = segments + rejects.

    Args:
        items: Objects (or unreadable files) found in the sources.
        segments: Of those, stored.
        rejects: Of those, refused with a reason.
        objects: Different targets among the stored segments.
        new_segments: Stored by this run.
        new_rejects: Refused by this run.
        left: Files of which something is stored and something was refused, that have changed
            since (or the options have): they are left as they are.
        outside: Objects of a catalogue to cut by that lie in none of the survey's mosaics, or have
            no position.
    """

    items: int
    segments: int
    rejects: int
    objects: int
    new_segments: int
    new_rejects: int
    left: int = 0
    outside: int = 0


def ingest(
    survey: Path,
    sources: Sequence[Path],
    *,
    flux_column: str = "pdcsap",
    quality: str | int = "default",
    columns: Mapping[str, str] | None = None,
    time: str = "",
    values: str = "",
    bands: Sequence[str] = (),
    max_points: int = MAX_POINTS,
    catalog: Path | None = None,
    size: int = 0,
    cut: bool = False,
    prefix: str = "",
    workers: int = 1,
    shard_points: int = SHARD_POINTS,
    shard_pixels: int = SHARD_PIXELS,
    shard_rows: int = SHARD_ROWS,
    progress: Progress | None = None,
) -> Counts:
    """Read light curves, images or stamps into a survey, making it if it is not there.

    What the survey already holds of a source is skipped; a run that was stopped at any moment
    leaves, when it is started again, the same shards as one that was not. A file of which all was
    refused is tried again when it, the catalogue, or an option has changed.

    Args:
        survey: Folder of the survey.
        sources: Files and folders; a folder stands for all files in it, in alphabetical order.
        flux_column: Of TESS and Kepler files: ``pdcsap``, ``sap`` or a column's name.
        quality: Of TESS and Kepler files: points with these bits are dropped (``default``,
            ``none``, ``hard``, ``hardest`` or a number).
        columns: Of tables: role -> column, for example ``{"hjd": "HJD", "mag": "V"}``.
        time: Of tables: how times are written, for example ``JD-2450000 UTC``.
        values: Of tables: ``mag`` or ``flux``, with a unit in brackets: ``flux (nJy)``.
        bands: Of tables: names of the band codes 0, 1, ...; of images: names of the planes.
        max_points: A curve with more usable points is refused.
        catalog: Of images: table of ids or file names and what is known of them; by default one
            called ``labels`` or ``catalog`` beside the images or in the folder above.
        size: Of images and stamps: side of the central square that is kept [pixel], 0 for all.
        cut: Of images: the FITS files are mosaics; cut out what the catalogue names.
        prefix: Put before every id and target, so that those of different catalogues differ;
            ``{file}`` in it stands for the name of the file without its ending.
        workers: Processes that read files; the result does not depend on it.
        shard_points: A shard is closed when it holds so many points of light curves.
        shard_pixels: A shard is closed when it holds so many pixels of images.
        shard_rows: A shard is closed when it holds so many rows and rejects.
        progress: Called now and then with items done, in all, and a word.

    Returns:
        What became of the items of these sources, now and in earlier runs.

    Raises:
        IngestError: A source is missing, a folder is empty, a file has changed since.
        StoreError: Another process writes this survey.
        ValueError: An option means nothing.
        OSError: The disk is full or not writable; what is finished is kept.
    """
    options = {
        "flux_column": flux_column,
        "quality": quality,
        "columns": dict(columns or {}),
        "time": time,
        "values": values,
        "bands": tuple(bands),
        "max_points": max_points,
        "catalog": "" if catalog is None else os.path.abspath(catalog),
        "size": size,
        "cut": cut,
        "prefix": prefix,
    }
    for reader in READERS:
        reader.check(**options)
    files = expand(sources, survey)
    store.create_survey(survey)
    with store.lock(store.objects_folder(survey), "ingest"):
        store.clean(store.objects_folder(survey))
        store.clean(store.rejects_folder(survey), listed_in=store.objects_folder(survey))
        state = cache(partial(file_state, options=options))
        left = _withdraw(survey, files, state)
        finished = store.finished_items(survey)
        work = [Work(path, finished.get(path, 0)) for path in files]
        shard = Shard(survey, shard_points, shard_pixels, shard_rows, finished, state)
        report = _Report(progress, work)
        unread = [w for w in work if not (w.done and count_items(w.path) == w.done)]
        items = in_order(unread, options, workers)
        try:
            for source, item in items:
                shard.add(source, item)
                report.step(shard)
            shard.flush()
        finally:
            items.close()
        counts = _count_stored(survey, set(files), shard, left)
        if cut and catalog is not None:
            counts = replace(counts, outside=_outside(survey, files, catalog, prefix))
        expected = sum(w.done for w in work) + shard.new_segments + shard.new_rejects
        if counts.items != expected:
            raise IngestError(f"{expected} items went in, but {counts.items} are accounted for")
        _note(survey, sources, options, counts, set(files))
    report.end(counts)
    return counts


def _withdraw(survey: Path, files: Sequence[str], state: Callable[[str], str]) -> int:
    """Let the rejects of files in another state be tried again, and count those that cannot be.

    Once something of a file is stored, the order of its items is what says how far it has come.
    """
    rejected, finished = store.rejected_items(survey), store.finished_items(survey)
    changed = [path for path in files if path in rejected and {state(path)} != set(rejected[path])]
    again = [path for path in changed if finished[path] == rejected[path].total()]
    if again:
        store.withdraw_rejects(survey, again)
    return len(changed) - len(again)


class _Report:
    """Tells how far it is, ten times a second at most."""

    def __init__(self, progress: Progress | None, work: Sequence[Work]) -> None:
        self._progress = progress
        self._done = sum(one.done for one in work)
        self._total = _total(work) if progress else None
        self._last = 0.0

    def step(self, shard: Shard) -> None:
        self._done += 1
        now = clock.monotonic()
        if self._progress and now - self._last > 0.1:
            self._last = now
            self._progress(self._done, self._total, f"{shard.new_segments:,} stored")

    def end(self, counts: Counts) -> None:
        if self._progress:
            note = f"{counts.segments:,} stored, {counts.rejects:,} rejected"
            self._progress(counts.items, counts.items, note)


def _total(work: Sequence[Work]) -> int | None:
    n_tables = sum(find_reader(one.path) is not fits_lightcurves for one in work)
    if n_tables > MANY_TABLES:
        return None
    counts = [count_items(one.path) for one in work]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _count_stored(survey: Path, files: set[str], shard: Shard, left: int) -> Counts:
    finished = store.finished_items(survey)
    items = sum(n for path, n in finished.items() if path in files)
    targets: set[str] = set()
    segments = 0
    for stored in stored_columns(survey, ["target", "source"]):
        rows = [source in files for source in stored["source"].to_pylist()]
        segments += sum(rows)
        targets.update(t for t, is_ours in zip(stored["target"].to_pylist(), rows) if is_ours)
    return Counts(
        items,
        segments,
        items - segments,
        len(targets),
        shard.new_segments,
        shard.new_rejects,
        left,
    )


def _outside(survey: Path, files: Sequence[str], catalog: Path, prefix: str) -> int:
    """How many objects of a catalogue were found in no mosaic: neither stored nor refused."""
    met = set(store.read_rejects(survey)["id"].to_pylist())
    for stored in stored_columns(survey, ["id"]):
        met.update(stored["id"].to_pylist())
    prefixes = {prefix.replace("{file}", Path(path).stem) for path in files}
    names = read_side_table(catalog).id
    return sum(not any(start + name in met for start in prefixes) for name in names)


def _note(
    survey: Path,
    sources: Sequence[Path],
    options: Mapping[str, Any],
    counts: Counts,
    files: set[str],
) -> None:
    """Say in survey.toml what was read, how, and what its times and values were taken for."""
    seen: dict[str, set[str]] = {"time_ref": set(), "value_kind": set()}
    for stored in stored_columns(survey, ["source", *seen]):
        ours = pa.array([source in files for source in stored["source"].to_pylist()], pa.bool_())
        for name in set(seen) & set(stored.column_names):
            seen[name].update(stored[name].filter(ours).unique().to_pylist())
    facts: dict[str, object] = {
        "sources": [os.path.abspath(source) for source in sources[:20]],
        "files": len(files),
        "items": counts.items,
        "segments": counts.segments,
        "rejects": counts.rejects,
    }
    facts |= {name: sorted(text for text in texts if text) for name, texts in seen.items()}
    for name, value in options.items():
        if name == "columns":
            facts[name] = [f"{role}={column}" for role, column in value.items()]
        else:
            facts[name] = list(value) if isinstance(value, tuple) else value
    store.note(survey, "ingest", facts)
