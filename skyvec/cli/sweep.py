"""Choosing the width of a code, as a command."""

from typing import Annotated

import typer

from skyvec.cli.terminal import (
    Device,
    Format,
    Out,
    Recipe,
    Survey,
    Threads,
    bar,
    guarded,
    say,
    show,
)
from skyvec.recipes import find_recipe


@guarded
def sweep(
    recipe: Recipe,
    survey: Survey,
    widths: Annotated[str, typer.Option(help="Widths of the code.")] = "8,16,24,32,40,64,96,128",
    name: Annotated[
        str, typer.Option("--name", help="First part of the names.", show_default=False)
    ] = "",
    steps: Annotated[int, typer.Option(help="Of training; 0 = as the recipe.", min=0)] = 0,
    threads: Threads = 0,
    device: Device = "cpu",
    form: Format = None,
    out: Out = None,
) -> None:
    """Train codes of several widths on images, and draw what each keeps (MSE and SSIM).

    Principal components of the pixels stand beside: a code that keeps less than as many of those
    has been trained too little.

    Run again it goes on where it was stopped. The picture lies under answers/sweep-NAME/.
    """
    path = find_recipe(recipe)
    try:
        chosen = [int(width) for width in widths.split(",")]
    except ValueError:
        raise ValueError(f"--widths {widths} must be whole numbers such as 8,16,40") from None
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.batches import keep_memory
    from skyvec.checkpoint import read_recipe
    from skyvec.report.pictures import png
    from skyvec.store import answers_folder, write_atomic, write_table
    from skyvec.studies.sweep import draw_sweep, too_short
    from skyvec.studies.sweep import sweep as sweep_widths
    from skyvec.train import Progress

    tables = read_recipe(path)
    if steps:
        tables["train"] |= {"steps": steps, "validate_every": max(1, steps // 5)}
    keep_memory()
    with bar("sweeping") as progress:

        def step(width: int, state: Progress) -> None:
            progress(state.step, state.steps, f"{width} numbers: loss {state.loss:.3f}")

        table = sweep_widths(
            survey,
            tables,
            name or path.stem,
            widths=chosen,
            progress=step,
            threads=threads or None,
            device=device,
        )
    folder = answers_folder(survey, "sweep", name or path.stem)
    content = png(draw_sweep(table))
    write_table(folder / "sweep.parquet", table)
    write_atomic(folder / "sweep.png", lambda temporary: temporary.write_bytes(content))
    say(f"picture: {folder / 'sweep.png'}")
    if short := too_short(table):
        say(
            f"{', '.join(map(str, short))} numbers keep less than as many principal components: "
            "this training is too short to choose by; give --steps more, and --name another"
        )
    show(table, form, out)
