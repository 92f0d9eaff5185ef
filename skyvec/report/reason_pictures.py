"""The picture of an explanation: the object with the parts that matter, and what is beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from skyvec import checkpoint, store
from skyvec.encode import reconstruct
from skyvec.prep.codes import BASELINES
from skyvec.prep.lightcurves import prepare
from skyvec.report import galleries, images, pictures
from skyvec.report.reasons import GAIN, PARTS, TILES
from skyvec.report.remember import Answer

RAISED = "#CC3311"
"""Colour of a part without which the similarity is higher: it makes the object odd."""

LOWERED = "#0077BB"
"""Colour of a part without which it is lower: it makes two alike."""


def keep_picture(survey: Path, model: str, answer: Answer) -> Path:
    """Draw an explanation and keep it beside its table; gives the path."""
    kind = store.survey_kind(survey)
    if kind == "lightcurves":
        figure = _curves_picture(survey, model, answer)
    elif kind == "images":
        figure = _images_picture(survey, answer)
    else:
        figure = galleries.grid(survey, _ids(answer), _ids(answer))
    path = store.answers_folder(survey, "explain", model) / "explain.png"
    content = pictures.png(figure)
    store.write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return path


def _ids(answer: Answer) -> list[str]:
    facts = answer.facts
    beside = [facts["other"]] if "other" in facts else facts["ordinary"]
    return [facts["id"], *beside]


def _gains(table: pa.Table) -> dict[str, float]:
    """Of each part, how much higher the similarity, or smaller the distance, is without it."""
    return {
        row["what"]: (row["value"] - row["beside"]) * (-1 if "distance" in row["said"] else 1)
        for row in table.to_pylist()
        if row["reason"] == "part"
    }


def _tint(gain: float, largest: float) -> tuple[str, float]:
    colour = RAISED if gain > 0 else LOWERED
    return colour, 0.45 * abs(gain) / max(largest, 1e-9)


def _largest(answer: Answer, gains: dict[str, float]) -> float:
    """Gain of full colour: the largest, or half of what would make an odd object usual."""
    place = answer.table.to_pylist()[0]
    enough = GAIN if "other" in answer.facts else abs(place["beside"] - place["value"]) / 2
    return max([*(abs(gain) for gain in gains.values()), enough])


def _caption(answer: Answer) -> str:
    is_pair = "other" in answer.facts
    told = "blue: parts that make them alike" if is_pair else "red: parts that make it odd"
    return f"{answer.facts['id']}  ({told}; orange: decoded)"


def _curves_picture(survey: Path, model: str, answer: Answer) -> Figure:
    """The curve with its parts shaded, and below it the ordinary ones, or the other."""
    ids = _ids(answer)
    curves = store.find_curves(survey, ids)
    ready = prepare(curves, round_days=0)
    loaded = checkpoint.load(store.model_folder(survey, model))
    models: list[pictures.Model] | None = None
    if loaded.recipe["model"]["name"] not in BASELINES:
        models = pictures.decoded_models(curves, ready, reconstruct(loaded, curves).flux)
    figure = Figure(figsize=(8.0, 1.5 * len(ids) + 0.9), layout="constrained")
    panels: Any = figure.subplots(len(ids), 1, squeeze=False)[:, 0]
    for i, axes in enumerate(panels):
        pictures.draw_curve(axes, ready, i, colour=pictures.BEHIND if models else pictures.INK)
        if models is not None:
            pictures.draw_model(axes, models[i])
        axes.set_title(ids[i], fontsize=8, color=pictures.INK, loc="left")
        pictures.quiet(axes)
    panels[0].set_title(_caption(answer), fontsize=8, color=pictures.QUERY_COLOUR, loc="left")
    gains = _gains(answer.table)
    largest = _largest(answer, gains)
    own = slice(int(ready.offsets[0]), int(ready.offsets[1]))
    edge = float(ready.time[own][-1]) / PARTS
    for name, gain in gains.items():
        # the stretch has its number from its beginning, which its name only rounds
        number = round(float(name.partition("-")[0]) / max(edge, 1e-9))
        colour, alpha = _tint(gain, largest)
        panels[0].axvspan(number * edge, (number + 1) * edge, color=colour, alpha=alpha, lw=0)
        panels[0].text(
            (number + 0.5) * edge,
            0.98,
            f"{gain:+.3f}",
            transform=panels[0].get_xaxis_transform(),
            fontsize=6.5,
            color=pictures.FAINT,
            ha="center",
            va="top",
        )
    figure.supxlabel("time since first point [d]", fontsize=8.5, color=pictures.INK)
    figure.supylabel("flux - mean  [standard deviations]", fontsize=8.5, color=pictures.INK)
    return figure


def _images_picture(survey: Path, answer: Answer) -> Figure:
    """The image, the same with its tiles shaded, and beside it the ordinary ones, or the other."""
    ids = _ids(answer)
    seen = images.colour_pictures(store.find_images(survey, ids))
    figure = images.picture_grid(
        seen[[0, 0, *range(1, len(ids))]],
        [
            ids[0],
            f"which part\n{'is alike (blue)' if 'other' in answer.facts else 'is odd (red)'}",
            *ids[1:],
        ],
        across=len(ids) + 1,
        colours=[pictures.QUERY_COLOUR] * 2 + [pictures.INK] * (len(ids) - 1),
    )
    gains = _gains(answer.table)
    largest = _largest(answer, gains)
    shade = np.zeros((TILES, TILES, 4))
    for name, gain in gains.items():
        y, x = (int(word.split()[1]) - 1 for word in name.split(", "))
        colour, alpha = _tint(gain, largest)
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        shade[y, x] = (*rgb, 1.6 * alpha)
    height, width = seen.shape[1:3]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    figure.axes[1].imshow(shade, extent=extent, interpolation="nearest")
    return figure
