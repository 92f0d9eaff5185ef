"""Small layers shared by the networks."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dilated(nn.Module):
    """u + GELU(conv(norm(u))), (n, width, cells) -> the same."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)

    def forward(self, u: Tensor) -> Tensor:
        """Add what the neighbourhood says."""
        return u + functional.gelu(self.conv(self.norm(u)))


def contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding each row's partner among all rows by cosine, both ways.

    Args:
        one: Codes of n things, (n, d).
        other: Other codes of the same things, (n, d).
        temperature: Cosines are divided by it.

    References:
        van den Oord et al. 2018, arXiv:1807.03748; Chen et al. 2020, arXiv:2002.05709.
    """
    cosine = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T
    own = torch.arange(len(one), device=one.device)
    logits = cosine / temperature
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


class Residual(nn.Module):
    """skip(u) + conv(GELU(norm(conv(GELU(norm(u)))))), (n, c, y, x) -> (n, d, y / s, x / s).

    Normalisation is over groups of channels of one image: no image sees another.

    Args:
        given: c, a multiple of 4.
        wanted: d, a multiple of 4.
        stride: s.
    """

    def __init__(self, given: int, wanted: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(4, given)
        self.first = nn.Conv2d(given, wanted, 3, stride=stride, padding=1)
        self.second_norm = nn.GroupNorm(4, wanted)
        self.second = nn.Conv2d(wanted, wanted, 3, padding=1)
        self.stride = stride
        self.skip = nn.Identity() if given == wanted else nn.Conv2d(given, wanted, 1)

    def forward(self, u: Tensor) -> Tensor:
        """Add what the neighbourhood says."""
        short = functional.avg_pool2d(u, self.stride) if self.stride > 1 else u
        inner = self.first(functional.gelu(self.first_norm(u)))
        inner = self.second(functional.gelu(self.second_norm(inner)))
        return self.skip(short) + inner
