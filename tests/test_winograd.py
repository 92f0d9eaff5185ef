"""Truth: fast convolutions and the fast engine against torch's own layers."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from skyvec.models.stamps import Complex, Simple
from skyvec.nn.winograd import FROM, INTO, KERNEL, Conv3
from skyvec.realbogus import fast
from skyvec.realbogus.train import scores_of


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Small tensors gain nothing from threads."""


@pytest.mark.parametrize("m", [4, 6])
def test_the_three_matrices_belong_together(m):
    rng = np.random.default_rng(0)
    signal, kernel = rng.standard_normal(m + 2), rng.standard_normal(3)
    found = FROM[m] @ ((KERNEL[m] @ kernel) * (INTO[m] @ signal))
    assert found == pytest.approx(np.correlate(signal, kernel, "valid"), abs=1e-6)


@pytest.mark.parametrize("m", [4, 6])
@pytest.mark.parametrize("side", [4, 13])
@pytest.mark.parametrize("bent", [False, True])
def test_a_convolution_with_all_that_surrounds_it(m, side, bent):
    rng = np.random.default_rng(1)

    def some(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    x, weight, bias = some(3, side, side, 8), some(16, 8, 3, 3), some(16)
    bend = (some(3, 8), some(8), some(8)) if bent else None
    out, total, square = Conv3(weight, bias, m, "test", rectify=not bent)(x, bend)
    seen = torch.from_numpy(x).double()
    if bend:
        scale, shift, least = (torch.from_numpy(part).double() for part in bend)
        seen = torch.maximum(seen * scale[:, None, None] + shift, least)
    wanted = functional.conv2d(
        seen.permute(0, 3, 1, 2), torch.from_numpy(weight).double(),
        torch.from_numpy(bias).double(), padding=1,
    )  # fmt: skip
    wanted = (wanted if bent else wanted.relu()).permute(0, 2, 3, 1).numpy()
    assert np.abs(out - wanted).max() < 2e-4 * np.abs(wanted).max()
    assert np.allclose(total, wanted.sum((1, 2)), rtol=1e-3, atol=1e-2)
    assert np.allclose(square, (wanted**2).sum((1, 2)), rtol=1e-3)


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("side", [29, 21])
def test_the_engine_gives_the_scores_of_the_network(as_released, side, monkeypatch):
    torch.manual_seed(0)
    net = Complex(side=side, width=8, as_released=as_released).eval()
    with torch.no_grad():
        for p in net.parameters():  # fresh biases and thresholds are 0 and would hide mistakes
            p.add_(0.1 * torch.randn_like(p))
    pixels = np.random.default_rng(0).random((11, 3, side, side)).astype(np.float32)
    wanted = scores_of(net, pixels)
    monkeypatch.setattr(fast, "LATE", 6)
    score = fast.engine(net)(pixels)
    assert np.abs(score - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    assert wanted.std() > 1e-3
    assert np.array_equal(fast.engine(net)(pixels[:0]), np.zeros(0))


def test_other_networks_keep_their_own_layers():
    net = Simple(width=4).eval()
    pixels = np.random.default_rng(0).random((5, 3, 29, 29)).astype(np.float32)
    assert np.array_equal(fast.engine(net)(pixels), scores_of(net, pixels))
