"""Questions about the answers as commands: agree, explain, audit."""

from pathlib import Path
from typing import Annotated

import typer

from skyvec.cli.questions import Model, Seed
from skyvec.cli.terminal import Format, Out, Survey, guarded, say, show


@guarded
def agree(
    survey: Survey,
    model: Model,
    sample: Annotated[
        int, typer.Option(help="How many objects to draw and compare.", min=20)
    ] = 1000,
    band: Annotated[
        str, typer.Option(help="Band of the curves.", show_default="that of most points")
    ] = "",
    seed: Seed = 0,
    form: Format = None,
    out: Out = None,
) -> None:
    """Measure how far neighbours by code are also neighbours by their light curves.

    For each measure of `skyvec search --measure`: the share of the k nearest that both name, with
    a 95 % interval, beside what chance would give, and the rank correlation of both distances to
    all. High is not the aim: where correlation and shape agree with the code, search by whichever
    is quicker; where they do not, the code sees something else, such as phase-free behaviour.
    """
    # late: Faiss and Matplotlib would slow `--help` down
    from skyvec.report.agreeing import agree as compare

    answer, picture = compare(survey, model, sample=sample, band=band, seed=seed)
    say(f"{answer.facts['objects']:,} objects compared in band {answer.facts['band']}")
    say(f"picture: {picture}")
    show(answer.table, form, out)
