"""The one training loop, in plain torch, for every model.

Step s draws its curves and its masks from (seed, s) alone, and the state after it is one file that
is replaced by one rename. So a training killed at any moment goes on where it was, and ends (on
one machine's CPU) in the same bits as one that was never killed.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from skyvec.batches import SPLITS, draw_batch, length_buckets, ragged, training_set, use_threads
from skyvec.checkpoint import (
    TRAINING,
    CheckpointError,
    Recipe,
    Training,
    build,
    complete,
    differences,
    is_finished,
    load_arrays,
    save,
)
from skyvec.nn.ragged import Ragged
from skyvec.prep.codes import BASELINES
from skyvec.prep.lightcurves import Prepared
from skyvec.store import clean, model_folder, object_shards, survey_bands, write_atomic

OPTIMISERS = {
    "adamax": torch.optim.Adamax,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
STATE = "state.safetensors"
SCORED = 1_000
"""The closing losses of the train and test splits are taken over at most this many curves."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step and what to change."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Args:
        step: Steps done.
        steps: Steps asked for.
        loss: Of this step.
        valid: Of the validation split when last looked at; NaN before the first time.
        best: Lowest of those; NaN before the first time.
    """

    step: int
    steps: int
    loss: float
    valid: float
    best: float


@dataclass
class _State:
    """All that a training is between two steps."""

    model: Any
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_loss: float = math.inf
    losses: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def valid(self) -> float:
        return self.history[-1]["valid"] if self.history else math.nan

    def looks_since_best(self) -> int:
        return sum(entry["step"] > self.best_step for entry in self.history)


def train(
    survey: Path,
    recipe: Recipe,
    name: str,
    *,
    progress: Callable[[Progress], object] | None = None,
    save_every: float = 30.0,
    threads: int | None = None,
    device: str = "cpu",
) -> Path:
    """Train a model on a survey, or go on with a training that was killed.

    The weights that did best on the validation split (by object) are kept. A finished model of
    the same recipe and data is left as it is.

    Args:
        survey: The survey's folder.
        recipe: The tables ``data``, ``model`` and ``train``.
        name: Name of the model in this survey.
        progress: Called after every step.
        save_every: Time between two writings of the state [s]; changes no result.
        threads: Threads of torch; none leaves them as they are.
        device: Where torch computes; ``cpu`` is reproducible to the bit.

    Returns:
        The model's folder.

    Raises:
        RecipeError: The recipe is not understood.
        CheckpointError: The name is taken by a model of another recipe or of other data, or
            reserved for a baseline.
        TrainingError: The loss is not finite, or a split is empty.
    """
    if name in BASELINES:
        raise CheckpointError(f"{name!r} is the name of a baseline; train under another name")
    folder = model_folder(survey, name)
    data_hash = _data_hash(survey)
    full = complete(recipe, survey_bands(survey))
    clean(folder)
    if is_finished(folder):
        stored, _, scores = load_arrays(folder)
        _require_same(folder, full, stored, data_hash, scores["data_sha256"])
        shutil.rmtree(folder / TRAINING, ignore_errors=True)
        return folder
    options = Training(**full["train"])
    model = build(full).to(device)
    state = _State(model, _optimiser(model, options))
    clean(folder / TRAINING)
    if (folder / TRAINING / STATE).exists():
        _resume(state, folder, full, data_hash)
    prepared, parts = training_set(survey, **full["data"])
    rows = {part: np.flatnonzero(parts == part) for part in SPLITS}
    for part in ("train", "valid"):
        if not len(rows[part]):
            raise TrainingError(
                f"none of the {len(prepared)} curves chosen from {survey} fell to the {part} "
                "split; take more curves, or change [data] valid and test"
            )
    with use_threads(threads), _reproducible(device):
        _loop(state, options, prepared, rows, folder, full, data_hash, progress, save_every)
        model.load_state_dict(state.best)
        scores = _scores(state, prepared, rows, options, full, data_hash)
    save(folder, full, state.best, scores)
    shutil.rmtree(folder / TRAINING, ignore_errors=True)
    return folder


def _loop(
    state: _State,
    options: Training,
    prepared: Prepared,
    rows: dict[str, np.ndarray],
    folder: Path,
    recipe: Recipe,
    data_hash: str,
    progress: Callable[[Progress], object] | None,
    save_every: float,
) -> None:
    """Take the steps that are left; afterwards ``state.best`` holds the weights to keep."""
    lengths = np.diff(prepared.offsets)[rows["train"]]
    valid = _fixed_batches(prepared, rows["valid"], options.points)
    device = next(state.model.parameters()).device
    clock = saved = time.monotonic()
    while state.step < options.steps and not _is_patience_out(state, options):
        rng = np.random.default_rng([options.seed, state.step])
        chosen = rows["train"][draw_batch(lengths, options.batch, options.points, rng)]
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**63)))
        loss = _step(state, options, ragged(prepared, chosen).to(device), generator)
        state.losses += loss
        state.step += 1
        if state.step % options.validate_every == 0 or state.step == options.steps:
            _validate(state, options, valid)
        now = time.monotonic()
        state.seconds += now - clock
        clock = now
        if now - saved >= save_every and state.step < options.steps:
            _save_state(state, folder / TRAINING / STATE, recipe, data_hash)
            saved = time.monotonic()
        if progress is not None:
            best = state.best_loss if state.best else math.nan
            progress(Progress(state.step, options.steps, loss, state.valid(), best))


def _step(state: _State, options: Training, batch: Ragged, generator: torch.Generator) -> float:
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(state.step, options)
    state.model.train()
    state.optimiser.zero_grad()
    loss, _ = state.model.loss(batch, generator)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} at step {state.step}; lower [train] lr or set clip, then train "
            "under another name (or remove this model's folder)"
        )
    loss.backward()
    if options.clip:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), options.clip)
    state.optimiser.step()
    return value


def learning_rate(step: int, options: Training) -> float:
    """Learning rate of a step, counted from 0.

    lr * min(1, (step + 1) / warm_up), and with ``cosine`` times 0.01 + 0.99 (1 + cos(pi s)) / 2,
    where s goes from 0 at the end of the warm-up to 1 at the last step.
    """
    rate = options.lr
    if step < options.warm_up:
        return rate * (step + 1) / options.warm_up
    if options.schedule == "cosine":
        s = (step - options.warm_up) / max(1, options.steps - 1 - options.warm_up)
        rate *= 0.01 + 0.99 * (1 + math.cos(math.pi * s)) / 2
    return rate


def _validate(state: _State, options: Training, batches: list[Ragged]) -> None:
    valid = _evaluate(state.model, batches, options.seed)
    since = state.step - (int(state.history[-1]["step"]) if state.history else 0)
    parts = {f"valid_{key}": value for key, value in valid.items() if key != "loss"}
    entry = {"step": state.step, "train": state.losses / since, "valid": valid["loss"], **parts}
    if not math.isfinite(valid["loss"]):
        raise TrainingError(
            f"the loss of the validation split is {valid['loss']} at step {state.step}; lower "
            "[train] lr or set clip, then train under another name (or remove this model's folder)"
        )
    state.history.append(entry)
    state.losses = 0.0
    if valid["loss"] < state.best_loss:
        state.best_loss, state.best_step = valid["loss"], state.step
        state.best = {k: v.detach().clone() for k, v in state.model.state_dict().items()}


def _is_patience_out(state: _State, options: Training) -> bool:
    return bool(options.patience) and state.looks_since_best() >= options.patience


def _evaluate(model: Any, batches: list[Ragged], seed: int) -> dict[str, float]:
    """Mean loss and its parts over all curves, with the same masks every time."""
    model.eval()
    device = next(model.parameters()).device
    total: dict[str, float] = {}
    with torch.no_grad():
        for i, batch in enumerate(batches):
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + i)
            loss, parts = model.loss(batch.to(device), generator)
            for key, value in {**parts, "loss": loss}.items():
                total[key] = total.get(key, 0.0) + float(value) * batch.n
    n = sum(batch.n for batch in batches)
    return {key: value / n for key, value in total.items()}


def _fixed_batches(prepared: Prepared, rows: np.ndarray, points: int) -> list[Ragged]:
    lengths = np.diff(prepared.offsets)[rows]
    buckets = length_buckets(lengths, points=points, most=256)
    return [ragged(prepared, rows[bucket]) for bucket in buckets]


def _optimiser(model: Any, options: Training) -> torch.optim.Optimizer:
    kind = OPTIMISERS[options.optimiser]
    return kind(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)


@contextmanager
def _reproducible(device: str) -> Iterator[None]:
    """Let sums on the CPU be taken in one fixed order, whatever the number of threads."""
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fill


def _scores(
    state: _State,
    prepared: Prepared,
    rows: dict[str, np.ndarray],
    options: Training,
    recipe: Recipe,
    data_hash: str,
) -> dict[str, Any]:
    lengths = np.diff(prepared.offsets)
    losses = {}
    for part in SPLITS:
        some = rows[part] if part == "valid" else rows[part][:SCORED]
        if len(some):
            batches = _fixed_batches(prepared, some, options.points)
            losses[part] = _evaluate(state.model, batches, options.seed)
    return {
        "model": recipe["model"]["name"],
        "parameters": sum(p.numel() for p in state.model.parameters()),
        "steps": state.step,
        "best_step": state.best_step,
        "seconds": round(state.seconds, 3),
        "losses": losses,
        "curves": {part: len(rows[part]) for part in SPLITS},
        "points": {part: int(lengths[rows[part]].sum()) for part in SPLITS},
        "seeds": {"data": recipe["data"]["seed"], "train": options.seed},
        "data_sha256": data_hash,
        "history": state.history,
    }


# --- the state on disk ------------------------------------------------------------------------


def _save_state(state: _State, path: Path, recipe: Recipe, data_hash: str) -> None:
    arrays = {f"weights/{k}": v for k, v in state.model.state_dict().items()}
    arrays |= {f"best/{k}": v for k, v in state.best.items()}
    for i, slots in state.optimiser.state_dict()["state"].items():
        arrays |= {f"optimiser/{i}/{k}": v for k, v in slots.items()}
    facts = {
        "step": state.step,
        "best_step": state.best_step,
        "best_loss": state.best_loss,
        "losses": state.losses,
        "history": state.history,
        "seconds": state.seconds,
        "recipe": recipe,
        "data_sha256": data_hash,
    }
    # one file holds arrays and numbers, so that one rename switches both
    whole = {key: array.detach().cpu().contiguous().clone() for key, array in arrays.items()}
    metadata = {"state": json.dumps(facts)}
    write_atomic(path, lambda temporary: save_file(whole, temporary, metadata=metadata))


def _resume(state: _State, folder: Path, recipe: Recipe, data_hash: str) -> None:
    path = folder / TRAINING / STATE
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["state"])
            arrays = {key: file.get_tensor(key).clone() for key in sorted(file.keys())}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); remove {folder} and train again"
        ) from error
    _require_same(folder, recipe, facts["recipe"], data_hash, facts["data_sha256"])

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    device = next(state.model.parameters()).device
    state.model.load_state_dict(under("weights/"))
    state.best = {key: array.to(device) for key, array in under("best/").items()}
    slots: dict[int, dict[str, Tensor]] = {}
    for key, array in under("optimiser/").items():
        i, slot = key.split("/", 1)
        slots.setdefault(int(i), {})[slot] = array
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": slots, "param_groups": groups})
    for name in ("step", "best_step", "best_loss", "losses", "history", "seconds"):
        setattr(state, name, facts[name])


def _require_same(
    folder: Path, recipe: Recipe, stored: Recipe, data_hash: str, stored_hash: str
) -> None:
    """Make sure that what is there was made by this recipe from these data."""
    advice = f"train under another name, or remove {folder} to train anew"
    if data_hash != stored_hash:
        raise CheckpointError(
            f"{folder} was trained before the survey's objects changed; it can still encode "
            f"them, or {advice}"
        )
    if recipe != stored:
        where = "; ".join(differences(recipe, stored))
        raise CheckpointError(f"{folder} was made by another recipe: {where}; {advice}")


def _data_hash(survey: Path) -> str:
    """Hash over the hashes of all object shards, in order."""
    digest = hashlib.sha256()
    for shard in object_shards(survey):
        digest.update(shard["sha256"].encode())
    return digest.hexdigest()
