"""The map of a survey with its picture."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from skyvec import store
from skyvec.analysis.maps import place
from skyvec.report import answers, charts, galleries, pictures
from skyvec.report.answers import Queries
from skyvec.report.remember import Answer

N_MARKED = 20


def map_with_picture(
    survey: Path, model: str, *, foreign: Queries | None = None, seed: int = 0
) -> tuple[pa.Table, Path]:
    """Lay all segments out on a plane and draw them, coloured by cluster, the oddest ringed.

    Args:
        survey: The survey's folder.
        model: Whose latents are laid out.
        foreign: Objects from elsewhere to place on the map, which does not move.
        seed: Of the layout.

    Returns:
        The rows of :func:`skyvec.report.answers.tsne`, or, where there are foreign objects, theirs
        alone (columns id, target, x, y), and the picture.
    """
    answer = answers.tsne(survey, model, seed=seed)
    table, placed = answer.table, None
    if foreign is not None:
        placed = place(store.read_latents(survey, model), xy(answer), foreign.vectors)
        table = pa.table(
            {
                "id": foreign.name,
                "target": foreign.target,
                "x": placed[:, 0],
                "y": placed[:, 1],
            }
        )
    path = store.answers_folder(survey, "map", model) / "map.png"
    content = pictures.png(draw_map(survey, model, answer, placed=placed))
    store.write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return table, path


def draw_map(
    survey: Path, model: str, answer: Answer, *, placed: np.ndarray | None = None
) -> Figure:
    """Draw a map with an object of each of its largest clusters beside it.

    Args:
        survey: The survey's folder.
        model: Whose map it is.
        answer: Of :func:`skyvec.report.answers.tsne`.
        placed: Further places to mark, shape (m, 2).
    """
    grouped = answers.clusters(survey, model).table
    oddest = answers.oddest(survey, model).table["id"].to_pylist()[:N_MARKED]
    marked = np.flatnonzero(np.isin(np.array(answer.table["id"].to_pylist()), oddest))
    examples = _examples(grouped)
    return charts.map_picture(
        xy(answer),
        grouped["cluster"].to_numpy(),
        examples=len(examples),
        thumbnail=galleries.thumbnails(survey, examples) if examples else None,
        marked=marked,
        placed=placed,
    )


def _examples(grouped: pa.Table) -> list[str]:
    """The segment deepest in each of the largest clusters."""
    sizes = answers.cluster_sizes(grouped).to_pylist()
    return [row["example"] for row in sizes if row["cluster"] >= 0][: charts.N_LISTED]


def xy(answer: Answer) -> np.ndarray:
    """Places on the map, shape (n, 2)."""
    return np.stack([answer.table[name].to_numpy() for name in ("x", "y")], axis=1)
