"""How far codes move when a signal is shifted, interrupted or seen with fewer points.

Measured for a transit, a louver, a contact binary and a sinusoid in stars of a sky (real TESS
curves with --survey), with the encoder as drawn and as trained. Writes a table and a picture each
with --out.

    python bench/robustness.py [--quick] [--survey DIR --model NAME] [--out DIR]
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from skyvec import checkpoint, store
from skyvec.checkpoint import read_recipe
from skyvec.report.completeness import robustness_picture
from skyvec.report.pictures import png
from skyvec.sim.lightcurves import simulate_sky
from skyvec.sim.signals import parse
from skyvec.studies.robustness import robustness
from skyvec.train import train

SIGNALS = (
    "transit(period=3.2)",
    "louver(period=3.2)",
    "contact_binary(period=0.4)",
    "sinusoid(period=2.3)",
)


def stand_in(folder: Path, steps: int) -> Path:
    """A simulated sky and an encoder trained on it for some steps."""
    catalog, curves = simulate_sky(400, np.random.default_rng(0), oddities=0.0)
    store.create_survey(folder)
    store.append_objects(folder, catalog, curves, np.full(len(catalog), "simulated"))
    recipe = {name: dict(t) for name, t in read_recipe("default").items()}
    recipe["train"] |= {"steps": steps, "batch": 96, "validate_every": steps, "warm_up": 5}
    train(folder, recipe, "m")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one signal, few steps")
    parser.add_argument("--survey", type=Path, help="with curves and a trained model")
    parser.add_argument("--model", default="m")
    parser.add_argument("--out", type=Path, help="folder for tables and pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    facts: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as passing:
        survey = options.survey or stand_in(Path(passing) / "s", 20 if options.quick else 120)
        trained = checkpoint.load(store.model_folder(survey, options.model))
        torch.manual_seed(0)
        blank = Path(passing) / "blank"
        checkpoint.save(blank, trained.recipe, checkpoint.build(trained.recipe).state_dict(), {})
        rng = np.random.default_rng(1)
        catalog = store.read_catalog(survey)
        rows = rng.permutation(np.unique(catalog.target, return_index=True)[1])[:60]
        curves = store.find_curves(survey, catalog.id[rows].tolist())
        for text in SIGNALS[:1] if options.quick else SIGNALS:
            kind = text.partition("(")[0]
            for name, encoder in (("untrained", checkpoint.load(blank)), ("trained", trained)):
                table = robustness(encoder, curves, parse(text), np.random.default_rng(2))
                for row in table.to_pylist():
                    print(
                        f"{kind:>15} {name:>10} {row['change']:>7} {row['amount']:5.2f}: distance "
                        f"{row['share']:.2f} of strangers, found first {row['found']:.2f}",
                        flush=True,
                    )
                    if (row["change"], row["amount"]) in {("phase", 0.5), ("gaps", 0.5)}:
                        facts[f"{kind}_{name}_{row['change']}"] = round(row["share"], 3)
                        facts[f"{kind}_{name}_{row['change']}_found"] = round(row["found"], 3)
                if options.out:
                    store.write_table(options.out / f"robustness-{kind}-{name}.parquet", table)
                    content = png(robustness_picture(table, f"{text}, {name}"))
                    path = options.out / f"robustness-{kind}-{name}.png"
                    store.write_atomic(path, lambda p, content=content: p.write_bytes(content))
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
