"""Known classes, and what the vectors make of them, as commands: probe, spread."""

from pathlib import Path
from typing import Annotated

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

    mention_graph(survey, model, spreading.NEIGHBOURS)
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
