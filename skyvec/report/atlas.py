"""The map of a survey with its picture."""

from pathlib import Path

import numpy as np

from skyvec import store
from skyvec.report import answers, pictures
from skyvec.report.remember import Answer

N_MARKED = 20


def map_with_picture(survey: Path, model: str, *, seed: int = 0) -> tuple[Answer, Path]:
    """Lay all segments out on a plane and draw them, coloured by cluster, the oddest ringed.

    Returns:
        The answer of :func:`skyvec.report.answers.tsne`, and the PNG beside it.
    """
    answer = answers.tsne(survey, model, seed=seed)
    cluster = answers.clusters(survey, model).table["cluster"].to_numpy()
    oddest = answers.outliers(survey, model).table["id"].to_pylist()[:N_MARKED]
    marked = np.flatnonzero(np.isin(np.array(answer.table["id"].to_pylist()), oddest))
    content = pictures.png(pictures.map_picture(xy(answer), cluster, marked=marked))
    path = store.answers_folder(survey, "map", model) / "map.png"
    store.write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return answer, path


def xy(answer: Answer) -> np.ndarray:
    """Places on the map, shape (n, 2)."""
    return np.stack([answer.table[name].to_numpy() for name in ("x", "y")], axis=1)
