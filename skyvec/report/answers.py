"""Questions to the latents of a survey, each answered by a table that is kept in the survey."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyvec import store
from skyvec.analysis import clusters as groups
from skyvec.analysis import maps, probes
from skyvec.analysis import outliers as oddities
from skyvec.index.oddest import Proof
from skyvec.report.remember import Answer, remember
from skyvec.report.stored import argument, graph_for, is_large, told, usable_rows
from skyvec.schema import Ints, Latents, LightCurves, Strings

LABELS = ("label", "class", "type")
"""Columns that are taken for classes where none is named."""

ODD_NEIGHBOUR = 5
"""The similarity to this neighbour ranks oddities: a pair of alike odd things is still found."""

MIN_CLUSTER = 10
"""Fewest segments that make a cluster."""

MAP_NEIGHBOURS = 10
"""Fewest neighbours of a graph that a map is drawn from."""


@dataclass(frozen=True)
class Queries:
    """What to search with, where it is not in the survey.

    Args:
        name: Of each query, shape (q,).
        target: Object of each, shape (q,); other segments of it are not wanted as answers.
        vectors: From the model that is searched, float32, shape (q, d).
        digest: Hash of where they came from.
        curves: The light curves they were made from, where they are light curves.
    """

    name: Strings
    target: Strings
    vectors: NDArray[np.float32]
    digest: str
    curves: LightCurves | None = None


# --- oddities ---------------------------------------------------------------------------------


def outliers(survey: Path, model: str, *, k: int = ODD_NEIGHBOUR, n: int | None = None) -> Answer:
    """Rank objects by their similarity to the k-th nearest other object, lowest first.

    Segments without a point in the model's bands have the zero vector, which has no direction;
    they are left out and counted.

    Args:
        survey: The survey's folder.
        model: Whose latents are asked.
        k: Which neighbour.
        n: How many are wanted at least; None = all. Of a large survey only these are found,
            exactly and with a proof (in the facts), in seconds.

    Returns:
        One row an object, by its oddest segment: columns rank, id, target, similarity, density,
        density_ratio, segments, error, ra, dec.
    """
    first = _first_of(survey, model, n)
    near = None if first else graph_for(survey, model, k)

    def make() -> tuple[pa.Table, dict[str, Any]]:
        latents = checked_latents(survey, model)
        usable, graph = usable_rows(survey, latents, near)
        asked = latents.take(usable)
        if n is not None and first:
            found, proof = oddities.first_outliers(asked, n, k)
            why = _told_proof(proof)
        else:
            found, why = oddities.outliers(asked, None, k, graph=graph), {}
        table = pa.table(
            {
                "rank": np.arange(1, len(found) + 1),
                "id": found.id,
                "target": found.target,
                "similarity": found.similarity,
                "density": found.density,
                "density_ratio": found.density_ratio,
                "segments": found.segments,
                "error": asked.error[found.rows],
                "ra": found.ra,
                "dec": found.dec,
            }
        )
        return table, {"k": k, "without_points": int((~usable).sum()), **told(near), **why}

    verb = "first-outliers" if first else "outliers"
    return remember(survey, verb, model, {"k": k, **argument(near), **first}, make)


def _first_of(survey: Path, model: str, n: int | None) -> dict[str, int]:
    """The argument of an answer that ends after the first n; nothing where all are ranked."""
    return {} if n is None or not is_large(survey, model) else {"n": n}


def odd_by_distance(survey: Path) -> bool:
    """Say whether the objects of a survey are odd by distance where nothing else is said.

    Images are: a trail or a saturated star makes a code longer and turns it towards those of other
    bright images, where cosines find company. All else is odd by cosine, by which a graph ranks
    all of millions; try the distance too, as it finds other oddities, in made-up skies more of
    those that were planted.
    """
    return store.survey_kind(survey) == "images"


def oddest(survey: Path, model: str, *, k: int = ODD_NEIGHBOUR) -> Answer:
    """Rank by :func:`far_outliers` or :func:`outliers`, as :func:`odd_by_distance` says."""
    rank = far_outliers if odd_by_distance(survey) else outliers
    return rank(survey, model, k=k)


def _told_proof(proof: Proof) -> dict[str, Any]:
    """What is told of an answer that ends after the first."""
    bound = None if np.isnan(proof.next_bound) else proof.next_bound
    return {"searched_whole": proof.n_verified, "next_bound": bound}


def far_outliers(
    survey: Path, model: str, *, k: int = ODD_NEIGHBOUR, n: int | None = None
) -> Answer:
    """Rank objects by Euclidean distance to their k-th nearest other target, farthest first.

    Args:
        survey: The survey's folder.
        model: Whose latents are asked.
        k: Which neighbour.
        n: As of :func:`outliers`.

    Returns:
        One row an object, by its farthest segment: columns rank, id, target, distance, segments,
        error, ra, dec.
    """
    first = _first_of(survey, model, n)

    def make() -> tuple[pa.Table, dict[str, Any]]:
        latents = checked_latents(survey, model)
        why: dict[str, Any] = {}
        if n is not None and first:
            rows, far, proof = oddities.first_far(latents, n, k)
            why = _told_proof(proof)
        else:
            every = oddities.far_from_others(latents, k)
            rows = np.argsort(-every, kind="stable")
            rows = rows[np.sort(np.unique(latents.target[rows], return_index=True)[1])]
            far = every[rows]
        _, target, segments = np.unique(latents.target, return_inverse=True, return_counts=True)
        table = pa.table(
            {
                "rank": np.arange(1, len(rows) + 1),
                "id": latents.id[rows],
                "target": latents.target[rows],
                "distance": far,
                "segments": segments[target[rows]],
                "error": latents.error[rows],
                "ra": latents.ra[rows],
                "dec": latents.dec[rows],
            }
        )
        return table, {"k": k, **why}

    verb = "first-far-outliers" if first else "far-outliers"
    return remember(survey, verb, model, {"k": k, **first}, make)


def class_outliers(survey: Path, model: str, *, label: str) -> Answer:
    """Rank all segments by their distance to the centre of their class, farthest first.

    Args:
        survey: The survey's folder.
        model: Whose latents are asked.
        label: Column of the classes.

    Returns:
        Columns rank, id, target, class, relative_distance (that of the usual member is 1), error,
        ra, dec. Segments without a class stand last, without a distance.

    Raises:
        ValueError: There is no such column.
    """
    column = label_column(survey, label)

    def make() -> tuple[pa.Table, dict[str, Any]]:
        latents = checked_latents(survey, model)
        names = labels_of(survey, column, latents.id)
        far = oddities.class_distances(latents.vectors, names)
        order = np.argsort(np.where(np.isnan(far), -np.inf, far) * -1, kind="stable")
        table = pa.table(
            {
                "rank": np.arange(1, len(order) + 1),
                "id": latents.id[order],
                "target": latents.target[order],
                "class": names[order],
                "relative_distance": far[order],
                "error": latents.error[order],
                "ra": latents.ra[order],
                "dec": latents.dec[order],
            }
        )
        return table, {"label": column, "without_class": int((names == "").sum())}

    return remember(survey, "class-outliers", model, {"label": column}, make)


def kept(table: pa.Table, survey: Path, model: str, n: int) -> tuple[pa.Table, pa.Table]:
    """Divide the segments of a survey into those to keep and the first n objects of a ranking.

    Args:
        table: Rows of :func:`outliers` or :func:`class_outliers`.
        survey: The survey's folder.
        model: Whose latents were asked.
        n: How many rows of the ranking to drop; with each go all segments of its target.

    Returns:
        What is kept and what is not, in the order of the latents: columns id, target.
    """
    latents = checked_latents(survey, model)
    dropped = np.isin(latents.target, table["target"].to_pylist()[:n])
    sides = (
        pa.table({"id": latents.id[rows], "target": latents.target[rows]})
        for rows in (~dropped, dropped)
    )
    keep, rest = sides
    return keep, rest


# --- groups -----------------------------------------------------------------------------------


def clusters(
    survey: Path, model: str, *, min_size: int = MIN_CLUSTER, selection: str = "eom"
) -> Answer:
    """Group all segments (HDBSCAN); what fits nowhere is -1.

    Args:
        survey: The survey's folder.
        model: Whose latents are grouped.
        min_size: Fewest segments of a cluster.
        selection: ``eom`` for the clusters that last longest, ``leaf`` for the finest.

    Returns:
        One row a segment, in the order of the latents: columns id, target, cluster (0 the
        largest), probability, rarity [dex], ra, dec. Segments without points are in no cluster.
    """
    near = graph_for(survey, model, neighbours_to_cluster(min_size))

    def make() -> tuple[pa.Table, dict[str, Any]]:
        latents = checked_latents(survey, model)
        is_usable, graph = usable_rows(survey, latents, near)
        usable = np.flatnonzero(is_usable)
        found = groups.cluster(
            latents.take(usable), min_cluster_size=min_size, selection=selection, graph=graph
        )
        cluster = np.full(len(latents), groups.NOISE, np.int64)
        probability, rarity = np.zeros(len(latents)), np.full(len(latents), np.nan)
        cluster[usable], probability[usable] = found.label, found.probability
        rarity[usable] = found.rarity
        table = pa.table(
            {
                "id": latents.id,
                "target": latents.target,
                "cluster": cluster,
                "probability": probability,
                "rarity": rarity,
                "ra": latents.ra,
                "dec": latents.dec,
            }
        )
        n_noise = int((cluster == groups.NOISE).sum())
        return table, {
            "clusters": len(found.size),
            "clustered": len(latents) - n_noise,
            "noise": n_noise,
            "min_size": min_size,
            "selection": selection,
            **told(near),
        }

    arguments = {"min_size": min_size, "selection": selection, **argument(near)}
    return remember(survey, "cluster", model, arguments, make)


def neighbours_to_cluster(min_size: int) -> int:
    """How many neighbours of each segment `clusters` needs to know."""
    return min(min_size, groups.MOST_SAMPLES)


def cluster_sizes(table: pa.Table, labels: Strings | None = None) -> pa.Table:
    """Count each cluster, the largest first and the segments in none (-1) last.

    Args:
        table: The rows of :func:`clusters`.
        labels: Class of each segment, an empty string where unknown, shape (n,).

    Returns:
        Columns cluster, segments, objects, share, rarity [dex], example (the segment deepest in
        the cluster), and with labels the commonest class and its share of the labelled members.
    """
    cluster = table["cluster"].to_numpy()
    target, ids = (np.array(table[name].to_pylist(), np.str_) for name in ("target", "id"))
    probability = table["probability"].to_numpy()
    names = np.unique(cluster)
    order = np.r_[names[names >= 0], names[names < 0]]
    columns: dict[str, list[Any]] = {
        name: [] for name in ("cluster", "segments", "objects", "share", "rarity", "example")
    }
    if labels is not None:
        columns |= {"commonest class": [], "of labelled": []}
    for name in order:
        own = np.flatnonzero(cluster == name)
        share = len(own) / len(cluster)
        columns["cluster"].append(int(name))
        columns["segments"].append(len(own))
        columns["objects"].append(len(np.unique(target[own])))
        columns["share"].append(share)
        columns["rarity"].append(float(-np.log10(share)) if name >= 0 else float("nan"))
        columns["example"].append(str(ids[own[np.argmax(probability[own])]]))
        if labels is not None:
            kinds, counts = np.unique(labels[own][labels[own] != ""], return_counts=True)
            most = int(np.argmax(counts)) if len(counts) else 0
            columns["commonest class"].append(str(kinds[most]) if len(counts) else "")
            columns["of labelled"].append(counts[most] / counts.sum() if len(counts) else np.nan)
    return pa.table(columns)


def purity(cluster: Ints, labels: Strings) -> float:
    """Share of the labelled segments in clusters whose class is the commonest of their cluster."""
    known = (cluster >= 0) & (labels != "")
    if not known.any():
        return float("nan")
    kinds = np.unique(labels[known], return_inverse=True)[1]
    counts = np.zeros((int(cluster.max()) + 1, int(kinds.max()) + 1))
    np.add.at(counts, (cluster[known], kinds), 1)
    return float(counts.max(axis=1).sum() / known.sum())


# --- the map ----------------------------------------------------------------------------------


def tsne(survey: Path, model: str, *, seed: int = 0) -> Answer:
    """Lay all segments out on a plane, alike beside alike (t-SNE).

    Returns:
        One row a segment, in the order of the latents: columns id, target, x, y, ra, dec.
    """
    near = graph_for(survey, model, MAP_NEIGHBOURS)

    def make() -> tuple[pa.Table, dict[str, Any]]:
        latents = checked_latents(survey, model)
        rng = np.random.default_rng(seed)
        usable, graph = usable_rows(survey, latents, near)
        if graph is None:
            xy = maps.tsne_map(latents, rng=rng)
        else:  # what has no neighbours has no place
            xy = np.full((len(latents), 2), np.nan)
            xy[usable] = maps.tsne_map(
                latents.take(usable), rng=rng, graph=graph, jobs=os.cpu_count() or 1
            )
        table = pa.table(
            {
                "id": latents.id,
                "target": latents.target,
                "x": xy[:, 0],
                "y": xy[:, 1],
                "ra": latents.ra,
                "dec": latents.dec,
            }
        )
        return table, {"seed": seed, **told(near)}

    return remember(survey, "map", model, {"seed": seed, **argument(near)}, make)


# --- classes ----------------------------------------------------------------------------------


def label_column(survey: Path, label: str | None) -> str:
    """Choose the column of classes.

    Args:
        survey: The survey's folder.
        label: A name; None = the first of ``label``, ``class`` and ``type`` with two classes at
            least, an empty string = none.

    Returns:
        The name, or an empty string where there are no classes.

    Raises:
        ValueError: The column named is not there.
    """
    known = store.column_kinds(survey)
    if label:
        if label not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ValueError(f"no column {label!r} in the survey; there are {there}")
        return label
    if label is None:
        for name in (name for name in LABELS if name in known):
            if len(np.unique(_texts(store.read_catalog(survey, [name]).columns[name]))) > 1:
                return name
    return ""


def labels_of(survey: Path, column: str, ids: Strings) -> Strings:
    """Class of each segment, an empty string where it has none, in the order of ``ids``."""
    catalog = store.read_catalog(survey, [column])
    return _texts(catalog.columns[column])[catalog.rows(ids)]


def _texts(column: np.ndarray) -> Strings:
    text = column.astype(np.str_)
    return np.where(np.isin(text, probes.UNLABELLED), "", text)


def probe(
    survey: Path,
    model: str,
    *,
    label: str | None = None,
    keep: Sequence[str] | None = None,
    seed: int = 0,
) -> Answer:
    """Measure what classifiers on the frozen vectors reach on objects they have not seen.

    Args:
        survey: The survey's folder.
        model: Whose latents are asked.
        label: Column of the classes; see :func:`label_column`.
        keep: Only these segments take part; None = all.
        seed: Of the folds, the forest and the bootstrap.

    Returns:
        One row: columns model, numbers, segments, objects, classes, and for knn, linear and
        forest the macro-F1 with its 95 % interval (``knn_f1``, ``knn_low``, ``knn_high``, ...)
        and the balanced accuracy (``knn_balanced``), and ``majority_f1``, that of always naming
        the commonest class.

    Raises:
        ValueError: The survey has no classes, or too few of each.
    """
    column = label_column(survey, label)
    if not column:
        raise ValueError(
            f"{survey} has no column of classes ({', '.join(LABELS)}); name one with --label"
        )

    def make() -> tuple[pa.Table, dict[str, Any]]:
        latents = checked_latents(survey, model)
        if keep is not None:
            latents = latents.take(np.isin(latents.id, list(keep)))
        labels = labels_of(survey, column, latents.id)
        rng = np.random.default_rng(seed)
        rows = probes.probe(latents.vectors, labels, latents.target, rng=rng)
        return _probe_table(model, latents.vectors.shape[1], rows), {
            "label": column,
            "classes": list(rows[0].classes),
            "left_out": rows[0].left_out,
        }

    # the scores are named, so that answers kept from before one was added are made again
    arguments: dict[str, Any] = {"label": column, "seed": seed, "scores": ["f1", "balanced"]}
    if keep is not None:
        arguments["keep"] = hashlib.sha256("\n".join(sorted(keep)).encode()).hexdigest()
    return remember(survey, "probe", model, arguments, make)


def _probe_table(model: str, width: int, rows: Sequence[probes.ProbeRow]) -> pa.Table:
    first = rows[0]
    columns: dict[str, list[Any]] = {
        "model": [model],
        "numbers": [width],
        "segments": [first.segments],
        "objects": [first.targets],
        "classes": [len(first.classes)],
    }
    for row in rows:
        columns[f"{row.probe}_f1"] = [row.macro_f1]
        if row.probe != "majority":
            columns[f"{row.probe}_low"] = [row.macro_f1_low]
            columns[f"{row.probe}_high"] = [row.macro_f1_high]
            columns[f"{row.probe}_balanced"] = [row.balanced_accuracy]
    columns["majority_f1"] = columns.pop("majority_f1")
    return pa.table(columns)


def checked_latents(survey: Path, model: str) -> Latents:
    """Read the latents of a model, of which there must be some."""
    latents = store.read_latents(survey, model)
    if not len(latents):
        raise store.StoreError(f"{survey} has no objects; ingest some, then encode again")
    return latents
