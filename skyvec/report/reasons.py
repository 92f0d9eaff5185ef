"""Why is this odd, and why are these two alike: as a table, a picture and a sentence.

The code's own reasons come from :mod:`skyvec.analysis.explain`. Which part of an object it is, is
found twice: by what the code cannot draw (the residual of the reconstruction), and by leaving out
one part after another and asking the encoder again (Zeiler & Fergus 2014, ECCV, 818).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyvec import checkpoint, store
from skyvec.analysis.explain import Follows, Reasons, WhyAlike, WhyOdd
from skyvec.encode import (
    encode_curves,
    encode_images,
    reconstruct,
    reconstruct_images,
    reconstructs,
)
from skyvec.index.exact import unit
from skyvec.prep.codes import BASELINES
from skyvec.prep.lightcurves import prepare
from skyvec.report.answers import ODD_NEIGHBOUR, checked_latents, odd_by_distance
from skyvec.report.auditing import nuisances
from skyvec.report.remember import Answer, remember
from skyvec.schema import Images, LightCurves

PARTS = 12
"""A light curve is divided into so many equal stretches of time."""

TILES = 4
"""An image is divided into so many tiles a side."""

GAIN = 0.01
"""A part that changes the similarity by less is not named."""

CLOSES = 0.1
"""Nor is one that closes less than this share of the distance to the usual similarity."""

STANDS_OUT = 3.0
"""Deviations below which a direction is not named: of forty, one is at 2 by chance."""


@dataclass(frozen=True)
class Part:
    """One part of an object.

    Args:
        name: ``3.1-5.4 d``, or ``row 1, column 2`` of the tiles of an image, from the top left.
        begin: Of the stretch [day since the first point], or the first row of pixels.
        end: Of the stretch, or the first column of pixels.
        residual: Mean absolute difference to the reconstruction, in the object's own scatter; NaN
            without one.
        similarity: With the part left out: to the k-th nearest, or to the other object.
        distance: With the part left out, to the k-th nearest, where oddity is that; else NaN.
    """

    name: str
    begin: float
    end: float
    residual: float
    similarity: float
    distance: float = float("nan")


@dataclass(frozen=True)
class Loaded:
    """All that explanations of one survey and model share."""

    survey: Path
    model: checkpoint.Checkpoint
    reasons: Reasons
    follows: dict[int, Follows]
    kind: str

    @property
    def draws(self) -> bool:
        """Whether the model reconstructs."""
        name = self.model.recipe["model"]["name"]
        return name not in BASELINES and reconstructs(self.model.model)


def open_reasons(survey: Path, model: str, *, k: int = ODD_NEIGHBOUR) -> Loaded:
    """Fit what is the same for all explanations: neighbours, directions and what they follow.

    Objects are odd by what :func:`skyvec.report.answers.odd_by_distance` says.
    """
    latents = checked_latents(survey, model)
    reasons = Reasons(latents, k=k, far=odd_by_distance(survey))
    numbers = [name for name, kind in store.column_kinds(survey).items() if kind == "number"]
    sample = reasons.latents.take(reasons.sample)
    columns = {
        name: column.astype(np.float64)
        for name, column in nuisances(survey, sample, numbers).items()
        if column.ndim == 1 and column.dtype.kind in "fiu"
    }
    loaded = checkpoint.load(store.model_folder(survey, model))
    return Loaded(survey, loaded, reasons, reasons.follow(columns), store.survey_kind(survey))


def explain_odd(survey: Path, model: str, name: str, *, k: int = ODD_NEIGHBOUR) -> Answer:
    """Explain why an object is odd, or say that it is not.

    Args:
        survey: The survey's folder.
        model: Whose codes are asked.
        name: A segment, or a target, whose oddest segment is taken.
        k: The similarity to this neighbour, or of images the distance, is its oddity.

    Returns:
        Columns reason (``place``, ``ordinary``, ``direction`` or ``part``), what, value, beside
        (what the value is to be held against) and said, a sentence.

    Raises:
        KeyError: There is no such object.
        ValueError: It has no code, or there are too few other targets.
    """

    def make() -> tuple[pa.Table, dict[str, Any]]:
        loaded = open_reasons(survey, model, k=k)
        why = loaded.reasons.odd(name)
        parts = parts_of(loaded, why.id)
        rows = _odd_rows(loaded, why)
        if loaded.reasons.far:
            rows += _far_part_rows(parts, why.distance)
        else:
            rows += _part_rows(parts, why.similarity, "neighbour")
        return _table(rows), {
            "id": why.id,
            "ordinary": why.ordinary,
            "k": k,
            "similarity": why.similarity,
            "said": sentence(loaded, why, parts),
        }

    asked = {"id": name, "k": k, "far": odd_by_distance(survey)}
    return remember(survey, "explain", model, asked, make)


def explain_alike(survey: Path, model: str, first: str, second: str) -> Answer:
    """Explain why two objects are alike, or say that they are not.

    Args:
        survey: The survey's folder.
        model: Whose codes are asked.
        first: A segment or target; the parts are of this one.
        second: Another.

    Returns:
        As :func:`explain_odd`.

    Raises:
        KeyError: There is no such object.
        ValueError: Both are the same, or one has no code.
    """

    def make() -> tuple[pa.Table, dict[str, Any]]:
        loaded = open_reasons(survey, model)
        why = loaded.reasons.alike(first, second)
        if why.first == why.second:
            raise ValueError(f"{first} and {second} are the same segment; name two")
        parts = parts_of(loaded, why.first, why.second)
        rows = _alike_rows(loaded, why) + _part_rows(parts, why.similarity, why.second)
        return _table(rows), {
            "id": why.first,
            "other": why.second,
            "similarity": why.similarity,
            "said": _alike_sentence(loaded, why, parts),
        }

    return remember(survey, "explain", model, {"id": first, "other": second}, make)


def short_reasons(
    survey: Path, model: str, names: Sequence[str], *, k: int = ODD_NEIGHBOUR
) -> list[str]:
    """Say in a sentence each why some objects are odd; kept like any answer."""

    def make() -> tuple[pa.Table, dict[str, Any]]:
        loaded = open_reasons(survey, model, k=k)
        said = []
        for name in names:
            why = loaded.reasons.odd(name)
            said.append(sentence(loaded, why, parts_of(loaded, why.id)))
        return pa.table({"id": list(names), "why": pa.array(said, pa.string())}), {"k": k}

    asked = {"ids": list(names), "k": k, "far": odd_by_distance(survey)}
    answer = remember(survey, "reasons", model, asked, make)
    return [str(text) for text in answer.table["why"].to_pylist()]


# --- parts ------------------------------------------------------------------------------------


def parts_of(loaded: Loaded, name: str, other: str = "") -> list[Part]:
    """Leave out one part of an object after another and encode what is left.

    Args:
        loaded: From :func:`open_reasons`.
        name: A segment.
        other: The similarity to this one is asked; none = that to the k-th nearest other target.

    Returns:
        The parts that hold something, in order; none for surveys of other objects than light
        curves and images.
    """
    if loaded.kind == "lightcurves":
        found = _parts_of_curve(loaded, store.find_curves(loaded.survey, [name]))
    elif loaded.kind == "images":
        found = _parts_of_image(loaded, store.find_images(loaded.survey, [name]))
    else:
        return []
    latents = loaded.reasons.latents
    row = int(latents.rows([name])[0])
    beside = unit(latents.vectors[latents.rows([other])])[0] if other else None
    parts = []
    for text, begin, end, residual, code in found:
        if not code.any():  # nothing is left without it
            continue
        similarity = (
            loaded.reasons.similarity(code, str(latents.target[row]))
            if beside is None
            else float(unit(code[None])[0] @ beside)
        )
        away = float("nan")
        if loaded.reasons.far and beside is None:
            away = loaded.reasons.distance(code, str(latents.target[row]))
        parts.append(Part(text, begin, end, residual, similarity, away))
    return parts


Found = list[tuple[str, float, float, float, NDArray[np.float32]]]


def _parts_of_curve(loaded: Loaded, curve: LightCurves) -> Found:
    time = curve.mjd - curve.mjd[0]
    number = np.minimum((time / max(float(time[-1]), 1e-9) * PARTS).astype(np.int64), PARTS - 1)
    own = np.unique(number)
    residual = np.full(len(time), np.nan)
    if loaded.draws:
        prepared = prepare(curve, round_days=0)
        scale = prepared.scale[0, curve.band]
        drawn = reconstruct(loaded.model, curve).flux
        residual = np.abs(drawn - curve.flux) / np.where(scale > 0, scale, np.nan)
    codes = encode_curves(loaded.model, _without(curve, number, own))[0]
    edge = float(time[-1]) / PARTS
    return [
        (
            f"{i * edge:.4g}-{(i + 1) * edge:.4g} d",
            float(i * edge),
            float((i + 1) * edge),
            _mean(residual[number == i]),
            code,
        )
        for i, code in zip(own, codes)
    ]


def _without(curve: LightCurves, number: NDArray[np.int64], own: NDArray[np.int64]) -> LightCurves:
    """The same curve as often as it has parts, each time without one of them."""
    keep = [np.flatnonzero(number != i) for i in own]
    points = np.concatenate(keep)
    return LightCurves(
        np.array([f"without {i}" for i in own]),
        np.r_[0, np.cumsum([len(rows) for rows in keep])].astype(np.int64),
        curve.mjd[points],
        curve.flux[points],
        curve.flux_err[points],
        curve.band[points],
        curve.bands,
        curve.flux_unit,
    )


def _parts_of_image(loaded: Loaded, image: Images) -> Found:
    rows, columns = (
        np.linspace(0, side, TILES + 1).astype(np.int64) for side in image.pixels.shape[2:]
    )
    tiles = [(y, x) for y in range(TILES) for x in range(TILES)]
    hidden = np.repeat(image.pixels, len(tiles), axis=0)
    for copy, (y, x) in zip(hidden, tiles):
        copy[:, rows[y] : rows[y + 1], columns[x] : columns[x + 1]] = np.nan
    names = np.array([f"without {y} {x}" for y, x in tiles])
    asked = Images(names, hidden, image.bands, image.pixel_scale, image.flux_unit)
    codes = encode_images(loaded.model, asked)[0]
    residual = _image_residual(loaded, image)
    return [
        (
            f"row {y + 1}, column {x + 1}",
            float(rows[y]),
            float(columns[x]),
            float(residual[y, x]),
            code,
        )
        for (y, x), code in zip(tiles, codes)
    ]


def _image_residual(loaded: Loaded, image: Images) -> NDArray[np.float64]:
    """Mean absolute residual of each tile of the image as the model sees it, (TILES, TILES)."""
    if not loaded.draws:
        return np.full((TILES, TILES), np.nan)
    seen, drawn = (part.pixels[0] for part in reconstruct_images(loaded.model, image))
    away = np.abs(drawn - seen) / np.maximum(np.nanstd(seen), 1e-12)
    rows, columns = (np.linspace(0, side, TILES + 1).astype(np.int64) for side in away.shape[1:])
    return np.array(
        [
            [
                _mean(away[:, rows[y] : rows[y + 1], columns[x] : columns[x + 1]])
                for x in range(TILES)
            ]
            for y in range(TILES)
        ]
    )


def _mean(values: NDArray[np.floating]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


# --- words ------------------------------------------------------------------------------------

Row = tuple[str, str, float, float, str]


def _table(rows: list[Row]) -> pa.Table:
    names = ("reason", "what", "value", "beside", "said")
    types = (pa.string(), pa.string(), pa.float64(), pa.float64(), pa.string())
    columns = zip(*rows)
    return pa.table({n: pa.array(list(c), kind) for n, c, kind in zip(names, columns, types)})


def _odd_rows(loaded: Loaded, why: WhyOdd) -> list[Row]:
    k, latents = loaded.reasons.k, loaded.reasons.latents
    rows = latents.rows([why.id, *why.ordinary])
    similar = unit(latents.vectors[rows]) @ unit(latents.vectors[rows[:1]])[0]
    usual = float(np.median(loaded.reasons.kth))
    share = f"{100 * why.odder:.3g} % of all are as odd or odder; "
    found: list[Row] = []
    if loaded.reasons.far:
        half = float(np.median(loaded.reasons.kth_away))
        text = f"{share}half are below {half:.3f}"
        found.append(("place", f"distance to neighbour {k}", why.distance, half, text))
        share = "its direction alone; "
    found += [
        (
            "place",
            f"similarity to neighbour {k}",
            why.similarity,
            usual,
            f"{share}half are above {usual:.3f}",
        ),
        (
            "place",
            "density ratio",
            why.density_ratio,
            1.0,
            "as dense as around it"
            if why.density_ratio > 0.8
            else "alone beside a denser group, the more the lower",
        ),
    ]
    error = latents.error[rows[0]]
    if np.isfinite(error):
        known = latents.error[np.isfinite(latents.error)]
        text = f"of what the code draws, worse than {100 * (known < error).mean():.3g} % of all"
        found.append(("place", "residual", float(error), float(np.median(known)), text))
    for name, value in zip(why.ordinary, similar[1:]):
        found.append(("ordinary", name, float(value), usual, "nearest that is not odd itself"))
    for direction in why.directions:
        low, high = direction.examples
        text = f"{100 * direction.share:.0f} % of its deviation; from {low} to {high}"
        found.append(
            (
                "direction",
                str(direction.number),
                direction.deviation,
                1.0,
                text + _follows(loaded, direction.number),
            )
        )
    return found


def _alike_rows(loaded: Loaded, why: WhyAlike) -> list[Row]:
    found: list[Row] = [
        (
            "place",
            "similarity",
            why.similarity,
            why.usual,
            f"neighbour {why.rank:,} of {why.first}; two at random have {why.usual:.3f}",
        )
    ]
    found += [("between", name, float("nan"), float("nan"), "like both") for name in why.between]
    for shared in why.directions:
        text = "adds to the similarity" if shared.part > shared.usual else "takes from it"
        found.append(
            (
                "direction",
                str(shared.number),
                shared.part,
                shared.usual,
                text + _follows(loaded, shared.number),
            )
        )
    return found


def _part_rows(parts: Sequence[Part], similarity: float, to: str) -> list[Row]:
    """The parts as rows: similarity without each, beside that of the whole."""
    return [
        (
            "part",
            part.name,
            part.similarity,
            similarity,
            f"similarity to {to} without it"
            + (f"; residual {part.residual:.2f}" if np.isfinite(part.residual) else ""),
        )
        for part in parts
    ]


def _far_part_rows(parts: Sequence[Part], distance: float) -> list[Row]:
    """The parts as rows: distance without each, beside that of the whole."""
    return [
        (
            "part",
            part.name,
            part.distance,
            distance,
            "distance to neighbour without it"
            + (f"; residual {part.residual:.2f}" if np.isfinite(part.residual) else ""),
        )
        for part in parts
    ]


def _follows(loaded: Loaded, number: int) -> str:
    follows = loaded.follows.get(number)
    if follows is None:
        return ""
    return f"; follows {follows.name} (rank correlation {follows.correlation:+.2f})"


def sentence(loaded: Loaded, why: WhyOdd, parts: Sequence[Part]) -> str:
    """Say in short why an object is odd: direction, part, and the ordinary object beside it."""
    usual = float(np.median(loaded.reasons.kth))
    half = float(np.median(loaded.reasons.kth_away))
    if loaded.reasons.far and why.distance <= half:
        return f"not odd: as near to its neighbours as most ({why.distance:.3f})"
    if not loaded.reasons.far and why.similarity >= usual:
        return f"not odd: as alike to its neighbours as most ({why.similarity:.3f})"
    first = why.directions[0]
    follows = loaded.follows.get(first.number)
    named = f" (that of {follows.name})" if follows is not None else ""
    said = ["an unusual mixture, no direction stands out"]
    if abs(first.deviation) >= STANDS_OUT:
        said = [f"{first.deviation:+.1f} deviations along direction {first.number}{named}"]
    if parts and loaded.reasons.far:
        best = min(parts, key=lambda part: part.distance)
        if why.distance - best.distance >= max(GAIN, CLOSES * (why.distance - half)):
            said.append(f"{best.name}: distance {best.distance:.3f} without it")
        else:
            said.append("no single part of it")
    elif parts:
        best = max(parts, key=lambda part: part.similarity)
        if best.similarity - why.similarity >= max(GAIN, CLOSES * (usual - why.similarity)):
            said.append(f"{best.name}: similarity {best.similarity:.3f} without it")
        else:
            said.append("no single part of it")
    if why.ordinary:
        said.append(f"ordinary beside it: {why.ordinary[0]}")
    return "; ".join(said)


def _alike_sentence(loaded: Loaded, why: WhyAlike, parts: Sequence[Part]) -> str:
    said = [f"similarity {why.similarity:.3f}, two at random {why.usual:.3f}"]
    above = [shared for shared in why.directions if shared.part > shared.usual]
    if above:
        follows = loaded.follows.get(above[0].number)
        named = f" (that of {follows.name})" if follows is not None else ""
        said.append(f"most through direction {above[0].number}{named}")
    if parts:
        best = min(parts, key=lambda part: part.similarity)
        if best.similarity < why.similarity - GAIN:
            said.append(f"{best.name} of {why.first}: without it {best.similarity:.3f}")
    return "; ".join(said)
