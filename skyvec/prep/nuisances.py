"""What an observation is, apart from its object: how often, how long, how noisy, how bright.

A code should follow the object. These numbers are what an audit holds it against.
"""

import numpy as np
from numpy.typing import NDArray

from skyvec.prep.lightcurves import prepare
from skyvec.schema import Images, LightCurves

Numbers = NDArray[np.float64]


def light_nuisances(curves: LightCurves) -> dict[str, Numbers]:
    """Measure how light curves were observed, NaN where it cannot be said, shape (n,) each.

    Returns:
        ``points``; ``bands`` with points; ``span`` [day]; ``cadence``, the median step [day];
        ``longest_gap`` as a share of the span; ``start`` [MJD]; ``level``, the mean flux over the
        bands; ``snr``, scatter over the median error; ``snr_steps``, scatter over the noise that
        the steps from point to point show, for curves without errors.
    """
    prepared = prepare(curves, round_days=0)
    n = len(curves)
    table = {name: np.full(n, np.nan) for name in ("cadence", "longest_gap", "snr", "snr_steps")}
    for i in range(n):
        own = slice(int(curves.offsets[i]), int(curves.offsets[i + 1]))
        time, error = prepared.time[own], prepared.error[own]
        if len(time) > 1 and time[-1] > 0:
            step = np.diff(time)
            table["cadence"][i] = np.median(step)
            table["longest_gap"][i] = step.max() / time[-1]
        if np.isfinite(error).any():
            table["snr"][i] = 1 / np.nanmedian(error)
        table["snr_steps"][i] = _snr_of_steps(prepared.value[own], prepared.band[own])
    lengths = curves.lengths
    last = prepared.time[np.maximum(curves.offsets[1:] - 1, 0)] if len(prepared.time) else lengths
    known = np.isfinite(prepared.level)
    level = np.where(known, prepared.level, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    some = lengths > 0
    return {
        "points": lengths.astype(np.float64),
        "bands": known.sum(axis=1).astype(np.float64),
        "span": np.where(some, last, np.nan),
        **table,
        "start": np.where(some, prepared.start, np.nan),
        "level": np.where(some, level, np.nan),
    }


def _snr_of_steps(value: NDArray[np.float32], band: NDArray[np.int16]) -> float:
    """Deviation 1 of a prepared curve over the noise of its steps: 1.4826 median |dx| / sqrt 2."""
    order = np.argsort(band, kind="stable")
    step = np.abs(np.diff(value[order]))[np.diff(band[order]) == 0]
    noise = 1.4826 * float(np.median(step)) / np.sqrt(2) if len(step) else 0.0
    return 1 / noise if noise > 0 else float("nan")


def image_nuisances(images: Images) -> dict[str, Numbers]:
    """Measure how images were taken, NaN where it cannot be said, shape (n,) each.

    Returns:
        ``background``, the median pixel; ``noise``, 1.4826 median |step| / sqrt 2 between pixels
        side by side; ``brightness``, the sum above the background; ``snr``, that over the noise of
        as many pixels; ``missing``, the share of pixels without a value; ``off_centre``, from the
        middle to the centre of light [pixel].
    """
    n = len(images)
    names = ("background", "noise", "brightness", "snr", "missing", "off_centre")
    table = {name: np.full(n, np.nan) for name in names}
    for i, image in enumerate(images.pixels.astype(np.float64)):
        seen = np.isfinite(image)
        table["missing"][i] = 1 - seen.mean()
        if not seen.any():
            continue
        background = float(np.median(image[seen]))
        light = np.where(seen, image - background, 0.0)
        step = np.abs(np.diff(image, axis=-1))
        step = step[np.isfinite(step)]
        noise = 1.4826 * float(np.median(step)) / np.sqrt(2) if len(step) else 0.0
        total = float(light.sum())
        table["background"][i], table["noise"][i] = background, noise
        table["brightness"][i] = total
        if noise > 0:
            table["snr"][i] = total / (noise * np.sqrt(seen.sum()))
        table["off_centre"][i] = _off_centre(np.maximum(light.sum(axis=0), 0))
    return table


def _off_centre(light: Numbers) -> float:
    """From the middle to the centre of light [pixel]; NaN where there is no light, (y, x)."""
    total = light.sum()
    if total <= 0:
        return float("nan")
    y, x = np.indices(light.shape)
    middle = (np.array(light.shape) - 1) / 2
    return float(
        np.hypot((y * light).sum() / total - middle[0], (x * light).sum() / total - middle[1])
    )
