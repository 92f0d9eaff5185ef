"""A completeness map of one signal in one survey, cell by cell, kept and resumed.

answers/recover-MODEL/SIGNAL-HASH/cell-0007.json   one place of the grid
answers/recover-MODEL/SIGNAL-HASH/recovery.parquet the map, when all are there
answers/recover-MODEL/SIGNAL-HASH/recipe.json      what it was made from
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skyvec import store
from skyvec.checkpoint import Checkpoint, load
from skyvec.schema import Catalog, LightCurves, Strings
from skyvec.sim.signals import Drawable, Template
from skyvec.studies.recovery import (
    Cell,
    Field,
    check_grid,
    choose_hosts,
    completeness,
    grid_places,
    recover,
    survey_field,
)

TABLE = "recovery.parquet"
PICTURE = "recovery.png"
FORM = 4
"""Of the cells; those of another form are made again."""

Report = Callable[[int, int, str], object]


def recover_in_survey(
    survey: Path,
    model: str,
    signal: Drawable,
    grid: Mapping[str, Sequence[float]],
    *,
    injections: int = 40,
    curves: int = 2000,
    k: int = 10,
    draws: int = 256,
    with_rivals: bool = True,
    seed: int = 0,
    progress: Report | None = None,
) -> tuple[pa.Table, Path]:
    """Inject a signal into a survey's own curves and measure what would be found.

    Cells that are there from the same signal, grid, objects and weights are not made again: a run
    that was stopped goes on where it was.

    Args:
        survey: The survey's folder.
        model: The encoder.
        signal: What is injected and asked for.
        grid: Values by axis: ``depth`` over noise, and any numeric parameter of the signal.
        injections: In each cell, each into another object.
        curves: At most so many segments of the survey compete, taken at random.
        k: A signal among the first k objects counts as found.
        draws: Members of the query's cloud.
        with_rivals: Also run box least squares and matched filters.
        seed: Of everything that is drawn.
        progress: Called with cells done, cells in all and a word on the last.

    Returns:
        The table of :func:`skyvec.studies.recovery.completeness`, and the folder it lies in.

    Raises:
        ValueError: A grid that makes no sense, or too few objects.
    """
    check_grid(signal, grid)
    checkpoint = load(store.model_folder(survey, model))
    key = {
        "form": FORM,
        "signal": str(signal),
        "digest": _digest(signal),
        "grid": {name: [float(value) for value in values] for name, values in grid.items()},
        "injections": injections,
        "curves": curves,
        "k": k,
        "draws": draws,
        "rivals": with_rivals,
        "seed": seed,
        "model": checkpoint.hash,
        "objects": [shard["sha256"] for shard in store.object_shards(survey)],
    }
    folder = store.answers_folder(survey, "recover", model) / _folder_name(signal, key)
    if not (folder / "recipe.json").exists():
        store.write_json(folder / "recipe.json", key)
    cells = {
        number: Cell.from_json(json.loads(path.read_text(encoding="utf-8")))
        for number in range(len(grid_places(grid)))
        if (path := folder / f"cell-{number:04d}.json").exists()
    }
    total = len(grid_places(grid))
    if len(cells) < total:
        if progress is not None:
            progress(len(cells), total, "encoding the survey")
        rng = np.random.default_rng([seed, 0])
        field = _field(survey, checkpoint, curves, with_rivals, rng)
        hosts = choose_hosts(field, injections, rng)
        found = recover(
            checkpoint,
            field,
            signal,
            hosts,
            grid,
            seed=seed,
            k=k,
            draws=draws,
            matched=with_rivals,
            known=dict(cells).get,
        )
        for number, cell in found:
            if number not in cells:
                store.write_json(folder / f"cell-{number:04d}.json", cell.to_json())
                cells[number] = cell
            if progress is not None:
                progress(number + 1, total, f"recall {cell.directed.value:.0%}")
    table = completeness([cells[number] for number in sorted(cells)])
    store.write_table(folder / TABLE, table)
    return table, folder


def _field(
    survey: Path, checkpoint: Checkpoint, most: int, box: bool, rng: np.random.Generator
) -> Field:
    curves, target = _sample(survey, most, rng)
    return survey_field(checkpoint, curves, target, box=box)


def _sample(survey: Path, most: int, rng: np.random.Generator) -> tuple[LightCurves, Strings]:
    """At most so many segments of a survey with points, and the object of each."""
    catalog: Catalog = store.read_catalog(survey, [])
    chosen = np.sort(rng.permutation(len(catalog.id))[:most])
    curves = store.find_curves(survey, catalog.id[chosen].tolist())
    return curves, catalog.target[chosen]


def _folder_name(signal: Drawable, key: Mapping[str, object]) -> str:
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", str(signal)).strip("_.")[:40]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"{plain or 'signal'}-{digest[:10]}"


def _digest(signal: Drawable) -> str:
    if isinstance(signal, Template):
        return hashlib.sha256(signal.time.tobytes() + signal.flux.tobytes()).hexdigest()
    return ""
