"""Made-up curves and skies from the command line."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyvec.cli.terminal import Bar, Format, bar, guarded, say, show

if TYPE_CHECKING:
    import pyarrow as pa

    from skyvec.sim.signals import Signal

STAMPS = 5000
"""Detections simulated and stored at a time; as CHUNK part of the result."""

CHUNK = 500
"""Light curves drawn and stored at a time; part of the result, as each chunk has its own seed."""


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
    nights, with the truth (column is_real) and labels; --set reals=0.1, noise=0.05 and observed=1
    say how many are real, how many labels are wrong, and that new stars are no artificial ones.
    Made again it goes on where it was stopped.
    """
    if kind == "stamps":
        if survey is None:
            raise ValueError("stamps go into a survey; name its folder with --survey DIR")
        options = _numbers(settings or [], {"reals": 0.1, "noise": 0.0, "observed": 0.0})
        with bar("simulating") as progress:
            made = stamps(
                survey,
                n,
                reals=options["reals"],
                noise=options["noise"],
                observed=bool(options["observed"]),
                seed=seed,
                progress=progress,
            )
        say(f"{made:,} stamps made now, {n:,} in {survey}")
        return
    if kind == "galaxies":
        if survey is None:
            raise ValueError("galaxies go into a survey; name its folder with --survey DIR")
        with bar("simulating") as progress:
            made = galaxies(survey, n, pair=pair, seed=seed, progress=progress)
        say(f"{made:,} images made now of {n:,} galaxies in {survey}")
        return
    if pair is not None:
        raise ValueError(f"--pair is for galaxies, not for {kind}")
    if like is not None:
        show(_curves_like(survey, like, kind, settings or [], draws, into, seed), form, out)
        return
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


def galaxies(
    survey: Path,
    n: int,
    *,
    pair: Path | None = None,
    seed: int = 0,
    progress: Bar | None = None,
) -> int:
    """Simulate galaxies into a survey, and as another telescope sees them into a second one.

    Chunk by chunk; chunks that are there are not made again. The same galaxy has the same target
    in both surveys.

    Returns:
        How many images were made now.

    Raises:
        ValueError: Both surveys are the same folder.
        StoreError: A survey holds other objects.
        ModuleNotFoundError: GalSim is not installed.
    """
    # late: NumPy, SciPy and PyArrow would slow `--help` down
    import numpy as np

    from skyvec import store
    from skyvec.sim.galaxies import TELESCOPES, simulate_galaxies

    folders = [survey] if pair is None else [survey, pair]
    if pair is not None and survey.resolve() == pair.resolve():
        raise ValueError(f"--survey and --pair are both {survey}; name two folders")
    telescopes = list(TELESCOPES.values())[: len(folders)]
    done = []
    for folder, telescope in zip(folders, telescopes):
        store.create_survey(folder)
        done.append(store.finished_items(folder))
        title = _galaxies_title(n, telescope.name, seed)
        if foreign := sorted(source for source in done[-1] if not source.startswith(title)):
            raise store.StoreError(
                f"{folder} holds other objects already ({foreign[0]}); simulate into a new folder"
            )
    made = 0
    for first in range(0, n, CHUNK):
        count = min(CHUNK, n - first)
        sources = [f"{_galaxies_title(n, t.name, seed)}, from {first}" for t in telescopes]
        if any(source not in known for source, known in zip(sources, done)):
            rng = np.random.default_rng([seed, first])
            seen = simulate_galaxies(count, rng, telescopes=telescopes, first=first)
            for folder, source, known, (catalog, images) in zip(folders, sources, done, seen):
                if source not in known:
                    store.append_objects(folder, catalog, images, np.full(count, source))
                    made += count
        if progress is not None:
            progress(first + count, n)
    for folder, telescope in zip(folders, telescopes):
        facts: dict[str, object] = {
            "galaxies": n,
            "telescope": telescope.name,
            "pixel_scale": telescope.pixel_scale,
            "seeing": telescope.seeing,
            "seed": seed,
        }
        store.note(folder, "simulate", facts)
    return made


def stamps(
    survey: Path,
    n: int,
    *,
    reals: float = 0.1,
    noise: float = 0.0,
    observed: bool = False,
    seed: int = 0,
    progress: Bar | None = None,
) -> int:
    """Simulate detections into a survey, chunk by chunk; chunks that are there are not made again.

    Args:
        survey: Its folder.
        n: Detections.
        reals: Fraction that is real.
        noise: Fraction of each class that is labelled wrong (column ``label``).
        observed: Whether new stars are seen through the true point-spread function of their place.
        seed: Another seed, another survey; the camera is always the same.
        progress: Called with detections made and in all.

    Returns:
        How many were made now.

    Raises:
        ValueError: A fraction is not in [0, 1].
        StoreError: The survey holds other objects.
    """
    # late: NumPy, SciPy and PyArrow would slow `--help` down
    from dataclasses import replace

    import numpy as np

    from skyvec import store
    from skyvec.sim.stamps import flip_labels, simulate_stamps

    for name, value in (("reals", reals), ("noise", noise)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is a fraction in [0, 1], not {value:g}")
    store.create_survey(survey)
    title = f"simulated stamps, {n}, reals {reals:g}, noise {noise:g}, {observed=}, seed {seed}"
    done = store.finished_items(survey)
    if foreign := sorted(source for source in done if not source.startswith(title)):
        raise store.StoreError(
            f"{survey} holds other objects already ({foreign[0]}); simulate into a new folder"
        )
    made = 0
    for first in range(0, n, STAMPS):
        count = min(STAMPS, n - first)
        source = f"{title}, from {first}"
        if source not in done:
            rng = np.random.default_rng([seed, first])
            # rounded so that the parts add up to the fraction of the whole
            n_real = round(reals * (first + count)) - round(reals * first)
            key = f"sim{seed}{'o' if observed else ''}.{first}"
            drawn, truth = simulate_stamps(
                n_real, count - n_real, rng, observed=observed, name=key
            )
            given = flip_labels(truth.columns["is_real"], noise, noise, rng)
            columns = {k: v for k, v in truth.columns.items() if k not in store.STAMP_COLUMNS}
            columns["label"] = np.where(given, "real", "bogus")
            full = replace(truth, columns=columns)
            store.append_objects(survey, full, drawn, np.full(count, source))
            made += count
        if progress is not None:
            progress(first + count, n)
    facts: dict[str, object] = {"stamps": n, "reals": reals, "noise": noise, "seed": seed}
    store.note(survey, "simulate", {**facts, "observed": observed})
    return made


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


def _galaxies_title(n: int, telescope: str, seed: int) -> str:
    return f"simulated galaxies, {n}, {telescope}, seed {seed}"


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
