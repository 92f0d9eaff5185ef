"""Stamps of detections: new, reference, difference; from Parquet, NumPy and FITS files.

Four forms are read. *Parquet*: one row a detection, the columns ``new``, ``reference`` and
``difference`` as lists with ``height`` and ``width``. *NumPy*: an array (n, 3, y, x) or
(n, y, x, 3) in a file called ``…stamps….npy`` or ``…triplets….npy``, or ``images….npy`` beside a
table ``params….csv`` as Tomo-e Gozen publishes them; a CSV table of the same name tells of the
rows. *FITS*: a file called ``…stamp….fits`` or ``…triplet….fits`` with three images, named or in
the order above, or one cube. *Avro*: see :mod:`skyvec.io.avro_alerts`.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from skyvec.io.facts import EXACT, text_id
from skyvec.io.segments import RefusedError, Value, place_on_sky
from skyvec.schema import STAMP_CHANNELS, Reject

OPTIONS = ("size",)
FITS = (".fits", ".fit", ".fits.gz", ".fit.gz")
SENTINEL = 1e30
"""What is beyond marks a missing pixel (-3.4e38 is the float's own limit)."""
LEAST, LARGEST = 5, 511
"""[px] Sides of a stamp."""

_ID = ("id", "candid", "diasourceid", "unique_index", "detection_id")
_OBJECT = ("object", "objectid", "object_id", "diaobjectid", "target")
_DETECTOR = ("detector", "cand_detector", "ccdid", "detector_id", "rcid", "cand_rcid", "sensor")
_EXPOSURE = ("exposure", "cand_visit", "visit", "expid", "group", "exposure_id")
_RA, _DEC = ("ra", "cand_ra"), ("dec", "cand_dec")
_PIXELS = {
    "new": ("new", "science", "sci", "search", "srch"),
    "reference": ("reference", "template", "ref", "temp"),
    "difference": ("difference", "diff", "sub"),
}
_DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError, pa.ArrowException)


@dataclass(frozen=True)
class Triplet:
    """One detection with its three stamps.

    Args:
        id: Unique key of the detection.
        target: The object it belongs to.
        ra: ICRS [deg] in [0, 360), NaN where unknown.
        dec: ICRS [deg] in [-90, 90], NaN where unknown.
        pixels: float32, NaN where missing, shape (3, side, side), side odd, the detection in the
            middle pixel.
        detector: Name of the sensor, empty where unknown.
        exposure: Key of the exposure, empty where unknown.
        columns: Further facts by name: texts and numbers.
    """

    id: str
    target: str
    ra: float
    dec: float
    pixels: NDArray[np.float32]
    detector: str
    exposure: str
    columns: dict[str, Value]


def admit(
    *,
    id: str,
    target: str,
    ra: float,
    dec: float,
    cutouts: Mapping[str, np.ndarray],
    detector: str,
    exposure: str,
    columns: dict[str, Value],
    size: int = 0,
    nominal: int = 0,
    centre: tuple[float, float] | None = None,
) -> Triplet:
    """Clean a raw triplet, or refuse it.

    Infinite pixels and sentinels become NaN. A cutout that the edge of its sensor has clipped is
    put where it belongs in a whole one, so that the detection is in the middle; the rest is NaN.

    Args:
        id: Key of the detection.
        target: The object; the id where empty.
        ra: ICRS [deg], NaN where unknown.
        dec: ICRS [deg], NaN where unknown.
        cutouts: The three images by channel, shape (y, x) each.
        detector: Name of the sensor.
        exposure: Key of the exposure.
        columns: Further facts by name.
        size: Side of the stamp [px], odd; 0 for the nominal one.
        nominal: Side that the survey's cutouts have [px]; 0 for the longest axis.
        centre: (y, x) of the detection in the cutouts [px, from 0]. Where it is not given, a
            whole cutout has it in its middle, and a clipped one on that side on which the
            difference is stronger.

    Raises:
        RefusedError: A channel is missing, of another shape, empty, or larger than a stamp is.
    """
    if not id:
        raise RefusedError("the id is empty")
    missing = [name for name in STAMP_CHANNELS if name not in cutouts]
    if missing:
        raise RefusedError(f"no {' and no '.join(missing)} image")
    images = [np.asarray(cutouts[name]) for name in STAMP_CHANNELS]
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise RefusedError(
            "new, reference and difference differ in shape: "
            + ", ".join(" x ".join(map(str, image.shape)) for image in images)
        )
    (shape,) = shapes
    if len(shape) != 2 or not all(LEAST <= side <= LARGEST for side in shape):
        raise RefusedError(
            f"a stamp has {LEAST} to {LARGEST} pixels a side, not the shape {shape}"
        )
    clean = [_clean(image) for image in images]
    empty = [name for name, image in zip(STAMP_CHANNELS, clean) if np.isnan(image).all()]
    if empty:
        raise RefusedError(f"no pixel of the {' and of the '.join(empty)} image was measured")
    whole = nominal or max(shape)
    side = size or whole - 1 + whole % 2
    if side % 2 == 0:
        raise RefusedError(
            f"a stamp's side must be odd, so that a pixel is its centre, not {side}"
        )
    at = _middle(clean[2], whole) if centre is None else centre
    at = round(at[0]), round(at[1])
    if not (0 <= at[0] < shape[0] and 0 <= at[1] < shape[1]):
        raise RefusedError(f"the detection (y, x) = {at} lies outside its cutout {shape}")
    pixels = np.stack([_place(image, side, at) for image in clean])
    ra, dec = place_on_sky(ra, dec)
    facts: dict[str, Value] = {**columns, "n_missing": int(np.isnan(pixels).sum())}
    return Triplet(id, target or id, ra, dec, pixels, detector, exposure, facts)


def _clean(image: np.ndarray) -> NDArray[np.float32]:
    if image.dtype.kind not in "fiu":
        raise RefusedError(f"pixels are {image.dtype}, not numbers")
    values = image.astype(np.float64)
    good = np.abs(values) < SENTINEL  # false for NaN
    return np.where(good, values, np.nan).astype(np.float32)


def _middle(difference: NDArray[np.float32], whole: int) -> tuple[int, int]:
    """Where the detection stands in a cutout that may have lost a part on some side."""
    half = whole // 2
    options = []
    for length in difference.shape:
        near_end = length - (whole - half)  # as if the beginning were lost
        options.append({half} if length >= whole else {half, near_end} & set(range(length)))
        if not options[-1]:
            options[-1] = {length // 2}
    strength = {
        (y, x): float(np.nansum(np.abs(difference[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2])))
        for y in options[0]
        for x in options[1]
    }
    return max(strength, key=lambda at: (strength[at], at))


def _place(image: NDArray[np.float32], side: int, at: tuple[int, int]) -> NDArray[np.float32]:
    half = side // 2
    square = np.full((side, side), np.nan, np.float32)
    (height, width), top, left = image.shape, half - at[0], half - at[1]
    low_y, low_x = max(top, 0), max(left, 0)
    high_y, high_x = min(top + height, side), min(left + width, side)
    square[low_y:high_y, low_x:high_x] = image[
        low_y - top : high_y - top, low_x - left : high_x - left
    ]
    return square


# --- the reader -------------------------------------------------------------------------------


def matches(path: Path) -> bool:
    """Say whether a file holds stamps; of Parquet that takes a look inside."""
    name = path.name.lower()
    named = "stamp" in name or "triplet" in name
    if name.endswith(".npy"):
        return named or (name.startswith("images") and table_beside(path) is not None)
    if name.endswith(FITS):
        return named
    if not name.endswith((".parquet", ".pq", ".parq")):
        return False
    try:
        columns = pq.read_schema(path)
    except _DAMAGED:
        return False
    kinds = [columns.field(c).type for c in STAMP_CHANNELS if c in columns.names]
    return len(kinds) == 3 and all(_is_list(kind) for kind in kinds)


def _is_list(kind: pa.DataType) -> bool:
    return any(
        check(kind)
        for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def count_items(path: Path) -> int | None:
    """How many detections a file holds, where that can be told without reading it."""
    name = path.name.lower()
    try:
        if name.endswith(".npy"):
            return int(np.load(path, mmap_mode="r", allow_pickle=False).shape[0])
        return 1 if name.endswith(FITS) else int(pq.read_metadata(path).num_rows)
    except _DAMAGED:
        return None


def check(*, size: int = 0, **others: object) -> None:
    """Make sure that options mean something.

    Raises:
        ValueError: The size is negative.
    """
    if size < 0:
        raise ValueError(f"size = {size} must be >= 0 pixels")


def read(path: Path, *, size: int = 0) -> Iterator[Triplet | Reject]:
    """Read the detections of a file, in a fixed order.

    Args:
        path: A file that ``matches``.
        size: Side of the stamps [px], odd; 0 for all that is there. An even size is taken one
            smaller.

    Yields:
        Triplets, and a reject for each one (or for the file) that cannot be taken.
    """
    check(size=size)
    size -= size > 0 and size % 2 == 0
    name = path.name.lower()
    one = _numpy if name.endswith(".npy") else _fits if name.endswith(FITS) else _parquet
    n = 0
    try:
        for item in one(path, size):
            n += 1
            yield item
    except RefusedError as error:
        yield Reject(str(path), n, "", str(error))
    except _DAMAGED as error:
        yield Reject(str(path), n, "", f"not readable: {' '.join(str(error).split())}")


def _parquet(path: Path, size: int) -> Iterator[Triplet | Reject]:
    with pq.ParquetFile(path) as file:
        row = 0
        for batch in file.iter_batches(batch_size=256):
            pixels = {name: _lists(batch.column(name)) for name in STAMP_CHANNELS}
            others = pa.Table.from_batches([batch]).drop_columns([*STAMP_CHANNELS])
            for i, facts in enumerate(others.to_pylist()):
                yield _row(path, row, facts, {name: pixels[name][i] for name in pixels}, size)
                row += 1


def _lists(column: pa.Array) -> list[np.ndarray | None]:
    """Each row's pixels, None where a row has none; a missing pixel is NaN."""
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.large_list(column.type.value_type))
    values = column.values.to_numpy(zero_copy_only=False)
    offsets = column.offsets.to_numpy()
    there = column.is_valid().to_numpy(zero_copy_only=False)
    return [
        values[low:high] if known else None
        for low, high, known in zip(offsets[:-1], offsets[1:], there)
    ]


def _row(
    path: Path,
    row: int,
    facts: dict[str, object],
    pixels: Mapping[str, np.ndarray | None],
    size: int,
) -> Triplet | Reject:
    key = _known(facts, _ID) or f"{path.stem}-{row:06d}"
    try:
        shape = _shape(facts, pixels)
        cutouts = {}
        for name, values in pixels.items():
            if values is None:
                continue
            if values.size != shape[0] * shape[1]:
                raise RefusedError(
                    f"{values.size} pixels of the {name} image are not {shape[0]} x {shape[1]}"
                )
            cutouts[name] = values.reshape(shape)
        return _triplet(path, row, key, facts, cutouts, size)
    except RefusedError as error:
        return Reject(str(path), row, key, str(error))
    except _DAMAGED as error:
        return Reject(str(path), row, key, f"not readable: {' '.join(str(error).split())}")


def _shape(
    facts: Mapping[str, object], pixels: Mapping[str, np.ndarray | None]
) -> tuple[int, int]:
    height, width = facts.get("height"), facts.get("width")
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    first = next((values for values in pixels.values() if values is not None), np.zeros(0))
    side = math.isqrt(len(first))
    if side * side != len(first) or not side:
        raise RefusedError("there are no columns of height and width, and the pixels no square")
    return side, side


def _triplet(
    path: Path,
    row: int,
    key: str,
    facts: dict[str, object],
    cutouts: Mapping[str, np.ndarray],
    size: int,
) -> Triplet:
    used = {"height", "width"}
    columns = {k: _value(v) for k, v in facts.items() if k not in used}
    ra, dec = (_number(facts, names) for names in (_RA, _DEC))
    return admit(
        id=key,
        target=_known(facts, _OBJECT),
        ra=ra,
        dec=dec,
        cutouts=cutouts,
        detector=_known(facts, _DETECTOR),
        # a file of which nothing is known is one exposure: better too careful than a leak
        exposure=_known(facts, _EXPOSURE) or path.stem,
        columns=_free(columns),
        size=size,
    )


_TAKEN = ("id", "target", "ra", "dec", "source", "detector", "exposure", "object", "pixels")


def _free(columns: Mapping[str, Value]) -> dict[str, Value]:
    """Facts under names that the store does not use itself."""
    return {f"{k}_given" if k in _TAKEN else k: v for k, v in columns.items()}


def _value(value: object) -> Value:
    if value is None:
        return float("nan")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if abs(value) <= EXACT else str(value)
    return value if isinstance(value, float | str) else str(value)


def _known(facts: Mapping[str, object], names: tuple[str, ...]) -> str:
    lower = {key.lower(): value for key, value in facts.items()}
    for name in names:
        value = lower.get(name)
        if value is not None and str(value).strip() not in {"", "nan"}:
            return text_id(value)
    return ""


def _number(facts: Mapping[str, object], names: tuple[str, ...]) -> float:
    lower = {key.lower(): value for key, value in facts.items()}
    for name in names:
        value = lower.get(name)
        if isinstance(value, int | float):
            return float(value)
    return math.nan


def table_beside(path: Path) -> Path | None:
    """The table that tells of the rows of a NumPy array of stamps, if there is one."""
    if path.suffix.lower() != ".npy":
        return None
    stem = path.stem
    for name in (f"{stem}.csv", f"params{stem[6:]}.csv" if stem.startswith("images") else ""):
        if name and (path.parent / name).is_file():
            return path.parent / name
    return None


def _numpy(path: Path, size: int) -> Iterator[Triplet | Reject]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 4 or 3 not in (array.shape[1], array.shape[3]):
        raise RefusedError(
            f"stamps have the shape (n, 3, y, x) or (n, y, x, 3), not {array.shape}"
        )
    last = array.shape[1] != 3
    table = table_beside(path)
    rows: list[dict[str, object]] = [{} for _ in range(len(array))]
    if table is not None:
        rows = pacsv.read_csv(table).to_pylist()
        if len(rows) != len(array):
            raise RefusedError(f"{len(array)} stamps, but {table.name} has {len(rows)} rows")
    for row, facts in enumerate(rows):
        stamp = np.asarray(array[row])
        stamp = np.moveaxis(stamp, 2, 0) if last else stamp
        key = _known(facts, _ID)
        # indices count within their file, or within all: with the file's name they are unique
        key = f"{path.stem}-{key or f'{row:06d}'}"
        if "object_type" in facts and "label" not in facts:
            real = str(facts["object_type"]).endswith("real")
            facts["label"] = "real" if real else "bogus"
        try:
            yield _triplet(path, row, key, facts, dict(zip(STAMP_CHANNELS, stamp)), size)
        except RefusedError as error:
            yield Reject(str(path), row, key, str(error))


def _fits(path: Path, size: int) -> Iterator[Triplet | Reject]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # what is cut off becomes a reject
        with fits.open(path, memmap=False) as file:
            images = [
                (str(hdu.name).lower(), np.asarray(hdu.data))
                for hdu in file
                if getattr(hdu, "data", None) is not None
                and np.asarray(hdu.data).dtype.kind in "fiu"
            ]
            header = file[0].header
    if len(images) == 1 and images[0][1].ndim == 3 and len(images[0][1]) == 3:
        cutouts = dict(zip(STAMP_CHANNELS, images[0][1]))
    else:
        cutouts = {}
        for channel, words in _PIXELS.items():
            found = [image for name, image in images if name.startswith(words)]
            if found:
                cutouts[channel] = found[0]
        if not cutouts and len(images) == 3:
            cutouts = {c: image for c, (_, image) in zip(STAMP_CHANNELS, images)}
    told = {*_ID, *_OBJECT, *_DETECTOR, *_EXPOSURE, "ra", "dec", "label", "band", "filter"}
    facts = {key.lower(): header[key] for key in header if key.lower() in told}
    yield _triplet(path, 0, _known(facts, _ID) or path.name.split(".")[0], facts, cutouts, size)
