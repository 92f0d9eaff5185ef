"""Foreign files into a survey: streaming, in a fixed order, resumable, all accounted for.

Every item of every source ends as a stored segment or as a row in ``rejects/`` with its reason.
Readers give the items of a file in a fixed order and shards are cut by what they hold alone, so a
run that was killed goes on where the last shard ended and leaves the same bytes.
"""

import multiprocessing
import os
import signal
import threading
import time as clock
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyvec import store
from skyvec.io import READERS, fits_lightcurves, hats, images
from skyvec.io.catalogues import is_side_table
from skyvec.io.columns import description_path
from skyvec.io.cutouts import Cutout
from skyvec.io.segments import MAX_POINTS, Segment, Value
from skyvec.io.stamps import Triplet, table_beside
from skyvec.schema import FLUX_UNIT_RELATIVE, Catalog, Images, LightCurves, Reject, Stamps

SHARD_POINTS = 4_000_000
SHARD_PIXELS = 50_000_000
SHARD_ROWS = 50_000
"""A shard is closed when it holds so many points or pixels, or so many rows and rejects."""

FILES_PER_TASK = 8
FEW_FILES = 32
"""With fewer files than this, starting other processes costs more than it saves."""

SMALL_TABLE = 1 << 20
"""[byte] Larger tables are streamed by the main process, smaller ones handed to a worker whole."""

MANY_TABLES = 1_000
"""Beyond this, tables are not opened only to count their rows for the progress bar."""

Progress = Callable[[int, int | None, str], object]
"""Called with items done, items in all (None = unknown) and a word on it."""

Object = Segment | Cutout | Triplet
Item = Object | Reject


class IngestError(ValueError):
    """Sources are missing, empty or have changed, or the ledger does not balance."""


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
    """

    items: int
    segments: int
    rejects: int
    objects: int
    new_segments: int
    new_rejects: int


class _Work(NamedTuple):
    """A file to read, and how many of its items are finished already."""

    path: str
    done: int


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
    workers: int = 1,
    shard_points: int = SHARD_POINTS,
    shard_pixels: int = SHARD_PIXELS,
    shard_rows: int = SHARD_ROWS,
    progress: Progress | None = None,
) -> Counts:
    """Read light curves, images or stamps into a survey, making it if it is not there.

    What the survey already holds of a source is skipped; a run that was stopped at any moment
    leaves, when it is started again, the same shards as one that was not.

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
    }
    for reader in READERS:
        reader.check(**options)
    files = expand(sources, survey)
    store.create_survey(survey)
    with store.lock(store.objects_folder(survey), "ingest"):
        store.clean(store.objects_folder(survey))
        store.clean(store.rejects_folder(survey), listed_in=store.objects_folder(survey))
        finished = store.finished_items(survey)
        work = [_Work(path, finished.get(path, 0)) for path in files]
        shard = _Shard(survey, shard_points, shard_pixels, shard_rows, finished)
        report = _Report(progress, work)
        unread = [w for w in work if not (w.done and _count(w.path) == w.done)]
        items = _in_order(unread, options, workers)
        try:
            for source, item in items:
                shard.add(source, item)
                report.step(shard)
            shard.flush()
        finally:
            items.close()
        counts = _count_stored(survey, set(files), shard)
        expected = sum(w.done for w in work) + shard.new_segments + shard.new_rejects
        if counts.items != expected:
            raise IngestError(f"{expected} items went in, but {counts.items} are accounted for")
        _note(survey, sources, options, counts, set(files))
    report.end(counts)
    return counts


# --- sources ----------------------------------------------------------------------------------


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
        described = {description_path(Path(name)).name for name in names if _reader(name)}
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


def _reader(path: str) -> ModuleType | None:
    return next((reader for reader in READERS if reader.matches(Path(path))), None)


def _count(path: str) -> int | None:
    reader = _reader(path)
    return 1 if reader is None else reader.count_items(Path(path))


# --- reading in order -------------------------------------------------------------------------


def _read(work: _Work, options: Mapping[str, Any]) -> Iterator[Item]:
    """Read the items of a file that are not finished yet."""
    reader = _reader(work.path)
    if reader is None:
        if not work.done:
            suffix = Path(work.path).suffix or "no ending"
            reason = (
                f"unknown type of file ({suffix}); FITS, JPEG, PNG, HDF5, Parquet, CSV, ECSV, "
                "VOTable and Avro are read"
            )
            yield Reject(work.path, -1, "", reason)
        return
    chosen = {name: options[name] for name in reader.OPTIONS}
    n = 0
    for item in reader.read(Path(work.path), **chosen):
        n += 1
        if n > work.done:
            yield item
    if n < work.done:
        raise IngestError(
            f"{work.path} gives {n} items, but {work.done} of it are in the survey: it has "
            "changed since; ingest it into another survey"
        )


def _read_whole(group: Sequence[_Work], options: Mapping[str, Any]) -> list[tuple[str, Item]]:
    return [(work.path, item) for work in group for item in _read(work, options)]


def _in_order(
    work: Sequence[_Work], options: Mapping[str, Any], workers: int
) -> Generator[tuple[str, Item], None, None]:
    """Read files, by other processes if there are many, and give their items in order."""
    if workers <= 1 or len(work) < FEW_FILES:
        for one in work:
            for item in _read(one, options):
                yield one.path, item
        return
    # not forked: a process with threads (Arrow has some) must not be
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        yield from _through_pool(pool, _groups(work), options, window=2 * workers)
    except BrokenProcessPool as error:
        raise IngestError(
            "a reading process died (out of memory?); what is finished is kept, run again with "
            "fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _through_pool(
    pool: ProcessPoolExecutor,
    groups: Iterator[list[_Work]],
    options: Mapping[str, Any],
    *,
    window: int,
) -> Iterator[tuple[str, Item]]:
    """Never more than ``window`` groups are under way or waiting to be taken."""
    ahead: deque[Future[list[tuple[str, Item]]] | _Work] = deque()
    for group in groups:
        if len(group) == 1 and not _is_small(group[0].path):
            ahead.append(group[0])
        else:
            ahead.append(pool.submit(_read_whole, group, options))
        while len(ahead) >= window:
            yield from _take(ahead.popleft(), options)
    while ahead:
        yield from _take(ahead.popleft(), options)


def _take(
    first: Future[list[tuple[str, Item]]] | _Work, options: Mapping[str, Any]
) -> Iterator[tuple[str, Item]]:
    if isinstance(first, _Work):
        for item in _read(first, options):
            yield first.path, item
    else:
        yield from first.result()


def _groups(work: Sequence[_Work]) -> Iterator[list[_Work]]:
    group: list[_Work] = []
    for one in work:
        is_small = _is_small(one.path)
        if group and (len(group) == FILES_PER_TASK or not is_small):
            yield group
            group = []
        if is_small:
            group.append(one)
        else:
            yield [one]
    if group:
        yield group


def _is_small(path: str) -> bool:
    return _reader(path) is fits_lightcurves or os.path.getsize(path) <= SMALL_TABLE


def _start_worker() -> None:
    """Leave Ctrl-C to the main process, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# --- shards -----------------------------------------------------------------------------------


class _Shard:
    """Gathers items until they fill a shard, and writes it."""

    def __init__(
        self, survey: Path, points: int, pixels: int, rows: int, finished: Mapping[str, int]
    ) -> None:
        self._survey, self._most_rows = survey, rows
        self._most = {Segment: points, Cutout: pixels, Triplet: pixels}
        self._ids, self._kinds = _stored_names(survey)
        self._promise = _stored_promise(survey)
        self._next_row = dict(finished)
        self._empty()
        self.new_segments = self.new_rejects = 0

    def _empty(self) -> None:
        self._objects: list[Object] = []
        self._sources: list[str] = []
        self._rejects: list[Reject] = []
        self._share = 0.0

    def add(self, source: str, item: Item) -> None:
        """Take an item in, and write the shard if it is full then."""
        row = self._next_row.get(source, 0)
        self._next_row[source] = row + 1
        if not isinstance(item, Reject):
            reason = self._misfit(item)
            item = Reject(source, row, item.id, reason) if reason else item
        if isinstance(item, Reject):
            self._rejects.append(item)
        else:
            if self._objects and not _go_together(self._objects[0], item):
                self.flush()
            self._promise = self._promise or _promise(item)
            self._ids.add(item.id)
            self._objects.append(item)
            self._sources.append(source)
            self._share += _weight(item) / self._most[type(item)]
        is_long = len(self._objects) + len(self._rejects) >= self._most_rows
        if is_long or self._share >= 1:
            self.flush()

    def _misfit(self, item: Object) -> str:
        """Why an object has no place in this survey; empty if it has. The same words for all."""
        if item.id in self._ids:
            return "duplicate: the id is in the survey already"
        if self._promise and _promise(item) != self._promise:
            return (
                f"another form: {_in_words(_promise(item))}, but the survey holds "
                f"{_in_words(self._promise)}; ingest it into another survey"
            )
        return ""

    def flush(self) -> None:
        """Write what is gathered, if anything.

        Raises:
            OSError: The disk is full or not writable.
        """
        if not self._objects and not self._rejects:
            return
        catalog, objects = _tables(self._objects, self._kinds)
        try:
            store.append_objects(
                self._survey,
                catalog,
                objects,
                np.array(self._sources, dtype=object),
                self._rejects,
            )
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write ({error.strerror or error}); what is finished is kept, make room "
                "and run the same command again",
                str(self._survey),
            ) from error
        self.new_segments += len(self._objects)
        self.new_rejects += len(self._rejects)
        self._empty()


def _stored_names(survey: Path) -> tuple[set[str], dict[str, str]]:
    """Ids in the survey, and the kind (text or number) of each column."""
    ids: set[str] = set()
    for stored in _stored(survey, ["id"]):
        ids.update(stored["id"].to_pylist())
    return ids, store.column_kinds(survey)


def _weight(item: Object) -> int:
    return len(item.mjd) if isinstance(item, Segment) else item.pixels.size


def _go_together(one: Object, other: Object) -> bool:
    """Whether two objects can stand in one shard."""
    if isinstance(one, Cutout) and isinstance(other, Cutout):
        same_errors = (one.flux_err is None) == (other.flux_err is None)
        return same_errors and one.flux_unit == other.flux_unit
    if isinstance(one, Triplet) or isinstance(other, Triplet):
        return True  # stamps are in counts of their sensor, each in its own
    return one.flux_unit == other.flux_unit


Promise = tuple[str, tuple[int, ...], tuple[str, ...], float]
"""Kind, shape, bands and pixel scale [arcsec] (0 = unknown) of the objects of a survey."""


def _promise(item: Object) -> Promise:
    """What must be the same for all objects of a survey."""
    if isinstance(item, Segment):
        return "lightcurves", (), (), 0.0
    if isinstance(item, Triplet):
        return "stamps", item.pixels.shape, (), 0.0
    scale = item.pixel_scale if item.pixel_scale > 0 else 0.0
    return "images", item.pixels.shape, item.bands, scale


def _stored_promise(survey: Path) -> Promise | None:
    manifest = store.read_manifest(store.objects_folder(survey))
    if not any(shard["rows"] for shard in manifest["shards"]):
        return None
    kind = store.survey_kind(survey)
    if kind == "lightcurves":
        return kind, (), (), 0.0
    shape, bands = store.survey_shape(survey), tuple(manifest["bands"])
    if kind == "stamps":
        return kind, shape, (), 0.0
    return kind, shape, bands, manifest.get("pixel_scale") or 0.0


def _in_words(promise: Promise) -> str:
    kind, shape, bands, scale = promise
    if kind == "lightcurves":
        return "light curves"
    if kind == "stamps":
        return f"stamps of {shape[2]} x {shape[1]} pixels (--size N makes all the same)"
    pixels = f" of {' x '.join(map(str, shape))} in {', '.join(bands)}"
    return kind + pixels + (f" at {scale:g} arcsec a pixel" if scale else "")


def _tables(
    objects: Sequence[Object], kinds: dict[str, str]
) -> tuple[Catalog, LightCurves | Images | Stamps]:
    ids = np.array([item.id for item in objects], dtype=np.str_)
    catalog = Catalog(
        ids,
        np.array([item.target for item in objects], dtype=np.str_),
        np.array([item.ra for item in objects], dtype=np.float64),
        np.array([item.dec for item in objects], dtype=np.float64),
        _columns(objects, kinds),
    )
    cutouts = [item for item in objects if isinstance(item, Cutout)]
    if cutouts:
        return catalog, _stack(ids, cutouts)
    triplets = [item for item in objects if isinstance(item, Triplet)]
    if triplets:
        return catalog, Stamps(
            ids,
            np.stack([item.pixels for item in triplets]),
            np.array([item.detector for item in triplets], dtype=np.str_),
            np.array([item.exposure for item in triplets], dtype=np.str_),
            catalog.target,
        )
    return catalog, light_curves([item for item in objects if isinstance(item, Segment)])


def _stack(ids: np.ndarray, cutouts: Sequence[Cutout]) -> Images:
    first = cutouts[0]
    errors = [item.flux_err for item in cutouts if item.flux_err is not None]
    return Images(
        ids,
        np.stack([item.pixels for item in cutouts]),
        first.bands,
        first.pixel_scale,
        first.flux_unit,
        np.stack(errors) if errors else None,
    )


def light_curves(segments: Sequence[Segment]) -> LightCurves:
    """Put the light curves of segments of one flux unit one after the other."""
    ids = np.array([segment.id for segment in segments], dtype=np.str_)
    bands = tuple(dict.fromkeys(band for segment in segments for band in segment.bands))
    code = {names: _codes(names, bands) for names in {segment.bands for segment in segments}}
    offsets = np.zeros(len(segments) + 1, np.int64)
    np.cumsum([len(segment.mjd) for segment in segments], out=offsets[1:])
    return LightCurves(
        ids,
        offsets,
        np.concatenate([np.zeros(0), *(s.mjd for s in segments)]),
        np.concatenate([np.zeros(0, np.float32), *(s.flux for s in segments)]),
        np.concatenate([np.zeros(0, np.float32), *(s.flux_err for s in segments)]),
        np.concatenate([np.zeros(0, np.int16), *(code[s.bands][s.band] for s in segments)]),
        bands,
        segments[0].flux_unit if segments else FLUX_UNIT_RELATIVE,
    )


def _codes(names: tuple[str, ...], bands: tuple[str, ...]) -> np.ndarray:
    return np.array([bands.index(name) for name in names], np.int16)


def _columns(objects: Sequence[Object], kinds: dict[str, str]) -> dict[str, np.ndarray]:
    """Put the facts of objects side by side; one that some lack is NaN or empty there.

    A name stands for one kind in the whole survey: where a text arrives under the name of a
    number (or the other way round), it gets a column of its own, ``NAME_text``.
    """
    found: dict[str, dict[int, Value]] = {}
    for row, item in enumerate(objects):
        for name, value in item.columns.items():
            kind = "text" if isinstance(value, str) else "number"
            is_other = kinds.setdefault(name, kind) != kind
            free = f"{name}_{kind}" if is_other else name
            kinds.setdefault(free, kind)
            found.setdefault(free, {})[row] = value
    n = len(objects)
    return {name: _column(values, n, kinds[name]) for name, values in found.items()}


def _column(values: Mapping[int, Value], n: int, kind: str) -> np.ndarray:
    if kind == "text":
        return np.array([values.get(row, "") for row in range(n)], dtype=object)
    if len(values) == n and all(isinstance(value, int) for value in values.values()):
        return np.array([values[row] for row in range(n)], np.int64)
    return np.array([values.get(row, np.nan) for row in range(n)], np.float64)


# --- what became of it ------------------------------------------------------------------------


class _Report:
    """Tells how far it is, ten times a second at most."""

    def __init__(self, progress: Progress | None, work: Sequence[_Work]) -> None:
        self._progress = progress
        self._done = sum(one.done for one in work)
        self._total = _total(work) if progress else None
        self._last = 0.0

    def step(self, shard: _Shard) -> None:
        self._done += 1
        now = clock.monotonic()
        if self._progress and now - self._last > 0.1:
            self._last = now
            self._progress(self._done, self._total, f"{shard.new_segments:,} stored")

    def end(self, counts: Counts) -> None:
        if self._progress:
            note = f"{counts.segments:,} stored, {counts.rejects:,} rejected"
            self._progress(counts.items, counts.items, note)


def _total(work: Sequence[_Work]) -> int | None:
    n_tables = sum(_reader(one.path) is not fits_lightcurves for one in work)
    if n_tables > MANY_TABLES:
        return None
    counts = [_count(one.path) for one in work]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _count_stored(survey: Path, files: set[str], shard: _Shard) -> Counts:
    finished = store.finished_items(survey)
    items = sum(n for path, n in finished.items() if path in files)
    targets: set[str] = set()
    segments = 0
    for stored in _stored(survey, ["target", "source"]):
        rows = [source in files for source in stored["source"].to_pylist()]
        segments += sum(rows)
        targets.update(t for t, is_ours in zip(stored["target"].to_pylist(), rows) if is_ours)
    return Counts(
        items, segments, items - segments, len(targets), shard.new_segments, shard.new_rejects
    )


def _stored(survey: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    for shard in store.object_shards(survey):
        path = store.objects_folder(survey) / shard["file"]
        there = pq.read_schema(path).names
        yield pq.read_table(path, columns=[name for name in names if name in there])


def _note(
    survey: Path,
    sources: Sequence[Path],
    options: Mapping[str, Any],
    counts: Counts,
    files: set[str],
) -> None:
    """Say in survey.toml what was read, how, and what its times and values were taken for."""
    seen: dict[str, set[str]] = {"time_ref": set(), "value_kind": set()}
    for stored in _stored(survey, ["source", *seen]):
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
