"""A survey on disk: the single author of every file name, and of whole-or-not-at-all writing.

    mysurvey/
      survey.toml          name, schema version, how each part was made
      objects/             Parquet shards, one row a segment: light curves as nested lists, images
                           and stamps as little-endian bytes with their shape in the metadata
      rejects/             what ingest could not take: source, row, reason
      models/NAME/         recipe.toml, weights.safetensors, scores.json
      latents/NAME/        Parquet shards: id, target, ra, dec, latent, error
      index/NAME/          the neighbour index
      answers/VERB-NAME/   tables, pictures, recipe

Shards become visible by one rename and count only once their folder's ``manifest.json`` names
them; the manifest itself is replaced by one rename too. A stage that was killed leaves at most
unlisted files, which the next run removes. Only one process at a time writes a folder (``lock``).
Every function takes the survey's folder first.

A survey holds objects of one kind: light curves, images of one shape, or stamps of one shape.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyvec.schema import (
    FLUX_UNIT_RELATIVE,
    Catalog,
    Images,
    Latents,
    LightCurves,
    Reject,
    Stamps,
)

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SURVEY_FILE = "survey.toml"
TEMPORARY = ".writing-"

Objects = LightCurves | Images | Stamps
Kind = TypeVar("Kind", LightCurves, Images, Stamps)
KINDS: dict[str, type] = {"lightcurves": LightCurves, "images": Images, "stamps": Stamps}
"""What a survey can hold, by the name its manifest and the models give to it."""

CURVE_COLUMNS = ("mjd", "flux", "flux_err", "band")
PIXEL_COLUMNS = ("pixels", "pixels_err")
STAMP_COLUMNS = ("detector", "exposure", "object")
LIGHT_COLUMNS = CURVE_COLUMNS + PIXEL_COLUMNS
"""The heavy columns: everything else of a shard is its catalogue."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems say that know no locks; there nobody is kept out."""

GROUP_BYTES = 1 << 22
"""Images are written in row groups of about so many bytes, so that a few can be read alone."""

PLACE_COLUMNS = ("id", "target", "ra", "dec")
"""Every catalogue begins with them."""


class StoreError(ValueError):
    """A survey folder is missing, foreign, damaged or of another version."""


# --- names ------------------------------------------------------------------------------------


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


# --- whole or not at all ----------------------------------------------------------------------


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it into place.

    Args:
        path: Where the finished file shall stand; its folder is made if needed.
        write: Called with the temporary path; must write the whole file there.

    Raises:
        OSError: The disk is full or not writable; nothing is visible at ``path`` then, and what
            stood there before still does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file whole or not at all."""
    rows = None
    names = [name for name in table.column_names if name not in PIXEL_COLUMNS]
    if "pixels" in table.column_names:
        rows = max(1, GROUP_BYTES // max(1, table.schema.field("pixels").type.byte_width))

    def write(temporary: Path) -> None:
        pq.write_table(
            table, temporary, compression="zstd", use_dictionary=names, row_group_size=rows
        )

    write_atomic(path, write)


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- one writer at a time ----------------------------------------------------------------------


@contextmanager
def lock(folder: Path, task: str) -> Iterator[None]:
    """Keep other processes from writing a folder while this one does.

    The system gives the lock back when the process ends, however it ends. A file
    ``.lock-FOLDER`` beside the folder says who holds it, and is removed at the end.

    Args:
        folder: What is written; need not be there yet.
        task: The command in words, for the message to others: ``ingest``.

    Raises:
        StoreError: Another process writes there; the message says which, and since when.
    """
    path = folder.parent / f".lock-{folder.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, folder) as file:
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        file.truncate(0)
        file.write(f"skyvec {task} (process {os.getpid()} on {platform.node()}, since {now})")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, folder: Path) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read() or "skyvec"
            file.close()
            raise StoreError(
                f"another {who} is writing {folder}; wait until it has ended, then run again"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # whoever held it has just removed the file that was opened here


# --- the manifest -----------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    """Give a folder's manifest; an empty one (no shards) where there is none yet.

    Raises:
        StoreError: The manifest was written by another schema version.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {"schema": SCHEMA_VERSION, "shards": []}
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("schema") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {manifest.get('schema')}, this skyvec reads {SCHEMA_VERSION}; "
            "make the survey again with this version"
        )
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Replace a folder's manifest by one rename."""
    write_json(folder / MANIFEST, manifest)


def clean(folder: Path, *, listed_in: Path | None = None) -> int:
    """Remove what a killed run left behind: temporary files and shards no manifest names.

    Args:
        folder: Where to clean.
        listed_in: Folder whose manifest names the shards; by default the same one. The shards of
            ``rejects/`` are named in that of ``objects/``.

    Returns:
        How many files were removed.
    """
    if not folder.is_dir():
        return 0
    listed = {shard["file"] for shard in read_manifest(listed_in or folder)["shards"]}
    stray = [
        path
        for path in folder.iterdir()
        if path.name.startswith(TEMPORARY)
        or (path.name.startswith("part-") and path.name not in listed)
    ]
    for path in stray:
        path.unlink()
    return len(stray)


def shard_name(number: int) -> str:
    """File name of the shard of a given number."""
    return f"part-{number:05d}.parquet"


# --- the survey -------------------------------------------------------------------------------


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


# --- objects ----------------------------------------------------------------------------------


def append_objects(
    survey: Path,
    catalog: Catalog,
    objects: Objects,
    source: np.ndarray,
    rejects: Iterable[Reject] = (),
) -> None:
    """Add one shard of objects, with what was rejected on the way, in one step.

    Args:
        survey: The survey's folder.
        catalog: One row a segment; may be empty.
        objects: The same segments in the same order: light curves, whose band codes refer to
            ``objects.bands``, images or stamps.
        source: The file each segment came from, shape (n,).
        rejects: What could not be taken since the shard before.

    Raises:
        StoreError: The survey holds objects of another kind or, of images, of another shape, in
            other bands or of another pixel scale.
    """
    folder = objects_folder(survey)
    manifest = read_manifest(folder)
    if any(shard["rows"] for shard in manifest["shards"]):
        manifest.setdefault("kind", "lightcurves")  # what all surveys held before images came
    if len(objects):
        for name, value in _promises(objects).items():
            if manifest.setdefault(name, value) != value:
                raise StoreError(
                    f"{survey} holds objects of {name} {manifest[name]}, these are of {value}; "
                    "put them into another survey"
                )
    bands: list[str] = manifest.setdefault("bands", [])
    if not isinstance(objects, Stamps):
        bands += [band for band in objects.bands if band not in bands]
    file = shard_name(len(manifest["shards"]))
    rejected = list(rejects)
    write_table(rejects_folder(survey) / file, _rejects_table(rejected))
    write_table(folder / file, _objects_table(catalog, objects, bands, source))
    manifest["shards"].append(
        {
            "file": file,
            "rows": len(catalog),
            "points": len(objects.mjd)
            if isinstance(objects, LightCurves)
            else objects.pixels.size,
            "rejects": len(rejected),
            "flux_unit": "" if isinstance(objects, Stamps) else objects.flux_unit,
            "sha256": sha256(folder / file),
        }
    )
    write_manifest(folder, manifest)


def _promises(objects: Objects) -> dict[str, Any]:
    """What must be the same for all objects of a survey."""
    kind = next(name for name, known in KINDS.items() if isinstance(objects, known))
    if isinstance(objects, LightCurves):
        return {"kind": kind}
    shape = {"kind": kind, "shape": list(objects.pixels.shape[1:])}
    if isinstance(objects, Stamps):
        return shape
    scale = None if np.isnan(objects.pixel_scale) else float(objects.pixel_scale)
    return {**shape, "bands": list(objects.bands), "pixel_scale": scale}


def survey_kind(survey: Path) -> str:
    """What the survey holds: ``lightcurves``, ``images`` or ``stamps``."""
    return str(read_manifest(objects_folder(survey)).get("kind", "lightcurves"))


def survey_shape(survey: Path) -> tuple[int, ...]:
    """Shape of one image of the survey (band, y, x), or of one stamp; empty for light curves."""
    return tuple(read_manifest(objects_folder(survey)).get("shape", ()))


def _rejects_table(rejects: list[Reject]) -> pa.Table:
    return pa.table(
        {
            "source": pa.array([r.source for r in rejects], pa.string()),
            "row": pa.array([r.row for r in rejects], pa.int64()),
            "id": pa.array([r.id for r in rejects], pa.string()),
            "reason": pa.array([r.reason for r in rejects], pa.string()),
        }
    )


def _objects_table(
    catalog: Catalog, objects: Objects, bands: Sequence[str], source: np.ndarray
) -> pa.Table:
    columns: dict[str, Any] = {
        "id": pa.array(catalog.id),
        "target": pa.array(catalog.target),
        "ra": pa.array(catalog.ra, pa.float64()),
        "dec": pa.array(catalog.dec, pa.float64()),
        "source": pa.array(source).dictionary_encode(),
    }
    if isinstance(objects, LightCurves):
        columns |= _curve_columns(objects, bands)
        metadata = {"flux_unit": objects.flux_unit}
    elif isinstance(objects, Images):
        columns |= _pixel_columns(objects.pixels, objects.flux_err)
        metadata = {"flux_unit": objects.flux_unit, "dtype": _narrow(objects.pixels).name}
    else:
        columns |= {name: pa.array(getattr(objects, name)) for name in STAMP_COLUMNS}
        columns |= _pixel_columns(objects.pixels, None)
        metadata = {"dtype": _narrow(objects.pixels).name}
    for name, column in catalog.columns.items():
        columns[name] = pa.array(column)
    if isinstance(objects, Images | Stamps):
        metadata["shape"] = json.dumps(objects.pixels.shape[1:])
    return pa.table(columns).replace_schema_metadata(metadata)


def _curve_columns(curves: LightCurves, bands: Sequence[str]) -> dict[str, pa.Array]:
    offsets = pa.array(curves.offsets, pa.int64())
    codes = np.array([bands.index(band) for band in curves.bands], np.int16)

    def nested(values: np.ndarray) -> pa.Array:
        return pa.LargeListArray.from_arrays(offsets, pa.array(values))

    return {
        "mjd": nested(curves.mjd),
        "flux": nested(curves.flux),
        "flux_err": nested(curves.flux_err),
        "band": nested(codes[curves.band] if len(codes) else curves.band),
    }


def _pixel_columns(pixels: np.ndarray, error: np.ndarray | None) -> dict[str, pa.Array]:
    """Bytes of each image; a list would take ten times as long to read."""
    columns = {"pixels": _as_bytes(pixels.astype(_narrow(pixels)))}
    return columns if error is None else {**columns, "pixels_err": _as_bytes(error)}


def _narrow(pixels: np.ndarray) -> np.dtype:
    """Bytes where they hold the pixels exactly, as those of JPEG and PNG do."""
    with np.errstate(invalid="ignore"):  # NaN is no byte, and the comparison says so
        is_exact = bool((pixels.astype(np.uint8) == pixels).all())
    return np.dtype(np.uint8 if is_exact else "<f4")


def _as_bytes(pixels: np.ndarray) -> pa.Array:
    width = int(np.prod(pixels.shape[1:])) * pixels.itemsize
    buffer = pa.py_buffer(np.ascontiguousarray(pixels).data)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(pixels), [None, buffer])


def _from_bytes(column: pa.ChunkedArray, shape: Sequence[int], dtype: str) -> np.ndarray:
    whole = pa.concat_arrays(column.chunks)
    count = int(np.prod(shape)) * len(whole)
    start = int(np.prod(shape)) * whole.offset
    flat = np.frombuffer(whole.buffers()[1] or b"", dtype)[start : start + count]
    return flat.reshape(len(whole), *shape).astype(np.float32)


def object_shards(survey: Path) -> list[dict[str, Any]]:
    """Manifest entries of the object shards, in the order they were written."""
    check_survey(survey)
    return read_manifest(objects_folder(survey))["shards"]


def survey_bands(survey: Path) -> tuple[str, ...]:
    """Names of all bands of the survey; band codes refer to them."""
    return tuple(read_manifest(objects_folder(survey)).get("bands", []))


@overload
def read_objects(survey: Path, file: str) -> tuple[Catalog, LightCurves]: ...
@overload
def read_objects(survey: Path, file: str, kind: type[Kind]) -> tuple[Catalog, Kind]: ...
def read_objects(survey: Path, file: str, kind: type[Any] = LightCurves) -> tuple[Catalog, Any]:
    """Read one shard of objects whole: a few tens of megabytes, or a few hundred of images.

    Args:
        survey: The survey's folder.
        file: Name of the shard.
        kind: The type of object wanted, of :mod:`skyvec.schema`.

    Raises:
        StoreError: The survey holds objects of another kind.
    """
    _check_kind(survey, kind)
    table = pq.read_table(objects_folder(survey) / file)
    catalog = _catalog(table)
    return catalog, _READ[kind](survey, table, catalog)


def _check_kind(survey: Path, kind: type) -> None:
    held = survey_kind(survey)
    if held not in KINDS or not issubclass(kind, KINDS[held]):
        wanted = next(name for name, known in KINDS.items() if known is kind)
        raise StoreError(f"{survey} holds {held}, not {wanted}; this question is for {wanted}")


def _curves(survey: Path, table: pa.Table, catalog: Catalog) -> LightCurves:
    first = table["mjd"].combine_chunks()
    return LightCurves(
        catalog.id,
        _offsets(first),
        _flat(first),
        _flat(table["flux"].combine_chunks()),
        _flat(table["flux_err"].combine_chunks()),
        _flat(table["band"].combine_chunks()),
        survey_bands(survey),
        (table.schema.metadata or {}).get(b"flux_unit", b"").decode(),
    )


def _images(survey: Path, table: pa.Table, catalog: Catalog) -> Images:
    manifest = read_manifest(objects_folder(survey))
    shape, bands = manifest["shape"], tuple(manifest["bands"])
    scale = manifest.get("pixel_scale") or float("nan")
    if not len(catalog):
        none = np.zeros((0, *shape), np.float32)
        return Images(catalog.id, none, bands, scale)
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    error = None
    if "pixels_err" in table.column_names:
        error = _from_bytes(table["pixels_err"], shape, "<f4")
    pixels = _from_bytes(table["pixels"], shape, facts["dtype"])
    return Images(catalog.id, pixels, bands, scale, facts["flux_unit"], error)


def _stamps(survey: Path, table: pa.Table, catalog: Catalog) -> Stamps:
    shape = read_manifest(objects_folder(survey))["shape"]
    if not len(catalog):
        none = catalog.id
        return Stamps(none, np.zeros((0, *shape), np.float32), none, none, none)
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    return Stamps(
        catalog.id,
        _from_bytes(table["pixels"], shape, facts["dtype"]),
        *(_strings(table[name]) for name in STAMP_COLUMNS),
    )


_READ: dict[type, Callable[[Path, pa.Table, Catalog], Objects]] = {
    LightCurves: _curves,
    Images: _images,
    Stamps: _stamps,
}


@overload
def iterate_objects(survey: Path) -> Iterator[tuple[str, Catalog, LightCurves]]: ...
@overload
def iterate_objects(survey: Path, kind: type[Kind]) -> Iterator[tuple[str, Catalog, Kind]]: ...
def iterate_objects(
    survey: Path, kind: type[Any] = LightCurves
) -> Iterator[tuple[str, Catalog, Any]]:
    """Read the survey shard by shard: file name, catalogue, objects.

    Raises:
        StoreError: The survey holds objects of another kind.
    """
    for shard in object_shards(survey):
        yield shard["file"], *read_objects(survey, shard["file"], kind)


def find_curves(survey: Path, ids: Sequence[str]) -> LightCurves:
    """Read the light curves of some segments, wherever they are stored.

    Args:
        survey: The survey's folder.
        ids: Keys wanted, m of them; each may be wanted once.

    Returns:
        The curves in the order asked for; ``relative`` where their flux units differ.

    Raises:
        KeyError: A segment is not there; the message names the first one missing.
    """
    parts, order = _find(survey, ids, LightCurves)
    units = {part.flux_unit for part in parts}
    together = LightCurves(
        np.concatenate([np.zeros(0, np.str_), *(part.id for part in parts)]),
        np.r_[0, np.cumsum([n for part in parts for n in part.lengths])].astype(np.int64),
        np.concatenate([part.mjd for part in parts] or [np.zeros(0)]),
        np.concatenate([part.flux for part in parts] or [np.zeros(0, np.float32)]),
        np.concatenate([part.flux_err for part in parts] or [np.zeros(0, np.float32)]),
        np.concatenate([part.band for part in parts] or [np.zeros(0, np.int16)]),
        survey_bands(survey),
        units.pop() if len(units) == 1 else FLUX_UNIT_RELATIVE,
    )
    return together.take(order)


def find_images(survey: Path, ids: Sequence[str]) -> Images:
    """Read the images of some segments, wherever they are stored, without reading the others.

    Args:
        survey: The survey's folder.
        ids: Keys wanted, m of them; each may be wanted once.

    Returns:
        The images in the order asked for; ``relative`` where their flux units differ, without
        errors where some have none.

    Raises:
        KeyError: A segment is not there; the message names the first one missing.
    """
    parts, order = _find(survey, ids, Images)
    if not parts:
        none = np.zeros((0, *survey_shape(survey)), np.float32)
        return Images(np.zeros(0, np.str_), none, survey_bands(survey))
    units = {part.flux_unit for part in parts}
    errors = [part.flux_err for part in parts if part.flux_err is not None]
    together = Images(
        np.concatenate([part.id for part in parts]),
        np.concatenate([part.pixels for part in parts]),
        parts[0].bands,
        parts[0].pixel_scale,
        units.pop() if len(units) == 1 else FLUX_UNIT_RELATIVE,
        np.concatenate(errors) if len(errors) == len(parts) else None,
    )
    return together.take(order)


def _find(survey: Path, ids: Sequence[str], kind: type[Kind]) -> tuple[list[Kind], np.ndarray]:
    """Objects of some segments in the order of the store, and the rows that put them in order."""
    _check_kind(survey, kind)
    wanted = np.array(list(ids), dtype=np.str_)
    parts: list[Any] = []
    for shard in object_shards(survey):
        path = objects_folder(survey) / shard["file"]
        rows = np.flatnonzero(np.isin(_strings(pq.read_table(path, columns=["id"])["id"]), wanted))
        if len(rows):
            table = _read_rows(path, rows)
            parts.append(_READ[kind](survey, table, _catalog(table)))
    found = np.concatenate([part.id for part in parts]) if parts else wanted[:0]
    missing = ~np.isin(wanted, found)
    if missing.any():
        raise KeyError(f"no segment {str(wanted[missing][0])!r} in {survey}")
    order = np.argsort(found, kind="stable")
    return parts, order[np.searchsorted(found[order], wanted)]


def _read_rows(path: Path, rows: np.ndarray) -> pa.Table:
    """Some rows of a shard; only the row groups that hold them are read."""
    with pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        first = np.concatenate([[0], np.cumsum(sizes)])
        groups = np.unique(np.searchsorted(first, rows, side="right") - 1)
        table = file.read_row_groups(groups.tolist())
    start = np.concatenate([np.arange(first[g], first[g + 1]) for g in groups])
    return table.take(pa.array(np.searchsorted(start, rows)))


def column_kinds(survey: Path) -> dict[str, str]:
    """Names of the columns of the catalogue, without id, target, ra, dec; ``text`` or ``number``.

    A survey may have many, and some are wide: name those you need to :func:`read_catalog`.
    """
    kinds: dict[str, str] = {}
    for shard in object_shards(survey):
        for field in pq.read_schema(objects_folder(survey) / shard["file"]):
            if field.name not in LIGHT_COLUMNS + PLACE_COLUMNS:
                kinds.setdefault(field.name, "text" if _is_text(field.type) else "number")
    return kinds


def read_catalog(survey: Path, columns: Sequence[str] | None = None) -> Catalog:
    """Read what is known of all segments of the survey apart from their light.

    Args:
        survey: The survey's folder.
        columns: Names of the columns wanted beside id, target, ra and dec; None = all there are.
            One that some shards lack is filled with NaN (numbers) or an empty string.

    Raises:
        StoreError: The survey has no column of that name.
    """
    files = [shard["file"] for shard in object_shards(survey)]
    wanted = list(column_kinds(survey)) if columns is None else columns
    if not files:
        if wanted:
            raise StoreError(f"no column {wanted[0]!r} in {survey}; it holds no objects")
        none = np.zeros(0)
        return Catalog(none.astype(np.str_), none.astype(np.str_), none, none)
    found = read_columns(survey, [*PLACE_COLUMNS, *wanted], files)
    return _catalog_of(found)


def read_columns(
    survey: Path, names: Sequence[str], files: Sequence[str]
) -> dict[str, np.ndarray]:
    """Read some columns of the catalogue from some object shards, one after another.

    A column that some of the shards lack is filled with NaN (numbers) or an empty string.

    Raises:
        StoreError: None of the shards has a column of that name.
    """
    paths = [objects_folder(survey) / file for file in files]
    known = [[n for n in pq.read_schema(path).names if n not in LIGHT_COLUMNS] for path in paths]
    everything = sorted({name for there in known for name in there})
    for name in names:
        if name not in everything:
            raise StoreError(f"no column {name!r} in {survey}; there are: {', '.join(everything)}")
    tables = [
        pq.read_table(path, columns=[name for name in names if name in there])
        for path, there in zip(paths, known)
    ]
    # a table without columns has no rows either, so a column of nulls stands for what is missing
    rows = [pq.read_metadata(path).num_rows for path in paths]
    tables = [
        table if table.column_names else pa.table({names[0]: pa.nulls(n)})
        for table, n in zip(tables, rows)
    ]
    table = pa.concat_tables(tables, promote_options="permissive")
    return {name: _column(table[name]) for name in names}


def read_rejects(survey: Path) -> pa.Table:
    """Read all that ingest could not take: source, row, id, reason."""
    folder = rejects_folder(survey)
    tables = [pq.read_table(folder / shard["file"]) for shard in object_shards(survey)]
    return pa.concat_tables(tables) if tables else _rejects_table([])


def finished_items(survey: Path) -> dict[str, int]:
    """How many items of each source file are already stored or rejected.

    Readers give the items of a file in a fixed order, so this count is where to go on.
    """
    done: dict[str, int] = {}
    folder = objects_folder(survey)
    for shard in object_shards(survey):
        for table in (
            pq.read_table(folder / shard["file"], columns=["source"]),
            pq.read_table(rejects_folder(survey) / shard["file"], columns=["source"]),
        ):
            for entry in table["source"].value_counts().to_pylist():
                done[entry["values"]] = done.get(entry["values"], 0) + entry["counts"]
    return done


def _strings(column: pa.ChunkedArray) -> np.ndarray:
    text = column.cast(pa.string())
    return np.array(text.fill_null("").to_pylist(), dtype=np.str_).reshape(len(column))


def _catalog(table: pa.Table) -> Catalog:
    names = [name for name in table.column_names if name not in LIGHT_COLUMNS]
    return _catalog_of({name: _column(table[name]) for name in names})


def _catalog_of(columns: dict[str, np.ndarray]) -> Catalog:
    own = {name: column for name, column in columns.items() if name not in PLACE_COLUMNS}
    return Catalog(columns["id"], columns["target"], columns["ra"], columns["dec"], own)


def _column(column: pa.ChunkedArray) -> np.ndarray:
    return _strings(column) if _is_text(column.type) else column.to_numpy()


def _is_text(kind: pa.DataType) -> bool:
    kinds = pa.types
    return kinds.is_dictionary(kind) or kinds.is_string(kind) or kinds.is_large_string(kind)


def _offsets(lists: pa.LargeListArray) -> np.ndarray:
    offsets = lists.offsets.to_numpy()
    return (offsets - offsets[0]).astype(np.int64)


def _flat(lists: pa.LargeListArray) -> np.ndarray:
    return lists.flatten().to_numpy(zero_copy_only=False)


# --- latents ----------------------------------------------------------------------------------


def write_latents(survey: Path, file: str, latents: Latents, objects_sha256: str) -> None:
    """Add the latents of one object shard, under the same file name, in one step.

    Args:
        survey: The survey's folder.
        file: Name of the object shard they were made from.
        latents: One row a segment of that shard.
        objects_sha256: Hash of that shard, so that a changed one is encoded again.
    """
    folder = latents_folder(survey, latents.model)
    manifest = read_manifest(folder)
    if manifest.setdefault("model_hash", latents.model_hash) != latents.model_hash:
        raise StoreError(
            f"{folder} holds latents of another model ({manifest['model_hash'][:12]}); "
            f"remove the folder, or encode under another name"
        )
    write_table(folder / file, _latents_table(latents))
    entry = {
        "file": file,
        "rows": len(latents),
        "objects_sha256": objects_sha256,
        "sha256": sha256(folder / file),
    }
    manifest["shards"] = sorted(
        [s for s in manifest["shards"] if s["file"] != file] + [entry], key=lambda s: s["file"]
    )
    write_manifest(folder, manifest)


def _latents_table(latents: Latents) -> pa.Table:
    width = latents.vectors.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(latents.vectors.ravel()), width)
    return pa.table(
        {
            "id": pa.array(latents.id),
            "target": pa.array(latents.target),
            "ra": pa.array(latents.ra, pa.float64()),
            "dec": pa.array(latents.dec, pa.float64()),
            "latent": vectors,
            "error": pa.array(latents.error, pa.float32()),
        }
    ).replace_schema_metadata({"model": latents.model, "model_hash": latents.model_hash})


def latent_shards(survey: Path, name: str) -> list[dict[str, Any]]:
    """Manifest entries of the latents of one model, in the order of the object shards.

    Raises:
        StoreError: There are none; the message names the models that have some.
    """
    check_survey(survey)
    shards: list[dict[str, Any]] = read_manifest(latents_folder(survey, name))["shards"]
    if not shards:
        known = ", ".join(model_names(survey)) or "none yet"
        raise StoreError(
            f"no latents of {name!r} in {survey} (there are: {known}); "
            f"make them with `skyvec encode {name} --survey {survey}`"
        )
    return shards


def read_latent_columns(survey: Path, name: str, file: str, columns: list[str]) -> pa.Table:
    """Read some columns of one shard of latents: id, target, ra, dec, latent, error."""
    return pq.read_table(latents_folder(survey, name) / file, columns=columns)


def vectors_of(latent: pa.ChunkedArray) -> np.ndarray:
    """The column ``latent`` as float32, shape (n, d)."""
    flat = latent.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat).reshape(-1, latent.type.list_size)


def read_latents(survey: Path, name: str) -> Latents:
    """Read all latents of one model, in the order of the object shards.

    Raises:
        StoreError: There are none; the message names the models that have some.
    """
    files = [shard["file"] for shard in latent_shards(survey, name)]
    folder = latents_folder(survey, name)
    table = pa.concat_tables(pq.read_table(folder / file) for file in files)
    return Latents(
        _strings(table["id"]),
        _strings(table["target"]),
        vectors_of(table["latent"]),
        name,
        read_manifest(folder)["model_hash"],
        table["ra"].to_numpy(),
        table["dec"].to_numpy(),
        table["error"].to_numpy(),
    )
