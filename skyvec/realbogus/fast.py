"""The same scores in less time: engines for networks as they are on a processor.

The deep network is computed in 3x3 convolutions of few multiplications
(:mod:`skyvec.nn.winograd`), the simple one in products that read neighbourhoods where they lie
(:mod:`skyvec.nn.products`). Early maps are worked on a few stamps at a time, so that they stay in
the cache; late ones many at a time, so that the weights do.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skyvec.models.stamps import Complex, Simple
from skyvec.nn.maps import (
    SOME,
    Map,
    Sums,
    halve_all,
    places,
    room,
    weigh_and_add,
)
from skyvec.nn.products import COLUMNS, NEVER, Array, multiply, pack, scratch, sixes
from skyvec.nn.responses import FilterResponse, ResponseBlock
from skyvec.nn.stem import POINTS, First, Stem
from skyvec.nn.winograd import PIXELS, Bend, Conv3
from skyvec.realbogus.score import Engine, eager

SECOND, THIRD, FOURTH = 7, 10, 6
"""Points after the first pooling, after the second, and after stride 2, best at 29 px."""
MIDDLE, LATE = 24, 192
"""Stamps worked on at a time before the second pooling, and after it."""
GROUP, FEW = 24, 12
"""Stamps the simple network works on at a time after its first pooling, and before."""


def engine(net: nn.Module) -> Engine:
    """Give the fastest exact way to score with a network on a processor."""
    if next(net.parameters()).device.type == "cpu":
        if isinstance(net, Complex) and net.out.in_features % (8 * COLUMNS) == 0:
            return _Complex(net)
        if isinstance(net, Simple) and net.out.in_features % (2 * COLUMNS) == 0:
            return _Simple(net)
    return eager(net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def _array(tensor: Any) -> Array:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _rows(conv: Any) -> Array:
    """Weights of a convolution, (y, x, channel) of its neighbourhood -> (in, out)."""
    weight = _array(conv.weight)
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))


def _first(conv: Any) -> First:
    return First(_array(conv.weight), _array(conv.bias), conv.padding[0])


def _conv(conv: Any, points: int, slot: str, **more: Any) -> Conv3:
    return Conv3(_array(conv.weight), _array(conv.bias), points, slot, **more)


class _Response:
    """Filter response: normalise by the mean of the squares of each channel, cut from below."""

    def __init__(self, layer: FilterResponse) -> None:
        self.gamma, self.beta, self.tau = map(_array, (layer.gamma, layer.beta, layer.tau))
        self.eps = 1e-6 + np.logaddexp(0, _array(layer.e)).astype(np.float32)
        self.total = layer.total

    def __call__(self, added: Sums, pixels: int) -> Bend:
        scale = scratch("response scale", *added.square.shape)
        np.multiply(added.square, np.float32(1 if self.total else 1 / pixels), out=scale)
        scale += self.eps
        np.sqrt(scale, out=scale)
        return Bend(np.divide(self.gamma, scale, out=scale), self.beta, self.tau)


class _Dense:
    """A dense layer, cut at ``least``."""

    def __init__(self, layer: Any, least: np.float32) -> None:
        self.weight, self.bias = pack(_array(layer.weight).T), _array(layer.bias)
        self.least = least

    def __call__(self, x: Array, slot: str) -> Array:
        rows, depth, columns = sixes(len(x)), x.shape[1], len(self.bias)
        out = scratch(slot, rows, columns)
        multiply(
            x.reshape(-1), 0, depth, rows, depth, self.weight, 0, columns, self.bias, self.least,
            out.reshape(-1), 0, columns,
        )  # fmt: skip
        return out


def _sums(slot: str, n: int, channels: int) -> Sums:
    """Room for the sums of a map."""
    return Sums(*(scratch(f"{name} {slot}", n, channels) for name in ("sum", "squares")))


class _Block:
    """A residual block, a map and its sums -> a map and its sums."""

    def __init__(self, block: ResponseBlock, points: int, slot: str, tile: int = 0) -> None:
        self.first, self.second = _Response(block.first), _Response(block.second)
        self.stride = block.conv.stride[0]
        self.conv = _conv(block.conv, points if self.stride == 1 else 9, "inner")
        self.widen = _conv(block.widen, points, slot, tile=tile)
        self.place = _array(block.weigh.place.weight).reshape(-1)
        self.offset = np.float32(_array(block.weigh.place.bias)[0])
        self.slot = slot
        self.squeeze = _Dense(block.weigh.squeeze, np.float32(0))
        self.excite = _Dense(block.weigh.excite, NEVER)
        self.short, self.bias = pack(_rows(block.shortcut)), _array(block.shortcut.bias)

    def __call__(self, x: Map, added: Sums) -> tuple[Map, Sums]:
        n, channels = added.plain.shape
        inner, outer = _sums("inner", n, channels), _sums(self.slot, n, self.widen.outputs)
        y = self.conv(x, self.first(added, x.height * x.width), inner)
        u = self.widen(y, self.second(inner, y.height * y.width), outer)
        pixels = u.height * u.width
        mean = scratch("mean", sixes(n), self.widen.outputs)
        np.multiply(outer.plain, np.float32(1 / pixels), out=mean[:n])
        channel = self.excite(self.squeeze(mean, "squeezed"), "excited")
        torch.from_numpy(channel).sigmoid_()
        weigh_and_add(
            u.flat, places(u.data.shape, u.height, u.width), pixels, channel.reshape(-1),
            self.place, self.offset, x.flat,
            places(x.data.shape, u.height, u.width, self.stride), channels, self.short, self.bias,
            scratch("some", SOME * self.widen.outputs), outer.plain.reshape(-1),
            outer.square.reshape(-1),
        )  # fmt: skip
        return u, outer


class _Complex:
    """The deep network, from normalised stamps (n, 3, y, x) to scores (n,)."""

    def __init__(self, net: Complex) -> None:
        net = net.eval()
        rest: list[Any] = list(net.stem[1:])
        self.stem = Stem(
            _first(net.stem[0]), [(_array(conv.weight), _array(conv.bias)) for conv in rest]
        )
        self.conv2, self.conv3 = (
            _conv(conv, points, "map 0", rectify=True)
            for conv, points in ((net.conv2, SECOND), (net.conv3, THIRD))
        )
        self.block2 = _Block(net.block2, SECOND, "map 1")
        self.block3 = _Block(net.block3, THIRD, "map 1", tile=2 * PIXELS[9])
        self.block4, self.block5 = (
            _Block(block, FOURTH, slot)
            for block, slot in ((net.block4, "map 0"), (net.block5, "map 1"))
        )
        self.out = net.out

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        scores = [np.zeros(0)]
        pixels = np.ascontiguousarray(pixels)
        with torch.inference_mode():
            for first in range(0, len(pixels), LATE):
                scores.append(self._score(pixels[first : first + LATE]))
        return np.concatenate(scores)

    def _score(self, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        n, _, height, width = pixels.shape
        pooled = -(-height // 2), -(-width // 2)
        height, width = (-(-size // 2) for size in pooled)
        half = room("half", n, height, width, self.conv2.outputs, self.conv3.tile)
        for i in range(0, n, MIDDLE):
            some = pixels[i : i + MIDDLE]
            whole = room("pooled", len(some), *pooled, self.conv2.inputs, self.conv2.tile)
            self.stem(some, whole)
            added = _sums("map 0", len(whole.data), self.conv2.outputs)
            x, _ = self.block2(self.conv2(whole, added=added), added)
            _halved(x, Map(half.data[i : i + MIDDLE], height, width))
        added = _sums("map 0", n, self.conv3.outputs)
        x = self.conv3(half, added=added)
        for block in (self.block3, self.block4, self.block5):
            x, added = block(x, added)
        z = self.out(torch.from_numpy(added.plain / np.float32(x.height * x.width)))
        return (z[:, 1] - z[:, 0]).double().numpy()


class _Simple:
    """The shallow network, from normalised stamps (n, 3, y, x) to scores (n,)."""

    def __init__(self, net: Simple) -> None:
        net = net.eval()
        self.half = net._half
        self.one = _first(net.one)
        self.two = _conv(net.two, POINTS, "second", rectify=True)
        first: Any = net.dense[0]
        channels = len(net.two.bias)  # type: ignore[arg-type]
        side = round((first.in_features // channels) ** 0.5)
        weight = first.weight.detach().reshape(-1, channels, side, side)
        # columns in the order (y, x, channel) in which maps lie here
        self.dense = [(weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), first.bias)]
        self.dense += [(layer.weight.T, layer.bias) for layer in (net.dense[1], net.out)]  # type: ignore[misc]

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        scores = [np.zeros(0)]
        pixels = np.ascontiguousarray(pixels)
        with torch.inference_mode():
            for first in range(0, len(pixels), GROUP):
                scores.append(self._score(pixels[first : first + GROUP]))
        return np.concatenate(scores)

    def _score(self, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        n, side, width = len(pixels), pixels.shape[2] - 4, self.one.bias.shape[1]
        half = self.half(side)
        inner = half - 2
        # without a border of its own: the convolution has none, so the pixels stand in for it
        x = room("simple 1", n, inner, inner, width, self.two.tile)
        x.data[...] = 0
        for i in range(0, n, FEW):
            some = pixels[i : i + FEW]
            made = Map(scratch("simple 0", len(some), side, side, width), side, side)
            self.one(some, made, 0)
            part = x.data[i : i + FEW]
            halve_all(
                made.flat, made.data.shape, 0, side, side, part.reshape(-1), part.shape, 0,
                half, half,
            )  # fmt: skip
        y = self.two(x)
        last = self.half(inner)
        flat = scratch("simple 2", n, last, last, self.two.outputs)
        halve_all(
            y.flat, y.data.shape, 1, inner, inner, flat.reshape(-1), flat.shape, 0, last, last
        )
        z = torch.from_numpy(flat.reshape(n, -1))
        for i, (weight, bias) in enumerate(self.dense):
            z = torch.addmm(bias, z, weight)
            z = z.relu_() if i < 2 else z
        return (z[:, 1] - z[:, 0]).double().numpy()


def _halved(x: Map, out: Map) -> None:
    halve_all(
        x.flat, x.data.shape, 1, x.height, x.width, out.flat, out.data.shape, 1, out.height,
        out.width,
    )  # fmt: skip
