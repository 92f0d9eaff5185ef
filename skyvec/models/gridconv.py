"""The default encoder: closed-form views of a light curve, fused into one short code."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from skyvec.nn import grid
from skyvec.nn.ragged import Ragged, curve_mean, random_subset

CLIP = 4.0
"""Values are bent towards this many standard deviations before periods are sought."""


class Views(NamedTuple):
    """What the network sees of n curves in D bands.

    Args:
        profile: Mean value by phase over two periods, highest point of the fundamental first,
            (n, D, cells).
        spectrum: log10 of the highest power in each bin of log frequency, scaled, (n, bins).
        values: Share of the points by value, square root, (n, D, levels).
        scalars: Period, its significance, moments, amplitude ..., each about unit size, (n, s).
        cells: Mean, rms, log count and presence by time cell, (n, 4 D, K).
        frequency: Of the period [1/day], float64, (n,).
        epoch: Time of phase zero since the batch's time origin [day], float64, (n,).
        first: Time of the first point, float64, (n,).
        span: Time from first to last point, float64, (n,).
    """

    profile: Tensor
    spectrum: Tensor
    values: Tensor
    scalars: Tensor
    cells: Tensor
    frequency: Tensor
    epoch: Tensor
    first: Tensor
    span: Tensor


class GridConv(nn.Module):
    """Time grid, power spectrum and folded profile of a curve -> shape code + phase code.

    The indexed *shape* code does not know where in its cycle a curve begins; the *phase* code
    (period, epoch, compressed time grid) is for the decoder only, which is closed:
    value(t) = profile(phase of t) + trend(position of t), both linear between cells.

    Args:
        bands: Number of bands; a band without points is masked.
        latent: Width of the indexed code.
        width: Width of the fusing network.
        f_max: Highest frequency [1/day] of the spectrum.
        cells: Time cells.
        phases: Phase cells over two periods.
    """

    def __init__(
        self,
        *,
        bands: int = 1,
        latent: int = 40,
        width: int = 256,
        f_max: float = 24.0,
        cells: int = 64,
        phases: int = 64,
        bins: int = 96,
        levels: int = 24,
        peaks: int = 4,
        trend: int = 16,
    ) -> None:
        super().__init__()
        self.bands, self.latent, self.trend = bands, latent, trend
        self.f_max, self.f_min = f_max, 3e-4
        self.cells, self.phases, self.bins, self.levels = cells, phases, bins, levels
        self.peaks = peaks
        self.n_scalars = 9 + 2 * bands
        self.grid_net = nn.Sequential(
            nn.Conv1d(4 * bands, 32, 7, padding=3),
            _Dilated(32, 1),
            _Dilated(32, 2),
            _Dilated(32, 4),
        )
        n_views = bands * (phases + levels) + bins + self.n_scalars
        self.fuse = nn.Sequential(
            nn.Linear(n_views + 64, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.to_code = nn.Linear(width, latent)
        self.straight = nn.Linear(n_views, latent)
        self.to_trend = nn.Linear(2 * bands * cells, trend)
        self.from_code = nn.Sequential(nn.Linear(latent, width), nn.GELU())
        self.to_views = nn.Linear(width, n_views)
        self.draw = nn.Sequential(
            nn.Linear(latent + trend, width),
            nn.GELU(),
            nn.Linear(width, bands * (phases + cells)),
        )

    def encode(self, batch: Ragged) -> Tensor:
        """Shape codes, (n, latent)."""
        return self._shape(self.views(batch))

    def code(self, batch: Ragged) -> Tensor:
        """Shape and phase codes, (n, latent + trend + 4)."""
        views = self.views(batch)
        return self._code(views, self._shape(views))

    def decode(self, code: Tensor, times: Ragged) -> Tensor:
        """Value at every point of ``times``, (N,)."""
        drawn = self.draw(code[:, : self.latent + self.trend])
        profile, trend = drawn.view(-1, self.bands, self.phases + self.cells).split(
            [self.phases, self.cells], 2
        )
        frequency, epoch, first, span = code[:, -4:].double()[times.curve].unbind(1)
        phase = torch.frac((times.time - epoch) * frequency / 2 + 1e6) * self.phases
        place = ((times.time - first) / span.clamp(min=1e-6)).clamp(0, 1) * (self.cells - 1)
        row = times.curve * self.bands + times.band
        circle = torch.cat([profile, profile[..., :1]], 2)
        return _between(circle, row, phase) + _between(trend, row, place)

    def loss(self, batch: Ragged, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Interpolation L1 + views told from the code + agreement of two looks at a curve."""
        few = batch.keep(random_subset(batch, generator))
        views, seen = self.views(batch), self.views(few)
        whole, part = self._shape(views), self._shape(seen)
        drawn = self.decode(self._code(seen, part), batch)
        interpolation = curve_mean((drawn - batch.value).abs(), batch).mean()
        told = functional.smooth_l1_loss(self.to_views(self.from_code(whole)), _flat(views))
        agreement = (whole - part).square().mean()
        spread = _spread(whole)
        total = interpolation + told + 0.1 * agreement + 0.1 * spread
        return total, {
            "interpolation": interpolation,
            "views": told,
            "agreement": agreement,
            "spread": spread,
        }

    @torch.no_grad()
    def views(self, batch: Ragged) -> Views:
        """Closed-form views; nothing here is learned."""
        samples = grid.samples(batch, self.bands, CLIP)
        spectrum = grid.spectra(
            samples, f_min=self.f_min, f_max=self.f_max, bins=self.bins, peaks=self.peaks
        )
        frequency, shares = grid.best_frequency(samples, spectrum.peaks)
        frequency = frequency.clamp(min=1e-6)
        epoch = _epoch(samples, frequency, self.phases)
        total, weight = grid.fold(samples, frequency[:, None] / 2, self.phases, epoch)
        seen = grid.look(batch, self.bands, cells=self.cells, levels=self.levels, clip=CLIP)
        first, span = _extent(batch)
        views = Views(
            grid.smooth_profile(total[:, 0], weight[:, 0]),
            (torch.log10(spectrum.highest + 1e-2) + 1.4) * 2,
            (seen.levels / seen.levels.sum(2, keepdim=True).clamp(min=1)).sqrt(),
            self._scalars(batch, seen.moments, frequency, shares, spectrum.peaks.power[:, 0]),
            _cells(seen.grid),
            frequency,
            epoch,
            first,
            span,
        )
        return Views(*(view.to(batch.value.device) for view in views))

    def _scalars(
        self, batch: Ragged, moments: Tensor, frequency: Tensor, shares: Tensor, power: Tensor
    ) -> Tensor:
        skew, kurtosis, step, error = moments.unbind(1)
        error = torch.where(error > 0, torch.log10(error.clamp(1e-4, 1e4)) + 0.5, 0.0)
        has_amplitude = ~batch.amplitude.isnan().cpu()
        amplitude = torch.where(has_amplitude, batch.amplitude.cpu() + 1, 0.0).clamp(-4, 2)
        columns = [
            torch.log10(frequency).float(),
            *(2 * shares - 1).unbind(1),
            2 * power - 1,
            skew.sign() * skew.abs().clamp(max=1e3) ** (1 / 3),
            torch.log10(kurtosis.clamp(1e-1, 1e4)) - 0.5,
            torch.log10(step + 1e-3),
            error,
            torch.log10(batch.lengths.cpu().clamp(min=1).float()) - 2.5,
        ]
        return torch.cat([torch.stack(columns, 1), amplitude, has_amplitude.float()], 1)

    def _shape(self, views: Views) -> Tensor:
        cells = self.grid_net(views.cells)
        pooled = torch.cat([cells.mean(2), cells.amax(2)], 1)
        flat = _flat(views)
        return self.to_code(self.fuse(torch.cat([flat, pooled], 1))) + self.straight(flat)

    def _code(self, views: Views, shape: Tensor) -> Tensor:
        coarse = views.cells.view(-1, 4, self.bands * self.cells)[:, [0, 3]].flatten(1)
        exact = torch.stack([views.frequency, views.epoch, views.first, views.span], 1)
        return torch.cat([shape, self.to_trend(coarse), exact.to(shape.dtype)], 1)


class _Dilated(nn.Module):
    """u + GELU(conv(norm(u)))."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)

    def forward(self, u: Tensor) -> Tensor:
        return u + functional.gelu(self.conv(self.norm(u)))


def _flat(views: Views) -> Tensor:
    parts = (views.profile, views.spectrum, views.values, views.scalars)
    return torch.cat([part.flatten(1) for part in parts], 1)


def _cells(sums: Tensor) -> Tensor:
    """Mean, rms, log count and presence by time cell, (n, 3, D, K) -> (n, 4 D, K)."""
    count, mean = sums[:, 0], sums[:, 1] / sums[:, 0].clamp(min=1e-3)
    rms = (sums[:, 2] / count.clamp(min=1e-3) - mean**2).clamp(min=0).sqrt()
    return torch.cat([mean, rms, torch.log1p(count), (count > 0).float()], 1)


def _epoch(samples: grid.Samples, frequency: Tensor, cells: int) -> Tensor:
    """Time when the fundamental is highest; of the two in a double period, the higher one."""
    total, _ = grid.fold(samples, frequency[:, None] / 2, cells)
    wave = torch.fft.rfft(total[:, 0].sum(1))
    place = (-wave[:, 2].angle() / (4 * math.pi)) % 0.5  # in double periods
    is_lower = torch.cos(wave[:, 1].angle() + 2 * math.pi * place) < 0
    return (place + 0.5 * is_lower + 0.5 / cells).double() * 2 / frequency


def _extent(batch: Ragged) -> tuple[Tensor, Tensor]:
    """Time of the first point and span of each series, (n,) each; 0 for an empty one."""
    is_there = batch.lengths > 0
    first, last = batch.time.new_zeros(batch.n), batch.time.new_zeros(batch.n)
    first[is_there] = batch.time[batch.offsets[:-1][is_there]]
    last[is_there] = batch.time[batch.offsets[1:][is_there] - 1]
    return first, last - first


def _between(table: Tensor, row: Tensor, place: Tensor) -> Tensor:
    """Read rows of a table (n, D, cells) between its cells, (N,)."""
    cells = table.shape[2]
    flat = table.reshape(-1)
    low = place.floor().clamp(0, cells - 2)
    share = (place - low).to(table.dtype)
    index = row * cells + low.long()
    return flat[index] * (1 - share) + flat[index + 1] * share


def _spread(code: Tensor) -> Tensor:
    """How far a batch of codes is from mean 0 and covariance 1."""
    mean = code.mean(0)
    centred = code - mean
    covariance = centred.T @ centred / max(1, len(code) - 1)
    off = covariance - torch.eye(code.shape[1], device=code.device)
    return mean.square().mean() + off.square().sum() / code.shape[1]
