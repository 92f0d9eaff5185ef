"""The whole river on a made-up sky, from nothing to answers: one demonstration a subject."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from skyvec.cli.simulate import sky
from skyvec.cli.stages import find_recipe
from skyvec.cli.terminal import bar, guarded

MODEL = "demo"


@guarded
def demo(
    subject: Annotated[
        str, typer.Argument(help="lightcurves or realbogus.", show_default=True)
    ] = "lightcurves",
    out: Annotated[Path, typer.Option("--out", "-o", help="Survey to make.")] = Path("demo"),
    n: Annotated[int, typer.Option("-n", help="Light curves, or stamps.", min=100)] = 3000,
    recipe: Annotated[
        str, typer.Option(help="Of light curves: a TOML file, or a shipped recipe.")
    ] = "default",
    steps: Annotated[
        int, typer.Option(help="Steps of training; a good model takes more.", min=1)
    ] = 300,
    seed: Annotated[int, typer.Option(help="Another seed, another sky.", min=0)] = 0,
) -> None:
    """Simulate a survey, learn from it, answer, and tell how good the answers are.

    lightcurves: a sky as TESS sees it, encoded, asked everything, with a report.
    realbogus: detections of an image-differencing survey with wrong labels, two stages.

    Takes a few minutes on two cores. Run again it goes on where it was stopped.
    """
    if subject not in DEMOS:
        raise ValueError(f"no demo of {subject!r}; choose from {', '.join(DEMOS)}")
    DEMOS[subject](out, n, recipe, steps, seed)


def _lightcurves(out: Path, n: int, recipe: str, steps: int, seed: int) -> None:
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.checkpoint import read_recipe
    from skyvec.encode import encode
    from skyvec.report.findings import findings
    from skyvec.report.html import report
    from skyvec.train import Progress, train

    began = time.monotonic()

    def tell(text: str) -> None:
        typer.echo(f"[{time.monotonic() - began:5.0f} s] {text}")

    tell(f"simulating {n:,} light curves with planted oddities into {out}")
    with bar("simulating") as progress:
        sky(out, n, seed=seed, progress=progress)
    tables = read_recipe(find_recipe(recipe))
    tables["data"]["curves"] = n
    tables["train"] |= {"steps": steps, "validate_every": max(1, steps // 10)}
    tell(f"training {tables['model']['name']} for {steps:,} steps, without labels")
    with bar("training") as progress:

        def step(state: Progress) -> None:
            progress(state.step, state.steps, f"loss {state.loss:.4f}")
            if state.step % max(1, steps // 5) == 0:
                tell(f"  step {state.step:,}: loss on held-out objects {state.valid:.4f}")

        train(out, tables, MODEL, progress=step)
    tell("encoding every curve into 40 numbers")
    with bar("encoding") as progress:
        encode(out, MODEL, progress=progress)
    tell("asking: outliers, clusters, map, classes (with the hand-crafted codes beside)")
    with bar("report") as progress:
        page = report(out, MODEL, seed=seed, progress=progress)
    tell("done\n")
    for finding in findings(out, MODEL, seed=seed):
        typer.echo(f"  * {finding}")
    typer.echo(f"\nreport: {page}")


def _realbogus(out: Path, n: int, recipe: str, steps: int, seed: int) -> None:
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.realbogus.demo import demo as show

    began = time.monotonic()

    def tell(text: str) -> None:
        typer.echo(f"[{time.monotonic() - began:5.0f} s] {text}")

    for finding in show(out, n, steps=steps, seed=seed, tell=tell):
        typer.echo(f"  * {finding}")


DEMOS: dict[str, Callable[[Path, int, str, int, int], None]] = {
    "lightcurves": _lightcurves,
    "realbogus": _realbogus,
}
"""What each subject shows."""
