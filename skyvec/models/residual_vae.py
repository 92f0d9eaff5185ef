"""A residual VAE of images: group normalisation, learned noise of each band."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skyvec.models.vae import sample
from skyvec.nn.frames import Frames
from skyvec.nn.layers import Residual
from skyvec.nn.losses import gaussian_nll, kl_to_standard, warmed

REDUCTION = 16


class ResidualVae(nn.Module):
    """Residual encoder and decoder; the noise of each band is learned (sigma-VAE).

    Encoder: Conv 5x5 stride 2, then three residual stages, each halving the side and all but the
    last doubling the channels; flattened at side / 16; linear maps to mean and log-variance. Every
    normalisation is over the channels of one image. A second input channel set says which pixels
    were measured. The decoder mirrors it by nearest upsampling. loss = negative log-likelihood
    of the pixels under a Gaussian with one learned variance a band + k KL, mean over images, per
    pixel: with the variance learned, k = 1 needs no tuning.

    Args:
        bands: Number of bands.
        latent: Width of the code.
        size: Side of the images [pixel], a multiple of 16.
        width: Channels of the first stage.
        k: Weight of the KL term.
        warm_up: Training steps over which k grows from 0.

    Raises:
        ValueError: The size is no multiple of 16.

    References:
        He et al. 2016, ECCV (arXiv:1603.05027); Wu & He 2018 (arXiv:1803.08494); Rybkin,
        Daniilidis & Levine 2021 (arXiv:2006.13202).
    """

    modality = "images"
    steps: Tensor

    def __init__(
        self,
        *,
        bands: int = 3,
        latent: int = 40,
        size: int = 64,
        width: int = 16,
        k: float = 1.0,
        warm_up: int = 200,
    ) -> None:
        super().__init__()
        if size < REDUCTION or size % REDUCTION:
            raise ValueError(
                f"size = {size} must be a multiple of {REDUCTION} pixels; crop or average first"
            )
        self.bands, self.latent, self.size = bands, latent, size
        self.k, self.warm_up = k, warm_up
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.cells, self.channels = size // REDUCTION, 4 * width
        self.encoder = nn.Sequential(
            nn.Conv2d(2 * bands, width, 5, stride=2, padding=2),
            Residual(width, 2 * width, stride=2),
            Residual(2 * width, 4 * width, stride=2),
            Residual(4 * width, 4 * width, stride=2),
            nn.GroupNorm(4, 4 * width),
            nn.GELU(),
        )
        flat = self.channels * self.cells**2
        self.to_mean, self.to_log_variance = nn.Linear(flat, latent), nn.Linear(flat, latent)
        self.from_latent = nn.Linear(latent, flat)
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2),
            Residual(4 * width, 4 * width),
            nn.Upsample(scale_factor=2),
            Residual(4 * width, 2 * width),
            nn.Upsample(scale_factor=2),
            Residual(2 * width, width),
            nn.Upsample(scale_factor=2),
            nn.GroupNorm(4, width),
            nn.GELU(),
            nn.Conv2d(width, bands, 3, padding=1),
        )
        self.log_variance = nn.Parameter(torch.full((bands, 1, 1), -3.0))

    def code(self, batch: Frames) -> Tensor:
        """Means of the codes, (n, latent)."""
        return self.moments(batch)[0]

    def encode(self, batch: Frames) -> Tensor:
        """Means of the codes, (n, latent)."""
        return self.code(batch)

    def moments(self, batch: Frames) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code of each image, (n, latent) each."""
        given = torch.cat([batch.pixels.where(batch.mask, 0.0), batch.mask.float()], 1)
        # channels innermost: the same numbers, in two thirds of the time on a processor
        seen = self.encoder(given.contiguous(memory_format=torch.channels_last)).flatten(1)
        return self.to_mean(seen), self.to_log_variance(seen).clamp(-12, 4)

    def decode(self, code: Tensor) -> Tensor:
        """Draw the images of codes (n, latent), (n, C, size, size)."""
        cells = functional.gelu(self.from_latent(code))
        cells = cells.view(-1, self.channels, self.cells, self.cells)
        return self.decoder(cells.contiguous(memory_format=torch.channels_last)).contiguous()

    def loss(self, batch: Frames, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log-likelihood and k times the KL divergence, by pixel."""
        mean, log_variance = self.moments(batch)
        drawn = self.decode(sample(mean, log_variance, generator))
        pixels = batch.pixels[0].numel()
        nll = gaussian_nll(drawn, batch, self.log_variance.clamp(min=-14)).mean() / pixels
        kl = kl_to_standard(mean, log_variance).mean() / pixels
        k = warmed(self.k, int(self.steps), self.warm_up if self.training else 0)
        if self.training:
            self.steps += 1
        return nll + k * kl, {"nll": nll.detach(), "kl": kl.detach()}
