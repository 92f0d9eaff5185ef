"""How fast images become vectors, and in how much memory: the default beside the published VAE.

Blobs in noise, 3 bands of 64 x 64 float32, through `skyvec encode`'s own path: read from shards,
scaled, encoded. All models in one run, in turns, best of the turns; the first weights serve, since
speed does not depend on them. Vectors alone are timed: what a VAE would draw again for its error
is left out, and given in a row of its own. Prints one row a model, also per second of processor
time (which a busy machine does not lower as much), and

    images_per_s        of the default
    vs_published_vae    ratio to the published VAE, same images, same threads
    memory_growth_mb    peak memory of four times as many images less that of the first run

    python bench/images.py [--images N] [--turns T] [--threads K]
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from skyvec import encode, store
from skyvec.checkpoint import build, complete, load, save
from skyvec.schema import Catalog, Images

MODELS = {"default": "logpolar", "published": "vae", "residual": "residual_vae"}
DRAWN = "published with error"
SIDE = 64
SHARD = 2_000


def make_survey(folder, n):
    """A survey of n blobs in noise, in shards of 2,000."""
    store.create_survey(folder)
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    for first in range(0, n, SHARD):
        count = min(SHARD, n - first)
        rng = np.random.default_rng(first)
        width = rng.uniform(3, 10, (count, 1, 1, 1))
        blob = np.exp(-np.hypot(x, y) / width) * rng.uniform(5, 50, (count, 3, 1, 1))
        pixels = (blob + rng.normal(size=(count, 3, SIDE, SIDE))).astype(np.float32)
        ids = np.array([f"o{first + i}" for i in range(count)])
        nan = np.full(count, np.nan)
        images = Images(ids, pixels, ("g", "r", "z"), 0.262)
        store.append_objects(folder, Catalog(ids, ids, nan, nan), images, np.full(count, "bench"))


def make_model(folder, name):
    """The first weights of a model, stored as if it were trained."""
    scaling = {"stretch": "arcsinh", "sky": [0.0] * 3, "soft": [5.0] * 3, "top": [50.0] * 3}
    recipe = complete({"model": {"name": MODELS[name]}, "data": scaling}, ("g", "r", "z"))
    save(store.model_folder(folder, name), recipe, build(recipe).state_dict(), {})
    return load(store.model_folder(folder, name))


def encode_all(folder, model, *, draws=False):
    """Encode every shard; give the seconds that took, by the clock and of the processor."""
    encode.reconstructs = lambda network: draws and hasattr(network, "decode")
    began, worked = time.perf_counter(), time.process_time()
    for shard in store.object_shards(folder):
        encode.encode_shard(folder, model, shard["file"])
    return np.array([time.perf_counter() - began, time.process_time() - worked])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place:
        few, many = Path(place) / "few", Path(place) / "many"
        make_survey(few, options.images)
        models = {name: make_model(few, name) for name in MODELS}
        best = {name: np.full(2, np.inf) for name in [*models, DRAWN]}
        for _ in range(options.turns):
            for name, model in models.items():
                best[name] = np.minimum(best[name], encode_all(few, model))
            drawn = encode_all(few, models["published"], draws=True)
            best[DRAWN] = np.minimum(best[DRAWN], drawn)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        make_survey(many, 4 * options.images)
        made = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        encode_all(many, models["default"])
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = {name: options.images / seconds for name, seconds in best.items()}
    for name, (wall, work) in rate.items():
        print(
            f"{name:21s} {MODELS.get(name, 'vae'):14s} {wall:9,.0f} images/s "
            f"{work:9,.0f} per second of processor"
        )
    found = {
        "images_per_s": round(rate["default"][0]),
        "vs_published_vae": round(rate["default"][0] / rate["published"][0], 3),
        "memory_growth_mb": round(after - max(before, made), 1),
    }
    print(json.dumps({"images": found}))


if __name__ == "__main__":
    main()
