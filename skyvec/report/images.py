"""Pictures of images: small colour pictures side by side, as a person would want to see them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skyvec.prep.images import Scaling
from skyvec.report.pictures import FAINT, INK, cluster_colour
from skyvec.schema import Images, Strings

MISSING = (0.35, 0.35, 0.42)
"""Colour of pixels that were not measured: the blue-grey of nothing on the sky."""

RED_FIRST = ("red", "green", "blue")
"""Bands of pictures, which come red first; those of telescopes come blue first."""

SIDE = 1.45
"""[inch] Side of a picture."""


def colour_pictures(images: Images) -> NDArray[np.float32]:
    """Make pictures for the eye: red, green, blue in [0, 1], shape (n, y, x, 3).

    Pictures of viewers stay as they are. Fluxes are stretched together (Lupton et al. 2004), with
    a sky, noise and bright end measured on all of these images, so that their brightness can be
    compared; the reddest band is red, and what is as red as their bright ends is white, however
    unlike the noise of the bands is. One band is grey. What was not measured is blue-grey.
    """
    pixels = images.pixels
    scaled: NDArray[np.floating]
    if images.bands == RED_FIRST and not (pixels.max(initial=0, where=~np.isnan(pixels)) > 255):
        scaled = pixels / 255
    else:
        n_bands = pixels.shape[1]
        kind = "lupton" if n_bands > 1 else "arcsinh"
        fitted = Scaling.fit(pixels, kind)
        bright = fitted.top - fitted.sky
        balanced = replace(fitted, soft=bright * np.mean(fitted.soft / bright))
        scaled = balanced.apply(pixels)
        scaled = scaled[:, ::-1] if images.bands != RED_FIRST else scaled
        # more bands than the eye has are seen as their reddest, middle and bluest
        scaled = scaled[:, np.linspace(0, n_bands - 1, 3).round().astype(int)]
    scaled = np.repeat(scaled, 3, axis=1) if scaled.shape[1] == 1 else scaled
    picture = np.moveaxis(scaled, 1, 3)
    missing = np.isnan(picture).any(axis=3, keepdims=True)
    picture = np.clip(np.where(missing, MISSING, picture), 0, 1)
    return picture.astype(np.float32)


def together(*parts: Images) -> list[NDArray[np.float32]]:
    """Make pictures of several sets of images with one stretch."""
    pixels = np.concatenate([part.pixels for part in parts])
    ids = np.concatenate([part.id for part in parts])
    seen = colour_pictures(Images(ids, pixels, parts[0].bands))
    return np.split(seen, np.cumsum([len(part) for part in parts])[:-1])


def draw_picture(axes: Axes, picture: NDArray[np.float32], *, colour: str = "") -> None:
    """Draw one picture, with a frame where a colour is given."""
    axes.imshow(picture, interpolation="nearest" if len(picture) < 48 else "antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(bool(colour))
        side.set_color(colour or INK)
        side.set_linewidth(2.0)


def picture_grid(
    pictures: NDArray[np.float32],
    captions: Sequence[str],
    *,
    across: int = 6,
    colours: Sequence[str] | None = None,
) -> Figure:
    """Draw pictures as small multiples, each with its caption.

    Args:
        pictures: From :func:`colour_pictures`, shape (m, y, x, 3), m >= 1.
        captions: One a picture; a line break makes a second, fainter line.
        across: Pictures a row.
        colours: Colour of the caption and the frame of each; plain ink and no frame if not given.
    """
    if not len(pictures):
        raise ValueError("there are no images to draw; give at least one")
    across = min(across, len(pictures))
    down = -(-len(pictures) // across)
    figure = Figure(figsize=(across * (SIDE + 0.12) + 0.1, down * (SIDE + 0.42) + 0.1))
    for i, picture in enumerate(pictures):
        axes = _place(figure, divmod(i, across))
        colour = colours[i] if colours else INK
        draw_picture(axes, picture, colour=colour if colour != INK else "")
        _caption(axes, captions[i], colour)
    return figure


def _place(figure: Figure, place: tuple[int, int]) -> Axes:
    width, height = figure.get_size_inches()
    left = 0.1 + place[1] * (SIDE + 0.12)
    bottom = height - (place[0] + 1) * (SIDE + 0.42)
    return figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))


def _caption(axes: Axes, caption: str, colour: str) -> None:
    head, _, rest = caption.partition("\n")
    head = head if len(head) <= 26 else head[:12] + "…" + head[-13:]
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    high = 11 if rest else 3
    axes.annotate(head, (0, 1), xytext=(0, high), fontsize=6.5, color=colour, **style)
    if rest:
        axes.annotate(rest, (0, 1), xytext=(0, 3), fontsize=5.8, color=FAINT, **style)


def cluster_samples(
    pictures: NDArray[np.float32],
    ids: Strings,
    members: Mapping[int, Sequence[int]],
    size: Mapping[int, int],
) -> Figure:
    """Draw a few members of each cluster: one row a cluster, framed in the colour of the map.

    Args:
        pictures: From :func:`colour_pictures`, shape (m, y, x, 3).
        ids: Of each, shape (m,).
        members: For each cluster the rows to draw, at least one each.
        size: For each cluster how many members it has in all.
    """
    if not members:
        raise ValueError("there are no clusters to draw; every object is noise")
    across = max(len(rows) for rows in members.values())
    down = len(members)
    figure = Figure(figsize=(across * (SIDE + 0.12) + 0.1, down * (SIDE + 0.42) + 0.1))
    for i, (cluster, rows) in enumerate(members.items()):
        for j, row in enumerate(rows):
            axes = _place(figure, (i, j))
            draw_picture(axes, pictures[row], colour=cluster_colour(cluster))
            head = f"cluster {cluster}: {size[cluster]:,} members" if j == 0 else ""
            _caption(axes, f"{head}\n{ids[row]}", INK)
    return figure


def reconstruction_grid(
    shown: NDArray[np.float32], drawn: NDArray[np.float32], ids: Strings
) -> Figure:
    """Draw each image above what its code draws, shapes (m, y, x, 3), up to nine in a row."""
    across = min(9, len(shown))
    pictures, captions = [], []
    for start in range(0, len(shown), across):
        part = slice(start, start + across)
        pictures += [*shown[part], *drawn[part]]
        captions += [f"{name}\nas seen" for name in ids[part]]
        captions += ["\nfrom its code"] * len(ids[part])
    return picture_grid(np.stack(pictures), captions, across=across)
