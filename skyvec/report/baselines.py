"""The row nobody may skip: hand-crafted codes beside every learned one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from skyvec import store
from skyvec.encode import encode
from skyvec.prep.codes import baselines_of
from skyvec.report import answers


def compare(
    survey: Path,
    model: str,
    *,
    label: str | None = None,
    baselines: bool = True,
    keep: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> pa.Table:
    """Probe a model's latents and, in the rows below, those of the hand-crafted codes.

    Baselines that the survey lacks (or that lack new objects) are made first.

    Args:
        survey: The survey's folder.
        model: Name of the model.
        label: Column of the classes; see :func:`skyvec.report.answers.label_column`.
        baselines: Whether to put the baselines below.
        keep: Only these segments take part; None = all.
        seed: Of the folds, the forest and the bootstrap; the same for every row.
        progress: Called while baselines are made.

    Returns:
        The rows of :func:`skyvec.report.answers.probe`.

    Raises:
        ValueError: The survey has no classes, or too few of each.
        ModuleNotFoundError: A baseline needs a package that is not installed.
    """
    rows = [answers.probe(survey, model, label=label, keep=keep, seed=seed).table]
    for name in baselines_of(store.survey_kind(survey)) if baselines else ():
        if name == model:
            continue
        encode(survey, name, progress=progress)
        rows.append(answers.probe(survey, name, label=label, keep=keep, seed=seed).table)
    return pa.concat_tables(rows)
