"""What is frozen beside a trained classifier before it meets a night: threshold, scale, screen."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyvec.checkpoint import CheckpointError
from skyvec.realbogus.calibration import Calibration, quantiles
from skyvec.realbogus.evaluation import operating_point
from skyvec.realbogus.fast import engine as fastest
from skyvec.realbogus.samples import read_samples
from skyvec.realbogus.score import Engine, Judge, screen_loss, screen_threshold, turned
from skyvec.realbogus.train import Draw, Samples, load, split
from skyvec.store import model_folder, write_json

FILE = "operating.json"
PARTS = {"train": 0, "valid": 1, "test": 2}


def part_of(
    folder: Path,
    survey: Path,
    part: str,
    *,
    own: bool = True,
    most: int | None = None,
    without: NDArray[np.str_] | None = None,
) -> Samples:
    """Give the labelled samples of one part of a survey, as a model's recipe divides it.

    Args:
        folder: The model's.
        survey: Of stamps.
        part: ``train``, ``valid`` or ``test``; meaningless where not ``own``.
        own: Whether the model was trained on this survey; otherwise all of it is used.
        most: Stamps to choose at most where not ``own``; those of the recipe by default.
        without: Keys of stamps to leave out, such as suspects, shape (m,).
    """
    _, recipe, _ = load(folder)
    data = Draw(**recipe["data"])
    if not own:
        data = Draw(**{**recipe["data"], "detectors": (), "stamps": most or data.stamps})
    samples = read_samples(survey, data)
    keep = samples.label >= 0
    if without is not None:
        keep &= ~np.isin(samples.id, without)
    if own:
        keep &= split(samples, data) == PARTS[part]
    return samples.take(np.flatnonzero(keep))


def freeze(
    folder: Path,
    samples: Samples,
    *,
    tpr: float = 0.9,
    prevalence: float | None = None,
    calibration: str = "temperature",
    screen: Path | None = None,
    engine: Engine | None = None,
    turns: bool = False,
) -> dict[str, Any]:
    """Choose threshold, calibration and screen on validation data and write them.

    Args:
        folder: The model's.
        samples: Labelled, normalised as the model wants them; of no stamp that trained it.
        tpr: Least fraction of the reals to keep.
        prevalence: Fraction of reals among the detections of a night; none for that here.
        calibration: ``temperature`` or ``isotonic``.
        screen: Folder of a faster model of the same scale and side that shall screen.
        engine: How the deciding network is computed; by default in the fastest exact way.
        turns: Let it score by the mean over the eight orientations of a stamp, here and in every
            night that is scored at this point; a screen sees one of them.

    Returns:
        What was written to ``operating.json``.
    """
    net, recipe, _ = load(folder)
    decide = engine or fastest(net)
    score = (turned(decide) if turns else decide)(samples.pixels)
    point = operating_point(
        score, samples.label, tpr=tpr, prevalence=prevalence, calibration=calibration
    )
    point["prevalence"], point["turns"] = prevalence, turns
    point["chosen_on"] = {
        "reals": int((samples.label == 1).sum()),
        "bogus": int((samples.label == 0).sum()),
    }
    passed = np.ones(len(score), bool)
    if screen is not None:
        if screen.resolve() == folder.resolve():
            raise ValueError(f"{screen.name} cannot screen for itself; name a faster model")
        fast, other, scores = load(screen)
        for key in ("normalise", "side"):
            if other["data"][key] != recipe["data"][key]:
                raise ValueError(
                    f"{screen.name} wants [data] {key} = {other['data'][key]!r}, {folder.name} "
                    f"{recipe['data'][key]!r}; train a screen with the same"
                )
        first = fastest(fast)(samples.pixels)
        at = screen_threshold(first, score, samples.label, point["threshold"])
        point["screen"] = {
            "name": screen.name,
            "hash": scores["hash"],
            "threshold": at,
            "passes": float((first[samples.label == 0] >= at).mean()),
            **screen_loss(first, score, samples.label, point["threshold"], at),
        }
        passed = first >= at
    # of what the network decides on in a night; they tell whether a night is like this one
    point["scores"] = {
        kind: quantiles(score[passed & (samples.label == label)])
        for kind, label in (("real", 1), ("bogus", 0))
    }
    write_json(folder / FILE, point)
    return point


def frozen(folder: Path) -> dict[str, Any]:
    """Read what was frozen.

    Raises:
        CheckpointError: Nothing was; the message says what to do.
    """
    path = folder / FILE
    if not path.exists():
        load(folder)  # without a model there is nothing to choose a point for
        raise CheckpointError(
            f"{folder.name} has no operating point; choose one with `skyvec realbogus threshold`"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def judge(folder: Path, engine: Engine | None = None, *, turns: bool = False) -> Judge:
    """Make ready what a night needs of a trained model, turned as its operating point says."""
    net, recipe, scores = load(folder)
    data, decide, sign = recipe["data"], engine or fastest(net), scores["hash"]
    if turns:
        decide, sign = turned(decide), f"{sign} turned"
    return Judge(decide, data["normalise"], data["side"], sign)


def cascade(folder: Path, point: Mapping[str, Any]) -> tuple[Judge | None, float]:
    """The frozen screen of a model, if it has one, and the score from which a stamp goes on.

    Raises:
        CheckpointError: The screen has been trained anew since.
    """
    if "screen" not in point:
        return None, -np.inf
    facts = point["screen"]
    first = judge(model_folder(folder.parent.parent, facts["name"]))
    if first.hash != facts["hash"]:
        raise CheckpointError(
            f"the screen {facts['name']} is not the one {folder.name} was frozen with; choose the "
            "threshold anew"
        )
    return first, float(facts["threshold"])


def calibration_of(point: Mapping[str, Any]) -> Calibration:
    """The frozen calibration."""
    return Calibration(**point["calibration"])
