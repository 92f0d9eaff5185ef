"""How wide a code must be: the same recipe at several widths, and what each keeps of an image."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from skyvec.batches import SPLITS, frames, image_training_set, use_threads
from skyvec.checkpoint import Recipe, load
from skyvec.encode import IMAGE_BATCH, reconstructs
from skyvec.models import MODELS
from skyvec.nn.frames import Frames, frame_mean
from skyvec.nn.losses import ssim
from skyvec.train import Progress, train

WIDTHS = (8, 16, 24, 32, 40, 64, 96, 128)
SHOWN = ("valid", "test")
MOST_FITTED = 2_000

Pixels = NDArray[np.float32]


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
        ``test_mse``, ``test_ssim`` (on objects that never took part), ``components_mse``,
        ``components_ssim`` (those of as many principal components, on the same), ``images``,
        ``model``.

    Raises:
        ValueError: No width, or a model that does not reconstruct.
        StoreError: The survey holds no images.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"widths = {list(widths)} must be whole numbers from 1 up")
    kind = recipe["model"]["name"]
    if kind in MODELS and not reconstructs(MODELS[kind]):
        raise ValueError(f"{kind} draws nothing from its code; choose a VAE")
    wanted = sorted(set(widths))
    found: list[tuple[int, str, dict[str, Kept]]] = []
    shown: dict[str, Pixels] = {}
    for width in wanted:
        asked = {**recipe, "model": {**recipe["model"], "latent": width}}

        def step(state: Progress, width: int = width) -> None:
            if progress is not None:
                progress(width, state)

        folder = train(
            survey, asked, f"{name}-{width}", progress=step, threads=threads, device=device
        )
        loaded = load(folder)
        if not shown:  # the same for every width
            pixels, _, parts = image_training_set(survey, **loaded.recipe["data"])
            shown = {part: pixels[parts == part] for part in SPLITS}
        with use_threads(threads):
            seen = {part: kept_by(drawing(loaded.model), shown[part]) for part in SHOWN}
        found.append((width, folder.name, seen))
    with use_threads(threads):
        plain = components_keep(shown["train"], {part: shown[part] for part in SHOWN}, wanted)
    return pa.Table.from_pylist(
        [
            {
                "latent": width,
                "mse": seen["valid"].mse,
                "ssim": seen["valid"].ssim,
                "test_mse": seen["test"].mse,
                "test_ssim": seen["test"].ssim,
                "components_mse": plain[width]["test"].mse,
                "components_ssim": plain[width]["test"].ssim,
                "images": seen["valid"].images,
                "model": model,
            }
            for width, model, seen in found
        ]
    )


def too_short(table: pa.Table) -> list[int]:
    """Widths whose code keeps less of the test images than as many principal components.

    A network can do whatever a linear map can, so there it has not been trained for long enough,
    and the curve does not say how many numbers are worth having.
    """
    columns = (table[name].to_numpy() for name in ("latent", "test_mse", "components_mse"))
    return [int(width) for width, error, plain in zip(*columns) if error > plain]


def drawing(model: Any) -> Callable[[Frames], Tensor]:
    """Give what draws images again through a model with ``code`` and ``decode``."""
    return lambda batch: model.decode(model.code(batch))


def components_keep(
    train: Pixels, shown: Mapping[str, Pixels], widths: Sequence[int]
) -> dict[int, dict[str, Kept]]:
    """What as many principal components keep: the least that a learned code should.

    Args:
        train: Prepared images, (n, C, Y, X); at most 2,000 give the components.
        shown: Images to draw again, by name.
        widths: How many components, each.

    Returns:
        By width and name; NaN where there are fewer images than components.
    """
    flat = np.nan_to_num(train[:MOST_FITTED].reshape(len(train[:MOST_FITTED]), -1), nan=0.0)
    most = min(max(widths), *flat.shape)
    fitted = PCA(most, svd_solver="randomized", random_state=0).fit(flat)
    mean, axes = (
        torch.from_numpy(a.astype(np.float32)) for a in (fitted.mean_, fitted.components_)
    )

    def draw(width: int) -> Callable[[Frames], Tensor]:
        def drawn(batch: Frames) -> Tensor:
            code = (batch.pixels.flatten(1) - mean) @ axes[:width].T
            return (mean + code @ axes[:width]).view(batch.pixels.shape)

        return drawn

    none = Kept(np.nan, np.nan, 0)
    return {
        width: {
            part: kept_by(draw(width), pixels) if width <= most else none
            for part, pixels in shown.items()
        }
        for width in widths
    }


def kept_by(draw: Callable[[Frames], Tensor], pixels: Pixels) -> Kept:
    """Compare images with what is drawn of them.

    Args:
        draw: Makes the images of a batch again.
        pixels: As a model sees them, (n, C, Y, X); NaN where not measured.

    Returns:
        Means over the images; NaN of none.
    """
    squares, alike = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    with torch.inference_mode():
        for start in range(0, len(pixels), IMAGE_BATCH):
            batch = frames(pixels[start : start + IMAGE_BATCH])
            drawn = draw(batch)
            squares.append(frame_mean((drawn - batch.pixels).square(), batch).numpy())
            alike.append(ssim(drawn, batch.pixels, batch.mask).numpy())
    if not len(pixels):
        return Kept(np.nan, np.nan, 0)
    return Kept(
        float(np.concatenate(squares).mean()), float(np.concatenate(alike).mean()), len(pixels)
    )


def draw_sweep(table: pa.Table) -> Figure:
    """Draw error and similarity against the width of the code, beside principal components."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    width = table["latent"].to_numpy()
    grey = "#777777"
    for i, (column, title) in enumerate(
        (("mse", "mean squared residual"), ("ssim", "structural similarity"))
    ):
        axes = figure.add_subplot(1, 2, i + 1)
        colour = ("#4477AA", "#EE6677")[i]
        plain = table[f"components_{column}"].to_numpy()
        axes.plot(width, plain, "-", color=grey, lw=1, label="principal components, test")
        axes.plot(width, table[column].to_numpy(), "o-", color=colour, label="validation")
        axes.plot(
            width, table[f"test_{column}"].to_numpy(), "o--", color=colour, mfc="w", label="test"
        )
        axes.set_xscale("log", base=2)
        axes.set_xticks(width, [str(w) for w in width])
        axes.minorticks_off()
        if column == "mse":
            axes.set_ylim(bottom=0)
        axes.set_xlabel("numbers in the code")
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure
