"""The evaluation of a classifier of stamps as one self-contained HTML file."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa

from skyvec import __version__, store
from skyvec.realbogus.evaluation import NAMED
from skyvec.realbogus.pictures import MOST_NAMES
from skyvec.report import page
from skyvec.report.page import Section

PAGE = "evaluation.html"
WORST = 10
"""Of the bins that are names so many are told in a table."""
MEASURES = {"auc": "AUC", "fpr_at_0.9": "FPR at TPR 0.9", "fpr_at_0.983": "FPR at TPR 0.983"}
POINTS = {
    "chosen": "the frozen threshold",
    "even": "even odds",
    "tpr_0.9": "TPR 0.9 here",
    "tpr_0.983": "TPR 0.983 here",
}
PARTS = {"raw": "score as log-odds", "calibrated": "calibrated"}


def evaluation_page(survey: Path, model: str) -> Path:
    """Put the numbers and pictures of an evaluation on one page.

    Args:
        survey: The survey that the classifier was measured on.
        model: Name of the classifier.

    Returns:
        The file ``evaluation.html``, beside ``evaluation.json`` and the pictures.

    Raises:
        FileNotFoundError: The classifier was not evaluated on this survey.
    """
    folder = store.answers_folder(survey, "evaluation", model)
    path = folder / "evaluation.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{model} was not measured on {survey}; run `skyvec realbogus evaluate {model} "
            f"--survey {survey}` first"
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    sections = [
        _glance(found),
        _trade_off(folder, found),
        _calibration(folder, found),
        _where(folder, found),
    ]
    text = page.page(
        f"Real or bogus: {model}",
        f"measured on {survey.resolve().name}, on stamps that trained and chose nothing",
        sections,
        f"skyvec {__version__}; all numbers are in {path.name}",
    )
    store.write_text(folder / PAGE, text)
    return folder / PAGE


def _drawn(folder: Path, name: str, text: str) -> str:
    return page.picture((folder / f"{name}.png").read_bytes(), text)


def _glance(found: Mapping[str, Any]) -> Section:
    whole, night = found["summary"], found["night"]
    rows = [
        {"measure": name, "value": whole[key], "low": low, "high": high}
        for key, name in MEASURES.items()
        for low, high in [whole["bootstrap"][key]]
    ]
    body = page.counts({"reals": whole["reals"], "bogus": whole["bogus"]})
    body += page.table(pa.Table.from_pylist(rows))
    body += "<h3>A night</h3>" + page.counts(
        {
            "detections": night["detections"],
            "of them real": night["reals"],
            "candidates above the threshold": round(night["candidates"]),
            "reals among them": round(night["found"]),
            "precision": night["precision"],
            "false, as promised without labels": round(night["promised_false"]),
        }
    )
    return Section(
        "glance",
        "At a glance",
        "low and high enclose 95 %, all detections of an object drawn together. The night is what "
        "the measured rates give for one of a wide survey; what the calibrated probabilities "
        "alone promise should be near its false candidates.",
        body,
    )


def _trade_off(folder: Path, found: Mapping[str, Any]) -> Section:
    rows = [
        {
            "threshold": name,
            "reals kept": found["confusion"][key]["tp"],
            "reals lost": found["confusion"][key]["fn"],
            "bogus kept": found["confusion"][key]["fp"],
            "bogus left out": found["confusion"][key]["tn"],
        }
        for key, name in POINTS.items()
    ]
    body = _drawn(folder, "trade_off", "Reals lost against bogus kept; dots at TPR 0.9 and 0.983.")
    body += page.table(pa.Table.from_pylist(rows))
    body += _drawn(folder, "scores", "Scores of both classes, and the frozen threshold.")
    return Section(
        "trade",
        "Thresholds",
        "The frozen threshold was chosen on other stamps, the others on these.",
        body,
    )


def _calibration(folder: Path, found: Mapping[str, Any]) -> Section:
    rows = [
        {
            "probability": name,
            "Brier": found["calibration"][key]["brier"],
            "calibration error": found["calibration"][key]["calibration_error"],
        }
        for key, name in PARTS.items()
    ]
    body = page.table(pa.Table.from_pylist(rows))
    caption = "Observed against predicted, exact 95 % intervals; an arrow is a bin without reals."
    return Section(
        "calibration",
        "Probabilities",
        "What is called real with probability p should be real in a share p of the cases.",
        body + _drawn(folder, "reliability", caption),
    )


def _where(folder: Path, found: Mapping[str, Any]) -> Section:
    body = ""
    for column, rows in found["by"].items():
        if not (folder / f"by_{column}.png").exists():
            continue
        name = column.replace("_", " ")
        body += f"<h3>{escape(name)}</h3>"
        body += _drawn(folder, f"by_{column}", f"By {name}, exact 95 % intervals.")
        shown = _worst(rows) if column in NAMED or len(rows) > MOST_NAMES else rows
        body += page.table(pa.Table.from_pylist([_rates(row) for row in shown]))
    return Section(
        "where",
        "Where it is good",
        f"At the frozen threshold. Of names the {WORST} that surely keep most bogus are listed: "
        "those with the highest lower end of the interval.",
        body or "<p>Nothing is known of these detections to tell rates by.</p>",
    )


def _worst(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: -row["fpr_low"] if row["bogus"] else 1)[:WORST]


def _rates(row: Mapping[str, Any]) -> dict[str, Any]:
    told = {"bin": row["bin"]}
    for kind, rate in (("reals", "tpr"), ("bogus", "fpr")):
        ends = {f"{rate.upper()} {end}": row[f"{rate}_{end}"] for end in ("low", "high")}
        told |= {kind: row[kind], rate.upper(): row[rate]}
        told |= ends if row[kind] else dict.fromkeys(ends)
    return told
