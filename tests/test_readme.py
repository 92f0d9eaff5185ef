"""Contract: what the README tells a reader to type is understood, and its twelve lines run."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from foreign_files import tess_file

from skyvec import checkpoint
from skyvec.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"^skyvec .*$", README, re.MULTILINE)


@pytest.mark.usefixtures("one_thread")
def test_the_twelve_lines_run(tmp_path, monkeypatch, capsys):
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "data" / "tess").mkdir(parents=True)
    for tic in range(1, 31):
        tess_file(tmp_path / "data" / "tess" / f"{tic}_lc.fits", tic=tic)
    read = checkpoint.read_recipe

    def shorter(recipe):
        tables = read(recipe)
        return tables | {"train": tables["train"] | {"steps": 2, "batch": 8}}

    monkeypatch.setattr(checkpoint, "read_recipe", shorter)
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, "README.md", "exec"), {})
    assert "TIC" in capsys.readouterr().out


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line):
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words, resilient_parsing=False)
