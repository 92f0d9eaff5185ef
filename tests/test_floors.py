"""No file may import from a floor above its own, and only some rooms may know torch."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "skyvec"
FLOORS = [  # ground first; a room may import rooms on floors below, and files of its own room
    {"schema", "photometry", "sky", "nn", "cluster", "recipes"},
    {"store", "io", "sim", "prep", "models", "index"},
    {"ingest", "simulate", "publish", "batches", "checkpoint", "analysis"},
    {"train", "encode", "indexing"},
    {"realbogus", "catalogues"},
    {"serve", "night", "studies", "report"},
    {"cli"},
]
TORCH = {
    "nn",
    "models",
    "batches",
    "checkpoint",
    "train",
    "encode",
    "realbogus",
    "studies",
    "night",
}
NEVER = {("models", "schema"), ("models", "sky"), ("models", "photometry")}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def broken(package=PACKAGE, floors=FLOORS, torch=TORCH, name="skyvec"):
    floor = {room: i for i, rooms in enumerate(floors, 1) for room in rooms}
    for path in package.rglob("*.py"):
        here = path.relative_to(package).parts[0].removesuffix(".py")
        if here not in floor and here != "__init__":
            yield f"{path}: no floor for the room {here!r}"
        for target in imported(path):
            parts = target.split(".")
            if parts[0] == "torch" and here not in torch:
                yield f"{path}: {here} may not know torch"
            if here == "__init__" or parts[0] != name or len(parts) < 2:
                continue
            there = parts[1]
            climbs = there in floor and floor[there] >= floor.get(here, 0)
            if there != here and (climbs or (here, there) in NEVER):
                yield f"{path}: {here} may not import {there}"


def test_floors():
    assert list(broken()) == []


def test_the_floors_test_can_fail(tmp_path):
    (tmp_path / "sim").mkdir()
    (tmp_path / "sim" / "skies.py").write_text("import torch\nfrom skyvec.train import train\n")
    assert len(list(broken(tmp_path))) == 2


def test_import_is_light_and_knows_no_torch():
    code = (
        # of the processor: how long others make it wait says nothing about us
        "import time; t = time.process_time(); import skyvec, sys; "
        "assert 'torch' not in sys.modules; print(time.process_time() - t)"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    assert min(runs) < 1.0
