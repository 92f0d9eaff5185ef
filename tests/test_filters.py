"""Truth and rival: conditions against numpy, cones against astropy, polygons against mocpy."""

import numpy as np
import pytest

from skyvec.analysis import filters
from skyvec.schema import Catalog


def catalogue(n=2000):
    rng = np.random.default_rng(4)
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra[7], dec[7] = np.nan, np.nan
    ids = np.array([f"o{i}" for i in range(n)])
    mag = rng.uniform(8, 16, n)
    mag[3] = np.nan
    return Catalog(
        ids,
        ids,
        ra,
        dec,
        {
            "tmag": mag,
            "sector": rng.integers(1, 5, n),
            "label": rng.choice(np.array(["RR", "EW", ""]), n),
        },
    )


SKY = catalogue()
MAG, SECTOR, LABEL = SKY.columns["tmag"], SKY.columns["sector"], SKY.columns["label"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("tmag < 12", MAG < 12),
        ("9 <= tmag < 12", (MAG >= 9) & (MAG < 12)),
        ("tmag < 12 and label == 'RR'", (MAG < 12) & (LABEL == "RR")),
        ("not (tmag < 12) or sector in (1, 2)", ~(MAG < 12) | np.isin(SECTOR, [1, 2])),
        ("label not in ('RR', 'EW')", LABEL == ""),
        ("tmag - 2 * sector > -1.5", MAG - 2 * SECTOR > -1.5),
        ("id == 'o12'", np.arange(2000) == 12),
    ],
)
def test_conditions_equal_numpy(condition, expected):
    np.testing.assert_array_equal(filters.where(SKY, condition), expected)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("tmga < 3", "no column 'tmga'.*tmag"),
        ("tmag <", "cannot read"),
        ("tmag + 1", "is no condition"),
        ("__import__('os').system('x')", "not understood"),
        ("label < 3", "text in quotes"),
        ("sector in 3", "wants a list"),
        ("label[0] == 'R'", "not understood"),
    ],
)
def test_other_conditions_are_refused(condition, message):
    with pytest.raises(ValueError, match=message):
        filters.where(SKY, condition)


def test_a_cone_equals_astropy_and_unknown_places_are_outside():
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    places = SkyCoord(np.nan_to_num(SKY.ra) * u.deg, np.nan_to_num(SKY.dec) * u.deg)
    for ra, dec, radius in [(1.0, 0.0, 20.0), (180, 89, 15), (359.9, -45, 5)]:
        expected = places.separation(SkyCoord(ra * u.deg, dec * u.deg)).deg <= radius
        expected[7] = False
        np.testing.assert_array_equal(filters.cone(SKY, ra, dec, radius), expected)
    with pytest.raises(ValueError, match="radius"):
        filters.cone(SKY, 0, 0, -1)


def test_a_polygon_equals_its_half_spaces_whichever_way_round():
    square = np.array([[350, -10], [10, -10], [10, 10], [350, 10]], float)
    inside = filters.polygon(SKY, square)
    np.testing.assert_array_equal(inside, filters.polygon(SKY, square[::-1]))
    # the meridians are great circles; the parallels bulge by less than 0.3 degrees here
    offset = (SKY.ra + 180) % 360 - 180
    clear = (np.abs(offset) < 10) & (np.abs(SKY.dec) < 10)
    wide = (np.abs(offset) <= 10) & (np.abs(SKY.dec) < 10.3)
    assert clear.sum() > 10 and (inside[clear]).all() and wide[inside].all()
    with pytest.raises(ValueError, match="not convex"):
        filters.polygon(SKY, np.array([[0, 0], [10, 0], [2, 2], [0, 10]], float))


def test_a_moc_holds_what_is_in_its_cone(tmp_path):
    mocpy = pytest.importorskip("mocpy")
    from astropy import units as u
    from astropy.coordinates import Latitude, Longitude

    coverage = mocpy.MOC.from_cone(
        Longitude(40 * u.deg), Latitude(10 * u.deg), radius=15 * u.deg, max_depth=10
    )
    coverage.save(str(tmp_path / "c.fits"), format="fits")
    inside = filters.moc(SKY, tmp_path / "c.fits")
    np.testing.assert_array_equal(
        inside & filters.cone(SKY, 40, 10, 15), filters.cone(SKY, 40, 10, 15)
    )
    assert not (inside & ~filters.cone(SKY, 40, 10, 15.1)).any()
