"""The plain types that travel down the river, and the units everything is kept in.

House units, written once: time is MJD on the TDB scale [day]; angles are ICRS [deg]; flux is in
the survey's declared unit (``FLUX_UNIT_RELATIVE`` where a survey has none); ids are strings and
never pass through a float. Every type checks itself once, when it is made, and never again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Strings = NDArray[np.str_]

FLUX_UNIT_RELATIVE = "relative"
"""Unit of fluxes that are only known up to a factor of the object's own."""

MJD_RANGE = (-700_000.0, 200_000.0)
"""[day] Years -58 to 2406: anything outside is a Julian date or not a time at all."""


class SchemaError(ValueError):
    """An array does not have the form its type promises."""


def _require(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise SchemaError(message)


def _check_ids(ids: Strings, name: str) -> None:
    _require(ids.ndim == 1, f"{name} must have shape (n,), but has {ids.shape}")
    _require(
        ids.dtype.kind == "U",
        f"{name} must be strings, but is {ids.dtype}; ids never pass through a number",
    )


@dataclass(frozen=True)
class Catalog:
    """What is known of each segment apart from its light: one row a segment.

    A *segment* is one stretch of observation of one *target* (a TESS sector, a Kepler quarter, or
    simply the whole light curve). Several segments share a target.

    Args:
        id: Unique key of the segment, shape (n,), for example ``TIC 29779873/s0001-2-4``.
        target: The object the segment belongs to, shape (n,), for example ``TIC 29779873``.
        ra: ICRS [deg] in [0, 360), NaN where unknown, shape (n,).
        dec: ICRS [deg] in [-90, 90], NaN where unknown, shape (n,).
        columns: Any further columns by name, shape (n,) each (numbers, booleans or strings).

    Raises:
        SchemaError: Lengths differ, ids are not strings, or coordinates are out of range.
    """

    id: Strings
    target: Strings
    ra: Floats
    dec: Floats
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_ids(self.id, "id")
        _check_ids(self.target, "target")
        n = len(self.id)
        for name, column in {"target": self.target, "ra": self.ra, "dec": self.dec}.items():
            _require(column.shape == (n,), f"{name} must have shape ({n},), not {column.shape}")
        for name, column in self.columns.items():
            _require(column.shape == (n,), f"{name} must have shape ({n},), not {column.shape}")
        ra_bad = (self.ra < 0) | (self.ra >= 360)
        dec_bad = np.abs(self.dec) > 90
        _require(not ra_bad.any(), "ra must be in [0, 360) degrees or NaN")
        _require(not dec_bad.any(), "dec must be in [-90, 90] degrees or NaN")

    def __len__(self) -> int:
        return len(self.id)

    def rows(self, ids: Sequence[str] | Strings) -> Ints:
        """Give the row of each id.

        Raises:
            KeyError: An id is not there; the message names the first one missing.
        """
        return _rows(self.id, ids, "segments")

    def take(self, rows: Ints | NDArray[np.bool_] | slice) -> "Catalog":
        """Give the rows asked for, in the order asked for."""
        return Catalog(
            self.id[rows],
            self.target[rows],
            self.ra[rows],
            self.dec[rows],
            {name: column[rows] for name, column in self.columns.items()},
        )


@dataclass(frozen=True)
class LightCurves:
    """Many light curves as flat arrays: curve i is ``[offsets[i], offsets[i + 1])``.

    Args:
        id: Segment keys, shape (n,).
        offsets: First point of each curve and the end, int64, shape (n + 1,), ascending from 0.
        mjd: TDB [day], float64, shape (offsets[-1],), ascending within each curve.
        flux: [flux_unit], float32, finite, shape (offsets[-1],).
        flux_err: One-sigma error [flux_unit], float32, > 0, NaN where unknown.
        band: Code into ``bands``, int16, shape (offsets[-1],).
        bands: Names of the bands.
        flux_unit: Unit of flux and flux_err, an ``astropy.units`` string or ``relative``.

    Raises:
        SchemaError: A length, a type, an order or a value is not as promised above.
    """

    id: Strings
    offsets: NDArray[np.int64]
    mjd: NDArray[np.float64]
    flux: NDArray[np.float32]
    flux_err: NDArray[np.float32]
    band: NDArray[np.int16]
    bands: tuple[str, ...]
    flux_unit: str = FLUX_UNIT_RELATIVE

    def __post_init__(self) -> None:
        _check_ids(self.id, "id")
        n_points = self._check_shapes()
        _require(np.isfinite(self.flux).all(), "flux must be finite; drop the points without one")
        bad_error = np.asarray(self.flux_err <= 0) | np.isinf(self.flux_err)
        _require(not bad_error.any(), "flux_err must be > 0 and finite, or NaN where unknown")
        if n_points:
            low, high = float(self.mjd.min()), float(self.mjd.max())
            _require(
                np.isfinite([low, high]).all() and low > MJD_RANGE[0] and high < MJD_RANGE[1],
                f"mjd spans {low} to {high}, outside {MJD_RANGE}; is it JD? subtract 2400000.5",
            )
            codes = int(self.band.min()), int(self.band.max())
            _require(
                codes[0] >= 0 and codes[1] < len(self.bands),
                f"band codes span {codes}, but there are {len(self.bands)} bands",
            )
            step = np.diff(self.mjd)
            step[
                self.offsets[1:-1][(self.offsets[1:-1] > 0) & (self.offsets[1:-1] < n_points)] - 1
            ] = 0
            _require(
                not (step < 0).any(), "mjd must ascend within each curve; sort the points first"
            )

    def _check_shapes(self) -> int:
        _require(
            self.offsets.shape == (len(self.id) + 1,) and self.offsets.dtype == np.int64,
            f"offsets must be int64 of shape ({len(self.id) + 1},), "
            f"not {self.offsets.dtype} {self.offsets.shape}",
        )
        _require(
            self.offsets[0] == 0 and bool((np.diff(self.offsets) >= 0).all()),
            "offsets must ascend from 0",
        )
        n_points = int(self.offsets[-1])
        wanted = {"mjd": np.float64, "flux": np.float32, "flux_err": np.float32, "band": np.int16}
        for name, dtype in wanted.items():
            column = getattr(self, name)
            _require(
                column.shape == (n_points,) and column.dtype == dtype,
                f"{name} must be {np.dtype(dtype)} of shape ({n_points},), "
                f"not {column.dtype} {column.shape}",
            )
        return n_points

    def __len__(self) -> int:
        return len(self.id)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of points of each curve, shape (n,)."""
        return np.diff(self.offsets)

    def take(self, rows: Ints | NDArray[np.bool_]) -> "LightCurves":
        """Give the curves asked for, in the order asked for."""
        rows = np.arange(len(self))[rows]
        points, offsets = take_ragged(self.offsets, rows)
        return LightCurves(
            self.id[rows],
            offsets,
            self.mjd[points],
            self.flux[points],
            self.flux_err[points],
            self.band[points],
            self.bands,
            self.flux_unit,
        )


@dataclass(frozen=True)
class Images:
    """Cutouts of objects, one a row, all of one size and in the same bands.

    Args:
        id: Segment keys (one cutout of one object by one instrument), shape (n,).
        pixels: [flux_unit], float32, shape (n, band, y, x); NaN where masked or missing.
        bands: Names of the bands, in the order of the second axis.
        pixel_scale: [arcsec], > 0, or NaN where unknown.
        flux_unit: Unit of the pixels, an ``astropy.units`` string or ``relative``.
        flux_err: One-sigma error of each pixel [flux_unit], float32, > 0 or NaN, of the same
            shape; None where no survey gives one.

    Raises:
        SchemaError: A length, a type or a value is not as promised above.
    """

    id: Strings
    pixels: NDArray[np.float32]
    bands: tuple[str, ...]
    pixel_scale: float = float("nan")
    flux_unit: str = FLUX_UNIT_RELATIVE
    flux_err: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        _check_ids(self.id, "id")
        n = (len(self.id), len(self.bands))
        shape = self.pixels.shape
        _require(
            len(shape) == 4 and shape[:2] == n and self.pixels.dtype == np.float32,
            f"pixels must be float32 of shape {n} + (y, x), not {self.pixels.dtype} {shape}",
        )
        _require(not np.isinf(self.pixels).any(), "pixels must be finite, or NaN where masked")
        _require(not self.pixel_scale <= 0, f"pixel_scale must be > 0, not {self.pixel_scale}")
        if self.flux_err is not None:
            _require(
                self.flux_err.shape == self.pixels.shape and self.flux_err.dtype == np.float32,
                f"flux_err must be float32 of shape {self.pixels.shape}, "
                f"not {self.flux_err.dtype} {self.flux_err.shape}",
            )
            bad = np.asarray(self.flux_err <= 0) | np.isinf(self.flux_err)
            _require(not bad.any(), "flux_err must be > 0 and finite, or NaN where unknown")

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: Ints | NDArray[np.bool_] | slice) -> "Images":
        """Give the images asked for, in the order asked for."""
        return Images(
            self.id[rows],
            self.pixels[rows],
            self.bands,
            self.pixel_scale,
            self.flux_unit,
            None if self.flux_err is None else self.flux_err[rows],
        )


STAMP_CHANNELS = ("new", "reference", "difference")
"""Order of the second axis of stamps, everywhere."""


@dataclass(frozen=True)
class Stamps:
    """Detections of difference imaging: three small cutouts each, the detection at the centre.

    Args:
        id: Key of the detection, shape (n,).
        pixels: [the survey's counts], float32, shape (n, 3, y, x) in the order of
            ``STAMP_CHANNELS``; NaN where there is no measurement; y and x odd, so that one pixel
            is the centre.
        detector: Name of the sensor (and read-out quadrant, if it matters), shape (n,).
        exposure: Key of the exposure, shape (n,).
        object: The object, host or position the detection belongs to, shape (n,): whatever must
            not be divided between training and test.

    Raises:
        SchemaError: A length, a type or a value is not as promised above.
    """

    id: Strings
    pixels: NDArray[np.float32]
    detector: Strings
    exposure: Strings
    object: Strings

    def __post_init__(self) -> None:
        n = len(self.id)
        for name in ("id", "detector", "exposure", "object"):
            column = getattr(self, name)
            _check_ids(column, name)
            _require(column.shape == (n,), f"{name} must have shape ({n},), not {column.shape}")
        shape = self.pixels.shape
        _require(
            len(shape) == 4 and shape[:2] == (n, 3) and self.pixels.dtype == np.float32,
            f"pixels must be float32 of shape ({n}, 3, y, x), not {self.pixels.dtype} {shape}",
        )
        _require(
            shape[2] % 2 == 1 and shape[3] % 2 == 1,
            f"stamps must have odd sides, so that a pixel is the centre, not {shape[2:]}",
        )
        _require(not np.isinf(self.pixels).any(), "pixels must be finite, or NaN where missing")

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: Ints | NDArray[np.bool_] | slice) -> "Stamps":
        """Give the stamps asked for, in the order asked for."""
        return Stamps(
            self.id[rows],
            self.pixels[rows],
            self.detector[rows],
            self.exposure[rows],
            self.object[rows],
        )


@dataclass(frozen=True)
class Latents:
    """The waist of the house: one short vector a segment, whatever it was made from.

    Args:
        id: Segment keys, shape (n,).
        target: The object of each segment, shape (n,).
        vectors: float32, finite, shape (n, d).
        model: Name of the model that made them.
        model_hash: Hash of its weights and recipe.
        ra: ICRS [deg], NaN where unknown, shape (n,).
        dec: ICRS [deg], NaN where unknown, shape (n,).
        error: Mean absolute reconstruction error of each, in units of the curve's own scatter;
            NaN where the model does not reconstruct. Shape (n,).

    Raises:
        SchemaError: A length or a type is not as promised above, or a vector is not finite.
    """

    id: Strings
    target: Strings
    vectors: NDArray[np.float32]
    model: str
    model_hash: str
    ra: Floats
    dec: Floats
    error: Floats

    def __post_init__(self) -> None:
        _check_ids(self.id, "id")
        _check_ids(self.target, "target")
        n = len(self.id)
        _require(
            self.vectors.ndim == 2 and len(self.vectors) == n and self.vectors.dtype == np.float32,
            f"vectors must be float32 of shape ({n}, d), "
            f"not {self.vectors.dtype} {self.vectors.shape}",
        )
        _require(np.isfinite(self.vectors).all(), "vectors must be finite")
        for name in ("target", "ra", "dec", "error"):
            shape = getattr(self, name).shape
            _require(shape == (n,), f"{name} must have shape ({n},), not {shape}")

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: Ints | NDArray[np.bool_] | slice) -> "Latents":
        """Give the rows asked for, in the order asked for."""
        return Latents(
            self.id[rows],
            self.target[rows],
            self.vectors[rows],
            self.model,
            self.model_hash,
            self.ra[rows],
            self.dec[rows],
            self.error[rows],
        )

    def rows(self, ids: Sequence[str] | Strings) -> Ints:
        """Give the row of each id.

        Raises:
            KeyError: An id is not there; the message names the first one missing.
        """
        return _rows(self.id, ids, "latents")


@dataclass(frozen=True)
class Reject:
    """One thing that could not be taken, and why.

    Args:
        source: The file it came from.
        row: Which item of the file, counted from 0; -1 for the file as a whole.
        id: The key it would have had, or an empty string.
        reason: What is wrong, in words a person can act on.
        state: Of the file and the options when it was tried; empty if unknown. Another state may
            be worth another try.
    """

    source: str
    row: int
    id: str
    reason: str
    state: str = ""


def take_ragged(offsets: Ints, rows: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index the points of some rows of a ragged array.

    Args:
        offsets: First point of each row and the end, shape (n + 1,).
        rows: Rows wanted, shape (m,).

    Returns:
        Indices of their points in order, and the offsets of the new array, shape (m + 1,).
    """
    lengths = (offsets[1:] - offsets[:-1])[rows].astype(np.int64)
    new = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=new[1:])
    points = np.arange(new[-1]) + np.repeat(offsets[:-1][rows] - new[:-1], lengths)
    return points, new


def _rows(have: Strings, ids: Sequence[str] | Strings, what: str) -> NDArray[np.int64]:
    order = np.argsort(have, kind="stable")
    wanted = np.asarray(list(ids), dtype=np.str_)
    found = np.searchsorted(have, wanted, sorter=order)
    rows = order[np.minimum(found, len(order) - 1)] if len(order) else found
    missing = np.ones(len(wanted), bool) if not len(order) else have[rows] != wanted
    if missing.any():
        raise KeyError(f"no object {str(wanted[missing][0])!r} among {len(have)} {what}")
    return rows.astype(np.int64)
