"""Truth: packed products, fast convolutions and the fast engines against numpy and torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from skyvec.models.stamps import Complex, Simple
from skyvec.nn import stem, winograd
from skyvec.nn.maps import (
    SOME,
    Map,
    Sums,
    halve_all,
    places,
    room,
    weigh_and_add,
)
from skyvec.nn.products import NEVER, aligned, multiply, multiply_at, pack, sixes
from skyvec.nn.stem import First, Stem
from skyvec.nn.winograd import KERNEL, PIXELS, Bend, Conv3
from skyvec.realbogus import fast
from skyvec.realbogus.train import scores_of


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Small tensors gain nothing from threads."""


def some(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def mapped(x, m):
    """A map of images without a border."""
    n, height, width, channels = x.shape
    made = room("test map", n, height, width, channels, m)
    made.data[...] = 0
    made.data[:, 1 : 1 + height, 1 : 1 + width] = x
    return made


def inside(x: Map):
    return x.data[:, 1 : 1 + x.height, 1 : 1 + x.width]


def test_a_product_is_numpys_and_cut_at_the_threshold():
    rows, weight, bias = some(7, 19), some(19, 32, seed=2), some(32, seed=3)
    laid, out = np.zeros((sixes(7), 19), np.float32), np.empty((sixes(7), 32), np.float32)
    laid[:7] = rows
    wanted = rows.astype(np.float64) @ weight + bias
    for least in (NEVER, np.float32(0)):
        multiply(
            laid.reshape(-1), 0, 19, 12, 19, pack(weight), 0, 32, bias, least, out.reshape(-1),
            0, 32,
        )  # fmt: skip
        assert np.allclose(out[:7], wanted.clip(least), atol=1e-5)
    with pytest.raises(ValueError, match="no multiple of 16"):
        pack(some(3, 8))


def torchs(x, weight, bias, **more):
    """A convolution in double precision, channels last."""
    made = functional.conv2d(
        torch.from_numpy(x).double().permute(0, 3, 1, 2), torch.from_numpy(weight).double(),
        torch.from_numpy(bias).double(), **more,
    )  # fmt: skip
    return made.permute(0, 2, 3, 1).numpy()


def test_rows_in_several_runs_are_neighbourhoods():
    image, weight = some(5, 9, 4), some(3 * 3 * 4, 16, seed=2)
    out, at = np.full((6, 16), np.nan, np.float32), 36 + 4 * np.arange(6)
    multiply_at(
        image.reshape(-1), at, 0, 6, 36, 3, 12, pack(weight), np.zeros(16, np.float32),
        out.reshape(-1), 16,
    )  # fmt: skip
    wanted = [image[1:4, z : z + 3].reshape(-1).astype(np.float64) @ weight for z in range(6)]
    assert np.allclose(out, wanted, atol=1e-5)


def test_memory_begins_with_a_line_of_the_cache():
    for size in (1, 17, 1000):
        assert len(aligned(size)) == size
        assert aligned(size).ctypes.data % 64 == 0


@pytest.mark.parametrize(("border", "edge"), [(0, 0), (2, 1)])
def test_the_first_convolution_is_torchs(border, edge):
    x, weight, bias = some(3, 13, 11, 3), some(16, 3, 5, 5, seed=2), some(16, seed=3)
    high, broad = 9 + 2 * border, 7 + 2 * border
    out = np.zeros((3, high + 2 * edge, broad + 2 * edge, 16), np.float32)
    First(weight, bias, border)(
        np.ascontiguousarray(x.transpose(0, 3, 1, 2)), Map(out, high, broad), edge
    )
    wanted = torchs(x, weight, bias, padding=border).clip(0)
    assert np.allclose(out[:, edge : edge + high, edge : edge + broad], wanted, atol=1e-4)
    assert np.count_nonzero(out) == np.count_nonzero(wanted)
    with pytest.raises(ValueError, match="expected"):
        First(some(16, 3, 3, 3), bias, 1)


@pytest.mark.parametrize("side", [12, 13])
def test_a_stem_is_torchs_and_pools(side, monkeypatch):
    monkeypatch.setattr(stem, "TOGETHER", 2)  # and one image alone
    x, out = some(5, side, side, 3), room("pooled", 5, -(-side // 2), -(-side // 2), 16, 4)
    weights = [some(16, 3, 5, 5, seed=1), some(16, 16, 3, 3, seed=2), some(16, 16, 3, 3, seed=3)]
    biases = [some(16, seed=seed) for seed in (4, 5, 6)]
    first = First(weights[0], biases[0], 2)
    Stem(first, list(zip(weights[1:], biases[1:])))(
        np.ascontiguousarray(x.transpose(0, 3, 1, 2)), out
    )
    for weight, bias in zip(weights, biases):
        x = torchs(x, weight, bias, padding=weight.shape[2] // 2).clip(0)
        x = x.astype(np.float32)
    wanted = functional.max_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 2, ceil_mode=True)
    wanted = wanted.permute(0, 2, 3, 1).numpy()
    assert np.abs(inside(out) - wanted).max() < 1e-4 * wanted.max()
    assert np.count_nonzero(out.data) == np.count_nonzero(inside(out))


def test_pixels_are_weighed_and_the_shortcut_added():
    u, x = some(3, 5, 7, 32), some(3, 9, 13, 16, seed=2)  # every second pixel of x
    channel, place, weight = some(3, 32, seed=3), some(32, seed=4), some(16, 32, seed=5)
    bias, offset = some(32, seed=6), np.float32(0.3)
    here, there = mapped(u, 4), room("longer", 3, 9, 13, 16, 4)
    there.data[:, 1:10, 1:14] = x
    added = Sums(*(np.full((3, 32), np.nan, np.float32) for _ in range(2)))
    weigh_and_add(
        here.flat, places(here.data.shape, 5, 7), 35, channel.reshape(-1), place, offset,
        there.flat, places(there.data.shape, 5, 7, 2), 16, pack(weight), bias,
        np.empty(SOME * 32, np.float32), added.plain.reshape(-1), added.square.reshape(-1),
    )  # fmt: skip
    gate = 1 / (1 + np.exp(-(u @ place + offset)))
    wanted = u * (gate[..., None] + channel[:, None, None]) + x[:, ::2, ::2] @ weight + bias
    assert np.allclose(inside(here), wanted, atol=1e-4)
    assert np.allclose(added.plain, wanted.sum((1, 2)), rtol=1e-4, atol=1e-3)
    assert np.allclose(added.square, (wanted**2).sum((1, 2)), rtol=1e-4)


@pytest.mark.parametrize("points", [6, 7, 8, 9, 10])
def test_the_three_transforms_belong_together(points):
    signal, kernel = some(points, 8), some(3, seed=2)
    m, stride, g = PIXELS[points], 2 if points == 9 else 1, KERNEL[points]
    into, out = np.empty((points, 8), np.float32), np.empty((m, 8), np.float32)
    winograd.into_points(points, signal.reshape(-1), 0, 8, into.reshape(-1), 0, 8, 1)
    weights = (g @ kernel)[np.minimum(np.arange(points), len(g) - 1)]
    products = weights.astype(np.float32)[:, None] * into
    winograd._out_of(points, products.reshape(-1), 0, 8, out.reshape(-1), 0, 8, 1, NEVER)
    wanted = [np.correlate(signal[:, k], kernel, "valid")[::stride] for k in range(8)]
    assert np.allclose(out, np.transpose(wanted), atol=1e-4)


@pytest.mark.parametrize("points", [6, 7, 8, 10])
@pytest.mark.parametrize(("height", "width"), [(4, 13), (13, 4), (12, 12)])
@pytest.mark.parametrize("rectify", [False, True])
def test_a_convolution_is_torchs(points, height, width, rectify):
    x, weight, bias = some(5, height, width, 8), some(16, 8, 3, 3, seed=2), some(16, seed=3)
    conv = Conv3(weight, bias, points, "test", rectify=rectify)
    conv.block = 12  # more tiles than that, and a last block that is not full
    out = conv(mapped(x, PIXELS[points]))
    wanted = torchs(x, weight, bias, padding=1)
    wanted = wanted.clip(0) if rectify else wanted
    assert np.abs(inside(out) - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.count_nonzero(out.data) == np.count_nonzero(inside(out))  # the border is clear


@pytest.mark.parametrize("side", [3, 8, 11, 16])
def test_a_convolution_of_every_second_pixel_is_torchs(side):
    x, weight, bias = some(5, side, side, 8), some(16, 8, 3, 3, seed=2), some(16, seed=3)
    conv = Conv3(weight, bias, 9, "test")
    conv.block = 6
    out = conv(mapped(x, 2 * PIXELS[9]))
    odd = side % 2
    padded = np.pad(x, ((0, 0), (odd, 1), (odd, 1), (0, 0)))  # the odd pixel of padding last
    wanted = torchs(padded, weight, bias, stride=2)
    assert (out.height, out.width) == wanted.shape[1:3] == ((side + 1) // 2,) * 2
    assert np.abs(inside(out) - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.count_nonzero(out.data) == wanted.size


@pytest.mark.parametrize("points", [6, 7, 8, 9, 10])
def test_a_convolution_bends_what_it_reads_and_adds_what_it_writes(points):
    x, weight, bias = some(3, 11, 11, 8), some(16, 8, 3, 3, seed=2), some(16, seed=3)
    tile = PIXELS[points] * (2 if points == 9 else 1)
    bent = Bend(some(3, 8, seed=4), some(8, seed=5), some(8, seed=6))
    added = Sums(*(np.full((3, 16), np.nan, np.float32) for _ in range(2)))
    conv = Conv3(weight, bias, points, "test")
    wanted = inside(
        conv(mapped(np.maximum(x * bent.scale[:, None, None] + bent.shift, bent.least), tile))
    ).copy()
    got = inside(conv(mapped(x, tile), bent, added))
    assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()  # 0, not the shift, around
    assert np.allclose(added.plain, wanted.sum((1, 2)), rtol=1e-4, atol=1e-2)
    assert np.allclose(added.square, (wanted**2).sum((1, 2)), rtol=1e-4)


def test_halving_is_torchs():
    x = some(2, 5, 7, 16)
    here = mapped(x, 4)
    for high, broad in ((3, 4), (2, 3)):  # the odd row and column kept, or dropped
        half = np.empty((2, high, broad, 16), np.float32)
        halve_all(
            here.flat, here.data.shape, 1, 5, 7, half.reshape(-1), half.shape, 0, high, broad
        )
        pooled = functional.max_pool2d(
            torch.from_numpy(x).permute(0, 3, 1, 2), 2, ceil_mode=high == 3
        )
        assert np.array_equal(half, pooled.permute(0, 2, 3, 1).numpy())


def stirred(net):
    """Fresh biases and thresholds are 0 and would hide mistakes."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


@pytest.mark.parametrize("kind", [Complex, Simple])
@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("side", [29, 21, 41])
def test_an_engine_gives_the_scores_of_the_network(kind, as_released, side, monkeypatch):
    torch.manual_seed(0)
    net = stirred(kind(side=side, width=16, as_released=as_released))
    pixels = np.random.default_rng(0).random((11, 3, side, side)).astype(np.float32)
    wanted = scores_of(net, pixels)
    monkeypatch.setattr(fast, "FEW", 4)
    monkeypatch.setattr(fast, "LATE", 7)
    monkeypatch.setattr(fast, "GROUP", 7)
    engine = fast.engine(net)
    score = engine(pixels)
    assert np.abs(score - wanted).max() < 2e-4 * max(1, np.abs(wanted).max())
    assert wanted.std() > 1e-3
    assert np.allclose(engine(pixels[::-1])[::-1], score, atol=1e-5)  # also not contiguous
    assert np.array_equal(engine(pixels[:0]), np.zeros(0))


@pytest.mark.parametrize("kind", [Complex, Simple])
def test_narrow_networks_keep_their_own_layers(kind):
    net = stirred(kind(width=4))
    pixels = np.random.default_rng(0).random((5, 3, 29, 29)).astype(np.float32)
    assert np.array_equal(fast.engine(net)(pixels), scores_of(net, pixels))
