"""The 38 numbers of DES autoScan: what a random forest sees of a detection.

Made for stamps of 51 pixels and a catalogue beside them; both may be smaller here. What the
catalogue would tell and does not is measured on the stamps where that is possible (brightness,
shape, signal to noise), and is NaN where it is not; a forest's imputer fills it.

References:
    Goldstein et al. 2015, AJ 150, 82, table 1, and its published feature code.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from skyvec.prep.stamps import mask_sentinels

Float = NDArray[np.float64]

NAMES = (
    *("gflux", "diffsumrn", "numnegrn", "mag", "a_image", "b_image", "flags"),
    *("mag_ref", "mag_ref_err", "a_ref", "b_ref", "bandnum"),
    *("n2sig3", "n3sig3", "n2sig5", "n3sig5", "n3sig5shift", "n2sig5shift"),
    *("n2sig3shift", "n3sig3shift", "ellipticity", "nn_dist_renorm", "maglim"),
    *("min_distance_to_edge_in_new", "ccdid", "snr", "mag_from_limit", "magdiff"),
    *("spread_model", "spreaderr_model", "flux_ratio", "lacosmic", "gauss", "scale", "amp"),
    *("colmeds", "maskfrac", "l1"),
)
"""The features in the order of the paper's table."""

CATALOGUE = (
    *("flux", "mag", "a_image", "b_image", "flags", "mag_ref", "mag_ref_err", "a_ref", "b_ref"),
    *("bandnum", "nn_dist_renorm", "edge", "ccdid", "snr", "limmag"),
    *("spread_model", "spreaderr_model", "galflux"),
)
"""What a catalogue may tell of a detection; ``edge`` is its distance to the sensor's edge [px]."""

MAD_TO_SIGMA = 1.4826
APERTURE = 5.0
"""[px] Radius in which fluxes are summed on the stamps."""
CHUNK = 2000
_SIGMAS = np.geomspace(0.6, 12.0, 25)


def features(
    pixels: np.ndarray,
    catalogue: Mapping[str, np.ndarray] | None = None,
    *,
    null: float | None = None,
) -> Float:
    """Measure the 38 features of stamps.

    Args:
        pixels: New, reference and difference, shape (n, 3, side, side), side odd and >= 15; NaN
            and sentinels mark what is missing.
        catalogue: Columns of ``CATALOGUE``, shape (n,) each; those that are not there are measured
            on the stamps or NaN.
        null: A value that marks missing pixels, such as autoScan's own 1e-30.

    Returns:
        shape (n, 38), in the order of ``NAMES``; NaN where something is not known.

    Raises:
        ValueError: The stamps have another form, or a column another length or name.
    """
    n = len(pixels)
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3]:
        raise ValueError(f"stamps have the shape (n, 3, side, side), not {pixels.shape}")
    if pixels.shape[2] % 2 == 0 or pixels.shape[2] < 15:
        raise ValueError(f"stamps must have an odd side of at least 15 px, not {pixels.shape[2]}")
    known = dict(catalogue or {})
    for name, column in known.items():
        if name not in CATALOGUE:
            raise ValueError(f"no catalogue column {name!r}; there are {', '.join(CATALOGUE)}")
        if np.shape(column) != (n,):
            raise ValueError(f"the column {name!r} must have shape ({n},), not {np.shape(column)}")
    parts = [
        _chunk(
            mask_sentinels(pixels[first : first + CHUNK], null=null).astype(np.float64),
            {k: np.asarray(v[first : first + CHUNK], np.float64) for k, v in known.items()},
        )
        for first in range(0, n, CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(NAMES)))


def _chunk(pixels: Float, known: Mapping[str, Float]) -> Float:
    n, side = len(pixels), pixels.shape[2]
    new, template, difference = pixels[:, 0], pixels[:, 1], pixels[:, 2]
    nan = np.full(n, np.nan)
    fluxes = [aperture_flux(image, APERTURE) for image in (new, template, difference)]
    measured = shape(difference)

    def column(name: str, otherwise: Float) -> Float:
        return known.get(name, otherwise)

    flux = column("flux", measured["flux"])
    limit = column("limmag", nan)
    magnitude = column("mag", _magnitude(flux))
    major, minor = column("a_image", measured["a"]), column("b_image", measured["b"])
    reference = column("mag_ref", nan)
    has_source = np.isfinite(column("nn_dist_renorm", nan)) | np.isfinite(reference)
    galaxy = column("galflux", fluxes[0] - fluxes[2])
    found: dict[str, Float] = {
        "gflux": _divide(galaxy + flux, flux),
        "mag": magnitude,
        "a_image": major,
        "b_image": minor,
        "flags": column("flags", nan),
        "mag_ref": reference,
        "mag_ref_err": column("mag_ref_err", nan),
        "a_ref": column("a_ref", nan),
        "b_ref": column("b_ref", nan),
        "bandnum": column("bandnum", nan),
        "ellipticity": np.where(major == 0, 1.0, 1 - _divide(minor, major)),
        "nn_dist_renorm": column("nn_dist_renorm", nan),
        "maglim": (~has_source).astype(np.float64)
        if "nn_dist_renorm" in known or "mag_ref" in known
        else nan,
        "min_distance_to_edge_in_new": column("edge", nan),
        "ccdid": column("ccdid", nan),
        "snr": column("snr", measured["snr"]),
        "mag_from_limit": limit - magnitude,
        "magdiff": np.where(has_source, reference, limit) - magnitude,
        "spread_model": column("spread_model", nan),
        "spreaderr_model": column("spreaderr_model", nan),
        "flux_ratio": _divide(fluxes[2] - fluxes[1], np.abs(fluxes[1])),
        "maskfrac": np.isnan(difference).mean(axis=(1, 2)),
    }
    found |= _counts(compress(difference), compress(template))
    found |= _profile(scaled(difference), side)
    return np.column_stack([found[name] for name in NAMES])


def compress(images: Float) -> Float:
    """G: means of 2 x 2 pixels (an odd last row and column dropped), in sigmas of the stamp.

    (p - median) / (1.4826 MAD) over what was measured; a block is the mean of its measured
    pixels, NaN if there are none. Where the MAD is 0 everything is 0.

    Args:
        images: shape (n, side, side), NaN where missing.

    Returns:
        shape (n, side // 2, side // 2).
    """
    n, half = len(images), images.shape[1] // 2
    blocks = images[:, : 2 * half, : 2 * half].reshape(n, half, 2, half, 2)
    there = np.isfinite(blocks)
    count = there.sum(axis=(2, 4))
    total = np.where(there, blocks, 0).sum(axis=(2, 4))
    means = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    flat = means.reshape(n, -1)
    centred = flat - _median(flat)[:, None]
    sigma = MAD_TO_SIGMA * _median(np.abs(centred))
    return _divide(centred, sigma[:, None], otherwise=0.0).reshape(means.shape)


def scaled(images: Float) -> Float:
    """Bk: (p - median) / max |p| over what was measured; NaN stays. A flat stamp is 0."""
    flat = images.reshape(len(images), -1)
    centred = flat - _median(flat)[:, None]
    largest = np.where(np.isfinite(flat), np.abs(flat), 0).max(axis=1)
    return _divide(centred, largest[:, None], otherwise=0.0).reshape(images.shape)


def _counts(difference: Float, template: Float) -> dict[str, Float]:
    """Sums and counts in the boxes of 5 and 7 compressed pixels around the middle."""
    boxes = {}
    for size in (5, 7):
        # the detection, pixel side // 2 of the stamp, lies in this block
        middle = difference.shape[1] // 2
        rows = slice(middle - size // 2, middle + size // 2 + 1)
        boxes[size] = difference[:, rows, rows], template[:, rows, rows]

    def count(condition: np.ndarray) -> Float:
        return np.asarray(condition.sum(axis=(1, 2)), np.float64)

    with np.errstate(invalid="ignore"):  # NaN is on no side of a limit
        d5, t5 = boxes[5]
        d7, t7 = boxes[7]
        return {
            "diffsumrn": np.nansum(d5, axis=(1, 2)),
            "numnegrn": count(d7 < 0),
            "n2sig3": count(d5 <= -2),
            "n3sig3": count(d5 <= -3),
            "n2sig5": count(d7 <= -2),
            "n3sig5": count(d7 <= -3),
            "n3sig5shift": count(d7 >= 3) - count(t7 >= 3),
            "n2sig5shift": count(d7 >= 2) - count(t7 >= 2),
            "n2sig3shift": count(d5 >= 2) - count(t5 >= 2),
            "n3sig3shift": count(d5 >= 3) - count(t5 >= 3),
        }


def _profile(images: Float, side: int) -> dict[str, Float]:
    """What the scaled difference looks like: cosmic rays, a Gaussian, bad columns, its sums."""
    filled = np.nan_to_num(images)
    fine = median_filter(filled, size=(1, 3, 3), mode="mirror")
    smooth = fine - median_filter(fine, size=(1, 7, 7), mode="mirror")
    peak = filled.max(axis=(1, 2))
    chi2, sigma, height = fit_gaussian(images)
    # a column without pixels has no median and cannot be the worst
    columns = _median(np.moveaxis(images, 2, 1).reshape(-1, side)).reshape(len(images), side)
    total = np.nansum(images, axis=(1, 2))
    return {
        "lacosmic": _divide(peak, smooth.max(axis=(1, 2))),
        "gauss": chi2,
        "scale": sigma,
        "amp": height,
        "colmeds": np.where(np.isfinite(columns), columns, -np.inf).max(axis=1, initial=-1.0),
        "l1": np.sign(total)
        * _divide(np.nansum(np.abs(images), axis=(1, 2)), np.sqrt(np.abs(total))),
    }


def fit_gaussian(images: Float) -> tuple[Float, Float, Float]:
    """Fit A exp(-r^2 / 2 s^2), its centre within half a pixel of the middle.

    Amplitude by least squares for each of 25 widths and 9 centres, the width then refined by a
    parabola through the three best: as good as an iteration's, and never astray.

    Args:
        images: shape (n, side, side), NaN where missing.

    Returns:
        Sum of squared residuals, sigma [px] and amplitude, shape (n,) each; NaN of an empty stamp.
    """
    n, side = len(images), images.shape[1]
    there = np.isfinite(images).reshape(n, -1)
    flat = np.nan_to_num(images).reshape(n, -1)
    power = (flat**2).sum(axis=1)
    grid = np.arange(side) - side // 2
    best = np.full((n, len(_SIGMAS)), np.inf)
    amplitude = np.zeros((n, len(_SIGMAS)))
    whole = bool(there.all())
    for k, sigma in enumerate(_SIGMAS):
        along = [np.exp(-0.5 * ((grid - shift) / sigma) ** 2) for shift in (-0.5, 0.0, 0.5)]
        models = np.array([np.outer(y, x).ravel() for y in along for x in along])
        top = flat @ models.T
        squares = (models**2).sum(axis=1)
        bottom = np.broadcast_to(squares, top.shape) if whole else there @ (models**2).T
        rest = power[:, None] - _divide(top**2, bottom, otherwise=0.0)
        choice = rest.argmin(axis=1)
        rows = np.arange(n)
        best[:, k] = rest[rows, choice]
        amplitude[:, k] = _divide(top[rows, choice], bottom[rows, choice], otherwise=0.0)
    rows, k = np.arange(n), best.argmin(axis=1)
    inner = np.clip(k, 1, len(_SIGMAS) - 2)
    left, middle, right = (best[rows, inner + d] for d in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = np.clip(_divide(0.5 * (left - right), bend, otherwise=0.0), -1, 1)
    offset = np.where(inner == k, offset, 0.0)
    sigma = _SIGMAS[k] * (_SIGMAS[1] / _SIGMAS[0]) ** offset
    empty = ~there.any(axis=1)
    chi2 = np.maximum(best[rows, k], 0)
    return tuple(np.where(empty, np.nan, v) for v in (chi2, sigma, amplitude[rows, k]))  # type: ignore[return-value]


def aperture_flux(images: Float, radius: float) -> Float:
    """Sum of the pixels whose centre lies within a radius of the middle, missing ones 0."""
    grid = np.arange(images.shape[1]) - images.shape[1] // 2
    inside = np.hypot(grid[:, None], grid[None, :]) <= radius
    return np.asarray(np.nansum(images[:, inside], axis=1))


def shape(images: Float) -> dict[str, Float]:
    """Flux, semi-axes and signal to noise of the source in the middle, in SExtractor's manner.

    Second moments of the pixels above 1.5 sigma within 7 px, flux in an aperture of 5 px over the
    stamp's median, noise from its MAD.

    Returns:
        ``flux``, ``a``, ``b`` [px] and ``snr``, shape (n,) each.
    """
    n, side = len(images), images.shape[1]
    flat = images.reshape(n, -1)
    middle = _median(flat)
    sigma = MAD_TO_SIGMA * _median(np.abs(flat - middle[:, None]))
    centred = images - middle[:, None, None]
    grid = np.arange(side) - side // 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    near = np.hypot(x, y) <= min(7, side // 2)
    light = np.where((centred > 1.5 * sigma[:, None, None]) & near, np.nan_to_num(centred), 0.0)
    total = light.sum(axis=(1, 2))

    def mean(weights: np.ndarray) -> Float:
        return _divide((light * weights).sum(axis=(1, 2)), total)

    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    spread = np.sqrt(np.maximum(((xx - yy) / 2) ** 2 + xy**2, 0))
    flux = aperture_flux(centred, APERTURE)
    inside = np.isfinite(images) & (np.hypot(x, y) <= APERTURE)
    noise = sigma * np.sqrt(inside.sum(axis=(1, 2)))
    return {
        "flux": flux,
        "a": np.sqrt(np.maximum((xx + yy) / 2 + spread, 0)),
        "b": np.sqrt(np.maximum((xx + yy) / 2 - spread, 0)),
        "snr": _divide(flux, noise),
    }


def _magnitude(flux: Float) -> Float:
    positive = flux > 0
    return np.where(positive, -2.5 * np.log10(np.where(positive, flux, 1.0)), np.nan)


def _divide(top: np.ndarray, bottom: np.ndarray, otherwise: float = np.nan) -> Float:
    """Divide; another value where nothing would be divided by; NaN stays NaN."""
    top, bottom = np.broadcast_arrays(np.asarray(top, np.float64), bottom)
    out = np.where(np.isnan(top), np.nan, otherwise)
    return np.divide(top, bottom, out=out, where=bottom != 0)


def _median(values: Float) -> Float:
    """Median of each row over its finite values, NaN of a row without any."""
    ordered = np.sort(values, axis=1)  # NaN goes to the end
    count = np.isfinite(ordered).sum(axis=1)
    rows = np.arange(len(values))
    low = ordered[rows, np.maximum((count - 1) // 2, 0)]
    high = ordered[rows, np.minimum(count // 2, values.shape[1] - 1)]
    return np.where(count > 0, (low + high) / 2, np.nan)
