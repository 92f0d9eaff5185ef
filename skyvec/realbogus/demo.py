"""Two stages on a made-up survey whose labels are partly wrong, from nothing to findings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from skyvec.realbogus.operating import freeze, part_of
from skyvec.realbogus.river import (
    SUSPECTS,
    evaluate_model,
    find_suspects,
    score_night,
    suspect_ids,
    train_survey,
)
from skyvec.realbogus.samples import write_survey
from skyvec.realbogus.suspects import found
from skyvec.schema import Catalog
from skyvec.sim.stamps import flip_labels, simulate_stamps
from skyvec.store import (
    StoreError,
    answers_folder,
    finished_items,
    model_folder,
    read_catalog,
    write_text,
)

NOISE = 0.05
"""Fraction of each class that gets the wrong label."""
ARMS = {
    "one-stage": "labels as they are",
    "two-stage": "without the suspects",
    "looked-at": "suspects judged by a person, for whom the truth stands in",
}
"""Names of the trainings, and what each does with the suspects."""
REALS = 0.02
"""Fraction of the night's detections that is real."""


def simulate_survey(
    survey: Path,
    n: int,
    *,
    reals: float = 0.5,
    observed: bool = False,
    noise: float = 0.0,
    seed: int = 0,
    name: str = "sim",
) -> Path:
    """Write a survey of made-up detections, with its truth (``is_real``) and labels (``label``).

    Args:
        survey: A new folder, or one this function made in the same way: then it is left as it is,
            or gone on with.
        n: Detections.
        reals: Fraction that is real.
        observed: See :func:`skyvec.sim.stamps.simulate_stamps`.
        noise: Fraction of each class that is labelled wrong.
        seed: Another seed, another survey.
        name: Begins all keys.

    Raises:
        StoreError: The folder holds other stamps.
    """
    source = f"simulated {n} as {name}, {reals:g} real, {observed=}, noise {noise:g}, seed {seed}"
    done = finished_items(survey) if (survey / "objects").is_dir() else {}
    if foreign := sorted(set(done) - {source}):
        raise StoreError(f"{survey} holds other stamps ({foreign[0]}); choose a new folder")
    if done.get(source) == n:
        return survey
    rng = np.random.default_rng(seed)
    n_real = round(n * reals)
    stamps, catalog = simulate_stamps(n_real, n - n_real, rng, observed=observed, name=name)
    truth = catalog.columns["is_real"]
    labels = np.where(flip_labels(truth, noise, noise, rng), "real", "bogus")
    columns = {key: value for key, value in catalog.columns.items() if key not in stamps_columns}
    full = Catalog(catalog.id, catalog.target, catalog.ra, catalog.dec,
                   {**columns, "label": labels})  # fmt: skip
    write_survey(survey, stamps, full, source)
    return survey


stamps_columns = ("detector", "exposure", "object")
"""What the stamps themselves keep."""


def demo(out: Path, n: int, *, steps: int, seed: int, tell: Callable[[str], object]) -> list[str]:
    """Simulate, find wrong labels, train with, without and with judged suspects, score a night.

    Args:
        out: Folder of the two surveys.
        n: Detections to learn from; ten times as many are tested on and scored.
        steps: Of each training of the small networks used here.
        seed: Of everything.
        tell: Called with what is being done.

    Returns:
        Findings, a sentence each.
    """
    tell(f"simulating {n:,} detections to learn from, {NOISE:.0%} of each class labelled wrong")
    learn = simulate_survey(out / "learn", n, noise=NOISE, seed=seed, name="learn")
    tell(f"simulating a night of {10 * n:,} detections, {REALS:.0%} of them real")
    night = simulate_survey(
        out / "night", 10 * n, reals=REALS, observed=True, seed=seed + 1, name="night"
    )
    recipe: dict[str, Any] = {
        "data": {"normalise": "asinh", "stamps": n},
        "model": {"name": "simple"},
        "train": {
            "steps": steps,
            "batch": 64,
            "lr": 8e-3,  # few steps want large ones: at 1e-3 thrice as many bogus are left
            "schedule": "cosine",
            "warm_up": steps // 10,
            "clip": 1.0,
            "validate_every": max(1, steps // 10),
        },
    }
    tell("first stage: five folds, every label judged by a network that never saw the stamp")
    folder, _, _ = find_suspects(learn, recipe, "demo", shown=60)
    findings = [_suspects_found(learn)]
    verdicts = _judge(learn, folder)
    doubted = suspect_ids(learn, "demo")
    for name, what in ARMS.items():
        tell(f"training {name}: {what}")
        treatment = "remove" if name == "two-stage" else "keep"
        given = verdicts if name == "looked-at" else None
        train_survey(learn, recipe, name, treatment=treatment, doubts="demo", verdicts=given)
        model = model_folder(learn, name)
        # what is known to be doubtful must not tell how sure a score is
        without = None if name == "one-stage" else doubted
        valid = part_of(model, learn, "valid", without=without)
        freeze(model, valid, prevalence=REALS)
        tell("measuring on the night, whose labels are true")
        lines = evaluate_model(night, name, home=learn, seed=seed)
        findings.append(f"{name} ({what}): {lines[2]}; {lines[1]}")
    tell("scoring the night as if nothing were known of it")
    findings += score_night(night, "looked-at", home=learn)
    findings.append(f"doubtful labels to look at: {folder / 'gallery.html'}")
    return findings


def _judge(survey: Path, folder: Path) -> Path:
    """Write the truth of all suspects as a person would write verdicts."""
    catalog = read_catalog(survey, ["is_real"])
    truth = dict(zip(catalog.id.tolist(), catalog.columns["is_real"].tolist()))
    rows = (
        f"{key},{'real' if truth[key] else 'bogus'},truth"
        for key in suspect_ids(survey, "demo").tolist()
    )
    path = folder / "verdicts.csv"
    write_text(path, "\n".join(["id,verdict,who", *rows]) + "\n")
    return path


def _suspects_found(survey: Path) -> str:
    catalog = read_catalog(survey, ["label", "is_real"])
    wrong_label = (catalog.columns["label"] == "real") != catalog.columns["is_real"]
    wrong = dict(zip(catalog.id.tolist(), wrong_label.tolist()))
    table = pq.read_table(answers_folder(survey, "suspects", "demo") / SUSPECTS)
    chosen = table["suspect"].to_numpy(zero_copy_only=False)
    truth = np.array([wrong[key] for key in table["id"].to_pylist()])
    figures = found(chosen, truth)
    return (
        f"{figures['suspects']:,} suspects; {figures['recall']:.0%} of the "
        f"{figures['wrong']:,} wrong labels are among them, and {figures['precision']:.0%} of the "
        "suspects are wrong"
    )
