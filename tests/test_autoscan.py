"""The features of autoScan: truth (hand-computed stamps, closed forms), rival (SciPy's fit)."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from skyvec.prep.autoscan import (
    CATALOGUE,
    NAMES,
    aperture_flux,
    compress,
    features,
    fit_gaussian,
    scaled,
    shape,
)
from skyvec.realbogus.forest import features as forest_features
from skyvec.schema import Stamps


def gaussian(side=51, sigma=2.0, height=1.0, dx=0.0, dy=0.0, stretch=1.0):
    grid = np.arange(side) - side // 2
    x, y = (grid - dx) / stretch, (grid - dy) * stretch
    return height * np.exp(-0.5 * (x[None] ** 2 + y[:, None] ** 2) / sigma**2)


def noise(n=1, side=51, sigma=1.0, seed=0):
    return np.random.default_rng(seed).normal(0, sigma, (n, 3, side, side))


def get(pixels, catalogue=None, **options):
    return dict(zip(NAMES, features(pixels, catalogue, **options).T))


def test_there_are_38():
    assert len(NAMES) == len(set(NAMES)) == 38
    assert features(noise(3)).shape == (3, 38)
    assert features(noise(0)).shape == (0, 38)


def test_a_detector_has_one_number_whichever_others_are_there():
    def numbers(detectors):
        ids = np.array([f"i{k}" for k in range(len(detectors))])
        stamps = Stamps(ids, noise(len(ids), 29).astype(np.float32), np.array(detectors), ids, ids)
        return dict(zip(NAMES, forest_features(stamps).T))["ccdid"]

    assert numbers(["d00", "d05", "d12"]).tolist() == [0, 5, 12]
    assert numbers(["d05", "d12"]).tolist() == [5, 12]
    assert np.isnan(numbers(["camera"])).all()


def test_compressing_is_a_mean_of_four_in_sigmas():
    image = np.arange(51 * 51, dtype=float).reshape(1, 51, 51)
    image[0, 0, 0] = np.nan
    blocks = compress(image)
    assert blocks.shape == (1, 25, 25)
    plain = image[0, :50, :50].reshape(25, 2, 25, 2)
    means = np.nanmean(plain, axis=(1, 3))
    middle = np.median(means)
    sigma = 1.4826 * np.median(np.abs(means - middle))
    np.testing.assert_allclose(blocks[0], (means - middle) / sigma)
    np.testing.assert_array_equal(compress(np.full((1, 51, 51), 3.0)), 0)


def test_boxes_stand_on_the_detection():
    # blocks evenly from -1 to 1: median 0, MAD 1/2, so a sigma is 0.7413 and none lies beyond 2
    blocks = np.random.default_rng(0).permutation(np.linspace(-1, 1, 625)).reshape(25, 25)
    unit = 1.4826 / 2
    blocks[10, 10] = -2.5 * unit  # corner of the box of 5
    blocks[9, 9] = -3.5 * unit  # corner of the box of 7
    blocks[8, 8] = -99.0  # outside both
    blocks[12, 13] = 6.0 * unit
    blocks[16, 16] = 2.5 * unit  # outside: the box of 7 ends at 15
    blocks[15, 15] = 2.5 * unit
    image = np.full((51, 51), np.nan)
    image[:50, :50] = np.repeat(np.repeat(blocks, 2, 0), 2, 1)
    pixels = np.stack([image * 0, np.where(np.isfinite(image), 0, np.nan), image])[None]
    assert abs(compress(image[None])[0, 12, 13] - 6.0) < 0.1
    found = get(pixels)
    assert found["n2sig3"][0] == 1 and found["n3sig3"][0] == 0
    assert found["n2sig5"][0] == 2 and found["n3sig5"][0] == 1
    assert found["n2sig5shift"][0] == 2 and found["n3sig5shift"][0] == 1
    assert found["n2sig3shift"][0] == 1 and found["n3sig3shift"][0] == 1
    box7 = compress(image[None])[0, 9:16, 9:16]
    assert found["numnegrn"][0] == (box7 < 0).sum()
    assert abs(found["diffsumrn"][0] - box7[1:-1, 1:-1].sum()) < 1e-5


def test_the_template_is_subtracted_from_the_shifts():
    pixels = np.zeros((1, 3, 51, 51))
    pixels[:] = noise()
    pixels[0, 1] += gaussian(height=50)
    found = get(pixels)
    assert found["n3sig5shift"][0] < -4 and found["n2sig3shift"][0] < -4


def test_catalogue_columns_are_taken_and_combined():
    catalogue = {name: np.full(1, np.nan) for name in CATALOGUE}
    catalogue |= {
        "flux": np.array([50.0]), "galflux": np.array([150.0]), "mag": np.array([20.0]),
        "limmag": np.array([23.0]), "a_image": np.array([2.0]), "b_image": np.array([1.0]),
        "snr": np.array([9.0]), "edge": np.array([77.0]), "ccdid": np.array([12.0]),
        "bandnum": np.array([2.0]), "flags": np.array([3.0]),
    }  # fmt: skip
    found = get(noise(), catalogue)
    assert found["gflux"] == 4.0 and found["ellipticity"] == 0.5 and found["snr"] == 9
    assert found["mag_from_limit"] == 3.0 and found["magdiff"] == 3.0 and found["maglim"] == 1
    assert found["min_distance_to_edge_in_new"] == 77 and found["ccdid"] == 12
    catalogue |= {"nn_dist_renorm": np.array([1.5]), "mag_ref": np.array([21.5])}
    found = get(noise(), catalogue)
    assert found["maglim"] == 0 and found["magdiff"] == 1.5
    catalogue["a_image"][:] = 0
    assert get(noise(), catalogue)["ellipticity"] == 1


def test_closed_forms_of_sums():
    image = np.zeros((1, 51, 51))
    image[0, 25, 25], image[0, 25, 30], image[0, 25, 31] = 4, 2, 8
    assert aperture_flux(image, 5.0)[0] == 6
    pixels = np.zeros((1, 3, 51, 51))
    pixels[0, 1, 25, 25], pixels[0, 2, 25, 25] = 2, 5
    found = get(pixels)
    assert found["flux_ratio"][0] == 1.5
    # Bk of the difference is a 1 alone: both sums are 1, and its columns' medians 0
    assert found["l1"][0] == 1 and found["colmeds"][0] == 0
    pixels[0, 2, :, 7] = -5
    pixels[0, 2, :, 9] = 2.5
    found = get(pixels)
    total = 1 - 51 + 25.5
    assert abs(found["l1"][0] - np.sign(total) * (1 + 51 + 25.5) / np.sqrt(-total)) < 1e-12
    assert found["colmeds"][0] == 0.5


def test_missing_pixels_are_counted_and_left_out():
    pixels = noise(2)
    pixels[0, 2, :10] = np.nan
    pixels[1, 2, :, :5] = 1e-30
    found = get(pixels, null=1e-30)
    np.testing.assert_allclose(found["maskfrac"], [10 / 51, 5 / 51])
    assert np.isfinite([found[n] for n in ("l1", "gauss", "colmeds", "lacosmic", "n2sig3")]).all()
    assert np.isnan(get(np.full((1, 3, 51, 51), np.nan))["gauss"][0])


def test_a_cosmic_ray_is_sharper_than_a_star():
    pixels = noise(2, sigma=0.5)
    pixels[0, 2] += gaussian(height=100)
    pixels[1, 2, 25, 25] += 100
    found = get(pixels)
    # of a star the smoothed peak is a fair part of the peak; of a single pixel it is noise
    assert found["lacosmic"][0] < 3 and found["lacosmic"][1] > 10


@pytest.mark.parametrize(("sigma", "dx"), [(1.2, 0.0), (2.0, 0.5), (3.7, -0.5)])
def test_the_gaussian_is_scipys(sigma, dx):
    image = gaussian(sigma=sigma, height=0.8, dx=dx) + noise(sigma=0.02)[0, 0]
    chi2, width, height = (v[0] for v in fit_gaussian(image[None]))
    y, x = np.indices((51, 51)) - 25

    def model(_, a, s, u, v):
        return (a * np.exp(-0.5 * ((x - u) ** 2 + (y - v) ** 2) / s**2)).ravel()

    bounds = ([-5, 0.3, -0.5, -0.5], [5, 20, 0.5, 0.5])
    best, _ = curve_fit(model, None, image.ravel(), p0=[0.5, 2, 0, 0], bounds=bounds)
    rest = np.sum((image.ravel() - model(None, *best)) ** 2)
    assert abs(width / best[1] - 1) < 0.08 and abs(height / best[0] - 1) < 0.12
    assert rest <= chi2 * 1.0001 and chi2 < rest + 0.01 * np.sum(image**2)


def test_shape_of_a_tilted_star():
    image = gaussian(sigma=2.0, height=1e4, stretch=1.3)
    found = {k: v[0] for k, v in shape((image + noise(sigma=0.1)[0, 0])[None]).items()}
    assert abs(found["a"] / found["b"] - 1.3**2) < 0.15  # the window of 7 px cuts the long axis
    assert abs(found["flux"] / aperture_flux(image[None], 5.0)[0] - 1) < 0.01
    pure = shape(noise(400, sigma=3.0)[:, 0])
    assert abs(pure["snr"].mean()) < 0.2 and abs(pure["snr"].std() - 1) < 0.15


def test_scaled_stamps_lie_between_minus_two_and_two():
    pixels = noise(5)[:, 0] + 7
    np.testing.assert_allclose(
        scaled(pixels)[2], (pixels[2] - np.median(pixels[2])) / np.abs(pixels[2]).max()
    )
    np.testing.assert_array_equal(scaled(np.full((1, 51, 51), 4.0)), 0)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="odd side"):
        features(np.zeros((1, 3, 50, 50)))
    with pytest.raises(ValueError, match="no catalogue column 'fluxx'"):
        features(noise(), {"fluxx": np.zeros(1)})
    with pytest.raises(ValueError, match="must have shape"):
        features(noise(), {"flux": np.zeros(2)})
