"""The index on disk as commands: build, info, check, delete."""

from pathlib import Path
from typing import Annotated

import typer

from skyvec.cli.terminal import Format, Model, Out, Survey, bar, guarded, say, show

app = typer.Typer(
    help="Keep an index of a model's vectors on disk, for surveys that outgrow memory.\n\n"
    "Below a few hundred thousand objects no index is needed: a search reads all vectors and\n"
    "answers in milliseconds. With an index nothing is read but what a query needs; `skyvec\n"
    "search` uses it by itself as soon as it holds all vectors.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog="Example:  skyvec index build --survey tess --model first")
@guarded
def build(
    survey: Survey,
    model: Model,
    anew: Annotated[
        bool, typer.Option("--anew", help="Throw the index away first; deleted rows come back.")
    ] = False,
) -> None:
    """Index what is not indexed yet: everything, or what a new night brought.

    Memory stays below about 2 GB whatever the size. Interrupted it goes on where it was. Up to two
    million vectors are then searched exactly, more at a recall of 0.99 that is measured and shown.
    """
    # late: Numba would slow `--help` down
    from skyvec.indexing import survey as indexed

    with bar("index") as progress:
        rows = indexed.build(survey, model, anew=anew, tell=progress)
    say(f"{rows:,} vectors indexed now")
    _say_how(indexed.open_index(survey, model).facts)


@app.command(epilog="Example:  skyvec index info --survey tess --model first")
@guarded
def info(survey: Survey, model: Model, form: Format = None, out: Out = None) -> None:
    """Show the segments of the index, how it searches, and whether it holds all vectors."""
    # late: Numba and PyArrow would slow `--help` down
    import pyarrow as pa

    from skyvec.indexing import survey as indexed

    opened = indexed.open_index(survey, model)
    rows = [
        {
            "segment": part["folder"],
            "vectors": part["rows"],
            "shards": len(part["shards"]),
            "cells": segment.n_cells,
            "scan": segment.plan.way,
            "MB": round(size / 1e6, 1),
        }
        for part, segment, size in zip(
            opened.facts["segments"], opened.index.segments, indexed.sizes(survey, model)
        )
    ]
    _say_how(opened.facts)
    if opened.deleted.any():
        say(f"{opened.deleted.sum():,} vectors are deleted")
    if not indexed.is_there(survey, model):
        say("it does not hold all vectors; run `skyvec index build`")
    show(pa.Table.from_pylist(rows), form, out)


@app.command(epilog="Example:  skyvec index check --survey tess --model first")
@guarded
def check(
    survey: Survey,
    model: Model,
    queries: Annotated[int, typer.Option(help="How many to ask.", min=1)] = 200,
    k: Annotated[int, typer.Option("-k", help="Neighbours of each.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Of queries and filters.", min=0)] = 0,
    form: Format = None,
    out: Out = None,
) -> None:
    """Measure recall and latency on sampled queries: exact, approximate, and with filters.

    A few exact answers are compared with brute force first.
    """
    # late: Numba and PyArrow would slow `--help` down
    from dataclasses import asdict

    import numpy as np
    import pyarrow as pa

    from skyvec.indexing import survey as indexed
    from skyvec.indexing.check import check as measure

    opened = indexed.open_index(survey, model)
    _say_how(opened.facts)
    rows = []
    with bar("checking") as progress:
        for measured in measure(opened, np.random.default_rng(seed), queries=queries, k=k):
            rows.append(asdict(measured))
            progress(len(rows), None, measured.filter)
    show(pa.Table.from_pylist(rows), form, out)


@app.command(epilog="Example:  skyvec index graph --survey tess --model first -k 15")
@guarded
def graph(
    survey: Survey,
    model: Model,
    k: Annotated[int, typer.Option("-k", help="Neighbours of each.", min=1)] = 15,
    recall: Annotated[
        float, typer.Option(help="Share of the true neighbours; 1 searches exactly.")
    ] = 0.99,
    scheduler: Annotated[
        str | None,
        typer.Option(help="A Dask cluster: tcp://HOST:8786, or local.", show_default=False),
    ] = None,
) -> None:
    """Find the nearest other objects of every vector, once, for all that needs them.

    Of surveys beyond 200,000 vectors, outliers, cluster and map take them from here. Interrupted
    it goes on where it was. With a scheduler the blocks are found by the workers of a cluster,
    which must see the survey's folder.
    """
    # late: Numba would slow `--help` down
    from skyvec.indexing.graph import build_graph, graph_facts

    with bar("graph") as progress:
        build_graph(survey, model, k=k, recall=recall, scheduler=scheduler, tell=progress)
    facts = graph_facts(survey, model)
    if facts is not None:
        say(
            f"the {facts['k']} nearest of each of {facts['n']:,} vectors, "
            f"at a recall of {facts['recall']:.4f} (measured)"
        )


@app.command(epilog="Example:  skyvec index delete 'TIC 29779873' --survey tess --model first")
@guarded
def delete(
    names: Annotated[list[str], typer.Argument(help="Ids of segments or targets.")],
    survey: Survey,
    model: Model,
) -> None:
    """Let some objects answer no more; their vectors stay until the index is built anew."""
    # late: Numba would slow `--help` down
    from skyvec.indexing import survey as indexed

    say(f"{indexed.delete(survey, model, names):,} vectors deleted")


def _say_how(facts: dict[str, object]) -> None:
    if facts["way"] == "exact":
        say(f"{facts['n']:,} vectors, searched exactly")
        return
    say(
        f"{facts['n']:,} vectors, searched at a recall of {facts['recall']:.4f} "
        f"(measured; {facts['radii']:.2f} of the cells' radii believed in)"
    )


@guarded
def publish(
    survey: Survey,
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Publish its vectors instead of the objects.", show_default=False
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Width of the margin cache [arcsec].", min=0)
    ] = 10.0,
) -> None:
    """Write the survey as a HATS catalogue that LSDB opens, with a margin for cross-matches."""
    # late: PyArrow and the HATS library would slow `--help` down
    from skyvec.publish import publish_latents, publish_objects

    if model is None:
        made = publish_objects(survey, folder, margin_arcsec=margin)
    else:
        made = publish_latents(survey, model, folder, margin_arcsec=margin)
    say(f"{made.rows:,} rows in {made.folder}; {made.left_out:,} without a position left out")
    typer.echo(made.folder)
