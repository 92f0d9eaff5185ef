"""What a report found, in a few sentences with figures."""

from pathlib import Path

import numpy as np

from skyvec import store
from skyvec.report import answers, baselines
from skyvec.report.remember import Answer
from skyvec.schema import Strings
from skyvec.sim.lightcurves import ODDITY

N_ODDEST = 20


def findings(survey: Path, model: str, *, seed: int = 0) -> list[str]:
    """Say how well a simulated survey's truth was found again, from answers that are stored.

    Args:
        survey: A survey with classes, among them the planted oddities; of galaxies those are the
            images with an artefact.
        model: Name of the model.
        seed: Of the probe.

    Returns:
        Three sentences: oddities, clusters, classes beside the hand-crafted codes.
    """
    column = answers.label_column(survey, None)
    planted = _planted(survey, column)
    n_odd, n, share = _among_the_oddest(answers.oddest(survey, model), planted)
    said = [
        f"{n_odd} of {len(planted)} planted oddities are among the {N_ODDEST} oddest of {n:,} "
        f"objects; half of them are in the oddest {share:.1f} %"
    ]
    if store.survey_kind(survey) != "images":
        n_odd, _, share = _among_the_oddest(answers.far_outliers(survey, model), planted)
        said[0] += f" (by distance, `skyvec outliers --far`: {n_odd}, and {share:.1f} %)"
    found = answers.clusters(survey, model)
    ids = np.array(found.table["id"].to_pylist(), np.str_)
    pure = answers.purity(
        found.table["cluster"].to_numpy(), answers.labels_of(survey, column, ids)
    )
    said.append(
        f"{found.facts['clusters']} clusters hold {found.facts['clustered']:,} segments, "
        f"{100 * pure:.0f} % of them with the commonest class of their cluster"
    )
    rows = baselines.compare(survey, model, seed=seed).to_pylist()
    others = ", ".join(f"{row['model']} {row['knn_f1']:.3f}" for row in rows[1:])
    said.append(
        f"nearest neighbours name {rows[0]['classes']} classes with macro-F1 "
        f"{rows[0]['knn_f1']:.3f} (hand-crafted codes: {others})"
    )
    return said


def _among_the_oddest(answer: Answer, planted: Strings) -> tuple[int, int, float]:
    """How many are among the first objects, of how many objects, and the middle rank in %."""
    _, first = np.unique(answer.table["target"].to_pylist(), return_index=True)
    ranked = np.array(answer.table["target"].to_pylist(), np.str_)[np.sort(first)]
    rank = np.flatnonzero(np.isin(ranked, planted)) + 1
    share = 100 * float(np.median(rank)) / len(ranked) if len(rank) else float("nan")
    return int((rank <= N_ODDEST).sum()), len(ranked), share


def _planted(survey: Path, column: str) -> Strings:
    """Targets of the oddities that a simulation has planted, each once."""
    if "artefact" in store.column_kinds(survey):
        catalog = store.read_catalog(survey, ["artefact"])
        return np.unique(catalog.target[catalog.columns["artefact"].astype(np.str_) != ""])
    catalog = store.read_catalog(survey, [column])
    return np.unique(catalog.target[catalog.columns[column].astype(np.str_) == ODDITY])
