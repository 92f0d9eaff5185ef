"""The segments most alike to one or several others: the search of a survey.

The metric everywhere is the cosine of the vectors, which orders as the Euclidean distance of unit
vectors does.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyvec.index.exact import ExactIndex, distance, unit
from skyvec.schema import Floats, Ints, Latents, Strings
from skyvec.sky import separation

COMBINE = ("each", "mean", "best")
NAMED = 3
"""So many queries are named in a combined answer, and the rest counted."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Answers of a search, those of each query in turn, nearest first; shape (m,) each.

    Args:
        query: Id of the query, ``vector i`` where it had none, or what was combined.
        rank: 1 = nearest.
        id: Segment found.
        target: Its object.
        similarity: Cosine, -1 to 1; 1 = same direction.
        distance: Euclidean of the unit vectors, sqrt(2 - 2 similarity), 0 to 2.
        ra: ICRS [deg], NaN where unknown.
        dec: ICRS [deg], NaN where unknown.
        rows: Row among the latents.
    """

    query: Strings
    rank: Ints
    id: Strings
    target: Strings
    similarity: Floats
    distance: Floats
    ra: Floats
    dec: Floats
    rows: Ints

    def __len__(self) -> int:
        return len(self.id)


def search(
    latents: Latents,
    queries: Sequence[str] | Floats,
    k: int = 5,
    *,
    combine: str = "each",
    exclude_same_target: bool = True,
    exclude_targets: Sequence[str] = (),
    among: NDArray[np.bool_] | None = None,
    apart: float = 0.0,
    index: ExactIndex | None = None,
) -> Neighbours:
    """Find the k segments most alike to each query, or to all queries together.

    Args:
        latents: What is searched, n segments.
        queries: Ids of segments; or ids of targets, each of which stands for all its segments; or
            vectors from the same model, shape (q, d) or (d,).
        k: How many for each; fewer are given only where fewer there are.
        combine: ``each`` = an answer for every query; ``mean`` = one answer, for the mean of the
            queries' unit vectors; ``best`` = one answer, ranked by the similarity to whichever
            query is nearest.
        exclude_same_target: Leave out other segments of the queries' targets. The queried
            segments themselves never answer.
        exclude_targets: Further targets to leave out, such as that of a queried vector.
        among: Search only where this is true, shape (n,).
        apart: Leave out what stands within so many degrees of a query's own place.
        index: The index of all latents, where it is at hand; else it is made.

    Raises:
        KeyError: An id is not there; the message names some alike.
        ValueError: Another ``combine``, a vector of another length or not finite, k < 1.
    """
    if combine not in COMBINE:
        raise ValueError(f"unknown combine {combine!r}; choose from {', '.join(COMBINE)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    names, vectors, own = _read_queries(latents, queries)
    allowed = np.ones(len(latents), bool) if among is None else np.asarray(among, bool).copy()
    if allowed.shape != (len(latents),):
        raise ValueError(f"among must have shape ({len(latents)},), not {allowed.shape}")
    if len(exclude_targets):
        allowed &= ~np.isin(latents.target, np.asarray(list(exclude_targets), np.str_))
    if index is None or not allowed.all():
        index, places = ExactIndex(latents.vectors[allowed]), np.flatnonzero(allowed)
    else:
        places = np.arange(len(latents))
    banned = [_banned(latents, rows, exclude_same_target, apart) for rows in own]
    if combine != "each":
        banned = [np.unique(np.concatenate(banned))] * len(banned)
    if combine == "mean":
        vectors, banned = unit(vectors).mean(axis=0, keepdims=True), banned[:1]
    found = _search(index, places, vectors, banned, k)
    if combine != "each":
        found = [best_of_all(found, k)]
        names = [called_together(names)]
    return _answer(latents, names, found)


def find_rows(latents: Latents, name: str) -> NDArray[np.int64]:
    """Give the row of a segment, or the rows of all segments of a target.

    Raises:
        KeyError: Neither is there; the message names some ids that look alike.
    """
    for column in (latents.id, latents.target):
        rows = np.flatnonzero(column == name)
        if len(rows):
            return rows
    alike = _alike(np.unique(np.concatenate([latents.id, latents.target])), name)
    hint = f"; do you mean {' or '.join(map(repr, alike))}?" if alike else ""
    raise KeyError(f"no segment or target {name!r} among {len(latents):,} latents{hint}")


def _alike(known: Strings, name: str, *, most: int = 3, window: int = 200) -> list[str]:
    """Some known names like another: out of those around it in order and those that hold it."""
    place = int(np.searchsorted(known, name))
    around = known[max(0, place - window) : place + window]
    inside = known[np.strings.find(np.strings.lower(known), name.lower()) >= 0]
    if len(inside):
        around = inside[:window]
    shown = {text.lower(): text for text in reversed(around.tolist())}
    close = difflib.get_close_matches(name.lower(), shown, n=most, cutoff=0.3)
    return [shown[text] for text in close]


def _read_queries(
    latents: Latents, queries: Sequence[str] | Floats
) -> tuple[list[str], Floats, list[Ints]]:
    """Name and vector of each query, and its row among the latents if it has one."""
    if isinstance(queries, str):
        queries = [queries]
    if not isinstance(queries, np.ndarray) or queries.dtype.kind == "U":
        if len(queries) == 0:
            raise ValueError("no query; give ids of segments or targets, or vectors")
        rows = np.concatenate([find_rows(latents, str(name)) for name in queries])
        rows = rows[np.sort(np.unique(rows, return_index=True)[1])]
        return (
            latents.id[rows].tolist(),
            latents.vectors[rows],
            [rows[i : i + 1] for i in range(len(rows))],
        )
    vectors = np.atleast_2d(queries)
    if not len(vectors):
        raise ValueError("no query; give ids of segments or targets, or vectors")
    nowhere = np.zeros(0, np.int64)
    return [f"vector {i}" for i in range(len(vectors))], vectors, [nowhere] * len(vectors)


def _banned(latents: Latents, rows: Ints, same_target: bool, apart: float) -> Ints:
    """Rows that may not answer a query that is itself these rows: one, or none."""
    if not len(rows):
        return rows
    out = np.zeros(len(latents), bool)
    out[rows] = True
    if same_target:
        out |= latents.target == latents.target[rows[0]]
    if apart > 0:
        centre = (np.full(len(latents), place[rows[0]]) for place in (latents.ra, latents.dec))
        out |= separation(latents.ra, latents.dec, *centre) <= apart
    return np.flatnonzero(out)


def _search(
    index: ExactIndex, places: Ints, vectors: Floats, banned: list[Ints], k: int
) -> list[tuple[Floats, Ints]]:
    """Similarity and row of the k best of each query that are not banned."""
    # every banned row may come first, so with so many more none of the k is missing
    similarity, found = index.search(vectors, k + max(len(rows) for rows in banned))
    rows = places[found]
    result = []
    for score, row, out in zip(similarity, rows, banned):
        keep = np.flatnonzero(~np.isin(row, out))[:k]
        result.append((score[keep], row[keep]))
    return result


def best_of_all(found: list[tuple[Floats, Ints]], k: int) -> tuple[Floats, Ints]:
    """The k best of several answers, each row once and with its highest similarity."""
    score, row = (np.concatenate(parts) for parts in zip(*found))
    order = np.lexsort((row, -score))
    once = order[np.sort(np.unique(row[order], return_index=True)[1])][:k]
    return score[once], row[once]


def called_together(names: Sequence[str]) -> str:
    """Name of an answer to several queries."""
    more = f" + {len(names) - NAMED} more" if len(names) > NAMED else ""
    return " + ".join(names[:NAMED]) + more


def _answer(latents: Latents, names: list[str], found: list[tuple[Floats, Ints]]) -> Neighbours:
    counts = [len(row) for _, row in found]
    rows = np.concatenate([row for _, row in found])
    similarity = np.concatenate([score for score, _ in found])
    return Neighbours(
        np.repeat(np.array(names, np.str_), counts),
        np.concatenate([np.arange(1, count + 1) for count in counts]),
        latents.id[rows],
        latents.target[rows],
        similarity,
        distance(similarity),
        latents.ra[rows],
        latents.dec[rows],
        rows,
    )
