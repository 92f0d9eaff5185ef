"""Injection and recovery from the command line."""

from typing import Annotated

import typer

from skyvec.cli.terminal import Format, Out, Survey, bar, guarded, say, show


@guarded
def recover(
    signal: Annotated[
        str, typer.Argument(help="'transit(period=3.2)', louver, ..., or a light-curve file.")
    ],
    survey: Survey,
    model: Annotated[str, typer.Option("--model", "-m", help="The encoder.", show_default=False)],
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="AXIS=VALUE,VALUE,...: depth (over noise) or a parameter; again for more.",
            show_default="depth=10,30,100,300,1000",
        ),
    ] = None,
    injections: Annotated[
        int, typer.Option("--injections", "-n", help="In each cell of the grid.", min=1)
    ] = 40,
    curves: Annotated[
        int, typer.Option(help="At most so many segments of the survey compete.", min=3)
    ] = 2000,
    k: Annotated[int, typer.Option("-k", help="Found = among the first k objects.", min=1)] = 10,
    rivals: Annotated[
        bool, typer.Option(help="Also run box least squares and matched filters.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    form: Format = None,
    out: Out = None,
) -> None:
    """Measure what share of a signal a search of this survey would find.

    The signal is put into the survey's own curves, one at a time, at every place of the grid. The
    table and its picture lie under answers/; stopped, the command goes on where it was.
    """
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.report.completeness import completeness_picture
    from skyvec.report.pictures import png
    from skyvec.report.queries import read_signal
    from skyvec.store import write_atomic
    from skyvec.studies.completeness import PICTURE, recover_in_survey

    axes = dict(_axis(text) for text in grid or [])
    axes.setdefault("depth", [10.0, 30.0, 100.0, 300.0, 1000.0])
    with bar("recovery") as progress:
        table, folder = recover_in_survey(
            survey,
            model,
            read_signal(signal),
            axes,
            injections=injections,
            curves=curves,
            k=k,
            with_rivals=rivals,
            seed=seed,
            progress=progress,
        )
    content = png(completeness_picture(table, k))
    write_atomic(folder / PICTURE, lambda temporary: temporary.write_bytes(content))
    say(f"picture: {folder / PICTURE}")
    show(table, form, out)


def _axis(text: str) -> tuple[str, list[float]]:
    name, _, values = text.partition("=")
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(f"--grid {text} must be AXIS=NUMBER,NUMBER, such as depth=3,10") from None
    return name.strip(), numbers
