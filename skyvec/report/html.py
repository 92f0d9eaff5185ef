"""One survey and one model as one self-contained HTML file, with its pictures beside it."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from skyvec import __version__, checkpoint, store
from skyvec.prep.codes import BASELINES
from skyvec.report import (
    agreeing,
    answers,
    auditing,
    baselines,
    charts,
    galleries,
    page,
    pictures,
    reasons,
    searching,
)
from skyvec.report.atlas import N_MARKED, draw_map, xy
from skyvec.report.facts import Words, survey_facts, words
from skyvec.report.page import Section
from skyvec.report.remember import Answer, TooFewObjects

N_ODDEST = 20
N_CLUSTERS = 12
N_MEMBERS = 5
N_NEIGHBOURS = 5


@dataclass(frozen=True)
class _Material:
    """All that the sections are made from."""

    survey: Path
    model: str
    folder: Path
    outliers: Answer
    clusters: Answer
    map: Answer
    rng: np.random.Generator

    def draw(self, name: str, figure: Figure, caption: str) -> str:
        """Save a picture beside the page and give it as HTML."""
        content = pictures.png(figure)
        path = self.folder / f"{name}.png"
        store.write_atomic(path, lambda temporary: temporary.write_bytes(content))
        return page.picture(content, caption)

    def words(self) -> Words:
        """How the objects of the survey are called."""
        return words(self.survey)

    def key(self) -> str:
        """Say how the pictures of objects are to be read."""
        return galleries.key(self.survey)


def report(
    survey: Path,
    model: str,
    *,
    label: str | None = None,
    with_baselines: bool = True,
    examples: int = 3,
    seed: int = 0,
    progress: Callable[[int, int, str], object] | None = None,
) -> Path:
    """Ask a survey every question and write the answers as one HTML file.

    Args:
        survey: The survey's folder.
        model: Name of the model whose latents are asked.
        label: Column of the catalogue that holds classes; none = the first of ``label``, ``class``
            and ``type`` that there is, an empty string = no classes.
        with_baselines: Put the hand-crafted codes beside the model, where there are classes.
        examples: How many example searches to draw.
        seed: Of the choice of examples and of the analysis.
        progress: Called with the parts done, all parts, and the one at work.

    Returns:
        The file ``report.html``; every picture lies beside it as PNG.

    Raises:
        StoreError: There are no latents of this model.
    """
    latents = store.read_latents(survey, model)
    column = answers.label_column(survey, label)
    folder = store.answers_folder(survey, "report", model)

    def at_work(i: int, what: str) -> None:
        if progress is not None:
            progress(i, 6, what)

    at_work(0, "outliers")
    outliers = answers.oddest(survey, model)
    at_work(1, "clusters")
    clusters = answers.clusters(survey, model)
    at_work(2, "map")
    tsne = answers.tsne(survey, model, seed=seed)
    material = _Material(
        survey, model, folder, outliers, clusters, tsne, np.random.default_rng(seed)
    )
    at_work(3, "probe")
    probe = _probe_section(material, column, with_baselines, seed) if column else None
    at_work(4, "pictures")
    labels = answers.labels_of(survey, column, latents.id) if column else None
    sections = [
        _survey_section(material),
        _model_section(material, latents.vectors.shape[1]),
        probe,
        _map_section(material, labels),
        _clusters_section(material, labels),
        _samples_section(material),
        _oddest_section(material, labels),
        _search_section(material, examples),
        _agree_section(material, seed),
        _audit_section(material, column, seed),
        _reconstruction_section(material),
        _sky_section(material),
        _recipe_section(material),
    ]
    at_work(5, "page")
    text = page.page(
        f"{survey_facts(survey)['name']} as seen by {model}",
        f"{len(latents):,} {material.words().many}, each turned into "
        f"{latents.vectors.shape[1]} numbers without labels; every answer below compares those "
        "numbers only.",
        [section for section in sections if section is not None],
        f"Made by skyvec {__version__} from the latents of {model} ({latents.model_hash[:12]}).",
    )
    path = folder / "report.html"
    store.write_text(path, text)
    at_work(6, "")
    return path


# --- sections ---------------------------------------------------------------------------------


def _survey_section(material: _Material) -> Section:
    facts = survey_facts(material.survey)
    names = ("objects", "segments", material.words().points, "rejects")
    body = page.counts(
        {name: facts[name] for name in names} | {"bands": ", ".join(facts["bands"])}
    )
    reasons = list(facts["reject_reasons"].items())[:12]
    if reasons:
        table = {"rejected because": [r for r, _ in reasons], "rows": [n for _, n in reasons]}
        body += page.table(pa.table(table))
    return Section(
        "survey",
        "Survey",
        f"Objects are different targets; a segment is one {material.words().one} (a sector, a "
        "campaign, one instrument's cutout). What could not be read was rejected with its reason.",
        body,
    )


def _model_section(material: _Material, width: int) -> Section:
    folder = store.model_folder(material.survey, material.model)
    scores = json.loads((folder / checkpoint.SCORES).read_text(encoding="utf-8"))
    if material.model in BASELINES:
        body = page.counts({"code": material.model, "numbers an object": width})
        return Section(
            "model", "Model", "A hand-crafted code: scaled on the train split, not learned.", body
        )
    losses = scores["losses"]
    body = page.counts(
        {
            "network": scores["model"],
            "numbers an object": width,
            "weights": scores["parameters"],
            "best of steps": f"{scores['best_step']:,} / {scores['steps']:,}",
            "training time [s]": round(float(scores["seconds"]), 1),
        }
    )
    parts = {part: losses.get(part, {}) for part in ("train", "valid", "test")}
    names = sorted({name for values in parts.values() for name in values})
    columns: dict[str, Any] = {"split": list(parts)}
    counted = next((name for name in ("curves", "images", "stamps") if name in scores), "")
    columns[counted or "objects"] = [scores.get(counted, {}).get(part, 0) for part in parts]
    for name in names:
        columns[name] = [values.get(name, float("nan")) for values in parts.values()]
    body += page.table(pa.table(columns))
    history = scores["history"]
    if history:
        step = np.array([entry["step"] for entry in history], float)
        curves = {
            "training": (step, np.array([entry["train"] for entry in history], float)),
            "validation": (step, np.array([entry["valid"] for entry in history], float)),
        }
        caption = "Loss while training; the weights of the best validation step are kept."
        body += material.draw("loss", charts.loss_picture(curves), caption)
    text = f"hash     {scores['hash']}\nmade by  skyvec {scores['skyvec']}"
    return Section(
        "model",
        "Model",
        "Splits are made by object: none of the test split was trained on, in any segment.",
        body + page.code(text),
    )


def _probe_section(material: _Material, column: str, with_baselines: bool, seed: int) -> Section:
    rows = baselines.compare(
        material.survey, material.model, label=column, baselines=with_baselines, seed=seed
    )
    facts = answers.probe(material.survey, material.model, label=column, seed=seed).facts
    few = ", ".join(f"{name} ({n})" for name, n in facts["left_out"].items())
    left_out = f" Left out, with too few objects: {few}." if few else ""
    return Section(
        "probe",
        "What the vectors know",
        f"Classes (column {column}) were used only here: classifiers are trained on the frozen "
        "vectors of some objects and tested on others. Macro-F1, 1 = perfect, with its 95 % "
        f"interval; hand-crafted codes stand beside the learned one.{left_out}",
        page.table(rows, own=material.model),
    )


def _map_section(material: _Material, labels: np.ndarray | None) -> Section:
    figure = draw_map(material.survey, material.model, material.map)
    caption = (
        f"Every {material.words().one} as one point (t-SNE of its vector), coloured by cluster, "
        f"with one of each of the largest; grey points belong to none. Rings: the {N_MARKED} most "
        "dissimilar objects."
    )
    body = material.draw("map", figure, caption)
    if labels is not None and (labels != "").any():
        caption = "The same map, coloured by the classes of the catalogue, which no step used."
        body += material.draw("map-classes", charts.label_map(xy(material.map), labels), caption)
    return Section(
        "map",
        "Map",
        "Near points are alike. Distances between islands mean little.",
        body,
    )


def _clusters_section(material: _Material, labels: np.ndarray | None) -> Section:
    table = answers.cluster_sizes(material.clusters.table, labels)
    facts = material.clusters.facts
    body = page.counts(
        {
            "clusters": facts["clusters"],
            "segments in clusters": facts["clustered"],
            "segments in none": facts["noise"],
        }
    )
    body += page.table(table.slice(0, 40))
    if table.num_rows > 40:
        body += f"<p>... and {table.num_rows - 40:,} smaller ones in clusters.parquet.</p>"
    return Section(
        "clusters",
        "Clusters",
        "HDBSCAN on the vectors themselves, not on the map. The size of a cluster says how common "
        "its behaviour is; rarity is -log10 of its share of all segments.",
        body,
    )


def _samples_section(material: _Material) -> Section | None:
    table = material.clusters.table
    cluster = _column(table, "cluster")
    names, counts = np.unique(cluster[cluster >= 0], return_counts=True)
    if not len(names):
        return None
    largest = names[np.argsort(-counts, kind="stable")][:N_CLUSTERS]
    size = dict(zip(names.tolist(), counts.tolist()))
    rows = {
        int(name): np.sort(
            material.rng.choice(
                np.flatnonzero(cluster == name), min(N_MEMBERS, size[int(name)]), replace=False
            )
        )
        for name in largest
    }
    ids = np.array(table["id"].to_pylist())
    members = {name: ids[own].tolist() for name, own in rows.items()}
    figure = galleries.cluster_samples(material.survey, members, size)
    return Section(
        "samples",
        "Samples of the largest clusters",
        f"{N_MEMBERS} members of each, drawn at random; colours as on the map. "
        f"{material.words().scale}",
        material.draw("clusters", figure, "One row a cluster."),
    )


_BY_COSINE = (
    "Each object once, ranked by cosine similarity to its nearest other object number {k}, "
    "lowest first. Density is that of the place against its surroundings: 1 = as dense, far "
    "below 1 = alone beside a dense group. "
)
_BY_DISTANCE = (
    "Ranked by Euclidean distance to the nearest other object number {k}, farthest first: trails "
    "and saturated stars make long codes, to which cosines are blind. "
)


def _oddest_section(material: _Material, labels: np.ndarray | None) -> Section:
    table = material.outliers.table.slice(0, N_ODDEST)
    ids = table["id"].to_pylist()
    if "distance" in table.column_names:
        told, measure = "distance {distance:.3f}", "distance"
        title, how = "How far is the neighbour?", _BY_DISTANCE
    else:
        told = "similarity {similarity:.3f}, density {density_ratio:.2f}"
        measure = "similarity"
        title, how = "How alike is the neighbour?", _BY_COSINE
    captions = [("{rank}. {id}\n" + told).format(**row) for row in table.to_pylist()]
    figure = galleries.grid(material.survey, ids, captions)
    k = int(material.outliers.facts["k"])
    values = _column(material.outliers.table, measure)
    is_far = measure == "distance"
    draw = charts.distance_histogram if is_far else charts.similarity_histogram
    histogram = draw(values, values[: len(ids)], k=k)
    body = material.draw(
        "outliers", figure, f"The {len(ids)} most dissimilar, oddest first.{material.key()}"
    )
    body += material.draw(measure, histogram, title)
    if labels is not None:
        by_id = dict(zip(material.map.table["id"].to_pylist(), labels.tolist()))
        table = table.append_column("class", pa.array([by_id[i] for i in ids], pa.string()))
    why = reasons.short_reasons(material.survey, material.model, ids, k=k)
    table = table.append_column("why", pa.array(why, pa.string()))
    return Section(
        "outliers",
        "Most dissimilar",
        how.format(k=k) + "Why: the direction in which the code stands out, if one does; the part "
        "without which the object would be less odd, if it is one part; and the nearest object "
        "that is not odd. `skyvec explain ID` says more.",
        body + page.table(table),
    )


def _search_section(material: _Material, examples: int) -> Section | None:
    cluster = _column(material.clusters.table, "cluster")
    names = np.unique(cluster[cluster >= 0])[: 2 * examples : 2]
    ids = np.array(material.clusters.table["id"].to_pylist())
    chosen = [str(material.rng.choice(ids[cluster == name])) for name in names]
    chosen = (chosen + ids[: examples - len(chosen)].tolist())[:examples]
    if not chosen:
        return None
    body = ""
    for i, query in enumerate(chosen):
        found = searching.search(material.survey, material.model, [query], k=N_NEIGHBOURS).table
        neighbours = found["id"].to_pylist()
        captions = [f"query: {query}"] + [
            f"{row['id']}\nsimilarity {row['similarity']:.3f}" for row in found.to_pylist()
        ]
        colours = [pictures.QUERY_COLOUR] + [pictures.INK] * len(neighbours)
        figure = galleries.grid(
            material.survey, [query, *neighbours], captions, across=3, colours=colours
        )
        body += material.draw(
            f"search-{i + 1}", figure, f"The nearest to {query}.{material.key() if not i else ''}"
        )
    return Section(
        "search",
        "Example searches",
        "The query in red, its nearest neighbours among the other targets in black.",
        body,
    )


def _agree_section(material: _Material, seed: int) -> Section | None:
    if store.survey_kind(material.survey) != "lightcurves":
        return None
    try:
        answer, _ = agreeing.agree(material.survey, material.model, seed=seed)
    except TooFewObjects:
        return None
    figure = agreeing.agreement_picture(answer.table)
    caption = "What neighbours by code have in common with neighbours by curve; bands are 95 %."
    shown = agreeing.at_depth(answer.table)
    return Section(
        "agree",
        "The code beside other measures",
        "Neighbours by code against neighbours by the curves themselves (band "
        f"{answer.facts['band']}, each curve on its own span and scale), among "
        f"{answer.facts['objects']:,} objects drawn at random. The code need not agree: what "
        "repeats at another phase is alike to it, and not to the correlation.",
        material.draw("agree", figure, caption) + page.table(shown),
    )


def _audit_section(material: _Material, column: str, seed: int) -> Section | None:
    try:
        answer, _ = auditing.audit_survey(material.survey, material.model, label=column, seed=seed)
    except TooFewObjects:
        return None
    figure = auditing.audit_picture(answer.table)
    body = material.draw("audit", figure, "What the ten nearest neighbours tell, and chance.")
    within = (
        " Where the classes alone would tell as much (by_class), it is no fault of the code."
        if answer.facts["label"]
        else ""
    )
    return Section(
        "audit",
        "What the code should not follow",
        "Noise, sampling, camera and place: told is what the neighbours of an object tell of it, "
        "0 = nothing, 1 = all, with its 95 % interval; p is the share of shuffled values that "
        "tell as much, p_holm the same for all questions together. With many objects even "
        f"little is certain: look at how much is told first.{within}",
        body + page.table(answer.table),
    )


def _reconstruction_section(material: _Material) -> Section | None:
    ids = np.array(material.map.table["id"].to_pylist())
    chosen = material.rng.choice(ids, min(9, len(ids)), replace=False).tolist()
    drawn = galleries.reconstructions(material.survey, material.model, chosen)
    if drawn is None:
        return None
    return Section(
        "reconstructions",
        "Reconstructions",
        f"What the code has kept of {material.words().many}. Noise is not kept, and should not "
        "be.",
        material.draw("reconstructions", *drawn),
    )


def _sky_section(material: _Material) -> Section | None:
    latents = store.read_latents(material.survey, material.model)
    known = np.isfinite(latents.ra) & np.isfinite(latents.dec)
    if not known.any():
        return None
    cluster = _column(material.clusters.table, "cluster")
    figure = charts.sky_picture(latents.ra, latents.dec, cluster)
    missing = int((~known).sum())
    note = f" {missing:,} segments have no position." if missing else ""
    return Section(
        "sky",
        "On the sky",
        "A cluster that is one place on the sky, one camera or one sector is an instrument's.",
        material.draw("sky", figure, "ICRS, right ascension grows to the left." + note),
    )


def _recipe_section(material: _Material) -> Section:
    folder = store.model_folder(material.survey, material.model)
    path = folder / checkpoint.RECIPE
    made = tomllib.loads((material.survey / store.SURVEY_FILE).read_text(encoding="utf-8"))
    steps = [
        f"{verb}: {json.dumps(facts)}"
        for verb, notes in made.items()
        if isinstance(notes, list)
        for facts in notes
    ]
    steps += [
        f"{answer.verb}: {json.dumps(answer.facts)}"
        for answer in (material.outliers, material.clusters, material.map)
    ]
    body = page.code(path.read_text(encoding="utf-8")) + page.code("\n".join(steps))
    return Section(
        "recipe", "Recipe", "All that is needed to make the same vectors and answers again.", body
    )


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()
