"""Image subtraction: truth (statistics of the score, known kernels), rivals (each other, SFFT)."""

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import fftconvolve
from scipy.special import ndtr

from skyvec.prep.subtract import (
    alard_lupton,
    cut_stamps,
    detect,
    fit_kernel,
    matched_filter,
    zogy,
)


def moffat(fwhm, half=12, stretch=1.0):
    grid = np.arange(-half, half + 1)
    width = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
    r2 = grid[None] ** 2 * stretch + grid[:, None] ** 2 / stretch
    psf = (1 + r2 / width**2) ** -3.0
    return psf / psf.sum()


PSF_NEW, PSF_REFERENCE = moffat(3.0, stretch=1.1), moffat(2.2)
NOISE = {"noise_new": 10.0, "noise_reference": 4.0}


def pair(rng, side=256, n_stars=60, new_sky=None, scale=1.0, brightest=4.5):
    sky = np.zeros((side, side))
    sky[rng.integers(0, side, n_stars), rng.integers(0, side, n_stars)] = 10 ** rng.uniform(
        2.5, brightest, n_stars
    )
    added = np.zeros_like(sky) if new_sky is None else new_sky
    new = scale * fftconvolve(sky + added, PSF_NEW, "same") + rng.normal(0, 10, sky.shape)
    reference = fftconvolve(sky, PSF_REFERENCE, "same") + rng.normal(0, 4, sky.shape)
    return new, reference


@pytest.fixture(scope="module")
def error():
    empty = np.zeros((128, 128))
    found = zogy(empty, empty, PSF_NEW, PSF_REFERENCE, **NOISE)
    return found.flux_err[64, 64]


def injected(rng, error, low, high, side=256):
    x, y = (
        a.ravel() for a in np.meshgrid(np.arange(16, side - 15, 16), np.arange(16, side - 15, 16))
    )
    due = rng.uniform(low, high, len(x))
    sky = np.zeros((side, side))
    sky[y, x] = due * error
    return sky, x, y, due


def test_the_score_finds_what_theory_says_at_five_sigma(error):
    rng = np.random.default_rng(5)
    due, found, listed = [], [], []
    for _ in range(12):
        sky, x, y, snr = injected(rng, error, 3, 8)
        new, reference = pair(rng, new_sky=sky)
        result = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE)
        due.append(snr)
        found.append(result.score[y, x])
        places = detect(result.score, threshold=5.0)
        near = np.hypot(places[:, 0] - x[:, None], places[:, 1] - y[:, None]).min(axis=1)
        listed.append(near < 2)
    due, found, listed = np.concatenate(due), np.concatenate(found), np.concatenate(listed)
    assert abs(np.mean(found - due)) < 0.06 and abs(np.std(found - due) - 1) < 0.05
    theory = ndtr(due - 5)
    for low in (3, 4, 5, 6, 7):
        chosen = (due >= low) & (due < low + 1)
        assert abs(np.mean(found[chosen] >= 5) - theory[chosen].mean()) < 0.05
    # the list of peaks is the highest of several pixels: a little above the theory of one
    assert abs(listed.mean() - theory.mean()) < 0.05


def test_background_of_score_and_difference_is_white_and_of_unit_variance():
    new, reference = pair(np.random.default_rng(1), side=512)
    result = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE)
    score = result.score[20:-20, 20:-20]
    assert abs(score.mean()) < 0.02 and abs(score.std() - 1) < 0.03
    difference = result.difference[20:-20, 20:-20]
    assert abs(difference.std() / np.hypot(10, 4) - 1) < 0.02
    assert abs(np.corrcoef(difference[:, 1:].ravel(), difference[:, :-1].ravel())[0, 1]) < 0.01
    assert not len(detect(result.score, threshold=5.5))


def test_unit_variance_holds_for_photon_noise_if_it_is_told():
    rng = np.random.default_rng(2)
    sky = np.zeros((256, 256))
    at = rng.integers(10, 246, (2, 80))
    sky[tuple(at)] = 10 ** rng.uniform(4, 5.3, 80)
    expected = [fftconvolve(sky, p, "same") for p in (PSF_NEW, PSF_REFERENCE)]
    variances = [np.maximum(e, 0) + s**2 for e, s in zip(expected, (10, 4))]
    new, reference = (
        e + rng.normal(size=e.shape) * np.sqrt(v) for e, v in zip(expected, variances)
    )
    told = zogy(
        new, reference, PSF_NEW, PSF_REFERENCE, **NOISE,
        variance_new=variances[0], variance_reference=variances[1],
    )  # fmt: skip
    blind = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE)
    at_stars = tuple(at)
    assert abs(told.score[at_stars].std() - 1) < 0.2
    assert blind.score[at_stars].std() > 3
    assert abs(np.nanstd(told.score) - 1) < 0.03


def test_flux_and_gain_come_out_right(error):
    rng = np.random.default_rng(3)
    sky, x, y, _ = injected(rng, error, 40, 60)
    new, reference = pair(rng, new_sky=sky, scale=2.0)
    result = zogy(
        new, reference, PSF_NEW, PSF_REFERENCE, scale_new=2.0, **{**NOISE, "noise_new": 10.0}
    )
    ratio = result.flux[y, x] / sky[y, x]
    assert abs(ratio.mean() - 1) < 0.01
    np.testing.assert_allclose(result.psf.sum(), 1, atol=0.02)


def test_registration_errors_are_weighed_down():
    rng = np.random.default_rng(4)
    sky = np.zeros((200, 200))
    sky[50:160:25, 50:160:25] = 3e4
    new = fftconvolve(
        sky, np.roll(PSF_NEW, 1, 1) * 0.3 + PSF_NEW * 0.7, "same"
    )  # 0.3 px to the right
    new += rng.normal(0, 10, sky.shape)
    reference = fftconvolve(sky, PSF_REFERENCE, "same") + rng.normal(0, 4, sky.shape)
    plain = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE)
    careful = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE, astrometry=(0.3, 0.3))
    assert len(detect(plain.score)) >= 25 and len(detect(careful.score)) <= 5


def test_masked_pixels_spread_no_further_than_their_weight(error):
    rng = np.random.default_rng(6)
    sky, x, y, _ = injected(rng, error, 20, 30)
    new, reference = pair(rng, new_sky=sky)
    new[100:104, 30:60] = np.nan
    reference[:, 200] = np.nan
    result = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE)
    assert np.isnan(result.difference[100:104, 30:60]).all()
    assert np.isnan(result.difference[:, 200]).all()
    assert np.isfinite(result.difference[0:90, 0:190]).all()
    assert np.isnan(result.score[101, 40]) and np.isfinite(result.score[115, 40])
    far = (np.abs(x - 200) > 20) & (np.abs(y - 102) > 20)
    assert (result.score[y, x][far] > 12).all()


def test_the_fitted_kernel_is_the_true_one():
    # the new image is exactly the reference through a known kernel
    rng = np.random.default_rng(7)
    sky = np.zeros((200, 200))
    sky[rng.integers(15, 185, 80), rng.integers(15, 185, 80)] = 10 ** rng.uniform(3, 5, 80)
    reference = fftconvolve(sky, PSF_REFERENCE, "same")
    grid = np.arange(-8, 9)
    true = 1.7 * np.exp(-0.5 * ((grid[None] / 1.2) ** 2 + (grid[:, None] / 1.5) ** 2))
    true *= 1.7 / true.sum()
    new = fftconvolve(reference, true, "same") + 33.0 + rng.normal(0, 1.0, sky.shape)
    kernel = fit_kernel(new, reference, noise=1.0)
    assert abs(kernel.at(100, 100).sum() - 1.7) < 0.002
    assert np.abs(kernel.at(100, 100) - true).max() < 0.02 * true.max()
    assert abs(kernel.background[0] - 33) < 0.1 and abs(kernel.chi2 - 1) < 0.05


def test_a_kernel_may_vary_over_the_frame():
    rng = np.random.default_rng(8)
    side = 240
    at = np.column_stack([rng.integers(20, side - 20, 40), rng.integers(20, side - 20, 40)])
    grid = np.arange(-12, 13)
    new, reference = np.zeros((side, side)), np.zeros((side, side))
    for x, y in at:
        sigma = 1.6 + 0.4 * x / side
        flux = 10 ** rng.uniform(4, 5)
        for image, s in ((new, sigma), (reference, 1.2)):
            star = np.exp(-0.5 * (grid[None] ** 2 + grid[:, None] ** 2) / s**2) / (
                2 * np.pi * s**2
            )
            low_y, low_x = max(y - 12, 0), max(x - 12, 0)
            cut = image[low_y : y + 13, low_x : x + 13]
            cut += flux * star[low_y - y + 12 :, low_x - x + 12 :][: cut.shape[0], : cut.shape[1]]
    new += rng.normal(0, 3, new.shape)
    kernels = [
        fit_kernel(new, reference, noise=3.0, stars=at, degree=degree, half=7) for degree in (0, 1)
    ]
    residuals = [new - kernel.apply(reference) for kernel in kernels]
    assert residuals[1].std() < 0.5 * residuals[0].std()
    assert residuals[1].std() < 4.0
    wide, narrow = kernels[1].at(210, 120), kernels[1].at(30, 120)
    assert narrow.max() > 1.2 * wide.max()


def test_both_ways_agree(error):
    rng = np.random.default_rng(9)
    sky, x, y, _ = injected(rng, error, 5, 20)
    new, reference = pair(rng, new_sky=sky, brightest=5.0)
    proper = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE)
    clean, same_reference = pair(np.random.default_rng(90), brightest=5.0)
    kernel = fit_kernel(clean, same_reference, noise=10.0)
    fitted = alard_lupton(new, reference, PSF_NEW, kernel, **NOISE)
    inner = (x > 20) & (x < 236) & (y > 20) & (y < 236)
    x, y = x[inner], y[inner]
    assert np.corrcoef(proper.score[y, x], fitted.score[y, x])[0, 1] > 0.99
    assert abs(np.mean(fitted.flux[y, x] / proper.flux[y, x]) - 1) < 0.03
    # the proper one is the better test, by definition
    assert proper.score[y, x].mean() >= fitted.score[y, x].mean() - 0.02
    assert (
        abs(
            fitted.score[20:-20, 20:-20][::3, ::3].std()
            / proper.score[20:-20, 20:-20][::3, ::3].std()
            - 1
        )
        < 0.05
    )


def test_the_matched_filter_knows_uneven_noise():
    rng = np.random.default_rng(10)
    variance = np.full((128, 128), 4.0)
    variance[:, 64:] = 100.0
    image = rng.normal(size=variance.shape) * np.sqrt(variance)
    image[40:53, 20:33] += 300 * moffat(3.0, half=6)
    score, flux, error = matched_filter(image, moffat(3.0, half=6), variance)
    assert abs(flux[46, 26] - 300) < 4 * error[46, 26] and score[46, 26] > 10
    for side in (score[8:36, 8:56], score[8:-8, 72:-8]):
        assert abs(side.std() - 1) < 0.15


def test_of_close_peaks_the_highest_stays():
    score = np.zeros((40, 40))
    score[10, 10], score[10, 12], score[30, 30], score[20, 5] = 9, 8, 6, -12
    score[5, 5] = np.nan
    np.testing.assert_array_equal(detect(score), [[10, 10], [30, 30]])
    assert detect(score, both_signs=True)[0].tolist() == [5, 20]
    assert detect(np.zeros((9, 9))).shape == (0, 2)


def test_stamps_are_centred_and_open_at_the_edge():
    frame = np.arange(1600.0).reshape(40, 40)
    stamps = cut_stamps(frame, frame + 1, frame + 2, np.array([[20, 10], [0, 39]]), side=9)
    assert stamps[0, :, 4, 4].tolist() == [420, 421, 422]
    assert stamps[1, 0, 4, 4] == 39 * 40 and np.isnan(stamps[1, 0, 5:]).all()
    assert np.isnan(stamps[1, 0, :, :4]).all()


def test_what_makes_no_sense_is_refused():
    image = np.zeros((32, 32))
    with pytest.raises(ValueError, match="one shape"):
        zogy(image, image[1:], PSF_NEW, PSF_NEW, **NOISE)
    with pytest.raises(ValueError, match="noise_new must be > 0"):
        zogy(image, image, PSF_NEW, PSF_NEW, noise_new=0, noise_reference=1)
    with pytest.raises(ValueError, match="odd sides"):
        zogy(image, image, PSF_NEW[1:], PSF_NEW, **NOISE)
    with pytest.raises(ValueError, match="cannot tell"):
        fit_kernel(image, image, noise=1.0, stars=np.array([[16, 16]]), degree=3)
    with pytest.raises(ValueError, match="odd"):
        cut_stamps(image, image, image, np.array([[3, 3]]), side=8)


@pytest.mark.slow
def test_sfft_finds_the_same(tmp_path: Path, error):
    packet = pytest.importorskip("sfft.CustomizedPacket")
    from astropy.io import fits

    rng = np.random.default_rng(11)
    sky, x, y, _ = injected(rng, error, 8, 30)
    new, reference = pair(rng, new_sky=sky, brightest=5.0)
    names = {}
    for name, image in {"new": new, "ref": reference, "mnew": new, "mref": reference}.items():
        names[name] = str(tmp_path / f"{name}.fits")
        fits.writeto(names[name], image.T.astype(np.float64))
    out = str(tmp_path / "difference.fits")
    packet.Customized_Packet.CP(
        FITS_REF=names["ref"], FITS_SCI=names["new"], FITS_mREF=names["mref"],
        FITS_mSCI=names["mnew"], ForceConv="REF", GKerHW=6, FITS_DIFF=out, FITS_Solution=None,
        KerPolyOrder=0, BGPolyOrder=0, ConstPhotRatio=True, BACKEND_4SUBTRACT="Numpy",
        CUDA_DEVICE_4SUBTRACT="0", NUM_CPU_THREADS_4SUBTRACT=1,
    )  # fmt: skip
    rival = fits.getdata(out).T
    score, _, _ = matched_filter(rival, PSF_NEW, NOISE["noise_new"] ** 2)
    ours = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE).score
    assert np.corrcoef(score[y, x], ours[y, x])[0, 1] > 0.98
    scatter = score[20:-20, 20:-20]
    scatter = 1.4826 * np.median(np.abs(scatter - np.median(scatter)))
    assert (ours[y, x]).mean() > (score[y, x] / scatter).mean() - 0.3
