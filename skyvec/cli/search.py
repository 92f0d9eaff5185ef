"""What looks like this? The search as a command: by name, by a file, by a simulated signal."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyvec.cli.terminal import Format, Model, Out, Survey, guarded, say, show

if TYPE_CHECKING:
    from skyvec.report.searching import Which


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
