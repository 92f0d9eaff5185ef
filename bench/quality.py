"""How much the codes know: the default encoder, the ODE-RNN and hand-crafted numbers, on labels.

For each of three sets of real variable stars: the networks are trained without labels on 70 % of
the objects, each for the same processor time on one thread; codes without a network are fitted on
the same objects. Frozen codes are then probed: k-NN (5 nearest by cosine, what a search sees) and
logistic regression learn the classes of those 70 % and are tested on the other 30 %. Macro-F1 is
averaged over seeds of split, weights and training; +- is the deviation over seeds. L1 is the mean
absolute error at the points not given when 30 % are, in units of the curve's scatter.

Rows named "with mean" also know the mean brightness, which no normalised code can see (the classes
of one survey differ in it by selection); ``handcrafted`` in the last line is the best row without
it, set by set. Where the real sets are absent the simulator stands in, and says so.

    python bench/quality.py [--quick] [--minutes M] [--seeds S] [--curves N] [--sets NAME ...]
"""

import argparse
import json
import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from skyvec.analysis.probes import probe
from skyvec.batches import length_buckets, ragged, split, take
from skyvec.checkpoint import read_recipe
from skyvec.ingest import ingest
from skyvec.models import MODELS
from skyvec.nn.ragged import Ragged, random_subset
from skyvec.prep.codes import BASELINES
from skyvec.prep.features import package_names
from skyvec.prep.lightcurves import Prepared, prepare
from skyvec.prep.statistics import statistics_names
from skyvec.schema import LightCurves
from skyvec.sim.lightcurves import simulate_sky
from skyvec.store import iterate_objects
from skyvec.train import OPTIMISERS

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "lightcurves"
SETS = ("asas_acvs", "sss_crts", "eros1_br")
HANDCRAFTED = ("statistics", "features")
GIVEN = 0.3
"""Share of the points given when the others are told."""


class Labelled(NamedTuple):
    """Light curves of one set with the class of each."""

    name: str
    curves: LightCurves
    labels: NDArray[np.str_]


class Score(NamedTuple):
    """What one code reached with one seed."""

    knn: float
    linear: float
    l1: float


def real_set(name: str, n: int, folder: Path) -> Labelled:
    """A random part of a real set, by way of a survey."""
    table = pq.read_table(DATA / f"{name}.parquet")
    rows = np.sort(np.random.default_rng(0).permutation(len(table))[:n])
    folder.mkdir()
    pq.write_table(table.take(rows), folder / f"{name}.parquet")
    shutil.copy(DATA / f"{name}.json", folder / f"{name}.json")
    ingest(folder / "survey", [folder / f"{name}.parquet"])
    shards = list(iterate_objects(folder / "survey"))
    assert len(shards) == 1, "a part of one set fills one shard"
    _, catalog, curves = shards[0]
    return Labelled(name, curves, catalog.columns["label"])


def simulated_set(name: str, n: int) -> Labelled:
    """Variable stars as a ground-based survey sees them; a sky of its own for each name."""
    rng = np.random.default_rng(SETS.index(name))
    catalog, curves = simulate_sky(n, rng, cadence="ground", oddities=0)
    return Labelled(f"simulated {SETS.index(name)}", curves, catalog.columns["label"])


def train(model: nn.Module, settings: dict, prepared: Prepared, seconds: float, seed: int) -> int:
    """Train by processor time, the learning rate as the recipe's schedule has it; count steps."""
    optimiser = OPTIMISERS[settings.get("optimiser", "adam")](
        model.parameters(), lr=settings["lr"], weight_decay=settings.get("weight_decay", 0.0)
    )
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    batch, steps = min(settings["batch"], len(prepared)), 0
    start = time.process_time()
    model.train()
    while (done := (time.process_time() - start) / seconds) < 1:
        falling = settings.get("schedule") == "cosine"
        rate = max(0.5 + 0.5 * math.cos(math.pi * done), 0.01) if falling else 1.0
        warm_up = min(1.0, (steps + 1) / (settings.get("warm_up", 0) + 1))
        for group in optimiser.param_groups:
            group["lr"] = settings["lr"] * rate * warm_up
        rows = rng.choice(len(prepared), batch, replace=False)
        loss, _ = model.loss(ragged(prepared, np.sort(rows)), generator)
        optimiser.zero_grad()
        loss.backward()
        if settings.get("clip"):
            nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
        optimiser.step()
        steps += 1
    model.eval()
    return steps


def in_batches(
    prepared: Prepared, work: Callable[[Ragged], torch.Tensor], points: int = 200_000
) -> np.ndarray:
    """Do some work a curve, batch by batch, and put the answers in order."""
    answers: np.ndarray | None = None
    with torch.inference_mode():
        for rows in length_buckets(np.diff(prepared.offsets), points=points, most=256):
            found = work(ragged(prepared, rows)).numpy()
            if answers is None:
                answers = np.empty((len(prepared), *found.shape[1:]), found.dtype)
            answers[rows] = found
    assert answers is not None and np.isfinite(answers).all()
    return answers


def interpolation_error(model: nn.Module, prepared: Prepared, seed: int) -> float:
    """Mean absolute error at the points not given, each curve counting alike."""
    generator = torch.Generator().manual_seed(seed)

    def error(batch: Ragged) -> torch.Tensor:
        given = random_subset(batch, generator, low=GIVEN, high=GIVEN)
        hidden = (~given).float()
        told = model.decode(model.code(batch.keep(given)), batch)
        total = torch.zeros(batch.n).index_add_(
            0, batch.curve, hidden * (told - batch.value).abs()
        )
        return total / torch.zeros(batch.n).index_add_(0, batch.curve, hidden).clamp(min=1)

    return float(in_batches(prepared, error).mean())


def measure(
    vectors: np.ndarray, data: Labelled, parts: NDArray[np.str_], seed: int
) -> tuple[float, float]:
    """Macro-F1 of k-NN and of logistic regression on the test part."""
    knn, linear = probe(
        vectors,
        data.labels,
        data.curves.id,
        rng=np.random.default_rng(seed),
        split=parts,
        probes=("knn", "linear"),
        replicates=20,
    )
    return knn.macro_f1, linear.macro_f1


def handcrafted_table(name: str, curves: LightCurves) -> np.ndarray:
    return BASELINES[name].measure(curves, with_mean=True)


def handcrafted_tables(curves: LightCurves) -> dict[str, np.ndarray]:
    """What the codes without a network are fitted to, by row, with and without the means."""
    parts = [curves.take(rows) for rows in np.array_split(np.arange(len(curves)), 8)]
    tables = {}
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for name, names in (("statistics", statistics_names), ("features", package_names)):
            table = np.concatenate(list(pool.map(handcrafted_table, [name] * 8, parts)))
            last = names(curves.bands, with_mean=True)  # a spectrum may come first
            is_mean = np.zeros(table.shape[1], bool)
            is_mean[-len(last) :] = [column.startswith("mean_") for column in last]
            assert is_mean.sum() == len(curves.bands)
            tables[name], tables[name + " with mean"] = table[:, ~is_mean], table
    return tables


def networks(span: float, bands: int) -> dict[str, tuple[nn.Module, dict]]:
    """Name: network with its first weights, and how its recipe trains it."""
    default = read_recipe("default")
    article = read_recipe("article")
    unit = 27.4 if span < 100 else span / 10  # as OdeRnn advises
    found = {}
    for name, recipe, extra in (("default", default, {}), ("ode_rnn", article, {"span": unit})):
        settings = {key: value for key, value in recipe["model"].items() if key != "name"}
        model = MODELS[recipe["model"]["name"]](**settings, bands=bands, **extra)
        found[name] = model, recipe["train"]
    # the article's batch of 10 sees a third of the curves that one of 64 does in the same time
    found["ode_rnn"][1]["batch"] = 64
    return found


def compare(data: Labelled, seconds: float, seeds: int) -> dict[str, list[Score]]:
    """Scores of every row, a seed each."""
    began = time.perf_counter()
    scores: dict[str, list[Score]] = defaultdict(list)
    prepared = prepare(data.curves, round_days=0.0)
    span = float(np.median(np.maximum.reduceat(prepared.time, prepared.offsets[:-1])))
    tables = handcrafted_tables(data.curves)
    print(f"{data.name}: {len(prepared)} curves, hand-crafted numbers ready", flush=True)
    for seed in range(seeds):
        parts = split(data.curves.id, seed=seed, valid=0.0, test=0.3)
        own, other = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test")
        for name, table in tables.items():
            code = BASELINES[name.removesuffix(" with mean")].code.fit(table[own])
            found = measure(code.transform(table).vectors, data, parts, seed)
            scores[name].append(Score(*found, math.nan))
        torch.manual_seed(seed)
        for name, (model, settings) in networks(span, len(data.curves.bands)).items():
            if name == "default":
                vectors = in_batches(prepared, model.eval().encode)
                found = measure(vectors, data, parts, seed)
                scores["default untrained"].append(Score(*found, math.nan))
            steps = train(model, settings, take(prepared, own), seconds, seed)
            vectors = in_batches(prepared, model.encode)
            error = interpolation_error(model, take(prepared, other), seed)
            scores[name].append(Score(*measure(vectors, data, parts, seed), error))
            print(
                f"{data.name}, seed {seed}, {name}: {steps} steps, "
                + ", ".join(f"{key} {x:.3f}" for key, x in scores[name][-1]._asdict().items())
                + f"; {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    return scores


def show(name: str, scores: dict[str, list[Score]]) -> None:
    print(f"\n{name:<26}{'k-NN F1':>16}{'linear F1':>16}{'L1':>9}")
    for row, found in scores.items():
        x = np.array(found)
        cells = [f"{x[:, i].mean():.3f} +- {x[:, i].std():.3f}" for i in (0, 1)]
        l1 = "" if np.isnan(x[:, 2]).any() else f"{x[:, 2].mean():.3f}"
        print(f"{row:<26}{cells[0]:>16}{cells[1]:>16}{l1:>9}")
    print(flush=True)


def headline(tables: dict[str, dict[str, list[Score]]]) -> dict[str, float]:
    """Means over the sets; the hand-crafted row is the best of each set."""

    def mean(field: str, rows: tuple[str, ...]) -> float:
        best = [
            max(float(np.mean([getattr(s, field) for s in scores[row]])) for row in rows)
            for scores in tables.values()
        ]
        return round(float(np.mean(best)), 4)

    with_mean = tuple(f"{row} with mean" for row in HANDCRAFTED)
    return {
        "knn_f1_default": mean("knn", ("default",)),
        "knn_f1_ode_rnn": mean("knn", ("ode_rnn",)),
        "knn_f1_handcrafted": mean("knn", HANDCRAFTED),
        "linear_f1_default": mean("linear", ("default",)),
        "linear_f1_ode_rnn": mean("linear", ("ode_rnn",)),
        "linear_f1_handcrafted": mean("linear", HANDCRAFTED),
        "knn_f1_handcrafted_with_mean": mean("knn", with_mean),
        "linear_f1_handcrafted_with_mean": mean("linear", with_mean),
        "knn_f1_untrained": mean("knn", ("default untrained",)),
        "linear_f1_untrained": mean("linear", ("default untrained",)),
        "l1_default": mean("l1", ("default",)),
        "l1_ode_rnn": mean("l1", ("ode_rnn",)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few curves, seconds of training")
    parser.add_argument("--minutes", type=float, help="of training, a network and set (3)")
    parser.add_argument("--seeds", type=int, help="how many (3)")
    parser.add_argument("--curves", type=int, help="of each set (4000)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    options = parser.parse_args()
    n = options.curves or (220 if options.quick else 4000)
    seconds = 60 * (options.minutes or (0.03 if options.quick else 3))
    seeds = options.seeds or (1 if options.quick else 3)
    torch.set_num_threads(1)
    began = time.perf_counter()
    is_real = DATA.is_dir()
    if not is_real:
        print(f"no {DATA}: simulated skies stand in for the real sets")
    tables = {}
    for name in options.sets:
        with tempfile.TemporaryDirectory() as folder:
            data = real_set(name, n, Path(folder) / name) if is_real else simulated_set(name, n)
        tables[data.name] = compare(data, seconds, seeds)
        show(data.name, tables[data.name])
    result = {
        **headline(tables),
        "real": is_real,
        "knn_and_linear_f1_by_set": {
            name: {
                row: [round(float(np.mean([s[i] for s in found])), 4) for i in (0, 1)]
                for row, found in scores.items()
            }
            for name, scores in tables.items()
        },
        "curves": n,
        "seeds": seeds,
        "training_s": seconds,
        "seconds": round(time.perf_counter() - began, 1),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
