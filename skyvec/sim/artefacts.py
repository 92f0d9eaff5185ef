"""What is no galaxy: satellite trails, saturated stars, ghosts and gaps, put into an image."""

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

ARTEFACTS = ("trail", "saturated", "ghost", "gap")


def inject(image: Image, kind: str, rng: np.random.Generator) -> Image:
    """Put an artefact into an image, simulated or real.

    * ``trail``: a straight line across the image, a pixel or two wide, as bright as the
      brightest pixels, in one band (what moves is there in one exposure) or in all;
    * ``saturated``: a star far brighter than all else, cut at one level, with diffraction spikes
      and a bleeding column;
    * ``ghost``: a large faint disc with a hole, a reflection out of focus;
    * ``gap``: a strip of columns or rows that were not measured, NaN.

    Args:
        image: Shape (C, y, x); NaN stays NaN. It is not changed.
        kind: One of ``ARTEFACTS``.
        rng: Draws place, direction and strength.

    Returns:
        Shape (C, y, x).

    Raises:
        ValueError: An unknown kind, or nothing measured to compare with.
    """
    if kind not in ARTEFACTS:
        raise ValueError(f"unknown artefact {kind!r}; choose from {', '.join(ARTEFACTS)}")
    if np.isnan(image).all():
        raise ValueError("an image without a measured pixel tells no brightness to go by")
    bands, y, x = image.shape
    sky = float(np.nanmedian(image))
    bright = max(float(np.nanquantile(image, 0.998) - sky), 1e-6)
    row, column = np.indices((y, x)).astype(np.float64)
    if kind == "gap":
        made = image.copy()
        width = int(rng.integers(2, max(3, min(y, x) // 6)))
        across = int(rng.integers(2))
        start = int(rng.integers(image.shape[across + 1] - width))
        np.moveaxis(made, across + 1, 0)[start : start + width] = np.nan
        return made
    if kind == "trail":
        angle = rng.uniform(0, np.pi)
        offset = rng.uniform(-0.3, 0.3) * min(y, x)
        from_middle = (row - (y - 1) / 2) * np.cos(angle) - (column - (x - 1) / 2) * np.sin(angle)
        width = rng.uniform(0.6, 1.4) * min(y, x) / 64
        light = np.exp(-(((from_middle - offset) / width) ** 2) / 2) * rng.uniform(0.7, 1.5)
        seen = np.zeros(bands)
        seen[rng.integers(bands)] = 1.0
        if rng.random() < 0.4:
            seen[:] = 1.0
        return _added(image, bright * seen[:, None, None] * light)
    dy, dx = row - rng.uniform(0.12, 0.88) * y, column - rng.uniform(0.12, 0.88) * x
    far = np.hypot(dy, dx) * 64 / min(y, x)
    if kind == "ghost":
        radius = rng.uniform(9, 18)
        light = ((far < radius) & (far > 0.4 * radius)) * rng.uniform(0.15, 0.4)
        return _added(image, bright * rng.uniform(0.5, 1, (bands, 1, 1)) * light)
    unit = min(y, x) / 64
    light = 30 / (1 + (far / 1.6) ** 2) ** 1.8
    spikes = 3 * np.exp(-np.minimum(np.abs(dy), np.abs(dx)) / (0.7 * unit)) * np.exp(-far / 14)
    bleeding = 2.0 * (np.abs(dx) < 1.2 * unit) * (np.abs(dy) < rng.uniform(10, 40) * unit)
    flux = bright * (light + spikes + bleeding)
    full = sky + bright * rng.uniform(1.0, 1.6)
    return np.minimum(_added(image, np.repeat(flux[None], bands, axis=0)), np.float32(full))


def _added(image: Image, light: NDArray[np.floating]) -> Image:
    return (image + light).astype(np.float32)
