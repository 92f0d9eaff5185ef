"""Questions about the answers as commands: agree, explain, audit."""

from typing import Annotated

import typer

from skyvec.cli.terminal import Format, Model, Out, Seed, Survey, guarded, say, show


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


@guarded
def audit(
    survey: Survey,
    model: Model,
    column: Annotated[
        list[str] | None,
        typer.Option(help="A further column to ask about; again for more.", show_default=False),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column that holds the classes.", show_default=False)
    ] = None,
    sample: Annotated[int, typer.Option(help="How many objects to draw.", min=50)] = 2000,
    seed: Seed = 0,
    form: Format = None,
    out: Out = None,
) -> None:
    """Ask whether neighbours tell how an object was observed: noise, sampling, camera, place.

    told is what the ten nearest tell of it, 0 to 1 with its 95 % interval (explained variance of
    ranks; for cameras and the like, how much more often they are the same than by chance);
    by_chance what shuffled values tell, p how often they tell as much, p_holm the same for all
    questions together. Where classes are known, by_class is what they alone would tell: stars that
    are brighter because they are giants are no fault of the code, p_beyond_class < 0.05 may be.
    """
    # late: Faiss and Matplotlib would slow `--help` down
    from skyvec.report.auditing import audit_survey

    answer, picture = audit_survey(
        survey, model, columns=column or [], label=label, sample=sample, seed=seed
    )
    facts = answer.facts
    say(f"{facts['objects']:,} objects; {facts['carried']} of {answer.table.num_rows} are carried")
    say(f"picture: {picture}")
    show(answer.table, form, out)


@guarded
def explain(
    name: Annotated[str, typer.Argument(help="A segment or target.", show_default=False)],
    survey: Survey,
    model: Model,
    other: Annotated[
        str | None, typer.Argument(help="Another, to ask what they share.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Which neighbour it is held against.", min=1)] = 5,
    form: Format = None,
    out: Out = None,
) -> None:
    """Say why an object is odd, or why two are alike.

    place: how alone it is. ordinary: the nearest that are not odd. direction: where its code
    stands out among all (in deviations), or what two codes share (their terms of the similarity,
    beside those of two at random), and what the direction follows. part: the similarity without
    one stretch of the curve or tile of the image; far above that of the whole, this part makes it
    odd; far below, this part makes two alike. residual: what the code cannot draw. Images are odd
    by distance, as `skyvec outliers` ranks them: a part without which it is smaller makes it odd.
    """
    # late: torch and Matplotlib would slow `--help` down
    from skyvec.report.reason_pictures import keep_picture
    from skyvec.report.reasons import explain_alike, explain_odd

    if other is None:
        answer = explain_odd(survey, model, name, k=k)
    else:
        answer = explain_alike(survey, model, name, other)
    say(answer.facts["said"])
    say(f"picture: {keep_picture(survey, model, answer)}")
    show(answer.table, form, out)
