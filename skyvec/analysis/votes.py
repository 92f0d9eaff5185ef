"""From the votes of volunteers to classes: a decision tree's cascade, with its thresholds as data.

``decals_votes.csv`` holds the cascade of Galaxy Zoo DECaLS as Xu et al. chose it; another is
another table of the same columns:

* ``question``, ``label``: a class of a question;
* ``column``, ``above``: the vote fraction must be greater than this;
* ``need``: whether ``all`` conditions of the class must hold, or ``any`` one;
* ``source``: of the threshold (``talk`` and ``code`` are the authors', ``skyvec`` ours).
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skyvec.schema import Strings

DECALS = Path(__file__).with_name("decals_votes.csv")
COLUMNS = ("question", "label", "need", "column", "above")


class Condition(NamedTuple):
    """One vote fraction that must be exceeded."""

    column: str
    above: float


class Class(NamedTuple):
    """One answer to a question, and what must hold for it.

    Args:
        question: Such as ``edge_on``.
        label: Such as ``yes``.
        need: ``all`` or ``any`` of the conditions.
        conditions: At least one.
    """

    question: str
    label: str
    need: str
    conditions: tuple[Condition, ...]


def read_cascade(path: Path = DECALS) -> list[Class]:
    """Read a table of thresholds.

    Args:
        path: CSV with the columns ``question``, ``label``, ``need``, ``column``, ``above``;
            further columns are notes.

    Returns:
        The classes in the order of their first row.

    Raises:
        ValueError: A column is missing, a threshold is no number in [0, 1), or ``need`` is
            neither all nor any, or not the same throughout a class.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            raise ValueError(
                f"{path} lacks the column {absent[0]!r}; it needs {', '.join(COLUMNS)}"
            )
        found: dict[tuple[str, str], Class] = {}
        for number, row in enumerate(reader, 2):
            try:
                above = float(row["above"])
            except (TypeError, ValueError):
                above = float("nan")
            if not 0 <= above < 1:
                raise ValueError(
                    f"{path}, line {number}: above = {row['above']!r} must be a number in [0, 1)"
                )
            key = row["question"], row["label"]
            known = found.setdefault(key, Class(*key, row["need"], ()))
            if row["need"] not in ("all", "any") or known.need != row["need"]:
                raise ValueError(
                    f"{path}, line {number}: need = {row['need']!r} must be all or any, and the "
                    "same for a whole class"
                )
            conditions = (*known.conditions, Condition(row["column"], above))
            found[key] = known._replace(conditions=conditions)
    return list(found.values())


def labels_from_votes(
    votes: Mapping[str, ArrayLike],
    cascade: Sequence[Class] | None = None,
    *,
    questions: Sequence[str] | None = None,
) -> dict[str, Strings]:
    """Give each galaxy its class of each question, where the votes agree enough.

    Args:
        votes: Vote fractions by column, in [0, 1] or NaN where nobody was asked, shape (n,) each.
        cascade: The thresholds; of Galaxy Zoo DECaLS where none is given.
        questions: Which to answer; those for which all columns are there, if none is named.

    Returns:
        By question the label of each galaxy, shape (n,); empty where no class's conditions hold,
        or those of several. An unknown fraction fulfils no condition.

    Raises:
        KeyError: A question is unknown, or a column it needs is missing.
        ValueError: Fractions are out of [0, 1], lengths differ, or no question can be answered.

    References:
        Walmsley et al. 2022, MNRAS 509, 3966 (the votes); Xu et al. 2023, MNRAS 526, 6391.
    """
    classes = list(read_cascade() if cascade is None else cascade)
    known = list(dict.fromkeys(one.question for one in classes))
    needed = {
        name: {c.column for one in classes if one.question == name for c in one.conditions}
        for name in known
    }
    if questions is None:
        questions = [name for name in known if needed[name] <= set(votes)]
        if not questions:
            raise ValueError(
                f"no question can be answered from the columns {', '.join(sorted(votes))}; "
                f"{known[0]} needs {', '.join(sorted(needed[known[0]]))}"
            )
    answers: dict[str, Strings] = {}
    for name in questions:
        if name not in needed:
            raise KeyError(f"unknown question {name!r}; the cascade has {', '.join(known)}")
        missing = sorted(needed[name] - set(votes))
        if missing:
            raise KeyError(f"the question {name!r} needs the vote fraction {missing[0]!r}")
        columns = {column: _fractions(votes[column], column) for column in needed[name]}
        answers[name] = _answer([one for one in classes if one.question == name], columns)
    return answers


def _fractions(values: ArrayLike, name: str) -> NDArray[np.float64]:
    fractions = np.asarray(values, np.float64)
    # a millionth for the rounding of stored sums
    if fractions.ndim != 1 or ((fractions < 0) | (fractions > 1 + 1e-6)).any():
        raise ValueError(f"{name} must be vote fractions in [0, 1] or NaN, of shape (n,)")
    return fractions


def _answer(classes: Sequence[Class], columns: Mapping[str, NDArray[np.float64]]) -> Strings:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise ValueError(f"vote fractions have different lengths: {sorted(lengths)}")
    holds = []
    for one in classes:
        each = np.stack([columns[c.column] > c.above for c in one.conditions])
        holds.append(each.all(axis=0) if one.need == "all" else each.any(axis=0))
    met = np.stack(holds)
    names = np.array([one.label for one in classes], dtype=np.str_)
    return np.where(met.sum(axis=0) == 1, names[met.argmax(axis=0)], "").astype(np.str_)
