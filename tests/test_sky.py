"""Truth and rival: separations against astropy, cells against their definition, magnitudes."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from skyvec import photometry, sky


def test_separation_equals_astropy():
    rng = np.random.default_rng(1)
    ra1, ra2 = rng.uniform(0, 360, (2, 200))
    dec1, dec2 = np.degrees(np.arcsin(rng.uniform(-1, 1, (2, 200))))
    ra2[:50], dec2[:50] = ra1[:50] + 1e-7, dec1[:50]  # milliarcseconds apart
    expected = SkyCoord(ra1 * u.deg, dec1 * u.deg).separation(SkyCoord(ra2 * u.deg, dec2 * u.deg))
    np.testing.assert_allclose(sky.separation(ra1, dec1, ra2, dec2), expected.deg, atol=1e-11)


def test_cells_nest_and_unknown_places_have_none():
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 100), np.degrees(np.arcsin(rng.uniform(-1, 1, 100)))
    ra[3] = np.nan
    fine, coarse = sky.healpix_cell(ra, dec), sky.healpix_cell(ra, dec, order=5)
    assert fine[3] == coarse[3] == -1
    known = np.arange(100) != 3
    np.testing.assert_array_equal(fine[known] >> (2 * (29 - 5)), coarse[known])
    # the first nested base cell is centred on ra 45, dec 41.81
    assert sky.healpix_cell(np.array([45.0]), np.array([41.81]), order=0).tolist() == [0]


def test_magnitudes_and_fluxes_are_inverse_and_follow_the_definition():
    flux, flux_err = photometry.flux_from_magnitude(
        np.array([23.9, 21.4]), np.array([0.1, np.nan])
    )
    np.testing.assert_allclose(flux, [1.0, 10.0])
    assert flux_err[0] == pytest.approx(0.1 * np.log(10) / 2.5) and np.isnan(flux_err[1])
    magnitude = photometry.magnitude_from_flux(np.append(flux, [-1.0, 0.0]))
    np.testing.assert_allclose(magnitude, [23.9, 21.4, np.nan, np.nan])
