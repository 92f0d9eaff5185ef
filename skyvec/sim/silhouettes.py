"""Outlines of things that could pass in front of a star, as opacity masks.

Lengths are in stellar radii. A silhouette is a square grid of opacities (0 = clear, 1 = opaque)
around the body's centre; its edges are softened by averaging over 8 x 8 points a pixel, and the
whole is scaled so that its area is the exact one where a formula gives it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUPERSAMPLING = 8
DEFAULT_PITCH = 0.01
"""[stellar radii] 24 ppm from the exact curve of a planet of a tenth of the star's radius."""

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Silhouette:
    """An opacity mask around the centre of a body.

    Args:
        opacity: In [0, 1], shape (ny, nx), both odd; the middle pixel is the body's centre.
        pitch: Size of a pixel [stellar radii].

    Raises:
        ValueError: Opacities outside [0, 1], an even or empty grid, or a pitch that is not > 0.
    """

    opacity: NDArray[np.float64]
    pitch: float

    def __post_init__(self) -> None:
        shape = self.opacity.shape
        if len(shape) != 2 or shape[0] % 2 == 0 or shape[1] % 2 == 0:
            raise ValueError(f"opacity must have shape (odd, odd), not {shape}")
        if not (self.opacity.min() >= 0 and self.opacity.max() <= 1):
            raise ValueError("opacity must be in [0, 1]")
        if not self.pitch > 0:
            raise ValueError(f"pitch must be > 0 stellar radii, not {self.pitch}")

    @property
    def area(self) -> float:
        """Opacity-weighted area [stellar radii squared]."""
        return float(self.opacity.sum()) * self.pitch**2

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres of the columns (nx,) and rows (ny,) [stellar radii]."""
        ny, nx = self.opacity.shape
        return (np.arange(nx) - nx // 2) * self.pitch, (np.arange(ny) - ny // 2) * self.pitch


def rasterise(
    inside: Inside,
    half_width: float,
    half_height: float,
    pitch: float,
    *,
    area: float | None = None,
) -> Silhouette:
    """Turn an outline into a mask.

    Args:
        inside: Opacity (or truth) at the points x, y [stellar radii].
        half_width: The outline lies within +- this in x [stellar radii].
        half_height: The same in y.
        pitch: Size of a pixel [stellar radii].
        area: Exact area, to which a mask is scaled where no opacity would pass 1; None if unknown.
    """
    nx, ny = (
        2 * int(np.ceil(half / pitch - 0.5 + 1e-9)) + 1 for half in (half_width, half_height)
    )
    fine = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    x = ((np.arange(nx) - nx // 2)[:, None] + fine).ravel() * pitch
    y = ((np.arange(ny) - ny // 2)[:, None] + fine).ravel() * pitch
    fine_mask = np.asarray(inside(x[None, :], y[:, None]), np.float64)
    opacity = fine_mask.reshape(ny, SUPERSAMPLING, nx, SUPERSAMPLING).mean(axis=(1, 3))
    if area is not None:
        opacity = _with_area(opacity, area / pitch**2)
    return Silhouette(opacity, pitch)


def _with_area(opacity: np.ndarray, total: float) -> np.ndarray:
    """Correct the soft edge alone, so that the mask's sum is exact and no pixel leaves [0, 1]."""
    edge = (opacity > 0) & (opacity < 1)
    missing = total - opacity.sum()
    room = np.where(edge, 1 - opacity if missing > 0 else opacity, 0.0)
    if room.sum() <= abs(missing):
        return opacity
    return opacity + room * (missing / room.sum())


def disc(radius: float = 0.1, *, pitch: float = DEFAULT_PITCH) -> Silhouette:
    """A sphere: x^2 + y^2 < radius^2."""
    _positive(radius=radius)
    return rasterise(
        lambda x, y: x**2 + y**2 < radius**2, radius, radius, pitch, area=np.pi * radius**2
    )


def oblate(
    radius: float = 0.1,
    flattening: float = 0.3,
    angle: float = 0.0,
    *,
    pitch: float = DEFAULT_PITCH,
) -> Silhouette:
    """An ellipse of equatorial radius ``radius`` and polar radius (1 - flattening) radius.

    Args:
        radius: [stellar radii].
        flattening: In [0, 1).
        angle: Of the equator against the direction of motion [deg].
        pitch: Size of a pixel [stellar radii].
    """
    _positive(radius=radius)
    if not 0 <= flattening < 1:
        raise ValueError(f"flattening must be in [0, 1), not {flattening}")
    polar = radius * (1 - flattening)

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = _rotate(x, y, -angle)
        return (u / radius) ** 2 + (v / polar) ** 2 < 1

    return rasterise(inside, radius, radius, pitch, area=np.pi * radius * polar)


def ring(
    radius: float = 0.07,
    inner: float = 1.3,
    outer: float = 2.0,
    tilt: float = 70.0,
    angle: float = 20.0,
    opacity: float = 0.8,
    *,
    pitch: float = DEFAULT_PITCH,
) -> Silhouette:
    """A sphere with a flat ring.

    Args:
        radius: Of the sphere [stellar radii].
        inner: Inner radius of the ring [sphere radii].
        outer: Outer radius of the ring [sphere radii].
        tilt: Of the ring's plane against the plane of the sky [deg]; 90 is edge-on.
        angle: Of the ring's long axis against the direction of motion [deg].
        opacity: Of the ring, in [0, 1].
        pitch: Size of a pixel [stellar radii].
    """
    _positive(radius=radius, inner=inner)
    if outer <= inner:
        raise ValueError(f"outer must be larger than inner = {inner}, not {outer}")
    squeeze = max(abs(np.cos(np.radians(tilt))), 1e-6)

    def cover(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = _rotate(x, y, -angle)
        distance = np.hypot(u, v / squeeze) / radius
        in_ring = (distance > inner) & (distance < outer)
        return np.where(x**2 + y**2 < radius**2, 1.0, opacity * in_ring)

    return rasterise(cover, outer * radius, outer * radius, pitch)


def polygon(vertices: np.ndarray, *, pitch: float = DEFAULT_PITCH) -> Silhouette:
    """A simple polygon, by the even-odd rule.

    Args:
        vertices: x, y [stellar radii], shape (m, 2), m >= 3; the origin is the body's centre.
        pitch: Size of a pixel [stellar radii].
    """
    corners = np.asarray(vertices, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"vertices must have shape (m >= 3, 2), not {corners.shape}")
    x1, y1 = corners.T
    x2, y2 = np.roll(corners, -1, axis=0).T

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        crossings = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
        for ax, ay, bx, by in zip(x1, y1, x2, y2):
            if ay != by:
                crossings ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
        return crossings

    area = abs(np.sum(x1 * y2 - x2 * y1)) / 2
    half_width, half_height = np.abs(corners).max(axis=0)
    return rasterise(inside, half_width, half_height, pitch, area=area)


def triangle(
    side: float = 0.25, angle: float = 0.0, *, pitch: float = DEFAULT_PITCH
) -> Silhouette:
    """An equilateral triangle around its centroid (Arnold 2005, ApJ 627, 534).

    Args:
        side: [stellar radii].
        angle: Of rotation [deg]; at 0 one corner points up.
        pitch: Size of a pixel [stellar radii].
    """
    _positive(side=side)
    turns = np.radians(90 + angle + np.array([0, 120, 240]))
    corners = side / np.sqrt(3) * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return polygon(corners, pitch=pitch)


def screens(
    count: int = 2,
    width: float = 0.1,
    height: float = 0.2,
    spacing: float = 0.3,
    *,
    pitch: float = DEFAULT_PITCH,
) -> Silhouette:
    """Upright rectangles in a row, such as two screens (Arnold 2005, ApJ 627, 534).

    Args:
        count: How many.
        width: Of one, along the motion [stellar radii].
        height: Of one [stellar radii].
        spacing: From centre to centre [stellar radii], >= width.
        pitch: Size of a pixel [stellar radii].
    """
    _positive(count=count, width=width, height=height)
    if count > 1 and spacing < width:
        raise ValueError(f"spacing must be at least the width {width}, not {spacing}")
    centres = (np.arange(count) - (count - 1) / 2) * spacing

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        near = np.abs(x - centres[np.abs(x[..., None] - centres).argmin(axis=-1)])
        return (near < width / 2) & (np.abs(y) < height / 2)

    half_width = centres[-1] + width / 2
    return rasterise(inside, half_width, height / 2, pitch, area=count * width * height)


def louver(
    slats: int = 6,
    width: float = 0.06,
    height: float = 0.25,
    duty: float = 0.5,
    *,
    pitch: float = DEFAULT_PITCH,
) -> Silhouette:
    """Parallel slats with gaps of light between them (Arnold 2005, ApJ 627, 534).

    Args:
        slats: How many; the article's louver has six.
        width: Of a slat, along the motion [stellar radii].
        height: Of a slat [stellar radii].
        duty: Share of a period that a slat covers, in (0, 1].
        pitch: Size of a pixel [stellar radii].
    """
    if not 0 < duty <= 1:
        raise ValueError(f"duty must be in (0, 1], not {duty}")
    return screens(slats, width, height, width / duty, pitch=pitch)


def comet(
    radius: float = 0.05,
    tail: float = 1.0,
    width: float = 0.1,
    opacity: float = 0.5,
    *,
    pitch: float = DEFAULT_PITCH,
) -> Silhouette:
    """A round head and a tail that trails it and thins out exponentially.

    opacity(x) = opacity * exp(-distance behind the head / (tail / 3)); the tail widens linearly.

    Args:
        radius: Of the opaque head [stellar radii].
        tail: Length of the tail [stellar radii].
        width: Half-width of the tail at its end [stellar radii].
        opacity: At the root of the tail, in [0, 1].
        pitch: Size of a pixel [stellar radii].
    """
    _positive(radius=radius, tail=tail, width=width)

    def cover(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        behind = -x  # the body moves towards +x
        half = radius + (width - radius) * np.clip(behind / tail, 0, 1)
        in_tail = (behind > 0) & (behind < tail) & (np.abs(y) < half)
        dust = opacity * np.exp(-3 * np.clip(behind, 0, tail) / tail) * in_tail
        return np.where(x**2 + y**2 < radius**2, 1.0, dust)

    return rasterise(cover, max(tail, radius), max(width, radius), pitch)


def picture(pixels: np.ndarray, width: float, *, pitch: float = DEFAULT_PITCH) -> Silhouette:
    """A silhouette from an image.

    Args:
        pixels: Opacity in [0, 1], shape (ny, nx), first row on top, as images are stored.
        width: Of the whole image [stellar radii].
        pitch: Size of a pixel of the mask [stellar radii].
    """
    image = np.asarray(pixels, np.float64)
    if image.ndim != 2 or not image.size:
        raise ValueError(f"pixels must have shape (ny, nx), not {image.shape}")
    _positive(width=width)
    ny, nx = image.shape
    height = width * ny / nx

    def cover(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        column = np.floor((x / width + 0.5) * nx).astype(int)
        row = np.floor((0.5 - y / height) * ny).astype(int)
        outside = (column < 0) | (column >= nx) | (row < 0) | (row >= ny)
        value = image[np.clip(row, 0, ny - 1), np.clip(column, 0, nx - 1)]
        return np.where(outside, 0.0, value)

    return rasterise(cover, width / 2, height / 2, pitch)


def read_picture(
    file: str | Path, width: float = 0.3, *, pitch: float = DEFAULT_PITCH
) -> Silhouette:
    """A silhouette from an image file: black is opaque, white and transparent are clear.

    Args:
        file: PNG or any other format that Pillow reads.
        width: Of the whole image [stellar radii].
        pitch: Size of a pixel of the mask [stellar radii].

    Raises:
        ValueError: The file is no image, or nothing in it is dark.
    """
    try:
        with Image.open(file) as opened:
            grey = np.asarray(opened.convert("LA"), np.float64) / 255
    except OSError as error:
        raise ValueError(f"cannot read the image {str(file)!r}: {error}") from error
    opacity = (1 - grey[..., 0]) * grey[..., 1]
    if not opacity.any():
        raise ValueError(f"nothing in {str(file)!r} is dark; draw the body black on white")
    return picture(opacity, width, pitch=pitch)


def read_polygon(
    file: str | Path, size: float = 1.0, *, pitch: float = DEFAULT_PITCH
) -> Silhouette:
    """A silhouette from a text file with one corner, x and y, a line; # begins a comment.

    Args:
        file: Two columns, parted by blanks or commas.
        size: One unit of the file [stellar radii].
        pitch: Size of a pixel of the mask [stellar radii].

    Raises:
        ValueError: The file cannot be read as corners, or there are fewer than three.
    """
    _positive(size=size)
    try:
        text = Path(file).read_text(encoding="utf-8").replace(",", " ")
        corners = np.loadtxt(text.splitlines(), ndmin=2)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read corners from {str(file)!r}: {error}") from error
    return polygon(corners * size, pitch=pitch)


SILHOUETTES: dict[str, Callable[..., Silhouette]] = {
    "disc": disc,
    "oblate": oblate,
    "ring": ring,
    "triangle": triangle,
    "screens": screens,
    "louver": louver,
    "comet": comet,
}

FROM_FILES: dict[str, Callable[..., Silhouette]] = {
    "picture": read_picture,
    "polygon": read_polygon,
}


def _rotate(x: np.ndarray, y: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return cos * x - sin * y, sin * x + cos * y


def _positive(**lengths: float) -> None:
    for name, value in lengths.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, not {value}")
