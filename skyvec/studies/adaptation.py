"""One encoder for two surveys: adapt what was trained on one to what another one sees.

The encoder alone is trained on, so that the same galaxy gets the same code from either telescope:

    L = L_own / |L_own at the start| + weight MMD^2(codes of the source, codes of the target)
        + pairs * contrast(codes of the same objects in both),

L_own the model's own loss on both surveys. Without pairs nothing needs to be in both surveys, and
no label is used either way. Every survey's pixels are scaled by its own sky and noise.
"""

import hashlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skyvec import store
from skyvec.analysis.transfer import carry_over, partner_ranks, tell_apart
from skyvec.batches import frames, image_training_set, split, use_threads
from skyvec.checkpoint import (
    Checkpoint,
    CheckpointError,
    Recipe,
    Training,
    is_finished,
    load,
    load_arrays,
    save,
)
from skyvec.encode import encode
from skyvec.nn.frames import Frames
from skyvec.nn.layers import contrast
from skyvec.nn.losses import mmd2
from skyvec.prep.codes import BASELINES
from skyvec.schema import Strings
from skyvec.train import SCALING, Progress, fit, survey_hash, survey_recipe

TEMPERATURE = 0.2
"""Of the comparison between partners."""


class AdaptationError(ValueError):
    """Two surveys or a model do not go together; the message says why."""


class Part(NamedTuple):
    """One side of a change of survey: all objects of a survey, or those with a value in a column.

    Args:
        survey: The survey's folder.
        column: Of its catalogue; empty for all objects.
        value: What stands in the column, as text.
    """

    survey: Path
    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        """Where it is, in words."""
        return f"{self.survey}" + (f" ({self.column}={self.value})" if self.column else "")


class Both(NamedTuple):
    """Batches of two surveys; with pairs, row i of both is the same object."""

    source: Frames
    target: Frames

    @property
    def n(self) -> int:
        """Images of the source."""
        return self.source.n

    def to(self, device: torch.device | str) -> "Both":
        """Move both to a device."""
        return Both(self.source.to(device), self.target.to(device))


class Adapting(nn.Module):
    """A model with the loss of adaptation; what its codes do not depend on stays as it is.

    Args:
        model: A trained network of images.
        scale: |L_own| at the start, by which the model's own loss is divided.
        weight: Of MMD^2, >= 0.
        pairs: Of the comparison between partners, >= 0.
    """

    def __init__(self, model: Any, *, scale: float, weight: float, pairs: float) -> None:
        super().__init__()
        self.model = model
        self.scale, self.weight, self.pairs = scale, weight, pairs

    def loss(self, batch: Both, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Own loss on both surveys + distance of their codes, and each by name."""
        own = [self.model.loss(part, generator)[0] for part in batch]
        mean_own = (own[0] + own[1]) / (2 * self.scale)
        codes = [self.model.encode(part) for part in batch]
        far = mmd2(codes[0], codes[1])
        total = mean_own + self.weight * far
        parts = {"own": mean_own.detach(), "mmd2": far.detach()}
        if self.pairs:
            partners = contrast(codes[0], codes[1], TEMPERATURE)
            total = total + self.pairs * partners
            parts["partners"] = partners.detach()
        return total, parts


class _Side(NamedTuple):
    """One survey, prepared: pixels, and the rows of each split."""

    pixels: NDArray[np.float32]
    target: Strings
    parts: Strings


def adapt(
    source: Path | Part,
    target: Path | Part,
    name: str,
    *,
    adapted: str = "",
    weight: float = 10.0,
    pairs: float = 0.0,
    options: Training | None = None,
    progress: Callable[[Progress], object] | None = None,
    threads: int | None = None,
) -> str:
    """Adapt a model to a second survey, or go on with an adaptation that was killed.

    Two models are left in both surveys: ``NAME`` itself is brought to the target survey, with
    that survey's own scaling of pixels (the row *before*), and the adapted one is written to both
    (the row *after*). Where source and target are parts of one survey, the model keeps that
    survey's one scaling.

    Args:
        source: Survey with the trained model, or a part of it.
        target: The other survey, of images in as many bands, no smaller than the model's; or
            another part.
        name: Name of the model.
        adapted: Name of the adapted one; ``NAME-adapted`` where not given.
        weight: Of MMD^2 against the model's own loss at the start.
        pairs: Of the comparison between objects that both surveys have seen; 0 = unpaired.
        options: Steps, batch and rate; 400 steps of 128 at 3e-4 where not given.
        progress: Called after every step.
        threads: Threads of torch; none leaves them as they are.

    Returns:
        Name of the adapted model.

    Raises:
        AdaptationError: The model is a baseline or of light curves, or there are no pairs.
        CheckpointError: The model is missing, or the name is taken by another one.
    """
    adapted = adapted or f"{name}-adapted"
    options = options or Training(
        steps=400, batch=128, lr=3e-4, optimiser="adamw", clip=1.0, warm_up=20, validate_every=50
    )
    source, target = _part(source), _part(target)
    before = load(store.model_folder(source.survey, name))
    _check(before, source, target, weight, pairs)
    is_one = source.survey.resolve() == target.survey.resolve()
    theirs = before.recipe if is_one else bring(before, target.survey)
    recipes = [{**recipe, "train": vars(options)} for recipe in (before.recipe, theirs)]
    seed = options.seed
    digest = hashlib.sha256(
        "\0".join(
            [
                *(survey_hash(part.survey) for part in (source, target)),
                *(part.column + "=" + part.value for part in (source, target) if part.column),
                before.hash,
                repr((weight, pairs)),
            ]
        ).encode()
    ).hexdigest()
    folder = store.model_folder(source.survey, adapted)
    if not is_finished(folder):
        sides = [_side(part, recipe) for part, recipe in zip((source, target), recipes)]
        if pairs:
            sides = _paired(sides, source, target)
        with use_threads(threads):
            model = deepcopy(before.model)
            valid = _fixed(sides, options.batch, seed)
            scale = _own_loss(model, valid, seed)
            _freeze_rest(model, valid[0].source)
            adapting = Adapting(model, scale=scale, weight=weight, pairs=pairs)
            work = store.model_folder(source.survey, f"{adapted}.adapting")
            fit(
                adapting,
                lambda rng: _draw(sides, "train", options.batch, rng, together=bool(pairs)),
                valid,
                options,
                work,
                recipes[0],
                digest,
                facts={"adapted": {"from": name, "weight": weight, "pairs": pairs}},
                progress=progress,
            )
        _unwrap(work, folder, recipes[0])
    else:
        stored, _, scores = load_arrays(folder)
        if stored != recipes[0] or scores.get("data_sha256") != digest:
            raise CheckpointError(
                f"{folder} was adapted from another model, between other data or in another way "
                f"(weight, pairs, steps); give another name, or remove {folder} to adapt anew"
            )
    if not is_one:
        _copy(folder, store.model_folder(target.survey, adapted), recipes[1])
    return adapted


def _part(given: Path | Part) -> Part:
    return given if isinstance(given, Part) else Part(given)


def _check(
    checkpoint: Checkpoint, source: Part, target: Part, weight: float, pairs: float
) -> None:
    if checkpoint.recipe["model"]["name"] in BASELINES:
        raise AdaptationError(f"{checkpoint.name!r} is a baseline and learns nothing; train one")
    for survey in (source.survey, target.survey):
        store.check_survey(survey)
        if store.survey_kind(survey) != "images":
            raise AdaptationError(
                f"{survey} holds {store.survey_kind(survey)}; models of images are adapted"
            )
    is_one = source.survey.resolve() == target.survey.resolve()
    is_divided = source.column and source.column == target.column and source.value != target.value
    if is_one and not is_divided:
        raise AdaptationError(
            f"source and target are both {source}; name two surveys, or two values of one column"
        )
    if weight < 0 or pairs < 0:
        raise AdaptationError(f"weight = {weight} and pairs = {pairs} must be >= 0")


def bring(checkpoint: Checkpoint, survey: Path) -> Recipe:
    """Write a model into another survey, with that survey's own scaling of pixels.

    Returns:
        The recipe it has there.

    Raises:
        AdaptationError: The surveys have other bands.
        CheckpointError: There is another model of that name.
    """
    data = {k: v for k, v in checkpoint.recipe["data"].items() if k not in ("bands", *SCALING)}
    model = {k: v for k, v in checkpoint.recipe["model"].items() if k not in ("bands", "size")}
    recipe = {**checkpoint.recipe, "data": data, "model": model}
    full = survey_recipe(survey, recipe)
    if full["model"] != checkpoint.recipe["model"]:
        raise AdaptationError(
            f"{checkpoint.name} reads {checkpoint.recipe['model']['bands']} bands, but {survey} "
            f"has {full['model']['bands']} ({', '.join(store.survey_bands(survey))})"
        )
    folder = store.model_folder(survey, checkpoint.name)
    if is_finished(folder):
        _check_same(folder, checkpoint)
    else:
        scores = {k: v for k, v in checkpoint.scores.items() if k not in ("hash", "skyvec")}
        save(folder, full, checkpoint.model.state_dict(), scores)
    return full


def _check_same(folder: Path, checkpoint: Checkpoint) -> None:
    """Make sure that a model's folder holds the weights of a checkpoint."""
    weights, ours = load_arrays(folder)[1], checkpoint.model.state_dict()
    if weights.keys() != ours.keys() or any(
        not torch.equal(torch.as_tensor(array), ours[key].cpu()) for key, array in weights.items()
    ):
        raise CheckpointError(
            f"{folder} holds another model of the name {checkpoint.name!r}, and the two would be "
            f"compared as if they were one; remove it, or train under another name"
        )


def _side(part: Part, recipe: Recipe) -> _Side:
    pixels, ids, parts = image_training_set(part.survey, **recipe["data"])
    if part.column:
        rows = _members(part, ids)
        pixels, ids, parts = pixels[rows], ids[rows], parts[rows]
    catalog = store.read_catalog(part.survey, [])
    return _Side(pixels, catalog.target[catalog.rows(ids)], parts)


def _members(part: Part, ids: Strings) -> NDArray[np.int64]:
    """Rows of the ids that belong to a part."""
    if not part.column:
        return np.arange(len(ids))
    known = store.column_kinds(part.survey)
    if part.column not in known:
        raise AdaptationError(
            f"{part.survey} has no column {part.column!r}; there are {', '.join(sorted(known))}"
        )
    catalog = store.read_catalog(part.survey, [part.column])
    column = catalog.columns[part.column]
    if column.dtype.kind in "if":
        try:
            is_own = column == float(part.value)
        except ValueError:
            raise AdaptationError(
                f"{part.column} holds numbers, and {part.value!r} is none"
            ) from None
    else:
        is_own = column.astype(np.str_) == part.value
    if not is_own.any():
        there = ", ".join(np.unique(column.astype(np.str_))[:10])
        raise AdaptationError(f"nothing in {part}; {part.column} holds {there}")
    return np.flatnonzero(is_own[catalog.rows(ids)])


def _paired(sides: list[_Side], source: Part, target: Part) -> list[_Side]:
    """Only what both surveys have seen, in one order."""
    common, first, second = np.intersect1d(sides[0].target, sides[1].target, return_indices=True)
    if len(common) < 4:
        raise AdaptationError(
            f"{source} and {target} have {len(common)} objects in common; pairs need the same "
            "targets in both, so adapt without pairs"
        )
    rows = (first, second)
    return [_Side(s.pixels[r], s.target[r], s.parts[r]) for s, r in zip(sides, rows)]


def _draw(
    sides: list[_Side], part: str, batch: int, rng: np.random.Generator, *, together: bool
) -> Both:
    rows = [np.flatnonzero(side.parts == part) for side in sides]
    if min(map(len, rows)) < 2:
        raise AdaptationError(f"fewer than two images fall to the {part} split; ingest more")
    n = min(batch, *map(len, rows))
    first = rng.choice(len(rows[0]), n, replace=False)
    second = first if together else rng.choice(len(rows[1]), n, replace=False)
    chosen = (rows[0][first], rows[1][second])
    return Both(*(frames(side.pixels[own]) for side, own in zip(sides, chosen)))


def _fixed(sides: list[_Side], batch: int, seed: int) -> list[Both]:
    """Batches of the validation split; in pairs where the sides are in one order."""
    together = np.array_equal(sides[0].target, sides[1].target)
    rng = np.random.default_rng([seed, 2**32])
    return [_draw(sides, "valid", batch, rng, together=together)]


def _own_loss(model: Any, batches: list[Both], seed: int) -> float:
    model.eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        loss, _ = model.loss(batches[0].source, generator)
    return max(abs(float(loss)), 1e-6)


def _freeze_rest(model: Any, batch: Frames) -> None:
    """Let only what the codes depend on learn."""
    model.zero_grad()
    model.encode(batch).square().sum().backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    model.zero_grad()


def _unwrap(work: Path, folder: Path, recipe: Recipe) -> None:
    """Store the network itself, without the loss it was adapted by."""
    _, weights, scores = load_arrays(work)
    plain = {key.removeprefix("model."): array for key, array in weights.items()}
    save(folder, recipe, plain, {k: v for k, v in scores.items() if k not in ("hash", "skyvec")})
    for path in work.iterdir():
        path.unlink()
    work.rmdir()


def _copy(source: Path, target: Path, recipe: Recipe) -> None:
    loaded = load(source)
    if is_finished(target):
        _check_same(target, loaded)
    else:
        scores = {k: v for k, v in loaded.scores.items() if k not in ("hash", "skyvec")}
        save(target, recipe, loaded.model.state_dict(), scores)


# --- what it did ------------------------------------------------------------------------------


def compare(
    source: Path | Part, target: Path | Part, models: list[str], *, label: str = "", seed: int = 0
) -> pa.Table:
    """Measure how well models speak one language in two surveys; missing latents are made first.

    Args:
        source: One survey, or a part of one.
        target: The other.
        models: Names of models that both have, such as before and after.
        label: Column of classes in both; empty for none.
        seed: Of the folds.

    Returns:
        A row a model: ``own`` and ``across`` (balanced accuracy of a classifier trained on the
        source's labels, asked about the source and about the target survey), ``recall_1``,
        ``recall_10`` and ``median_rank`` of the same object among all of the target survey (asked
        with the objects that never trained), ``apart`` (area under the curve of telling the
        surveys apart, 0.5 = one language), and how many were asked.
    """
    source, target = _part(source), _part(target)
    rows = []
    for name in models:
        for part in (source, target):
            encode(part.survey, name)
        one, other = (
            latents.take(_members(part, latents.id))
            for part in (source, target)
            for latents in [store.read_latents(part.survey, name)]
        )
        labels = [
            _labels(part.survey, latents.id, label)
            for part, latents in ((source, one), (target, other))
        ]
        data = load(store.model_folder(source.survey, name)).recipe["data"]
        parts = split(one.target, seed=data["seed"], valid=data["valid"], test=data["test"])
        carried = carry_over(one, labels[0], other, labels[1], rng=np.random.default_rng(seed))
        found = partner_ranks(one, other, rows=np.flatnonzero(parts != "train"))
        rows.append(
            {
                "model": name,
                "own": carried.own,
                "across": carried.other,
                "classes": carried.classes,
                "recall_1": found.recall_1,
                "recall_10": found.recall_10,
                "median_rank": found.median_rank,
                "queries": found.queries,
                "among": found.among,
                "apart": tell_apart(
                    one.vectors,
                    other.vectors,
                    one.target,
                    other.target,
                    rng=np.random.default_rng(seed),
                ),
            }
        )
    return pa.Table.from_pylist(rows)


def _labels(survey: Path, ids: Strings, label: str) -> Strings:
    if label not in store.column_kinds(survey):
        return np.full(len(ids), "", dtype=np.str_)
    catalog = store.read_catalog(survey, [label])
    return catalog.columns[label][catalog.rows(ids)].astype(np.str_)
