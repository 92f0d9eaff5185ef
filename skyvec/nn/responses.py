"""Parts of residual networks that normalise by responses and weigh by place and channel."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class FilterResponse(nn.Module):
    """Filter response normalisation with its threshold, (n, c, y, x) -> the same.

    y = max(gamma x / sqrt(nu2 + eps) + beta, tau), nu2 the mean of x^2 over the pixels of the
    channel, eps = 1e-6 + softplus(e); gamma, beta, tau and e are learnt, one each a channel.

    Args:
        channels: c.
        total: Take the sum of x^2 instead of the mean, as the code released with Takahashi et
            al. 2022 does.

    References:
        Singh & Krishnan 2020, CVPR (arXiv:1911.09737).
    """

    def __init__(self, channels: int, *, total: bool = False) -> None:
        super().__init__()
        self.total = total
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.tau = nn.Parameter(torch.zeros(channels))
        self.e = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Divide every channel by its own strength, then cut at its own threshold."""
        eps = 1e-6 + functional.softplus(self.e)
        share = 1.0 if self.total else 1 / (x.shape[2] * x.shape[3])
        out: Tensor = _Response.apply(  # type: ignore[no-untyped-call]
            x, self.gamma, self.beta, self.tau, eps, share
        )
        return out


class _Response(torch.autograd.Function):
    """The response with its derivative written out: half the passes through memory."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        tau: Tensor,
        eps: Tensor,
        share: float,
    ) -> Tensor:
        nu2 = x.square().sum((2, 3), keepdim=True).mul_(share)
        root = nu2.add_(eps[:, None, None]).rsqrt_()
        y = x * (gamma[:, None, None] * root)
        y += beta[:, None, None]
        torch.maximum(y, tau[:, None, None], out=y)
        ctx.save_for_backward(x, gamma, tau, root, y)
        ctx.share = share
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, tau, root, y = ctx.saved_tensors
        passed = grad * (y > tau[:, None, None])
        through = passed.sum((0, 2, 3))
        along = (passed * x).sum((2, 3), keepdim=True)
        # d(loss)/d(nu2 + eps) of each stamp and channel
        slope = along * (-0.5 * gamma[:, None, None] * root**3)
        passed *= gamma[:, None, None] * root
        passed.addcmul_(x, (2 * ctx.share) * slope)
        return (
            passed,
            (along * root).sum((0, 2, 3)),
            through,
            grad.sum((0, 2, 3)) - through,
            slope.sum((0, 2, 3)),
            None,
        )


class SqueezeExcite(nn.Module):
    """u * sigmoid(w u) + u * sigmoid(W2 relu(W1 mean(u))), (n, c, y, x) -> the same.

    The first factor weighs places, the second channels; W1 halves the channels.

    References:
        Roy, Navab & Wachinger 2018, MICCAI (arXiv:1803.02579).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.place = nn.Conv2d(channels, 1, 1)
        self.squeeze = nn.Linear(channels, channels // 2)
        self.excite = nn.Linear(channels // 2, channels)

    def forward(self, u: Tensor) -> Tensor:
        """Weigh."""
        channel = self.excite(functional.relu(self.squeeze(u.mean((2, 3)))))
        return u * (torch.sigmoid(self.place(u)) + torch.sigmoid(channel)[:, :, None, None])


class SameConv(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) pixels, the odd pixel of padding last."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        odd = stride > 1 and kernel > 1
        super().__init__(inputs, outputs, kernel, stride, padding=0 if odd else kernel // 2)
        self.odd = odd

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if self.odd:
            pads = []
            for size in (x.shape[3], x.shape[2]):
                k, s = self.kernel_size[0], self.stride[0]
                total = max(0, (-(-size // s) - 1) * s + k - size)
                pads += [total // 2, total - total // 2]
            x = functional.pad(x, pads)
        return super().forward(x)


class ResponseBlock(nn.Module):
    """A residual block: frn, conv, frn, conv, squeeze-and-excite; plus a 1x1 convolution of x.

    The shortcut is always a convolution, as in the code released with Takahashi et al. 2022
    (whose test of equal widths compares the wrong numbers), because the published count of
    parameters includes it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, total: bool = False) -> None:
        super().__init__()
        self.first = FilterResponse(inputs, total=total)
        self.conv = SameConv(inputs, inputs, 3, stride)
        self.second = FilterResponse(inputs, total=total)
        self.widen = SameConv(inputs, outputs, 3)
        self.weigh = SqueezeExcite(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, y, x) -> (n, outputs, ceil(y / stride), ceil(x / stride))."""
        main = self.weigh(self.widen(self.second(self.conv(self.first(x)))))
        return main + self.shortcut(x)


def glorot(module: nn.Module) -> None:
    """Draw all weights of convolutions and dense layers Glorot-uniform, and set biases to 0.

    References:
        Glorot & Bengio 2010, AISTATS.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
