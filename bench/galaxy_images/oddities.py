"""Injected artefacts among the oddest, and neighbours of the same class."""

import numpy as np
import torch
from galaxy_images.networks import Pixels, encoder
from numpy.typing import NDArray
from torch import nn

from skyvec.analysis.outliers import class_distances, far_from_others, outliers
from skyvec.batches import frames
from skyvec.index.exact import ExactIndex
from skyvec.prep.images import Scaling
from skyvec.schema import Latents
from skyvec.sim.artefacts import inject

INJECTIONS = 4


def as_latents(vectors: NDArray[np.float32], ids: NDArray) -> Latents:
    unknown = np.full(len(ids), np.nan)
    return Latents(
        ids.astype(np.str_), ids.astype(np.str_), vectors, "bench", "", unknown, unknown, unknown
    )


def injected(pixels: Pixels, table: dict, kept: dict[str, nn.Module], share: float) -> dict:
    """Part 3: recall of injected artefacts among the oddest, mean of several injections."""
    known = np.flatnonzero(table["label"] != "unknown")
    n = max(3, int(share * len(known)))
    scaling = Scaling.fit(pixels, "linear")
    found: dict = {name: {} for name in kept}
    for draw in range(INJECTIONS):
        rng = np.random.default_rng(3 + draw)
        chosen = rng.choice(len(known), n, replace=False)
        changed = pixels[known].copy()
        kinds = rng.choice(["trail", "saturated", "ghost"], n)
        for place, kind in zip(chosen, kinds.tolist()):
            changed[place] = np.clip(inject(changed[place], kind, rng), 0, 255)
        scaled = scaling.apply(changed)
        for name, model in kept.items():
            vectors = encoder(model)(scaled)
            latents = as_latents(vectors, table["id"][known])
            # the published way: distance to the class centre over the median such distance
            far = class_distances(vectors, table["label"][known])
            orders = {
                "cosine": outliers(latents, n=None).rows,
                "distance": np.argsort(-far_from_others(latents), kind="stable"),
                "class": np.argsort(-far, kind="stable"),
            }
            if hasattr(model, "decode"):
                orders["error"] = np.argsort(-left_over(model, scaled), kind="stable")
            for way, order in orders.items():
                for m in (n, 2 * n, 4 * n):
                    hit = np.isin(chosen, order[:m])
                    found[name].setdefault(f"{way}_top_{m}", []).append(hit.mean())
                    if m == 2 * n:
                        for kind in np.unique(kinds):
                            key = f"{way}_{kind}_top_{m}"
                            found[name].setdefault(key, []).append(hit[kinds == kind].mean())
    means = {name: {k: float(np.mean(v)) for k, v in row.items()} for name, row in found.items()}
    return {"chance": {m: m / len(known) for m in (n, 2 * n, 4 * n)}, **means}


def left_over(model: nn.Module, pixels: Pixels) -> NDArray[np.float32]:
    """Mean squared residual of the image drawn from its code, (n,)."""
    with torch.inference_mode():
        parts = []
        for i in range(0, len(pixels), 256):
            batch = frames(pixels[i : i + 256])
            drawn = model.decode(model.code(batch))
            parts.append((drawn - batch.pixels).square().mean((1, 2, 3)))
    return torch.cat(parts).numpy()


def precision(pixels: Pixels, table: dict, kept: dict[str, nn.Module]) -> dict:
    """Share of the 10 nearest that have the same class, by class, and that of chance."""
    known = table["label"] != "unknown"
    labels = table["label"][known]
    names, counts = np.unique(labels, return_counts=True)
    scaled = Scaling.fit(pixels, "linear").apply(pixels[known])
    result = {"chance": dict(zip(names.tolist(), ((counts - 1) / (len(labels) - 1)).tolist()))}
    for name, model in kept.items():
        vectors = encoder(model)(scaled)
        _, rows = ExactIndex(vectors).search(vectors, 11)
        own = np.arange(len(vectors))[:, None]
        hits = (labels[rows] == labels[:, None]) & (rows != own)
        each = hits.sum(axis=1) / (rows != own).sum(axis=1)
        result[name] = {str(c): float(each[labels == c].mean()) for c in names}
    return result
