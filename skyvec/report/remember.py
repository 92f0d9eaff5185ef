"""An answer kept in the survey with everything it depends on, and used again while that holds.

    answers/VERB-NAME/VERB.parquet   the answer's rows
    answers/VERB-NAME/recipe.json    arguments, hashes, version, and a few numbers on the whole

The recipe names the hash of its table and is written after it: a table whose recipe does not fit
is made again, so a kill between the two does no harm.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skyvec import __version__, store

RECIPE = "recipe.json"


class TooFewObjects(ValueError):
    """There are too few objects for an answer that means something."""


@dataclass(frozen=True)
class Answer:
    """What a question to a survey gave.

    Args:
        verb: The question: ``outliers``, ``cluster``, ``map``, ``probe`` or ``search``.
        table: One row an item.
        facts: Numbers on the whole, such as how many clusters there are.
    """

    verb: str
    table: pa.Table
    facts: dict[str, Any]


def remember(
    survey: Path,
    verb: str,
    model: str,
    arguments: dict[str, Any],
    make: Callable[[], tuple[pa.Table, dict[str, Any]]],
) -> Answer:
    """Give a stored answer if it was made from the same latents in the same way, else make it.

    Args:
        survey: The survey's folder.
        verb: Name of the question.
        model: Whose latents are asked.
        arguments: All that the answer depends on beside the latents; plain values.
        make: Gives the table and the facts.
    """
    folder = store.answers_folder(survey, verb, model)
    path = folder / f"{verb}.parquet"
    key = {
        "verb": verb,
        "model": model,
        "latents": latents_digest(survey, model),
        "arguments": json.loads(json.dumps(arguments)),
        "skyvec": __version__,
    }
    known = _known(folder / RECIPE)
    fits = all(known.get(name) == value for name, value in key.items())
    if fits and path.exists() and known.get("sha256") == store.sha256(path):
        return Answer(verb, pq.read_table(path), known["facts"])
    table, facts = make()
    store.write_table(path, table)
    recipe = key | {"facts": facts, "rows": table.num_rows, "sha256": store.sha256(path)}
    store.write_json(folder / RECIPE, recipe)
    # as it will be read, so that an answer is the same the first time and ever after
    return Answer(verb, table, _known(folder / RECIPE)["facts"])


def _known(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def latents_digest(survey: Path, model: str) -> str:
    """Hash of all latents of a model: changes with the weights and with the objects encoded."""
    manifest = store.read_manifest(store.latents_folder(survey, model))
    digest = hashlib.sha256(str(manifest.get("model_hash", "")).encode())
    for shard in manifest["shards"]:
        digest.update(shard["sha256"].encode())
    return digest.hexdigest()
