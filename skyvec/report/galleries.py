"""Objects of a survey as pictures, whatever they are: the one place that asks what it holds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skyvec import checkpoint, store
from skyvec.encode import reconstruct, reconstruct_images, reconstructs
from skyvec.prep.codes import BASELINES
from skyvec.prep.lightcurves import Prepared, prepare
from skyvec.report import images, pictures


def grid(
    survey: Path,
    ids: Sequence[str],
    captions: Sequence[str],
    *,
    across: int = 0,
    colours: Sequence[str] | None = None,
) -> Figure:
    """Draw objects as small multiples, each with its caption.

    Args:
        survey: The survey's folder.
        ids: At least one.
        captions: One an object; a line break makes a second, fainter line.
        across: Panels a row; 0 = what suits them.
        colours: One an object; plain ink where not given.
    """
    if store.survey_kind(survey) == "images":
        seen = images.colour_pictures(store.find_images(survey, ids))
        return images.picture_grid(seen, captions, across=across or 6, colours=colours)
    rows = np.arange(len(ids))
    curves = _curves(survey, ids)
    return pictures.curve_grid(curves, rows, captions, across=across or 4, colours=colours)


def cluster_samples(
    survey: Path, members: Mapping[int, Sequence[str]], size: Mapping[int, int]
) -> Figure:
    """Draw a few members of each cluster, one row a cluster.

    Args:
        survey: The survey's folder.
        members: Ids for each cluster.
        size: Members of each cluster in all.
    """
    ids = [name for own in members.values() for name in own]
    place = {name: i for i, name in enumerate(ids)}
    rows = {cluster: [place[name] for name in own] for cluster, own in members.items()}
    if store.survey_kind(survey) == "images":
        found = store.find_images(survey, ids)
        return images.cluster_samples(images.colour_pictures(found), found.id, rows, size)
    return pictures.cluster_samples(_curves(survey, ids), rows, size)


def thumbnails(survey: Path, ids: Sequence[str]) -> Callable[[Axes, int, str], None]:
    """Give what draws object i of some on axes, small, in a colour: for beside a map."""
    if store.survey_kind(survey) == "images":
        seen = images.colour_pictures(store.find_images(survey, ids))
        return lambda axes, i, colour: images.draw_picture(axes, seen[i], colour=colour)
    curves = _curves(survey, ids)

    def draw(axes: Axes, i: int, colour: str) -> None:
        pictures.draw_curve(axes, curves, i, colour=colour, columns=190)
        axes.set_axis_off()
        axes.margins(x=0.01, y=0.05)

    return draw


def key(survey: Path) -> str:
    """Say how the pictures are to be read."""
    bands = store.survey_bands(survey)
    if store.survey_kind(survey) == "images":
        if bands == images.RED_FIRST or len(bands) == 1:
            return ""
        return f" Bands {', '.join(bands)}, the last one in red; grey-blue was not measured."
    named = [f"{band} {colour}" for band, colour in zip(bands, pictures.BAND_NAMES)]
    colours = f" Bands: {', '.join(named)}." if len(bands) > 1 else ""
    return (
        f"{colours} Sparse curves with a clear period are drawn against its phase (found by "
        "Lomb-Scargle, for the picture only); fast ones have a close-up at their right."
    )


def reconstructions(survey: Path, model: str, ids: Sequence[str]) -> tuple[Figure, str] | None:
    """Draw objects beside what their codes say, and a caption; None if the model draws nothing."""
    loaded = checkpoint.load(store.model_folder(survey, model))
    if loaded.recipe["model"]["name"] in BASELINES or not reconstructs(loaded.model):
        return None
    if store.survey_kind(survey) == "images":
        shown, drawn = reconstruct_images(loaded, store.find_images(survey, ids))
        seen = images.together(shown, drawn)
        return (
            images.reconstruction_grid(seen[0], seen[1], shown.id),
            "Above each image as the model sees it, below as it draws it; chosen at random.",
        )
    found = store.find_curves(survey, ids)
    curves = prepare(found, round_days=0)
    models = pictures.decoded_models(found, curves, reconstruct(loaded, found).flux)
    figure = pictures.curve_grid(curves, np.arange(len(ids)), ids, across=3, models=models)
    return figure, "Points in grey, the curve decoded from the code in orange; chosen at random."


def _curves(survey: Path, ids: Sequence[str]) -> Prepared:
    """Curves on their own scale; times are not rounded for drawing."""
    return prepare(store.find_curves(survey, ids), round_days=0)
