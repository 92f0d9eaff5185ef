"""Plots of operating points, scores and calibration: functions of arrays that give a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skyvec.realbogus.metrics import TPRS, curve
from skyvec.schema import Floats, Ints

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
    for (name, (score, label)), colour in zip(scores.items(), COLOURS * 9):
        points = curve(score, label)
        kept = (points.fpr > 0) & (points.tpr < 1)
        text = f"{name} (AUC {points.auc():.5f})"
        axes.step(points.fpr[kept], 1 - points.tpr[kept], color=colour, label=text, where="post")
        for t in TPRS:
            at = points.at_tpr(t)
            axes.plot(points.fpr[at], 1 - points.tpr[at], "o", color=colour, ms=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
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
    axes.axvline(threshold, color="#444444", lw=1, ls=":")
    axes.set_yscale("symlog", linthresh=1)
    axes.legend(frameon=False)
    return figure


def reliability_picture(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Observed against predicted, with exact intervals; rows of ``reliability`` by name."""
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = _axes(figure, "predicted probability of being real", "observed fraction of reals")
    axes.plot([0, 1], [0, 1], color="#999999", lw=1)
    for (name, some), colour in zip(rows.items(), COLOURS * 9):
        x = np.array([row["predicted"] for row in some])
        y = np.array([row["observed"] for row in some])
        low = np.maximum(y - np.array([row["low"] for row in some]), 0)
        high = np.maximum(np.array([row["high"] for row in some]) - y, 0)
        axes.errorbar(x, y, [low, high], fmt="o", ms=4, lw=1, color=colour, label=name)
    axes.legend(frameon=False, fontsize=8)
    return figure


def rates_picture(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """TPR and FPR of each bin with their intervals; rows of ``by_bin``."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    place = np.arange(len(rows))
    for axes, rate, colour in zip(panels, ("tpr", "fpr"), COLOURS):
        known = [i for i, row in enumerate(rows) if row[rate] is not None]
        y = np.array([rows[i][rate] for i in known])
        low = np.maximum(y - np.array([rows[i][f"{rate}_low"] for i in known]), 0)
        high = np.maximum(np.array([rows[i][f"{rate}_high"] for i in known]) - y, 0)
        axes.errorbar(place[known], y, [low, high], fmt="o", ms=4, lw=1, color=colour)
        axes.set_ylabel(rate.upper())
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].set_yscale("symlog", linthresh=1e-4)
    every = max(1, len(rows) // 12)
    panels[1].set_xticks(place[::every], [str(row["bin"]) for row in rows][::every], rotation=30)
    panels[1].set_xlabel(title)
    return figure
