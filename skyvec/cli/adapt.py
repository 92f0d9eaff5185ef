"""Adapting a model to another survey, as a command."""

from pathlib import Path
from typing import Annotated

import typer

from skyvec.cli.terminal import Format, Out, Threads, bar, guarded, say, show


@guarded
def adapt(
    name: Annotated[str, typer.Argument(help="Name of a trained model of the source.")],
    source: Annotated[Path, typer.Option(help="Survey with the model.", show_default=False)],
    target: Annotated[Path, typer.Option(help="Survey to adapt it to.", show_default=False)],
    adapted: Annotated[
        str, typer.Option("--name", help="Of the adapted model; NAME-adapted if not given.")
    ] = "",
    weight: Annotated[
        float, typer.Option(help="Of MMD^2, against the model's own loss.", min=0)
    ] = 10.0,
    pairs: Annotated[
        float,
        typer.Option(
            help="Of finding the same target in the other survey; 0 = unpaired, 1 is usual.",
            min=0,
        ),
    ] = 0.0,
    steps: Annotated[int, typer.Option(help="Of training.", min=1)] = 400,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 3e-4,
    label: Annotated[
        str, typer.Option(help="Column of classes in both surveys, only for the measures.")
    ] = "label",
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    threads: Threads = 0,
    form: Format = None,
    out: Out = None,
) -> None:
    """Adapt a model of images to another survey, and say what that changed.

    The encoder learns to give both surveys codes of one distribution (MMD), without labels; with
    --pairs also to give the same target the same code. The table has a row before and after:
    balanced accuracy of the source's classes on the source and on the target survey, recall of
    the true partner among all of the target survey, and how well the surveys can be told apart
    (0.5 = not at all).
    """
    # late: torch and scikit-learn would slow `--help` down
    from skyvec.checkpoint import Training
    from skyvec.studies.adaptation import adapt as adapt_model
    from skyvec.studies.adaptation import compare

    options = Training(
        steps=steps,
        batch=128,
        lr=lr,
        optimiser="adamw",
        clip=1.0,
        warm_up=min(20, steps),
        validate_every=max(1, steps // 8),
        seed=seed,
    )
    with bar("adapting") as progress:
        after = adapt_model(
            source,
            target,
            name,
            adapted=adapted,
            weight=weight,
            pairs=pairs,
            options=options,
            progress=progress.follow,
            threads=threads or None,
        )
    say(f"adapted {name} as {after}, in {source} and {target}")
    show(compare(source, target, [name, after], label=label, seed=seed), form, out)
