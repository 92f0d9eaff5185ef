"""How much the codes of galaxy images know of morphology, and what is left in another survey.

1. Real: SDSS pictures with Galaxy Zoo 1 classes. In each fold the networks learn without labels
   from the objects of the other folds, each for the same processor time on one thread; probes
   (5 nearest by cosine, logistic regression, the same with its penalty chosen within the other
   folds, random forest) learn the classes of the same objects and are tested on the fold. So
   every object is tested once, by a network and a probe that never saw it; intervals are the
   central 95 % when the objects are drawn again. ``5 classes`` are those of the set, spirals by
   their sense of winding; ``4 classes`` join the two senses. Baselines: components of the pixels,
   and shapes by hand (concentration, asymmetry, Gini, M20, ...). Of several ``--sizes`` the first
   is the one that the keys speak of.
2. Survey change: simulated galaxies seen by two telescopes. A network and a logistic regression
   learn from the one (source), both are used on the other (target) as they are; then the encoder
   is adapted without labels: loss + weight MMD^2 (unpaired), or loss + contrast of pairs. The drop
   is what the target loses against the source; recovered is the share of it that adaptation gives
   back. And SDSS -> DECaLS on the real sets: 165 face-on discs without arms, and no pairs.
3. Outliers: trails, saturated stars and ghosts put into real images, and how many are among the
   oddest, by each ranking. Search: share of the 10 nearest that have the same class.

    python bench/morphology.py [--quick] [--seconds S] [--galaxies N] [--sizes D ...]
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
from galaxy_images.change import real_change, survey_change
from galaxy_images.figures import rounded
from galaxy_images.networks import NETWORKS
from galaxy_images.oddities import injected, precision
from galaxy_images.real_set import DATA, pictures, simulated_pictures
from galaxy_images.table import real, show
from torch import nn

from skyvec.batches import keep_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few images, seconds of training")
    parser.add_argument("--seconds", type=float, help="of training, a network and fold (60)")
    parser.add_argument("--adapting", type=float, help="seconds of adaptation (as of training)")
    parser.add_argument("--galaxies", type=int, help="simulated for the survey change (1600)")
    parser.add_argument("--folds", type=int, help="of the real set (3)")
    parser.add_argument("--tested", type=int, help="of the folds, for long trainings (all)")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[40], help="of the codes; the first is the usual"
    )
    parser.add_argument("--weight", type=float, default=30.0, help="of MMD^2")
    parser.add_argument(
        "--own-scaling", action="store_true", help="scale the target by its own sky and noise"
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument(
        "--keep", type=Path, help="folder of weights; what is there is not trained again"
    )
    parser.add_argument("--parts", nargs="+", default=["real", "change", "decals", "odd"])
    options = parser.parse_args()
    seconds = options.seconds or (3 if options.quick else 60)
    adapting = options.adapting or seconds
    galaxies = options.galaxies or (240 if options.quick else 1600)
    folds = options.folds or (2 if options.quick else 3)
    torch.set_num_threads(1)
    keep_memory()
    began, is_real = time.perf_counter(), DATA.is_dir()
    if not is_real:
        print(f"no {DATA}: simulated galaxies stand in for the real set")
    result: dict = {"real": is_real}
    most = 400 if options.quick else None
    pixels, table = pictures("sdss_gz1", most) if is_real else simulated_pictures(most or 1600)
    kept: dict[str, nn.Module] = {}
    if "real" in options.parts:
        tested = options.tested or folds
        rows, kept = real(
            pixels, table, seconds, folds, options.sizes, options.networks, tested, options.keep
        )
        show(rows)
        for task, ending in (("5 classes", ""), ("4 classes", "_unhanded")):
            for name in options.networks:
                result[f"bal_acc_{name}{ending}"] = rows[name].best(task)
            baselines = [rows[name].best(task) for name in ("pixels", "shapes")]
            result[f"bal_acc_baseline{ending}"] = max(baselines)
    if "odd" in options.parts and kept:
        result["outliers"] = injected(pixels, table, kept, 0.02)
        result["precision_at_10"] = precision(pixels, table, kept)
        print(json.dumps(rounded(result["outliers"])))
        print(json.dumps(rounded(result["precision_at_10"])))
    if "change" in options.parts:
        # the residual VAE would take as long again, and its change is much like the published
        asked = [name for name in options.networks if name != "residual_vae"]
        change = survey_change(
            galaxies, seconds, adapting, options.weight, options.own_scaling, asked, options.keep
        )
        if "default" in change:
            result["drop"] = change["default"]["drop"][0]
            result["drop_recovered"] = change["default"]["recovered_mmd"][0]
            result["drop_recovered_pairs"] = change["default"]["recovered_pairs"][0]
        result["change"] = change
    if "decals" in options.parts and is_real:
        result["sdss_to_decals"] = real_change(
            pixels, table, seconds, adapting, options.weight, ["default"], options.keep
        )
    result |= {
        "training_s": seconds,
        "adapting_s": adapting,
        "images": len(pixels),
        "folds": folds,
    }
    result |= {"seconds": time.perf_counter() - began, "cores": os.cpu_count()}
    print(json.dumps(rounded(result)))


if __name__ == "__main__":
    main()
