"""The default encoder of images: rings, waves and spirals of a galaxy, fused into one short code.

No reconstruction: the code of a galaxy must tell what the same galaxy shows when it is seen again.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from skyvec.nn.frames import Frames
from skyvec.nn.layers import contrast
from skyvec.nn.polar import on_rings, ring_radii, ring_waves, spiral_waves

SHARES = {"profile": 2.0, "waves": 2.0, "spirals": 2.5}
"""How much each view counts in the distance between galaxies, as a whole."""
FLOOR = 0.02
"""Structure fainter than this (bright = 1) is not strengthened to full contrast."""


FOLLOWED = 100
"""[steps] Over which the mean of the views is taken."""


class Views(NamedTuple):
    """What the network sees of n images in D bands, each column about 1 in size.

    Args:
        profile: Mean of each ring, (n, D * rings).
        waves: Logarithm of the amplitude of 1, 2, ... arms on each ring, (n, rings * arms).
        spirals: Logarithm of the amplitude of spirals of each number of arms and each pitch,
            of both senses of winding, (n, (2 pitch + 1) * arms).
        rings: The image on rings, for the network: each band, and the structure at full
            contrast, (n, D + 1, rings, angles).
    """

    profile: Tensor
    waves: Tensor
    spirals: Tensor
    rings: Tensor

    @property
    def flat(self) -> Tensor:
        """The views that no rotation changes, side by side, (n, columns)."""
        return torch.cat([self.profile, self.waves, self.spirals], 1)


class LogPolar(nn.Module):
    """Rings about the centre of a galaxy -> a code that no rotation changes.

    Three views need no learning: the profile of each band, the waves around each ring (round,
    elongated, barred), and the spirals of the whole (number of arms, pitch, sense of winding).

        code = W x + network(x, CNN(rings)),   x = (views - their mean in training) * shares.

    The CNN runs around the rings as around a circle and is pooled over angles. W also tells the
    views from the code, x = W^T code. Its rows begin as the smoothest of the orthonormal cosines
    over radius, arms and pitch: what is noise changes from ring to ring, what is a galaxy does
    not, so the untrained code is already useful. Centred, cosines compare how galaxies differ.

    It learns by seeing every galaxy twice, as the sky and another telescope might show it: turned,
    off centre by a pixel or so, brighter or fainter, through a wider PSF, with more noise. Either
    code must tell the views of the other image and find its partner among the batch. A mirror
    image is another galaxy: the sense of winding is kept, unless ``mirror`` is set.

    Args:
        bands: Number of bands.
        latent: Width of the code.
        size: Side of the images [pixel].
        width: Width of the fusing network.
        rings: Number of rings.
        angles: Places on a ring.
        arms: Highest number of arms.
        pitch: Highest wave number along the logarithm of the radius.
        first: Radius of the first ring, in units of the side.
        last: Radius of the last ring, in units of the side.
        mirror: Flip half of the images when they are seen again.
        most_shift: Of the centre, in units of the side.
        most_blur: Weight of the wide PSF, in [0, 1].
        most_noise: Deviation of the added noise (bright = 1).
        temperature: Of the comparison between codes.
    """

    modality = "images"
    share: Tensor
    radii: Tensor
    centre: Tensor
    steps: Tensor

    def __init__(
        self,
        *,
        bands: int = 3,
        latent: int = 40,
        size: int = 64,
        width: int = 256,
        rings: int = 24,
        angles: int = 64,
        arms: int = 6,
        pitch: int = 12,
        first: float = 0.015,
        last: float = 0.46,
        mirror: bool = False,
        most_shift: float = 0.02,
        most_blur: float = 0.8,
        most_noise: float = 0.03,
        temperature: float = 0.3,
    ) -> None:
        super().__init__()
        self.bands, self.latent, self.size = bands, latent, size
        self.angles, self.arms, self.pitch, self.mirror = angles, arms, pitch, mirror
        self.most_shift, self.most_blur, self.most_noise = most_shift, most_blur, most_noise
        self.temperature = temperature
        columns = {
            "profile": bands * rings,
            "waves": rings * arms,
            "spirals": (2 * pitch + 1) * arms,
        }
        n_views = sum(columns.values())
        share = [torch.full((n,), SHARES[name] / math.sqrt(n)) for name, n in columns.items()]
        self.register_buffer("share", torch.cat(share), persistent=False)
        self.register_buffer("radii", ring_radii(rings, first=first, last=last), persistent=False)
        self.register_buffer("centre", torch.zeros(n_views))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.read = nn.Parameter(_smooth_first(bands, rings, arms, pitch, latent))
        self.ring_net = nn.Sequential(
            Around(bands + 1, 16, stride=2), Around(16, 32, stride=2), Around(32, 64, stride=2)
        )
        last_layer = nn.Linear(width, latent)
        nn.init.normal_(last_layer.weight, std=0.01)
        self.fuse = nn.Sequential(
            nn.Linear(n_views + 128, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
            last_layer,
        )  # fmt: skip

    def encode(self, batch: Frames) -> Tensor:
        """Codes, (n, latent)."""
        return self._fused(self.views(batch))

    def code(self, batch: Frames) -> Tensor:
        """Codes, (n, latent); all of the code is indexed."""
        return self.encode(batch)

    def loss(self, batch: Frames, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Views told + partners found, and each by name."""
        seen = [self.see_again(batch, generator) for _ in range(2)]
        if self.training:
            self._follow(torch.cat([views.flat for views in seen]))
        one, other = (self._fused(views) for views in seen)
        told = [
            (z @ self.read - self._scaled(views)).square().sum(1).mean()
            for z, views in ((one, seen[1]), (other, seen[0]))
        ]
        views = told[0] + told[1]
        partners = contrast(one, other, self.temperature)
        return views + partners, {"views": views.detach(), "partners": partners.detach()}

    @torch.no_grad()
    def views(self, batch: Frames) -> Views:
        """Closed-form views; nothing here is learned."""
        return self._views(on_rings(batch, self.radii, self.angles))

    @torch.no_grad()
    def see_again(self, batch: Frames, generator: torch.Generator) -> Views:
        """The views of every galaxy seen once more, in another way."""

        def draw(*shape: int) -> Tensor:
            made = torch.rand(shape, generator=generator, device=generator.device)
            return made.to(batch.pixels)

        n = batch.n
        weight = (self.most_blur * draw(n) * draw(n))[:, None, None, None]
        pixels = batch.pixels.where(batch.mask, 0.0)
        measured = batch.mask.to(pixels)
        wide = _smooth(pixels) / _smooth(measured).clamp(min=1e-3)
        pixels = (1 - weight) * pixels + weight * wide
        pixels = pixels * (0.8 + 0.4 * draw(n, 1, 1, 1))
        noise = torch.randn(pixels.shape, generator=generator, device=generator.device)
        sigma = (self.most_noise * draw(n) * draw(n))[:, None, None, None]
        frames = Frames(pixels + sigma * noise.to(pixels), batch.mask)
        if self.mirror:
            flipped = (draw(n) < 0.5)[:, None, None, None]
            frames = Frames(*(torch.where(flipped, x.flip(3), x) for x in frames))
        turn = 2 * math.pi * draw(n)
        centre = self.most_shift * (2 * draw(n, 2) - 1)
        return self._views(on_rings(frames, self.radii, self.angles, turn=turn, centre=centre))

    def _views(self, rings: Tensor) -> Views:
        profile, grey = rings.mean(3), rings.mean(1)
        structure = grey - grey.mean(2, keepdim=True)
        waves = ring_waves(structure, self.arms)
        strength = structure.square().mean((1, 2), keepdim=True).sqrt()
        structure = structure * (0.1 / (strength + FLOOR))
        spirals = spiral_waves(structure, self.arms, self.pitch)
        return Views(
            (3 * profile).flatten(1),
            (torch.log(waves + 0.01) + 4).flatten(1),
            (torch.log(spirals + 0.03) + 2).flatten(1),
            torch.cat([3 * rings - 0.5, 10 * structure[:, None]], 1),
        )

    def _fused(self, views: Views) -> Tensor:
        cells = self.ring_net(views.rings)
        cells = cells.mean(2)
        pooled = torch.cat([cells.mean(2), cells.amax(2)], 1)
        x = self._scaled(views)
        return x @ self.read.T + self.fuse(torch.cat([x, pooled], 1))

    def _scaled(self, views: Views) -> Tensor:
        return (views.flat - self.centre) * self.share

    @torch.no_grad()
    def _follow(self, flat: Tensor) -> None:
        """Let the centre follow the mean of the views: of all steps so far, then of the last."""
        self.steps += 1
        self.centre += (flat.mean(0) - self.centre) / self.steps.clamp(max=FOLLOWED)


class Around(nn.Module):
    """GELU(norm(conv)) of rings, circular in the angle, (n, c, R, T) -> (n, d, R / s, T / s)."""

    def __init__(self, given: int, wanted: int, *, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, wanted, 5, stride=stride, padding=(2, 0))
        self.norm = nn.GroupNorm(4, wanted)

    def forward(self, u: Tensor) -> Tensor:
        """Look around each place."""
        closed = functional.pad(u, (2, 2, 0, 0), mode="circular")
        return functional.gelu(self.norm(self.conv(closed)))


def _smooth_first(bands: int, rings: int, arms: int, pitch: int, latent: int) -> Tensor:
    """The smoothest products of cosines over each view, orthonormal, (latent, columns)."""
    # how many waves along each axis weigh as much as one: colours differ less than radii
    blocks = (
        (_cosines(bands), _cosines(rings), 1.5, 1.0),
        (_cosines(rings), _cosines(arms), 1.0, 0.8),
        (_cosines(2 * pitch + 1), _cosines(arms), 0.8, 0.8),
    )
    columns = sum(len(first) * len(second) for first, second, _, _ in blocks)
    found: list[tuple[float, int, Tensor]] = []
    start = 0
    for first, second, first_cost, second_cost in blocks:
        size = len(first) * len(second)
        for i in range(len(first)):
            for j in range(len(second)):
                row = torch.zeros(columns)
                row[start : start + size] = torch.outer(first[i], second[j]).flatten()
                found.append((first_cost * i + second_cost * j, len(found), row))
        start += size
    if latent > len(found):
        raise ValueError(
            f"latent = {latent} must be at most the {len(found)} numbers of the views"
        )
    return torch.stack([row for _, _, row in sorted(found, key=lambda x: x[:2])[:latent]])


def _cosines(n: int) -> Tensor:
    """Orthonormal discrete cosine transform, (n, n)."""
    i = torch.arange(n, dtype=torch.float64)
    waves = torch.cos(math.pi * (i[None] + 0.5) * i[:, None] / n)
    return (waves / waves.norm(dim=1, keepdim=True)).float()


def _smooth(x: Tensor) -> Tensor:
    """Convolve rows and columns with (1, 4, 6, 4, 1) / 16: sigma 1 pixel."""
    # sums of shifted images: for one channel at a time convolutions are ten times slower
    for axis, edges in ((2, (0, 0, 2, 2)), (3, (2, 2, 0, 0))):
        size, wide = x.shape[axis], functional.pad(x, edges)
        one, two, three, four, five = (wide.narrow(axis, i, size) for i in range(5))
        x = (one + five).add_(two + four, alpha=4).add_(three, alpha=6).div_(16)
    return x
