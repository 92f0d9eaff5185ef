"""Preparation of images: truth (closed form), rival (loops, SciPy), contract (NaN stays NaN)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from skyvec.prep import images as prep
from skyvec.prep.images import Scaling


def noisy(shape=(4, 3, 16, 16), *, seed=0, holes=0.05):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(100, 5, shape).astype(np.float32)
    pixels[..., shape[-2] // 2, shape[-1] // 2] += 3000
    pixels[rng.random(shape) < holes] = np.nan
    return pixels


def blob(side=33, *, dy=0.0, dx=6.0, width=3.0):
    y, x = np.indices((side, side)) - (side - 1) / 2
    return np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / (2 * width**2)).astype(np.float32)[None, None]


def centroid(image):
    y, x = np.indices(image.shape[-2:]) - (np.array(image.shape[-2:])[:, None, None] - 1) / 2
    whole = np.nan_to_num(image[0, 0])
    return float((whole * y).sum() / whole.sum()), float((whole * x).sum() / whole.sum())


def test_a_crop_keeps_the_centre():
    image = np.arange(7 * 7, dtype=np.float32).reshape(1, 1, 7, 7)
    assert prep.crop_centre(image, 3)[0, 0, 1, 1] == image[0, 0, 3, 3]
    with pytest.raises(ValueError, match="does not fit"):
        prep.crop_centre(image, 8)


@given(st.integers(1, 5), st.floats(0, 1), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_a_block_is_the_mean_of_what_was_measured(factor, least, seed):
    pixels = noisy((2, 1, 4 * factor, 3 * factor), seed=seed, holes=0.4)
    got = prep.block_average(pixels, factor, least=least)
    for n, y, x in np.ndindex(2, 4, 3):
        block = pixels[
            n, 0, factor * y : factor * y + factor, factor * x : factor * x + factor
        ].astype(float)
        seen = block[~np.isnan(block)]
        if len(seen) >= max(least * factor**2, 1):
            assert got[n, 0, y, x] == pytest.approx(seen.mean(), rel=1e-6)
        else:
            assert np.isnan(got[n, 0, y, x])


def test_resizing_says_what_does_not_fit():
    assert prep.resize(np.ones((1, 1, 256, 256), np.float32), size=64).shape == (1, 1, 64, 64)
    assert prep.resize(np.ones((1, 1, 100, 120), np.float32), size=32).shape == (1, 1, 32, 32)
    with pytest.raises(ValueError, match="does not divide the crop"):
        prep.resize(np.ones((1, 1, 100, 100), np.float32), crop=90, size=32)
    with pytest.raises(ValueError, match="cannot be averaged down"):
        prep.resize(np.ones((1, 1, 20, 20), np.float32), size=32)
    with pytest.raises(ValueError, match="do not divide"):
        prep.block_average(np.ones((1, 1, 20, 20), np.float32), 3)


@pytest.mark.parametrize("kind", prep.STRETCHES)
def test_a_stretch_can_be_undone_and_keeps_what_is_missing(kind):
    pixels = noisy()
    scaling = Scaling.fit(pixels, kind)
    scaled = scaling.apply(pixels)
    assert scaled.dtype == np.float32
    assert np.array_equal(np.isnan(scaled), np.isnan(pixels))
    assert np.allclose(scaling.undo(scaled), pixels, rtol=1e-3, equal_nan=True)
    assert np.array_equal(
        Scaling.from_facts(scaling.facts()).apply(pixels), scaled, equal_nan=True
    )


def test_a_scaling_measures_sky_noise_and_top():
    pixels = noisy((200, 1, 32, 32), holes=0.1)
    scaling = Scaling.fit(pixels, softening=3.0)
    assert scaling.sky[0] == pytest.approx(100, abs=0.2)
    assert scaling.soft[0] == pytest.approx(15, rel=0.05)
    assert scaling.top[0] == pytest.approx(np.nanquantile(pixels, 0.999))
    top = np.full((1, 1, 2, 2), scaling.top[0], np.float32)
    assert scaling.apply(top)[0, 0, 0, 0] == pytest.approx(1, abs=1e-5)


def test_arcsinh_has_its_closed_form():
    scaling = Scaling("arcsinh", np.array([10.0]), np.array([2.0]), np.array([210.0]))
    got = scaling.apply(np.full((1, 1, 1, 1), 30.0, np.float32))
    assert got[0, 0, 0, 0] == pytest.approx(np.arcsinh(10) / np.arcsinh(100), rel=1e-6)


def test_lupton_keeps_the_colour_at_any_brightness():
    scaling = Scaling("lupton", np.zeros(2), np.ones(2), np.full(2, 1e4))
    ratio = np.array([1.0, 3.0])
    for brightness in (0.01, 1.0, 300.0):
        pixel = (brightness * ratio)[None, :, None, None].astype(np.float32)
        scaled = scaling.apply(pixel)[0, :, 0, 0]
        assert scaled[1] / scaled[0] == pytest.approx(3, rel=1e-5)


def test_bad_scalings_are_refused():
    with pytest.raises(ValueError, match="unknown stretch"):
        Scaling("log", np.zeros(1), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="top > sky"):
        Scaling("linear", np.ones(1), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="nothing above its sky"):
        Scaling.fit(np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(ValueError, match="no measured pixel"):
        Scaling.fit(np.full((2, 1, 8, 8), np.nan, np.float32))
    with pytest.raises(ValueError, match="is for images"):
        Scaling("linear", np.zeros(1), np.ones(1), np.ones(1)).apply(noisy())


def test_a_rotation_turns_counter_clockwise_about_the_centre():
    image = blob()
    for degrees in (90, 180, 270, 30.0, 359.0):
        y, x = centroid(prep.rotate(image, degrees))
        expected = 6 * np.exp(1j * np.deg2rad(degrees))
        assert (x, y) == pytest.approx((expected.real, expected.imag), abs=0.05)
    assert np.allclose(
        prep.rotate(image, 90.0), prep._move(image, np.pi / 2, 0, 0), atol=1e-6, equal_nan=True
    )


def test_a_rotation_agrees_with_scipy_and_marks_what_turns_in():
    image = noisy((1, 1, 31, 31), holes=0)
    ours = prep.rotate(image, 33.0)
    theirs = ndimage.rotate(image[0, 0], -33.0, reshape=False, order=1, cval=np.nan)
    both = ~np.isnan(ours[0, 0]) & ~np.isnan(theirs)
    assert both.mean() > 0.7
    assert np.allclose(ours[0, 0][both], theirs[both], rtol=1e-4)
    assert np.isnan(ours[0, 0, 0, 0])


def test_a_shift_moves_and_a_flip_is_its_own_inverse():
    image = blob(dx=0.0)
    assert centroid(prep.shift(image, 2.5, -1.25)) == pytest.approx((2.5, -1.25), abs=0.02)
    assert np.array_equal(prep.flip(prep.flip(image)), image)
    assert not np.array_equal(prep.flip(blob()), blob())


def test_blurring_widens_keeps_the_flux_and_leaves_holes_alone():
    image = blob(dx=0.0, width=2.0)
    image[0, 0, 3, 3] = np.nan
    blurred = prep.blur(image, 1.5)
    assert np.array_equal(np.isnan(blurred), np.isnan(image))
    assert np.nansum(blurred) == pytest.approx(np.nansum(image), rel=1e-3)
    y, x = np.indices((33, 33)) - 16
    spread = np.nansum(blurred[0, 0] * (x**2 + y**2)) / np.nansum(blurred) / 2
    assert spread == pytest.approx(2.0**2 + 1.5**2, rel=0.02)
    with pytest.raises(ValueError, match=">= 0"):
        prep.blur(image, -1.0)


def test_seeing_again_is_random_through_its_generator_alone_and_invents_nothing():
    pixels = noisy(holes=0.1)
    first, second, other = (prep.see_again(pixels, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, second, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)
    nothing = np.full((2, 1, 8, 8), np.nan, np.float32)
    assert np.isnan(prep.see_again(nothing, np.random.default_rng(0))).all()
    still = prep.see_again(
        pixels, np.random.default_rng(0), turn=False, mirror=False,
        most_shift=0, most_blur=0, most_noise=0,
    )  # fmt: skip
    assert np.allclose(still, pixels, rtol=1e-5, equal_nan=True)
