"""Plots of operating points, scores and calibration: functions of arrays that give a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyvec.realbogus.metrics import TPRS, curve
from skyvec.schema import Floats, Ints

MOST_NAMES = 24
"""More names than that cannot be written below each other."""
LEAST_PROBABILITY = 1e-6
"""Bins of less lie beyond the edge of a picture: no sample is large enough to judge them."""
COLOURS = ("#2b6ca3", "#c2571a", "#3d8f5f", "#8a5aa8", "#7a7a7a")


def _axes(figure: Figure, x: str, y: str) -> Axes:
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def trade_off(scores: Mapping[str, tuple[Floats, Ints]]) -> Figure:
    """FNR against FPR of some classifiers, both logarithmic; dots at the TPRs of ``TPRS``.

    Args:
        scores: (score, label) by name.
    """
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = _axes(figure, "FPR: bogus kept", "FNR: reals lost")
    axes.set(xscale="log", yscale="log")
    for (name, (score, label)), colour in zip(scores.items(), COLOURS * 9):
        points = curve(score, label)
        kept = (points.fpr > 0) & (points.tpr < 1)
        text = f"{name} (AUC {points.auc():.5f})" + ("" if kept.any() else ": no error at all")
        axes.step(points.fpr[kept], 1 - points.tpr[kept], color=colour, label=text, where="post")
        for t in TPRS:
            at = points.at_tpr(t)
            if kept[at]:  # a rate of nothing has no place on these axes
                axes.plot(points.fpr[at], 1 - points.tpr[at], "o", color=colour, ms=4)
    told = " and ".join(f"{t:g}" for t in TPRS)
    axes.plot([], [], "o", color="#444444", ms=4, label=f"TPR {told}")
    axes.legend(frameon=False, fontsize=8)
    return figure


def histograms(score: Floats, label: Ints, threshold: float) -> Figure:
    """Counts of reals and bogus by score, logarithmic, with a threshold."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = _axes(figure, "score: log-odds of being real", "detections")
    edges = np.linspace(np.min(score), np.max(score), 61)
    for kind, name, colour in ((0, "bogus", COLOURS[1]), (1, "real", COLOURS[0])):
        counts, _ = np.histogram(np.asarray(score)[np.asarray(label) == kind], edges)
        axes.stairs(counts, edges, color=colour, label=f"{name} ({counts.sum():,})")
    axes.axvline(threshold, color="#444444", lw=1, ls=":", label=f"threshold {threshold:.2f}")
    axes.set_yscale("symlog", linthresh=1)
    axes.legend(frameon=False)
    return figure


def reliability_picture(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Observed against predicted, with exact intervals, both logarithmic as reals are rare.

    Args:
        rows: Rows of :func:`~skyvec.realbogus.calibration.reliability` by name. A bin without any
            real is an arrow down from the most that its interval allows.
    """
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = _axes(figure, "predicted probability of being real", "observed fraction of reals")
    least = min([row["predicted"] for some in rows.values() for row in some] + [0.1]) / 2
    least = max(least, LEAST_PROBABILITY)
    axes.plot([least, 1], [least, 1], color="#999999", lw=1, label="as predicted")
    for (name, some), colour in zip(rows.items(), COLOURS * 9):
        x, y = (np.array([row[key] for row in some]) for key in ("predicted", "observed"))
        low, high = (np.array([row[key] for row in some]) for key in ("low", "high"))
        none = y == 0
        reach = [np.maximum(y - low, 0)[~none], np.maximum(high - y, 0)[~none]]
        axes.errorbar(x[~none], y[~none], reach, fmt="o", ms=4, lw=1, color=colour, label=name)
        axes.errorbar(
            x[none], high[none], 0.3 * high[none], uplims=True, fmt="_", lw=1, color=colour
        )
    axes.set(xscale="log", yscale="log", xlim=(least, 1.3), ylim=(least, 1.3))
    axes.legend(frameon=False, fontsize=8)
    return figure


def rates_picture(rows: Sequence[Mapping[str, Any]], title: str, *, named: bool = False) -> Figure:
    """TPR and FPR of each bin with their intervals; a rate that no bin has is left out.

    Args:
        rows: Of :func:`~skyvec.realbogus.metrics.by_bin`.
        title: What the bins are of, with its unit.
        named: The bins are names, not ranges of a number: they are written below each other
            unless there are too many.
    """
    rates = [rate for rate in ("tpr", "fpr") if any(row[rate] is not None for row in rows)]
    across = named and len(rows) <= MOST_NAMES
    size = (6.8, 1.2 + 0.22 * len(rows)) if across else (6.4, 0.8 + 1.8 * len(rates))
    figure = Figure(figsize=size, layout="constrained")
    shape = (1, len(rates)) if across else (len(rates), 1)
    panels = figure.subplots(*shape, squeeze=False, sharex=not across, sharey=across).ravel()
    place = np.arange(len(rows))
    for axes, rate in zip(panels, rates):
        known = [i for i, row in enumerate(rows) if row[rate] is not None]
        y, low, high = (
            np.array([rows[i][rate + end] for i in known]) for end in ("", "_low", "_high")
        )
        reach = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
        style = {"fmt": "o", "ms": 4, "lw": 1, "color": COLOURS[rate == "fpr"]}
        text = {"tpr": "TPR: reals kept", "fpr": "FPR: bogus kept"}[rate]
        scale = {"value": "symlog", "linthresh": 1e-4} if rate == "fpr" else {"value": "linear"}
        if across:
            axes.errorbar(y, place[known], xerr=reach, **style)
            axes.set_xlabel(text)
            axes.set_xscale(**scale)
        else:
            axes.errorbar(place[known], y, reach, **style)
            axes.set_ylabel(text)
            axes.set_yscale(**scale)
        if rate == "fpr":
            limits = (0, min(1.5, 2 * high.max()))
            axes.set(xlim=limits) if across else axes.set(ylim=limits)
        axes.spines[["top", "right"]].set_visible(False)
    names = [str(row["bin"]) for row in rows]
    if across:
        panels[0].set_yticks(place, names)
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        figure.suptitle(title, fontsize="medium")
    else:
        every = max(1, len(rows) // 12)
        panels[-1].set_xticks(
            place[::every], names[::every], rotation=30, ha="right", rotation_mode="anchor"
        )
        panels[-1].set_xlabel(title)
    return figure


def stamps_picture(
    pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str], *, across: int = 4
) -> Figure:
    """Draw stamps as small multiples, each with its caption.

    Args:
        pictures: Of :func:`~skyvec.realbogus.gallery.side_by_side`, of one shape, at least one.
        captions: One a stamp.
        across: Stamps a row.
    """
    if not len(pictures):
        raise ValueError("there are no stamps to draw; give at least one")
    down, (high, wide, _) = -(-len(pictures) // across), pictures[0].shape
    size = across * 2.5, down * (2.5 * high / wide + 0.26)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, picture, caption in zip(panels, pictures, captions):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(caption, fontsize=7, pad=2)
    return figure
