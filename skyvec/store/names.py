"""The names of every folder and file of a survey."""

from pathlib import Path

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SURVEY_FILE = "survey.toml"
TEMPORARY = ".writing-"


class StoreError(ValueError):
    """A survey folder is missing, foreign, damaged or of another version."""


def objects_folder(survey: Path) -> Path:
    """Folder of the object shards."""
    return survey / "objects"


def rejects_folder(survey: Path) -> Path:
    """Folder of the tables of what could not be taken."""
    return survey / "rejects"


def model_folder(survey: Path, name: str) -> Path:
    """Folder of one trained model."""
    return survey / "models" / _plain(name)


def latents_folder(survey: Path, name: str) -> Path:
    """Folder of the latents one model made."""
    return survey / "latents" / _plain(name)


def index_folder(survey: Path, name: str) -> Path:
    """Folder of the index of one model's latents."""
    return survey / "index" / _plain(name)


def answers_folder(survey: Path, verb: str, name: str) -> Path:
    """Folder of one answer, made if it is not there."""
    folder = survey / "answers" / f"{verb}-{_plain(name)}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _plain(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise StoreError(f"{name!r} cannot name a folder; use letters, digits, '-', '_' and '.'")
    return name


def model_names(survey: Path) -> list[str]:
    """Names of the models with latents, in alphabetical order."""
    folder = survey / "latents"
    return (
        sorted(p.name for p in folder.iterdir() if (p / MANIFEST).exists())
        if folder.is_dir()
        else []
    )


def shard_name(number: int) -> str:
    """File name of the shard of a given number."""
    return f"part-{number:05d}.parquet"
