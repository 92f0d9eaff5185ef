"""Magnitudes and fluxes."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

AB_ZERO_POINT_UJY = 23.9
"""Magnitude of a source of one microjansky on the AB scale (Oke & Gunn 1983, ApJ 266, 713)."""


def flux_from_magnitude(
    magnitude: Floats,
    magnitude_err: Floats | None = None,
    *,
    zero_point: float = AB_ZERO_POINT_UJY,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn magnitudes into fluxes.

    flux = 10^(0.4 (zero_point - m)), flux_err = flux * 0.4 ln(10) * m_err

    Args:
        magnitude: [mag], shape (n,); NaN stays NaN.
        magnitude_err: [mag], shape (n,); None where unknown.
        zero_point: Magnitude of a source of flux 1. The default gives microjansky for AB.

    Returns:
        Flux and its error in the zero point's unit, shape (n,) each; the error NaN where unknown.
    """
    magnitude = np.asarray(magnitude, np.float64)
    flux = 10 ** (0.4 * (zero_point - magnitude))
    if magnitude_err is None:
        return flux, np.full_like(flux, np.nan)
    return flux, flux * 0.4 * np.log(10) * np.asarray(magnitude_err, np.float64)


def magnitude_from_flux(flux: Floats, *, zero_point: float = AB_ZERO_POINT_UJY) -> np.ndarray:
    """Turn fluxes into magnitudes: m = zero_point - 2.5 log10(flux); NaN where flux <= 0."""
    flux = np.asarray(flux, np.float64)
    return zero_point - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))
