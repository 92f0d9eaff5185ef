"""Classifiers of stamps, new, reference and difference cutouts of one detection.

Each takes normalised pixels (n, 3, y, x), finite, and gives two logits a stamp, (n, 2): bogus and
real. The score of a stamp is the difference s = z_1 - z_0, its probability 1 / (1 + exp(-s)).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skyvec.nn.responses import ResponseBlock, SameConv, glorot


class Simple(nn.Module):
    """The shallow network of Takahashi et al. 2022: two convolutions and three dense layers.

    324,354 weights at 29 pixels; 234,242 as released, where pooling drops the border.

    Args:
        side: Pixels along a side of a stamp, odd, >= 15.
        width: Channels of the first convolution; the second has twice as many.
        dropout: Probability of a zero before the dense layers, in [0, 1).
        as_released: Let pooling drop the odd row and column, as the released code does; the
            article has a flatten of (6, 6, 64).

    References:
        Takahashi et al. 2022, PASJ (arXiv:2206.12478).
    """

    def __init__(
        self,
        side: int = 29,
        width: int = 32,
        dropout: float = 0.3,
        as_released: bool = False,
    ) -> None:
        super().__init__()
        _check(side, 15, width, dropout)
        self.keeps_border = not as_released
        self.one = nn.Conv2d(3, width, 5)
        self.two = nn.Conv2d(width, 2 * width, 3)
        last = self._half(self._half(side - 4) - 2)
        self.drop = nn.Dropout(dropout)
        self.dense = nn.ModuleList(
            [nn.Linear(2 * width * last**2, 4 * width), nn.Linear(4 * width, 2 * width)]
        )
        self.out = nn.Linear(2 * width, 2)
        glorot(self)

    def _half(self, n: int) -> int:
        return -(-n // 2) if self.keeps_border else n // 2

    def features(self, x: Tensor) -> Tensor:
        """What the last layer weighs: (n, 3, side, side) -> (n, 2 width)."""
        for conv in (self.one, self.two):
            x = functional.relu(conv(x))
            x = functional.max_pool2d(x, 2, ceil_mode=self.keeps_border)
        x = self.drop(x).flatten(1)
        for dense in self.dense:
            x = functional.relu(dense(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, 2)."""
        return self.head(self.features(x))

    def head(self, features: Tensor) -> Tensor:
        """Features -> logits, (n, 2)."""
        return self.out(features)


class Complex(nn.Module):
    """The deep network of Takahashi et al. 2022: a residual network with filter responses.

    2,401,638 weights and 107 million multiplications a stamp of 29 pixels.

    Args:
        side: Pixels along a side of a stamp, >= 15.
        width: Channels of the first convolutions; 2, 4 and 8 times as many follow.
        as_released: Normalise responses by the sum of squares, as the released code does,
            instead of the mean.

    References:
        Takahashi et al. 2022, PASJ (arXiv:2206.12478).
    """

    def __init__(self, side: int = 29, width: int = 32, as_released: bool = False) -> None:
        super().__init__()
        _check(side, 15, width)
        w = width

        def block(inputs: int, outputs: int, stride: int = 1) -> ResponseBlock:
            return ResponseBlock(inputs, outputs, stride, total=as_released)

        self.stem = nn.ModuleList([SameConv(3, w, 5), *(SameConv(w, w, 3) for _ in range(4))])
        self.conv2, self.block2 = SameConv(w, 2 * w, 3), block(2 * w, 2 * w)
        self.conv3, self.block3 = SameConv(2 * w, 4 * w, 3), block(4 * w, 4 * w)
        self.block4, self.block5 = block(4 * w, 8 * w, 2), block(8 * w, 8 * w)
        self.out = nn.Linear(8 * w, 2)
        glorot(self)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer weighs: (n, 3, side, side) -> (n, 8 width)."""
        for conv in self.stem:
            x = functional.relu(conv(x))
        x = functional.max_pool2d(x, 2, ceil_mode=True)
        x = self.block2(functional.relu(self.conv2(x)))
        x = functional.max_pool2d(x, 2, ceil_mode=True)
        x = self.block3(functional.relu(self.conv3(x)))
        return self.block5(self.block4(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, 2)."""
        return self.head(self.features(x))

    def head(self, features: Tensor) -> Tensor:
        """Features -> logits, (n, 2)."""
        return self.out(features)


class Vgg6(nn.Module):
    """braai, the classifier of the Zwicky Transient Facility.

    312,081 weights at 63 pixels. Its one output z becomes the logits (0, z).

    Args:
        side: Pixels along a side of a stamp, >= 25.
        width: Channels of the first two convolutions; twice as many follow.
        dropout: Probability of a zero after the convolutions; twice that before the output.

    References:
        Duev et al. 2019, MNRAS 489, 3582.
    """

    def __init__(self, side: int = 63, width: int = 16, dropout: float = 0.25) -> None:
        super().__init__()
        _check(side, 25, width, 2 * dropout)
        w = width
        self.one = nn.ModuleList([nn.Conv2d(3, w, 3), nn.Conv2d(w, w, 3)])
        self.two = nn.ModuleList([nn.Conv2d(w, 2 * w, 3), nn.Conv2d(2 * w, 2 * w, 3)])
        last = ((side - 4) // 2 - 4) // 4
        self.dense = nn.Linear(2 * w * last**2, 16 * w)
        self.out = nn.Linear(16 * w, 1)
        self.drops = nn.ModuleList([nn.Dropout(p * dropout) for p in (1, 1, 2)])
        glorot(self)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer weighs: (n, 3, side, side) -> (n, 16 width)."""
        for convs, pool, drop in ((self.one, 2, 0), (self.two, 4, 1)):
            for conv in convs:
                x = functional.relu(conv(x))
            x = self.drops[drop](functional.max_pool2d(x, pool))
        # rows of the flattened map in the order (y, x, channel) of the published weights
        return functional.relu(self.dense(x.permute(0, 2, 3, 1).flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, 2)."""
        return self.head(self.features(x))

    def head(self, features: Tensor) -> Tensor:
        """Features -> logits, (n, 2)."""
        return functional.pad(self.out(self.drops[2](features)), (1, 0))


def braai_weights(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Turn the published weights of braai into those of :class:`Vgg6`.

    Args:
        arrays: Kernels (y, x, in, out), dense matrices (in, out) and biases, in the order of the
            layers, as Keras keeps them: the values of an ordered mapping, 12 of them.

    Returns:
        A state for ``load_state_dict``.

    Raises:
        ValueError: There are not twelve arrays.
    """
    names = ["one.0", "one.1", "two.0", "two.1", "dense", "out"]
    if len(arrays) != 2 * len(names):
        raise ValueError(f"{len(arrays)} arrays, but braai has {2 * len(names)}")
    values: list[Any] = [torch.tensor(np.asarray(a, np.float32)) for a in arrays.values()]
    state: dict[str, Tensor] = {}
    for name, weight, bias in zip(names, values[::2], values[1::2]):
        order = (3, 2, 0, 1) if weight.ndim == 4 else (1, 0)
        state |= {f"{name}.weight": weight.permute(order).contiguous(), f"{name}.bias": bias}
    return state


def _check(side: int, least: int, width: int, dropout: float = 0.0) -> None:
    if side < least:
        raise ValueError(f"side={side}: this network needs stamps of at least {least} pixels")
    if width < 2 or width % 2:
        raise ValueError(f"width={width} must be an even number of channels, >= 2")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be in [0, 1)")


CLASSIFIERS: dict[str, type[nn.Module]] = {"simple": Simple, "complex": Complex, "vgg6": Vgg6}
