"""A survey as a whole: made, checked, described."""

import json
import tomllib
from pathlib import Path
from typing import Any

from skyvec.store.files import write_text
from skyvec.store.manifests import read_manifest
from skyvec.store.names import SCHEMA_VERSION, SURVEY_FILE, TEMPORARY, StoreError, objects_folder


def create_survey(survey: Path, *, name: str = "") -> None:
    """Make a survey folder, or leave it as it is where there is one.

    Raises:
        StoreError: The folder exists, is not empty and is no survey.
    """
    if (survey / SURVEY_FILE).exists():
        return
    if survey.is_dir() and any(p for p in survey.iterdir() if not p.name.startswith(TEMPORARY)):
        raise StoreError(f"{survey} exists, is not empty and is no survey; choose another folder")
    if survey.exists() and not survey.is_dir():
        raise StoreError(f"{survey} is a file; a survey is a folder")
    title = json.dumps(name or survey.resolve().name)
    write_text(survey / SURVEY_FILE, f"name = {title}\nschema = {SCHEMA_VERSION}\n")


def check_survey(survey: Path) -> None:
    """Make sure that a folder is a survey.

    Raises:
        StoreError: It is not; the message says what to do.
    """
    if not (survey / SURVEY_FILE).exists():
        raise StoreError(
            f"{survey} is no survey (no {SURVEY_FILE}); make one with `skyvec ingest`"
        )


def note(survey: Path, title: str, facts: dict[str, object]) -> None:
    """Add a table to survey.toml that says how a part was made; the same note is kept once.

    Args:
        survey: The survey's folder.
        title: Name of the list of tables, such as ``ingest``.
        facts: Plain values: strings, numbers, booleans and lists of them.
    """
    path = survey / SURVEY_FILE
    lines = [f"\n[[{title}]]"] + [f"{key} = {json.dumps(value)}" for key, value in facts.items()]
    entry = "\n".join(lines) + "\n"
    text = path.read_text(encoding="utf-8")
    if entry not in text:
        write_text(path, text + entry)


def read_notes(survey: Path, title: str) -> list[dict[str, Any]]:
    """The notes of a title in survey.toml, oldest first.

    Args:
        survey: The survey's folder.
        title: Name of the list of tables, such as ``ingest``.

    Raises:
        StoreError: The file is no TOML any more.
    """
    try:
        text = (survey / SURVEY_FILE).read_text(encoding="utf-8")
        return list(tomllib.loads(text).get(title, []))
    except tomllib.TOMLDecodeError as error:
        raise StoreError(f"{survey / SURVEY_FILE} is not readable: {error}") from error


def object_shards(survey: Path) -> list[dict[str, Any]]:
    """Manifest entries of the object shards, in the order they were written."""
    check_survey(survey)
    return read_manifest(objects_folder(survey))["shards"]


def survey_kind(survey: Path) -> str:
    """What the survey holds: ``lightcurves``, ``images`` or ``stamps``."""
    return str(read_manifest(objects_folder(survey)).get("kind", "lightcurves"))


def survey_shape(survey: Path) -> tuple[int, ...]:
    """Shape of one image of the survey (band, y, x), or of one stamp; empty for light curves."""
    return tuple(read_manifest(objects_folder(survey)).get("shape", ()))


def survey_bands(survey: Path) -> tuple[str, ...]:
    """Names of all bands of the survey; band codes refer to them."""
    return tuple(read_manifest(objects_folder(survey)).get("bands", []))
