"""Stamps made ready for a network: contract (finite, same shape), truth (closed forms, places)."""

import numpy as np
import pytest

from skyvec.prep.stamps import SCALES, crop, mask_sentinels, normalise, place

FLT_MAX = np.finfo(np.float32).max


def draw(n=6, side=29, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(1000, 5, (n, 3, side, side)).astype(np.float32)


def hostile():
    pixels = draw()
    pixels[0, 1] = 7.0  # flat
    pixels[1, 2] = np.nan  # empty
    pixels[2, 0, :9] = np.nan  # a clipped edge
    pixels[3, 1, 3, 4] = -FLT_MAX
    pixels[4, 0, 0, 0] = np.inf
    pixels[5, 2] = 0
    pixels[5, 2, 14, 14] = 1e6
    pixels[5, 1] = 0
    pixels[5, 1, 3, 3] = 1e-40  # flat but for the least that single precision can hold
    return pixels


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_is_finite_and_leaves_its_input_alone(scale):
    pixels = hostile()
    before = pixels.copy()
    scaled = normalise(pixels, scale)
    assert scaled.shape == pixels.shape and scaled.dtype == np.float32
    assert np.isfinite(scaled).all()
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("scale", SCALES)
def test_a_stamp_is_the_same_alone_and_among_others(scale):
    pixels = np.concatenate(
        [hostile(), draw(2000, side=9).repeat(4, 2).repeat(4, 3)[:, :, :29, :29]]
    )
    together = normalise(pixels, scale)
    for i in (0, 1, 2, 3, 5, 1030):
        np.testing.assert_array_equal(normalise(pixels[i : i + 1], scale)[0], together[i])


@pytest.mark.parametrize("scale", ["minmax", "robust", "asinh"])
def test_sentinels_do_not_move_the_rest(scale):
    clean, spoiled = draw(1), draw(1)
    clean[0, 1, 3, 4] = np.nan
    spoiled[0, 1, 3, 4] = -FLT_MAX
    np.testing.assert_array_equal(normalise(clean, scale), normalise(spoiled, scale))
    # and a missing pixel lies where the background lies, not at an end of the scale
    filled = normalise(spoiled, scale)[0, 1]
    assert abs(filled[3, 4] - np.median(filled)) < 1e-6


def test_minmax_is_the_papers():
    pixels = draw()
    low, high = pixels.min((2, 3), keepdims=True), pixels.max((2, 3), keepdims=True)
    np.testing.assert_allclose(normalise(pixels), (pixels - low) / (high - low), rtol=1e-5)
    np.testing.assert_array_equal(normalise(hostile())[0, 1], 0)


def test_minmax_knows_no_gain_and_no_sky():
    pixels = draw().astype(np.float64)
    moved = (pixels * 32 + 4096).astype(np.float32)
    np.testing.assert_allclose(normalise(moved), normalise(pixels), atol=2e-4)


def test_robust_counts_in_sigmas():
    pixels = draw(1, side=101)
    pixels[0, 2, 50, 50] = 1000 + 5 * 20
    scaled = normalise(pixels, "robust")
    assert abs(scaled[0, 2, 50, 50] - 2.0) < 0.1
    assert abs(scaled[0, 0].std() - 0.1) < 0.005
    asinh = normalise(pixels, "asinh")
    assert abs(asinh[0, 2, 50, 50] - np.arcsinh(20) / 5) < 0.02


def test_norms_are_braais():
    pixels = draw()
    rows, frames = normalise(pixels, "row_norm"), normalise(pixels, "frame_norm")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=3), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(frames, axis=(2, 3)), 1, rtol=1e-5)


def test_sentinels_become_nan():
    values = np.array([1.0, -FLT_MAX, np.inf, 1e300, np.nan, 1e-30, 0.0])
    masked = mask_sentinels(values, null=1e-30)
    assert np.isnan(masked[[1, 2, 3, 4, 5]]).all()
    np.testing.assert_array_equal(masked[[0, 6]], [1, 0])
    assert mask_sentinels(np.array([3, 4])).dtype == np.float32
    assert np.isnan(mask_sentinels(np.float32([1e-30, 2]), null=1e-30)[0])


@pytest.mark.parametrize("at", [(0, 0), (3, 60), (31, 31), (62, 5)])
def test_a_clipped_cutout_keeps_its_source_in_the_middle(at):
    frame = np.random.default_rng(1).normal(size=(63, 63)).astype(np.float32)
    low_y, low_x = max(at[0] - 14, 0), max(at[1] - 14, 0)
    cutout = frame[low_y : at[0] + 15, low_x : at[1] + 15]
    square = place(cutout, 29, centre=(at[0] - low_y, at[1] - low_x))
    assert square.shape == (29, 29) and square[14, 14] == frame[at]
    there = np.isfinite(square)
    assert there.sum() == cutout.size
    np.testing.assert_array_equal(square[there], cutout.ravel())


def test_without_a_place_the_padding_is_even_on_both_sides():
    square = place(np.ones((21, 29)), 31)
    assert np.isnan(square[:5]).all() and np.isnan(square[-5:]).all()
    assert np.isnan(square[:, 0]).all() and np.isnan(square[:, -1]).all()
    large = place(np.arange(63 * 63.0).reshape(63, 63), 29)
    assert large[14, 14] == 31 * 63 + 31 and np.isfinite(large).all()


def test_a_crop_keeps_the_centre():
    pixels = draw(2, side=63)
    np.testing.assert_array_equal(crop(pixels, 29)[..., 14, 14], pixels[..., 31, 31])
    np.testing.assert_array_equal(
        normalise(pixels, "minmax", side=29), normalise(pixels[:, :, 17:46, 17:46])
    )


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="odd side of at most 29"):
        crop(draw(), 31)
    with pytest.raises(ValueError, match="odd side"):
        crop(draw(), 28)
    with pytest.raises(ValueError, match="no scale 'zscale'"):
        normalise(draw(), "zscale")
    with pytest.raises(ValueError, match="odd, so that"):
        place(np.ones((3, 3)), 30)
    with pytest.raises(ValueError, match="outside"):
        place(np.ones((3, 3)), 29, centre=(3, 0))
    with pytest.raises(ValueError, match="two axes"):
        place(np.ones((0, 3)), 29)
