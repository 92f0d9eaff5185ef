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
    bend,
    halve_all,
    multiply_some,
    places,
    room,
    sums,
    weigh_and_add,
)
from skyvec.nn.products import NEVER, aligned, multiply, multiply_at, pack, sixes
from skyvec.nn.stem import First, Stem
from skyvec.nn.winograd import KERNEL, Bend, Conv3
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


@pytest.mark.parametrize("some_rows", [6, 24])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 2)])
def test_products_of_neighbourhoods_are_a_convolution(some_rows, kernel, stride):
    x, weight, bias = some(5, 8, 8, 8), some(16, 8, kernel, kernel, seed=2), some(16, seed=3)
    side = 8 // stride
    here, out = mapped(x, 4), room("out", 5, side, side, 16, 4)  # the odd padding last
    multiply_some(
        here.flat, places(here.data.shape, side, side, stride), some_rows,
        here.data.shape[2] * 8, kernel, kernel * 8,
        pack(weight.transpose(2, 3, 1, 0).reshape(-1, 16)), bias, out.flat,
        places(out.data.shape, side, side), np.empty(some_rows * 16, np.float32),
    )  # fmt: skip
    padded = np.pad(x, ((0, 0), (0, kernel - 1), (0, kernel - 1), (0, 0)))
    wanted = torchs(padded, weight, bias, stride=stride)[:, :side, :side]
    assert np.allclose(inside(out), wanted, atol=1e-4)
    assert np.count_nonzero(out.data) == wanted.size  # nothing on the border


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


@pytest.mark.parametrize("m", [4, 5, 6])
def test_the_three_transforms_belong_together(m):
    signal, kernel = some(m + 2, 8), some(3, seed=2)
    into, out = np.empty((m + 2, 8), np.float32), np.empty((m, 8), np.float32)
    winograd.into_points(m, signal.reshape(-1), 0, 8, into.reshape(-1), 0, 8, 1)
    products = (KERNEL[m] @ kernel).astype(np.float32)[:, None] * into
    winograd._out_of(m, products.reshape(-1), 0, 8, out.reshape(-1), 0, 8, 1, NEVER)
    wanted = [np.correlate(signal[:, k], kernel, "valid") for k in range(8)]
    assert np.allclose(out, np.transpose(wanted), atol=1e-4)


@pytest.mark.parametrize("m", [4, 5, 6])
@pytest.mark.parametrize(("height", "width"), [(4, 13), (13, 4), (12, 12)])
@pytest.mark.parametrize("rectify", [False, True])
def test_a_convolution_is_torchs(m, height, width, rectify):
    x, weight, bias = some(5, height, width, 8), some(16, 8, 3, 3, seed=2), some(16, seed=3)
    conv = Conv3(weight, bias, m, "test", rectify=rectify)
    conv.block = 12  # more tiles than that, and a last block that is not full
    out = conv(mapped(x, m))
    wanted = torchs(x, weight, bias, padding=1)
    wanted = wanted.clip(0) if rectify else wanted
    assert np.abs(inside(out) - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.count_nonzero(out.data) == np.count_nonzero(inside(out))  # the border is clear


@pytest.mark.parametrize("m", [4, 5, 6])
def test_a_convolution_bends_what_it_reads_and_adds_what_it_writes(m):
    x, weight, bias = some(3, 9, 13, 8), some(16, 8, 3, 3, seed=2), some(16, seed=3)
    bent = Bend(some(3, 8, seed=4), some(8, seed=5), some(8, seed=6))
    added = Sums(*(np.full((3, 16), np.nan, np.float32) for _ in range(2)))
    conv = Conv3(weight, bias, m, "test")
    wanted = inside(
        conv(mapped(np.maximum(x * bent.scale[:, None, None] + bent.shift, bent.least), m))
    ).copy()
    got = inside(conv(mapped(x, m), bent, added))
    assert np.allclose(got, wanted, atol=1e-4)  # the border is 0, not the shift
    assert np.allclose(added.plain, wanted.sum((1, 2)), rtol=1e-4, atol=1e-2)
    assert np.allclose(added.square, (wanted**2).sum((1, 2)), rtol=1e-4)


def test_passes_over_maps_by_hand():
    x = some(2, 5, 7, 16)
    here = mapped(x, 4)
    shape = here.data.shape
    plain, square = (np.empty((2, 16), np.float32) for _ in range(2))
    sums(here.flat, shape, 5, 7, plain.reshape(-1), square.reshape(-1))
    assert np.allclose(plain, x.sum((1, 2)), atol=1e-4)
    assert np.allclose(square, (x**2).sum((1, 2)), atol=1e-4)
    scale, shift, least = some(2, 16, seed=2), some(16, seed=3), some(16, seed=4)
    out = room("bent", 2, 5, 7, 16, 4)
    bend(here.flat, shape, 5, 7, scale.reshape(-1), shift, least, out.flat)
    wanted = np.maximum(x * scale[:, None, None] + shift, least)
    assert np.allclose(inside(out), wanted, atol=1e-6)
    assert np.count_nonzero(out.data) == wanted.size
    for high, broad in ((3, 4), (2, 3)):  # the odd row and column kept, or dropped
        half = np.empty((2, high, broad, 16), np.float32)
        halve_all(here.flat, shape, 1, 5, 7, half.reshape(-1), half.shape, 0, high, broad)
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
@pytest.mark.parametrize("side", [29, 21])
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
    assert np.abs(score - wanted).max() < 1e-4 * max(1, np.abs(wanted).max())
    assert wanted.std() > 1e-3
    assert np.allclose(engine(pixels[::-1])[::-1], score, atol=1e-5)  # also not contiguous
    assert np.array_equal(engine(pixels[:0]), np.zeros(0))


@pytest.mark.parametrize("kind", [Complex, Simple])
def test_narrow_networks_keep_their_own_layers(kind):
    net = stirred(kind(width=4))
    pixels = np.random.default_rng(0).random((5, 3, 29, 29)).astype(np.float32)
    assert np.array_equal(fast.engine(net)(pixels), scores_of(net, pixels))
