"""The search of a survey by other measures of similarity than the distance of codes.

Either the nearest by code are put into the order of the measure, which costs next to nothing, or
the whole survey is searched by it, exactly, which finds also what the code has overlooked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyvec import store
from skyvec.index import measures
from skyvec.index.exact import unit
from skyvec.indexing import survey as indexed
from skyvec.report.answers import Queries, checked_latents
from skyvec.report.gridded import (
    Series,
    check_light,
    choose_band,
    find_series,
    series_of,
    survey_series,
)
from skyvec.report.remember import Answer, remember
from skyvec.report.searching import InMemory, Which, open_collection
from skyvec.schema import Latents, Strings
from skyvec.sky import separation

REACH = 20
"""So many times k, and at least ``LEAST_REACH``, neighbours by code are put into new order."""

LEAST_REACH = 200


@dataclass(frozen=True)
class _Query:
    """One query: its name, target, code, series, and its row among the latents (-1 = none)."""

    name: str
    target: str
    code: NDArray[np.float32]
    series: NDArray[np.float32]
    row: int


@dataclass(frozen=True)
class _Way:
    """How it is searched: all that is the same for every query."""

    survey: Path
    model: str
    measure: str
    band: str
    k: int
    exclude: bool
    which: Which


def search_by_measure(
    survey: Path,
    model: str,
    ids: Sequence[str],
    measure: str,
    *,
    full: bool = False,
    foreign: Queries | None = None,
    band: str = "",
    k: int = 5,
    include_same_target: bool = False,
    which: Which | None = None,
) -> Answer:
    """Find the light curves most alike by a measure of :mod:`skyvec.index.measures`.

    Curves are compared in one band, each averaged in 128 equal parts of its own span and put to
    mean 0 and deviation 1: how they vary is compared, not how fast or how much. Curves of fewer
    than five points in the band are not.

    Args:
        survey: A survey of light curves.
        model: Whose codes propose the candidates.
        ids: Segments or targets of the survey.
        measure: ``correlation``, ``autocorrelation``, ``complexity`` or ``shape``.
        full: Search all curves by the measure; else only put the nearest by code, twenty times
            as many as asked for and at least 200, into its order.
        foreign: Queries from elsewhere, with their curves.
        band: Which band is compared; none = the one with most points.
        k: How many neighbours of each.
        include_same_target: Let other segments of a query's target answer too.
        which: What may answer; None: everything.

    Returns:
        Columns query, rank, id, target, distance (by the measure, ascending), similarity (cosine
        of the codes), latent_rank (place among the neighbours by code, 1 = nearest), ra, dec.

    Raises:
        StoreError: The survey does not hold light curves.
        ValueError: An unknown measure or band, k < 1, or a query that cannot be compared.
        KeyError: An id is not there.
    """
    check_light(survey, f"the measure {measure!r}")
    if measure not in measures.MEASURES:
        known = ", ".join(measures.MEASURES)
        raise ValueError(f"unknown measure {measure!r}; choose from {known}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    which = which or Which()
    way = _Way(
        survey, model, measure, choose_band(survey, band), k, not include_same_target, which
    )
    arguments: dict[str, Any] = {
        "ids": list(ids),
        "foreign": foreign.digest if foreign is not None else "",
        "measure": measure,
        "full": full,
        "band": way.band,
        "k": k,
        "include_same_target": include_same_target,
        "which": which.arguments(),
        "index": indexed.digest(survey, model),
    }

    def make() -> tuple[pa.Table, dict[str, Any]]:
        make_ = _search_all if full else _reorder
        table, facts = make_(way, ids, foreign)
        return table, {"measure": measure, "band": way.band, "k": k, "full": full, **facts}

    return remember(survey, "search", model, arguments, make)


# --- the whole survey -------------------------------------------------------------------------


def _search_all(
    way: _Way, ids: Sequence[str], foreign: Queries | None
) -> tuple[pa.Table, dict[str, Any]]:
    latents = checked_latents(way.survey, way.model)
    collection = InMemory(way.survey, latents)
    mask = way.which.mask(collection)
    if indexed.is_there(way.survey, way.model):
        kept = ~indexed.open_index(way.survey, way.model).deleted
        mask = kept if mask is None else kept & mask
    series = survey_series(way.survey, way.model, way.band)
    if not np.array_equal(series.id, latents.id):
        raise store.StoreError(
            f"the latents of {way.model!r} are not of the objects of {way.survey}; "
            f"run `skyvec encode {way.model} --survey {way.survey}` again"
        )
    allowed = series.usable if mask is None else series.usable & mask
    places = np.flatnonzero(allowed)
    queries = _queries(way, collection, ids, foreign, series)
    banned = [_banned(latents, query, way) for query in queries]
    reach = way.k + max(int(out[allowed].sum()) for out in banned)
    found = measures.search(
        np.stack([query.series for query in queries]), series.values[allowed], reach, way.measure
    )
    codes = unit(latents.vectors)
    parts = []
    for query, out, distance, rows in zip(queries, banned, found.distance, found.rows):
        own = places[rows]
        keep = np.flatnonzero(~out[own])[: way.k]
        similarity = codes @ unit(query.code[None])[0]
        others = np.sort(-similarity[~out & (True if mask is None else mask)])
        parts.append(
            _table(
                query.name,
                latents.take(own[keep]),
                distance[keep],
                similarity[own[keep]],
                np.searchsorted(others, -similarity[own[keep]]) + 1,
            )
        )
    facts = {"searched": len(places), "too_few_points": int((~series.usable).sum())}
    return pa.concat_tables(parts), facts


def _banned(latents: Latents, query: _Query, way: _Way) -> NDArray[np.bool_]:
    """Rows that may not answer a query."""
    out = np.zeros(len(latents), bool)
    if way.exclude:
        out |= latents.target == query.target
    if query.row >= 0:
        out[query.row] = True
        if way.which.apart > 0:
            here = (np.full(len(latents), c[query.row]) for c in (latents.ra, latents.dec))
            out |= separation(latents.ra, latents.dec, *here) <= way.which.apart
    return out


# --- the candidates ---------------------------------------------------------------------------


def _reorder(
    way: _Way, ids: Sequence[str], foreign: Queries | None
) -> tuple[pa.Table, dict[str, Any]]:
    collection = open_collection(way.survey, way.model)
    among = way.which.mask(collection)
    reach = max(REACH * way.k, LEAST_REACH)
    parts, too_few = [], 0
    for query in _queries(way, collection, ids, foreign, None):
        found = collection.search(
            [query.name] if query.row >= 0 else query.code[None],
            reach,
            combine="each",
            exclude_same_target=way.exclude,
            exclude_targets=[query.target] if way.exclude and query.row < 0 else (),
            among=among,
            apart=way.which.apart,
        )
        series = find_series(way.survey, found.id.tolist(), way.band)
        candidates = np.flatnonzero(series.usable)
        too_few += len(found) - len(candidates)
        ordered = measures.rerank(query.series, series.values, candidates, way.measure)
        rows = ordered.rows[0, : way.k]
        parts.append(
            pa.table(
                {
                    "query": np.full(len(rows), query.name),
                    "rank": np.arange(1, len(rows) + 1),
                    "id": found.id[rows],
                    "target": found.target[rows],
                    "distance": ordered.distance[0, : way.k],
                    "similarity": found.similarity[rows],
                    "latent_rank": found.rank[rows],
                    "ra": found.ra[rows],
                    "dec": found.dec[rows],
                }
            )
        )
    facts = {"reordered": reach, "too_few_points": too_few}
    return pa.concat_tables(parts), facts


# --- both -------------------------------------------------------------------------------------


def _queries(
    way: _Way,
    collection: Any,
    ids: Sequence[str],
    foreign: Queries | None,
    series: Series | None,
) -> list[_Query]:
    """All queries with their codes and series; ``series`` are those of all rows, if at hand."""
    rows = np.concatenate([np.zeros(0, np.int64), *(collection.rows_named(i) for i in ids)])
    rows = rows[np.sort(np.unique(rows, return_index=True)[1])]
    names = collection.strings("id", rows)
    found = (
        find_series(way.survey, names.tolist(), way.band)
        if series is None
        else Series(*(column[rows] for column in series))
    )
    _check_usable(found.id, found.usable, way.band)
    targets, codes = collection.strings("target", rows), collection.vectors(rows)
    queries = [
        _Query(str(names[i]), str(targets[i]), codes[i], found.values[i], int(rows[i]))
        for i in range(len(rows))
    ]
    if foreign is not None and len(foreign.name):
        if foreign.curves is None:
            raise ValueError("these queries come without their light curves; read them again")
        theirs = series_of(foreign.curves, way.band)
        _check_usable(foreign.name, theirs.usable, way.band)
        queries += [
            _Query(str(name), str(target), code, values, -1)
            for name, target, code, values in zip(
                foreign.name, foreign.target, foreign.vectors, theirs.values
            )
        ]
    if not queries:
        raise ValueError("no query; give ids of segments or targets, or a file")
    return queries


def _check_usable(names: Strings, usable: NDArray[np.bool_], band: str) -> None:
    if not usable.all():
        raise ValueError(
            f"{names[~usable][0]} has fewer than five points in band {band}, or no scatter there; "
            "it cannot be compared by its curve"
        )


def _table(
    query: str,
    found: Latents,
    distance: NDArray[np.float64],
    similarity: NDArray[np.floating],
    latent_rank: NDArray[np.int64],
) -> pa.Table:
    return pa.table(
        {
            "query": np.full(len(found), query),
            "rank": np.arange(1, len(found) + 1),
            "id": found.id,
            "target": found.target,
            "distance": distance,
            "similarity": np.asarray(similarity, np.float64),
            "latent_rank": latent_rank,
            "ra": found.ra,
            "dec": found.dec,
        }
    )
