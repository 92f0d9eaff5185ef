"""The search of a survey, through the index on disk where there is one, else in memory.

Both answer the same: everything is searched exactly unless the index is so large that it says
otherwise (`skyvec index info`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyvec import store
from skyvec.analysis import filters, neighbours
from skyvec.indexing import survey as indexed
from skyvec.report.answers import Queries, checked_latents
from skyvec.report.remember import Answer, remember
from skyvec.schema import Catalog, Floats, Latents, Strings

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Which:
    """What may answer; every condition that is given must hold.

    Args:
        where: A condition on the survey's columns, as in :func:`skyvec.analysis.filters.where`.
        cone: ra, dec and radius [deg, ICRS].
        polygon: ra, dec [deg, ICRS] of the corners of a convex polygon, shape (m >= 3, 2).
        moc: File of a multi-order coverage map.
        apart: Leave out what stands within so many degrees of the query's own place.
    """

    where: str | None = None
    cone: tuple[float, float, float] | None = None
    polygon: tuple[tuple[float, float], ...] | None = None
    moc: Path | None = None
    apart: float = 0.0

    def mask(self, collection: "Collection") -> Mask | None:
        """Rows that fulfil the conditions; None where there are none."""
        masks = []
        if self.where is not None:
            masks.append(collection.where(self.where))
        if self.cone is not None:
            masks.append(collection.cone(*self.cone))
        if self.polygon is not None:
            masks.append(collection.polygon(np.array(self.polygon, np.float64)))
        if self.moc is not None:
            masks.append(collection.moc(self.moc))
        return np.logical_and.reduce(masks) if masks else None

    def arguments(self) -> dict[str, Any]:
        """All that an answer depends on, as plain values."""
        plain = asdict(self)
        plain["moc"] = "" if self.moc is None else f"{self.moc.name} {store.sha256(self.moc)}"
        return plain


class InMemory:
    """All latents in memory, asked in the same way as an index on disk.

    Args:
        survey: The survey's folder.
        latents: Of one of its models.
    """

    def __init__(self, survey: Path, latents: Latents) -> None:
        self._survey, self.latents = survey, latents
        self._catalog = Catalog(latents.id, latents.target, latents.ra, latents.dec)

    def __len__(self) -> int:
        return len(self.latents)

    def rows_named(self, name: str) -> NDArray[np.int64]:
        """Rows of a segment key, or of all segments of a target."""
        return neighbours.find_rows(self.latents, name)

    def strings(self, column: str, rows: NDArray[np.int64]) -> Strings:
        """``id`` or ``target`` of some rows."""
        column_: Strings = getattr(self.latents, column)
        return column_[rows]

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors of some rows."""
        return self.latents.vectors[rows]

    def where(self, condition: str) -> Mask:
        """Rows whose objects fulfil a condition on the survey's columns."""
        shards = store.latent_shards(self._survey, self.latents.model)
        files = [shard["file"] for shard in shards]
        columns = store.read_columns(self._survey, filters.columns_in(condition), files)
        return filters.fulfils(columns, len(self), condition)

    def cone(self, ra: float, dec: float, radius: float) -> Mask:
        """Rows within a cone [deg]."""
        return filters.cone(self._catalog, ra, dec, radius)

    def polygon(self, corners: NDArray[np.float64]) -> Mask:
        """Rows within a convex polygon."""
        return filters.polygon(self._catalog, corners)

    def moc(self, file: Path) -> Mask:
        """Rows within a coverage map."""
        return filters.moc(self._catalog, file)

    def search(
        self,
        queries: Sequence[str] | Floats,
        k: int,
        *,
        combine: str,
        exclude_same_target: bool,
        exclude_targets: Sequence[str],
        among: Mask | None,
        apart: float,
    ) -> neighbours.Neighbours:
        """Find the k rows most alike, as :func:`skyvec.analysis.neighbours.search` does."""
        return neighbours.search(
            self.latents,
            queries,
            k,
            combine=combine,
            exclude_same_target=exclude_same_target,
            exclude_targets=exclude_targets,
            among=among,
            apart=apart,
        )


Collection = InMemory | indexed.SurveyIndex


def open_collection(survey: Path, model: str) -> Collection:
    """Give the index of a model's latents where one holds them all, else the latents."""
    if indexed.is_there(survey, model):
        return indexed.open_index(survey, model)
    return InMemory(survey, checked_latents(survey, model))


def search(
    survey: Path,
    model: str,
    ids: Sequence[str],
    *,
    foreign: Queries | None = None,
    k: int = 5,
    include_same_target: bool = False,
    combine: str = "each",
    which: Which | None = None,
) -> Answer:
    """Find the segments most alike to some of the survey, to foreign ones, or to all together.

    Args:
        survey: The survey's folder.
        model: Whose latents are searched.
        ids: Segments or targets of the survey.
        foreign: Queries from elsewhere.
        k: How many neighbours of each.
        include_same_target: Let other segments of a query's target answer too.
        combine: ``each``, ``mean`` or ``best``; see :func:`skyvec.analysis.neighbours.search`.
        which: What may answer; None: everything.

    Returns:
        Columns query, rank, id, target, similarity, distance, ra, dec.

    Raises:
        KeyError: An id is not there.
        ValueError: There is no query, k < 1, or a condition that is not understood.
    """
    which = which or Which()
    arguments: dict[str, Any] = {
        "ids": list(ids),
        "foreign": foreign.digest if foreign is not None else "",
        "k": k,
        "include_same_target": include_same_target,
        "combine": combine,
        "which": which.arguments(),
        "index": indexed.digest(survey, model),
    }

    def make() -> tuple[pa.Table, dict[str, Any]]:
        collection = open_collection(survey, model)
        among = which.mask(collection)
        asked = _Asked(collection, k, not include_same_target, combine, among, which.apart)
        facts = {"k": k, "searched": len(collection) if among is None else int(among.sum())}
        return pa.concat_tables(asked.all(ids, foreign)), facts

    return remember(survey, "search", model, arguments, make)


@dataclass(frozen=True)
class _Asked:
    """A search but for its queries."""

    collection: Collection
    k: int
    exclude: bool
    combine: str
    among: Mask | None
    apart: float

    def all(self, ids: Sequence[str], foreign: Queries | None) -> list[pa.Table]:
        """Answers for all queries, or the one for all together."""
        if foreign is None:
            return [_table(self._find(list(ids)))]
        if self.combine != "each":
            return [self._together(ids, foreign)]
        parts = self.all(ids, None) if ids else []
        for name, target, vector in zip(foreign.name, foreign.target, foreign.vectors):
            parts.append(_table(self._find(vector[None], [str(target)]), str(name)))
        return parts

    def _together(self, ids: Sequence[str], foreign: Queries) -> pa.Table:
        rows = [self.collection.rows_named(name) for name in ids]
        own = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
        among = np.ones(len(self.collection), bool) if self.among is None else self.among.copy()
        among[own] = False
        targets = [*self.collection.strings("target", own).tolist(), *foreign.target.tolist()]
        vectors = np.concatenate([self.collection.vectors(own), foreign.vectors])
        found = self._find(vectors, targets, among)
        return _table(found, " + ".join([*ids, *foreign.name.tolist()]))

    def _find(
        self,
        queries: Sequence[str] | Floats,
        targets: Sequence[str] = (),
        among: Mask | None = None,
    ) -> neighbours.Neighbours:
        return self.collection.search(
            queries,
            self.k,
            combine=self.combine,
            exclude_same_target=self.exclude,
            exclude_targets=targets if self.exclude else (),
            among=self.among if among is None else among,
            apart=self.apart,
        )


def _table(found: neighbours.Neighbours, query: str | None = None) -> pa.Table:
    return pa.table(
        {
            "query": found.query if query is None else np.full(len(found), query),
            "rank": found.rank,
            "id": found.id,
            "target": found.target,
            "similarity": found.similarity,
            "distance": found.distance,
            "ra": found.ra,
            "dec": found.dec,
        }
    )
