"""How far a survey's neighbours by code agree with those by the curves themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from skyvec import store
from skyvec.analysis.agreement import agreement
from skyvec.index import measures
from skyvec.index.exact import unit
from skyvec.report import pictures
from skyvec.report.answers import checked_latents
from skyvec.report.gridded import check_light, choose_band, find_series
from skyvec.report.remember import Answer, TooFewObjects, remember

SAMPLE = 1000
QUERIES = 200
LEAST = 20
"""Objects below which nothing can be said."""

SHOWN_K = 10
"""Depth that stands in the table of the report."""


def agree(
    survey: Path, model: str, *, sample: int = SAMPLE, band: str = "", seed: int = 0
) -> tuple[Answer, Path]:
    """Compare neighbours by code with those by each measure, among objects drawn at random.

    One segment is drawn of each target. Up to 200 of them are queries, all of them are
    candidates; what is common is counted at several depths and held against chance.

    Args:
        survey: A survey of light curves.
        model: Whose codes are compared.
        sample: How many objects to draw, at least 20.
        band: Band of the curves; none = the one with most points.
        seed: Of the draw.

    Returns:
        One row a measure and depth: columns measure, k, common, common_low, common_high, chance,
        times_chance, rank_correlation, rank_low, rank_high, queries, candidates; and the picture.

    Raises:
        StoreError: The survey does not hold light curves.
        TooFewObjects: Fewer than 20 objects can be compared.
        ValueError: An unknown band, or a sample of fewer than 20.
    """
    check_light(survey, "agreement with other measures")
    if sample < LEAST:
        raise ValueError(f"sample must be at least {LEAST} objects, not {sample}")
    band = choose_band(survey, band)
    path = store.answers_folder(survey, "agree", model) / "agree.png"

    def make() -> tuple[pa.Table, dict[str, Any]]:
        return _compare(survey, model, sample, band, seed)

    arguments = {"sample": sample, "band": band, "seed": seed}
    answer = remember(survey, "agree", model, arguments, make)
    content = pictures.png(agreement_picture(answer.table))
    store.write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return answer, path


def _compare(
    survey: Path, model: str, sample: int, band: str, seed: int
) -> tuple[pa.Table, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    latents = checked_latents(survey, model)
    usable = rng.permutation(np.flatnonzero(np.any(latents.vectors != 0, axis=1)))
    # the first of each target in a random order is a random segment of a random target
    first = np.sort(np.unique(latents.target[usable], return_index=True)[1])
    rows = usable[first][:sample]
    series = find_series(survey, latents.id[rows].tolist(), band)
    rows, values = rows[series.usable], series.values[series.usable]
    if len(rows) < LEAST:
        raise TooFewObjects(
            f"only {len(rows)} objects of {survey} have five points in band {band}; "
            f"{LEAST} are needed"
        )
    queries = np.arange(min(QUERIES, len(rows)))
    codes = unit(latents.vectors[rows]).astype(np.float64)
    by_code = 1 - codes[queries] @ codes.T
    by_code[queries, queries] = np.nan
    columns: dict[str, list[Any]] = {}
    for measure in measures.MEASURES:
        by_curve = measures.distances(values[queries], values, measure)
        by_curve[queries, queries] = np.nan
        found = agreement(by_code, by_curve, rng)
        for depth in found.common:
            row = {
                "measure": measure,
                "k": depth.k,
                "common": depth.share,
                "common_low": depth.low,
                "common_high": depth.high,
                "chance": depth.chance,
                "times_chance": depth.share / depth.chance,
                "rank_correlation": found.rank_correlation,
                "rank_low": found.low,
                "rank_high": found.high,
                "queries": found.queries,
                "candidates": found.candidates,
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    left_out = int((~series.usable).sum())
    return pa.table(columns), {"band": band, "objects": len(rows), "too_few_points": left_out}


def at_depth(table: pa.Table, k: int = SHOWN_K) -> pa.Table:
    """Rows of one depth: that asked for, or the deepest there is below it."""
    depths = table["k"].to_numpy()
    return table.filter(pa.array(depths == max(depths[depths <= k])))


def agreement_picture(table: pa.Table) -> Figure:
    """Draw what is common against the depth, with its intervals and what chance would give."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    names = np.array(table["measure"].to_pylist())
    column = {name: table[name].to_numpy() for name in table.column_names if name != "measure"}
    for i, name in enumerate(dict.fromkeys(names.tolist())):
        own = names == name
        colour = pictures.CLUSTER_COLOURS[i]
        k = column["k"][own]
        axes.fill_between(
            k,
            column["common_low"][own],
            column["common_high"][own],
            color=colour,
            alpha=0.15,
            lw=0,
        )
        label = f"{name} (rank correlation {column['rank_correlation'][own][0]:.2f})"
        axes.plot(k, column["common"][own], "o-", color=colour, lw=1.2, ms=3.5, label=label)
    own = names == names[0]
    axes.plot(
        column["k"][own], column["chance"][own], ":", color=pictures.FAINT, lw=1.2, label="chance"
    )
    axes.set_xscale("log")
    pictures.quiet(axes)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    axes.set_xticks(column["k"][own], [str(k) for k in column["k"][own]])
    axes.minorticks_off()
    axes.set_xlabel("nearest neighbours compared", fontsize=8.5)
    axes.set_ylabel("share common with those by code", fontsize=8.5)
    axes.legend(frameon=False, fontsize=8)
    return figure
