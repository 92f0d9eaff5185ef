"""The command line: one command a stage. Each parses, calls, prints.

Heavy libraries (torch, Faiss, Matplotlib) are imported inside the commands that need them, so that
``skyvec --help`` answers at once.
"""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from skyvec import __version__
from skyvec.cli import (
    adapt,
    demo,
    index,
    labels,
    questions,
    realbogus,
    reasons,
    simulate,
    stages,
    sweep,
)
from skyvec.cli.recover import recover
from skyvec.cli.search import search

app = typer.Typer(
    name="skyvec",
    help="Short vectors for everything a sky survey measures.\n\n"
    "Files -> objects -> latents -> answers, all in one survey folder:\n\n"
    "\b\n"  # keeps the lines that follow apart
    "    skyvec ingest *_lc.fits --survey tess\n"
    "    skyvec train default --survey tess --name first\n"
    "    skyvec encode first --survey tess\n"
    "    skyvec outliers --survey tess --model first\n"
    "    skyvec report --survey tess --model first\n\n"
    "No data at hand? `skyvec demo --out demo` makes a sky and does it all.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"skyvec {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it, end."),
    ] = False,
) -> None:
    """Hold the options that belong to no command."""


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "ingest": (stages.ingest, "data/*_lc.fits.gz --survey tess"),
    "train": (stages.train, "default --survey tess --name first"),
    "sweep": (sweep.sweep, "galaxies_residual --survey sdss --widths 8,16,40"),
    "adapt": (adapt.adapt, "first --source sdss --target decals --pairs 1"),
    "encode": (stages.encode, "first --survey tess"),
    "search": (search, "'TIC 29779873' --survey tess --model first -k 5"),
    "outliers": (questions.outliers, "--survey tess --model first -n 20 --format csv"),
    "cluster": (questions.cluster, "--survey tess --model first"),
    "map": (questions.map_, "--survey tess --model first --out map.parquet"),
    "probe": (labels.probe, "--survey tess --model first --label label"),
    "spread": (labels.spread, "--survey tess --model first --label label --out classes.csv"),
    "agree": (reasons.agree, "--survey tess --model first --sample 2000"),
    "explain": (reasons.explain, "'TIC 29779873' --survey tess --model first"),
    "audit": (reasons.audit, "--survey tess --model first --column tmag"),
    "report": (questions.report, "--survey tess --model first"),
    "simulate": (simulate.simulate, "cepheid --set period=5 --out query.csv"),
    "recover": (recover, "louver --survey tess --model first --grid depth=10,30,100"),
    "publish": (index.publish, "--survey tess --out tess_hats"),
    "info": (stages.info, "tess --format json"),
    "demo": (demo.demo, "--out demo"),
}
"""Every command in the order of the river, with an example for its help."""

for name, (command, example) in COMMANDS.items():
    app.command(name, epilog=f"Example:  skyvec {name} {example}")(command)
app.add_typer(index.app, name="index")
app.add_typer(realbogus.app, name="realbogus")


def main() -> None:
    """Run the program named ``skyvec``."""
    # threads that wait for each other sleep instead of spinning: where other programs want the
    # same cores, spinning makes training tens of times slower. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
