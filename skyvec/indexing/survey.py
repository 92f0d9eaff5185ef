"""The index of one model's latents in a survey: built, appended to, and asked.

An index is a list of segments and one manifest, whose replacement is the only commit point.
Latents that came later become a segment of their own; nothing that stands is written again. Up to
``EXACT_UP_TO`` vectors a search is exact by default; beyond, it believes in a share of the cells'
radii only, chosen by measured recall.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyvec import sky, store
from skyvec.analysis import filters
from skyvec.analysis.neighbours import COMBINE, Neighbours, best_of_all, called_together
from skyvec.index.certified import CertifiedIndex
from skyvec.index.exact import distance
from skyvec.index.probing import choose_radii
from skyvec.index.quantised import unit
from skyvec.index.segments import SegmentedIndex
from skyvec.indexing.disk import Tell, open_segment, write_segment
from skyvec.indexing.names import Names, code_of, write_names
from skyvec.schema import Catalog, Floats, Strings

INDEX, DELETED, PLANNED = "index.json", "deleted.u32", "shards.json"
EXACT_UP_TO = 2_000_000
"""So many vectors are searched exactly in milliseconds."""

FEW_BANNED = 200
"""So many rows that must not answer are asked for in addition and dropped."""

RECALL, RECALL_AT = 0.99, 10
"""Wanted of an approximate search: share of so many true neighbours."""

Mask = NDArray[np.bool_]


def build(
    survey: Path,
    model: str,
    *,
    anew: bool = False,
    threads: int | None = None,
    tell: Tell | None = None,
) -> int:
    """Index all latents that are not indexed yet; an interrupted build goes on.

    Args:
        survey: The survey's folder.
        model: Whose latents.
        anew: Throw the index away first: one segment again, and no deleted rows.
        threads: Threads to use; None: one a core.
        tell: Called with the vectors done, all vectors and what is being done.

    Returns:
        How many vectors were indexed now.

    Raises:
        StoreError: There are no latents, indexed ones changed since, or another process builds.
    """
    store.check_survey(survey)
    with store.lock(store.index_folder(survey, model), "index build"):
        return _build(survey, model, anew, threads, tell)


def _build(survey: Path, model: str, anew: bool, threads: int | None, tell: Tell | None) -> int:
    folder = store.index_folder(survey, model)
    if anew:
        shutil.rmtree(folder, ignore_errors=True)
    shards = store.latent_shards(survey, model)
    facts: dict[str, Any] = {"metric": "cosine", "segments": []}
    if (folder / INDEX).exists():
        facts = _facts(folder)
    waiting = _waiting(folder, facts, shards)
    if not waiting:
        return 0
    segment = folder / f"segment-{len(facts['segments']):04d}"
    planned = segment / PLANNED
    if not planned.exists() or store.read_json(planned) != waiting:
        shutil.rmtree(segment, ignore_errors=True)
        store.write_json(planned, waiting)
    files = [shard["file"] for shard in waiting]

    def column(i: int, name: str) -> pa.ChunkedArray:
        pa.default_memory_pool().release_unused()  # of the part before
        return store.read_latent_columns(survey, model, files[i], [name])[name]

    write_segment(
        segment,
        [shard["rows"] for shard in waiting],
        lambda i: store.vectors_of(column(i, "latent")),
        lambda i: code_of(column(i, "target").to_pylist()),
        facts["metric"],
        threads=threads,
        tell=tell,
    )
    rows = sum(shard["rows"] for shard in waiting)
    write_names(segment, survey, model, files, rows)
    pa.default_memory_pool().release_unused()
    facts["segments"].append({"folder": segment.name, "rows": rows, "shards": waiting})
    facts["n"] = sum(part["rows"] for part in facts["segments"])
    if rows == max(part["rows"] for part in facts["segments"]):
        trust = choose_radii(
            open_segment(segment, threads=threads),
            RECALL_AT,
            np.random.default_rng(0),
            recall=RECALL,
        )
        facts |= {"radii": trust.radii, "recall": trust.recall}
    facts["way"] = "exact" if facts["n"] <= EXACT_UP_TO else "approximate"
    store.write_json(folder / INDEX, facts)
    return rows


def delete(survey: Path, model: str, names: Sequence[str]) -> int:
    """Let some segments, or all segments of some targets, answer no more.

    Returns:
        How many rows are deleted now, those deleted before not counted.

    Raises:
        KeyError: A name is not in the index.
        StoreError: There is no index.
    """
    opened = open_index(survey, model)
    rows = np.concatenate([opened.rows_named(name) for name in names])
    before = np.flatnonzero(opened.deleted)
    after = np.union1d(before, rows).astype(np.uint32)
    path = store.index_folder(survey, model) / DELETED
    store.write_atomic(path, after.tofile)
    return len(after) - len(before)


def sizes(survey: Path, model: str) -> list[int]:
    """Bytes of the files of each segment."""
    folder = store.index_folder(survey, model)
    parts = [folder / part["folder"] for part in _facts(folder)["segments"]]
    return [sum(file.stat().st_size for file in part.rglob("*")) for part in parts]


def digest(survey: Path, model: str) -> str:
    """Hash of what an answer depends on beside the latents: the way, and what is deleted."""
    folder = store.index_folder(survey, model)
    if not is_there(survey, model):
        return ""
    parts = [store.sha256(folder / name) for name in (INDEX, DELETED) if (folder / name).exists()]
    return " ".join(parts)


def is_there(survey: Path, model: str) -> bool:
    """Say whether the latents of a model have an index that holds all of them."""
    folder = store.index_folder(survey, model)
    if not (folder / INDEX).exists():
        return False
    indexed = [_key(s) for part in _facts(folder)["segments"] for s in part["shards"]]
    return indexed == [_key(shard) for shard in store.latent_shards(survey, model)]


def open_index(survey: Path, model: str, *, threads: int | None = None) -> "SurveyIndex":
    """Map the index of a model's latents; nothing is read before it is needed.

    Raises:
        StoreError: There is none.
    """
    folder = store.index_folder(survey, model)
    if not (folder / INDEX).exists():
        raise store.StoreError(
            f"no index of {model!r} in {survey}; make it with "
            f"`skyvec index build --survey {survey} --model {model}`"
        )
    facts = _facts(folder)
    parts = [folder / part["folder"] for part in facts["segments"]]
    segments = [open_segment(part, threads=threads) for part in parts]
    deleted = np.zeros(facts["n"], bool)
    if (folder / DELETED).exists():
        deleted[np.fromfile(folder / DELETED, np.uint32)] = True
    return SurveyIndex(
        survey,
        model,
        SegmentedIndex(segments, deleted),
        [Names(part) for part in parts],
        facts,
        deleted,
    )


def _facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = store.read_json(folder / INDEX)
    return facts


def _key(shard: dict[str, Any]) -> tuple[str, str]:
    return shard["file"], shard["sha256"]


def _waiting(
    folder: Path, facts: dict[str, Any], shards: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Shards that no segment holds yet; those held must stand as they were."""
    there = {shard["file"]: shard for shard in shards}
    held = [shard for part in facts["segments"] for shard in part["shards"]]
    for shard in held:
        now = there.pop(shard["file"], None)
        if now is None or _key(now) != _key(shard):
            raise store.StoreError(
                f"the latents in {shard['file']} changed since {folder} was built; "
                "build it with --anew"
            )
    return [{name: shard[name] for name in ("file", "rows", "sha256")} for shard in there.values()]


@dataclass
class SurveyIndex:
    """An opened index.

    Args:
        survey: The survey's folder.
        model: Whose latents are indexed.
        index: The vectors; a row is the number of a latent in the order of the shards.
        names: Of the rows of each segment.
        facts: The manifest: ``way``, ``radii``, ``recall``, ``segments``.
        deleted: Rows that answer no more, (n,).
    """

    survey: Path
    model: str
    index: SegmentedIndex
    names: list[Names]
    facts: dict[str, Any]
    deleted: Mask

    def __len__(self) -> int:
        return self.index.n

    # --- who the rows are ---------------------------------------------------------------------

    def rows_named(self, name: str) -> NDArray[np.int64]:
        """Rows of a segment key, or of all segments of a target.

        Raises:
            KeyError: Neither is there.
        """
        rows = self._together(lambda i: self.names[i].rows_with_id(name))
        if not len(rows):
            rows = self._rows_of_target(name)
        if not len(rows):
            raise KeyError(f"no segment or target {name!r} among {len(self):,} indexed latents")
        return rows

    def _rows_of_target(self, name: str) -> NDArray[np.int64]:
        rows = self._together(lambda i: _rows_of_target(self.index.segments[i], name))
        return rows[self.strings("target", rows) == name]

    def strings(self, column: str, rows: NDArray[np.int64]) -> Strings:
        """``id`` or ``target`` of some rows."""
        parts = self._apart(rows)
        width = max((part.dtype.itemsize for _, part in self._each(column, parts)), default=4)
        found = np.empty(len(rows), f"<U{max(1, width // 4)}")
        for here, part in self._each(column, parts):
            found[here] = part
        return found

    def places(self, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Give ra and dec [deg] of some rows."""
        ra, dec = np.empty(len(rows)), np.empty(len(rows))
        for i, here, local in self._apart(rows):
            ra[here], dec[here] = self.names[i].places(local)
        return ra, dec

    def _each(
        self, column: str, parts: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]
    ) -> list[tuple[NDArray[np.int64], Strings]]:
        return [(here, self.names[i].strings(column, local)) for i, here, local in parts]

    def _apart(
        self, rows: NDArray[np.int64]
    ) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Segment, places among ``rows``, and rows within the segment."""
        owner = np.searchsorted(self.index.first, rows, side="right") - 1
        return [
            (int(i), np.flatnonzero(owner == i), rows[owner == i] - self.index.first[i])
            for i in np.unique(owner)
        ]

    def _together(self, local: Callable[[int], NDArray[np.int64]]) -> NDArray[np.int64]:
        parts = [local(i) + self.index.first[i] for i in range(len(self.names))]
        return np.concatenate(parts).astype(np.int64)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of some rows, of length 1 (or 0)."""
        return self.index.vectors(rows)

    # --- which rows may answer ----------------------------------------------------------------

    def cone(self, ra: float, dec: float, radius: float) -> Mask:
        """Rows within ``radius`` of a place, border included; all in degrees, ICRS.

        Raises:
            ValueError: A radius that is not > 0, or a place that is none.
        """
        filters.check_cone(ra, dec, radius)
        rows = self._together(lambda i: self.names[i].rows_in(sky.cone_cells(ra, dec, radius)))
        places = self.places(rows)
        centre = np.full(len(rows), float(ra)), np.full(len(rows), float(dec))
        return self._mask(rows[sky.separation(*places, *centre) <= radius])

    def polygon(self, corners: NDArray[np.float64]) -> Mask:
        """Rows within a convex polygon; corners ra, dec [deg], shape (m, 2).

        Raises:
            ValueError: Fewer than three corners, or a polygon that is not convex.
        """
        rows = np.arange(len(self))
        ra, dec = self.places(rows)
        none = np.zeros(len(self), "<U1")
        return filters.polygon(Catalog(none, none, ra, dec), corners)

    def moc(self, file: Path) -> Mask:
        """Rows within a multi-order coverage map (IVOA MOC 2.0).

        Raises:
            ModuleNotFoundError: mocpy is not installed.
        """
        return self.cells(filters.read_moc(file).to_depth29_ranges.astype(np.int64))

    def cells(self, ranges: NDArray[np.int64]) -> Mask:
        """Rows in ranges [low, high) of finest HEALPix cells, shape (m, 2)."""
        return self._mask(self._together(lambda i: self.names[i].rows_in(ranges)))

    def where(self, condition: str) -> Mask:
        """Rows whose objects fulfil a condition on the columns of the survey's catalogue.

        Raises:
            ValueError: The condition does not parse or names an unknown column.
        """
        files = [shard["file"] for part in self.facts["segments"] for shard in part["shards"]]
        columns = store.read_columns(self.survey, filters.columns_in(condition), files)
        return filters.fulfils(columns, len(self), condition)

    def _mask(self, rows: NDArray[np.int64]) -> Mask:
        mask = np.zeros(len(self), bool)
        mask[rows] = True
        return mask

    # --- the search ---------------------------------------------------------------------------

    def search(
        self,
        queries: Sequence[str] | Floats,
        k: int = 5,
        *,
        combine: str = "each",
        exclude_same_target: bool = True,
        exclude_targets: Sequence[str] = (),
        among: Mask | None = None,
        apart: float = 0.0,
        exact: bool | None = None,
    ) -> Neighbours:
        """Find the k rows most alike to each query, or to all queries together.

        Args:
            queries: Ids of segments or targets, or vectors, shape (q, d).
            k: How many for each; fewer are given only where fewer there are.
            combine: ``each``, ``mean`` or ``best``: one answer for every query, one for the mean
                of their unit vectors, or one by whichever query is nearest.
            exclude_same_target: Leave out other segments of the queries' targets.
            exclude_targets: Further targets to leave out.
            among: Search only where this is true, (n,).
            apart: Leave out what stands within so many degrees of a query's own place.
            exact: Search exactly or approximately; None: as the size of the index suggests.

        Raises:
            KeyError: An id is not there.
            ValueError: Another ``combine``, a vector of another length or not finite, k < 1.
        """
        if combine not in COMBINE:
            raise ValueError(f"unknown combine {combine!r}; choose from {', '.join(COMBINE)}")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        names, vectors, own = self._read(queries)
        banned = [self._banned(rows, exclude_same_target, apart) for rows in own]
        others = [self._rows_of_target(name) for name in exclude_targets]
        if combine != "each":
            banned = [np.unique(np.concatenate(banned))] * len(banned)
        if combine == "mean":
            middle = unit(vectors).mean(axis=0, dtype=np.float64, keepdims=True)
            vectors, banned = middle.astype(np.float32), banned[:1]
        is_exact = self.facts["way"] == "exact" if exact is None else exact
        radii = 1.0 if is_exact else float(self.facts["radii"])
        prepared = None if among is None else self.index.allow(among)
        found = []
        for vector, bans in zip(vectors, banned):
            out = np.unique(np.concatenate([bans, *others]).astype(np.int64))
            if len(out) > FEW_BANNED:  # a filter of its own, else they are dropped afterwards
                mask = np.ones(len(self), bool) if among is None else among.copy()
                mask[out] = False
                answer = self.index.search(vector[None], k, allowed=mask, radii=radii)
            else:
                answer = self.index.search(
                    vector[None], k + len(out), allowed=prepared, radii=radii
                )
            keep = np.flatnonzero((answer.rows[0] >= 0) & ~np.isin(answer.rows[0], out))[:k]
            found.append((answer.similarity[0, keep], answer.rows[0, keep]))
        if combine != "each":
            found = [best_of_all(found, k)]
            names = [called_together(names)]
        return self._answer(names, found)

    def _read(
        self, queries: Sequence[str] | Floats
    ) -> tuple[list[str], NDArray[np.float32], list[NDArray[np.int64]]]:
        if isinstance(queries, str):
            queries = [queries]
        if not isinstance(queries, np.ndarray) or queries.dtype.kind == "U":
            if len(queries) == 0:
                raise ValueError("no query; give ids of segments or targets, or vectors")
            rows = np.concatenate([self.rows_named(str(name)) for name in queries])
            rows = rows[np.sort(np.unique(rows, return_index=True)[1])]
            own = [rows[i : i + 1] for i in range(len(rows))]
            return self.strings("id", rows).tolist(), self.index.vectors(rows), own
        vectors = np.atleast_2d(queries).astype(np.float32)
        nowhere = np.zeros(0, np.int64)
        return [f"vector {i}" for i in range(len(vectors))], vectors, [nowhere] * len(vectors)

    def _banned(
        self, rows: NDArray[np.int64], same_target: bool, apart: float
    ) -> NDArray[np.int64]:
        if not len(rows):
            return rows
        banned = [rows]
        if same_target:
            banned.append(self._rows_of_target(str(self.strings("target", rows)[0])))
        ra, dec = self.places(rows)
        if apart > 0 and np.isfinite([ra[0], dec[0]]).all():
            banned.append(np.flatnonzero(self.cone(float(ra[0]), float(dec[0]), apart)))
        return np.unique(np.concatenate(banned))

    def _answer(
        self, names: list[str], found: list[tuple[Floats, NDArray[np.int64]]]
    ) -> Neighbours:
        counts = [len(rows) for _, rows in found]
        rows = np.concatenate([rows for _, rows in found])
        similarity = np.concatenate([score for score, _ in found])
        ra, dec = self.places(rows)
        return Neighbours(
            np.repeat(np.array(names, np.str_), counts),
            np.concatenate([np.arange(1, count + 1) for count in counts]),
            self.strings("id", rows),
            self.strings("target", rows),
            similarity,
            distance(similarity),
            ra,
            dec,
            rows,
        )


def _rows_of_target(segment: CertifiedIndex, name: str) -> NDArray[np.int64]:
    places = np.flatnonzero(segment.store.target == code_of([name])[0])
    return np.sort(segment.store.rows[places])
