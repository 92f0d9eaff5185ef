"""Images on rings: a log-polar grid, on which a rotation is a shift, and what no shift changes."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from skyvec.nn.frames import Frames

LEAST_WEIGHT = 0.25
"""A place on a ring with a smaller share of measured neighbours takes the mean of its ring."""
COARSEST = 3
"""Rings far apart are read from images averaged over up to 2^3 pixels."""


def ring_radii(rings: int, *, first: float, last: float) -> Tensor:
    """Radii with equal steps of their logarithm, in units of the side, (rings,)."""
    return torch.exp(torch.linspace(math.log(first), math.log(last), rings))


def on_rings(
    frames: Frames,
    radii: Tensor,
    angles: int,
    *,
    turn: Tensor | None = None,
    centre: Tensor | None = None,
) -> Tensor:
    """Read images on rings about their centre, bilinearly between the measured pixels.

    A ring is read from the image averaged over as many pixels as it is apart from the next, so
    that noise between the rings is averaged and not lost.

    Args:
        frames: Square images, (n, C, Y, Y).
        radii: Ascending, at equal steps of the logarithm, in units of the side, (R,).
        angles: Places on a ring, T; the first to the right, the next towards higher rows.
        turn: Angle that each image is turned by, clockwise as the angles count [rad], (n,).
        centre: Of the rings, off the middle in x and y, in units of the side, (n, 2).

    Returns:
        (n, C, R, T); what was not measured has the mean of its ring, or 0 where that has none.
    """
    n, _, side, _ = frames.pixels.shape
    device = frames.pixels.device
    angle = torch.arange(angles, device=device) * (2 * math.pi / angles)
    angle = angle.expand(n, -1) if turn is None else angle + turn[:, None]
    circle = torch.stack([torch.cos(angle), torch.sin(angle)], 2)
    places = 2 * radii.to(device)[None, :, None, None] * circle[:, None]
    if centre is not None:
        places = places + 2 * centre[:, None, None]
    measured = frames.mask.to(frames.pixels.dtype)
    light, is_whole = frames.pixels * measured, bool(frames.mask.all())
    step = math.log(float(radii[-1] / radii[0])) / max(len(radii) - 1, 1)
    apart = (radii * side * step).log2().floor().clamp(0, COARSEST)
    found = []
    for level in range(COARSEST + 1):
        own = places[:, (apart == level).nonzero()[:, 0].to(device)]
        if level and min(light.shape[-2:]) >= 2:
            light = functional.avg_pool2d(light, 2)
            measured = measured if is_whole else functional.avg_pool2d(measured, 2)
        if not own.shape[1]:
            continue
        covered = light.shape[-1] << level
        if covered < side:  # averaging has dropped the last pixels, and the middle is elsewhere
            own = (own + 1) * (side / covered) - 1
        total = _read(light, own)
        if not is_whole:
            weight = _read(measured, own)
            ring = total.sum(3, keepdim=True) / weight.sum(3, keepdim=True).clamp(min=1e-6)
            known = total / weight.clamp(min=LEAST_WEIGHT)
            total = torch.where(weight >= LEAST_WEIGHT, known, ring)
        found.append(total)
    return torch.cat(found, 2)


def _read(image: Tensor, places: Tensor) -> Tensor:
    return functional.grid_sample(image, places, padding_mode="border", align_corners=False)


def ring_waves(rings: Tensor, most: int) -> Tensor:
    """Amplitudes of the waves around each ring, of 1 to ``most`` arms, (n, R, T) -> (n, R, most).

    No rotation changes them.
    """
    return torch.fft.rfft(rings, dim=2)[..., 1 : most + 1].abs() / rings.shape[2]


def spiral_waves(rings: Tensor, most: int, pitch: int) -> Tensor:
    """Amplitudes of logarithmic spirals in a ring image: its two-dimensional Fourier transform.

    A(p, m) = |sum_{r, t} x(r, t) w(r) exp(-i (m theta_t + 2 pi p u_r / 2))| / T with u from 0 to
    1 over the logarithm of the radius and w a Hann window: m arms, of a pitch whose tangent is
    proportional to -m / p. No rotation changes them, a mirror image exchanges p and -p, and a
    change of size only what the window cuts.

    Args:
        rings: Mean of each ring taken away, (n, R, T).
        most: Highest number of arms m, from 1.
        pitch: Highest |p|, at most R - 1.

    Returns:
        (n, 2 pitch + 1, most), p ascending from -pitch.

    References:
        Kalnajs 1975; Puerari & Dottori 1992, A&AS 93, 469.
    """
    n_rings, n_angles = rings.shape[1:]
    window = torch.hann_window(n_rings, device=rings.device)[None, :, None]
    waves = torch.fft.rfft(rings * window, dim=2)[..., 1 : most + 1]
    both = torch.fft.fft(waves, n=2 * n_rings, dim=1).abs() / n_angles
    return torch.cat([both[:, -pitch:], both[:, : pitch + 1]], 1)
