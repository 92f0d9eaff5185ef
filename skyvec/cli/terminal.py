"""What every command shares: one-line errors, progress on standard error, tables on output."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from skyvec.recipes import recipe_names

if TYPE_CHECKING:
    import pyarrow as pa

    from skyvec.train import Progress as Training

P = ParamSpec("P")
USER_ERRORS = (ValueError, LookupError, OSError, ImportError)
INTERRUPTED = 128 + signal.SIGINT

Survey = Annotated[
    Path, typer.Option("--survey", "-s", help="Folder of the survey.", show_default=False)
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="table, json, csv, votable or parquet; from the ending of --out if not given.",
        show_default=False,
    ),
]
Recipe = Annotated[
    str,
    typer.Argument(
        help=f"A TOML file, or one that comes along: {', '.join(recipe_names())}.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Whose vectors to ask.", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)]
Threads = Annotated[int, typer.Option(help="Threads; 0 = as many as torch likes.", min=0)]
Device = Annotated[str, typer.Option(help="cpu, or a device of torch such as cuda.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File to write instead of printing.", show_default=False),
]


def say(text: str, *, style: str = "") -> None:
    """Write a line to standard error, where it never mixes with an answer."""
    Console(stderr=True, highlight=False, markup=False).print(text, style=style, soft_wrap=True)


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a user can cause into one red line and an exit code.

    Bad input, a missing file or a full disk ends with 1, Ctrl-C with 130. Anything else is a
    fault of skyvec and keeps its traceback.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            say("stopped; what is finished is kept, run the same command again to go on")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # the reader of our output has gone (`| head`); keep the interpreter from
            # complaining when it flushes standard output at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except USER_ERRORS as error:
            say(f"error: {_message(error)}", style="bold red")
            raise typer.Exit(1) from None

    return run


def _message(error: BaseException) -> str:
    """Give an error in one line; a KeyError's own text would come in quotes."""
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}"
    if isinstance(error, UnicodeError):  # its first argument is but the name of the code
        return str(error)
    text = str(error.args[0]) if error.args else type(error).__name__
    return " ".join(text.split())


class Bar:
    """A progress bar that stages call with what is done, what there is, and a word on it."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None)

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that ``done`` of ``total`` (None = unknown) is done."""
        self._progress.update(self._task, completed=done, total=total, note=note)

    def follow(self, state: "Training") -> None:
        """Show where a training stands."""
        note = f"loss {state.loss:.4f}  validation {state.valid:.4f}  best {state.best:.4f}"
        self(state.step, state.steps, note)


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """Show a progress bar on standard error; nothing where that is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    with progress:
        yield Bar(progress, title)


def show(table: "pa.Table", form: str | None, out: Path | None) -> None:
    """Print an answer, or write it to a file, in the form asked for.

    Raises:
        ValueError: An unknown form, or Parquet to a terminal.
    """
    from skyvec.report import tables  # late: astropy and pyarrow would slow `--help` down

    form = tables.choose_format(form, out)
    if out is not None:
        tables.save(table, out, form)
        say(f"wrote {table.num_rows:,} rows to {out}")
        return
    if form == "parquet" and sys.stdout.isatty():
        raise ValueError("Parquet is not for a terminal; give --out FILE or another --format")
    width = Console().width if sys.stdout.isatty() else 200
    sys.stdout.buffer.write(tables.render(table, form, width=width))
    sys.stdout.flush()


def mention_graph(survey: Path, model: str, k: int) -> None:
    """Say what would spare a large survey the comparison of all with all."""
    from skyvec.report.stored import is_slow

    if is_slow(survey, model, k):
        say(
            "all are compared with all, which may take hours; with `skyvec index build` and "
            f"`skyvec index graph -k {max(k, 15)}` it takes minutes"
        )
