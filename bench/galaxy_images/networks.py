"""The networks of the table: trained by processor time, kept on disk, asked for codes."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from skyvec.batches import frames
from skyvec.models import MODELS
from skyvec.nn.frames import Frames
from skyvec.studies.adaptation import Both

Pixels = NDArray[np.float32]
Encode = Callable[[Pixels], NDArray[np.float32]]


class Network(NamedTuple):
    """How a row of the table is trained."""

    model: str
    rate: float
    optimiser: type[torch.optim.Optimizer]
    batch: int


NETWORKS = {
    "default": Network("logpolar", 1e-3, torch.optim.AdamW, 128),
    "residual_vae": Network("residual_vae", 1e-3, torch.optim.AdamW, 32),
    "published": Network("vae", 1e-3, torch.optim.Adam, 32),
}
"""The published rate of 1e-5 would hardly move the weights in the time given here, and of the
published 512 images a step there would be few steps: 32 bring the VAEs seven times as many as
128. The default compares the images of a batch with each other, so it wants many."""


def built(name: str, *, seed: int, latent: int = 40) -> nn.Module:
    """A network of 3 bands of 64 x 64, not yet trained."""
    torch.manual_seed(seed)
    return MODELS[NETWORKS[name].model](bands=3, size=64, latent=latent).eval()


def train(name: str, model: nn.Module, pixels: Pixels, seconds: float, seed: int) -> int:
    """Train on images as the network's row says; count the steps."""
    most = min(NETWORKS[name].batch, len(pixels))

    def draw(rng: np.random.Generator) -> Frames:
        return frames(pixels[rng.choice(len(pixels), most, replace=False)])

    return learn(name, model, draw, seconds, seed)


def learn(
    name: str,
    model: nn.Module,
    draw: Callable[[np.random.Generator], Frames | Both],
    seconds: float,
    seed: int,
) -> int:
    """Train by processor time, the rate falling as a cosine; count the steps."""
    rate = NETWORKS[name].rate
    steps, start = 0, time.process_time()
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    own = NETWORKS[name].optimiser(model.parameters(), lr=rate)
    model.train()
    while (done := (time.process_time() - start) / seconds) < 1:
        for group in own.param_groups:
            warm = min(1.0, (steps + 1) / 30)
            group["lr"] = rate * warm * max(0.01, 0.5 + 0.5 * math.cos(math.pi * done))
        loss, _ = model.loss(draw(rng), generator)
        own.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        own.step()
        steps += 1
    model.eval()
    return steps


def once(keep: Path | None, name: str, model: nn.Module, work: Callable[[], int]) -> int:
    """Train, or take the weights that an earlier run has kept; count the steps."""
    path = None if keep is None else keep / f"{name}.safetensors"
    if path is not None and path.exists():
        model.load_state_dict(load_file(path))
        return int(model.eval().steps)
    steps = work()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(weights, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    return steps


def encoder(model: nn.Module) -> Encode:
    def encode(pixels: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [model.encode(frames(pixels[i : i + 256])) for i in range(0, len(pixels), 256)]
        return torch.cat(parts).numpy()

    return encode
