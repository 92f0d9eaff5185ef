"""The published convolutional VAE of galaxy images."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from skyvec.nn.frames import Frames
from skyvec.nn.losses import IMAGE_LOSSES, kl_to_standard, warmed

CHANNELS = (32, 64, 128)
REDUCTION = 4 ** len(CHANNELS)
"""Each stage of the encoder makes a side four times smaller."""


class Vae(nn.Module):
    """Three stages of convolution and pooling, two linear heads, and a mirrored decoder.

    Encoder: 3 x [Conv 3x3 stride 2 -> max-pool 2 -> LeakyReLU], channels 32, 64, 128; flattened;
    one linear map to the means, one to the log-variances. Decoder: a linear map to
    128 x s x s (s = side / 64); 3 x [nearest upsampling x 2 -> ConvTranspose 3x3 stride 2 ->
    LeakyReLU], channels 64, 32, 32; Conv 3x3 to the bands; ReLU, so that no flux is negative. No
    normalisation. loss = sum over pixels of the squared residual + k KL, mean over images.

    Published with three bands, a side of 256 and 40 latents: 443,507 weights. The code is the
    mean; pixels that were not measured are 0 to the encoder and do not count in the loss.

    Args:
        bands: Number of bands.
        latent: Width of the code.
        size: Side of the images [pixel], a multiple of 64.
        error: ``mse`` (as published), ``l1`` or ``ssim``.
        k: Weight of the KL term (beta-VAE); 1 as published.
        warm_up: Training steps over which k grows from 0.

    Raises:
        ValueError: The size is no multiple of 64, or the error is unknown.

    References:
        Xu et al. 2023, MNRAS 526, 6391 (arXiv:2303.08627).
    """

    modality = "images"
    steps: Tensor

    def __init__(
        self,
        *,
        bands: int = 3,
        latent: int = 40,
        size: int = 64,
        error: str = "mse",
        k: float = 1.0,
        warm_up: int = 0,
    ) -> None:
        super().__init__()
        if size < REDUCTION or size % REDUCTION:
            raise ValueError(
                f"size = {size} must be a multiple of {REDUCTION} pixels; crop or average first"
            )
        if error not in IMAGE_LOSSES:
            raise ValueError(f"unknown error {error!r}; choose from {', '.join(IMAGE_LOSSES)}")
        self.bands, self.latent, self.size = bands, latent, size
        self.error, self.k, self.warm_up = error, k, warm_up
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.cells = size // REDUCTION
        self.encoder = nn.Sequential()
        before = bands
        for channels in CHANNELS:
            self.encoder.append(nn.Conv2d(before, channels, 3, stride=2, padding=1))
            self.encoder.append(nn.MaxPool2d(2))
            self.encoder.append(nn.LeakyReLU())
            before = channels
        flat = before * self.cells**2
        self.to_mean, self.to_log_variance = nn.Linear(flat, latent), nn.Linear(flat, latent)
        self.from_latent = nn.Linear(latent, flat)
        self.decoder = nn.Sequential()
        for channels in (64, 32, 32):
            self.decoder.append(nn.Upsample(scale_factor=2))
            self.decoder.append(
                nn.ConvTranspose2d(before, channels, 3, stride=2, padding=1, output_padding=1)
            )
            self.decoder.append(nn.LeakyReLU())
            before = channels
        self.decoder.append(nn.Conv2d(before, bands, 3, padding=1))

    def code(self, batch: Frames) -> Tensor:
        """Means of the codes, (n, latent)."""
        return self.moments(batch)[0]

    def encode(self, batch: Frames) -> Tensor:
        """Means of the codes, (n, latent)."""
        return self.code(batch)

    def moments(self, batch: Frames) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the code of each image, (n, latent) each."""
        given = batch.pixels.where(batch.mask, 0.0).contiguous(memory_format=torch.channels_last)
        seen = self.encoder(given).flatten(1)
        return self.to_mean(seen), self.to_log_variance(seen)

    def decode(self, code: Tensor) -> Tensor:
        """Draw the images of codes (n, latent), (n, C, size, size)."""
        cells = self.from_latent(code).view(-1, CHANNELS[-1], self.cells, self.cells)
        # channels innermost: the same numbers, in half the time on a processor
        cells = cells.contiguous(memory_format=torch.channels_last)
        return functional.relu(self.decoder(cells)).contiguous()

    def loss(self, batch: Frames, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of the image drawn from a random code, and k times the KL divergence."""
        mean, log_variance = self.moments(batch)
        drawn = sample(mean, log_variance, generator)
        error = IMAGE_LOSSES[self.error](self.decode(drawn), batch).mean()
        kl = kl_to_standard(mean, log_variance).mean()
        k = warmed(self.k, int(self.steps), self.warm_up if self.training else 0)
        if self.training:
            self.steps += 1
        return error + k * kl, {self.error: error.detach(), "kl": kl.detach()}


def sample(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    """Draw codes: mean + exp(s / 2) times standard normal numbers, (n, d)."""
    noise = torch.randn(mean.shape, generator=generator, device=generator.device)
    return mean + torch.exp(log_variance / 2) * noise.to(mean)
