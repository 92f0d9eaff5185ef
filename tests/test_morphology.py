"""Shapes by hand: truth (closed forms, simulated galaxies), rival (statmorph), contract (NaN)."""

import warnings

import numpy as np
import pytest

from skyvec.prep.codes import FeatureCode, PixelsCode, pixel_table
from skyvec.prep.morphology import SHAPES, shape_names, shape_statistics
from skyvec.sim.galaxies import Telescope, simulate_galaxies

SIDE = 64


def blob(*, axis_ratio=1.0, scale=5.0, side=SIDE, dy=0.0, dx=0.0, power=1.0):
    y, x = np.indices((side, side)) - (side - 1) / 2
    r = np.hypot(x - dx, (y - dy) / axis_ratio)
    return 100 * np.exp(-((r / scale) ** power))


def measure(*images, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    pixels = np.stack([np.stack([image] * 2) for image in images])
    pixels = pixels + noise * rng.standard_normal(pixels.shape)
    table = shape_statistics(pixels.astype(np.float32))
    return {name: table[:, i] for i, name in enumerate(shape_names(2))}


def test_names_and_shape_agree():
    assert shape_statistics(np.zeros((2, 3, 32, 32), np.float32)).shape == (2, len(SHAPES) + 2)
    assert len(shape_names(3)) == len(SHAPES) + 2
    with pytest.raises(ValueError, match="must have shape"):
        shape_statistics(np.zeros((2, 3, 32, 30), np.float32))


def test_ellipticity_is_that_of_the_truth():
    found = measure(*(blob(axis_ratio=q) for q in (1.0, 0.7, 0.4)))
    assert found["ellipticity"] == pytest.approx([0.0, 0.3, 0.6], abs=0.04)


def test_half_light_of_an_exponential_disc():
    found = measure(blob(scale=4.0))
    assert 10 ** found["half_light"][0] * SIDE == pytest.approx(1.678 * 4, rel=0.08)
    # eta = 0.2 at 3.63 scale lengths of an exponential (numerically)
    assert 10 ** found["petrosian"][0] * SIDE == pytest.approx(3.63 * 4, rel=0.08)


def test_what_is_symmetric_has_no_asymmetry_and_what_is_not_has():
    lopsided = blob() + 60 * np.exp(
        -((np.indices((SIDE, SIDE)) - np.array([[[25.0]], [[38.0]]])) ** 2).sum(0) / 8
    )
    found = measure(blob(), blob(dy=0.5, dx=-1.0), lopsided, noise=0.5)
    assert np.abs(found["asymmetry"][:2]).max() < 0.05
    assert found["asymmetry"][2] > 0.15
    assert found["second_peak"][0] < 0.02 < 0.1 < found["second_peak"][2]


def test_a_turned_galaxy_has_the_same_shapes():
    rng = np.random.default_rng(0)
    ((_, images),) = simulate_galaxies(6, rng, artefacts=0.0)
    table = shape_statistics(images.pixels)
    turned = shape_statistics(np.rot90(images.pixels, 1, (2, 3)).copy())
    # the walk of the centre may end half a pixel beside
    assert np.nanmedian(np.abs(table - turned)) < 0.02


@pytest.mark.slow
def test_concentration_asymmetry_gini_and_m20_agree_with_statmorph():
    statmorph = pytest.importorskip("statmorph")
    sharp = Telescope("t", 0.4, 0.8, 3.5, (0.002, 0.002, 0.002), 1e5)
    (_, images), = simulate_galaxies(
        10, np.random.default_rng(5), telescopes=[sharp], artefacts=0.0,
        kinds=("elliptical", "spiral", "disc"),
    )  # fmt: skip
    table = shape_statistics(images.pixels)
    theirs = []
    for image in images.pixels.mean(1).astype(np.float64):
        segment = (image > 5 * 0.002 * 0.4).astype(np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = statmorph.SourceMorphology(image, segment, 1, gain=1e4)
        theirs.append([found.concentration, found.asymmetry, found.gini, found.m20])
    ours = table[:, [SHAPES.index(n) for n in ("concentration", "asymmetry", "gini", "m20")]]
    for i, least in enumerate((0.85, 0.7, 0.7, 0.7)):
        assert np.corrcoef(ours[:, i], np.array(theirs)[:, i])[0, 1] > least
    assert np.median(np.abs(ours[:, 0] - np.array(theirs)[:, 0])) < 0.3


def test_nothing_measured_is_nan_and_never_zero():
    noise = np.random.default_rng(0).normal(size=(1, 2, 32, 32)).astype(np.float32)
    empty = np.full((1, 2, 32, 32), np.nan, np.float32)
    table = shape_statistics(np.concatenate([0.01 * noise * 0, empty]))
    assert np.isnan(table[1]).all()
    holed = blob()[None, None].repeat(2, 1).astype(np.float32)
    holed[:, :, 20:24, 40:] = np.nan
    holed += 0.05 * np.random.default_rng(1).standard_normal(holed.shape).astype(np.float32)
    assert np.isfinite(shape_statistics(holed)).all()


def test_a_band_of_other_flux_is_a_colour():
    pixels = np.stack([blob(), 2.512 * blob()])[None].astype(np.float32)
    pixels += 0.01 * np.random.default_rng(0).standard_normal(pixels.shape).astype(np.float32)
    assert shape_statistics(pixels)[0, -1] == pytest.approx(1.0, abs=0.01)


def test_shapes_make_a_code():
    ((_, images),) = simulate_galaxies(30, np.random.default_rng(2))
    table = shape_statistics(images.pixels)
    code = FeatureCode.fit(table).transform(table)
    assert np.isfinite(code.vectors).all() and code.vectors.shape[0] == 30


def test_pixel_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    pixels = np.random.default_rng(0).normal(size=(60, 2, 6, 6)).astype(np.float32)
    table = pixel_table(pixels)
    ours = PixelsCode.fit(table).transform(table).vectors
    theirs = PCA(40, svd_solver="full").fit_transform(pixels.reshape(60, -1))
    # the range finder gives the leading axes exactly, the last ones of white noise nearly
    assert np.abs(ours[:, :10]) == pytest.approx(np.abs(theirs[:, :10]), abs=1e-3)
    code = PixelsCode.fit(table)
    assert np.array_equal(PixelsCode.from_arrays(code.arrays()).transform(table).vectors, ours)


def test_a_missing_pixel_takes_the_median_of_the_training_part():
    pixels = np.random.default_rng(0).normal(size=(20, 1, 4, 4)).astype(np.float32)
    code = PixelsCode.fit(pixel_table(pixels))
    holed, filled = pixels[:1].copy(), pixels[:1].copy()
    holed[0, 0, 1, 1], filled[0, 0, 1, 1] = np.nan, np.median(pixels[:, 0, 1, 1])
    vectors = [code.transform(pixel_table(image)).vectors for image in (holed, filled)]
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)
