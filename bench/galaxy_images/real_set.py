"""The pictures that are measured on, and shapes by hand of them."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyvec.prep.images import resize
from skyvec.prep.morphology import shape_statistics
from skyvec.sim.galaxies import simulate_galaxies

DATA = Path(__file__).parents[3] / "shared" / "data" / "galaxies"

Pixels = NDArray[np.float32]


def pictures(name: str, most: int | None) -> tuple[Pixels, dict[str, NDArray[np.str_]]]:
    """Images of a real set at 64 x 64, and its table."""
    from PIL import Image

    folder = DATA / name
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(0).permutation(len(rows))[:most]
    rows = [rows[i] for i in np.sort(order)]
    key = next(iter(rows[0]))
    loaded = []
    for row in rows:
        with Image.open(folder / "images" / f"{row[key]}.jpg") as picture:
            pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)
        loaded.append(resize(pixels[None], size=64)[0])
    table = {column: np.array([row[column] for row in rows]) for column in rows[0]}
    return np.stack(loaded), {"id": table.pop(key), **table}


def simulated_pictures(n: int) -> tuple[Pixels, dict[str, NDArray[np.str_]]]:
    ((catalog, images),) = simulate_galaxies(n, np.random.default_rng(0))
    winding = np.select(
        [catalog.columns["winding"] == 1, catalog.columns["winding"] == -1], ["_acw", "_cw"], ""
    )
    shape = np.select(
        [np.isin(catalog.columns["label"], ["spiral", "barred"])],
        ["spiral"],
        catalog.columns["label"],
    )
    label = np.where(shape == "spiral", np.char.add(shape, winding), shape)
    return images.pixels, {"id": catalog.target, "label": label}


def shapes_of(pixels: Pixels, keep: Path | None) -> NDArray[np.float64]:
    """Shapes by hand, measured or from an earlier run."""
    path = None if keep is None else keep / f"shapes-{len(pixels)}.npy"
    if path is not None and path.exists():
        return np.load(path)
    shapes = shape_statistics(pixels)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, shapes)
    return shapes
