"""What codes know of the classes of the real set, fold by fold."""

from functools import partial
from pathlib import Path

import numpy as np
from galaxy_images.networks import Pixels, built, encoder, once, train
from galaxy_images.real_set import shapes_of
from numpy.typing import NDArray
from torch import nn

from skyvec.analysis.probes import folds_by_target, probe, scores_of
from skyvec.prep.codes import FeatureCode, PixelsCode, pixel_table
from skyvec.prep.images import Scaling
from skyvec.studies.sweep import Kept, components_keep, drawing, kept_by

PROBES = ("knn", "linear", "ridge", "forest")


class Row:
    """Confusion matrices of one code, fold by fold, and what is kept of held-out images."""

    def __init__(self) -> None:
        self.confusion: dict[tuple[str, str], NDArray[np.int64]] = {}
        self.drawn: list[Kept] = []

    def add(self, task: str, name: str, confusion: NDArray[np.int64]) -> None:
        """Add a fold."""
        self.confusion[task, name] = self.confusion.get((task, name), 0) + confusion

    def score(self, task: str, name: str) -> tuple[float, float, float]:
        """Balanced accuracy, and the central 95 % when the objects are drawn again."""
        confusion = self.confusion[task, name]
        n, rng = int(confusion.sum()), np.random.default_rng(0)
        draws = rng.multinomial(n, confusion.ravel() / n, 1000).reshape(-1, *confusion.shape)
        spread = [scores_of(draw).balanced_accuracy for draw in draws]
        low, high = np.quantile(spread, [0.025, 0.975])
        return scores_of(confusion).balanced_accuracy, float(low), float(high)

    def best(self, task: str) -> float:
        """Of the probe that does best; the same rule for every code."""
        return max(self.score(task, name)[0] for name in PROBES if (task, name) in self.confusion)


def measure(
    row: Row, vectors: NDArray, tasks: dict[str, NDArray[np.str_]], ids: NDArray, test: NDArray
) -> None:
    """Probe one code on one fold."""
    split = np.where(test, "test", "train")
    for task, labels in tasks.items():
        for found in probe(
            vectors,
            labels,
            ids,
            split=split,
            rng=np.random.default_rng(0),
            probes=PROBES,
            replicates=0,
            jobs=1,
        ):
            row.add(task, found.probe, found.confusion)


def real(
    pixels: Pixels,
    table: dict,
    seconds: float,
    folds: int,
    sizes: list[int],
    networks: list[str],
    tested: int,
    keep: Path | None,
) -> tuple[dict[str, Row], dict[str, nn.Module]]:
    """Rows of the table of part 1, and the networks of the first fold."""
    labels = np.where(table["label"] == "unknown", "", table["label"])
    joined = np.char.replace(np.char.replace(labels, "_acw", ""), "_cw", "")
    tasks = {"5 classes": labels, "4 classes": joined}
    code = np.unique(labels, return_inverse=True)[1]
    fold = folds_by_target(code, table["id"], folds=folds, rng=np.random.default_rng(0))
    shapes = shapes_of(pixels, keep)
    rows: dict[str, Row] = {}
    kept: dict[str, nn.Module] = {}
    for part in range(tested):
        test = fold == part
        scaling = Scaling.fit(pixels[~test], "linear")
        scaled = scaling.apply(pixels)
        own = scaled[~test]
        vectors = {"majority": np.zeros((len(pixels), 1), np.float32)}
        drawn: dict[str, Kept] = {}
        coarse = pixel_table(scaled)
        vectors["pixels"] = PixelsCode.fit(coarse[~test]).transform(coarse).vectors
        vectors["shapes"] = FeatureCode.fit(shapes[~test]).transform(shapes).vectors
        for name in networks:
            for size in sizes:
                model = built(name, seed=part, latent=size)
                row = name if size == sizes[0] else f"{name}, {size} numbers"
                if name == "default":
                    ending = row.removeprefix(name)
                    vectors[f"default, untrained{ending}"] = encoder(model)(scaled)
                about = f"{name}-{size}-fold{part + 1}of{folds}-{seconds:g}s"
                steps = once(keep, about, model, partial(train, name, model, own, seconds, part))
                vectors[row] = encoder(model)(scaled)
                if hasattr(model, "decode"):
                    drawn[row] = kept_by(drawing(model), scaled[test])
                print(f"fold {part + 1}: {row}, {steps} steps", flush=True)
                if part == 0 and size == sizes[0]:
                    kept[name] = model
        for name, codes in vectors.items():
            measure(rows.setdefault(name, Row()), codes, tasks, table["id"], test)
        if drawn:
            plain = components_keep(own, {"test": scaled[test]}, sizes)
            drawn |= {f"components, {n} numbers": each["test"] for n, each in plain.items()}
        for name, found in drawn.items():
            rows.setdefault(name, Row()).drawn.append(found)
    return rows, kept


def show(rows: dict[str, Row]) -> None:
    for task in ("5 classes", "4 classes"):
        print(f"\n{task + ', balanced accuracy':<40}" + "".join(f"{p:>24}" for p in PROBES))
        for name, row in rows.items():
            if not row.confusion:
                continue
            cells = [row.score(task, p) for p in PROBES]
            text = "".join(f"{f'{m:.3f} [{low:.3f}, {high:.3f}]':>24}" for m, low, high in cells)
            print(f"{name:<40}{text}")
    if any(row.drawn for row in rows.values()):
        print("\nheld-out images drawn from their codes: mean squared residual, SSIM")
    for name, row in rows.items():
        if row.drawn:
            mse, alike = np.mean([(kept.mse, kept.ssim) for kept in row.drawn], axis=0)
            print(f"{name:<40}{mse:12.5f}{alike:8.3f}")
    print(flush=True)
