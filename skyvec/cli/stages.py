"""The stages of the river as commands: ingest, train, encode, info."""

import sys
from pathlib import Path
from typing import Annotated, Any

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

MOST_REASONS = 5


@guarded
def ingest(
    sources: Annotated[
        list[Path], typer.Argument(help="Files of objects, and folders that stand for theirs.")
    ],
    survey: Survey,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            "-c",
            help="Of tables: ROLE=NAME, such as hjd=HJD, mag=V, err=e_V, id=star; again for more.",
            show_default=False,
        ),
    ] = None,
    value: Annotated[
        str, typer.Option(help="Of tables: mag or flux, with a unit if known: 'flux (nJy)'.")
    ] = "",
    time_format: Annotated[
        str, typer.Option(help="Of tables: MJD, JD, JD-2450000, BTJD, ...; guessed if not given.")
    ] = "",
    time_scale: Annotated[str, typer.Option(help="Of tables: UTC, TAI, TT or TDB.")] = "",
    bands: Annotated[
        str,
        typer.Option(help="Names of a table's band codes or an image's planes, such as g,r,i."),
    ] = "",
    flux_column: Annotated[
        str, typer.Option(help="Of TESS and Kepler files: pdcsap, sap or a column.")
    ] = "pdcsap",
    quality: Annotated[
        str,
        typer.Option(help="Of TESS and Kepler files: none, default, hard, hardest or bits."),
    ] = "default",
    max_points: Annotated[
        int, typer.Option(help="Refuse a curve with more points; 0 = two million.", min=0)
    ] = 0,
    catalog: Annotated[
        Path | None,
        typer.Option(
            help="Of images: table of ids or file names, labels and positions.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(help="Of images, stamps: keep the central N x N pixels; 0 = all.", min=0)
    ] = 0,
    cut: Annotated[
        bool, typer.Option("--cut", help="Of mosaics: cut out the objects of the catalogue.")
    ] = False,
    prefix: Annotated[
        str,
        typer.Option(
            help="Put before every id, as 'OGLE ' where catalogues number their objects alike; "
            "{file} in it stands for a file's name."
        ),
    ] = "",
    workers: Annotated[int, typer.Option(help="Processes that read files.", min=1)] = 1,
) -> None:
    """Read files into a survey: light curves, images of objects, or stamps of detections.

    Light curves come in TESS and Kepler FITS, Parquet, CSV, ECSV, VOTable and HATS
    catalogues; images in FITS, JPEG, PNG, and as tensors in Parquet and HDF5; stamps in
    alert packets (Avro: ZTF, LSST, WINTER), and as triplets in Parquet, NumPy and FITS.

    What cannot be taken becomes a row in rejects/ with its reason; a file of which nothing could
    is tried again when it, or an option, has changed. Run again it goes on where it was stopped;
    more files can be added at any time.
    """
    # late: Astropy and PyArrow would slow `--help` down
    from skyvec.ingest import ingest as ingest_files
    from skyvec.io.segments import MAX_POINTS
    from skyvec.report.facts import is_not_linear, reject_reasons
    from skyvec.store import read_rejects

    with bar("ingesting") as progress:
        counts = ingest_files(
            survey,
            sources,
            flux_column=flux_column,
            quality=int(quality) if quality.isdigit() else quality,
            columns=_pairs(columns or []),
            time=f"{time_format} {time_scale}".strip(),
            values=value,
            bands=[band.strip() for band in bands.split(",") if band.strip()],
            max_points=max_points or MAX_POINTS,
            catalog=catalog,
            size=size,
            cut=cut,
            prefix=prefix,
            workers=workers,
            progress=progress,
        )
    say(
        f"{counts.items:,} objects in: {counts.segments:,} stored "
        f"({counts.new_segments:,} now) of {counts.objects:,} targets, "
        f"{counts.rejects:,} rejected ({counts.new_rejects:,} now)"
    )
    if counts.rejects:
        reasons = reject_reasons(read_rejects(survey))
        for reason, n in list(reasons.items())[:MOST_REASONS]:
            say(f"  {n:,}  {reason}")
        if len(reasons) > MOST_REASONS:
            say(f"  and {len(reasons) - MOST_REASONS:,} other reasons; see `skyvec info {survey}`")
    if counts.outside:
        say(
            f"warning: {counts.outside:,} objects of {catalog} lie in none of these mosaics, or "
            "have no position",
            style="yellow",
        )
    if counts.left:
        say(
            f"warning: {counts.left:,} files, or the options, have changed since some of their "
            "objects were stored and others rejected; these are left as they are. To read such "
            "a file anew, ingest it into a new survey",
            style="yellow",
        )
    if is_not_linear(survey):
        say(
            "warning: these are pictures of a viewer, not linear in flux: fluxes, colours and "
            "differences mean nothing; shapes do. Use FITS where you can",
            style="yellow",
        )


def _pairs(columns: list[str]) -> dict[str, str]:
    pairs = [column.partition("=") for column in columns]
    for column, (role, equals, name) in zip(columns, pairs):
        if not (role and equals and name):
            raise ValueError(f"--column {column} must be ROLE=NAME, such as mag=V")
    return {role: name for role, _, name in pairs}


@guarded
def train(
    recipe: Recipe,
    survey: Survey,
    name: Annotated[
        str, typer.Option("--name", help="Name of the model.", show_default=False)
    ] = "",
    threads: Threads = 0,
    device: Device = "cpu",
) -> None:
    """Train a model on the objects of a survey, without labels.

    Killed at any moment, it goes on where it was when run again, and ends with the same weights.
    """
    path = find_recipe(recipe)
    # late: torch would slow `--help` down
    from skyvec.batches import keep_memory
    from skyvec.checkpoint import read_recipe
    from skyvec.train import train as train_model

    keep_memory()
    with bar("training") as progress:
        folder = train_model(
            survey,
            read_recipe(path),
            name or path.stem,
            progress=progress.follow,
            threads=threads or None,
            device=device,
        )
    say(f"trained {folder}")


@guarded
def encode(
    name: Annotated[str, typer.Argument(help="Name of a trained model of the survey.")],
    survey: Survey,
    threads: Threads = 0,
    scheduler: Annotated[
        str | None,
        typer.Option(help="A Dask cluster: tcp://HOST:8786, or local.", show_default=False),
    ] = None,
    hats: Annotated[
        Path | None,
        typer.Option(
            help="Encode this HATS catalogue instead, with a model of the survey.",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", "-c", help="Of --hats: ROLE=NAME, as in ingest.", show_default=False
        ),
    ] = None,
    time_format: Annotated[str, typer.Option(help="Of --hats: as in ingest.")] = "",
    value: Annotated[str, typer.Option(help="Of --hats: mag or flux, as in ingest.")] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Of --hats: folder to make.", show_default=False),
    ] = None,
) -> None:
    """Turn every object of a survey into its vector.

    Only what this model has not encoded yet is encoded; new objects can be added at any time. The
    names statistics and features stand for the two hand-crafted codes, which need no training.

    With --hats the light curves of a HATS catalogue are encoded partition by partition, and the
    vectors written as another one to --out. With --scheduler workers of a Dask cluster encode,
    which must see the same folders; the vectors are the same.
    """
    if (hats is None) != (out is None):
        raise ValueError("--hats and --out go together: what to encode, and where to write it")
    # late: torch would slow `--help` down
    if hats is not None and out is not None:
        from skyvec.catalogues import encode_hats
        from skyvec.store import model_folder

        options: dict[str, Any] = {
            "columns": _pairs(columns or []),
            "time": time_format,
            "values": value,
        }
        with bar("encoding") as progress:
            rows, refused = encode_hats(
                model_folder(survey, name),
                hats,
                out,
                scheduler=scheduler,
                progress=progress,
                **options,
            )
        say(f"{rows:,} rows in {out}; {refused:,} of them refused, see their column `reject`")
        return
    from skyvec.encode import encode as encode_survey
    from skyvec.store import latents_folder

    with bar("encoding") as progress:
        done = encode_survey(
            survey, name, progress=progress, threads=threads or None, scheduler=scheduler
        )
    say(f"encoded {done:,} segments now; the vectors lie in {latents_folder(survey, name)}")


@guarded
def info(
    survey: Annotated[Path, typer.Argument(help="Folder of the survey.")],
    form: Format = None,
    out: Out = None,
) -> None:
    """Count what a survey holds: objects, segments, rejects and why, bands, models, latents."""
    # late: PyArrow would slow `--help` down
    import json

    from skyvec.report import facts, tables
    from skyvec.store import write_text

    found = facts.survey_facts(survey)
    if tables.choose_format(form, out) == "json":
        text = json.dumps(found, indent=1) + "\n"
        if out is None:
            sys.stdout.write(text)
        else:
            write_text(out, text)
        return
    show(facts.facts_table(found), form, out)
