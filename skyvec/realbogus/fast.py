"""The same scores in less time: engines for networks as they are on a processor.

The deep network is computed in 3x3 convolutions of few multiplications
(:mod:`skyvec.nn.winograd`), with normalisation and activation folded into the passes that lay out
the next product, and sums of squares taken while a map is written. Early maps are worked on a few
stamps at a time, so that they stay in the cache; late ones many at a time, so that the weights do.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skyvec.models.stamps import Complex
from skyvec.nn.responses import FilterResponse, ResponseBlock
from skyvec.nn.winograd import Array, Conv3, patches, pool2, scratch, weigh_and_add
from skyvec.realbogus.score import Engine, eager

EARLY, LATE = 4, 64
"""Stamps worked on at a time before and after the first pooling."""

Bend = tuple[Array, Array, Array]


def engine(net: nn.Module) -> Engine:
    """Give the fastest exact way to score with a network on a processor."""
    if isinstance(net, Complex) and next(net.parameters()).device.type == "cpu":
        return _Complex(net)
    return eager(net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def _array(tensor: Any) -> Array:
    return np.ascontiguousarray(tensor.detach().float().numpy())


class _Response:
    """The scale that a filter response has, from the sum of squares of each channel."""

    def __init__(self, layer: FilterResponse) -> None:
        self.gamma, self.beta, self.tau = map(_array, (layer.gamma, layer.beta, layer.tau))
        self.eps = 1e-6 + np.logaddexp(0, _array(layer.e)).astype(np.float32)
        self.total = layer.total

    def __call__(self, square: Array, pixels: int) -> Bend:
        nu2 = square if self.total else square / np.float32(pixels)
        return (self.gamma / np.sqrt(nu2 + self.eps)).astype(np.float32), self.beta, self.tau


class _Block:
    """A residual block, (n, y, x, c) with its sums of squares -> the same."""

    def __init__(self, block: ResponseBlock, slot: str) -> None:
        self.slot = slot
        self.first, self.second = _Response(block.first), _Response(block.second)
        self.stride = block.conv.stride[0]
        weight, bias = _array(block.conv.weight), _array(block.conv.bias)
        self.conv = Conv3(weight, bias, 4, "inner")
        # rows of the neighbourhood in the order (y, x, channel)
        flat = weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))
        self.flat, self.bias = torch.from_numpy(np.ascontiguousarray(flat)), torch.from_numpy(bias)
        self.widen = Conv3(_array(block.widen.weight), _array(block.widen.bias), 4, "wide")
        self.place = _array(block.weigh.place.weight).reshape(-1)
        self.offset = np.float32(_array(block.weigh.place.bias)[0])
        self.squeeze, self.excite = block.weigh.squeeze, block.weigh.excite
        self.short = block.shortcut.weight.detach().flatten(1).T.contiguous()
        self.short_bias = torch.from_numpy(_array(block.shortcut.bias))

    def __call__(self, x: Array, square: Array) -> tuple[Array, Array]:
        n, height, width, inputs = x.shape
        bend = self.first(square, height * width)
        if self.stride == 1:
            main, _, inner = self.conv(x, bend)
        else:
            high, wide = -(-height // 2), -(-width // 2)
            rows = scratch("patches", n * high * wide, 9 * inputs)
            before = max(0, (high - 1) * 2 + 3 - height) // 2
            patches(x, 3, 2, before, True, *bend, rows)
            made = torch.addmm(self.bias, torch.from_numpy(rows), self.flat)
            main = made.numpy().reshape(n, high, wide, inputs)
            inner = np.square(main).sum((1, 2))
        high, wide = main.shape[1:3]
        u, total, _ = self.widen(main, self.second(inner, high * wide))
        mean = torch.from_numpy(total / np.float32(high * wide))
        channel = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean)))).numpy()
        seen = x if self.stride == 1 else np.ascontiguousarray(x[:, ::2, ::2])
        short = scratch("short", *u.shape)
        flat = torch.from_numpy(short.reshape(-1, u.shape[3]))
        seen_rows = torch.from_numpy(seen.reshape(-1, inputs))
        torch.addmm(self.short_bias, seen_rows, self.short, out=flat)
        out = scratch(self.slot, *u.shape)
        squares = np.zeros((n, u.shape[3]), np.float32)
        weigh_and_add(u, self.place, self.offset, channel, short, out, squares)
        return out, squares


class _Complex:
    """The deep network, from normalised stamps (n, 3, y, x) to scores (n,)."""

    def __init__(self, net: Complex) -> None:
        net = net.eval()
        first: Any = net.stem[0]
        rest: list[Any] = list(net.stem[1:])
        weight = _array(first.weight).transpose(2, 3, 1, 0).reshape(-1, len(first.weight))
        self.first = torch.from_numpy(np.ascontiguousarray(weight)), first.bias.detach()
        self.stem = [
            Conv3(_array(conv.weight), _array(conv.bias), 6, f"stem {i % 2}", rectify=True)
            for i, conv in enumerate(rest, 1)
        ]
        self.conv2, self.conv3 = (
            Conv3(_array(conv.weight), _array(conv.bias), 4, "map 0", rectify=True)
            for conv in (net.conv2, net.conv3)
        )
        self.block2, self.block3 = _Block(net.block2, "map 1"), _Block(net.block3, "map 1")
        self.block4, self.block5 = _Block(net.block4, "map 0"), _Block(net.block5, "map 1")
        self.out = net.out

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        scores = [np.zeros(0)]
        with torch.inference_mode():
            for first in range(0, len(pixels), LATE):
                scores.append(self._late(pixels[first : first + LATE]))
        return np.concatenate(scores)

    def _early(self, pixels: NDArray[np.float32]) -> Array:
        x = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        n, height, width, channels = x.shape
        rows = scratch("patches", n * height * width, 25 * channels)
        none = np.zeros((1, 1), np.float32)
        patches(x, 5, 1, 2, False, none, none[0], none[0], rows)
        weight, bias = self.first
        x = scratch("stem 0", n, height, width, len(bias))
        flat = torch.from_numpy(x.reshape(-1, len(bias)))
        torch.addmm(bias, torch.from_numpy(rows), weight, out=flat).relu_()
        for conv in self.stem:
            x, _, _ = conv(x)
        return x

    def _late(self, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        halves = [-(-side // 2) for side in pixels.shape[2:]]
        x = scratch("pooled", len(pixels), *halves, len(self.stem[-1].bias))
        for i in range(0, len(pixels), EARLY):
            _pooled(self._early(pixels[i : i + EARLY]), x[i : i + EARLY])
        x, _, square = self.conv2(x)
        x = self.block2(x, square)[0]
        n, height, width, channels = x.shape
        x = _pooled(x, scratch("pooled", n, -(-height // 2), -(-width // 2), channels))
        x, _, square = self.conv3(x)
        x, square = self.block3(x, square)
        x, square = self.block4(x, square)
        x, _ = self.block5(x, square)
        z = self.out(torch.from_numpy(x.mean((1, 2))))
        return (z[:, 1] - z[:, 0]).double().numpy()


def _pooled(x: Array, out: Array) -> Array:
    pool2(x, out, np.zeros((len(x), x.shape[3]), np.float32))
    return out
