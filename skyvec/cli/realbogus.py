"""Real or bogus: train, find wrong labels, choose a threshold, score nights, evaluate."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from skyvec.cli.terminal import Device, Threads, bar, guarded, say
from skyvec.recipes import find_recipe, recipe_names

RECIPES = ", ".join(recipe_names("realbogus"))
Stamps = Annotated[
    Path, typer.Option("--survey", "-s", help="Survey of stamps.", show_default=False)
]
Home = Annotated[
    Path | None,
    typer.Option(
        "--from", help="Survey the model was trained in, if another.", show_default=False
    ),
]
Model = Annotated[str, typer.Argument(help="Name of a trained classifier.")]


MOST_TOLD = 5
"""Pairs refused whose reason is said."""


def _recipe(name: str) -> Path:
    return find_recipe(name, "realbogus")


def _read(name: str) -> dict:
    import tomllib

    path = _recipe(name)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error


@guarded
def train(
    recipe: Annotated[
        str, typer.Argument(help=f"A TOML file, or one that comes along: {RECIPES}.")
    ],
    survey: Stamps,
    name: Annotated[str, typer.Option("--name", help="Name of the model.")] = "",
    suspects: Annotated[
        str, typer.Option(help="What to do with suspects: keep, remove, unlabel or flip.")
    ] = "keep",
    doubts: Annotated[
        str, typer.Option(help="Name under which `suspects` wrote them.", show_default=False)
    ] = "",
    verdicts: Annotated[
        Path | None,
        typer.Option(help="CSV of a person's verdicts; they stand above all.", show_default=False),
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="Learn from this detector alone; may be repeated. The recipe's [data] detectors "
            "does the same.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            help="Survey of another instrument to adapt to, without labels; the recipe's [loss] "
            "mmd says how strongly.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = 0,
    device: Device = "cpu",
) -> None:
    """Train a classifier on the labelled stamps of a survey.

    Killed at any moment, it goes on where it was when run again.
    """
    # late: torch would slow `--help` down
    from skyvec.realbogus.river import train_survey

    tables, stem = _read(recipe), _recipe(recipe).stem
    if detector:
        tables["data"] = {**tables.get("data", {}), "detectors": detector}
        stem = "-".join([stem, *detector])
    with bar("training") as progress:
        folder = train_survey(
            survey,
            tables,
            name or stem,
            treatment=suspects,
            doubts=doubts,
            verdicts=verdicts,
            target=target,
            progress=progress.follow,
            threads=threads or None,
            device=device,
        )
    say(f"trained {folder}")


@guarded
def suspects(
    recipe: Annotated[
        str, typer.Argument(help=f"A TOML file, or one that comes along: {RECIPES}.")
    ],
    survey: Stamps,
    name: Annotated[str, typer.Option("--name", help="Name of the answer.")] = "",
    how: Annotated[
        str, typer.Option(help="argmax, threshold or confident (calibrated joint).")
    ] = "argmax",
    level: Annotated[
        float, typer.Option(help="Of threshold: probability of the other class.")
    ] = 0.7,
    folds: Annotated[int, typer.Option(help="Models to train.", min=2)] = 5,
    shown: Annotated[int, typer.Option(help="Stamps in the gallery.", min=0)] = 200,
    threads: Threads = 0,
) -> None:
    """Find labels that are probably wrong, by models that never saw the stamp.

    Writes a table of all stamps, most doubtful first, and a page to look at them.
    """
    # late: torch would slow `--help` down
    from skyvec.realbogus.river import find_suspects
    from skyvec.train import Progress

    with bar("folds") as progress:

        def step(fold: int, state: Progress) -> None:
            note = f"fold {fold + 1} of {folds}, loss {state.loss:.4f}"
            progress(fold * state.steps + state.step, folds * state.steps, note)

        folder, n, total = find_suspects(
            survey,
            _read(recipe),
            name or _recipe(recipe).stem,
            how=how,
            level=level,
            folds=folds,
            shown=shown,
            progress=step,
            threads=threads or None,
        )
    say(f"{n:,} of {total:,} labels are suspect; see {folder}")


@guarded
def threshold(
    model: Model,
    survey: Stamps,
    home: Home = None,
    tpr: Annotated[float, typer.Option(help="Least fraction of the reals to keep.")] = 0.9,
    prevalence: Annotated[
        float, typer.Option(help="Reals among the detections of a night; 0 = as here.")
    ] = 0.0,
    calibration: Annotated[str, typer.Option(help="temperature or isotonic.")] = "temperature",
    screen: Annotated[
        str, typer.Option(help="Name of a faster model that shall screen.", show_default=False)
    ] = "",
    doubts: Annotated[
        str, typer.Option(help="Leave out the suspects of this name.", show_default=False)
    ] = "",
    turns: Annotated[
        bool,
        typer.Option(
            "--turns", help="Average over eight orientations of a stamp, here and in `score`."
        ),
    ] = False,
) -> None:
    """Choose the threshold of the best precision, calibrate, and freeze both with the model.

    Uses the validation part of the model's own survey, or all of another one.
    """
    from skyvec.realbogus.operating import freeze, part_of
    from skyvec.realbogus.river import suspect_ids
    from skyvec.store import model_folder

    base = home or survey
    folder = model_folder(base, model)
    without = suspect_ids(survey, doubts) if doubts else None
    own = base.resolve() == survey.resolve()
    samples = part_of(folder, survey, "valid", own=own, without=without)
    point = freeze(
        folder,
        samples,
        tpr=tpr,
        prevalence=prevalence or None,
        calibration=calibration,
        screen=model_folder(base, screen) if screen else None,
        turns=turns,
    )
    say(
        f"threshold {point['threshold']:.4f}: TPR {point['tpr']:.4f}, FPR {point['fpr']:.2e}, "
        f"precision {point['precision']:.4f} on {point['chosen_on']['reals']:,} reals and "
        f"{point['chosen_on']['bogus']:,} bogus"
    )
    if "screen" in point:
        part = point["screen"]
        say(
            f"{part['name']} screens at {part['threshold']:.4f}; {part['passes']:.1%} of the "
            f"bogus go on, {part['lost']:,} of {part['reals']:,} reals are lost, surely less than "
            f"{part['at_most']:.2%}"
        )


@guarded
def score(
    model: Model,
    survey: Stamps,
    home: Home = None,
    prevalence: Annotated[
        float, typer.Option(help="Reals among the detections; 0 = frozen, or told by the night.")
    ] = 0.0,
    workers: Annotated[int, typer.Option(help="Threads; 0 = as many as cores.", min=0)] = 0,
) -> None:
    """Score every stamp of a survey: any number, in bounded memory.

    Killed at any moment, it goes on where it was when run again.
    """
    import os

    from skyvec.realbogus.river import score_night

    with bar("scoring") as progress:
        told = score_night(
            survey,
            model,
            home=home or survey,
            prevalence=prevalence or None,
            workers=workers or os.cpu_count() or 1,
            progress=progress,
        )
    for line in told:
        say(line)


@guarded
def evaluate(
    model: Model,
    survey: Stamps,
    home: Home = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Further column to tell TPR and FPR by, such as magpsf; may be repeated.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.", min=0)] = 0,
) -> None:
    """Measure a classifier on stamps that trained nothing, and draw all its curves.

    Uses the test part of the model's own survey, or all of another one. Writes the numbers as
    JSON, every picture, and one page with all of them.
    """
    from skyvec.realbogus.river import evaluate_model
    from skyvec.report.evaluation import evaluation_page

    for line in evaluate_model(survey, model, home=home or survey, by=by or (), seed=seed):
        typer.echo(line)
    say(f"all of it on one page: {evaluation_page(survey, model)}")


@guarded
def frames(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of pairs: NAME_new.fits and NAME_ref.fits; reference.fits and others; or "
            "pairs.csv with the columns new, reference."
        ),
    ],
    survey: Stamps,
    embed: Annotated[
        int, typer.Option(help="Artificial stars a pair, to train with; 0 for a night.", min=0)
    ] = 0,
    least: Annotated[float, typer.Option("--threshold", help="Least score of a detection.")] = 5.0,
    side: Annotated[int, typer.Option(help="Side of the stamps [px], odd.", min=5)] = 29,
    full: Annotated[
        float | None,
        typer.Option(help="Counts of a full pixel; found if not given.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the artificial stars.", min=0)] = 0,
) -> None:
    """Subtract image pairs and keep what is detected in a survey of stamps.

    With --embed, artificial stars with each image's own point-spread function are put in first:
    what is found at their places is labelled real, everything else bogus.
    """
    from skyvec.realbogus.frames import stamps_of_folder
    from skyvec.store import read_rejects

    with bar("subtracting") as progress:
        stored, refused = stamps_of_folder(
            folder,
            survey,
            embedded=embed,
            threshold=least,
            side=side,
            saturation=full,
            seed=seed,
            progress=progress,
        )
    say(f"{stored:,} detections stored now in {survey}, {refused:,} pairs refused")
    if not stored and not refused:
        say(
            f"all pairs of {folder} are in {survey} already, by the options they were taken with; "
            "for other options choose another --survey"
        )
    if refused:
        for row in read_rejects(survey).to_pylist()[-refused:][:MOST_TOLD]:
            say(f"  {row['id']}: {row['reason']}")


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "frames": (frames, "night --survey stamps --embed 200"),
    "train": (train, "row03 --survey stamps --name first"),
    "suspects": (suspects, "complex --survey stamps --how argmax"),
    "threshold": (threshold, "first --survey stamps --screen fast"),
    "score": (score, "first --survey night --from stamps"),
    "evaluate": (evaluate, "first --survey observed --from stamps"),
}
"""Every command of the group, with an example for its help."""

app = typer.Typer(
    help="Real or bogus: stamps -> calibrated probabilities, errors of labels.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for _name, (_command, _example) in COMMANDS.items():
    app.command(_name, epilog=f"Example:  skyvec realbogus {_name} {_example}")(_command)
