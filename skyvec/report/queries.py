"""Queries from outside the survey: a file is read, encoded and searched with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from skyvec import store
from skyvec.checkpoint import load
from skyvec.encode import encode_shard
from skyvec.ingest import ingest, misfit
from skyvec.report.answers import Queries
from skyvec.report.facts import reject_reasons
from skyvec.sim.signals import Signal, Template, parse


def read_queries(survey: Path, model: str, files: Sequence[Path], **options: Any) -> Queries:
    """Read files through the same door as a survey's, and encode what is in them.

    Images are cut, and their bands named, as those of the survey were when it was read.

    Args:
        survey: Where the model is.
        model: Its name.
        files: Any files that ingest reads, with one light curve or image, or several.
        **options: Those of :func:`skyvec.ingest.ingest`.

    Returns:
        One query an object, in the order of the files.

    Raises:
        ValueError: Nothing in the files is usable; the message gives the first reason.
    """
    checkpoint = load(store.model_folder(survey, model))
    options = _as_read(survey) | options
    with _passing(files, store.survey_kind(survey), **options) as (folder, shards):
        if differs := misfit(survey, folder):
            raise ValueError(f"cannot search with {files[0]}: {differs}; bring it to that form")
        parts = [encode_shard(folder, checkpoint, file) for file in shards]
        names = np.concatenate([part.id for part in parts])
        is_light = store.survey_kind(folder) == "lightcurves"
        curves = store.find_curves(folder, names.tolist()) if is_light else None
    return Queries(
        names,
        np.concatenate([part.target for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        " ".join([*(store.sha256(path) for path in files), repr(sorted(options.items()))]),
        curves,
    )


def read_signal(text: str) -> Signal | Template:
    """Read a signal as written, such as ``transit(rp=0.1)``, or a file of flux against time.

    Args:
        text: The signal, or the path of a file that ingest reads, whose first light curve (in its
            first band) is the signal.

    Raises:
        ValueError: It is neither; the message says why.
    """
    path = Path(text)
    if not path.is_file():
        try:
            return parse(text)
        except ValueError as error:
            if path.suffix and "(" not in text:
                raise ValueError(f"no signal and no file: {text}") from error
            raise
    with _passing([path], "lightcurves") as (folder, shards):
        _, curves = store.read_objects(folder, shards[0])
    own = slice(0, int(curves.offsets[1]))
    first = curves.band[own] == curves.band[0]
    time, flux = curves.mjd[own][first], curves.flux[own][first].astype(np.float64)
    return Template(path.name, time - time[0], flux)


def _as_read(survey: Path) -> dict[str, Any]:
    """Options that give an image the form that those of a survey were given at its door."""
    if store.survey_kind(survey) != "images":
        return {}
    notes = store.read_notes(survey, "ingest")
    last: dict[str, Any] = next((one for one in reversed(notes) if one.get("segments")), {})
    return {name: last[name] for name in ("size", "bands") if last.get(name)}


@contextmanager
def _passing(files: Sequence[Path], kind: str, **options: Any) -> Iterator[tuple[Path, list[str]]]:
    """A survey of some files, gone afterwards, and those of its shards that hold objects."""
    with TemporaryDirectory() as folder:
        passing = Path(folder) / "queries"
        ingest(passing, files, **options)
        shards = [shard["file"] for shard in store.object_shards(passing) if shard["rows"]]
        if not shards:
            reasons = reject_reasons(store.read_rejects(passing))
            reason = next(iter(reasons), f"there are no {kind} in it")
            raise ValueError(f"cannot search with {files[0]}: {reason}")
        if store.survey_kind(passing) != kind:
            raise ValueError(
                f"cannot search with {files[0]}: it holds {store.survey_kind(passing)}, and "
                f"{kind} are searched"
            )
        yield passing, shards
