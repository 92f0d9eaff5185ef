"""Does a simulated event find the real ones?

Microlensing events of OGLE-II among the events and variables of that set; vetted flares of
ultracool dwarfs (TESS, 2 min) among their own set, and among all TESS sets together; there the
stars whose flares an algorithm found and nobody vetted are counted beside. An encoder is trained
without labels on each survey, a signal is simulated and searched for (``skyvec search --signal``,
and with a second look at all curves, ``--check``), and the precision among the first 10 and 50
objects is held against chance (the share of such objects in the survey), against the nearest
neighbours of the mean of the same query, and against the best there can be. Where the real sets
are absent a simulated sky stands in, and says so.

    python bench/events.py [--quick] [--steps N]
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from skyvec import store
from skyvec.checkpoint import load, read_recipe
from skyvec.encode import encode, encode_curves
from skyvec.ingest import ingest
from skyvec.report.directed import search_signal
from skyvec.sim.lightcurves import simulate_sky
from skyvec.sim.signals import Signal, cloud_in, parse
from skyvec.train import train

CANDIDATE = "auto_candidate_only"
ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "lightcurves"
TASKS = {
    "microlensing": ("microlensing()", ("ogle2_microlensing",), "microlensing"),
    "flares": ("flares()", ("tess_ucd_2min",), "vetted_flare"),
    "flares_all": (
        "flares()",
        ("tess_ucd_2min", "tess_clusters_elk", "tess_blazars"),
        "vetted_flare",
    ),
}


def prepare_survey(folder: Path, sets: tuple[str, ...], signal: str, steps: int) -> Path:
    """Ingest, train for some steps, encode."""
    if DATA.is_dir():
        ingest(folder, [DATA / f"{name}.parquet" for name in sets])
    else:
        kind = signal.partition("(")[0]
        kinds = {kind: 1.0, "rotator": 5.0, "constant": 5.0, "outburst": 1.0}
        rng = np.random.default_rng(len(sets))
        catalog, curves = simulate_sky(300, rng, kinds=kinds, oddities=0.0)
        store.create_survey(folder)
        store.append_objects(folder, catalog, curves, np.full(len(catalog), "simulated"))
    recipe = {name: dict(table) for name, table in read_recipe("default").items()}
    recipe["train"] |= {
        "steps": steps,
        "batch": 96,
        "points": 250_000,
        "validate_every": steps,
        "warm_up": min(10, steps - 1),
    }
    train(folder, recipe, "m")
    encode(folder, "m")
    return folder


def precision(found: list[str], real: set[str], k: int) -> float:
    """Share of the first k that are real, of those there are."""
    return sum(name in real for name in found[:k]) / min(k, len(found))


def by_nearness(survey: Path, signal: Signal, k: int) -> list[str]:
    """Targets by the cosine to the mean of the same cloud: what a plain search would give."""
    latents = store.read_latents(survey, "m")
    rng = np.random.default_rng(0)
    curves = store.find_curves(survey, rng.permutation(latents.id)[:400].tolist())
    codes = encode_curves(load(store.model_folder(survey, "m")), cloud_in(curves, signal, rng)[0])
    unit = codes[0] / np.linalg.norm(codes[0], axis=1, keepdims=True)
    norm = np.linalg.norm(latents.vectors, axis=1)
    similarity = latents.vectors @ unit.mean(axis=0) / np.where(norm > 0, norm, np.inf)
    order = latents.target[np.argsort(-similarity, kind="stable")]
    return list(dict.fromkeys(order.tolist()))[:k]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps of training")
    parser.add_argument("--steps", type=int, help="of training, for each survey (120)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = options.steps or (30 if options.quick else 120)
    facts: dict[str, object] = {"real": DATA.is_dir(), "steps": steps}
    if not DATA.is_dir():
        print("no real light curves here: a simulated sky stands in")
    with tempfile.TemporaryDirectory() as folder:
        for name, (text, sets, label) in TASKS.items():
            if options.quick and name == "flares_all":
                continue
            survey = prepare_survey(Path(folder) / name, sets, text, steps)
            wanted = label if DATA.is_dir() else text.partition("(")[0]
            catalog = store.read_catalog(survey)
            real = set(catalog.target[catalog.columns["label"] == wanted].tolist())
            n = len(np.unique(catalog.target))
            answer, _ = search_signal(survey, "m", parse(text), k=50)
            found = answer.table["target"].to_pylist()
            checked, _ = search_signal(
                survey, "m", parse(text), k=50, check=max(50, len(catalog.id))
            )
            again = checked.table["target"].to_pylist()
            candidates = set(catalog.target[catalog.columns["label"] == CANDIDATE].tolist())
            plain = by_nearness(survey, parse(text), 50)
            for k in (10, 50):
                facts[f"{name}_p{k}"] = round(precision(found, real, k), 3)
                facts[f"{name}_checked_p{k}"] = round(precision(again, real, k), 3)
                facts[f"{name}_nearest_p{k}"] = round(precision(plain, real, k), 3)
                facts[f"{name}_best_p{k}"] = round(min(len(real) / min(k, n), 1), 3)
                if candidates:
                    both = real | candidates
                    facts[f"{name}_or_candidate_p{k}"] = round(precision(found, both, k), 3)
                    facts[f"{name}_or_candidate_checked_p{k}"] = round(
                        precision(again, both, k), 3
                    )
                    facts[f"{name}_or_candidate_chance"] = round(len(both) / n, 3)
            facts[f"{name}_chance"] = round(len(real) / n, 3)
            print(
                f"{name:>13}: {len(real)} real among {n} objects, "
                f"precision@10 {facts[f'{name}_p10']:.2f}, @50 {facts[f'{name}_p50']:.2f}; "
                f"second look {facts[f'{name}_checked_p10']:.2f}, "
                f"{facts[f'{name}_checked_p50']:.2f}; "
                f"nearest {facts[f'{name}_nearest_p10']:.2f}, "
                f"{facts[f'{name}_nearest_p50']:.2f}; chance {facts[f'{name}_chance']:.2f}",
                flush=True,
            )
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
