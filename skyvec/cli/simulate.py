"""Made-up curves and skies from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyvec.cli.terminal import Bar, Format, bar, guarded, say, show

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 500
"""Light curves drawn and stored at a time; part of the result, as each chunk has its own seed."""


@guarded
def simulate(
    kind: Annotated[str, typer.Argument(help="sky, or one kind of star such as cepheid.")],
    survey: Annotated[
        Path | None,
        typer.Option("--survey", "-s", help="Survey to make, for a sky.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File for one curve.", show_default=False),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Light curves of a sky.", min=1)] = 3000,
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
    """Make one light curve of a kind, or a survey of many with known truth.

    One curve is noiseless: a table with the columns id, mjd and flux, which `skyvec search` takes
    as a query. A sky has noise, gaps, labels (columns label and shape) and a few planted oddities;
    made again it goes on where it was stopped.
    """
    if kind != "sky":
        table = _one_curve(kind, days, minutes, settings or [], seed)
        show(table, form or (None if out else "csv"), out)
        return
    if survey is None:
        raise ValueError("a sky goes into a survey; name its folder with --survey DIR")
    with bar("simulating") as progress:
        made = sky(survey, n, cadence=cadence, seed=seed, progress=progress)
    say(f"{made:,} light curves made now, {n:,} in {survey}")


def sky(
    survey: Path, n: int, *, cadence: str = "tess", seed: int = 0, progress: Bar | None = None
) -> int:
    """Simulate a sky into a survey, chunk by chunk; chunks that are there are not made again.

    Returns:
        How many light curves were made now.

    Raises:
        StoreError: The survey holds other objects.
    """
    # late: NumPy, SciPy and PyArrow would slow `--help` down
    import numpy as np

    from skyvec import store
    from skyvec.sim.lightcurves import simulate_sky

    store.create_survey(survey)
    title = f"simulated sky, {n} curves, {cadence}, seed {seed}"
    done = store.finished_items(survey)
    if foreign := sorted(source for source in done if not source.startswith(title)):
        raise store.StoreError(
            f"{survey} holds other objects already ({foreign[0]}); simulate into a new folder"
        )
    made = 0
    for first in range(0, n, CHUNK):
        count = min(CHUNK, n - first)
        source = f"{title}, from {first}"
        if source not in done:
            rng = np.random.default_rng([seed, first])
            catalog, curves = simulate_sky(count, rng, cadence=cadence, first=first)
            store.append_objects(survey, catalog, curves, np.full(count, source))
            made += count
        if progress is not None:
            progress(first + count, n)
    facts: dict[str, object] = {"curves": n, "cadence": cadence, "seed": seed}
    store.note(survey, "simulate", facts)
    return made


def _one_curve(
    kind: str, days: float, minutes: float, settings: list[str], seed: int
) -> "pa.Table":
    # late: NumPy, SciPy and PyArrow would slow `--help` down
    import numpy as np
    import pyarrow as pa

    from skyvec.sim.lightcurves import simulate

    if not (days > 0 and minutes > 0):
        raise ValueError(f"--days ({days}) and --minutes ({minutes}) must be > 0")
    parameters: dict[str, float] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            parameters[name] = float(value)
        except ValueError:
            raise ValueError(f"--set {setting} must be NAME=NUMBER, such as period=3.2") from None
    time = np.arange(0.0, days, minutes / 1440)
    flux, _ = simulate(kind, time, np.random.default_rng(seed), **parameters)
    n = len(time)
    mjd = pa.array(60000 + time)
    return pa.table({"id": pa.array([kind] * n), "mjd": mjd, "flux": pa.array(flux)})
