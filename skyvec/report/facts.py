"""What is in a survey: counts that balance, reasons of rejection, models, latents, bands."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyvec import store

Facts = dict[str, Any]


class Words(NamedTuple):
    """How the objects of a survey are called.

    Args:
        one: A single object, such as ``light curve``.
        many: Several.
        points: What they are made of.
        scale: How they are drawn.
    """

    one: str
    many: str
    points: str
    scale: str


WORDS = {
    "lightcurves": Words("light curve", "light curves", "points", "Each curve on its own scale."),
    "images": Words("image", "images", "pixels", "All with the same stretch."),
    "stamps": Words("detection", "detections", "pixels", "All with the same stretch."),
}


def words(survey: Path) -> Words:
    """How the objects of a survey are called."""
    return WORDS[store.survey_kind(survey)]


def survey_facts(survey: Path) -> Facts:
    """Count what a survey holds.

    Returns:
        ``name``; ``kind`` (light curves, images or stamps); ``objects`` (different targets),
        ``segments`` (rows), ``rejects`` (rows that could not be taken), ``points`` or, of
        images and stamps, ``pixels``; ``reject_reasons`` (reason: count, most frequent first);
        ``bands``; ``flux_units``; ``models`` (trained) and ``latents`` (model: segments encoded).

    Raises:
        StoreError: The folder is no survey.
    """
    store.check_survey(survey)
    shards, rejects = store.object_shards(survey), store.read_rejects(survey)
    title = tomllib.loads((survey / store.SURVEY_FILE).read_text(encoding="utf-8"))
    return {
        "name": title.get("name", survey.name),
        "kind": store.survey_kind(survey),
        "objects": len(np.unique(store.read_catalog(survey, []).target)),
        "segments": sum(shard["rows"] for shard in shards),
        "rejects": len(rejects),
        words(survey).points: sum(shard["points"] for shard in shards),
        "reject_reasons": reject_reasons(rejects),
        "bands": list(store.survey_bands(survey)),
        "flux_units": sorted({shard["flux_unit"] for shard in shards if shard["rows"]}),
        "models": trained_models(survey),
        "latents": {name: _n_encoded(survey, name) for name in store.model_names(survey)},
    }


def reject_reasons(rejects: pa.Table) -> dict[str, int]:
    """Count rejects by reason, the most frequent first."""
    counts = pc.value_counts(rejects["reason"].combine_chunks())
    pairs = [(entry["values"], entry["counts"]) for entry in counts.to_pylist()]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def is_not_linear(survey: Path) -> bool:
    """Say whether a survey holds pictures whose pixels are not proportional to light."""
    if "value_kind" not in store.column_kinds(survey):
        return False
    kinds = store.read_catalog(survey, ["value_kind"]).columns["value_kind"]
    return bool(np.any(["not linear" in kind for kind in np.unique(kinds.astype(np.str_))]))


def trained_models(survey: Path) -> list[str]:
    """Names of the models with a recipe in the survey, in alphabetical order."""
    folder = store.model_folder(survey, "any").parent
    return sorted(path.parent.name for path in folder.glob("*/recipe.toml"))


def _n_encoded(survey: Path, name: str) -> int:
    shards = store.read_manifest(store.latents_folder(survey, name))["shards"]
    return sum(int(shard.get("rows", 0)) for shard in shards)


def facts_table(facts: Facts) -> pa.Table:
    """Give the facts as rows of a name and a value, for printing."""
    rows: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += [(name, f"{count:,}  {key}") for key, count in value.items()]
        elif isinstance(value, list):
            rows.append((name, ", ".join(value) or "-"))
        else:
            rows.append((name, f"{value:,}" if isinstance(value, int) else str(value)))
    return pa.table({"what": [n for n, _ in rows], "value": [v for _, v in rows]})
