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
    with TemporaryDirectory() as folder:
        passing = Path(folder) / "queries"
        ingest(passing, files, **options)
        parts = [(catalog, curves) for _, catalog, curves in store.iterate_objects(passing)]
        rejected = reject_reasons(store.read_rejects(passing))
    parts = [part for part in parts if len(part[0])]
    if not parts:
        reason = next(iter(rejected), "there is no light curve in it")
        raise ValueError(f"cannot search with {files[0]}: {reason}")
    vectors = [encode_curves(checkpoint, curves)[0] for _, curves in parts]
    return Queries(
        np.concatenate([catalog.id for catalog, _ in parts]),
        np.concatenate([catalog.target for catalog, _ in parts]),
        np.concatenate(vectors),
        " ".join([*(store.sha256(path) for path in files), repr(sorted(options.items()))]),
    )
