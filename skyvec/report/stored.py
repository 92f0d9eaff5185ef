"""The stored graph of neighbours, where a survey is so large that an answer is taken from it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyvec import store
from skyvec.index.graph import Graph, among
from skyvec.indexing.graph import graph_facts, read_graph
from skyvec.schema import Latents

LARGE = 200_000
"""Up to so many vectors all are compared with all, in minutes; beyond, the graph is asked."""


def graph_for(survey: Path, model: str, k: int) -> dict[str, Any] | None:
    """Facts of the graph that answers shall be taken from; None: compare all with all.

    Args:
        survey: The survey's folder.
        model: Whose vectors.
        k: Neighbours that are needed; a narrower graph is of no use.
    """
    if not is_large(survey, model):
        return None
    facts = graph_facts(survey, model)
    return facts if facts is not None and facts["k"] >= k else None


def is_large(survey: Path, model: str) -> bool:
    """Say whether a model's vectors are too many to compare all with all."""
    return sum(shard["rows"] for shard in store.latent_shards(survey, model)) > LARGE


def is_slow(survey: Path, model: str, k: int) -> bool:
    """Say whether a survey is large, and no graph is there that would spare it the hours."""
    return is_large(survey, model) and graph_for(survey, model, k) is None


def argument(facts: dict[str, Any] | None) -> dict[str, Any]:
    """What an answer depends on beside the latents: nothing where all are compared with all."""
    return {} if facts is None else {"graph": [facts[name] for name in ("index", "k", "wanted")]}


def told(facts: dict[str, Any] | None) -> dict[str, Any]:
    """What is told of the neighbours that an answer was made from."""
    if facts is None:
        return {"neighbours": "exact"}
    return {"neighbours": f"graph of {facts['k']}, recall {facts['recall']:.4f}"}


def usable_rows(
    survey: Path, latents: Latents, facts: dict[str, Any] | None
) -> tuple[NDArray[np.bool_], Graph | None]:
    """Segments with a direction and, with a graph, with neighbours (none that is deleted).

    Returns:
        Which, shape (n,), and the graph of them.
    """
    if facts is None:
        return np.any(latents.vectors != 0, axis=1), None
    graph = read_graph(survey, latents.model)
    usable = np.asarray((graph.rows >= 0).all(axis=1))
    return usable, among(graph, usable)
