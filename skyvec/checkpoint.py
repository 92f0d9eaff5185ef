"""Recipes, and trained models as folders.

A folder is ``recipe.toml``, ``weights.safetensors`` and ``scores.json``. A recipe is a TOML of
three small tables whose keys are exactly keyword arguments: ``[data]`` those of the class that
``DATA`` holds for the model's modality, ``[model]`` the model's ``name`` and those of its class,
``[train]`` those of :class:`Training`.
There is no other configuration. A checkpoint stores the recipe with every value written out, so
that a later change of a default changes no model.
"""

import difflib
import hashlib
import inspect
import json
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from skyvec import __version__
from skyvec.models import MODELS
from skyvec.prep.codes import BASELINES
from skyvec.recipes import find_recipe
from skyvec.store import write_atomic, write_json, write_text

RECIPE, WEIGHTS, SCORES = "recipe.toml", "weights.safetensors", "scores.json"
TRAINING = "training"
"""Folder inside a model's folder that exists only while the model is being trained."""

Recipe = dict[str, dict[str, Any]]


class RecipeError(ValueError):
    """A recipe holds a key, a type or a value that nothing understands."""


class CheckpointError(ValueError):
    """A model's folder is missing, unfinished, damaged or foreign."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What to train on: the ``[data]`` table of a recipe for light curves, argument for argument
    that of :func:`skyvec.batches.training_set` (a test compares them).

    Args:
        curves: How many curves to choose, all splits together.
        seed: Of the choice and of the split.
        min_points: Fewest points of a curve after preparation.
        max_points: Longer curves are thinned evenly to this many points; encoding thins nothing.
        bands: Names of the bands to use; none for all of the survey's.
        round_days: Grid of the rounding of times [day], 0 for none.
        normalise: ``std`` or ``mad``.
        valid: Fraction of the objects for choosing between weights.
        test: Fraction of the objects that never train.
    """

    curves: int = 20_000
    seed: int = 0
    min_points: int = 8
    max_points: int = 4_000
    bands: Sequence[str] = ()
    round_days: float = 0.01
    normalise: str = "std"
    valid: float = 0.1
    test: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """What to train on: the ``[data]`` table of a recipe for images, argument for argument that
    of :func:`skyvec.batches.image_training_set` (a test compares them).

    Args:
        images: How many images to choose, all splits together.
        seed: Of the choice and of the split.
        bands: Names of the bands to use; none for all of the survey's.
        crop: Side of the central square that is kept [pixel], 0 for the whole image.
        size: Side of the images after averaging blocks of pixels [pixel]; divides the crop.
        stretch: ``arcsinh``, ``lupton`` or ``linear``; empty for linear where all pixels are
            bytes, as those of viewers' pictures are, and arcsinh elsewhere.
        softening: Where a stretch turns from linear to logarithmic [sky noise].
        sky: Level of the empty sky of each band [flux]; empty to measure it on the train split.
        soft: Where the stretch of each band turns [flux]; empty to measure it.
        top: What becomes 1 in each band [flux]; empty to measure it.
        valid: Fraction of the objects for choosing between weights.
        test: Fraction of the objects that never train.
    """

    images: int = 20_000
    seed: int = 0
    bands: Sequence[str] = ()
    crop: int = 0
    size: int = 64
    stretch: str = ""
    softening: float = 5.0
    sky: Sequence[float] = ()
    soft: Sequence[float] = ()
    top: Sequence[float] = ()
    valid: float = 0.1
    test: float = 0.1


DATA: dict[str, type] = {"lightcurves": Data, "images": ImageData}
"""The ``[data]`` table of each modality."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The numbers of the training loop: the ``[train]`` table of a recipe.

    Args:
        steps: Steps of the optimiser.
        batch: Objects of a step.
        points: Of light curves: most points of a step once they are padded to the longest.
        lr: Learning rate at its highest.
        optimiser: ``adamax`` (as published), ``adam`` or ``adamw``.
        weight_decay: Of the optimiser.
        schedule: ``constant``, or ``cosine`` down to a hundredth of ``lr`` at the last step.
        warm_up: Steps over which the learning rate rises linearly from 0 first.
        clip: Largest norm of the gradient, 0 for no limit.
        validate_every: Steps between two looks at the validation split.
        patience: Looks without a better loss after which training ends, 0 for never.
        seed: Of the first weights and of every step.

    Raises:
        RecipeError: A value is out of its range.
    """

    steps: int = 10_000
    batch: int = 64
    points: int = 200_000
    lr: float = 1e-3
    optimiser: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "constant"
    warm_up: int = 0
    clip: float = 0.0
    validate_every: int = 500
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {"optimiser": ("adamax", "adam", "adamw"), "schedule": ("constant", "cosine")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise RecipeError(
                    f"[train] {name} = {getattr(self, name)!r} is unknown; "
                    f"choose from {', '.join(known)}"
                )
        least = {"steps": 1, "batch": 1, "points": 1, "validate_every": 1}
        for name in ("weight_decay", "warm_up", "clip", "patience", "seed"):
            least[name] = 0
        for name, low in least.items():
            if not getattr(self, name) >= low:
                raise RecipeError(f"[train] {name} = {getattr(self, name)} must be >= {low}")
        if not self.lr > 0:
            raise RecipeError(f"[train] lr = {self.lr} must be > 0")


# --- recipes ----------------------------------------------------------------------------------


def read_recipe(recipe: Path | str) -> Recipe:
    """Read a recipe and make sure that every key and type in it is understood.

    Args:
        recipe: A TOML file; text may also be the name of one that comes with skyvec.

    Returns:
        The tables ``data``, ``model`` and ``train`` as written.

    Raises:
        RecipeError: No such file, no TOML, or a table, key, type or model that is unknown; the
            message names the nearest known one.
        ValueError: No recipe of that name; the message names those there are.
    """
    path = find_recipe(recipe) if isinstance(recipe, str) else recipe
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no TOML: {error}") from error
    try:
        return check_recipe(content)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def check_recipe(content: Mapping[str, Any]) -> Recipe:
    """Make sure that every table, key and type of a recipe is understood.

    Args:
        content: Tables by name; missing ones count as empty, but ``model.name`` must be there.

    Returns:
        The three tables; whole numbers where a fraction is meant become floats.

    Raises:
        RecipeError: Something is not understood.
    """
    tables = ("data", "model", "train")
    for name, table in content.items():
        if name not in tables:
            raise RecipeError(f"unknown table [{name}]; did you mean [{_nearest(name, tables)}]?")
        if not isinstance(table, dict):
            raise RecipeError(f"{name} must be a table: write [{name}] on a line of its own")
    settings = dict(content.get("model", {}))
    model = settings.pop("name", None)
    if model is None:
        raise RecipeError(f'[model] needs a name = "..."; choose from {", ".join(MODELS)}')
    if model not in MODELS:
        raise RecipeError(
            f"unknown model {model!r}; did you mean {_nearest(str(model), MODELS)!r}? "
            f"There are {', '.join(MODELS)}"
        )
    known = {
        "data": _keywords(DATA[MODELS[model].modality]),
        "model": _keywords(MODELS[model]),
        "train": _keywords(Training),
    }
    recipe = {
        "data": _check_table("data", content.get("data", {}), known),
        "model": {"name": model, **_check_table("model", settings, known)},
        "train": _check_table("train", content.get("train", {}), known),
    }
    Training(**recipe["train"])
    return recipe


def complete(content: Mapping[str, Any], survey_bands: Sequence[str]) -> Recipe:
    """Write out every value a recipe leaves to its default, and the bands of the survey.

    Args:
        content: A recipe.
        survey_bands: All bands of the survey, taken where ``[data]`` names none.

    Returns:
        A recipe that means the same today and after any change of a default.

    Raises:
        RecipeError: Something is not understood, or ``[model] bands`` or ``size`` contradict
            the data.
    """
    recipe = check_recipe(content)
    data, model, train = recipe["data"], recipe["model"], recipe["train"]
    bands = list(data.get("bands") or survey_bands)
    if model.get("bands", len(bands)) != len(bands):
        raise RecipeError(
            f"[model] bands = {model['bands']}, but the data have {len(bands)} "
            f"({', '.join(bands)}); leave it out, it is filled in"
        )
    kind = MODELS[model["name"]]
    data = {**_defaults(DATA[kind.modality]), **data, "bands": bands}
    given = {"bands": len(bands)}
    if "size" in _keywords(kind) and "size" in data:  # of images; the network is made for one
        if model.get("size", data["size"]) != data["size"]:
            raise RecipeError(
                f"[model] size = {model['size']}, but [data] size = {data['size']}; leave it out "
                "of [model], it is filled in"
            )
        given["size"] = data["size"]
    return {
        "data": data,
        "model": {"name": model["name"], **_defaults(kind), **model, **given},
        "train": {**_defaults(Training), **train},
    }


def write_toml(recipe: Mapping[str, Mapping[str, Any]]) -> str:
    """Write tables of strings, numbers, booleans and lists of them as TOML."""
    parts = []
    for name, table in recipe.items():
        lines = [f"{key} = {_toml(value)}" for key, value in table.items()]
        parts.append("\n".join([f"[{name}]", *lines]) + "\n")
    return "\n".join(parts)


def fill(
    content: Mapping[str, Any],
    tables: Mapping[str, Callable[..., Any]],
    choices: Mapping[str, type] | None = None,
) -> Recipe:
    """Check a recipe of other tables than the usual three, and write out every default.

    Args:
        content: Tables by name; missing ones count as empty.
        tables: What takes the keywords of each table.
        choices: What takes those of ``[model]``, by its ``name``; none where there is no such
            table.

    Returns:
        A recipe that means the same today and after any change of a default.

    Raises:
        RecipeError: Something is not understood.
    """
    known, named = dict(tables), {}
    if choices is not None:
        name = content.get("model", {}).get("name")
        if name not in choices:
            raise RecipeError(f"[model] name = {name!r}; choose from {', '.join(choices)}")
        known["model"], named = choices[name], {"name": name}
    keywords = {title: _keywords(function) for title, function in known.items()}
    for title in content:
        if title not in known:
            raise RecipeError(f"unknown table [{title}]; did you mean [{_nearest(title, known)}]?")
    recipe = {}
    for title, function in known.items():
        first = named if title == "model" else {}
        table = {key: value for key, value in content.get(title, {}).items() if key not in first}
        recipe[title] = {
            **first,
            **_defaults(function),
            **_check_table(title, table, keywords),
        }
    return recipe


def differences(one: Recipe, other: Recipe) -> list[str]:
    """Say in words where two completed recipes differ."""
    found = []
    for table in sorted({*one, *other}):
        ours, theirs = one.get(table, {}), other.get(table, {})
        for key in sorted({*ours, *theirs}):
            if ours.get(key) != theirs.get(key):
                found.append(f"[{table}] {key} is {ours.get(key)!r}, not {theirs.get(key)!r}")
    return found


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's too, but for the one control character JSON leaves bare
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    raise RecipeError(f"{value!r} cannot stand in a recipe; use text, numbers, booleans, lists")


def _nearest(key: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    return difflib.get_close_matches(key, list(known), n=1, cutoff=0.0)[0]


def _keywords(function: Callable[..., Any]) -> dict[str, Any]:
    """Type of each keyword argument a recipe may set."""
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    return {
        name: hints.get(name, Any)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: list(parameter.default)
        if isinstance(parameter.default, tuple)
        else parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default not in (inspect.Parameter.empty, None)
    }


def _check_table(
    table: str, settings: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    checked = {}
    for key, value in settings.items():
        if key not in known[table]:
            home = [name for name, keys in known.items() if key in keys]
            advice = (
                f"it belongs to [{home[0]}]"
                if home
                else f"did you mean {_nearest(key, known[table])!r}?"
            )
            raise RecipeError(f"unknown key {key!r} in [{table}]; {advice}")
        hint = known[table][key]
        if not _fits(value, hint):
            raise RecipeError(f"[{table}] {key} = {value!r} must be {_plain(hint)}")
        checked[key] = float(value) if hint is float else value
    return checked


def _fits(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(hint, type) and not get_origin(hint):
        return isinstance(value, hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return value in inner
    if origin in (tuple, list, Sequence):
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    return True


def _plain(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if hint in names:
        return names[hint]
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (tuple, list, Sequence):
        return f"a list, each item {_plain(get_args(hint)[0])}"
    return str(hint)


# --- checkpoints ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, ready to encode.

    Args:
        name: Name of its folder.
        model: The network, in evaluation mode; or the fitted code of a baseline.
        recipe: The completed recipe it was made by.
        scores: Losses by split, history, and how it was made.
        hash: SHA-256 over weights and recipe, in hexadecimal.
    """

    name: str
    model: Any
    recipe: Recipe
    scores: dict[str, Any]
    hash: str


def build(recipe: Recipe) -> nn.Module:
    """Make the network of a completed recipe, with first weights drawn from its seed alone."""
    settings = {key: value for key, value in recipe["model"].items() if key != "name"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe["train"]["seed"])
        return MODELS[recipe["model"]["name"]](**settings)


def save(
    folder: Path, recipe: Recipe, weights: Mapping[str, Tensor], scores: Mapping[str, Any]
) -> str:
    """Write a model's folder; it counts from the moment its last file, the scores, is there.

    Args:
        folder: The model's folder.
        recipe: A completed recipe.
        weights: Arrays by name.
        scores: Anything JSON can hold; hash and version are added.

    Returns:
        The hash over weights and recipe.
    """
    arrays = {key: array.detach().cpu().contiguous().clone() for key, array in weights.items()}
    # safetensors' own files are for their owner's eyes alone, whatever the account's mask says
    write_atomic(folder / WEIGHTS, lambda path: path.write_bytes(to_bytes(arrays)))
    write_text(folder / RECIPE, write_toml(recipe))
    digest = _hash(folder)
    write_json(folder / SCORES, {**scores, "hash": digest, "skyvec": __version__})
    return digest


def is_finished(folder: Path) -> bool:
    """Say whether a model's folder holds a finished model."""
    return (folder / SCORES).exists()


def load(folder: Path) -> Checkpoint:
    """Open a trained model.

    Args:
        folder: The model's folder.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: The folder is missing, unfinished, damaged or foreign; the message says
            which, and what to do.
    """
    recipe, weights, scores = load_arrays(folder)
    if baseline := BASELINES.get(recipe["model"]["name"]):
        code = baseline.code.from_arrays({key: array.numpy() for key, array in weights.items()})
        return Checkpoint(folder.name, code, recipe, scores, scores["hash"])
    try:
        model = build(check_recipe(recipe))
        model.load_state_dict(weights)
    except (RecipeError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{folder} does not fit this version of skyvec ({__version__}; it was made by "
            f"{scores['skyvec']}): {error}"
        ) from error
    model.eval()
    return Checkpoint(folder.name, model, recipe, scores, scores["hash"])


def load_arrays(
    folder: Path, *, make: str = "make one with `skyvec train`"
) -> tuple[Recipe, dict[str, Tensor], dict[str, Any]]:
    """Read and verify a model's three files: recipe, weights, scores.

    Args:
        folder: The model's.
        make: What to do if there is none.
    """
    if not folder.is_dir():
        siblings = folder.parent.iterdir() if folder.parent.is_dir() else []
        known = ", ".join(sorted(p.name for p in siblings if is_finished(p)))
        raise CheckpointError(
            f"no model {folder.name!r} in {folder.parent} (there are: {known or 'none yet'}); "
            f"{make}"
        )
    if not is_finished(folder) and (folder / TRAINING).is_dir():
        raise CheckpointError(
            f"the training of {folder} is not finished; run the same `skyvec train` again to go on"
        )
    missing = [name for name in (RECIPE, WEIGHTS, SCORES) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is no model: it has no {missing[0]}")
    try:
        scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        stored, _ = scores["hash"], scores["skyvec"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / SCORES} is damaged or not of skyvec: {error}") from error
    if _hash(folder) != stored:
        raise CheckpointError(
            f"{folder} is damaged: {WEIGHTS} or {RECIPE} is not the file that was written; "
            "restore it, or remove the folder and train again"
        )
    try:
        recipe = tomllib.loads((folder / RECIPE).read_text(encoding="utf-8"))
        return recipe, load_file(folder / WEIGHTS), scores
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (WEIGHTS, RECIPE):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
