"""What leaving the oddest out changes: lists to keep, numbers before and after, pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skyvec import store
from skyvec.io.formats import DAMAGED, open_table
from skyvec.report import galleries, pictures
from skyvec.report.answers import checked_latents

MOST_DRAWN = 48


def read_keep(path: Path) -> list[str]:
    """Read a list of segments to keep: a table with a column ``id``, in any form ingest reads.

    Raises:
        ValueError: It cannot be read, or has no such column.
    """
    try:
        opened = open_table(path)
        if "id" not in opened.schema.names:
            raise ValueError(f"it has no column id among {', '.join(opened.schema.names)}")
        parts = [part["id"].cast(pa.string()).to_pylist() for part in opened.parts(["id"])]
    except DAMAGED as error:
        raise ValueError(f"cannot read the list {path}: {error}") from error
    return [name for part in parts for name in part]


def before_after(survey: Path, model: str, table: pa.Table, n: int) -> list[str]:
    """Say how the vectors differ with and without the first n objects of a ranking.

    Args:
        survey: The survey's folder.
        model: Whose latents were ranked.
        table: Rows of an outlier answer.
        n: How many are left out.

    Returns:
        Lines of spread and reconstruction error, before -> after.
    """
    latents = checked_latents(survey, model)
    rest = ~np.isin(latents.target, table["target"].to_pylist()[:n])
    lines = []
    spread = [np.sqrt(latents.vectors[rows].var(axis=0).sum()) for rows in (slice(None), rest)]
    lines.append(f"spread of the vectors: {spread[0]:.3f} -> {spread[1]:.3f}")
    if not np.isnan(latents.error).all():
        errors = [np.nanquantile(latents.error[rows], 0.99) for rows in (slice(None), rest)]
        lines.append(f"reconstruction error, 99 % quantile: {errors[0]:.3f} -> {errors[1]:.3f}")
    if "relative_distance" in table.column_names:
        far = table["relative_distance"].to_numpy()
        known = far[~np.isnan(far)]
        lines.append(
            f"farthest from its class: {known[:1].sum():.2f} -> {known[n:][:1].sum():.2f}"
        )
    return lines


def draw_dropped(survey: Path, model: str, table: pa.Table, n: int) -> Path:
    """Draw the first n objects of a ranking, the foremost of them where there are many.

    Returns:
        The picture, in the folder of the answer.
    """
    ids: Sequence[str] = table["id"].to_pylist()[: min(n, MOST_DRAWN)]
    captions = [f"{i}. {name}" for i, name in enumerate(ids, 1)]
    content = pictures.png(galleries.grid(survey, ids, captions))
    path = store.answers_folder(survey, "outliers", model) / "left-out.png"
    store.write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return path
