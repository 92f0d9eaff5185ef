"""The nuisance audit of a survey: what neighbours by code tell that they should not."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyvec import store
from skyvec.analysis.audit import LEVEL, audit, draw_targets
from skyvec.prep.nuisances import image_nuisances, light_nuisances
from skyvec.report import pictures
from skyvec.report.answers import checked_latents, label_column, labels_of
from skyvec.report.remember import Answer, TooFewObjects, remember
from skyvec.schema import Latents, Strings

SAMPLE = 2000

COLUMNS = (
    "camera",
    "ccd",
    "detector",
    "channel",
    "module",
    "sector",
    "quarter",
    "campaign",
    "season",
    "field",
    "instrument",
    "telescope",
    "survey",
    "mission",
    "exposure",
    "exptime",
    "seeing",
    "psf_fwhm",
    "airmass",
    "mag",
    "tmag",
    "kepmag",
)
"""Columns of a catalogue that say how an object was observed, asked about where they are there."""


def audit_survey(
    survey: Path,
    model: str,
    *,
    columns: Sequence[str] = (),
    label: str | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
) -> tuple[Answer, Path]:
    """Ask whether neighbours by code tell how an object was observed.

    Asked about are what can be measured of the observation (points, cadence, signal to noise and
    so on), the place on the sky, and columns of the catalogue that say how it was observed.

    Args:
        survey: The survey's folder.
        model: Whose codes are asked.
        columns: Further columns of the catalogue.
        label: Column of classes: what they alone would tell is measured too. None = the first of
            ``label``, ``class`` and ``type`` that there is, an empty string = none.
        sample: How many objects to draw, at least 50; one segment of each.
        seed: Of the draw and the shuffles.

    Returns:
        One row a nuisance, the most told first: columns nuisance, kind, told, low, high,
        by_chance, p, p_holm, carried, by_class, p_beyond_class, objects; and the picture.

    Raises:
        TooFewObjects: There is nothing to ask about.
        ValueError: A column that is not there, or a sample of fewer than 50.
    """
    if sample < 50:
        raise ValueError(f"sample must be at least 50 objects, not {sample}")
    known = store.column_kinds(survey)
    for name in columns:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ValueError(f"no column {name!r} in the survey; there are {there}")
    classes = label_column(survey, label)
    path = store.answers_folder(survey, "audit", model) / "audit.png"

    def make() -> tuple[pa.Table, dict[str, Any]]:
        return _ask(survey, model, columns, classes, sample, seed)

    arguments = {"columns": list(columns), "label": classes, "sample": sample, "seed": seed}
    answer = remember(survey, "audit", model, arguments, make)
    content = pictures.png(audit_picture(answer.table))
    store.write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return answer, path


def _ask(
    survey: Path,
    model: str,
    columns: Sequence[str],
    classes: str,
    sample: int,
    seed: int,
) -> tuple[pa.Table, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    latents = checked_latents(survey, model)
    latents = latents.take(draw_targets(latents, rng, sample))
    kinds = labels_of(survey, classes, latents.id) if classes else None
    if kinds is not None and (kinds != "").sum() < 50:
        kinds, classes = None, ""
    asked = nuisances(survey, latents, columns)
    rows = audit(latents, asked, rng, kinds=kinds, most=sample)
    if not rows:
        raise TooFewObjects(
            f"{survey} has fewer than 50 objects of {model!r}, or nothing differs between them; "
            "there is nothing to ask about"
        )
    table = pa.Table.from_pylist([asdict(row) | {"carried": row.is_carried} for row in rows])
    names = {
        "name": "nuisance",
        "by_kind": "by_class",
        "p_beyond": "p_beyond_class",
        "n": "objects",
    }
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    order = [name for name in table.column_names if name not in ("carried", "by_class")]
    order[order.index("p_holm") + 1 : order.index("p_holm") + 1] = ["carried", "by_class"]
    if not classes:
        order = [name for name in order if name not in ("by_class", "p_beyond_class")]
    facts = {
        "objects": len(latents),
        "label": classes,
        "asked": len(asked),
        "carried": int(sum(row.is_carried for row in rows)),
    }
    return table.select(order), facts


def nuisances(survey: Path, latents: Latents, columns: Sequence[str] = ()) -> dict[str, NDArray]:
    """Gather all that is known of how some segments were observed, by name.

    Args:
        survey: The survey's folder.
        latents: Of the segments, n.
        columns: Further columns of the catalogue.

    Returns:
        Numbers or strings of shape (n,), and ``sky``, the direction of each, shape (n, 3).
    """
    ids = latents.id.tolist()
    kind = store.survey_kind(survey)
    found: dict[str, NDArray] = {}
    if kind == "lightcurves":
        found |= light_nuisances(store.find_curves(survey, ids))
    elif kind == "images":
        found |= image_nuisances(store.find_images(survey, ids))
    found["sky"] = _directions(latents)
    known = store.column_kinds(survey)
    wanted = [n for n in dict.fromkeys([*COLUMNS, *columns]) if n in known and n not in found]
    catalog = store.read_catalog(survey, wanted)
    rows = catalog.rows(latents.id)
    return found | {name: _plain(catalog.columns[name][rows]) for name in wanted}


def _plain(column: NDArray) -> NDArray | Strings:
    """Numbers, whole numbers and strings as they are; anything else as text."""
    return column if column.dtype.kind in "fiuU" else column.astype(np.str_)


def _directions(latents: Latents) -> NDArray[np.float64]:
    """Unit vectors of the places, (n, 3)."""
    ra, dec = np.radians(latents.ra), np.radians(latents.dec)
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def audit_picture(table: pa.Table) -> Figure:
    """Draw how much is told of each nuisance, with its interval, and what chance would tell."""
    rows = table.to_pylist()
    figure = Figure(figsize=(6.4, 0.9 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for i, row in enumerate(rows):
        colour = pictures.QUERY_COLOUR if row["carried"] else pictures.NOISE_COLOUR
        axes.plot([row["low"], row["high"]], [i, i], color=colour, lw=2.2, alpha=0.6)
        axes.plot(row["told"], i, "o", color=colour, ms=5)
        axes.plot(row["by_chance"], i, "|", color=pictures.INK, ms=9)
        if "by_class" in row:
            axes.plot(row["by_class"], i, "d", color=pictures.CLUSTER_COLOURS[0], ms=4)
    axes.set_yticks(range(len(rows)), [row["nuisance"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=-0.01)
    pictures.quiet(axes)
    axes.tick_params(axis="y", labelsize=8, labelcolor=pictures.INK)
    axes.set_xlabel("told by the neighbours: 0 = nothing, 1 = all", fontsize=8.5)
    said = f"red: carried (p < {LEVEL}, Holm); bar: 95 % of shuffled values lie below"
    if rows and "by_class" in rows[0]:
        said += "; blue: told by the classes alone"
    axes.set_title(said, fontsize=7.5, color=pictures.FAINT, loc="left")
    return figure
