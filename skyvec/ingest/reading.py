"""Items of files in a fixed order, read here or by other processes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from skyvec.ingest.sources import IngestError, find_reader
from skyvec.ingest.tables import Object
from skyvec.io import fits_lightcurves
from skyvec.schema import Reject

FILES_PER_TASK = 8
FEW_FILES = 32
"""With fewer files than this, starting other processes costs more than it saves."""

SMALL_TABLE = 1 << 20
"""[byte] Larger tables are streamed by the main process, smaller ones handed to a worker whole."""

Item = Object | Reject


class Work(NamedTuple):
    """A file to read, and how many of its items are finished already."""

    path: str
    done: int


def _read(work: Work, options: Mapping[str, Any]) -> Iterator[Item]:
    """Read the items of a file that are not finished yet."""
    reader = find_reader(work.path)
    if reader is None:
        if not work.done:
            suffix = Path(work.path).suffix or "no ending"
            reason = (
                f"unknown type of file ({suffix}); FITS, JPEG, PNG, HDF5, Parquet, CSV, ECSV, "
                "VOTable and Avro are read, and NumPy's .npy if stamps or triplets is in the name"
            )
            yield Reject(work.path, -1, "", reason)
        return
    chosen = {name: options[name] for name in reader.OPTIONS}
    prefix = options["prefix"].replace("{file}", Path(work.path).stem)
    n = 0
    for item in reader.read(Path(work.path), **chosen):
        n += 1
        if n > work.done:
            yield _prefixed(item, prefix)
    if n < work.done:
        raise IngestError(
            f"{work.path} gives {n} items, but {work.done} of it are in the survey: it has "
            "changed since; ingest it into another survey"
        )


def _prefixed(item: Item, prefix: str) -> Item:
    if not prefix or not item.id:
        return item
    if isinstance(item, Reject):
        return replace(item, id=prefix + item.id)
    return replace(item, id=prefix + item.id, target=prefix + item.target)


def _read_whole(group: Sequence[Work], options: Mapping[str, Any]) -> list[tuple[str, Item]]:
    return [(work.path, item) for work in group for item in _read(work, options)]


def in_order(
    work: Sequence[Work], options: Mapping[str, Any], workers: int
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
    groups: Iterator[list[Work]],
    options: Mapping[str, Any],
    *,
    window: int,
) -> Iterator[tuple[str, Item]]:
    """Never more than ``window`` groups are under way or waiting to be taken."""
    ahead: deque[Future[list[tuple[str, Item]]] | Work] = deque()
    for group in groups:
        if len(group) == 1 and not _is_small(group[0].path):
            ahead.append(group[0])
        else:
            with _ctrl_c_held():
                ahead.append(pool.submit(_read_whole, group, options))
        while len(ahead) >= window:
            yield from _take(ahead.popleft(), options)
    while ahead:
        yield from _take(ahead.popleft(), options)


def _take(
    first: Future[list[tuple[str, Item]]] | Work, options: Mapping[str, Any]
) -> Iterator[tuple[str, Item]]:
    if isinstance(first, Work):
        for item in _read(first, options):
            yield first.path, item
    else:
        yield from first.result()


def _groups(work: Sequence[Work]) -> Iterator[list[Work]]:
    group: list[Work] = []
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
    return find_reader(path) is fits_lightcurves or os.path.getsize(path) <= SMALL_TABLE


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Leave Ctrl-C to the main process: readers started here inherit that it is blocked.

    A reader that ignored it on its own could be hit while it still imports. One pressed
    meanwhile reaches the main process at the end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """End with the main process, however it ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
