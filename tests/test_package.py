"""Contract: what the package needs at run time is installed with it."""

import tomllib
from pathlib import Path

import pytest

from skyvec.recipes import find_recipe, recipe_names

ROOT = Path(__file__).parents[1]


def test_every_file_that_is_no_code_is_named_as_data_of_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["skyvec"]
    package = ROOT / "skyvec"
    named = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix != ".py"}
    assert {path for path in files if "__pycache__" not in path.parts} == named


def test_a_recipe_is_found_by_name_or_by_path(tmp_path):
    assert "default" in recipe_names() and "simple" in recipe_names("realbogus")
    assert find_recipe("default").read_text() == find_recipe("default.toml").read_text()
    (tmp_path / "mine.toml").write_text("")
    assert find_recipe(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"
    with pytest.raises(ValueError, match=r"no recipe 'simple': .* nor one of article, .*default"):
        find_recipe("simple")
