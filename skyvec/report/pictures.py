"""Pictures of light curves: pure functions of arrays that give a Matplotlib figure.

Nothing here touches Matplotlib's global state: every figure is made, drawn and forgotten on its
own. Curves are drawn on their own scale (flux minus mean, over standard deviation), as prepared.
A curve with more points than the picture has columns is drawn by its first, lowest, highest and
last point of every column, so that no dip and no flare is lost; a fast one gets a close-up, and
a sparse periodic one is drawn against its phase.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skyvec.prep.lightcurves import Prepared
from skyvec.report.folding import strongest_period
from skyvec.schema import Floats, Ints, LightCurves

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
BEHIND = "#8C8C8C"
"""Of the points behind a decoded curve."""

QUERY_COLOUR = "#CC1111"
MODEL_COLOUR = "#EE7733"
BAND_NAMES = ("black", "blue", "red", "teal", "orange", "purple", "olive")
BAND_COLOURS = ("#222222", "#0077BB", "#CC3311", "#009988", "#EE7733", "#AA3377", "#BBBB00")
DPI = 110
GAP_FACTOR = 12.0
"""A pause longer than this many typical steps is a gap: no line crosses it."""


FAST = 70
"""A curve that crosses its middle more often than this is a block of ink at full length."""

CLOSE_UP = 12
"""Crossings of the middle that a close-up shows: about six cycles."""

PARTS = 25
"""Columns of the grid a panel takes: 3 for the numbers at its axis, 12 to 22 for the curve."""

PANEL = (2.75, 1.05)
"""[inch] Width of a panel with the numbers at its axis, and height of its axes."""

BETWEEN = 0.62
"""[inch] Between the axes of two rows: the numbers of one, the caption of the other."""


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


def decoded_models(
    curves: LightCurves, prepared: Prepared, flux: NDArray[np.floating]
) -> list[Model]:
    """Put decoded fluxes on the scale of the prepared curves they belong to.

    Args:
        curves: n curves.
        prepared: The same, prepared without rounding.
        flux: Decoded at every point, NaN in bands that the model does not know, shape (N,).
    """
    models = []
    for i in range(len(curves)):
        own = slice(int(curves.offsets[i]), int(curves.offsets[i + 1]))
        band = curves.band[own]
        scale = prepared.scale[i, band]
        value = (flux[own] - prepared.level[i, band]) / np.where(scale > 0, scale, 1.0)
        known = np.isfinite(value)
        time = curves.mjd[own] - prepared.start[i]
        models.append(Model(time[known], value[known], band[known]))
    return models


def cluster_colour(cluster: int) -> str:
    """Colour of a cluster, the same in every picture; clusters are numbered by size."""
    return CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)] if cluster >= 0 else NOISE_COLOUR


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
        tint = _tint(colour, code, len(present))
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


def quiet(axes: Axes) -> None:
    """Take the frame back: two thin sides and small grey numbers."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
        axes.spines[side].set_linewidth(0.6)
    axes.tick_params(labelsize=7, color=FAINT, labelcolor=FAINT, width=0.6, length=2.5)
    axes.margins(x=0.02, y=0.08)


def _panels(down: int, across: int) -> tuple[Figure, GridSpec]:
    """Make a figure of small multiples and name its axes.

    The places are computed here: Matplotlib's own layout would measure every number of every
    axis and take longer than the drawing.
    """
    width = PANEL[0] * across + 0.35
    height = (PANEL[1] + BETWEEN) * down + 0.3
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        down,
        PARTS * across,
        left=0.2 / width,
        right=1 - 0.15 / width,
        bottom=0.5 / height,
        top=1 - 0.42 / height,
        wspace=0,
        hspace=BETWEEN / PANEL[1],
    )
    figure.supxlabel(
        "time since first point [d], or phase", y=0.08 / height, fontsize=8.5, color=INK
    )
    figure.supylabel("flux - mean  [standard deviations]", x=0.06 / width, fontsize=8.5, color=INK)
    return figure, grid


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
    behind: str = BEHIND,
) -> Axes:
    """Draw one curve, with a close-up at its right where it is fast; gives the main axes."""
    down, first, end = place[0], PARTS * place[1] + 3, PARTS * (place[1] + 1)
    part = _points(curves, row)
    colour = colour if model is None else behind
    period = strongest_period(curves.time[part], curves.value[part])
    has_bands = len(np.unique(curves.band[part])) > 1
    window = None if has_bands else close_up(curves.time[part], curves.value[part])
    if period is not None or window is None:
        axes = figure.add_subplot(grid[down, first:end])
        if period is not None:
            _draw_folded(axes, curves, part, colour, model, period)
        else:
            _draw(axes, curves, row, colour, model, columns=260)
        return axes
    axes = figure.add_subplot(grid[down, first : first + 12])
    _draw(axes, curves, row, colour, model, columns=150)
    near = figure.add_subplot(grid[down, first + 13 : end], sharey=axes)
    _draw(near, curves, row, colour, model, columns=len(curves.time))
    near.plot(curves.time[part], curves.value[part], color=colour, lw=0.4, alpha=0.4)
    near.set_xlim(*window)
    quiet(near)
    near.tick_params(labelleft=False)
    near.spines["left"].set_linestyle(":")
    near.xaxis.set_major_locator(MaxNLocator(2))
    return axes


def _draw(
    axes: Axes, curves: Prepared, row: int, colour: str, model: Model | None, *, columns: int
) -> None:
    draw_curve(axes, curves, row, colour=colour, columns=columns)
    if model is not None:
        draw_model(axes, model, columns=columns)


def draw_model(axes: Axes, model: Model, *, columns: int = 260) -> None:
    """Draw a decoded curve as a line that stops at pauses."""
    for code in np.unique(model.band):
        own = model.band == code
        line = _line(model.time[own], model.value[own], columns)
        axes.plot(*line, color=MODEL_COLOUR, lw=1.1, alpha=0.9, zorder=3)


def _draw_folded(
    axes: Axes, curves: Prepared, part: slice, colour: str, model: Model | None, period: float
) -> None:
    """Draw two cycles against phase, and say the period."""
    time, value, band = curves.time[part], curves.value[part], curves.band[part]
    for code in np.unique(band):
        own = band == code
        tint = _tint(colour, code, len(np.unique(band)))
        _dots_twice(axes, time[own] / period, value[own], tint, 3.2)
    if model is not None:
        _dots_twice(axes, model.time / period, model.value, MODEL_COLOUR, 2.4)
    axes.set_xticks([0, 0.5, 1, 1.5, 2], ["0", "", "1", "", "2"])
    axes.set_title(f"phase, {period:.4g} d", fontsize=6.5, color=FAINT, loc="right", pad=2)


def _dots_twice(axes: Axes, cycles: Floats, value: Floats, colour: str, size: float) -> None:
    phase = np.asarray(cycles, np.float64) % 1
    x, y = np.r_[phase, phase + 1], np.r_[value, value]
    axes.plot(x, y, ".", color=colour, ms=size, mew=0)


def _tint(colour: str, band: int, n_bands: int) -> str:
    """Colour of a band: its own where a curve has several and nothing else is asked for."""
    if n_bands > 1 and colour == INK:
        return BAND_COLOURS[int(band) % len(BAND_COLOURS)]
    return colour


def curve_grid(
    curves: Prepared,
    rows: Sequence[int] | Ints,
    captions: Sequence[str],
    *,
    across: int = 4,
    colours: Sequence[str] | None = None,
    models: Sequence[Model] | None = None,
    fade: bool = True,
) -> Figure:
    """Draw curves as small multiples, each with its caption; fast ones with a close-up.

    Args:
        curves: Prepared curves.
        rows: Which of them, in reading order, shape (m,), m >= 1.
        captions: One a panel; a line break makes a second, fainter line.
        across: Panels a row.
        colours: One a panel; plain ink where not given.
        models: Decoded curves to draw over the points, one a panel.
        fade: Whether the points behind a decoded curve turn grey.

    Returns:
        A figure with m panels, 2.75 inches wide each.
    """
    if not len(rows):
        raise ValueError("there are no curves to draw; give at least one row")
    across = min(across, len(rows))
    down = -(-len(rows) // across)
    figure, grid = _panels(down, across)
    for i, row in enumerate(rows):
        colour = colours[i] if colours else INK
        model = models[i] if models else None
        behind = BEHIND if fade else colour
        axes = _panel(figure, grid, divmod(i, across), curves, int(row), colour, model, behind)
        _caption(axes, captions[i], colour)
        quiet(axes)
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
    figure, grid = _panels(down, across)
    for i, (cluster, rows) in enumerate(members.items()):
        colour = cluster_colour(cluster)
        for j, row in enumerate(rows):
            axes = _panel(figure, grid, (i, j), curves, int(row), colour)
            quiet(axes)
            head = f"cluster {cluster}: {size[cluster]:,} members" if j == 0 else ""
            _caption(axes, f"{head}\n{curves.id[row]}", INK)
    return figure
