"""All that should be known of a classifier before its scores decide anything."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from skyvec.realbogus.calibration import (
    Calibration,
    brier,
    calibration_error,
    expected_false,
    fit,
    reliability,
)
from skyvec.realbogus.metrics import (
    best_threshold,
    by_bin,
    confusion,
    curve,
    resampled,
    summary,
)
from skyvec.realbogus.pictures import histograms, rates_picture, reliability_picture, trade_off
from skyvec.realbogus.samples import some_names
from skyvec.schema import Floats, Ints, Strings
from skyvec.store import write_atomic, write_json

NIGHT = {"detections": 1_000_000, "reals": 1_000}
"""A night of a wide survey, for expected numbers."""

BINNED = {
    "magnitude": np.arange(12.0, 22.0, 0.5),
    "true_magnitude": np.arange(12.0, 22.0, 0.5),
    "host_distance": np.array([0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 1024.0]),
    "seeing": np.array([0.0, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 20.0]),
    "snr": np.array([3.0, 5.0, 6.0, 8.0, 12.0, 20.0, 50.0, np.inf]),
}
"""Edges of the bins of columns a survey may have."""
UNITS = {"magnitude": "mag", "true_magnitude": "mag", "host_distance": "arcsec",
         "seeing": "arcsec"}  # fmt: skip
"""Of the columns of ``BINNED``."""

NAMED = ("detector", "kind")
"""Columns whose values are their own bins."""

PARTS = 8
"""Bins of any other column of numbers."""


def operating_point(
    score: Floats,
    label: Ints,
    *,
    tpr: float = 0.9,
    prevalence: float | None = None,
    calibration: str = "temperature",
) -> dict[str, Any]:
    """Choose what is to be frozen: threshold and calibration, from validation data alone.

    Returns:
        What :func:`~skyvec.realbogus.metrics.best_threshold` gives, with the ``calibration``.
    """
    chosen: dict[str, Any] = {**best_threshold(score, label, tpr=tpr, prevalence=prevalence)}
    chosen["calibration"] = fit(score, label, calibration).table()
    return chosen


def night(
    point: Mapping[str, Any],
    score: Floats,
    label: Ints,
    *,
    detections: int = NIGHT["detections"],
    reals: int = NIGHT["reals"],
) -> dict[str, float]:
    """What a night would bring at an operating point.

    Returns:
        ``candidates``, ``false`` and ``found`` expected from the measured rates, ``precision``,
        and ``promised_false``: the false candidates expected from the calibrated probabilities
        under the night's prevalence, without any label.
    """
    counts = confusion(score, label, point["threshold"])
    tpr = counts["tp"] / (counts["tp"] + counts["fn"])
    fpr = counts["fp"] / (counts["fp"] + counts["tn"])
    found, false = tpr * reals, fpr * (detections - reals)
    share = reals / detections
    calibration = Calibration(**point["calibration"])
    p = calibration.probability(score, share)
    # bogus of the sample stand for those of the night
    bogus = np.asarray(label) == 0
    weight = np.where(bogus, (1 - share) / bogus.mean(), share / (1 - bogus.mean()))
    kept = np.asarray(score) >= point["threshold"]
    promised = float(((1 - p) * weight * kept).mean()) * detections
    return {
        "detections": detections,
        "reals": reals,
        "candidates": found + false,
        "found": found,
        "false": false,
        "precision": found / max(found + false, 1e-300),
        "promised_false": promised,
    }


def bins_of(
    columns: Mapping[str, np.ndarray], more: Sequence[str] = ()
) -> dict[str, Floats | None]:
    """Edges of the bins of each column that rates are told by; None where each value is one.

    Args:
        columns: What is known of the detections, shape (n,) each.
        more: Names of further columns: numbers of many values are divided into ``PARTS`` bins of
            equally many detections, all else by value.

    Raises:
        ValueError: There is no such column, or all of it is unknown.
    """
    edges: dict[str, Floats | None] = {name: BINNED[name] for name in BINNED if name in columns}
    edges |= {name: None for name in NAMED if name in columns}
    for name in more:
        if name not in columns:
            raise ValueError(
                f"there is no column {name!r} to tell rates by; choose from "
                f"{some_names(columns, name)}"
            )
        value = columns[name]
        if value.dtype.kind not in "fiu":
            edges[name] = None
            continue
        known = value[np.isfinite(value)]
        if not len(known):
            raise ValueError(f"nothing is known in the column {name!r}")
        if value.dtype.kind in "iu" and len(np.unique(known)) <= PARTS:
            edges[name] = None
            continue
        found = np.unique(np.quantile(known, np.linspace(0, 1, PARTS + 1)))
        found = found if len(found) > 1 else np.repeat(found, 2)
        found[-1] = np.nextafter(found[-1], np.inf)  # bins are open above
        edges[name] = found
    return edges


def evaluate(
    score: Floats,
    label: Ints,
    group: Strings,
    columns: Mapping[str, np.ndarray],
    point: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    by: Sequence[str] = (),
    draws: int = 200,
) -> dict[str, Any]:
    """Evaluate scores of data that chose nothing.

    Args:
        score: Shape (n,).
        label: The truth, 1 or 0, shape (n,).
        group: Object of each, shape (n,).
        columns: Anything known of each; those of ``BINNED`` and ``NAMED`` are used.
        point: An :func:`operating_point` chosen on other data.
        rng: Source of the bootstrap.
        by: Names of further columns to tell rates by, see :func:`bins_of`.
        draws: Of the bootstrap.

    Returns:
        ``summary``; ``confusion`` at the threshold, at 0 and at each TPR; ``by`` column; for the
        calibration ``brier``, ``calibration_error`` and ``reliability``, raw and calibrated;
        ``night``.
    """
    points = curve(score, label)
    whole = summary(score, label, resampled(score, label, group, rng, draws=draws))
    calibration = Calibration(**point["calibration"])
    share = float(np.mean(np.asarray(label) == 1))
    probabilities = {
        "raw": 1 / (1 + np.exp(-np.asarray(score, np.float64).clip(-500, 500))),
        "calibrated": calibration.probability(score, share),
    }
    thresholds = {"chosen": point["threshold"], "even": 0.0}
    thresholds |= {f"tpr_{t:g}": points.threshold[points.at_tpr(t)] for t in (0.9, 0.983)}
    by_column = {
        name: by_bin(score, label, point["threshold"], columns[name], edges)
        for name, edges in bins_of(columns, by).items()
    }
    p = probabilities["calibrated"]
    return {
        "summary": whole,
        "threshold": point["threshold"],
        "confusion": {name: confusion(score, label, t) for name, t in thresholds.items()},
        "by": by_column,
        "calibration": {
            name: {
                "brier": brier(value, label),
                "calibration_error": calibration_error(value, label),
                "reliability": reliability(value, label),
            }
            for name, value in probabilities.items()
        },
        "expected_false_here": expected_false(p, score, point["threshold"]),
        "night": night(point, score, label),
    }


def write(folder: Path, found: Mapping[str, Any], score: Floats, label: Ints, name: str) -> None:
    """Write an evaluation as JSON and pictures.

    Args:
        folder: Where to; ``evaluation.json`` comes last.
        found: What :func:`evaluate` gave.
        score: The scores it was given.
        label: The labels it was given.
        name: Of the classifier.
    """
    figures = {
        "trade_off": trade_off({name: (score, label)}),
        "scores": histograms(score, label, found["threshold"]),
        "reliability": reliability_picture(
            {kind: table["reliability"] for kind, table in found["calibration"].items()}
        ),
    }
    for column, rows in found["by"].items():
        if len(rows) > 1:
            unit = f" [{UNITS[column]}]" if column in UNITS else ""
            text = column.replace("_", " ") + unit
            figures[f"by_{column}"] = rates_picture(rows, text, named=column in NAMED)
    for old in folder.glob("by_*.png"):  # of columns that an earlier evaluation had
        if old.stem not in figures:
            old.unlink()
    for title, figure in figures.items():
        write_atomic(folder / f"{title}.png", partial(figure.savefig, format="png"))
    write_json(folder / "evaluation.json", dict(found))
