"""Made-up curves and skies from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyvec.cli.terminal import Format, bar, guarded, say, show

if TYPE_CHECKING:
    import pyarrow as pa

    from skyvec.sim.signals import Signal


@guarded
def simulate(
    kind: Annotated[
        str,
        typer.Argument(
            help="sky, galaxies, stamps, or a signal: cepheid, 'louver(period=3)', pi_beacon, "
            "\"picture(file='ship.png')\"."
        ),
    ],
    survey: Annotated[
        Path | None,
        typer.Option(
            "--survey",
            "-s",
            help="Survey to make, for many; or that of --like.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="Object of --survey whose time stamps and noise the curves get.",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        bool, typer.Option("--into", help="With --like: into the object's own curve.")
    ] = False,
    draws: Annotated[int, typer.Option(help="With --like: how many curves.", min=1)] = 8,
    pair: Annotated[
        Path | None,
        typer.Option(
            help="Of galaxies: the survey of a second telescope that sees the same ones.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File for one curve.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Light curves, galaxies or stamps.", min=1)] = 3000,
    cadence: Annotated[
        str, typer.Option(help="Of a sky: tess, tess-10min, tess-2min or ground.")
    ] = "tess",
    days: Annotated[float, typer.Option(help="Length of one curve [d].")] = 27.0,
    minutes: Annotated[float, typer.Option(help="Step of one curve [min].")] = 10.0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="NAME=VALUE, a parameter of the kind; again for more.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another draw.", min=0)] = 0,
    form: Format = None,
) -> None:
    """Make one light curve of a kind, or a survey of many objects with known truth.

    One curve is noiseless: a table with the columns id, mjd and flux, which `skyvec search` takes
    as a query; with --like there are several, with the stamps and the noise of an object. A sky
    has noise, gaps, labels (columns label and shape) and a few planted oddities; galaxies are
    images with labels, shapes and a few artefacts (column artefact), with --pair seen by two
    telescopes of other pixels, PSF and depth. Stamps are the detections of a simulated camera's
    nights, with the truth (column is_real) and labels; --set reals=0.1, noise=0.05, observed=1
    and variables=0.3 say how many are real, how many labels are wrong, that new stars are no
    artificial ones, and how many of them are known stars that brightened; focus=2 is another
    camera, of pixels half as wide, and negative=1 detects what lost light too, as ZTF does. Made
    again it goes on where it was stopped.
    """
    if pair is not None and kind != "galaxies":
        raise ValueError(f"--pair is for galaxies, not for {kind}")
    if like is not None:
        show(_curves_like(survey, like, kind, settings or [], draws, into, seed), form, out)
        return
    if kind not in ("sky", "galaxies", "stamps"):
        table = _one_curve(kind, days, minutes, settings or [], seed)
        show(table, form or (None if out else "csv"), out)
        return
    if survey is None:
        raise ValueError(f"simulate {kind} fills a survey; name its folder with --survey DIR")
    if settings and kind != "stamps":
        raise ValueError(f"--set is for stamps and for one curve; {kind} knows no {settings[0]}")
    # late: NumPy, SciPy and PyArrow would slow `--help` down
    from skyvec.simulate import galaxies, sky, stamps

    with bar("simulating") as progress:
        if kind == "sky":
            made = sky(survey, n, cadence=cadence, seed=seed, progress=progress)
        elif kind == "galaxies":
            made = galaxies(survey, n, pair=pair, seed=seed, progress=progress)
        else:
            silent = {"reals": 0.1, "noise": 0.0, "observed": 0.0, "variables": 0.0}
            options = _numbers(settings or [], {**silent, "focus": 1.0, "negative": 0.0})
            made = stamps(
                survey,
                n,
                reals=options["reals"],
                noise=options["noise"],
                observed=bool(options["observed"]),
                variables=options["variables"],
                focus=options["focus"],
                negative=bool(options["negative"]),
                seed=seed,
                progress=progress,
            )
    where = f"{survey}" if pair is None else f"each of {survey} and {pair}"
    say(f"{made:,} objects made now of {n:,} in {where}")


def _numbers(settings: list[str], known: dict[str, float]) -> dict[str, float]:
    """What --set says of the known options, as numbers; the given values where it is silent."""
    found = dict(known)
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known:
            raise ValueError(f"--set {name}: there are only {', '.join(known)}")
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(f"--set {setting} must be NAME=NUMBER") from None
    return found


def _one_curve(
    kind: str, days: float, minutes: float, settings: list[str], seed: int
) -> "pa.Table":
    # late: NumPy, SciPy and PyArrow would slow `--help` down
    import numpy as np
    import pyarrow as pa

    if not (days > 0 and minutes > 0):
        raise ValueError(f"--days ({days}) and --minutes ({minutes}) must be > 0")
    time = np.arange(0.0, days, minutes / 1440)
    flux, _ = _signal(kind, settings).draw(time, np.random.default_rng(seed))
    n = len(time)
    mjd = pa.array(60000 + time)
    return pa.table({"id": pa.array([kind] * n), "mjd": mjd, "flux": pa.array(flux)})


def _curves_like(
    survey: Path | None,
    like: str,
    kind: str,
    settings: list[str],
    draws: int,
    into: bool,
    seed: int,
) -> "pa.Table":
    # late: NumPy and PyArrow would slow `--help` down
    import numpy as np
    import pyarrow as pa

    from skyvec.studies.like import draw_like

    if survey is None:
        raise ValueError("an object is of a survey; name its folder with --survey DIR")
    signal = _signal(kind, settings)
    curves = draw_like(survey, like, signal, draws=draws, into=into, seed=seed)
    columns = {
        "id": pa.array(np.repeat(curves.id, curves.lengths)),
        "mjd": pa.array(curves.mjd),
        "flux": pa.array(curves.flux),
        "flux_err": pa.array(curves.flux_err),
    }
    if len(np.unique(curves.band)) > 1:
        columns["band"] = pa.array(np.array(curves.bands)[curves.band])
    return pa.table(columns)


def _signal(text: str, settings: list[str]) -> "Signal":
    """The signal as written, with what --set adds to it."""
    from skyvec.sim.signals import Signal, parse  # late: SciPy would slow `--help` down

    written = parse(text)
    parameters: dict[str, float | str] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            parameters[name] = value if name == "file" else float(value)
        except ValueError:
            raise ValueError(f"--set {setting} must be NAME=NUMBER, such as period=3.2") from None
    return Signal(written.kind, {**written.parameters, **parameters})
