"""The questions to a survey as commands: search, outliers, cluster, map, probe, report.

Each answer is also kept in the survey, under ``answers/VERB-MODEL/``, with what it was made from.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skyvec.cli.terminal import Format, Out, Survey, bar, guarded, say, show

if TYPE_CHECKING:
    import pyarrow as pa

    from skyvec.report.searching import Which

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Whose vectors to ask.", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)]


@guarded
def search(
    survey: Survey,
    model: Model,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids of segments or targets, or a file of objects.", show_default=False
        ),
    ] = None,
    signal: Annotated[
        str | None,
        typer.Option(
            help="Look for a signal instead: 'transit(rp=0.1, period=3.2)', or a file of its "
            "light curve.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        int,
        typer.Option(
            help="Of a --signal: look again at the light curves of so many, the best by code.",
            min=0,
        ),
    ] = 0,
    k: Annotated[int, typer.Option("-k", help="How many neighbours.", min=1)] = 5,
    include_same_target: Annotated[
        bool, typer.Option("--include-same-target", help="Also other segments of the query.")
    ] = False,
    combine: Annotated[
        bool, typer.Option("--combine", help="One answer, for the mean of all queries.")
    ] = False,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="One answer, by whichever query is nearest.")
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(
            help="Only among these: 'tmag < 12 and sector in (1, 2)'.", show_default=False
        ),
    ] = None,
    cone: Annotated[
        str | None,
        typer.Option(help="Only within RA,DEC,RADIUS [deg].", show_default=False),
    ] = None,
    polygon: Annotated[
        str | None,
        typer.Option(
            help="Only within the convex polygon RA,DEC,RA,DEC,... [deg].", show_default=False
        ),
    ] = None,
    moc: Annotated[
        Path | None,
        typer.Option(help="Only within this coverage map (FITS or JSON).", show_default=False),
    ] = None,
    apart: Annotated[
        float,
        typer.Option(help="Not within so many arcsec of the query's own place.", min=0),
    ] = 0.0,
    measure: Annotated[
        str | None,
        typer.Option(
            help="Order by the light curves: complexity, correlation, autocorrelation or shape.",
            show_default=False,
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="By --measure among all, not only the nearest by code.")
    ] = False,
    band: Annotated[
        str, typer.Option(help="Band that --measure compares.", show_default="that of most points")
    ] = "",
    form: Format = None,
    out: Out = None,
) -> None:
    """Find the objects most alike.

    The query need not be in the survey: a file is read, encoded and searched with. Nor need it
    exist: with --signal a theory is drawn into stars of the survey and searched for; the picture
    of what it found lies under answers/. With --check matched filters look at the curves of the
    best and have the say that they earn for this signal: slower, and better for short events.

    With --measure the nearest by code are put into the order of another similarity, or with --full
    the whole survey is searched by it, exactly. The measures compare one band of each curve on its
    own span and scale: correlation point by point; shape the same, at the best shift;
    autocorrelation whatever the phase; complexity point by point, as far apart as one of the two
    is rougher.
    """
    if (signal is None) != bool(what):
        raise ValueError("name what to search with, or give a --signal; one of the two")
    if check and signal is None:
        raise ValueError("--check belongs to --signal; give one")
    if measure is None and (full or band):
        raise ValueError("--full and --band belong to --measure; name one")
    if measure is not None and (signal is not None or combine or nearest):
        raise ValueError("--measure compares one curve with one; ask without the other option")
    if signal is not None:
        if combine or nearest:
            raise ValueError("--combine and --nearest are for several queries, not for a --signal")
        which = _which(where, cone, polygon, moc, apart)
        _search_signal(survey, model, signal, k, check, which, form, out)
        return
    # late: Faiss, and torch where a file is to be encoded, would slow `--help` down
    from skyvec.report.searching import search as search_survey

    names = what or []
    files = [Path(name) for name in names if Path(name).is_file()]
    ids = [name for name in names if not Path(name).is_file()]
    foreign = None
    if files:
        from skyvec.report.queries import read_queries

        foreign = read_queries(survey, model, files)
    if measure is not None:
        from skyvec.report.measured import search_by_measure

        found = search_by_measure(
            survey,
            model,
            ids,
            measure,
            full=full,
            foreign=foreign,
            band=band,
            k=k,
            include_same_target=include_same_target,
            which=_which(where, cone, polygon, moc, apart),
        )
        searched = "searched" if full else "reordered"
        say(
            f"distance by {measure} in band {found.facts['band']}, {searched} "
            f"{found.facts[searched]:,}; {found.facts['too_few_points']:,} have too few points"
        )
        show(found.table, form, out)
        return
    found = search_survey(
        survey,
        model,
        ids,
        foreign=foreign,
        k=k,
        include_same_target=include_same_target,
        combine="mean" if combine else "best" if nearest else "each",
        which=_which(where, cone, polygon, moc, apart),
    )
    show(found.table, form, out)


def _which(
    where: str | None, cone: str | None, polygon: str | None, moc: Path | None, apart: float
) -> "Which":
    from skyvec.report.searching import Which

    around = None if cone is None else _numbers("--cone", cone, "RA,DEC,RADIUS")
    if around is not None and len(around) != 3:
        raise ValueError(f"--cone {cone} should be RA,DEC,RADIUS in degrees")
    corners = None if polygon is None else _numbers("--polygon", polygon, "RA,DEC,RA,DEC,...")
    if corners is not None and (len(corners) % 2 or len(corners) < 6):
        raise ValueError(f"--polygon {polygon} should be RA,DEC of three corners at least")
    return Which(
        where,
        None if around is None else (around[0], around[1], around[2]),
        None if corners is None else tuple(zip(corners[::2], corners[1::2])),
        moc,
        apart / 3600,
    )


def _numbers(option: str, text: str, form: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text} should be {form} in degrees") from None


def _search_signal(
    survey: Path,
    model: str,
    signal: str,
    k: int,
    check: int,
    which: "Which",
    form: str | None,
    out: Path | None,
) -> None:
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.report.directed import search_signal
    from skyvec.report.queries import read_signal

    answer, picture = search_signal(
        survey, model, read_signal(signal), k=k, check=check, which=which
    )
    say(f"picture: {picture}")
    show(answer.table, form, out)


def _mention_graph(survey: Path, model: str, k: int) -> None:
    from skyvec.report.stored import is_slow

    if is_slow(survey, model, k):
        say(
            "all are compared with all, which may take hours; with `skyvec index build` and "
            f"`skyvec index graph -k {max(k, 15)}` it takes minutes"
        )


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
    from skyvec.store import survey_kind

    if label:
        table = answers.class_outliers(survey, model, label=label).table
    else:
        by_distance = survey_kind(survey) == "images" if far is None else far
        if not n and not by_distance:
            _mention_graph(survey, model, k)
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

    _mention_graph(survey, model, answers.neighbours_to_cluster(min_size))
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
    _mention_graph(survey, model, MAP_NEIGHBOURS)
    table, picture = map_with_picture(survey, model, foreign=foreign, seed=seed)
    say(f"picture: {picture}")
    show(table, form, out)


@guarded
def probe(
    survey: Survey,
    model: Model,
    label: Annotated[
        str | None, typer.Option(help="Column that holds the classes.", show_default=False)
    ] = None,
    votes: Annotated[
        str | None,
        typer.Option(
            help="Ask the questions that volunteers voted on instead: decals, or a CSV of "
            "thresholds.",
            show_default=False,
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Put the hand-crafted codes beside the model's.")
    ] = True,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Only the segments of this table, as `outliers --export-keep` writes it.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    form: Format = None,
    out: Out = None,
) -> None:
    """Measure how much the vectors know of known classes: macro-F1 with 95 % intervals.

    Nearest neighbours, a linear classifier and a random forest are trained on the frozen vectors
    of some objects and tested on others. Missing baselines are made first.

    With --votes, vote fractions in the catalogue become classes by the thresholds of a decision
    tree, and every question is asked of the galaxies it was answered for: balanced accuracies,
    and confusion matrices under answers/votes-MODEL/.
    """
    # late: torch and scikit-learn would slow `--help` down
    from skyvec.report.baselines import compare
    from skyvec.report.cleaning import read_keep

    if votes is not None:
        if label is not None:
            raise ValueError("--votes makes classes of its own; leave --label out")
        _probe_votes(survey, model, votes, baselines, keep, seed, form, out)
        return
    with bar("baselines") as progress:
        table = compare(
            survey,
            model,
            label=label,
            baselines=baselines,
            keep=read_keep(keep) if keep else None,
            seed=seed,
            progress=progress,
        )
    show(table, form, out)


def _probe_votes(
    survey: Path,
    model: str,
    votes: str,
    baselines: bool,
    keep: Path | None,
    seed: int,
    form: str | None,
    out: Path | None,
) -> None:
    # late: torch and scikit-learn would slow `--help` down
    from skyvec.analysis.votes import DECALS, read_cascade
    from skyvec.report.cleaning import read_keep
    from skyvec.report.votes import probe_votes
    from skyvec.store import answers_folder, write_table

    with bar("baselines") as progress:
        table, confusions = probe_votes(
            survey,
            model,
            cascade=read_cascade(DECALS if votes == "decals" else Path(votes)),
            baselines=baselines,
            keep=read_keep(keep) if keep else None,
            seed=seed,
            progress=progress,
        )
    path = answers_folder(survey, "votes", model) / "confusion.parquet"
    write_table(path, confusions)
    say(f"confusion matrices: {path}")
    show(table, form, out)


@guarded
def spread(
    survey: Survey,
    model: Model,
    label: Annotated[
        str | None,
        typer.Option(help="Column that holds the classes, empty for most.", show_default=False),
    ] = None,
    doubtful: Annotated[
        bool, typer.Option("--doubtful", help="Only labels that do not fit, the surest first.")
    ] = False,
    seed: Seed = 0,
    form: Format = None,
    out: Out = None,
) -> None:
    """Give every segment a class from the few that have one, along the neighbour graph.

    How many come out right is measured on targets whose classes were hidden, five folds.
    """
    # late: Numba would slow `--help` down
    from skyvec.report import spreading

    _mention_graph(survey, model, spreading.NEIGHBOURS)
    answer = spreading.spread(survey, model, label=label, seed=seed)
    facts = answer.facts
    say(
        f"{facts['labelled']:,} segments have one of {len(facts['classes'])} classes, "
        f"{facts['named']:,} got one, {facts['unreached']:,} none. Hidden classes found again: "
        f"{facts['right']:.1%} (balanced {facts['balanced']:.1%})"
    )
    if facts["sure"]:
        say(
            f"{facts['right_if_sure']:.1%} of the {facts['sure']:.1%} with a confidence of "
            f"{spreading.SURE} at least"
        )
    show(spreading.doubtful(answer.table) if doubtful else answer.table, form, out)


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
