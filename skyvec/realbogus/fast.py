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
from skyvec.nn.products import COLUMNS, ROWS, Array, pack, scratch, sixes
from skyvec.nn.responses import FilterResponse, ResponseBlock
from skyvec.nn.winograd import (
    Bend,
    Conv3,
    Map,
    Sums,
    bend,
    clear_border,
    convolve_first,
    gather_and_multiply,
    halve,
    room,
    sums,
    weigh_and_add,
)
from skyvec.realbogus.score import Engine, eager

STEM, SECOND, THIRD = 6, 5, 4
"""Pixels of a tile before the first pooling, before the second, and after it, best at 29 px."""
EARLY, MIDDLE, LATE = 12, 24, 192
"""Stamps worked on at a time before the first pooling, before the second, and after it."""
GATHERED = 250_000
"""Bytes of neighbourhoods gathered at a time."""
GROUP = 24
"""Stamps the simple network works on at a time after its first pooling."""


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


class _First:
    """The first convolution, of few channels, and max(x, 0)."""

    def __init__(self, conv: Any) -> None:
        self.weight, self.bias = pack(_rows(conv)), _array(conv.bias)
        self.kernel, self.border = conv.kernel_size[0], conv.padding[0]

    def __call__(self, pixels: NDArray[np.float32], out: Map, edge: int) -> None:
        _, channels, height, width = pixels.shape
        line = (sixes(width + 2 * self.border - self.kernel + 1) + self.kernel - 1) * channels
        laid = np.zeros((height + 2 * self.border) * line, np.float32)
        convolve_first(
            pixels, self.border, self.kernel, self.weight, len(self.bias), self.bias,
            np.float32(0), laid, out.flat, out.data.shape, edge,
        )  # fmt: skip


class _Response:
    """Filter response: normalise by the mean of the squares of each channel, cut from below."""

    def __init__(self, layer: FilterResponse) -> None:
        self.gamma, self.beta, self.tau = map(_array, (layer.gamma, layer.beta, layer.tau))
        self.eps = 1e-6 + np.logaddexp(0, _array(layer.e)).astype(np.float32)
        self.total = layer.total

    def __call__(self, added: Sums, pixels: int) -> Bend:
        nu2 = added.square if self.total else added.square / np.float32(pixels)
        scale = (self.gamma / np.sqrt(nu2 + self.eps)).astype(np.float32)
        return Bend(scale, self.beta, self.tau)


def _sums(n: int, channels: int) -> Sums:
    """Room for the sums of a map."""
    return Sums(*(np.empty((n, channels), np.float32) for _ in range(2)))


class _Direct:
    """A convolution as products of neighbourhoods gathered in the cache, 1x1 or strided."""

    def __init__(self, conv: Any, slot: str) -> None:
        self.weight, self.bias, self.slot = pack(_rows(conv)), _array(conv.bias), slot
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]

    def __call__(self, x: Map) -> Array:
        n, channels = len(x.data), x.data.shape[3]
        high, broad = (-(-size // self.stride) for size in (x.height, x.width))
        # the odd pixel of padding last
        (start,) = {1 - max(0, (half - 1) * self.stride + self.kernel - size) // 2
                    for half, size in ((high, x.height), (broad, x.width))}  # fmt: skip
        pixels, depth = high * broad, self.kernel**2 * channels
        some = max(1, GATHERED // (4 * depth * pixels))
        rows = scratch("neighbours", sixes(some * pixels), depth)
        out = scratch(self.slot, n * pixels + ROWS, len(self.bias))
        gather_and_multiply(
            x.flat, x.data.shape, self.kernel, self.stride, start, high, broad, some,
            rows.reshape(-1), self.weight, self.bias, out.reshape(-1),
        )  # fmt: skip
        return out[: n * pixels].reshape(n, high, broad, -1)


class _Strided:
    """A 3x3 convolution of stride 2."""

    def __init__(self, conv: Any) -> None:
        self.direct = _Direct(conv, "strided")

    def __call__(self, x: Map, bent: Bend, added: Sums) -> Map:
        shape = x.data.shape
        y = Map(scratch("response", *shape), x.height, x.width)
        bend(
            x.flat, shape, x.height, x.width, bent.scale.reshape(-1), bent.shift, bent.least,
            y.flat,
        )  # fmt: skip
        made = self.direct(y)
        n, high, broad, channels = made.shape
        out = room("halved", n, high, broad, channels, THIRD)
        out.data[:, 1 : 1 + high, 1 : 1 + broad] = made
        clear_border(out.flat, out.data.shape, high, broad)
        sums(
            out.flat, out.data.shape, high, broad, added.plain.reshape(-1),
            added.square.reshape(-1),
        )  # fmt: skip
        return out


class _Block:
    """A residual block, a map and its sums -> a map and its sums."""

    def __init__(self, block: ResponseBlock, m: int, slot: str) -> None:
        self.slot = slot
        self.first, self.second = _Response(block.first), _Response(block.second)
        self.conv = (
            Conv3(_array(block.conv.weight), _array(block.conv.bias), m, "inner")
            if block.conv.stride[0] == 1
            else _Strided(block.conv)
        )
        self.widen = Conv3(_array(block.widen.weight), _array(block.widen.bias), m, "wide")
        self.place = _array(block.weigh.place.weight).reshape(-1)
        self.offset = np.float32(_array(block.weigh.place.bias)[0])
        self.squeeze, self.excite = block.weigh.squeeze, block.weigh.excite
        self.short = _Direct(block.shortcut, "short")

    def __call__(self, x: Map, added: Sums) -> tuple[Map, Sums]:
        n, channels = added.plain.shape
        inner, outer = _sums(n, channels), _sums(n, self.widen.outputs)
        y = self.conv(x, self.first(added, x.height * x.width), inner)
        u = self.widen(y, self.second(inner, y.height * y.width), outer)
        mean = torch.from_numpy(outer.plain / np.float32(u.height * u.width))
        channel = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean)))).numpy()
        out = Map(scratch(self.slot, *u.data.shape), u.height, u.width)
        weigh_and_add(
            u.flat, u.data.shape, u.height, u.width, self.place, self.offset, channel.reshape(-1),
            self.short(x).reshape(-1), out.flat, outer.plain.reshape(-1),
            outer.square.reshape(-1),
        )  # fmt: skip
        return out, outer


class _Complex:
    """The deep network, from normalised stamps (n, 3, y, x) to scores (n,)."""

    def __init__(self, net: Complex) -> None:
        net = net.eval()
        rest: list[Any] = list(net.stem[1:])
        self.first = _First(net.stem[0])
        self.stem = [
            Conv3(_array(conv.weight), _array(conv.bias), STEM, f"stem {i % 2}", rectify=True)
            for i, conv in enumerate(rest, 1)
        ]
        self.conv2, self.conv3 = (
            Conv3(_array(conv.weight), _array(conv.bias), m, "map 0", rectify=True)
            for conv, m in ((net.conv2, SECOND), (net.conv3, THIRD))
        )
        self.block2 = _Block(net.block2, SECOND, "map 1")
        self.block3, self.block4, self.block5 = (
            _Block(block, THIRD, slot)
            for block, slot in (
                (net.block3, "map 1"),
                (net.block4, "map 0"),
                (net.block5, "map 1"),
            )
        )
        self.out = net.out

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        scores = [np.zeros(0)]
        pixels = np.ascontiguousarray(pixels)
        with torch.inference_mode():
            for first in range(0, len(pixels), LATE):
                scores.append(self._score(pixels[first : first + LATE]))
        return np.concatenate(scores)

    def _early(self, pixels: NDArray[np.float32]) -> Map:
        n, _, height, width = pixels.shape
        whole = room("pooled", n, -(-height // 2), -(-width // 2), self.conv2.inputs, SECOND)
        for i in range(0, n, EARLY):
            some = pixels[i : i + EARLY]
            x = room("stem 0", len(some), height, width, self.conv2.inputs, STEM)
            self.first(some, x, 1)
            clear_border(x.flat, x.data.shape, height, width)
            for conv in self.stem:
                x = conv(x)
            _halved(x, Map(whole.data[i : i + EARLY], whole.height, whole.width))
        return whole

    def _score(self, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        n, _, height, width = pixels.shape
        for _ in range(2):
            height, width = -(-height // 2), -(-width // 2)
        half = room("half", n, height, width, self.conv2.outputs, THIRD)
        for i in range(0, n, MIDDLE):
            whole = self._early(pixels[i : min(i + MIDDLE, n)])
            added = _sums(len(whole.data), self.conv2.outputs)
            x, _ = self.block2(self.conv2(whole, added=added), added)
            _halved(x, Map(half.data[i : i + MIDDLE], height, width))
        added = _sums(n, self.conv3.outputs)
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
        self.one = _First(net.one)
        self.two = Conv3(
            _array(net.two.weight), _array(net.two.bias), STEM, "second", rectify=True
        )
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
        n, side, width = len(pixels), pixels.shape[2] - 4, len(self.one.bias)
        half = self.half(side)
        inner = half - 2
        # without a border of its own: the convolution has none, so the pixels stand in for it
        x = room("simple 1", n, inner, inner, width, STEM)
        x.data[...] = 0
        for i in range(0, n, EARLY):
            some = pixels[i : i + EARLY]
            made = Map(scratch("simple 0", len(some), side, sixes(side), width), side, side)
            self.one(some, made, 0)
            part = x.data[i : i + EARLY]
            halve(
                made.flat, made.data.shape, 0, side, side, part.reshape(-1), part.shape, 0,
                half, half,
            )  # fmt: skip
        y = self.two(x)
        last = self.half(inner)
        flat = scratch("simple 2", n, last, last, self.two.outputs)
        halve(y.flat, y.data.shape, 1, inner, inner, flat.reshape(-1), flat.shape, 0, last, last)
        z = torch.from_numpy(flat.reshape(n, -1))
        for i, (weight, bias) in enumerate(self.dense):
            z = torch.addmm(bias, z, weight)
            z = z.relu_() if i < 2 else z
        return (z[:, 1] - z[:, 0]).double().numpy()


def _halved(x: Map, out: Map) -> None:
    halve(
        x.flat, x.data.shape, 1, x.height, x.width, out.flat, out.data.shape, 1, out.height,
        out.width,
    )  # fmt: skip
    clear_border(out.flat, out.data.shape, out.height, out.width)
