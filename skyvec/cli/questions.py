"""The questions to a whole survey as commands: outliers, cluster, map, report.

Each answer is also kept in the survey, under ``answers/VERB-MODEL/``, with what it was made from.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyvec.cli.terminal import (
    Format,
    Model,
    Out,
    Seed,
    Survey,
    bar,
    guarded,
    mention_graph,
    say,
    show,
)

if TYPE_CHECKING:
    import pyarrow as pa


@guarded
def outliers(
    survey: Survey,
    model: Model,
    n: Annotated[int, typer.Option("-n", help="How many to show; 0 = all.", min=0)] = 20,
    k: Annotated[int, typer.Option("-k", help="Similarity to which neighbour.", min=1)] = 5,
    label: Annotated[
        str,
        typer.Option(
            help="Rank by the distance to the centre of the class in this column instead.",
            show_default=False,
        ),
    ] = "",
    far: Annotated[
        bool | None,
        typer.Option(
            "--far/--cosine",
            help="By Euclidean distance, or by cosine; images by distance unless told.",
        ),
    ] = None,
    export_keep: Annotated[
        Path | None,
        typer.Option(
            help="Write the ids of all but the -n oddest here, for a cleaned sample.",
            show_default=False,
        ),
    ] = None,
    form: Format = None,
    out: Out = None,
) -> None:
    """List the objects that are least like any other, oddest first.

    Similarity is the cosine to the k-th nearest other object: 1 finds what is alone, 5 also pairs
    and small groups of odd things. An object stands in the list by its oddest segment.

    Up to -n of a survey of millions are found and proved in seconds; -n 0 ranks all, which takes
    a graph (`skyvec index graph`) or hours.

    With --far it is the distance itself, to which the length of a vector counts as well: so are
    spoilt images found, and images are ranked so unless --cosine is given. With --label a
    segment's distance to the centre of its class is compared with the usual one
    of the class: rare forms, disturbed systems and spoilt images are far. Look at the list, then
    --export-keep FILE writes what is left without its -n first; `skyvec probe --keep FILE` says
    what that changes.
    """
    # late: Faiss would slow `--help` down
    from skyvec.report import answers

    if label:
        table = answers.class_outliers(survey, model, label=label).table
    else:
        by_distance = answers.odd_by_distance(survey) if far is None else far
        if not n and not by_distance:
            mention_graph(survey, model, k)
        rank = answers.far_outliers if by_distance else answers.outliers
        answer = rank(survey, model, k=k, n=n or None)
        table = answer.table
        if "searched_whole" in answer.facts:
            _tell_proof(answer.facts, "distance" if by_distance else "similarity")
    if export_keep is not None:
        if not n:
            raise ValueError("--export-keep needs -n: how many of the oddest to leave out")
        _export_keep(survey, model, table, n, export_keep)
    show(table.slice(0, n) if n else table, form, out)


def _tell_proof(facts: dict[str, Any], measure: str) -> None:
    """Say why nothing that is not listed can be odder."""
    said = f"proved by searching {facts['searched_whole']:,} segments whole"
    if facts["next_bound"] is not None:
        side = "most" if measure == "distance" else "least"
        said += f": the {measure} of every other is {facts['next_bound']:.4f} at {side}"
    say(said)


def _export_keep(survey: Path, model: str, table: "pa.Table", n: int, path: Path) -> None:
    """Write what is kept, draw what is not, and say how the two differ."""
    from skyvec.report import answers, cleaning, tables

    keep, rest = answers.kept(table, survey, model, n)
    tables.save(keep, path, tables.choose_format(None, path))
    say(f"kept {keep.num_rows:,} segments in {path}, left {rest.num_rows:,} out")
    for line in cleaning.before_after(survey, model, table, n):
        say(f"  {line}")
    say(f"pictures of what is left out: {cleaning.draw_dropped(survey, model, table, n)}")


@guarded
def cluster(
    survey: Survey,
    model: Model,
    min_size: Annotated[int, typer.Option(help="Fewest members of a cluster.", min=2)] = 10,
    selection: Annotated[
        str, typer.Option(help="eom = what lasts longest, leaf = the finest clusters.")
    ] = "eom",
    members: Annotated[
        bool, typer.Option("--members", help="A row a segment instead of a row a cluster.")
    ] = False,
    form: Format = None,
    out: Out = None,
) -> None:
    """Group the segments (HDBSCAN): sizes, rarity; what fits nowhere stays noise (-1)."""
    # late: Numba and HDBSCAN would slow `--help` down
    from skyvec.report import answers

    mention_graph(survey, model, answers.neighbours_to_cluster(min_size))
    answer = answers.clusters(survey, model, min_size=min_size, selection=selection)
    facts = answer.facts
    say(
        f"{facts['clusters']:,} clusters with {facts['clustered']:,} segments; "
        f"{facts['noise']:,} in none"
    )
    show(answer.table if members else answers.cluster_sizes(answer.table), form, out)


@guarded
def map_(
    survey: Survey,
    model: Model,
    placed: Annotated[
        list[Path] | None,
        typer.Option("--place", help="A file of objects to place on the map.", show_default=False),
    ] = None,
    seed: Seed = 0,
    form: Format = None,
    out: Out = None,
) -> None:
    """Lay all segments out on a plane (t-SNE), alike beside alike.

    The picture lies beside the table under answers/; distances between islands mean little. With
    --place the map stays as it is, and the places of the new ones are the answer.
    """
    # late: openTSNE and Matplotlib would slow `--help` down
    from skyvec.report.answers import MAP_NEIGHBOURS
    from skyvec.report.atlas import map_with_picture

    foreign = None
    if placed:
        from skyvec.report.queries import read_queries

        foreign = read_queries(survey, model, placed)
    mention_graph(survey, model, MAP_NEIGHBOURS)
    table, picture = map_with_picture(survey, model, foreign=foreign, seed=seed)
    say(f"picture: {picture}")
    show(table, form, out)


@guarded
def report(
    survey: Survey,
    model: Model,
    label: Annotated[
        str | None, typer.Option(help="Column that holds the classes.", show_default=False)
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Put the hand-crafted codes beside the model's.")
    ] = True,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Copy the page to this file.", show_default=False),
    ] = None,
) -> None:
    """Write all answers as one self-contained HTML page, pictures included."""
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.report.html import report as write_report
    from skyvec.store import write_text

    with bar("report") as progress:
        path = write_report(
            survey, model, label=label, with_baselines=baselines, seed=seed, progress=progress
        )
    if out is not None:
        write_text(out, path.read_text(encoding="utf-8"))
    typer.echo(out or path)
