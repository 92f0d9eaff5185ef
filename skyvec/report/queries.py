"""Queries from outside the survey: a light-curve file is read, encoded and searched with."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from skyvec import store
from skyvec.checkpoint import load
from skyvec.encode import encode_curves
from skyvec.ingest import ingest
from skyvec.report.answers import Queries
from skyvec.report.facts import reject_reasons
from skyvec.schema import Catalog, LightCurves
from skyvec.sim.signals import Signal, Template, parse


def read_queries(survey: Path, model: str, files: Sequence[Path], **options: Any) -> Queries:
    """Read light-curve files through the same door as a survey's, and encode them.

    Args:
        survey: Where the model is.
        model: Its name.
        files: Any files that ingest reads, with one light curve or several.
        **options: Those of :func:`skyvec.ingest.ingest`.

    Returns:
        One query a light curve, in the order of the files.

    Raises:
        ValueError: Nothing in the files is usable; the message gives the first reason.
    """
    checkpoint = load(store.model_folder(survey, model))
    parts = _read(files, **options)
    vectors = [encode_curves(checkpoint, curves)[0] for _, curves in parts]
    return Queries(
        np.concatenate([catalog.id for catalog, _ in parts]),
        np.concatenate([catalog.target for catalog, _ in parts]),
        np.concatenate(vectors),
        " ".join([*(store.sha256(path) for path in files), repr(sorted(options.items()))]),
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
    _, curves = _read([path])[0]
    own = slice(0, int(curves.offsets[1]))
    first = curves.band[own] == curves.band[0]
    time, flux = curves.mjd[own][first], curves.flux[own][first].astype(np.float64)
    return Template(path.name, time - time[0], flux)


def _read(files: Sequence[Path], **options: Any) -> list[tuple[Catalog, LightCurves]]:
    """Light curves of some files with their facts, through the door of a survey."""
    with TemporaryDirectory() as folder:
        passing = Path(folder) / "queries"
        ingest(passing, files, **options)
        parts = [(catalog, curves) for _, catalog, curves in store.iterate_objects(passing)]
        rejected = reject_reasons(store.read_rejects(passing))
    parts = [part for part in parts if len(part[0])]
    if not parts:
        reason = next(iter(rejected), "there is no light curve in it")
        raise ValueError(f"cannot search with {files[0]}: {reason}")
    return parts
