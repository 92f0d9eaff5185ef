"""The recipes that come with skyvec: one short TOML a result, found by its name."""

from pathlib import Path

FOLDER = Path(__file__).parent


def recipe_names(group: str = "") -> list[str]:
    """Names of the recipes that come with skyvec, in alphabetical order.

    Args:
        group: Folder of theirs, such as ``realbogus``; none for those of ``skyvec train``.
    """
    return sorted(path.stem for path in (FOLDER / group).glob("*.toml"))


def find_recipe(recipe: str, group: str = "") -> Path:
    """Give the file of a recipe.

    Args:
        recipe: A path, or the name of a recipe that comes with skyvec.
        group: As of :func:`recipe_names`.

    Raises:
        ValueError: There is none; the message names those there are.
    """
    if Path(recipe).is_file():
        return Path(recipe)
    names, name = recipe_names(group), recipe.removesuffix(".toml")
    if name not in names:
        raise ValueError(
            f"no recipe {recipe!r}: it is neither a file nor one of {', '.join(names)}"
        )
    return FOLDER / group / f"{name}.toml"
