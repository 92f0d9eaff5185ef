"""The one training loop, in plain torch, for every model of every modality.

:func:`fit` knows batches and a model that has a loss, nothing else; :func:`train` reads a survey
and hands the loop what the model's modality is fed with.

Step s draws its batch and its masks from (seed, s) alone, and the state after it is one file that
is replaced by one rename. So a training killed at any moment goes on where it was, and ends (on
one machine's CPU) in the same bits as one that was never killed.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from skyvec.batches import (
    SPLITS,
    check_device,
    draw_batch,
    frames,
    image_scaling,
    image_training_set,
    length_buckets,
    ragged,
    training_set,
    use_threads,
)
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
    read_recipe,
    save,
)
from skyvec.models import MODELS
from skyvec.nn.frames import Frames
from skyvec.nn.ragged import Ragged
from skyvec.prep.codes import BASELINES
from skyvec.recipes import recipe_names
from skyvec.schema import Strings
from skyvec.store import (
    clean,
    lock,
    model_folder,
    object_shards,
    survey_bands,
    survey_kind,
    write_atomic,
)

OPTIMISERS = {
    "adamax": torch.optim.Adamax,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
STATE = "state.safetensors"
SCALING = ("sky", "soft", "top")
SCORED = 1_000
"""The closing losses of the train and test splits are taken over at most this many objects."""


class TrainingError(ValueError):
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


class Batch(Protocol):
    """What the loop must know of a batch: how many objects, and how to move it."""

    @property
    def n(self) -> int:
        """Number of objects."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move every tensor to a device."""
        ...


class Material(NamedTuple):
    """What a training is fed with.

    Args:
        draw: Makes the batch of a step from that step's own source of chance.
        fixed: Makes the batches of a split (``train``, ``valid``, ``test``) for the closing
            losses and, of ``valid``, for choosing between weights; of the others at most
            ``SCORED`` objects.
        facts: What the scores shall say of it, such as how many objects each split has.
    """

    draw: Callable[[np.random.Generator], Batch]
    fixed: Callable[[str], Sequence[Batch]]
    facts: dict[str, Any]


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
        ValueError: The survey is empty.
        StoreError: Another process trains this model.
    """
    if name in BASELINES:
        raise CheckpointError(f"{name!r} is the name of a baseline; train under another name")
    folder = model_folder(survey, name)
    if not sum(shard["rows"] for shard in object_shards(survey)):
        raise ValueError(f"{survey} holds no objects to train on; fill it with `skyvec ingest`")
    data_hash = survey_hash(survey)
    full = survey_recipe(survey, recipe)
    if is_done(folder, full, data_hash):
        return folder
    options = Training(**full["train"])
    check_device(device)
    model = build(full).to(device)
    material = MATERIAL[MODELS[full["model"]["name"]].modality](survey, full)
    with use_threads(threads):
        return fit(
            model,
            material.draw,
            material.fixed("valid"),
            options,
            folder,
            full,
            data_hash,
            closing=lambda: {part: material.fixed(part) for part in ("train", "test")},
            facts=material.facts,
            progress=progress,
            save_every=save_every,
        )


def survey_recipe(survey: Path, recipe: Recipe) -> Recipe:
    """Write out every value of a recipe for a survey: its bands, and the scaling of its pixels.

    Raises:
        RecipeError: The recipe is not understood.
        TrainingError: The survey holds objects of another modality than the model reads.
    """
    full = complete(recipe, survey_bands(survey))
    modality = MODELS[full["model"]["name"]].modality
    if modality != survey_kind(survey):
        choice = ", ".join(_recipes_for(survey_kind(survey))) or "of `skyvec realbogus train`"
        raise TrainingError(
            f"{full['model']['name']} reads {modality}, but {survey} holds {survey_kind(survey)}; "
            f"choose one of the recipes {choice}"
        )
    data = full["data"]
    if modality == "images" and not data["sky"]:
        asked = {key: value for key, value in data.items() if key not in ("images", *SCALING)}
        scaling = image_scaling(survey, **asked).facts()
        data |= {"stretch": scaling["kind"], **{name: scaling[name] for name in SCALING}}
    return full


def _recipes_for(modality: str) -> list[str]:
    models = {name: read_recipe(name)["model"]["name"] for name in recipe_names()}
    return [name for name, model in models.items() if MODELS[model].modality == modality]


def is_done(folder: Path, recipe: Recipe, data_hash: str) -> bool:
    """Say whether a model is trained already, and tidy its folder.

    Args:
        folder: The model's folder.
        recipe: The completed recipe it shall be made by.
        data_hash: Of the data it shall be made from.

    Raises:
        CheckpointError: It was made by another recipe or from other data.
        StoreError: Another process trains it.
    """
    with lock(folder, "train"):
        return _is_done(folder, recipe, data_hash)


def _is_done(folder: Path, recipe: Recipe, data_hash: str) -> bool:
    clean(folder)
    if not is_finished(folder):
        return False
    stored, _, scores = load_arrays(folder)
    _require_same(folder, recipe, stored, data_hash, scores["data_sha256"])
    shutil.rmtree(folder / TRAINING, ignore_errors=True)
    return True


def fit(
    model: nn.Module,
    draw: Callable[[np.random.Generator], Batch],
    valid: Sequence[Batch],
    options: Training,
    folder: Path,
    recipe: Recipe,
    data_hash: str,
    *,
    closing: Callable[[], Mapping[str, Sequence[Batch]]] | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], object] | None = None,
    save_every: float = 30.0,
) -> Path:
    """Train a model on batches, or go on with a training that was killed; keep the best weights.

    Args:
        model: A network with ``loss(batch, generator) -> (scalar, {name: scalar})``, on the
            device to train on, with its first weights.
        draw: Makes the batch of step s from ``numpy.random.default_rng([seed, s])`` and from
            nothing else, so that a resumed training draws the same ones.
        valid: Fixed batches; the weights with the lowest mean loss over them are kept.
        options: The ``[train]`` table.
        folder: The model's folder.
        recipe: The completed recipe; stored beside the weights, and compared when going on.
        data_hash: Of what ``draw`` and ``valid`` were made from; compared when going on.
        closing: Further fixed batches by split; their losses are added to the scores.
        facts: What else the scores shall say.
        progress: Called after every step.
        save_every: Time between two writings of the state [s]; changes no result.

    Returns:
        The model's folder; a finished model of the same recipe and data is left as it is.

    Raises:
        CheckpointError: The folder holds a model of another recipe or of other data.
        TrainingError: The loss is not finite, or there is nothing to validate on.
        StoreError: Another process trains this model.
    """
    with lock(folder, "train"):
        if _is_done(folder, recipe, data_hash):
            return folder
        if not sum(batch.n for batch in valid):
            raise TrainingError(
                f"there is nothing to validate {folder.name} on; give at least one batch"
            )
        state = _State(model, _optimiser(model, options))
        clean(folder / TRAINING)
        if (folder / TRAINING / STATE).exists():
            _resume(state, folder, recipe, data_hash)
        with _reproducible(next(model.parameters()).device):
            _loop(state, options, draw, valid, folder, recipe, data_hash, progress, save_every)
            model.load_state_dict(state.best)
            splits = {"valid": valid, **(closing() if closing else {})}
            losses = {
                part: _evaluate(model, batches, options.seed)
                for part, batches in splits.items()
                if sum(batch.n for batch in batches)
            }
        scores = {
            "model": recipe["model"]["name"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": state.step,
            "best_step": state.best_step,
            "seconds": round(state.seconds, 3),
            "losses": losses,
            **(facts or {}),
            "data_sha256": data_hash,
            "history": state.history,
        }
        save(folder, recipe, state.best, scores)
        shutil.rmtree(folder / TRAINING, ignore_errors=True)
    return folder


def _loop(
    state: _State,
    options: Training,
    draw: Callable[[np.random.Generator], Batch],
    valid: Sequence[Batch],
    folder: Path,
    recipe: Recipe,
    data_hash: str,
    progress: Callable[[Progress], object] | None,
    save_every: float,
) -> None:
    """Take the steps that are left; afterwards ``state.best`` holds the weights to keep."""
    device = next(state.model.parameters()).device
    clock = saved = time.monotonic()
    while state.step < options.steps and not _is_patience_out(state, options):
        rng = np.random.default_rng([options.seed, state.step])
        batch = draw(rng).to(device)
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**63)))
        loss = _step(state, options, batch, generator)
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


def _step(state: _State, options: Training, batch: Batch, generator: torch.Generator) -> float:
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


def _validate(state: _State, options: Training, batches: Sequence[Batch]) -> None:
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


def _evaluate(model: Any, batches: Sequence[Batch], seed: int) -> dict[str, float]:
    """Mean loss and its parts over all objects, with the same masks every time."""
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


def _optimiser(model: Any, options: Training) -> torch.optim.Optimizer:
    kind = OPTIMISERS[options.optimiser]
    return kind(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """Let sums on the CPU be taken in one fixed order, whatever the number of threads."""
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fill


# --- what each modality is fed with -----------------------------------------------------------


def _curves(survey: Path, recipe: Recipe) -> Material:
    """Light curves: batches of similar lengths, drawn at random."""
    options = Training(**recipe["train"])
    prepared, parts = training_set(survey, **recipe["data"])
    rows = _rows(survey, parts, "curves")
    lengths = np.diff(prepared.offsets)

    def draw(rng: np.random.Generator) -> Ragged:
        train = rows["train"]
        chosen = draw_batch(lengths[train], options.batch, options.points, rng)
        return ragged(prepared, train[chosen])

    def fixed(part: str) -> list[Ragged]:
        some = rows[part] if part == "valid" else rows[part][:SCORED]
        buckets = length_buckets(lengths[some], points=options.points, most=256)
        return [ragged(prepared, some[bucket]) for bucket in buckets]

    facts = {
        "curves": {part: len(rows[part]) for part in SPLITS},
        "points": {part: int(lengths[rows[part]].sum()) for part in SPLITS},
        "seeds": {"data": recipe["data"]["seed"], "train": options.seed},
    }
    return Material(draw, fixed, facts)


def _images(survey: Path, recipe: Recipe) -> Material:
    """Images: batches drawn at random."""
    options = Training(**recipe["train"])
    pixels, _, parts = image_training_set(survey, **recipe["data"])
    rows = _rows(survey, parts, "images")

    def draw(rng: np.random.Generator) -> Frames:
        train = rows["train"]
        return frames(pixels[rng.choice(train, min(options.batch, len(train)), replace=False)])

    def fixed(part: str) -> list[Frames]:
        some = rows[part] if part == "valid" else rows[part][:SCORED]
        starts = range(0, len(some), options.batch)
        return [frames(pixels[some[start : start + options.batch]]) for start in starts]

    facts = {
        "images": {part: len(rows[part]) for part in SPLITS},
        "seeds": {"data": recipe["data"]["seed"], "train": options.seed},
    }
    return Material(draw, fixed, facts)


def _rows(survey: Path, parts: Strings, what: str) -> dict[str, NDArray[np.int64]]:
    """Rows of each split; there must be some to train on and some to validate on."""
    rows = {part: np.flatnonzero(parts == part) for part in SPLITS}
    for part in ("train", "valid"):
        if not len(rows[part]):
            raise TrainingError(
                f"none of the {len(parts)} {what} chosen from {survey} fell to the {part} "
                f"split; take more {what}, or change [data] valid and test"
            )
    return rows


MATERIAL: dict[str, Callable[[Path, Recipe], Material]] = {
    "lightcurves": _curves,
    "images": _images,
}
"""How the objects of each modality become batches."""


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


def survey_hash(survey: Path) -> str:
    """Hash over the hashes of all object shards, in order."""
    digest = hashlib.sha256()
    for shard in object_shards(survey):
        digest.update(shard["sha256"].encode())
    return digest.hexdigest()
