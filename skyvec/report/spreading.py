"""A class for every object from the few that have one, and labels that do not fit."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from skyvec.analysis.probes import folds_by_target
from skyvec.index.certified import CertifiedIndex
from skyvec.index.graph import knn_graph, spread_labels
from skyvec.report.answers import checked_latents, label_column, labels_of
from skyvec.report.remember import Answer, remember
from skyvec.report.stored import argument, graph_for, told, usable_rows

NEIGHBOURS = 15
FOLDS = 5
SURE = 0.9


def spread(survey: Path, model: str, *, label: str | None = None, seed: int = 0) -> Answer:
    """Spread the known classes along the neighbour graph to all segments.

    A segment that has a class is named by a round in which that class, and those of all other
    segments of its target, are hidden: five rounds hide every target once. So its ``found`` is as
    honest as that of a segment without a class, and where it differs from ``given`` the label
    itself may be wrong.

    Args:
        survey: The survey's folder.
        model: Whose latents are asked.
        label: Column of the classes, empty for most; see :func:`label_column`.
        seed: Of the folds, and of the sample on which the graph's recall is measured.

    Returns:
        One row a segment, in the order of the latents: columns id, target, given, found (empty
        where no class reaches the segment), confidence (share of what reached it), ra, dec.

    Raises:
        ValueError: No such column, or fewer than two classes in it.

    References:
        Zhou et al., 2003, NIPS 16.
    """
    column = label_column(survey, label)
    if not column:
        raise ValueError(f"{survey} has no column of classes; name one with --label")
    near = graph_for(survey, model, NEIGHBOURS)

    def make() -> tuple[pa.Table, dict[str, Any]]:
        latents = checked_latents(survey, model)
        usable, graph = usable_rows(survey, latents, near)
        asked = latents.take(usable)
        given = labels_of(survey, column, asked.id)
        classes = np.unique(given[given != ""])
        if len(classes) < 2:
            raise ValueError(
                f"column {column!r} names {len(classes)} class; two at least are needed to choose"
            )
        rng = np.random.default_rng(seed)
        if graph is None:
            index = CertifiedIndex(asked.vectors, threads=os.cpu_count() or 1)
            graph = knn_graph(index, min(NEIGHBOURS, max(1, len(asked) - 1)), rng, recall=1)
        code = np.where(given != "", np.searchsorted(classes, given), -1)
        found = spread_labels(graph, code)
        name, confidence = found.label, found.confidence
        known = np.flatnonzero(code >= 0)
        fold = folds_by_target(code[known], asked.target[known], folds=FOLDS, rng=rng)
        for i in range(FOLDS):
            hidden = known[fold == i]
            if not len(hidden) or len(hidden) == len(known):
                continue
            left = code.copy()
            left[hidden] = -1
            again = spread_labels(graph, left)
            name[hidden], confidence[hidden] = again.label[hidden], again.confidence[hidden]
        right = name[known] == code[known]
        sure = confidence[known] >= SURE
        facts = {
            "label": column,
            "classes": classes.tolist(),
            "labelled": len(known),
            "named": int(((code < 0) & (name >= 0)).sum()),
            "unreached": int((name < 0).sum() + (~usable).sum()),
            "right": float(right.mean()),
            "balanced": float(np.mean([right[code[known] == c].mean() for c in set(code[known])])),
            "sure": float(sure.mean()),
            "right_if_sure": float(right[sure].mean()) if sure.any() else float("nan"),
            **told(near),
        }
        whole = np.full(len(latents), "", given.dtype)
        texts = {"given": whole.copy(), "found": whole}
        texts["given"][usable] = given
        texts["found"][usable] = np.where(name >= 0, classes[np.maximum(name, 0)], "")
        share = np.full(len(latents), np.nan)
        share[usable] = np.where(name >= 0, confidence, np.nan)
        table = pa.table(
            {
                "id": latents.id,
                "target": latents.target,
                **texts,
                "confidence": share,
                "ra": latents.ra,
                "dec": latents.dec,
            }
        )
        return table, facts

    return remember(
        survey, "spread", model, {"label": column, "seed": seed, **argument(near)}, make
    )


def doubtful(table: pa.Table) -> pa.Table:
    """Rows whose given class is not the one found, the surest first."""
    given, found = (np.array(table[name].to_pylist(), np.str_) for name in ("given", "found"))
    rows = np.flatnonzero((given != "") & (found != "") & (given != found))
    return table.take(rows[np.argsort(-table["confidence"].to_numpy()[rows], kind="stable")])
