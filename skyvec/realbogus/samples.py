"""Stamps of a survey -> samples a network can learn from."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyvec.batches import hash_uniform
from skyvec.nn.labels import UNLABELLED
from skyvec.prep.stamps import crop, is_whole, mask_sentinels, normalise
from skyvec.realbogus.train import Draw, Samples
from skyvec.schema import Catalog, Stamps
from skyvec.store import (
    append_objects,
    create_survey,
    finished_items,
    iterate_objects,
    object_shards,
)

REAL, BOGUS = ("real", "true", "1", "1.0"), ("bogus", "false", "0", "0.0")
LEAST_MEASURED = 0.5
"""A channel with a smaller fraction of measured pixels is not scored."""
SHARD = 8192
"""Stamps of a shard: 80 MiB at 29 pixels."""


class SampleError(ValueError):
    """A survey does not hold what a classifier of stamps needs."""


def some_names(names: Iterable[str], like: str, most: int = 12) -> str:
    """Name the columns most like a word first, and say how many more there are."""
    word = like.lower()

    def unlike(name: str) -> tuple[bool, float, str]:
        other = name.lower()
        return word not in other, -difflib.SequenceMatcher(None, word, other).ratio(), name

    ordered = sorted(names, key=unlike)
    left = len(ordered) - most
    return (", ".join(ordered[:most]) or "(none)") + (f", ... ({left} more)" if left > 0 else "")


def labels_of(column: np.ndarray, name: str = "label") -> NDArray[np.int64]:
    """Read a column of labels: 1, real, true; 0, bogus, false; anything else has no label.

    Raises:
        SampleError: Not one of them is real, nor bogus.
    """
    label = _labels(column)
    if len(label) and (label == UNLABELLED).all():
        raise SampleError(
            f"the column {name!r} holds {str(column[0])!r} and the like, but no real or bogus "
            "(nor 1 or 0, nor true or false)"
        )
    return label


def _labels(column: np.ndarray) -> NDArray[np.int64]:
    text = np.char.lower(np.char.strip(column.astype(np.str_)))
    label = np.where(np.isin(text, REAL), 1, np.where(np.isin(text, BOGUS), 0, UNLABELLED))
    return label.astype(np.int64)


def faults(pixels: NDArray[np.float32], side: int) -> NDArray[np.str_]:
    """Say why a stamp cannot be scored; an empty text where it can.

    Args:
        pixels: Raw stamps, shape (n, 3, y, x).
        side: Of the square that the network sees [px].

    Returns:
        Shape (n,).
    """
    seen = crop(pixels, side)
    reason = np.full(len(pixels), "", dtype="<U48")
    holed = np.flatnonzero(~is_whole(seen))  # most have nothing to be counted
    known = np.isfinite(mask_sentinels(seen[holed]))
    share = known.mean((2, 3))
    middle = side // 2
    centre = known[:, 2, middle - 1 : middle + 2, middle - 1 : middle + 2].any((1, 2))
    reason[holed[~centre]] = "nothing measured at the detection"
    for i, channel in enumerate(("new", "reference", "difference")):
        reason[holed[share[:, i] < LEAST_MEASURED]] = f"most of the {channel} is missing"
    return reason


def read_samples(
    survey: Path,
    data: Draw,
    *,
    labels: Mapping[str, int] | None = None,
    labelled: bool = True,
) -> Samples:
    """Choose stamps of a survey, the ones with the lowest hash of their id, and normalise them.

    Args:
        survey: A survey of stamps.
        data: The ``[data]`` table of a recipe.
        labels: Labels by id that stand above those of the survey; ids not in it keep theirs.
        labelled: Read the column of labels; without it every stamp is unlabelled, and the survey
            needs none.

    Returns:
        At most ``data.stamps`` samples of the detectors asked for, in the order of their hashes;
        those that cannot be scored are left out.

    Raises:
        SampleError: There is no such column or detector, no stamp is left, or none has a label.
        StoreError: The survey holds no stamps.
    """
    parts: list[Samples] = []
    keys: list[NDArray[np.float64]] = []
    limit, seen = np.inf, set[str]()
    if not sum(shard["rows"] for shard in object_shards(survey)):
        raise SampleError(f"{survey} holds no stamp at all; `skyvec info {survey}` says why")
    for _, catalog, stamps in iterate_objects(survey, Stamps):
        key = hash_uniform(catalog.id.tolist(), seed=data.seed, purpose="realbogus choice")
        seen |= set(np.unique(stamps.detector).tolist())
        fit = key < limit
        if data.detectors:
            fit &= np.isin(stamps.detector, list(data.detectors))
        rows = np.flatnonzero(fit)
        rows = rows[faults(stamps.pixels[rows], data.side) == ""] if len(rows) else rows
        parts.append(_samples(catalog.take(rows), stamps.take(rows), data, labelled))
        keys.append(key[rows])
        if sum(map(len, keys)) > 1.5 * data.stamps:
            parts, keys = _first(parts, keys, data.stamps)
            limit = keys[0][-1]
    if unknown := sorted(set(data.detectors) - seen):
        raise SampleError(
            f"{survey} has no detector {unknown[0]!r}; there are {', '.join(sorted(seen)[:20])}"
        )
    if not sum(map(len, keys)):
        raise SampleError(f"{survey} holds no stamp that can be used")
    (samples,), _ = _first(parts, keys, data.stamps)
    if labels:
        changed = [labels.get(key, old) for key, old in zip(samples.id, samples.label.tolist())]
        samples = samples.with_label(np.array(changed, np.int64))
    if labelled and (samples.label == UNLABELLED).all():  # a part of them may well be
        labels_of(samples.columns[data.label], data.label)
    return samples


def _samples(catalog: Catalog, stamps: Stamps, data: Draw, labelled: bool) -> Samples:
    if labelled and data.label not in catalog.columns:
        raise SampleError(
            f"the survey has no column {data.label!r} of real and bogus; set [data] label in the "
            f"recipe to one of {some_names(catalog.columns, 'label')}"
        )
    label = np.full(len(catalog), UNLABELLED, np.int64)
    if labelled and len(catalog):
        label = _labels(catalog.columns[data.label])
    return Samples(
        catalog.id,
        normalise(stamps.pixels, data.normalise, side=data.side),
        label,
        stamps.detector,
        stamps.exposure,
        stamps.object,
        catalog.columns,
    )


def _first(
    parts: list[Samples], keys: list[NDArray[np.float64]], n: int
) -> tuple[list[Samples], list[NDArray[np.float64]]]:
    """The n samples of the lowest keys, as one part."""
    key = np.concatenate(keys)
    order = np.argsort(key, kind="stable")[:n]
    return [join(parts).take(order)], [key[order]]


def join(parts: list[Samples]) -> Samples:
    """Lay samples one after another; columns that some lack are left out."""
    names = set.intersection(*(set(part.columns) for part in parts))

    def together(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Samples(
        together("id"),
        together("pixels"),
        together("label"),
        together("detector"),
        together("exposure"),
        together("object"),
        {name: np.concatenate([part.columns[name] for part in parts]) for name in sorted(names)},
    )


def write_survey(survey: Path, stamps: Stamps, catalog: Catalog, source: str) -> None:
    """Add stamps and their catalogue to a survey, shard by shard; what is there stays.

    Args:
        survey: Made where it is not there.
        stamps: Raw.
        catalog: The same rows.
        source: Where they came from; rows of a source that are stored already are not repeated.
    """
    create_survey(survey)
    have = finished_items(survey).get(source, 0)
    for first in range(have, len(stamps), SHARD):
        rows = slice(first, min(first + SHARD, len(stamps)))
        part = stamps.take(rows)
        append_objects(survey, catalog.take(rows), part, np.full(len(part), source))
