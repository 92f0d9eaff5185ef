"""Losses: truth (closed forms, a null), rival (scikit-image, slow double loops), contract."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from skyvec.nn import losses
from skyvec.nn.frames import Frames
from skyvec.nn.layers import contrast

pytestmark = pytest.mark.usefixtures("one_thread")


def frames(shape=(3, 2, 16, 18), *, seed=0, holes=0.0):
    rng = np.random.default_rng(seed)
    mask = torch.tensor(rng.random(shape) >= holes)
    return Frames(torch.tensor(rng.random(shape).astype(np.float32)) * mask, mask)


def test_mse_and_l1_are_sums_over_whole_images():
    target, guess = frames(), frames(seed=1).pixels
    residual = (guess - target.pixels).flatten(1)
    assert torch.allclose(losses.image_mse(guess, target), residual.square().sum(1), rtol=1e-5)
    assert torch.allclose(losses.image_l1(guess, target), residual.abs().sum(1), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(losses.IMAGE_LOSSES))
def test_masked_pixels_do_not_count(name):
    target, guess = frames(holes=0.02), frames(seed=1).pixels
    own = losses.IMAGE_LOSSES[name](guess, target)
    other = guess.where(target.mask, 9.0)
    assert torch.allclose(losses.IMAGE_LOSSES[name](other, target), own, rtol=1e-6)
    nothing = target._replace(mask=torch.zeros_like(target.mask))
    assert torch.equal(losses.IMAGE_LOSSES[name](guess, nothing), torch.zeros(3))


@pytest.mark.parametrize("window", [3, 7, 11])
@pytest.mark.parametrize("data_range", [1.0, 7.0])
def test_ssim_agrees_with_scikit_image(window, data_range):
    one, other = (frames(seed=s).pixels * data_range for s in (0, 1))
    for mixed in (other, 0.9 * one + 0.1 * other, one):
        got = losses.ssim(one, mixed, data_range=data_range, window=window)
        wanted = [
            structural_similarity(
                a.numpy(), b.numpy(), data_range=data_range, win_size=window, channel_axis=0
            )
            for a, b in zip(one, mixed)
        ]
        assert got.numpy() == pytest.approx(wanted, abs=1e-5)


def test_ssim_counts_whole_windows_only():
    one, other = frames((1, 1, 12, 12)), frames((1, 1, 12, 12), seed=1)
    mask = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    mask[..., :3, :] = False
    got = losses.ssim(one.pixels, other.pixels, mask)
    assert got.item() == pytest.approx(
        losses.ssim(one.pixels[:, :, 3:], other.pixels[:, :, 3:]).item(), abs=1e-6
    )
    with pytest.raises(ValueError, match="must be odd"):
        losses.ssim(one.pixels, other.pixels, window=8)
    with pytest.raises(ValueError, match="no larger"):
        losses.ssim(one.pixels, other.pixels, window=13)


def test_kl_has_its_closed_form_and_is_that_of_torch():
    mean, log_variance = torch.randn(5, 4), torch.randn(5, 4)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(
        normal(mean, torch.exp(log_variance / 2)), normal(torch.zeros(5, 4), torch.ones(5, 4))
    ).sum(1)
    assert torch.allclose(losses.kl_to_standard(mean, log_variance), wanted, rtol=1e-4)
    assert losses.kl_to_standard(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


def test_warming_up():
    assert [losses.warmed(2.0, s, 4) for s in (0, 1, 4, 9)] == [0.0, 0.5, 2.0, 2.0]
    assert losses.warmed(2.0, 0, 0) == 2.0


def test_gaussian_nll_is_that_of_torch_and_best_at_the_true_variance():
    target, guess = frames(), frames(seed=1).pixels
    s = torch.tensor([-1.0, 0.5]).view(2, 1, 1)
    wanted = -torch.distributions.Normal(guess, torch.exp(s / 2)).log_prob(target.pixels)
    assert torch.allclose(
        losses.gaussian_nll(guess, target, s), wanted.flatten(1).sum(1), rtol=1e-5
    )
    true = (guess - target.pixels).square().mean((0, 2, 3), keepdim=True)[0].log()
    best = losses.gaussian_nll(guess, target, true).mean()
    assert best < losses.gaussian_nll(guess, target, true + 0.1).mean()
    assert best < losses.gaussian_nll(guess, target, true - 0.1).mean()


def test_mmd_agrees_with_a_slow_double_loop():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(0.5, 1, (9, 3))
    width, bandwidths = 1.7, (0.5, 1.0, 3.0)

    def k(a, b):
        return sum(math.exp(-((a - b) ** 2).sum() / (2 * (h * width) ** 2)) for h in bandwidths)

    wanted = 0.0
    for own in (x, y):
        n = len(own)
        for i in range(n):
            for j in range(n):
                if i != j:
                    wanted += k(own[i], own[j]) / (n * (n - 1))
    for a in x:
        for b in y:
            wanted -= 2 * k(a, b) / (len(x) * len(y))
    got = losses.mmd2(torch.tensor(x), torch.tensor(y), width=width, bandwidths=bandwidths)
    assert float(got) == pytest.approx(wanted, abs=1e-12)


def test_weighted_mmd_agrees_with_a_slow_double_loop():
    rng = np.random.default_rng(3)
    sets = [rng.normal(size=(6, 2)), rng.normal(0.5, 1, (8, 2))]
    weights = [rng.uniform(0, 2, len(x)) * (rng.uniform(size=len(x)) > 0.2) for x in sets]

    def mean(i, j):
        above = below = 0.0
        for a, (x, v) in enumerate(zip(sets[i], weights[i])):
            for b, (y, w) in enumerate(zip(sets[j], weights[j])):
                if i != j or a != b:
                    above += v * w * math.exp(-((x - y) ** 2).sum() / (2 * 1.3**2))
                    below += v * w
        return above / below

    got = losses.mmd2(
        *map(torch.tensor, sets), width=1.3, bandwidths=(1.0,),
        weights=tuple(map(torch.tensor, weights)),
    )  # fmt: skip
    assert float(got) == pytest.approx(mean(0, 0) + mean(1, 1) - 2 * mean(0, 1), abs=1e-12)


def test_mmd_has_zero_mean_under_the_null_and_sees_a_shift():
    draws = torch.randn(400, 2, 12, 4, generator=torch.Generator().manual_seed(0))
    null = torch.stack([losses.mmd2(x, y, width=2.5) for x, y in draws])
    assert null.min() < 0
    assert abs(float(null.mean())) < 3 * float(null.std()) / math.sqrt(len(null))
    moved = torch.stack([losses.mmd2(x, y + 1, width=2.5) for x, y in draws[:40]])
    assert float(moved.mean()) > 10 * abs(float(null.mean()))


def test_mmd_measures_its_own_width_and_has_a_gradient():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)) + 1
    both = torch.cat([x, y]).detach()
    pairs = sorted(float((a - b).norm()) for i, a in enumerate(both) for b in both[:i])
    middle = losses.median_distance(x, y)
    assert float(middle) == pytest.approx(pairs[(len(pairs) - 1) // 2], rel=1e-5)
    losses.mmd2(x, y).backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.any()
    assert torch.isfinite(losses.mmd2(torch.zeros(3, 2), torch.zeros(3, 2)))
    with pytest.raises(ValueError, match="at least two rows"):
        losses.mmd2(x[:1], y)


def test_contrast_agrees_with_a_double_loop():
    one, other = torch.randn(5, 3), torch.randn(5, 3)

    def unit(v):
        return v / v.norm()

    cosine = [[float(unit(a) @ unit(b)) for b in other] for a in one]
    wanted = 0.0
    for i in range(5):
        down = sum(math.exp(cosine[i][j] / 0.3) for j in range(5))
        along = sum(math.exp(cosine[j][i] / 0.3) for j in range(5))
        wanted -= (2 * cosine[i][i] / 0.3 - math.log(down) - math.log(along)) / 10
    assert float(contrast(one, other, 0.3)) == pytest.approx(wanted, rel=1e-5)


def test_vicreg_has_its_closed_form_and_punishes_collapse():
    one, other = torch.randn(8, 3), torch.randn(8, 3)
    wanted = 25 * float((one - other).square().mean())
    for z in (one.numpy(), other.numpy()):
        matrix = np.cov(z, rowvar=False)
        wanted += 25 * np.maximum(0, 1 - np.sqrt(np.diag(matrix) + 1e-4)).mean()
        wanted += (matrix**2).sum() / 3 - (np.diag(matrix) ** 2).sum() / 3
    assert float(losses.vicreg(one, other)) == pytest.approx(wanted, rel=1e-4)
    collapsed = torch.ones(8, 3)
    assert float(losses.vicreg(collapsed, collapsed)) == pytest.approx(2 * 25 * 0.99, rel=1e-4)
