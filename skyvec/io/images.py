"""Images of objects: FITS cutouts, pictures of viewers, and objects cut out of mosaics.

A FITS file holds one object: a plane a band, in the primary array or in an extension each, with
masks, errors or inverse variances beside; or files of one object hold a band each and are told by
the ends of their names (``NAME-g.fits``, ``NAME-r.fits``). Cut as a mosaic a file holds many: one
object for each row of a catalogue that lies in it. Pictures (JPEG, PNG) are taken as they are,
three bands of bytes; they were stretched and mixed by a viewer, so their pixels are not
proportional to light.
"""

import gzip
import math
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.nddata.utils import NoOverlapError
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, InvalidTransformError, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_scales

from skyvec.io import tensors
from skyvec.io.band_files import one_a_band
from skyvec.io.catalogues import SideTable, beside, read_side_table
from skyvec.io.cutouts import Cutout, admit
from skyvec.io.segments import RefusedError
from skyvec.schema import FLUX_UNIT_RELATIVE, Reject

OPTIONS = ("bands", "catalog", "size", "cut")
FITS = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.fz")
PICTURES = (".jpg", ".jpeg", ".png")
BLOCK = 2880
HEAD = 8 * BLOCK
"""[byte] The first two headers of a FITS file stand in so much of it."""

NOT_LINEAR = "colour picture of a viewer (bytes; not linear in flux)"
MOST_APART = 0.1
"""[pixel] Bands in files of their own must lie on each other so well."""

_ROLES = (
    ("ivar", re.compile(r"i(n)?var|invvar|wht|weight", re.IGNORECASE)),
    ("var", re.compile(r"^var|variance", re.IGNORECASE)),
    ("mask", re.compile(r"mask|^dq|bitmask|flag", re.IGNORECASE)),
    ("error", re.compile(r"err|sigma|uncert|rms|std", re.IGNORECASE)),
    ("skip", re.compile(r"psf|model|resid|bkg|background|blob", re.IGNORECASE)),
)
"""What an extension is, by its name; else it is pixels."""


def matches(path: Path) -> bool:
    """Say whether a file holds images; of FITS, HDF5 and Parquet that takes a look inside."""
    name = path.name.lower()
    if name.endswith(PICTURES):
        return True
    if name.endswith(FITS):
        return _has_pixels(path)
    return tensors.matches(path)


def first_of(path: Path) -> Path:
    """The file under which an object is read whose bands lie in a file each; else the file."""
    files = one_a_band(path)[1] if path.name.lower().endswith(FITS) else {"": path}
    return next(iter(files.values())) if len(files) > 1 and _has_pixels(path) else path


def count_items(path: Path) -> int | None:
    """How many images a file holds, where that can be told without reading it."""
    if path.name.lower().endswith(PICTURES):
        return 1
    return tensors.count_items(path) if tensors.matches(path) else None


def check(*, size: int = 0, cut: bool = False, catalog: str = "", **others: object) -> None:
    """Make sure that options mean something.

    Raises:
        ValueError: A negative size, cutting without a size or a catalogue, or a catalogue that
            cannot be read.
    """
    if size < 0:
        raise ValueError(f"size = {size} must be >= 0 pixels")
    if catalog:
        if not Path(catalog).is_file():
            raise ValueError(f"the catalogue {catalog} does not exist")
        read_side_table(Path(catalog))
    if cut and not (size and catalog):
        raise ValueError("cutting needs a catalogue of positions and a size (--catalog, --size)")
    if cut and np.isnan(read_side_table(Path(catalog)).ra).all():
        raise ValueError(f"the catalogue {catalog} has no columns of ra and dec")


def read(
    path: Path,
    *,
    bands: Sequence[str] = (),
    catalog: str = "",
    size: int = 0,
    cut: bool = False,
) -> Iterator[Cutout | Reject]:
    """Read the images of a file, in a fixed order.

    Where the bands of an object lie in a file each, any of them gives the whole object.

    What is known of an image comes from ``catalog``, or else from a table called ``labels`` or
    ``catalog`` beside it or in the folder above.

    Args:
        path: A FITS file, a picture, or a file of tensors.
        bands: Names of the planes; from the file where not given.
        catalog: Table of ids (or file names) and facts.
        size: Side of the central square that is kept [pixel], 0 for all.
        cut: The file is a mosaic: cut out each object of the catalogue that lies in it.

    Yields:
        Images, and a reject for each one (or for the file) that cannot be taken.

    Raises:
        ValueError: An option means nothing.
    """
    check(size=size, cut=cut, catalog=catalog)
    try:
        known = Path(catalog) if catalog else beside(path)
        table = read_side_table(known) if known else SideTable({}, [], _NONE, _NONE, {})
        if tensors.matches(path):
            yield from tensors.read(path, tuple(bands), table, size)
        elif cut:
            yield from _cut(path, tuple(bands), table, size)
        else:
            one = _picture if path.name.lower().endswith(PICTURES) else _fits
            yield one(path, tuple(bands), table, size)
    except RefusedError as error:
        yield Reject(str(path), 0, "", str(error))
    except InvalidTransformError as error:
        yield Reject(str(path), 0, "", f"its coordinates (WCS) mean nothing: {_one_line(error)}")
    except (*_DAMAGED, SyntaxError) as error:  # Pillow says so of broken PNG
        yield Reject(str(path), 0, "", f"not readable: {_one_line(error)}")


_NONE = np.zeros(0)
_DAMAGED = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, AttributeError),
    *(zlib.error, fits.VerifyError, MemoryError),
)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _key(path: Path) -> str:
    name, files = one_a_band(path)
    if len(files) > 1 and path.name.lower().endswith(FITS):
        return name
    return re.sub(r"\.(fits?|jpe?g|png)(\.gz|\.fz)?$", "", path.name, flags=re.IGNORECASE)


# --- pictures ---------------------------------------------------------------------------------


def _picture(path: Path, bands: tuple[str, ...], table: SideTable, size: int) -> Cutout:
    pixels, names = tensors.decode_picture(path.read_bytes())
    ra, dec, facts = table.facts(_key(path))
    return admit(
        id=_key(path),
        target="",
        ra=ra,
        dec=dec,
        pixels=pixels,
        flux_err=None,
        bands=bands or names,
        pixel_scale=math.nan,
        flux_unit=FLUX_UNIT_RELATIVE,
        columns={**facts, "value_kind": NOT_LINEAR},
        size=size,
    )


# --- FITS -------------------------------------------------------------------------------------


def _has_pixels(path: Path) -> bool:
    """Whether the first array of a FITS file is an image; False where it cannot be read."""
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as file:
                raw = file.read(HEAD)
        else:
            with path.open("rb") as file:
                raw = file.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return False
    cards = [raw[i : i + 80] for i in range(0, len(raw), 80)]
    primary = next((_card(card) for card in cards if card.startswith(b"NAXIS   =")), "")
    kind = next((_card(card) for card in cards if card.startswith(b"XTENSION=")), "")
    is_packed = any(card.startswith(b"ZIMAGE  =") for card in cards)
    return primary not in ("", "0") or kind.startswith("'IMAGE") or is_packed


def _card(card: bytes) -> str:
    return card[10:].split(b"/", 1)[0].decode("ascii", "replace").strip()


class _Planes(NamedTuple):
    """What a FITS file holds of a piece of sky."""

    pixels: np.ndarray
    error: np.ndarray | None
    bands: tuple[str, ...]
    unit: str
    wcs: WCS | None
    header: fits.Header


@lru_cache(maxsize=1)
def _planes(path: Path, bands: tuple[str, ...]) -> _Planes:
    """All bands of an object, of one file or of a file each."""
    name, files = one_a_band(path)
    if len(files) == 1:
        return _open(path, bands)
    if bands and set(bands) - set(files):
        missing = ", ".join(band for band in bands if band not in files)
        raise RefusedError(f"{name} has no file of {missing} among {', '.join(files)}")
    wanted = bands or tuple(files)
    parts = [_open(files[band], (band,)) for band in wanted]
    first = parts[0]
    for band, part in zip(wanted, parts):
        if part.pixels.shape != first.pixels.shape:
            y, x = part.pixels.shape[1:]
            raise RefusedError(
                f"the bands of {name} differ in size: {band} has {x} x {y} pixels, "
                f"{wanted[0]} has {first.pixels.shape[2]} x {first.pixels.shape[1]}"
            )
        if part.unit != first.unit:
            raise RefusedError(f"the bands of {name} differ in unit: {part.unit}, {first.unit}")
        if not _same_places(first, part):
            raise RefusedError(
                f"the pixels of {band} and {wanted[0]} of {name} lie at different places; "
                "resample them to one grid first"
            )
    error = None
    if any(part.error is not None for part in parts):
        unknown = np.full(first.pixels.shape, np.nan)
        error = np.concatenate([unknown if p.error is None else p.error for p in parts])
    pixels = np.concatenate([part.pixels for part in parts])
    return first._replace(pixels=pixels, error=error, bands=wanted)


def _same_places(one: _Planes, other: _Planes) -> bool:
    """Whether the corners of both lie within a tenth of a pixel; True where either has no WCS."""
    if one.wcs is None or other.wcs is None:
        return True
    y, x = one.pixels.shape[1:]
    corners = np.array([[0, 0], [x - 1, 0], [0, y - 1], [x - 1, y - 1]], np.float64)
    sky = other.wcs.celestial.all_pix2world(corners, 0)
    try:
        there = one.wcs.celestial.all_world2pix(sky, 0)
    except NoConvergence:  # far outside, where its distortion has no inverse
        return False
    return bool((np.abs(there - corners) < MOST_APART).all())


def _open(path: Path, bands: tuple[str, ...]) -> _Planes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # of cards we do not use
        with fits.open(path, memmap=False) as file:
            found: dict[str, list[tuple[str, np.ndarray, fits.Header]]] = {}
            for hdu in file:
                if getattr(hdu, "is_image", False) and (data := _array(hdu)) is not None:
                    if data.ndim not in (2, 3):
                        raise RefusedError(f"an array of {data.ndim} axes; (band, y, x) is read")
                    data = data[None] if data.ndim == 2 else data
                    found.setdefault(_role(hdu.name), []).append((hdu.name, data, hdu.header))
            if "pixels" not in found:
                raise RefusedError("no image: no array but masks and errors")
            first = file[0].header
    names = [name for name, data, _ in found["pixels"] for _ in range(len(data))]
    shape = found["pixels"][0][1].shape[1:]
    whole = {role: [data for _, data, _ in parts] for role, parts in found.items()}
    if any(data.shape[1:] != shape for parts in whole.values() for data in parts):
        raise RefusedError("the images of the file differ in size")
    pixels = np.concatenate(whole["pixels"]).astype(np.float32)
    header = found["pixels"][0][2]
    error = _error(whole, len(pixels))
    for mask in whole.get("mask", []):
        pixels[np.broadcast_to(mask != 0, pixels.shape)] = np.nan
    named = bands or _bands(first, header, names, len(pixels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        wcs = WCS(header, naxis=2)
    unit = str(header.get("BUNIT", first.get("BUNIT", ""))).strip() or FLUX_UNIT_RELATIVE
    return _Planes(pixels, error, named, unit, wcs if wcs.has_celestial else None, header)


def _array(hdu: fits.PrimaryHDU) -> np.ndarray | None:
    try:
        return None if hdu.data is None else np.asarray(hdu.data)
    except (TypeError, ValueError) as error:
        shape = " x ".join(map(str, reversed(hdu.shape)))
        raise RefusedError(
            f"the file is cut short: less than the {shape} pixels that its header names"
        ) from error


def _role(name: str) -> str:
    return next((role for role, pattern in _ROLES if pattern.search(name)), "pixels")


def _error(whole: Mapping[str, list[np.ndarray]], n: int) -> np.ndarray | None:
    """One-sigma error of each pixel; 0, which admits nothing, where there was no weight."""
    for role in ("error", "var", "ivar"):
        if role in whole:
            given = np.concatenate(whole[role]).astype(np.float64)
            if len(given) not in (1, n):
                raise RefusedError(f"{len(given)} planes of errors, but {n} of pixels")
            with np.errstate(divide="ignore", invalid="ignore"):
                sigma = {
                    "error": given,
                    "var": np.sqrt(given),
                    "ivar": np.where(given > 0, 1 / np.sqrt(given), 0.0),
                }[role]
            return np.broadcast_to(sigma, (n, *given.shape[1:])).copy()
    return None


def _bands(first: fits.Header, header: fits.Header, names: list[str], n: int) -> tuple[str, ...]:
    """Names of the planes as the file gives them: BANDS, BAND0.., FILTER, names of extensions."""
    together = str(first.get("BANDS", header.get("BANDS", ""))).strip()
    split = tuple(together) if len(together) == n else tuple(re.split(r"[,;\s]+", together))
    if together and len(split) == n:
        return split
    numbered = tuple(str(header.get(f"BAND{i}", "")).strip() for i in range(n))
    if all(numbered):
        return numbered
    if n == 1:
        given = str(header.get("FILTER", header.get("BAND", first.get("FILTER", "")))).strip()
        own = "" if names[0] == "PRIMARY" else names[0]
        return (given or own or "unknown",)
    if len(set(names)) == n and all(names):
        return tuple(names)
    return tuple(f"band{i}" for i in range(n))


def _fits(path: Path, bands: tuple[str, ...], table: SideTable, size: int) -> Cutout:
    planes = _planes(path, bands)
    ra, dec, facts = table.facts(_key(path))
    scale = math.nan
    if planes.wcs is not None:
        scale = float(np.mean(proj_plane_pixel_scales(planes.wcs)) * 3600)
        if math.isnan(ra) or math.isnan(dec):
            y, x = planes.pixels.shape[1:]
            place = planes.wcs.pixel_to_world((x - 1) / 2, (y - 1) / 2).icrs
            ra, dec = float(place.ra.deg), float(place.dec.deg)
    return admit(
        id=_key(path),
        target="",
        ra=ra,
        dec=dec,
        pixels=planes.pixels,
        flux_err=planes.error,
        bands=planes.bands,
        pixel_scale=scale,
        flux_unit=planes.unit,
        columns={**facts, "value_kind": f"flux ({planes.unit})"},
        size=size,
    )


def _cut(
    path: Path, bands: tuple[str, ...], table: SideTable, size: int
) -> Iterator[Cutout | Reject]:
    """Cut the objects of a catalogue out of a mosaic; those outside of it are no items of it."""
    if path.name.lower().endswith(PICTURES):
        raise RefusedError("a picture has no coordinates to cut by; give a FITS mosaic")
    planes = _planes(path, bands)
    if planes.wcs is None:
        raise RefusedError("the mosaic has no celestial coordinates (WCS) to cut by")
    height, width = planes.pixels.shape[1:]
    x, y = _pixels_of(planes.wcs.celestial, table.ra, table.dec, max(height, width))
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    scale = float(np.mean(proj_plane_pixel_scales(planes.wcs)) * 3600)
    for item, row in enumerate(np.flatnonzero(inside)):
        key = table.id[row]
        place = (float(x[row]), float(y[row]))
        try:
            pixels = _stack(planes.pixels, place, size)
            yield admit(
                id=key,
                target="",
                ra=float(table.ra[row]),
                dec=float(table.dec[row]),
                pixels=pixels,
                flux_err=None if planes.error is None else _stack(planes.error, place, size),
                bands=planes.bands,
                pixel_scale=scale,
                flux_unit=planes.unit,
                columns={
                    **{name: values[row] for name, values in table.columns.items()},
                    "mosaic": path.name,
                    "value_kind": f"flux ({planes.unit})",
                },
            )
        except RefusedError as error:
            yield Reject(str(path), item, key, str(error))


def _pixels_of(
    wcs: WCS, ra: np.ndarray, dec: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where positions lie in a mosaic [pixel]; NaN for what is far from it.

    The inverse of a distortion is a search that need not end far from the image, so only what
    lies near by the undistorted projection is looked for.
    """
    with np.errstate(invalid="ignore"):
        plain = np.stack(wcs.wcs_world2pix(ra, dec, 0))
    near = (np.abs(plain - side / 2) < 1.5 * side).all(axis=0)
    found = np.full(plain.shape, np.nan)
    try:
        found[:, near] = wcs.all_world2pix(ra[near], dec[near], 0)
    except NoConvergence as error:
        lost = np.concatenate(
            [
                np.zeros(0, int),
                *(rows for rows in (error.divergent, error.slow_conv) if rows is not None),
            ]
        )
        solved = error.best_solution.T.copy()
        solved[:, lost] = np.nan
        found[:, near] = solved
    return found[0], found[1]


def _stack(planes: np.ndarray, place: tuple[float, float], size: int) -> np.ndarray:
    try:
        parts = [Cutout2D(plane, place, size, mode="strict").data for plane in planes]
    except (NoOverlapError, ValueError) as error:  # PartialOverlapError is a ValueError
        raise RefusedError(
            f"the edge of the mosaic cuts its {size} x {size} pixels off"
        ) from error
    return np.stack(parts)
