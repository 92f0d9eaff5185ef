"""The neighbour graph of an indexed survey: found block by block, resumable, kept beside it.

    index/MODEL/graph/plan.json              what is to be done; the blocks belong to it
    index/MODEL/graph/block-00000.parquet    row, rows, similarity: some rows of the graph
    index/MODEL/graph/graph.json             the blocks of a finished graph, with their hashes

A block is a run of places in a segment, so its vectors lie in the same cells and are searched
together. The same function finds a block here and in a worker of a Dask cluster.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skyvec import store
from skyvec.cluster import as_finished
from skyvec.index.graph import Graph
from skyvec.index.probing import SAMPLE, Answers, smallest_share
from skyvec.indexing.disk import Tell
from skyvec.indexing.survey import SurveyIndex, digest, is_there, open_index

GRAPH, PLAN, FINISHED = "graph", "plan.json", "graph.json"
K, RECALL = 15, 0.99
BLOCK = 32_768
"""Places of a block: a killed run loses the few seconds of one."""

CHUNK = 262_144
"""Vectors looked at together when those without a direction are found."""


def build_graph(
    survey: Path,
    model: str,
    *,
    k: int = K,
    recall: float = RECALL,
    scheduler: str | None = None,
    threads: int | None = None,
    tell: Tell | None = None,
) -> int:
    """Find the k nearest other targets of every indexed vector; what is found already stays.

    Each other target counts once, by its nearest vector; vectors of the same target, deleted ones
    and those without a direction (all zeros) do not count. With a scheduler the blocks are handed
    to the workers of a Dask cluster, which must see the survey's folder; the files are the same.

    Args:
        survey: The survey's folder.
        model: Whose vectors.
        k: How many, > 0.
        recall: Wanted share of the true neighbours, in (0, 1]; 1 searches exactly.
        scheduler: Address of a Dask scheduler, ``tcp://host:8786``; ``local`` starts a cluster of
            one worker a core; None: this process. Dask comes with the extra ``survey``.
        threads: Threads of this process; None: one a core. Workers use one each.
        tell: Called with the vectors done, all vectors and a word on it.

    Returns:
        How many blocks were found now.

    Raises:
        ValueError: k below 1 or a recall outside (0, 1].
        StoreError: There is no index, it does not hold all vectors, or another process does this.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    opened = open_index(survey, model, threads=threads)
    if not is_there(survey, model):
        raise store.StoreError(
            f"the index of {model!r} does not hold all vectors; run `skyvec index build` first"
        )
    folder = _folder(survey, model)
    if len(opened) > np.iinfo(np.int32).max:
        raise ValueError(f"a graph holds at most 2^31 - 1 vectors, not {len(opened):,}")
    with store.lock(folder, "index graph"):
        plan = _plan(folder, opened, k, recall)
        if (folder / FINISHED).exists():
            return 0
        store.clean(folder)
        waiting = [i for i in range(len(plan["blocks"])) if not (folder / _block_name(i)).exists()]
        done = len(opened) - sum(_size(opened, plan["blocks"][i]) for i in waiting)

        def note(i: int, table: pa.Table) -> None:
            nonlocal done
            store.write_table(folder / _block_name(i), table)
            done += _size(opened, plan["blocks"][i])
            if tell is not None:
                tell(done, len(opened), f"recall {plan['recall']:.4f}")

        if tell is not None:
            tell(done, len(opened), f"recall {plan['recall']:.4f}")
        if scheduler is None:
            usable = _usable(opened)
            for i in waiting:
                note(i, _block(opened, usable, plan, i))
        else:
            for i, table in _on_cluster(survey, model, plan, waiting, scheduler):
                note(i, table)
        names = [_block_name(i) for i in range(len(plan["blocks"]))]
        blocks = [{"file": name, "sha256": store.sha256(folder / name)} for name in names]
        store.write_json(folder / FINISHED, {**_asked(plan), "n": len(opened), "blocks": blocks})
    return len(waiting)


def graph_facts(survey: Path, model: str) -> dict[str, Any] | None:
    """What is known of the finished graph of all vectors as they are now; None: there is none.

    Returns:
        ``k``, ``wanted`` and measured ``recall``, ``radii``, ``n``, ``index`` (a hash of what it
        was made from) and ``blocks``.
    """
    path = _folder(survey, model) / FINISHED
    if not path.exists():
        return None
    facts: dict[str, Any] = store.read_json(path)
    return facts if facts["index"] == digest(survey, model) else None


def read_graph(survey: Path, model: str) -> Graph:
    """Read the graph, rows in the order of the latents; a row without neighbours holds -1.

    Raises:
        StoreError: There is none, or it is older than the index.
    """
    facts = graph_facts(survey, model)
    if facts is None:
        raise store.StoreError(
            f"no graph of all vectors of {model!r} in {survey}; make it with "
            f"`skyvec index graph --survey {survey} --model {model}`"
        )
    rows = np.full((facts["n"], facts["k"]), -1, np.int32)
    similarity = np.full((facts["n"], facts["k"]), np.nan, np.float32)
    for block in facts["blocks"]:
        table = pq.read_table(_folder(survey, model) / block["file"])
        here = table["row"].to_numpy()
        rows[here] = store.vectors_of(table["rows"])
        similarity[here] = store.vectors_of(table["similarity"])
    return Graph(rows, similarity, "cosine", facts["recall"])


def _folder(survey: Path, model: str) -> Path:
    return store.index_folder(survey, model) / GRAPH


def _block_name(i: int) -> str:
    return f"block-{i:05d}.parquet"


# --- the plan ---------------------------------------------------------------------------------


def _plan(folder: Path, opened: SurveyIndex, k: int, recall: float) -> dict[str, Any]:
    """The plan of a run before if it was for the same, else a new one; what was found goes."""
    made_from = digest(opened.survey, opened.model)
    if (folder / PLAN).exists():
        plan: dict[str, Any] = store.read_json(folder / PLAN)
        if (plan["k"], plan["wanted"], plan["index"]) == (k, recall, made_from):
            return plan
        shutil.rmtree(folder)
    segments = opened.index.segments
    by_target = len(segments) > 1 or any(s.n_targets < s.n for s in segments)
    trust = smallest_share(_draw(opened, k, by_target), recall)
    plan = {
        "k": k,
        "wanted": recall,
        "index": made_from,
        "radii": trust.radii,
        "recall": trust.recall,
        "by_target": by_target,
        "blocks": [block for i in range(len(segments)) for block in _cut(opened, i)],
    }
    store.write_json(folder / PLAN, plan)
    return plan


def _asked(plan: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plan.items() if name != "blocks"}


def _cut(opened: SurveyIndex, segment: int) -> list[list[int]]:
    """Number of a segment, first place and end of each of its blocks, of about one size."""
    n = len(opened.index.segments[segment].store.rows)
    edges = np.linspace(0, n, 1 + -(-n // BLOCK)).astype(int).tolist()
    return [[segment, first, end] for first, end in pairwise(edges)]


def _size(opened: SurveyIndex, block: list[int]) -> int:
    segment, first, end = block
    return int(np.count_nonzero(opened.index.segments[segment].store.rows[first:end] >= 0))


def _usable(opened: SurveyIndex) -> NDArray[np.bool_]:
    """Rows with neighbours: neither deleted nor without a direction, (n,)."""
    usable = ~opened.deleted
    for segment, start in zip(opened.index.segments, opened.index.first):
        vectors, rows = segment.store.vectors, segment.store.rows
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK]
            is_zero = (part >= 0) & ~vectors[first : first + CHUNK].any(axis=1)
            usable[part[is_zero] + start] = False
    return usable


def _draw(opened: SurveyIndex, k: int, by_target: bool) -> Callable[[], Answers]:
    """What draws a sample of rows and gives what searches for their neighbours."""
    rng, usable = np.random.default_rng(0), _usable(opened)
    known = np.flatnonzero(usable)
    if not len(known):
        raise store.StoreError("all vectors are deleted or zero; there is no graph of them")

    def draw() -> Answers:
        rows = np.sort(rng.choice(known, min(SAMPLE, len(known)), replace=False))
        vectors, targets = opened.index.vectors(rows), opened.index.targets(rows)
        return lambda radii: (
            opened.index.search(
                vectors,
                k,
                excluded=targets,
                allowed=_mask(usable),
                radii=radii,
                by_target=by_target,
            ).rows
        )

    return draw


def _mask(usable: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    return None if usable.all() else usable


# --- one block --------------------------------------------------------------------------------


def _block(
    opened: SurveyIndex, usable: NDArray[np.bool_], plan: dict[str, Any], i: int
) -> pa.Table:
    """Find the neighbours of one block: columns row, rows, similarity, in the order of places."""
    segment, first, end = plan["blocks"][i]
    held = opened.index.segments[segment].store
    rows = held.rows[first:end] + opened.index.first[segment]
    places = first + np.flatnonzero(held.rows[first:end] >= 0)
    places = places[usable[rows[places - first]]]
    # a lone query would be shared between threads, and its answer depend on how many there are
    asked = np.repeat(places, 2) if len(places) == 1 else places
    found = opened.index.search(
        held.vectors[asked, : opened.index.d],
        plan["k"],
        excluded=held.target[asked],
        allowed=_mask(usable),
        radii=plan["radii"],
        by_target=plan["by_target"],
    )
    k, n = plan["k"], len(places)
    return pa.table(
        {
            "row": pa.array(rows[places - first].astype(np.int32)),
            "rows": _lists(found.rows[:n].astype(np.int32), k),
            "similarity": _lists(found.similarity[:n], k),
        }
    )


def _lists(values: np.ndarray, k: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), k)


def _on_cluster(
    survey: Path, model: str, plan: dict[str, Any], waiting: list[int], scheduler: str
) -> Iterator[tuple[int, pa.Table]]:
    """Blocks as a Dask cluster finishes them; only a few wait to be written."""
    folder = str(survey.resolve())
    calls = [(folder, model, plan, i) for i in waiting]
    for number, table in as_finished(_remote_block, calls, scheduler):
        yield waiting[number], table


def _remote_block(survey: str, model: str, plan: dict[str, Any], i: int) -> pa.Table:
    """Find a block in a worker: one thread, the index opened once a process."""
    opened, usable = _opened(survey, model, plan["index"])
    return _block(opened, usable, plan, i)


@lru_cache(maxsize=2)
def _opened(survey: str, model: str, made_from: str) -> tuple[SurveyIndex, NDArray[np.bool_]]:
    opened = open_index(Path(survey), model, threads=1)
    if digest(Path(survey), model) != made_from:
        raise store.StoreError(f"the index of {model!r} in {survey} changed meanwhile; run again")
    return opened, _usable(opened)
