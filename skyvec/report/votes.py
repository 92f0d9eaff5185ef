"""Questions that volunteers voted on: what codes know of each, beside the hand-crafted ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from skyvec import store
from skyvec.analysis.probes import ProbeRow, probe_questions
from skyvec.analysis.votes import Class, labels_from_votes, read_cascade
from skyvec.encode import encode
from skyvec.prep.codes import baselines_of
from skyvec.report.answers import checked_latents
from skyvec.schema import Strings


def survey_votes(survey: Path, cascade: Sequence[Class] | None = None) -> dict[str, Strings]:
    """Answer the questions of a cascade for every segment of a survey, in the order it is stored.

    Args:
        survey: A survey whose catalogue has columns of vote fractions.
        cascade: The thresholds; of Galaxy Zoo DECaLS where none is given.

    Returns:
        By question the label of each segment; see :func:`labels_from_votes`.

    Raises:
        ValueError: No question can be answered from the columns, or they hold no fractions.
    """
    classes = list(read_cascade() if cascade is None else cascade)
    needed = {condition.column for one in classes for condition in one.conditions}
    kinds = store.column_kinds(survey)
    there = sorted(name for name in needed if kinds.get(name) == "number")
    if not there:
        raise ValueError(
            f"{survey} has none of the columns of votes ({', '.join(sorted(needed)[:3])}, ...); "
            "ingest with --catalog, or name the thresholds of your own columns with --votes TABLE"
        )
    votes = store.read_catalog(survey, there).columns
    return labels_from_votes(votes, classes)


def probe_votes(
    survey: Path,
    model: str,
    *,
    cascade: Sequence[Class] | None = None,
    baselines: bool = True,
    keep: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
    **options: Any,
) -> tuple[pa.Table, pa.Table]:
    """Probe every question that the votes answer, object by object held out.

    Args:
        survey: The survey's folder.
        model: Whose latents are asked.
        cascade: The thresholds; of Galaxy Zoo DECaLS where none is given.
        baselines: Whether to ask the hand-crafted codes too; missing ones are made first.
        keep: Only these segments take part; None = all.
        seed: Of the folds, the forest and the bootstrap; the same for every code.
        progress: Called while baselines are made.
        options: Further arguments of :func:`skyvec.analysis.probes.probe`.

    Returns:
        A row a question and code: how many took part, and of each probe the balanced accuracy
        with its 95 % interval (``linear``, ``linear_low``, ``linear_high``, ...; ``majority`` =
        that of always naming the commonest class). And the confusion matrices: a row a question,
        code, probe, true class and class given, with the number of segments.

    Raises:
        ValueError: No question has two classes of enough objects.
    """
    catalog = store.read_catalog(survey, [])
    labels = survey_votes(survey, cascade)
    names = [model]
    for name in baselines_of(store.survey_kind(survey)) if baselines else ():
        if name != model:
            encode(survey, name, progress=progress)
            names.append(name)
    rows: list[dict[str, Any]] = []
    confusions: list[dict[str, Any]] = []
    for name in names:
        latents = checked_latents(survey, name)
        if keep is not None:
            latents = latents.take(np.isin(latents.id, list(keep)))
        place = catalog.rows(latents.id)
        found = probe_questions(
            latents.vectors,
            {question: classes[place] for question, classes in labels.items()},
            latents.target,
            rng=np.random.default_rng(seed),
            **options,
        )
        for question, probes in found.items():
            rows.append(_row(question, name, probes))
            for one in probes:
                confusions += _confusion(question, name, one)
    if not rows:
        counts = {name: len(np.unique(one[one != ""])) for name, one in labels.items()}
        raise ValueError(
            f"no question of {survey} has two classes of enough objects (classes: {counts}); "
            "other thresholds can be given with --votes TABLE"
        )
    order = {question: i for i, question in enumerate(labels)}
    rows.sort(key=lambda row: order[row["question"]])  # stable: the model before the baselines
    return pa.Table.from_pylist(rows), pa.Table.from_pylist(confusions)


def _row(question: str, model: str, probes: Sequence[ProbeRow]) -> dict[str, Any]:
    first = probes[0]
    row: dict[str, Any] = {
        "question": question,
        "model": model,
        "segments": first.segments,
        "objects": first.targets,
        "classes": len(first.classes),
    }
    for one in probes:
        row[one.probe] = one.balanced_accuracy
        if one.probe != "majority":
            row[f"{one.probe}_low"] = one.balanced_accuracy_low
            row[f"{one.probe}_high"] = one.balanced_accuracy_high
    return row


def _confusion(question: str, model: str, probe: ProbeRow) -> list[dict[str, Any]]:
    return [
        {
            "question": question,
            "model": model,
            "probe": probe.probe,
            "truth": truth,
            "called": called,
            "segments": int(probe.confusion[i, j]),
        }
        for i, truth in enumerate(probe.classes)
        for j, called in enumerate(probe.classes)
    ]
