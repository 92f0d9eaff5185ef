"""Pictures of answers as a whole: the map, the sky, losses, similarities.

Pure functions of arrays that give a Matplotlib figure, as in :mod:`skyvec.report.pictures`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from skyvec.report.pictures import (
    CLUSTER_COLOURS,
    FAINT,
    INK,
    MODEL_COLOUR,
    NOISE_COLOUR,
    QUERY_COLOUR,
    cluster_colour,
    quiet,
)
from skyvec.schema import Floats, Ints

# --- the map and the sky ----------------------------------------------------------------------

N_LISTED = 10
"""Clusters that are named beside a map."""


def map_picture(
    xy: Floats,
    cluster: Ints,
    *,
    examples: int = 0,
    thumbnail: Callable[[Axes, int, str], None] | None = None,
    marked: Ints | None = None,
    placed: Floats | None = None,
    title: str = "",
) -> Figure:
    """Draw the map of all latents, one point a segment, coloured by cluster.

    Args:
        xy: Place on the map, shape (n, 2); distances between islands mean little.
        cluster: Cluster of each, 0 the largest, -1 noise, shape (n,).
        examples: How many of the largest clusters get a number on the map; 0 = ten.
        thumbnail: Draws the example of the i-th of these on axes, in a colour; none where not
            given.
        marked: Rows to ring, such as the oddest.
        placed: Places of points that are not of the map, drawn as red crosses, shape (m, 2).
        title: Text above.

    Returns:
        A figure; noise is grey and lies below the clusters. Its first axes are the map.
    """
    figure = Figure(figsize=(10.4, 6.2))
    axes = figure.add_axes((0.03, 0.05, 0.68, 0.9))
    size = float(np.clip(9000 / max(len(xy), 1), 1.5, 14))
    noise = cluster < 0
    names, counts = np.unique(cluster[~noise], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    _dots(axes, xy[noise], s=0.6 * size, c=NOISE_COLOUR, lw=0, alpha=0.75, zorder=1)
    for name in names:
        colour = cluster_colour(int(name))
        _dots(axes, xy[cluster == name], s=size, c=colour, lw=0, alpha=0.85, zorder=2)
    shown = names[order][: examples or N_LISTED]
    for name in shown:
        _number(axes, xy[cluster == name], str(name), cluster_colour(int(name)))
    said = [f"{noise.sum():,} in no cluster (grey)"] if noise.any() else []
    if len(names) > len(shown):
        said.insert(0, f"and {len(names) - len(shown):,} smaller")
    if marked is not None and len(marked):
        style = {"facecolor": "none", "edgecolor": INK, "lw": 0.9, "zorder": 4}
        _dots(axes, xy[marked], s=40, **style)
        said.append("rings: the oddest")
    if placed is not None:
        _dots(axes, placed, s=60, c=QUERY_COLOUR, marker="X", lw=0, zorder=6)
        said.append("red crosses: placed")
    _map_frame(axes, title)
    _list_clusters(figure, shown, dict(zip(names.tolist(), counts.tolist())), thumbnail)
    figure.text(0.735, 0.03, "\n".join(said), fontsize=8, color=FAINT, va="bottom")
    return figure


def _list_clusters(
    figure: Figure,
    shown: Ints,
    size: Mapping[int, int],
    thumbnail: Callable[[Axes, int, str], None] | None,
) -> None:
    """Name the clusters in a column beside the map, each with an example if there is one."""
    height = 0.8 / max(N_LISTED, len(shown))
    for i, name in enumerate(shown):
        colour = cluster_colour(int(name))
        top = 0.97 - i * height
        text = f"{name}: {size[int(name)]:,}"
        figure.text(0.735, top - height / 2, text, fontsize=8.5, color=INK, va="center")
        figure.text(
            0.72, top - height / 2, "●", fontsize=9, color=colour, va="center", ha="center"
        )
        if thumbnail is not None:
            axes = figure.add_axes((0.8, top - 0.95 * height, 0.19, 0.9 * height))
            thumbnail(axes, i, colour)


def _dots(axes: Axes, xy: Floats, **style: Any) -> None:
    axes.scatter(xy[:, 0], xy[:, 1], **style)


def _number(axes: Axes, xy: Floats, text: str, colour: str) -> None:
    """Write a cluster's number at its member nearest to the middle."""
    middle = np.median(xy, axis=0)
    place = xy[np.argmin(((xy - middle) ** 2).sum(axis=1))]
    box = {"boxstyle": "round,pad=0.18", "fc": "white", "ec": colour, "lw": 0.9, "alpha": 0.88}
    axes.annotate(text, place, fontsize=8, color=INK, ha="center", va="center", bbox=box, zorder=5)


def _map_frame(axes: Axes, title: str) -> None:
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel("t-SNE 1", fontsize=8, color=FAINT, loc="left")
    axes.set_ylabel("t-SNE 2", fontsize=8, color=FAINT, loc="bottom")


def label_map(xy: Floats, label: np.ndarray, *, title: str = "") -> Figure:
    """Draw the map coloured by the classes of a catalogue, the twenty most frequent by name.

    Args:
        xy: Place on the map, shape (n, 2).
        label: Class of each, an empty string where unknown, shape (n,).
        title: Text above.
    """
    names, counts = np.unique(label[label != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")[: 2 * len(CLUSTER_COLOURS)]
    figure = Figure(figsize=(8.6, 6.2), layout="constrained")
    axes = figure.add_subplot()
    size = float(np.clip(9000 / max(len(xy), 1), 1.5, 14))
    rest = ~np.isin(label, names[order])
    if rest.any():
        text = f"other or unknown: {rest.sum():,}"
        _dots(axes, xy[rest], s=0.6 * size, c=NOISE_COLOUR, lw=0, alpha=0.75, label=text)
    for rank, i in enumerate(order):
        own = label == names[i]
        # the second ten have the colours of the first, and another shape
        style = {"marker": "o" if rank < len(CLUSTER_COLOURS) else "^", "alpha": 0.85, "lw": 0}
        text = f"{names[i]}: {counts[i]:,}"
        _dots(axes, xy[own], s=size, c=cluster_colour(rank), label=text, **style)
    _map_frame(axes, title)
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=8,
        frameon=False,
        handletextpad=0.3,
        markerscale=float(np.sqrt(28 / size)),
    )
    return figure


def sky_picture(ra: Floats, dec: Floats, cluster: Ints) -> Figure:
    """Draw where the segments lie on the sky, coloured by cluster; RA grows to the left.

    The whole sky is drawn (Mollweide) where the field is wider than 60 degrees, else the field.

    Args:
        ra: ICRS [deg], shape (n,), NaN where unknown.
        dec: ICRS [deg], shape (n,), NaN where unknown.
        cluster: Cluster of each, -1 noise, shape (n,).
    """
    known = np.isfinite(ra) & np.isfinite(dec)
    ra, dec, cluster = ra[known], dec[known], cluster[known]
    centre = _circular_mean(ra)
    offset = (ra - centre + 180) % 360 - 180  # [deg] east of the centre
    is_wide = bool(len(ra)) and max(np.ptp(offset), np.ptp(dec)) > 60
    figure = Figure(figsize=(8.0, 4.3), layout="constrained")
    colours = [cluster_colour(int(c)) for c in cluster]
    size = float(np.clip(6000 / max(len(ra), 1), 1, 12))
    if is_wide:
        axes = figure.add_subplot(projection="mollweide")
        axes.scatter(-np.radians((ra + 180) % 360 - 180), np.radians(dec), s=size, c=colours, lw=0)
        ticks = np.arange(-120, 121, 60)
        axes.set_xticks(np.radians(ticks), [f"{-t % 360}°" for t in ticks])
    else:
        axes = figure.add_subplot()
        axes.scatter(centre + offset, dec, s=size, c=colours, lw=0)
        axes.invert_xaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x % 360:g}"))
        axes.set_aspect(1 / max(float(np.cos(np.radians(dec.mean() if len(dec) else 0))), 0.05))
        axes.set_xlabel("right ascension, ICRS [deg]", fontsize=8.5)
        axes.set_ylabel("declination, ICRS [deg]", fontsize=8.5)
    axes.grid(color="#DDDDDD", lw=0.5)
    axes.tick_params(labelsize=7, labelcolor=FAINT)
    axes.set_axisbelow(True)
    return figure


def _circular_mean(angle: Floats) -> float:
    """Mean direction [deg] in [0, 360); 0 without angles."""
    if not len(angle):
        return 0.0
    radians = np.radians(angle)
    return float(np.degrees(np.arctan2(np.sin(radians).mean(), np.cos(radians).mean())) % 360)


# --- numbers ----------------------------------------------------------------------------------


def loss_picture(steps: Mapping[str, tuple[Floats, Floats]]) -> Figure:
    """Draw how training went.

    Args:
        steps: For each curve (``training``, ``validation``) the step and the loss there.
    """
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for (name, (step, loss)), colour in zip(steps.items(), (CLUSTER_COLOURS[0], MODEL_COLOUR)):
        style = "-" if name == "training" else "o-"
        axes.plot(step, loss, style, color=colour, lw=1.2, ms=3.5, label=name)
    quiet(axes)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("step", fontsize=8.5)
    axes.set_ylabel("loss", fontsize=8.5)
    axes.legend(frameon=False, fontsize=8)
    return figure


def similarity_histogram(similarity: Floats, marked: Floats, *, k: int) -> Figure:
    """Draw how alike segments are to their k-th nearest other target, the oddest marked.

    Args:
        similarity: Cosine in [-1, 1], 1 = the same direction, shape (n,).
        marked: The values to mark, shape (m,).
        k: Which neighbour.
    """
    return _histogram(
        similarity, marked, f"cosine similarity to neighbour {k} of another target", "left"
    )


def distance_histogram(distance: Floats, marked: Floats, *, k: int) -> Figure:
    """Draw how far segments are from their k-th nearest other target, the oddest marked.

    Args:
        distance: Euclidean, >= 0, shape (n,).
        marked: The values to mark, shape (m,).
        k: Which neighbour.
    """
    return _histogram(distance, marked, f"distance to neighbour {k} of another target", "right")


def _histogram(
    values: Floats, marked: Floats, label: str, side: Literal["left", "right"]
) -> Figure:
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(values, bins=80, color=CLUSTER_COLOURS[0], log=True)
    if len(marked):
        axes.plot(
            marked,
            np.full(len(marked), 0.97),
            "v",
            color=QUERY_COLOUR,
            ms=4,
            transform=axes.get_xaxis_transform(),
            label=f"the {len(marked)} most dissimilar",
        )
        x = 0 if side == "left" else 1
        axes.legend(
            frameon=False,
            fontsize=8,
            loc="upper left" if side == "left" else "upper right",
            bbox_to_anchor=(x, 0.92),
        )
    quiet(axes)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(label, fontsize=8.5)
    axes.set_ylabel("segments", fontsize=8.5)
    return figure
