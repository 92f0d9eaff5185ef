"""The stages as they work on survey folders: train, suspect, score, evaluate."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skyvec.batches import check_device
from skyvec.nn.labels import UNLABELLED
from skyvec.realbogus.calibration import (
    Calibration,
    expected_false,
    night_prevalence,
    still_alike,
    unlike,
)
from skyvec.realbogus.evaluation import evaluate, write
from skyvec.realbogus.gallery import NAMES, gallery, read_verdicts, side_by_side
from skyvec.realbogus.operating import (
    calibration_of,
    cascade,
    freeze,
    frozen,
    judge,
    part_of,
)
from skyvec.realbogus.pictures import stamps_picture
from skyvec.realbogus.samples import read_samples
from skyvec.realbogus.score import score_survey
from skyvec.realbogus.suspects import check_selector, doubt, out_of_fold, suspects
from skyvec.realbogus.train import (
    TARGET,
    TREATMENTS,
    Draw,
    Samples,
    complete,
    split,
    train_on,
    treat,
)
from skyvec.schema import Stamps, Strings
from skyvec.store import (
    answers_folder,
    check_survey,
    iterate_objects,
    model_folder,
    read_catalog,
    read_manifest,
    write_atomic,
    write_json,
    write_table,
)
from skyvec.train import Progress

SUSPECTS = "suspects.parquet"
SHEET = 16
"""Suspects on the picture that is looked at first."""


def train_survey(
    survey: Path,
    recipe: Mapping[str, Any],
    name: str,
    *,
    treatment: str = "keep",
    doubts: str = "",
    verdicts: Path | None = None,
    target: Path | None = None,
    progress: Callable[[Progress], object] | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> Path:
    """Train a classifier on a survey, its suspects treated as asked for.

    A treatment changes what is learnt from and what chooses the weights, never what tests.

    Args:
        survey: A survey of stamps.
        recipe: The tables ``data``, ``model``, ``loss`` and ``train``.
        name: Of the model.
        treatment: ``keep``, ``remove``, ``unlabel`` or ``flip`` the suspects.
        doubts: Name under which :func:`find_suspects` wrote them; needed unless they are kept.
        verdicts: CSV of a person's verdicts, which stand above labels and suspects.
        target: Survey of another instrument, whose stamps the classifier is adapted to; labels
            that it may have are not read.
        progress: Called after every step.
        threads: Threads of torch.
        device: Where torch computes.
    """
    data = Draw(**complete(recipe)["data"])
    if treatment not in TREATMENTS:
        raise ValueError(f"suspects={treatment!r} is unknown; choose from {', '.join(TREATMENTS)}")
    check_device(device)
    check_survey(survey)
    if target is not None and target.resolve() == survey.resolve():
        raise ValueError(
            f"{target} is the survey that the labels are of; a target is another instrument's"
        )
    answers = read_verdicts(verdicts, read_catalog(survey, []).id) if verdicts else {}
    samples = read_samples(survey, data)
    suspect = np.zeros(len(samples), bool)
    if treatment != "keep":
        if not doubts:
            raise ValueError(
                f"to {treatment} suspects they must be known: run `skyvec realbogus suspects` and "
                "give its name with --doubts"
            )
        suspect = np.isin(samples.id, suspect_ids(survey, doubts))
    decided = np.isin(samples.id, np.array(list(answers), dtype=np.str_))
    label = np.array(
        [answers.get(key, old) for key, old in zip(samples.id.tolist(), samples.label.tolist())],
        np.int64,
    )
    parts = split(samples, data)
    changed, stays = treat(label, suspect & ~decided & (parts != 2), treatment)
    parts = np.where(stays, parts, -1)
    theirs = None
    if target is not None:
        theirs = read_samples(target, replace(data, detectors=()), labelled=False)
    return train_on(
        samples.with_label(changed),
        recipe,
        model_folder(survey, name),
        parts=parts,
        target=theirs,
        progress=progress,
        threads=threads,
        device=device,
    )


def find_suspects(
    survey: Path,
    recipe: Mapping[str, Any],
    name: str,
    *,
    how: str = "argmax",
    level: float = 0.7,
    folds: int = 5,
    shown: int = 200,
    progress: Callable[[int, Progress], object] | None = None,
    threads: int | None = None,
) -> tuple[Path, int, int]:
    """Score a survey out of fold, choose suspects, write a table and a page of the worst.

    Args:
        survey: A survey of stamps.
        recipe: Of the first stage.
        name: Of the answer.
        how: ``argmax``, ``threshold`` or ``confident``.
        level: Of ``threshold``.
        folds: How many.
        shown: Stamps on the page.
        progress: Called with the fold and where its training stands.
        threads: Threads of torch.

    Returns:
        The folder with ``suspects.parquet`` (``id``, ``label``, ``score``, ``doubt``, ``fold``,
        ``suspect``; most doubtful first), ``gallery.html`` and ``suspects.png``, the first
        ``SHEET`` of it; suspects; labelled stamps.
    """
    full = complete(recipe)
    check_selector(how, level)
    samples = read_samples(survey, Draw(**full["data"]))
    folder = answers_folder(survey, "suspects", name)
    score, fold = out_of_fold(
        samples, full, folder / "folds", folds=folds, progress=progress, threads=threads
    )
    chosen = suspects(score, samples.label, how, level=level, fold=fold)
    wrong = doubt(score, samples.label)
    order = np.argsort(-np.where(np.isnan(wrong), -np.inf, wrong), kind="stable")
    write_table(
        folder / SUSPECTS,
        pa.table(
            {
                "id": pa.array(samples.id[order]),
                "label": samples.label[order],
                "score": score[order],
                "doubt": wrong[order],
                "fold": fold[order],
                "suspect": chosen[order],
            }
        ),
    )
    write_json(folder / "how.json", {"how": how, "level": level, "folds": folds, "recipe": full})
    first = order[:shown]
    first = first[samples.label[first] != UNLABELLED]
    raw = _raw(survey, samples.take(first))
    notes = [
        f"detector {samples.detector[i]}, exposure {samples.exposure[i]}, fold {fold[i]}"
        for i in first
    ]
    gallery(
        folder / "gallery.html",
        samples.id[first],
        raw,
        samples.label[first],
        score[first],
        wrong[first],
        notes=notes,
        title=f"Doubtful labels of {survey.name}",
    )
    if len(first):
        sheet = stamps_picture(
            [side_by_side(stamp) for stamp in raw[:SHEET]],
            [f"labelled {NAMES[int(samples.label[i])]}, score {score[i]:+.1f}" for i in first],
        )
        write_atomic(folder / "suspects.png", partial(sheet.savefig, format="png", dpi=120))
    return folder, int(chosen.sum()), int((samples.label != UNLABELLED).sum())


def suspect_ids(survey: Path, name: str) -> NDArray[np.str_]:
    """Keys of the suspects that :func:`find_suspects` wrote under a name.

    Raises:
        ValueError: There are none under that name.
    """
    path = survey / "answers" / f"suspects-{name}" / SUSPECTS
    if not path.exists():
        raise ValueError(f"no suspects {name!r} in {survey}; run `skyvec realbogus suspects`")
    table = pq.read_table(path)
    named = np.array(table["id"].to_pylist(), dtype=np.str_)
    return named[table["suspect"].to_numpy(zero_copy_only=False)]


def adapted_to(folder: Path) -> NDArray[np.str_]:
    """Ids of the stamps that a model was adapted to, shape (n,); none where it was not."""
    path = folder / TARGET
    ids = pq.read_table(path)["id"].to_pylist() if path.exists() else []
    return np.array(ids, dtype=np.str_)


def overlap(folder: Path, ids: Strings) -> list[str]:
    """Say of how many stamps a model has seen the pixels while it was adapted; nothing of none."""
    seen = int(np.isin(ids, adapted_to(folder)).sum())
    if not seen:
        return []
    return [
        f"warning: the model was adapted to {seen:,} of these {len(ids):,} stamps (without their "
        "labels); on others of the same instrument it may do worse"
    ]


def _raw(survey: Path, samples: Samples) -> np.ndarray:
    """Raw stamps of some samples, in their order."""
    found: dict[str, np.ndarray] = {}
    for _, _, stamps in iterate_objects(survey, Stamps):
        for i in np.flatnonzero(np.isin(stamps.id, samples.id)):
            found[str(stamps.id[i])] = stamps.pixels[i]
    shape = samples.pixels.shape[1:]
    return (
        np.array([found[key] for key in samples.id.tolist()]) if found else np.zeros((0, *shape))
    )


def score_night(
    survey: Path,
    model: str,
    *,
    home: Path,
    prevalence: float | None = None,
    workers: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> list[str]:
    """Score a survey with a frozen model, and say what the night brought.

    Args:
        survey: The night's stamps.
        model: Name of the classifier.
        home: The survey that holds it.
        prevalence: Of reals among the detections; none for that of the operating point, or, where
            it has none, to let the night's scores tell it. They do so rightly only where reals and
            bogus score as they did where the model was calibrated; where they do not, a line says
            so and no number of false candidates is given.
        workers: Threads.
        progress: Called with the stamps done and their number.

    Returns:
        Lines that say how many were received, scored, screened and flagged (and why), the
        prevalence, the candidates and how many of them are expected to be false.
    """
    check_survey(survey)
    folder = model_folder(home, model)
    point = frozen(folder)
    first, pass_at = cascade(folder, point)
    calibration = calibration_of(point)
    if prevalence is not None and not 0 < prevalence < 1:
        raise ValueError(f"prevalence={prevalence} must be in (0, 1)")
    prevalence = prevalence or point["prevalence"]
    out = answers_folder(survey, "scores", model)
    counts = score_survey(
        survey,
        out,
        judge(folder, turns=point.get("turns", False)),
        screen=first,
        pass_at=pass_at,
        calibration=calibration,
        prevalence=prevalence,
        workers=workers,
        progress=progress,
    )
    lines = [
        f"{counts['received']:,} received = {counts['scored']:,} scored + "
        f"{counts['screened']:,} screened out + {counts['flagged']:,} flagged; {out}"
    ]
    reasons, told = _night(out, calibration, point, prevalence)
    lines += [f"flagged: {n:,} {reason}" for reason, n in reasons.items()]
    write_json(out / "night.json", {**counts, **told, "reasons": reasons})
    if told.get("unlike", 0.0) > told.get("alike", np.inf):
        lines.append(
            f"warning: these scores are no mixture of those the model was calibrated on (distance "
            f"{told['unlike']:.2f}, at most {told['alike']:.2f} where so long a night is alike): "
            "another instrument or another sky. Its probabilities mean nothing here; label some "
            "of these stamps and choose a threshold on them with `skyvec realbogus threshold "
            "--from`"
        )
    if told.get("prevalence_told_at_its_end"):
        lines.append(
            f"warning: by their scores {'none' if told['prevalence'] < 0.5 else 'all'} of these "
            "detections are real: either so it is, or the calibration does not hold here (wrong "
            "labels, another sky); give --prevalence if it is known"
        )
    if told and "expected_false" not in told:
        lines.append(
            f"{told['candidates']:,.0f} candidates above {point['threshold']:.3f}; how many are "
            "false cannot be told (give --prevalence if it is known)"
        )
    elif told:
        lines.append(
            f"{told['candidates']:,.0f} candidates above {point['threshold']:.3f}; of them "
            f"{told['expected_false']:.1f} expected to be false "
            f"(reals among all detections: {told['prevalence']:.2e})"
        )
    return lines


def _night(
    out: Path, calibration: Calibration, point: Mapping[str, Any], prevalence: float | None
) -> tuple[dict[str, int], dict[str, float]]:
    """Stamps flagged by reason, and what the scores tell."""
    threshold = float(point["threshold"])
    files = [out / shard["file"] for shard in read_manifest(out)["shards"]]
    tables = [pq.read_table(path, columns=["score", "reason"]) for path in files]
    score = np.concatenate([t["score"].to_numpy() for t in tables] or [np.zeros(0)])
    known = score[np.isfinite(score)]
    reasons = Counter[str]()
    for table in tables:
        for count in pc.value_counts(table["reason"].cast(pa.string())).to_pylist():
            reasons[count["values"]] += count["counts"]
    screened = reasons.pop("screened", 0)
    reasons.pop("", None)
    if not len(known):
        return dict(reasons.most_common()), {}
    told: dict[str, float] = {
        "threshold": threshold,
        "candidates": float((known >= threshold).sum()),
    }
    if point.get("scores") and all(point["scores"].values()):
        told["unlike"] = unlike(known, **point["scores"])
        told["alike"] = still_alike(len(known))
    share = prevalence
    if share is None and told.get("unlike", 0.0) > told.get("alike", np.inf):
        return dict(reasons.most_common()), told
    if share is None:
        # what was screened out counts as bogus: it scores below all that was passed on
        everyone = np.concatenate([known, np.full(screened, known.min())])
        share = night_prevalence(calibration, everyone)
        if told["candidates"] and min(share, 1 - share) * len(everyone) < 1:
            told["prevalence_told_at_its_end"] = True
    p = calibration.probability(known, share)
    expected = expected_false(p, known, threshold)
    told |= {"prevalence": float(share), "expected_false": expected}
    return dict(reasons.most_common()), told


def evaluate_model(
    survey: Path, model: str, *, home: Path, by: Sequence[str] = (), seed: int = 0
) -> list[str]:
    """Measure a classifier on stamps that chose nothing; write JSON and pictures.

    Args:
        survey: Labelled stamps: the model's own survey (its test part counts) or another one.
        model: Name of the classifier.
        home: The survey that holds it.
        by: Names of further columns of the survey that TPR and FPR are told by.
        seed: Of the bootstrap.

    Returns:
        Lines for a person.
    """
    check_survey(survey)
    folder = model_folder(home, model)
    # however its path is written: of its own survey only the test part may be asked about
    own = home.resolve() == survey.resolve()
    samples = part_of(folder, survey, "test", own=own, most=1 << 31)
    if not (folder / "operating.json").exists():
        freeze(folder, part_of(folder, home, "valid"))
    point = frozen(folder)
    score = judge(folder, turns=point.get("turns", False)).engine(samples.pixels)
    found = evaluate(
        score,
        samples.label,
        samples.object,
        samples.columns,
        point,
        np.random.default_rng(seed),
        by=by,
    )
    out = answers_folder(survey, "evaluation", model)
    write(out, found, score, samples.label, model)
    whole, intervals = found["summary"], found["summary"]["bootstrap"]
    lines = [f"{whole['reals']:,} reals, {whole['bogus']:,} bogus"]
    lines += overlap(folder, samples.id)
    names = {
        "auc": "AUC",
        "fpr_at_0.9": "FPR at TPR 0.9",
        "fpr_at_0.983": "FPR at TPR 0.983",
    }
    for key, name in names.items():
        low, high = intervals[key]
        form = ".5f" if key == "auc" else ".3g"
        lines.append(f"{name}: {whole[key]:{form}} (95 %: {low:{form}} to {high:{form}})")
    at = found["confusion"]["chosen"]
    lines.append(
        f"at the frozen threshold {point['threshold']:.3f}: {at['tp']:,} of "
        f"{at['tp'] + at['fn']:,} reals kept, {at['fp']:,} of {at['fp'] + at['tn']:,} bogus"
    )
    table = found["calibration"]["calibrated"]
    lines.append(f"Brier {table['brier']:.5f}, calibration error {table['calibration_error']:.4f}")
    lines.append(
        f"a night of {found['night']['detections']:,.0f} detections with "
        f"{found['night']['reals']:,.0f} reals: {found['night']['found']:.0f} found among "
        f"{found['night']['candidates']:.0f} candidates; pictures in {out}"
    )
    return lines
