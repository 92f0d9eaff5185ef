"""The picture of a completeness map: how much each search finds, against depth and what else."""

from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skyvec.report.pictures import FAINT, INK, quiet

SEARCHES = {
    "directed": ("directed search", "#CC1111"),
    "checked": ("with a second look", "#EE7733"),
    "box": ("box least squares", "#0077BB"),
    "matched": ("matched filter", "#009988"),
    "oddest": ("among the 20 oddest", "#AA3377"),
}
KNOWN = {"signal", "depth", "n", "targets", "dominant", "median_rank", "odd_rank"}
FIRST_PERCENT = ("top_percent", "top_dominant", "checked_dominant")


def completeness_picture(table: pa.Table, k: int) -> Figure:
    """Draw a completeness map.

    With no axis beside depth: a line a search with its 95 % interval. With one: a map a search,
    depth across and the axis up; with more, a row of maps for every further place.

    Args:
        table: Of :func:`skyvec.studies.recovery.completeness`, one signal.
        k: Within how many a signal counts as found, for the captions.

    Raises:
        ValueError: The table is empty.
    """
    if not table.num_rows:
        raise ValueError("there is no cell to draw; the grid is empty")
    axes = [name for name in table.column_names if name not in KNOWN and not _is_share(name)]
    rows = table.to_pylist()
    title = f"{str(rows[0]['signal']).partition('(')[0]}: found among the first {k}"
    return _maps(rows, axes, title) if axes else _lines(rows, title)


CHANGES = {
    "phase": "shift in phase [periods]",
    "gaps": "share of the span lost",
    "points": "share of the points kept",
}


def robustness_picture(table: pa.Table, title: str) -> Figure:
    """Draw how far codes move, as a share of the distance between strangers, and who is found.

    Args:
        table: Of :func:`skyvec.studies.robustness.robustness`.
        title: Above the panels.
    """
    rows = table.to_pylist()
    present = [name for name in CHANGES if any(row["change"] == name for row in rows)]
    figure = Figure(figsize=(2.9 * len(present) + 0.6, 2.9))
    for axes, name in zip(
        figure.subplots(1, len(present), sharey=True, squeeze=False)[0], present
    ):
        own = sorted((row for row in rows if row["change"] == name), key=lambda row: row["amount"])
        amount = [row["amount"] for row in own]
        scale = [row["strangers"] for row in own]
        low, high = (
            [row[end] / far for row, far in zip(own, scale)]
            for end in ("distance_low", "distance_high")
        )
        axes.fill_between(amount, low, high, color="#CC1111", alpha=0.13, lw=0)
        axes.plot(amount, [row["share"] for row in own], "-o", ms=3.5, color="#CC1111")
        axes.plot(amount, [row["found"] for row in own], "--s", ms=3.5, color="#0077BB")
        axes.set_xlabel(CHANGES[name], fontsize=8.5, color=INK)
        quiet(axes)
        axes.set_ylim(-0.03, 1.2)
    figure.axes[0].set_ylabel(
        "red: distance / strangers\nblue: found first", fontsize=8, color=INK
    )
    figure.suptitle(title, fontsize=9, x=0.02, ha="left")
    figure.subplots_adjust(left=0.13, right=0.98, bottom=0.2, top=0.87, wspace=0.1)
    return figure


def _is_share(name: str) -> bool:
    return any(name == s or name.startswith(f"{s}_") for s in (*SEARCHES, *FIRST_PERCENT))


def _lines(rows: list[dict[str, Any]], title: str) -> Figure:
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.add_axes((0.1, 0.15, 0.6, 0.73))
    depth = np.array([row["depth"] for row in rows])
    order = np.argsort(depth)
    for above, (name, (label, colour)) in zip(range(9, 0, -1), SEARCHES.items()):
        value, low, high = (
            np.array([row[name + end] for row in rows])[order] for end in ("", "_low", "_high")
        )
        if np.isfinite(value).any():
            style = "--" if name == "oddest" else "-"
            axes.plot(
                depth[order],
                value,
                style,
                marker="o",
                ms=3.5,
                color=colour,
                label=label,
                zorder=above,
            )
            axes.fill_between(depth[order], low, high, color=colour, alpha=0.13, lw=0)
    axes.set_xscale("log")
    axes.set_xlabel("depth / noise from point to point", fontsize=8.5, color=INK)
    axes.set_ylabel(f"share of {rows[0]['n']} injections", fontsize=8.5, color=INK)
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    quiet(axes)
    axes.set_ylim(-0.03, 1.03)
    return figure


def _maps(rows: list[dict[str, Any]], names: list[str], title: str) -> Figure:
    shown = [name for name in SEARCHES if any(np.isfinite(row[name]) for row in rows)]
    further = list(product(*(sorted({row[name] for row in rows}) for name in names[1:])))
    up = sorted({row[names[0]] for row in rows})
    figure = Figure(figsize=(2.6 * len(shown) + 0.8, (0.42 * len(up) + 1.3) * len(further) + 0.4))
    panels = figure.subplots(len(further), len(shown), squeeze=False, sharex=True, sharey=True)
    for line, place in zip(panels, further):
        here = [row for row in rows if all(row[n] == v for n, v in zip(names[1:], place))]
        words = ", ".join(f"{name} {value:g}" for name, value in zip(names[1:], place))
        for axes, name in zip(line, shown):
            _map(axes, here, names[0], up, name)
            axes.set_title(
                SEARCHES[name][0] + (f"\n{words}" if words else ""), fontsize=8, color=INK
            )
        line[0].set_ylabel(names[0], fontsize=8.5, color=INK)
    for axes in panels[-1]:
        axes.set_xlabel("depth / noise", fontsize=8.5, color=INK)
    figure.suptitle(f"{title}, {rows[0]['n']} injections a cell", fontsize=9, x=0.02, ha="left")
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.2, top=0.78, wspace=0.08, hspace=0.5)
    return figure


def _map(axes: Axes, rows: list[dict[str, Any]], axis: str, up: list[float], name: str) -> None:
    depths = sorted({row["depth"] for row in rows})
    share = np.full((len(up), len(depths)), np.nan)
    for row in rows:
        i, j = up.index(row[axis]), depths.index(row["depth"])
        share[i, j] = row[name]
        axes.annotate(
            f"{row[name]:.2f}\n{row[name + '_low']:.2f}-{row[name + '_high']:.2f}",
            (j, i),
            ha="center",
            va="center",
            fontsize=5.5,
            color="white" if row[name] < 0.6 else INK,
        )
    axes.imshow(share, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
    axes.set_xticks(range(len(depths)), [f"{depth:g}" for depth in depths])
    axes.set_yticks(range(len(up)), [f"{value:g}" for value in up])
    axes.tick_params(labelsize=7, color=FAINT, labelcolor=FAINT, length=2.5)
