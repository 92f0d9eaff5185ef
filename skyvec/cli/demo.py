"""The whole river on a made-up sky, from nothing to answers: one demonstration a subject."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from skyvec.cli.terminal import bar, guarded

MODEL = "demo"


@guarded
def demo(
    subject: Annotated[
        str, typer.Argument(help="lightcurves, galaxies or realbogus.", show_default=True)
    ] = "lightcurves",
    out: Annotated[Path, typer.Option("--out", "-o", help="Survey to make.")] = Path("demo"),
    n: Annotated[
        int, typer.Option("-n", help="Light curves, stamps (3000) or galaxies (800).", min=0)
    ] = 0,
    recipe: Annotated[
        str, typer.Option(help="A TOML file, or a shipped recipe: default, galaxies.")
    ] = "",
    steps: Annotated[
        int,
        typer.Option(help="Steps of training (300, 150 of galaxies); good models take more."),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Another seed, another sky.", min=0)] = 0,
) -> None:
    """Simulate a survey, learn from it, answer, and tell how good the answers are.

    lightcurves: a sky as TESS sees it, encoded, asked everything, with a report.
    galaxies: the same galaxies seen by two telescopes, with trails and saturated stars; a code
    learned from one telescope, and adapted to the other.
    realbogus: detections of an image-differencing survey, whose wrong labels are found, left out
    and judged.

    Takes a few minutes on two cores. Run again it goes on where it was stopped.
    """
    if subject not in DEMOS:
        raise ValueError(f"no demo of {subject!r}; choose from {', '.join(DEMOS)}")
    show, usual_n, usual_recipe, usual_steps = DEMOS[subject]
    show(out, n or usual_n, recipe or usual_recipe, steps or usual_steps, seed)


def _lightcurves(out: Path, n: int, recipe: str, steps: int, seed: int) -> None:
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.checkpoint import read_recipe
    from skyvec.encode import encode
    from skyvec.report.findings import findings
    from skyvec.report.html import report
    from skyvec.simulate import sky
    from skyvec.train import Progress, train

    began = time.monotonic()

    def tell(text: str) -> None:
        typer.echo(f"[{time.monotonic() - began:5.0f} s] {text}")

    tell(f"simulating {n:,} light curves with planted oddities into {out}")
    with bar("simulating") as progress:
        sky(out, n, seed=seed, progress=progress)
    tables = read_recipe(recipe)
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
    from skyvec.realbogus.demo import ARMS
    from skyvec.realbogus.demo import demo as show
    from skyvec.report.evaluation import evaluation_page

    if recipe:
        raise ValueError("the demo of realbogus has a recipe of its own; leave --recipe out")
    began = time.monotonic()

    def tell(text: str) -> None:
        typer.echo(f"[{time.monotonic() - began:5.0f} s] {text}")

    for finding in show(out, n, steps=steps, seed=seed, tell=tell):
        typer.echo(f"  * {finding}")
    for model in ARMS:
        typer.echo(f"  * {model} on one page: {evaluation_page(out / 'night', model)}")


def _galaxies(out: Path, n: int, recipe: str, steps: int, seed: int) -> None:
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.batches import keep_memory
    from skyvec.checkpoint import Training, read_recipe
    from skyvec.encode import encode
    from skyvec.report.findings import findings
    from skyvec.report.html import report
    from skyvec.simulate import galaxies
    from skyvec.studies.adaptation import adapt, compare
    from skyvec.train import train

    began = time.monotonic()

    def tell(text: str) -> None:
        typer.echo(f"[{time.monotonic() - began:5.0f} s] {text}")

    first, second = out / "first", out / "second"
    tell(f"simulating {n:,} galaxies, each seen by two telescopes, into {first} and {second}")
    with bar("simulating") as progress:
        galaxies(first, n, pair=second, seed=seed, progress=progress)
    keep_memory()
    tables = read_recipe(recipe)
    tables["train"] |= {"steps": steps, "validate_every": max(1, steps // 5)}
    tell(f"training {tables['model']['name']} for {steps:,} steps on the first, without labels")
    with bar("training") as progress:
        train(first, tables, MODEL, progress=lambda at: progress(at.step, at.steps))
    tell("encoding every image")
    encode(first, MODEL)
    tell("asking: outliers, clusters, map, classes (with shapes measured by hand beside)")
    with bar("report") as progress:
        page = report(first, MODEL, seed=seed, progress=progress)
    few = max(20, steps // 3)
    tell(f"adapting the encoder to the second telescope for {few} steps, without labels or pairs")
    options = Training(
        steps=few, batch=128, lr=3e-4, optimiser="adamw", clip=1.0, validate_every=few
    )
    after = adapt(first, second, MODEL, options=options)
    rows = compare(first, second, [MODEL, after], label="label", seed=seed).to_pylist()
    tell("done\n")
    for finding in findings(first, MODEL, seed=seed):
        typer.echo(f"  * {finding}")
    for row, when in zip(rows, ("before", "after")):
        typer.echo(
            f"  * {when} adaptation a classifier of the first telescope's classes is right on "
            f"{100 * row['own']:.0f} % there and on {100 * row['across']:.0f} % of the second's; "
            f"{100 * row['recall_10']:.0f} % of the galaxies find themselves among the ten nearest"
        )
    typer.echo(f"\nreport: {page}")


DEMOS: dict[str, tuple[Callable[[Path, int, str, int, int], None], int, str, int]] = {
    "lightcurves": (_lightcurves, 3000, "default", 300),
    "galaxies": (_galaxies, 800, "galaxies", 150),
    "realbogus": (_realbogus, 3000, "", 300),
}
"""What each subject shows, of how many objects, by which recipe, in how many steps."""
