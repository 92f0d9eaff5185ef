"""Adapting a model to another survey, as a command."""

from pathlib import Path
from typing import Annotated

import typer

from skyvec.cli.terminal import Format, Out, Threads, bar, guarded, say, show


@guarded
def adapt(
    name: Annotated[str, typer.Argument(help="Name of a trained model of the source.")],
    source: Annotated[
        str,
        typer.Option(help="Survey with the model; or COLUMN=VALUE in it.", show_default=False),
    ],
    target: Annotated[
        str, typer.Option(help="Survey to adapt it to; or COLUMN=VALUE.", show_default=False)
    ],
    survey: Annotated[
        Path | None,
        typer.Option(
            "--survey",
            "-s",
            help="One survey that holds both, told by COLUMN=VALUE.",
            show_default=False,
        ),
    ] = None,
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

    Both may lie in one survey: `skyvec adapt NAME --survey DIR --source survey=sdss --target
    survey=decals`. The model then keeps that survey's one scaling of pixels.
    """
    # late: torch and scikit-learn would slow `--help` down
    from skyvec import store
    from skyvec.batches import keep_memory
    from skyvec.checkpoint import Training
    from skyvec.studies.adaptation import Part, compare
    from skyvec.studies.adaptation import adapt as adapt_model

    sides: list[Part] = []
    for which, given in (("source", source), ("target", target)):
        column, equals, value = given.partition("=")
        if survey is None:
            sides.append(Part(Path(given)))
        elif equals and column:
            sides.append(Part(survey, column, value))
        else:
            raise ValueError(
                f"--{which} {given} must be COLUMN=VALUE, such as survey=sdss, beside --survey"
            )

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
    here, there = (store.survey_bands(side.survey) for side in sides)
    if len(here) == len(there) and here != there:
        say(
            f"warning: {sides[0]} has the bands {', '.join(here)} and {sides[1]} "
            f"{', '.join(there)}; they are taken for the same in this order",
            style="yellow",
        )
    keep_memory()
    with bar("adapting") as progress:
        after = adapt_model(
            sides[0],
            sides[1],
            name,
            adapted=adapted,
            weight=weight,
            pairs=pairs,
            options=options,
            progress=progress.follow,
            threads=threads or None,
        )
    say(f"adapted {name} as {after}, in {sides[0]} and {sides[1]}")
    show(compare(sides[0], sides[1], [name, after], label=label, seed=seed), form, out)
