"""The default encoder: closed-form views of a light curve, fused into one short code."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skyvec.nn import grid
from skyvec.nn.layers import Dilated, contrast
from skyvec.nn.ragged import Ragged, curve_mean, random_subset

CLIP = 4.0
"""Values are bent towards this many standard deviations before periods are sought."""

F_MIN = 3e-4
"""[1/day] Lower edge of the spectrum: nine years."""

SHARES = {"profile": 2.0, "spectrum": 1.0, "levels": 2.0, "period": 2.0, "statistics": 1.0}
"""How much each view counts in the distance between curves: of the first three the view as a
whole, of the last two each column."""


class Views(NamedTuple):
    """What the network sees of n curves in D bands, each column about 1 in size.

    Args:
        profile: Mean value by phase over two periods, highest point of the fundamental first,
            (n, D * cells).
        spectrum: log10 of the highest power in each bin of log frequency, (n, bins).
        levels: Share of the points below each level, (n, D * levels).
        period: log10 of the frequency, the shares of the scatter that a sinusoid, the profile and
            the profile over two periods take away, (n, 5).
        statistics: Skew, kurtosis, roughness, amplitude of each band, (n, 3 + 2 D).
        cells: Mean, rms, log count and presence by time cell, (n, 4 D, K).
        frequency: Of the period [1/day], float64, (n,).
        epoch: Time of phase zero since the batch's time origin [day], float64, (n,).
        first: Time of the first point, float64, (n,).
        span: Time from first to last point, float64, (n,).
    """

    profile: Tensor
    spectrum: Tensor
    levels: Tensor
    period: Tensor
    statistics: Tensor
    cells: Tensor
    frequency: Tensor
    epoch: Tensor
    first: Tensor
    span: Tensor

    @property
    def flat(self) -> Tensor:
        """The phase-free views side by side, (n, columns)."""
        parts = (self.profile, self.spectrum, self.levels, self.period, self.statistics)
        return torch.cat(parts, 1)


class GridConv(nn.Module):
    """Time grid, power spectrum and folded profile of a curve -> shape code + phase code.

    The views are sums over the points; only what follows is learned:

        shape = W x + network(x, CNN(time cells)),   x = scaled phase-free views,
        phase = linear(time cells), frequency, epoch, first time, span.

    The indexed *shape* code does not know where in its cycle a curve begins. W, whose rows begin
    orthonormal, also tells the views from the code, x = W^T shape: codes are then as far apart as
    the views they stand for. The *phase* code is for the decoder only, which is closed:
    value(t) = profile(phase of t) + trend(position of t), both linear between cells.

    It learns by dividing the points of every curve in two, 10 to 50 % of them and the rest: from
    the few tell the whole curve (L1), from either part tell the views of the rest, and find each
    part's partner among the batch.

    Args:
        bands: Number of bands; a band without points is masked.
        latent: Width of the indexed code.
        width: Width of the fusing network.
        f_max: Highest frequency [1/day] of the spectrum.
        longest: Longest transform; curves of f_max * span > longest / 3 are cut in frequency.
        cells: Time cells.
        phases: Phase cells over two periods.
        bins: Bins of log frequency.
        levels: Levels of the distribution of values.
        peaks: Candidates for the period.
        trend: Width of the learned part of the phase code.
        temperature: Of the comparison between codes.
    """

    modality = "lightcurves"
    share: Tensor

    def __init__(
        self,
        *,
        bands: int = 1,
        latent: int = 40,
        width: int = 256,
        f_max: float = 24.0,
        longest: int = 2**17,
        cells: int = 64,
        phases: int = 64,
        bins: int = 96,
        levels: int = 24,
        peaks: int = 6,
        trend: int = 16,
        temperature: float = 0.3,
    ) -> None:
        super().__init__()
        self.bands, self.latent, self.trend = bands, latent, trend
        self.f_max, self.longest, self.bins, self.peaks = f_max, longest, bins, peaks
        self.cells, self.phases, self.levels = cells, phases, levels
        self.temperature = temperature
        columns = {
            "profile": bands * phases,
            "spectrum": bins,
            "levels": bands * (levels - 1),
            "period": 5,
            "statistics": 3 + 2 * bands,
        }
        n_views = sum(columns.values())
        self.register_buffer("share", _shares(columns), persistent=False)
        self.read = nn.Parameter(torch.linalg.qr(torch.randn(n_views, latent))[0].T.contiguous())
        self.grid_net = nn.Sequential(
            nn.Conv1d(4 * bands, 32, 7, padding=3), Dilated(32, 1), Dilated(32, 2), Dilated(32, 4)
        )
        last = nn.Linear(width, latent)
        nn.init.normal_(last.weight, std=0.01)
        self.fuse = nn.Sequential(
            nn.Linear(n_views + 64, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last
        )
        self.to_trend = nn.Linear(2 * bands * cells, trend)
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
        phase = ((times.time - epoch) * frequency / 2) % 1 * self.phases
        place = ((times.time - first) / span.clamp(min=1e-6)).clamp(0, 1) * (self.cells - 1)
        row = times.curve * self.bands + times.band
        circle = torch.cat([profile, profile[..., :1]], 2)
        return _between(circle, row, phase) + _between(trend, row, place)

    def loss(self, batch: Ragged, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Interpolation + views told + partners found, and each by name."""
        given = random_subset(batch, generator)
        few, rest = self.views(batch.keep(given)), self.views(batch.keep(~given))
        one, other = self._shape(few), self._shape(rest)
        target = rest.flat * self.share
        told = [(z @ self.read - target).square().sum(1).mean() for z in (one, other)]
        views = (told[0] + told[1]) / 20
        partners = contrast(one, other, self.temperature)
        drawn = self.decode(self._code(few, one), batch)
        interpolation = curve_mean((drawn - batch.value).abs(), batch).mean()
        total = interpolation + views + partners
        return total, {"interpolation": interpolation, "views": views, "partners": partners}

    @torch.no_grad()
    def views(self, batch: Ragged) -> Views:
        """Closed-form views; nothing here is learned."""
        samples = grid.samples(batch, self.bands, CLIP)
        spectrum = grid.spectra(
            samples,
            f_min=F_MIN,
            f_max=self.f_max,
            bins=self.bins,
            peaks=self.peaks,
            oversample=1.5,
            longest=self.longest,
        )
        frequency, shares = grid.best_frequency(samples, spectrum.peaks)
        frequency = frequency.clamp(min=1e-6)
        epoch = _epoch(samples, frequency, self.phases)
        total, weight = grid.fold(samples, frequency[:, None] / 2, self.phases, epoch)
        seen = grid.look(batch, self.bands, cells=self.cells, levels=self.levels, clip=CLIP)
        views = Views(
            2 * grid.smooth_profile(total[:, 0], weight[:, 0]).flatten(1),
            4 * (torch.log10(spectrum.highest + 0.01) + 1.1),
            _levels(seen.levels),
            _period(frequency, spectrum.peaks.power[:, 0], shares),
            _statistics(seen.moments, batch.amplitude.cpu()),
            _cells(seen.grid),
            frequency,
            epoch,
            *_extent(batch),
        )
        return Views(*(view.to(batch.value.device) for view in views))

    def _shape(self, views: Views) -> Tensor:
        cells = self.grid_net(views.cells)
        pooled = torch.cat([cells.mean(2), cells.amax(2)], 1)
        x = views.flat * self.share
        return x @ self.read.T + self.fuse(torch.cat([x, pooled], 1))

    def _code(self, views: Views, shape: Tensor) -> Tensor:
        coarse = views.cells.view(-1, 4, self.bands * self.cells)[:, [0, 3]].flatten(1)
        exact = torch.stack([views.frequency, views.epoch, views.first, views.span], 1)
        return torch.cat([shape, self.to_trend(coarse), exact.to(shape.dtype)], 1)


def _shares(columns: dict[str, int]) -> Tensor:
    """Weight of each column of the views, (columns,)."""
    size = {name: 1 if name in ("period", "statistics") else n for name, n in columns.items()}
    weights = [torch.full((n,), SHARES[name] / size[name] ** 0.5) for name, n in columns.items()]
    return torch.cat(weights)


def _levels(counts: Tensor) -> Tensor:
    """Share of the points below each level, less that of a Gaussian, (n, D * (levels - 1))."""
    below = counts.cumsum(2) / counts.sum(2, keepdim=True).clamp(min=1)
    levels = counts.shape[2]
    edges = (torch.arange(1, levels) - 0.5) * (2 * CLIP / (levels - 1)) - CLIP
    is_seen = (below[..., -1:] > 0).float()
    return (16 * is_seen * (below[..., :-1] - torch.special.ndtr(edges))).flatten(1)


def _period(frequency: Tensor, power: Tensor, shares: Tensor) -> Tensor:
    """Frequency, the shares explained, and what the double period adds, (n, 5)."""
    once, twice = shares.unbind(1)
    columns = [
        torch.log10(frequency).float(),
        5 * (power - 0.5),
        5 * (once - 0.6),
        5 * (twice - 0.6),
        10 * (twice - once) - 0.5,
    ]
    return torch.stack(columns, 1)


def _statistics(moments: Tensor, amplitude: Tensor) -> Tensor:
    """Skew, kurtosis, roughness, amplitudes and which of these are known, (n, 3 + 2 D)."""
    cube, fourth, step, _ = moments.unbind(1)
    is_known = ~amplitude.isnan()
    columns = [
        cube.sign() * cube.abs() ** (1 / 3),
        2.5 * torch.log10(fourth + 0.1) - 1.2,
        2.5 * torch.log10(step + 1e-3) - 0.2,
    ]
    sizes = (2.5 * (amplitude + 1)).nan_to_num(0.0)
    return torch.cat([torch.stack(columns, 1), sizes, is_known.float()], 1)


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
