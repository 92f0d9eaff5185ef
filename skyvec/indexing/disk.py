"""One segment of an index as files: written in bounded memory, resumable, then mapped.

Two walks. The first reads the vectors part by part, finds the cell of each and writes the part
anew, sorted by cells. The second takes a few cells at a time from all parts and appends them to
the files that are searched. What a walk has finished is never done again.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec import store
from skyvec.index import kernels
from skyvec.index.certified import CertifiedIndex, Plan
from skyvec.index.quantised import (
    Frame,
    Piece,
    Ranges,
    assemble,
    checked,
    fit_frame,
    group_cells,
    lay_out,
    n_cells,
    sample_size,
    survey_all,
    unit,
)

BUILDING = "building"
FRAME, CELLS, FACTS = "frame.npz", "cells.npz", "segment.json"
PLACES = "places.u32"
KINDS: dict[str, type[np.generic]] = {
    "vectors": np.float32,
    "rows": np.int64,
    "target": np.int64,
    "coarse": np.uint8,
    "fine": np.uint8,
    "bias": np.float32,
}
CHUNK = 1_000_000
"""Numbers of a column looked at together."""

CHECKPOINT = 64
"""Groups of cells laid out between two notes of how far the second walk has come."""

Vectors = Callable[[int], NDArray[np.float32]]
"""Gives the vectors of a part, shape (n, d)."""

Targets = Callable[[int], NDArray[np.int64]]
"""Gives the target codes of a part, shape (n,)."""

Tell = Callable[[int, int, str], object]


class _Part(NamedTuple):
    """A part on disk, sorted by cells: where each cell starts in it."""

    stem: Path
    starts: NDArray[np.int64]
    ranges: Ranges


def write_segment(
    folder: Path,
    sizes: Sequence[int],
    vectors: Vectors,
    targets: Targets,
    metric: str,
    *,
    threads: int | None = None,
    tell: Tell | None = None,
) -> None:
    """Write a segment, or go on with one that was interrupted.

    Memory is bounded by one part and one group of cells, whatever the number of parts.

    Args:
        folder: Of the segment; a finished one is left as it is.
        sizes: Rows of each part, > 0.
        vectors: Gives the vectors of a part, the same every time it is asked.
        targets: Gives the codes of their objects.
        metric: ``cosine`` or ``l2``.
        threads: Threads to use; None: one a core.
        tell: Called with the vectors done, all vectors (both walks together) and what is done.

    Raises:
        ValueError: A part is not finite or not as long as was said.
    """
    work = folder / BUILDING
    if is_whole(folder):
        shutil.rmtree(work, ignore_errors=True)
        return
    work.mkdir(parents=True, exist_ok=True)
    total = 2 * sum(sizes)

    def say(done: int, what: str) -> None:
        if tell is not None:
            tell(done, total, what)

    def ready(i: int) -> NDArray[np.float32]:
        found = checked(vectors(i))
        if len(found) != sizes[i]:
            raise ValueError(f"part {i} has {len(found)} vectors, not {sizes[i]}")
        return unit(found) if metric == "cosine" else found

    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        frame = _frame(work, sizes, ready, metric)
        say(0, "sorting into cells")
        parts, done = [], 0
        for i, size in enumerate(sizes):
            parts.append(_sorted_part(work, i, done, ready, targets, frame, pool))
            done += size
            say(done, "sorting into cells")
        _lay_out_all(folder, parts, frame, lambda n: say(done + n, "laying out cells"))
    _finish(folder, metric)
    shutil.rmtree(work)
    say(total, "done")


def is_whole(folder: Path) -> bool:
    """Say whether a segment is finished."""
    return (folder / FACTS).exists()


def open_segment(folder: Path, *, threads: int | None = None) -> CertifiedIndex:
    """Map a finished segment: nothing is read before it is needed.

    Raises:
        StoreError: The segment is unfinished or its files do not fit together.
    """
    if not is_whole(folder):
        raise store.StoreError(f"{folder} is no finished segment; run `skyvec index build` again")
    facts = store.read_json(folder / FACTS)
    index = CertifiedIndex.of(
        _store(folder),
        facts["metric"],
        n_targets=facts["n_targets"],
        plan=Plan(**facts["plan"]) if "plan" in facts else None,
        place=mapped(folder / PLACES, np.uint32),
        threads=threads,
    )
    if index.n != facts["n"]:
        raise store.StoreError(f"{folder} holds {index.n} vectors, not {facts['n']}; build anew")
    return index


# --- the first walk ---------------------------------------------------------------------------


def _frame(work: Path, sizes: Sequence[int], read: Vectors, metric: str) -> Frame:
    path = work / FRAME
    if not path.exists():
        n = int(sum(sizes))
        step = max(1, n // sample_size(n))
        sample, seen = [], 0
        for i, size in enumerate(sizes):
            sample.append(read(i)[-seen % step :: step].copy())  # a view would keep it all
            seen += size
        frame = fit_frame(np.concatenate(sample), n_cells(n), metric)
        _save(path, **frame._asdict())
    with np.load(path, allow_pickle=False) as held:
        arrays = {name: held[name] for name in Frame._fields}
    return Frame(**{**arrays, "is_distance": bool(arrays["is_distance"])})


def _sorted_part(
    work: Path,
    i: int,
    first_row: int,
    read: Vectors,
    targets: Targets,
    frame: Frame,
    pool: ThreadPoolExecutor,
) -> _Part:
    stem = work / f"part-{i:05d}"
    facts = stem.with_suffix(".npz")
    if not facts.exists():
        vectors, target = read(i), targets(i)
        cell, ranges = survey_all(vectors, frame, pool)
        order = np.argsort(cell, kind="stable")
        starts = np.searchsorted(cell[order], np.arange(len(frame.centres) + 1))
        dump(stem.with_suffix(".vectors"), vectors[order])
        dump(stem.with_suffix(".rows"), order.astype(np.int64) + first_row)
        dump(stem.with_suffix(".target"), target[order].astype(np.int64))
        _save(facts, starts=starts, low=ranges.low, high=ranges.high)
    with np.load(facts, allow_pickle=False) as held:
        return _Part(stem, held["starts"], Ranges(held["low"], held["high"]))


# --- the second walk --------------------------------------------------------------------------


def _lay_out_all(
    folder: Path, parts: list[_Part], frame: Frame, tell: Callable[[int], object]
) -> None:
    ranges = parts[0].ranges
    for part in parts[1:]:
        ranges = ranges.join(part.ranges)
    total = np.sum([np.diff(part.starts) for part in parts], axis=0)
    cells = np.flatnonzero(total)
    counts = total[cells]
    runs = group_cells(counts)
    d = len(frame.mean)
    pieces, done = _resume(folder, d)
    groups_done = next((i for i, run in enumerate(runs) if run[0] >= done), len(runs))
    with _Readers(parts, d) as readers, _Writers(folder) as writers:
        for number, (first, end) in enumerate(runs[groups_done:], groups_done + 1):
            vectors, rows, target, cell = readers.read(int(cells[first]), int(cells[end - 1]) + 1)
            order = np.argsort(cell, kind="stable")
            piece = lay_out(
                vectors[order], rows[order], target[order], counts[first:end], frame, ranges
            )
            writers.append(piece)
            pieces.append(piece.without_arrays())
            if number % CHECKPOINT == 0 or number == len(runs):
                writers.flush()
                _save(folder / BUILDING / CELLS, **_facts(pieces, counts[:end]))
                tell(int(counts[:end].sum()))
    blocks = -(-counts // kernels.LANES)
    whole = {**frame._asdict(), **ranges._asdict(), **_facts(pieces, counts), "blocks": blocks}
    _save(folder / CELLS, **whole)


def _facts(pieces: list[Piece], counts: NDArray[np.int64]) -> dict[str, np.ndarray]:
    """What is to be known of all cells so far, as one array each."""
    return {
        "centre": np.concatenate([piece.centre for piece in pieces]),
        "radius": np.concatenate([piece.radius for piece in pieces]),
        "power": np.concatenate([piece.power for piece in pieces]),
        "error": np.max([piece.error for piece in pieces], axis=0),
        "length": np.max([piece.length for piece in pieces], axis=0),
        "counts": counts,
    }


def _resume(folder: Path, d: int) -> tuple[list[Piece], int]:
    """What a walk before finished: its pieces as one, and its cells; the rest is cut off."""
    path = folder / BUILDING / CELLS
    if not path.exists():
        for name in KINDS:
            (folder / f"{name}.bin").unlink(missing_ok=True)
        return [], 0
    with np.load(path, allow_pickle=False) as held:
        facts = {name: held[name] for name in held.files}
    size = int((-(-facts["counts"] // kernels.LANES)).sum()) * kernels.LANES
    for name, width in _widths(d).items():
        with (folder / f"{name}.bin").open("r+b") as file:
            if name != "bias" or os.fstat(file.fileno()).st_size:
                file.truncate(size * width * np.dtype(KINDS[name]).itemsize)
    return [_piece(facts)], len(facts["counts"])


def _widths(d: int) -> dict[str, int]:
    """Numbers a vector takes in each file."""
    head = min(15, d) + 1
    codes = {"coarse": -(-head // kernels.GROUP), "fine": -(-d // kernels.GROUP)}
    bytes_ = {name: groups * kernels.GROUP for name, groups in codes.items()}
    return {"vectors": -(-d // 8) * 8, "rows": 1, "target": 1, **bytes_, "bias": 1}


def _piece(facts: dict[str, np.ndarray]) -> Piece:
    none: dict[str, Any] = {name: np.zeros(0, kind) for name, kind in KINDS.items()}
    error, length = (tuple(map(float, facts[name])) for name in ("error", "length"))
    return Piece(
        **none,
        centre=facts["centre"],
        radius=facts["radius"],
        power=facts["power"],
        error=(error[0], error[1]),
        length=(length[0], length[1]),
    )


class _Readers:
    """The sorted parts, open side by side."""

    def __init__(self, parts: list[_Part], d: int) -> None:
        self._parts, self._d = parts, d
        self._files: list[dict[str, BinaryIO]] = []

    def __enter__(self) -> "_Readers":
        for part in self._parts:
            names = ("vectors", "rows", "target")
            self._files.append({n: part.stem.with_suffix(f".{n}").open("rb") for n in names})
        return self

    def __exit__(self, *_: object) -> None:
        for files in self._files:
            for file in files.values():
                file.close()

    def read(
        self, low: int, high: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.integer]]:
        """Vectors, rows, targets and cells of the cells from low to high, part after part."""
        found: list[tuple[np.ndarray, ...]] = []
        for part, files in zip(self._parts, self._files):
            first, end = int(part.starts[low]), int(part.starts[high])
            cell = np.repeat(np.arange(low, high), np.diff(part.starts[low : high + 1]))
            vectors = _take(files["vectors"], np.float32, self._d * first, self._d * end)
            rows = _take(files["rows"], np.int64, first, end)
            target = _take(files["target"], np.int64, first, end)
            found.append((vectors.reshape(-1, self._d), rows, target, cell))
        vectors, rows, target, cell = (np.concatenate(column) for column in zip(*found))
        return vectors, rows, target, cell


def _take(file: BinaryIO, kind: type[np.generic], first: int, end: int) -> np.ndarray:
    file.seek(first * np.dtype(kind).itemsize)
    return np.fromfile(file, kind, end - first)


class _Writers:
    """The files of the segment, open for appending."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> "_Writers":
        self._files = {name: (self._folder / f"{name}.bin").open("ab") for name in KINDS}
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, piece: Piece) -> None:
        for name, file in self._files.items():
            file.write(np.ascontiguousarray(getattr(piece, name)).data)

    def flush(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())


# --- the finished segment ---------------------------------------------------------------------


def _finish(folder: Path, metric: str) -> None:
    n = _write_places(folder)
    n_targets = _count_targets(folder)
    # last, when nothing else is in memory: measuring maps most of the files
    index = CertifiedIndex.of(
        _store(folder), metric, n_targets=n_targets, place=mapped(folder / PLACES, np.uint32)
    )
    facts = {"metric": metric, "n": n, "n_targets": n_targets}
    store.write_json(folder / FACTS, {**facts, "plan": index.plan._asdict()})


def _write_places(folder: Path) -> int:
    """Write the place of each row; gives their number."""
    rows = np.fromfile(folder / "rows.bin", np.int64)
    place = np.empty(int(np.count_nonzero(rows >= 0)), np.uint32)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        real = np.flatnonzero(part >= 0)
        place[part[real]] = real + start
    dump(folder / PLACES, place)
    return len(place)


def _count_targets(folder: Path) -> int:
    target = np.fromfile(folder / "target.bin", np.int64)
    target.sort()
    first = int(np.searchsorted(target, 0))  # padding has negative codes
    return 1 + sum(
        int(np.count_nonzero(np.diff(target[max(first, start) : start + CHUNK + 1])))
        for start in range(first - first % CHUNK, len(target), CHUNK)
    )


def _store(folder: Path) -> kernels.Store:
    with np.load(folder / CELLS, allow_pickle=False) as held:
        facts = {name: held[name] for name in held.files}
    frame = Frame(*(facts[name] for name in Frame._fields))
    frame = frame._replace(is_distance=bool(frame.is_distance))
    arrays = {name: mapped(folder / f"{name}.bin", kind) for name, kind in KINDS.items()}
    width = _widths(len(frame.mean))["vectors"]
    arrays["vectors"] = arrays["vectors"].reshape(-1, width)
    ranges = Ranges(facts["low"], facts["high"])
    return assemble(arrays, [_piece(facts)], facts["blocks"], frame, ranges)


def mapped(path: Path, kind: type[np.generic]) -> np.ndarray:
    """A file as an array; compiled code wants arrays that might be written, so copy-on-write."""
    if not path.stat().st_size:
        return np.zeros(0, kind)
    return np.asarray(np.memmap(path, kind, mode="c"))


def _save(path: Path, **arrays: Any) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    store.write_atomic(path, write)


def dump(path: Path, array: np.ndarray) -> None:
    """Write the bytes of an array, whole or not at all."""
    store.write_atomic(path, lambda temporary: np.ascontiguousarray(array).tofile(temporary))
