"""Pictures of answers: pure functions of arrays that give a Matplotlib figure.

Nothing here touches Matplotlib's global state: every figure is made, drawn and forgotten on its
own. Curves are drawn on their own scale (flux minus mean, over standard deviation), as prepared.
A curve with more points than the picture has columns is drawn by its first, lowest, highest and
last point of every column, so that no dip and no flare is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from skyvec.prep.lightcurves import Prepared
from skyvec.schema import Floats, Ints

CLUSTER_COLOURS = (
    "#4477AA",
    "#EE6677",
    "#228833",
    "#CCBB44",
    "#66CCEE",
    "#AA3377",
    "#EE8866",
    "#44AA99",
    "#332288",
    "#999933",
)
"""Tol's bright and muted sets, told apart by every common kind of colour blindness."""

NOISE_COLOUR = "#BBBBBB"
INK = "#222222"
FAINT = "#777777"
QUERY_COLOUR = "#CC1111"
MODEL_COLOUR = "#EE7733"
BAND_COLOURS = ("#222222", "#0077BB", "#CC3311", "#009988", "#EE7733", "#AA3377", "#BBBB00")
DPI = 110
GAP_FACTOR = 12.0
"""A pause longer than this many typical steps is a gap: no line crosses it."""


FAST = 70
"""A curve that crosses its middle more often than this is a block of ink at full length."""

CLOSE_UP = 12
"""Crossings of the middle that a close-up shows: about six cycles."""

PARTS = 5
"""Columns of the grid a panel takes; its close-up has two of them."""


@dataclass(frozen=True)
class Model:
    """The decoded form of one curve, drawn over its points.

    Args:
        time: Since the first point of the curve [day], ascending, shape (N,).
        value: Decoded value on the curve's own scale, shape (N,).
        band: Code of the band of each, shape (N,).
    """

    time: Floats
    value: Floats
    band: Ints


def png(figure: Figure) -> bytes:
    """Give a figure as the bytes of a PNG file."""
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


# --- curves -----------------------------------------------------------------------------------


def thin(time: Floats, value: Floats, columns: int) -> NDArray[np.int64]:
    """Choose the points that draw a long curve as all its points would.

    Of the points of each of ``columns`` equal stretches of time the first, the lowest, the
    highest and the last are kept; a curve with at most four points a column is kept whole.

    Args:
        time: [day], shape (N,), ascending.
        value: Shape (N,), finite.
        columns: Columns of pixels, >= 1.

    Returns:
        Indices of the points kept, ascending; the extremes of the curve are always among them.
    """
    n = len(time)
    if n <= 4 * columns:
        return np.arange(n)
    span = max(float(time[-1] - time[0]), 1e-9)
    column = np.minimum(((time - time[0]) / span * columns).astype(np.int64), columns - 1)
    first = np.flatnonzero(np.r_[True, np.diff(column) > 0])
    last = np.r_[first[1:], n] - 1
    by_value = np.lexsort((value, column))  # columns stay in place, values ascend within each
    return np.unique(np.concatenate([first, last, by_value[first], by_value[last]]))


def _points(curves: Prepared, row: int) -> slice:
    return slice(int(curves.offsets[row]), int(curves.offsets[row + 1]))


def _line(time: Floats, value: Floats, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Thin a curve and put a NaN into every long pause, so that a line stops and starts there."""
    kept = thin(time, value, columns)
    step = np.diff(time)
    is_gap = step > GAP_FACTOR * max(float(np.median(step)), 1e-9) if len(step) else step > 0
    stretch = np.r_[0, np.cumsum(is_gap)][kept]
    breaks = np.flatnonzero(np.diff(stretch)) + 1
    return (
        np.insert(time[kept].astype(np.float64), breaks, np.nan),
        np.insert(value[kept].astype(np.float64), breaks, np.nan),
    )


def draw_curve(
    axes: Axes, curves: Prepared, row: int, *, colour: str = INK, columns: int = 260
) -> int:
    """Draw one curve: a line where points are dense, dots where they are not.

    Curves of several bands get a colour a band unless ``colour`` is not the plain ink.

    Returns:
        How many points were drawn, after thinning.
    """
    part = _points(curves, row)
    time, value, band = curves.time[part], curves.value[part], curves.band[part]
    drawn = 0
    present = np.unique(band)
    for code in present:
        own = band == code
        tint = colour
        if len(present) > 1 and colour == INK:
            tint = BAND_COLOURS[int(code) % len(BAND_COLOURS)]
        if own.sum() > columns:
            t, v = _line(time[own], value[own], columns)
            axes.plot(t, v, color=tint, lw=0.6, solid_joinstyle="round")
        else:
            t, v = time[own], value[own]
            axes.plot(
                t, v, ".", color=tint, ms=float(np.clip(4.5 - len(t) / 100, 2.2, 4.5)), mew=0
            )
        drawn += int(np.isfinite(v).sum())
    return drawn


def _quiet(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
        axes.spines[side].set_linewidth(0.6)
    axes.tick_params(labelsize=7, color=FAINT, labelcolor=FAINT, width=0.6, length=2.5)
    axes.margins(x=0.02, y=0.08)


def _name_axes(figure: Figure, *, time: str = "time since first point [d]") -> None:
    figure.supxlabel(time, fontsize=8.5, color=INK)
    figure.supylabel("flux - mean  [standard deviations]", fontsize=8.5, color=INK)


def close_up(time: Floats, value: Floats) -> tuple[float, float] | None:
    """Choose a stretch that shows the cycles of a fast curve.

    A curve is fast if it crosses its middle (from above 0.4 deviations to below -0.4, or back)
    more than ``FAST`` times, two thirds of them at regular intervals, so that it is not noise.

    Args:
        time: [day], shape (N,), ascending.
        value: On the curve's own scale, shape (N,).

    Returns:
        Begin and end [day], or None where the whole curve shows all there is.
    """
    far = np.flatnonzero(np.abs(value - np.median(value)) > 0.4 * value.std())
    side = value[far] > np.median(value)
    crossed = time[far[1:][np.diff(side.astype(np.int8)) != 0]]
    if len(crossed) <= FAST or len(crossed) > 0.6 * len(time):
        return None
    length = np.diff(crossed)
    usual = float(np.median(length))
    if np.mean(np.abs(length - usual) < 0.4 * usual) < 2 / 3:
        return None
    # where most crossings are, so that it does not fall into a gap
    span = CLOSE_UP * usual
    first = int(np.argmax(np.searchsorted(crossed, crossed + span) - np.arange(len(crossed))))
    return float(crossed[first]), float(crossed[first] + span)


def _panel(
    figure: Figure,
    grid: GridSpec,
    place: tuple[int, int],
    curves: Prepared,
    row: int,
    colour: str,
    model: Model | None = None,
) -> Axes:
    """Draw one curve, with a close-up at its right where it is fast; gives the main axes."""
    down, first = place[0], PARTS * place[1]
    part = _points(curves, row)
    has_bands = len(np.unique(curves.band[part])) > 1
    window = None if has_bands else close_up(curves.time[part], curves.value[part])
    if window is None:
        axes = figure.add_subplot(grid[down, first : first + PARTS])
        _draw(axes, curves, row, colour, model, columns=260)
        return axes
    axes = figure.add_subplot(grid[down, first : first + PARTS - 2])
    _draw(axes, curves, row, colour, model, columns=150)
    near = figure.add_subplot(grid[down, first + PARTS - 2 : first + PARTS], sharey=axes)
    _draw(near, curves, row, colour, model, columns=len(curves.time))
    near.plot(curves.time[part], curves.value[part], color=colour, lw=0.4, alpha=0.4)
    near.set_xlim(*window)
    _quiet(near)
    near.tick_params(labelleft=False)
    near.spines["left"].set_linestyle(":")
    near.xaxis.set_major_locator(MaxNLocator(2))
    return axes


def _draw(
    axes: Axes, curves: Prepared, row: int, colour: str, model: Model | None, *, columns: int
) -> None:
    draw_curve(axes, curves, row, colour=colour if model is None else "#8C8C8C", columns=columns)
    if model is not None:
        for code in np.unique(model.band):
            own = model.band == code
            line = _line(model.time[own], model.value[own], columns)
            axes.plot(*line, color=MODEL_COLOUR, lw=1.1, alpha=0.9, zorder=3)


def curve_grid(
    curves: Prepared,
    rows: Sequence[int] | Ints,
    captions: Sequence[str],
    *,
    across: int = 4,
    colours: Sequence[str] | None = None,
    models: Sequence[Model] | None = None,
) -> Figure:
    """Draw curves as small multiples, each with its caption; fast ones with a close-up.

    Args:
        curves: Prepared curves.
        rows: Which of them, in reading order, shape (m,), m >= 1.
        captions: One a panel; a line break makes a second, fainter line.
        across: Panels a row.
        colours: One a panel; plain ink where not given.
        models: Decoded curves to draw over the points, one a panel.

    Returns:
        A figure with m panels, 2.75 inches wide each.
    """
    if not len(rows):
        raise ValueError("there are no curves to draw; give at least one row")
    across = min(across, len(rows))
    down = -(-len(rows) // across)
    figure = Figure(figsize=(2.75 * across + 0.4, 1.62 * down + 0.4), layout="constrained")
    grid = figure.add_gridspec(down, PARTS * across)
    for i, row in enumerate(rows):
        colour = colours[i] if colours else INK
        model = models[i] if models else None
        axes = _panel(figure, grid, divmod(i, across), curves, int(row), colour, model)
        _caption(axes, captions[i], colour)
        _quiet(axes)
    _name_axes(figure)
    return figure


def _caption(axes: Axes, caption: str, colour: str) -> None:
    head, _, rest = caption.partition("\n")
    if rest:
        axes.set_title(rest, fontsize=7, color=FAINT, loc="left", pad=3)
        axes.annotate(
            head,
            (0, 1),
            xytext=(0, 13),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=7.5,
            color=colour,
            fontweight="bold",
        )
    else:
        axes.set_title(head, fontsize=7.5, color=colour, loc="left", pad=3)


def cluster_samples(
    curves: Prepared, members: Mapping[int, Sequence[int]], size: Mapping[int, int]
) -> Figure:
    """Draw a few members of each cluster: one row a cluster, in the colour of the map.

    Args:
        curves: Prepared curves.
        members: For each cluster the rows to draw, at least one each.
        size: For each cluster how many members it has in all.

    Returns:
        A figure with one panel a member.
    """
    if not members:
        raise ValueError("there are no clusters to draw; every object is noise")
    across = max(len(rows) for rows in members.values())
    down = len(members)
    figure = Figure(figsize=(2.55 * across + 0.5, 1.42 * down + 0.45), layout="constrained")
    grid = figure.add_gridspec(down, PARTS * across)
    for i, (cluster, rows) in enumerate(members.items()):
        colour = cluster_colour(cluster)
        for j, row in enumerate(rows):
            axes = _panel(figure, grid, (i, j), curves, int(row), colour)
            _quiet(axes)
            head = f"cluster {cluster}: {size[cluster]:,} members" if j == 0 else ""
            _caption(axes, f"{head}\n{curves.id[row]}", INK)
    _name_axes(figure)
    return figure


# --- the map and the sky ----------------------------------------------------------------------


def cluster_colour(cluster: int) -> str:
    """Colour of a cluster, the same in every picture; clusters are numbered by size."""
    return CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)] if cluster >= 0 else NOISE_COLOUR


def map_picture(
    xy: Floats,
    cluster: Ints,
    *,
    marked: Ints | None = None,
    placed: Floats | None = None,
    labelled: int = 12,
    title: str = "",
) -> Figure:
    """Draw the map of all latents, one point a segment, coloured by cluster.

    Args:
        xy: Place on the map, shape (n, 2); distances between islands mean little.
        cluster: Cluster of each, 0 the largest, -1 noise, shape (n,).
        marked: Rows to ring, such as the oddest.
        placed: Places of points that are not of the map, drawn as red crosses, shape (m, 2).
        labelled: How many of the largest clusters get a number on the map and a legend entry.
        title: Text above.

    Returns:
        A figure; noise is grey and lies below the clusters.
    """
    figure = Figure(figsize=(8.6, 6.2), layout="constrained")
    axes = figure.add_subplot()
    size = float(np.clip(9000 / max(len(xy), 1), 1.5, 14))
    noise = cluster < 0
    _dots(axes, xy[noise], s=0.6 * size, c=NOISE_COLOUR, lw=0, alpha=0.75, zorder=1)
    names, counts = np.unique(cluster[~noise], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    for rank, name in enumerate(names[order]):
        own = cluster == name
        label = f"{name}: {counts[order][rank]:,}" if rank < labelled else None
        colour = cluster_colour(int(name))
        _dots(axes, xy[own], s=size, c=colour, lw=0, alpha=0.85, zorder=2, label=label)
        if rank < labelled:
            _number(axes, xy[own], str(name), colour)
    if noise.any():
        axes.scatter([], [], s=12, c=NOISE_COLOUR, label=f"no cluster: {noise.sum():,}")
    if marked is not None and len(marked):
        _dots(
            axes,
            xy[marked],
            s=40,
            facecolor="none",
            edgecolor=INK,
            lw=0.9,
            zorder=4,
            label="oddest",
        )
    if placed is not None:
        _dots(axes, placed, s=60, c=QUERY_COLOUR, marker="X", lw=0, zorder=6, label="placed")
    _map_frame(axes, title)
    rest = len(names) - labelled
    legend = axes.legend(
        title="cluster: members" + (f"\n(and {rest:,} smaller)" if rest > 0 else ""),
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=8,
        title_fontsize=8,
        frameon=False,
        handletextpad=0.3,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([28])
            handle.set_alpha(1.0)
    return figure


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
    """Draw the map coloured by the classes of a catalogue, the ten most frequent by name.

    Args:
        xy: Place on the map, shape (n, 2).
        label: Class of each, an empty string where unknown, shape (n,).
        title: Text above.
    """
    names, counts = np.unique(label[label != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")[: len(CLUSTER_COLOURS)]
    figure = Figure(figsize=(8.6, 6.2), layout="constrained")
    axes = figure.add_subplot()
    size = float(np.clip(9000 / max(len(xy), 1), 1.5, 14))
    rest = ~np.isin(label, names[order])
    if rest.any():
        text = f"other or unknown: {rest.sum():,}"
        _dots(axes, xy[rest], s=0.6 * size, c=NOISE_COLOUR, lw=0, alpha=0.75, label=text)
    for colour, i in zip(CLUSTER_COLOURS, order):
        own = label == names[i]
        text = f"{names[i]}: {counts[i]:,}"
        _dots(axes, xy[own], s=size, c=colour, lw=0, alpha=0.85, label=text)
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
    _quiet(axes)
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
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(similarity, bins=80, color=CLUSTER_COLOURS[0], log=True)
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
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.92))
    _quiet(axes)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(f"cosine similarity to neighbour {k} of another target", fontsize=8.5)
    axes.set_ylabel("segments", fontsize=8.5)
    return figure
