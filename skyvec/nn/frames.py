"""A batch of images of one size, with what was measured marked."""

from typing import NamedTuple

import torch
from torch import Tensor


class Frames(NamedTuple):
    """Images of one batch, ready for a network.

    Shapes: n images, C bands, Y rows, X columns.

    Args:
        pixels: Prepared pixels, float32, finite, (n, C, Y, X); what was not measured holds 0.
        mask: True where the pixel was measured, bool, (n, C, Y, X).
    """

    pixels: Tensor
    mask: Tensor

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.pixels)

    def take(self, rows: Tensor) -> "Frames":
        """Give the images asked for, in the order asked for; rows of shape (m,)."""
        return Frames(self.pixels[rows], self.mask[rows])

    def to(self, device: torch.device | str) -> "Frames":
        """Move both tensors to a device."""
        return Frames(self.pixels.to(device), self.mask.to(device))


def frame_mean(x: Tensor, frames: Frames) -> Tensor:
    """Mean of a per-pixel quantity over the measured pixels of each image.

    Args:
        x: Any finite quantity, (n, C, Y, X).
        frames: The images it belongs to.

    Returns:
        (n,); 0 for an image without a measured pixel.
    """
    measured = frames.mask.to(x.dtype)
    total = (x * measured).flatten(1).sum(1)
    return total / measured.flatten(1).sum(1).clamp(min=1)
