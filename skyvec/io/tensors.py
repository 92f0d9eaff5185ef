"""Images as tensors: columns of Parquet, datasets of HDF5, pictures inside either.

A tensor is (band, y, x), or (y, x, band) where the last axis is the short one. Parquet may hold
fixed-shape tensors, nested lists, or whole JPEG and PNG files as bytes (also as the structs that
data sets of the hubs use); HDF5 a dataset of four axes (or three: one band) with facts beside it.
Both stream.
"""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyvec.io.catalogues import ID_NAMES, SideTable
from skyvec.io.columns import ROLES
from skyvec.io.cutouts import Cutout, admit
from skyvec.io.facts import RESERVED, text_id
from skyvec.io.formats import PARQUET
from skyvec.io.segments import RefusedError, Value
from skyvec.schema import FLUX_UNIT_RELATIVE, Reject

HDF5 = (".h5", ".hdf5", ".hdf")
NAMES = ("pixels", "image", "images", "tensor", "cutout", "cutouts", "image_array", "data", "x")
"""What a column or dataset of images is called."""

SCALES = ("pixel_scale", "pxscale", "pixscale")
MOST_BANDS = 12
ROWS = 64
"""Images read at a time."""


class _Row(NamedTuple):
    """One image of a file and what stands beside it."""

    image: Any
    facts: dict[str, Any]


def matches(path: Path) -> bool:
    """Say whether a file holds tensors; Parquet files of light curves and tables do not."""
    name = path.name.lower()
    if name.endswith(HDF5):
        return True
    if not name.endswith(PARQUET):
        return False
    try:
        return bool(_column(pq.read_schema(path)))
    except (pa.ArrowException, OSError):
        return False


def count_items(path: Path) -> int | None:
    """How many images a file holds."""
    try:
        if path.name.lower().endswith(PARQUET):
            with pq.ParquetFile(path) as file:
                return int(file.metadata.num_rows)
        import h5py  # an extra

        with h5py.File(path) as file:
            return len(file[_dataset(file)])
    except (pa.ArrowException, OSError, ImportError, RefusedError):
        return 1


def read(
    path: Path, bands: tuple[str, ...], table: SideTable, size: int
) -> Iterator[Cutout | Reject]:
    """Read the images of a file in its order.

    Args:
        path: A Parquet or HDF5 file.
        bands: Names of the bands; ``band0`` and so on where not given.
        table: What else is known of them.
        size: Side of the central square that is kept [pixel], 0 for all.

    Yields:
        Images, and a reject for each that cannot be taken.

    Raises:
        RefusedError: The file holds no images.
        ModuleNotFoundError: HDF5 needs h5py (``pip install skyvec[images]``).
    """
    rows = _parquet(path) if path.name.lower().endswith(PARQUET) else _hdf5(path)
    for i, row in enumerate(rows):
        key = f"{path.stem}/{i}"
        try:
            key = _own_key(row.facts) or key
            yield _cutout(key, row, bands, table, size)
        except RefusedError as error:
            yield Reject(str(path), i, key, str(error))


def _own_key(facts: dict[str, Any]) -> str:
    found = next((name for name in facts if name.lower() in ID_NAMES), None)
    return "" if found is None else text_id(facts.pop(found))


def _cutout(key: str, row: _Row, bands: tuple[str, ...], table: SideTable, size: int) -> Cutout:
    names: tuple[str, ...] = ()
    if isinstance(row.image, bytes):
        pixels, names = decode_picture(row.image)
        is_bytes = True
    else:
        given = np.asarray(row.image)
        is_bytes = given.dtype == np.uint8
        pixels = _bands_first(given)
    ra, dec, known = table.facts(key)
    facts = dict(row.facts)
    places = {}
    for role, value in (("ra", ra), ("dec", dec)):
        own = next((name for name in facts if name.lower() in ROLES[role]), None)
        given_place = float(facts.pop(own)) if own is not None else math.nan
        places[role] = given_place if math.isnan(value) else value
    scale = next((float(facts[name]) for name in SCALES if name in facts), math.nan)
    clean = {(f"{n}_given" if n in RESERVED else n): v for n, v in facts.items()}
    return admit(
        id=key,
        target="",
        ra=places["ra"],
        dec=places["dec"],
        pixels=pixels,
        flux_err=None,
        bands=bands or names or tuple(f"band{i}" for i in range(len(pixels))),
        pixel_scale=scale,
        flux_unit=FLUX_UNIT_RELATIVE,
        columns={
            **clean,
            **known,
            "value_kind": "bytes (not linear in flux)" if is_bytes else "flux (relative)",
        },
        size=size,
    )


def _bands_first(image: np.ndarray) -> np.ndarray:
    if image.dtype == object or image.dtype.kind not in "fiu":
        raise RefusedError("the image is no array of numbers of one shape")
    if image.ndim == 2:
        return image[None]
    if image.ndim != 3:
        raise RefusedError(f"an image of {image.ndim} axes; (band, y, x) is read")
    first, last = image.shape[0], image.shape[2]
    if last <= MOST_BANDS and last < first:
        return np.moveaxis(image, 2, 0)
    if first <= MOST_BANDS and first < last:
        return image
    raise RefusedError(f"which axis of {image.shape} is the bands? (band, y, x) is read")


def decode_picture(raw: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels of a JPEG or PNG, float32 (band, y, x), NaN where it is transparent, and band names.

    Raises:
        RefusedError: It is none, or a kind of picture that shows no light.
    """
    from PIL import Image, UnidentifiedImageError

    if not raw:
        raise RefusedError("the file is empty")
    try:
        with Image.open(io.BytesIO(raw)) as file:
            if file.format not in ("JPEG", "PNG"):
                raise RefusedError(f"a picture of the kind {file.format}; JPEG and PNG are read")
            kind = "RGBA" if "transparency" in file.info else "RGB"
            is_coded = file.mode in ("P", "CMYK", "YCbCr")
            array = np.asarray(file.convert(kind) if is_coded else file)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        why = "" if isinstance(error, UnidentifiedImageError) else f" that is read: {error}"
        raise RefusedError(f"no JPEG or PNG picture{why}") from error
    if array.ndim == 2:
        return array.astype(np.float32)[None], ("grey",)
    pixels = np.moveaxis(array, 2, 0).astype(np.float32)
    if len(pixels) in (2, 4):
        pixels[:, pixels[-1] == 0] = np.nan
        pixels = pixels[:-1]
    return pixels, ("red", "green", "blue") if len(pixels) == 3 else ("grey",)


# --- Parquet ----------------------------------------------------------------------------------


def _column(schema: pa.Schema) -> str:
    """Name of the column of images, empty if there is none."""
    for name in sorted(
        schema.names, key=lambda n: NAMES.index(n.lower()) if n.lower() in NAMES else 99
    ):
        kind = schema.field(name).type
        if isinstance(kind, pa.FixedShapeTensorType):
            return str(name)
        if name.lower() not in NAMES:
            continue
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return str(name)
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return str(name)
        if _is_list(kind) and _is_list(kind.value_type):
            return str(name)
    return ""


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _parquet(path: Path) -> Iterator[_Row]:
    with pq.ParquetFile(path) as file:
        name = _column(file.schema_arrow)
        kind = file.schema_arrow.field(name).type
        others = [
            field.name
            for field in file.schema_arrow
            if field.name != name and not pa.types.is_nested(field.type)
        ]
        for batch in file.iter_batches(batch_size=ROWS, columns=[name, *others]):
            facts = [_plain(row) for row in batch.select(others).to_pylist()] or [
                {} for _ in range(batch.num_rows)
            ]
            column = batch.column(name)
            if isinstance(kind, pa.FixedShapeTensorType):
                images: Any = column.to_numpy_ndarray()
            else:
                images = [_opened(value) for value in column.to_pylist()]
            yield from (_Row(image, known) for image, known in zip(images, facts, strict=True))


def _opened(value: Any) -> Any:
    """Bytes of a picture, or nested lists as they are."""
    if isinstance(value, dict):
        value = value.get("bytes")
    if value is None:
        return b""
    return value


def _plain(row: dict[str, Any]) -> dict[str, Value]:
    plain: dict[str, Value] = {}
    for name, value in row.items():
        if isinstance(value, bool):
            plain[name] = int(value)
        elif isinstance(value, int) and abs(value) > 2**53:
            plain[name] = str(value)
        elif isinstance(value, int | float | str):
            plain[name] = value
        elif value is not None:
            plain[name] = str(value)
    return plain


# --- HDF5 -------------------------------------------------------------------------------------


def _dataset(file: Any) -> str:
    """Name of the dataset of images."""
    shapes = {name: item.shape for name, item in file.items() if hasattr(item, "shape")}
    many = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    named = [name for wanted in NAMES for name in many if name.lower() == wanted]
    if not named and len(many) != 1:
        raise RefusedError(
            f"no dataset of images among {', '.join(shapes) or 'none'}; call it images"
        )
    return (named or many)[0]


def _hdf5(path: Path) -> Iterator[_Row]:
    try:
        import h5py
    except ImportError as error:
        raise ModuleNotFoundError(
            "HDF5 needs h5py; install it with: pip install skyvec[images]"
        ) from error
    with h5py.File(path) as file:
        name = _dataset(file)
        images = file[name]
        beside = {
            key: item
            for key, item in file.items()
            if hasattr(item, "shape") and item.shape == (len(images),)
        }
        for start in range(0, len(images), ROWS):
            block = images[start : start + ROWS]
            columns = {key: item[start : start + ROWS].tolist() for key, item in beside.items()}
            for i, image in enumerate(block):
                known = {
                    key: values[i].decode() if isinstance(values[i], bytes) else values[i]
                    for key, values in columns.items()
                }
                yield _Row(image, _plain(known))
