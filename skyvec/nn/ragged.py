"""A batch of series of different lengths, without padding."""

from typing import NamedTuple

import torch
from torch import Tensor


class Ragged(NamedTuple):
    """Series of one batch laid end to end; point j belongs to series ``curve[j]``.

    Shapes: N points, n series, D bands.

    Args:
        time: Since the first point of the series [day], float64 (a model may cast it), (N,),
            ascending within a series.
        value: Normalised value, float32, (N,).
        error: One-sigma error in the same unit, NaN where unknown, float32, (N,).
        band: Code of the band, int64, (N,).
        curve: Which series, int64, (N,), ascending.
        offsets: First point of each series and the end, int64, (n + 1,).
        amplitude: log10 of scatter over mean level of each band, NaN where it has no meaning
            (difference flux, band without points), float32, (n, D).
    """

    time: Tensor
    value: Tensor
    error: Tensor
    band: Tensor
    curve: Tensor
    offsets: Tensor
    amplitude: Tensor

    @property
    def n(self) -> int:
        """Number of series."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Number of points of each series, (n,)."""
        return self.offsets.diff()

    def keep(self, points: Tensor) -> "Ragged":
        """Keep the points where the mask (N,) is true; series may become empty."""
        curve = self.curve[points]
        counts = torch.bincount(curve, minlength=self.n)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Ragged(
            self.time[points],
            self.value[points],
            self.error[points],
            self.band[points],
            curve,
            offsets,
            self.amplitude,
        )

    def to(self, device: torch.device | str) -> "Ragged":
        """Move every tensor to a device."""
        return Ragged(*(tensor.to(device) for tensor in self))


def curve_mean(x: Tensor, batch: Ragged) -> Tensor:
    """Mean of a per-point quantity x (N,) over each series, (n,); 0 for an empty series."""
    total = x.new_zeros(batch.n).index_add_(0, batch.curve, x)
    return total / batch.lengths.clamp(min=1).to(x.dtype)


def random_subset(
    batch: Ragged,
    generator: torch.Generator,
    *,
    low: float = 0.1,
    high: float = 0.5,
    least: int = 2,
) -> Tensor:
    """Choose, for each series, a random fraction of its points, as the interpolation task does.

    The fraction is drawn uniformly from [low, high] for each series; at least ``least`` points
    (or all, where there are fewer) are kept.

    Returns:
        Boolean mask (N,).
    """
    n_points = len(batch.time)
    device = batch.time.device
    share = torch.rand(batch.n, generator=generator, device=device) * (high - low) + low
    wanted = torch.maximum(
        (share * batch.lengths).long(), torch.full_like(batch.lengths, least)
    ).clamp(max=batch.lengths)
    # rank of a random key within its series: sort by (series, key)
    key = torch.rand(n_points, generator=generator, device=device, dtype=torch.float64)
    order = torch.argsort(batch.curve + key)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(n_points, device=device) - batch.offsets[:-1][batch.curve[order]]
    return rank < wanted[batch.curve]
