"""How wide a code must be: the same recipe at several widths, and what each keeps of an image."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyvec import store
from skyvec.batches import frames, image_training_set, use_threads
from skyvec.checkpoint import Recipe, load
from skyvec.encode import IMAGE_BATCH, reconstructs
from skyvec.nn.frames import frame_mean
from skyvec.nn.losses import ssim
from skyvec.train import Progress, train

WIDTHS = (8, 16, 24, 32, 40, 64, 96, 128)


class Kept(NamedTuple):
    """What codes keep of held-out images, mean over images.

    Args:
        mse: Mean squared residual a pixel, in the units the model sees.
        ssim: Structural similarity; 1 = the same.
        images: How many.
    """

    mse: float
    ssim: float
    images: int


def sweep(
    survey: Path,
    recipe: Recipe,
    name: str,
    *,
    widths: Sequence[int] = WIDTHS,
    progress: Callable[[int, Progress], object] | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> pa.Table:
    """Train a recipe with codes of several widths and see what each draws of unseen images.

    The models are kept as ``NAME-8``, ``NAME-16`` and so on; run again, the sweep goes on where
    it was stopped.

    Args:
        survey: Survey of images.
        recipe: Of a model that reconstructs; ``[model] latent`` is replaced.
        name: First part of the names of the models.
        widths: Widths of the code.
        progress: Called after every step with the width and where its training stands.
        threads: Threads of torch; none leaves them as they are.
        device: Where torch computes.

    Returns:
        A row a width: ``latent``, ``mse``, ``ssim`` (on the validation split, which chooses),
        ``test_mse``, ``test_ssim`` (on objects that never took part), ``images``, ``model``.

    Raises:
        ValueError: No width, or a model that does not reconstruct.
        StoreError: The survey holds no images.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"widths = {list(widths)} must be whole numbers from 1 up")
    rows = []
    for width in sorted(set(widths)):
        asked = {**recipe, "model": {**recipe["model"], "latent": width}}

        def step(state: Progress, width: int = width) -> None:
            if progress is not None:
                progress(width, state)

        folder = train(
            survey, asked, f"{name}-{width}", progress=step, threads=threads, device=device
        )
        with use_threads(threads):
            seen = {part: what_is_kept(survey, folder.name, part) for part in ("valid", "test")}
        rows.append(
            {
                "latent": width,
                "mse": seen["valid"].mse,
                "ssim": seen["valid"].ssim,
                "test_mse": seen["test"].mse,
                "test_ssim": seen["test"].ssim,
                "images": seen["valid"].images,
                "model": folder.name,
            }
        )
    return pa.Table.from_pylist(rows)


def what_is_kept(survey: Path, name: str, part: str) -> Kept:
    """Compare images of a split with what a model draws of them.

    Raises:
        ValueError: The model does not reconstruct.
    """
    loaded = load(store.model_folder(survey, name))
    if not reconstructs(loaded.model):
        raise ValueError(f"{loaded.recipe['model']['name']} draws nothing; choose a VAE")
    pixels, _, parts = image_training_set(survey, **loaded.recipe["data"])
    return kept_by(loaded.model, pixels[parts == part])


def kept_by(model: Any, pixels: NDArray[np.float32]) -> Kept:
    """Compare images with what a model draws of their codes.

    Args:
        model: With ``code`` and ``decode``.
        pixels: As the model sees them, (n, C, Y, X); NaN where not measured.

    Returns:
        Means over the images; NaN of none.
    """
    squares, alike = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    with torch.inference_mode():
        for start in range(0, len(pixels), IMAGE_BATCH):
            batch = frames(pixels[start : start + IMAGE_BATCH])
            drawn = model.decode(model.code(batch))
            squares.append(frame_mean((drawn - batch.pixels).square(), batch).numpy())
            alike.append(ssim(drawn, batch.pixels, batch.mask).numpy())
    if not len(pixels):
        return Kept(np.nan, np.nan, 0)
    return Kept(
        float(np.concatenate(squares).mean()), float(np.concatenate(alike).mean()), len(pixels)
    )


def draw_sweep(table: pa.Table) -> Figure:
    """Draw error and similarity against the width of the code; full = validation, open = test."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    width = table["latent"].to_numpy()
    for i, (column, title) in enumerate(
        (("mse", "mean squared residual"), ("ssim", "structural similarity"))
    ):
        axes = figure.add_subplot(1, 2, i + 1)
        colour = ("#4477AA", "#EE6677")[i]
        axes.plot(width, table[column].to_numpy(), "o-", color=colour, label="validation")
        axes.plot(
            width, table[f"test_{column}"].to_numpy(), "o--", color=colour, mfc="w", label="test"
        )
        axes.set_xscale("log", base=2)
        axes.set_xticks(width, [str(w) for w in width])
        axes.minorticks_off()
        axes.set_xlabel("numbers in the code")
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure
