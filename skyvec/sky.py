"""Places on the sky: cells and separations."""

import numpy as np
from astropy_healpix import HEALPix
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def healpix_cell(ra: Floats, dec: Floats, *, order: int = 29) -> np.ndarray:
    """Give the nested HEALPix cell of each position (Gorski et al. 2005, ApJ 622, 759).

    Args:
        ra: ICRS [deg], shape (n,).
        dec: ICRS [deg], shape (n,).
        order: Level of the cells; 29 is the finest and the one HATS catalogues carry.

    Returns:
        Cell numbers, int64, shape (n,); -1 where a coordinate is NaN.
    """
    known = np.isfinite(ra) & np.isfinite(dec)
    cells = np.full(len(ra), -1, np.int64)
    grid = HEALPix(nside=2**order, order="nested")
    if known.any():
        from astropy import units as u

        cells[known] = grid.lonlat_to_healpix(ra[known] * u.deg, dec[known] * u.deg)
    return cells


def separation(ra1: Floats, dec1: Floats, ra2: Floats, dec2: Floats) -> np.ndarray:
    """Give the angle between positions [deg], by the haversine formula; NaN stays NaN."""
    a1, d1, a2, d2 = (np.radians(np.asarray(x, np.float64)) for x in (ra1, dec1, ra2, dec2))
    h = np.sin((d2 - d1) / 2) ** 2 + np.cos(d1) * np.cos(d2) * np.sin((a2 - a1) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(h, 0, 1))))


def cone_cells(ra: float, dec: float, radius: float) -> np.ndarray:
    """Cover a cone by HEALPix cells, each given as its range of finest cells.

    Args:
        ra: Centre, ICRS [deg].
        dec: Centre, ICRS [deg].
        radius: [deg], > 0.

    Returns:
        First finest cell and the end of each cell that touches the cone, shape (m, 2).
    """
    from astropy import units as u

    order = int(np.clip(np.ceil(np.log2(8 * 58.6 / radius)), 0, 29))
    grid = HEALPix(nside=2**order, order="nested")
    cells = grid.cone_search_lonlat(ra * u.deg, dec * u.deg, radius * u.deg).astype(np.int64)
    first = np.sort(cells) << 2 * (29 - order)
    return np.stack([first, first + (np.int64(1) << 2 * (29 - order))], axis=1)
