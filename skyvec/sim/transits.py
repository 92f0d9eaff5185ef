"""Transits of any silhouette over a limb-darkened star, and trains of them.

The star's intensity is I = 1 - u1 (1 - mu) - u2 (1 - mu)^2, mu the cosine of the emission angle.
A rigid silhouette that moves along a chord takes away the cross-correlation of its opacity with
the star's intensity along that chord; it is computed for every row of the mask at once, summed
over the rows in Fourier space, and transformed back a single time. Lengths are in stellar radii.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.interpolate import CubicSpline

from skyvec.sim.silhouettes import Silhouette, disc

SUBROWS = 4
Times = NDArray[np.float64]


def star_flux(u: tuple[float, float]) -> float:
    """Flux of the whole disc: pi (1 - u1/3 - u2/6)."""
    return np.pi * (1 - u[0] / 3 - u[1] / 6)


def intensity(x: np.ndarray, y: np.ndarray, u: tuple[float, float]) -> np.ndarray:
    """Quadratic limb darkening: I(x, y), 0 outside the disc."""
    mu = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    return np.where(x**2 + y**2 < 1, 1 - u[0] * (1 - mu) - u[1] * (1 - mu) ** 2, 0.0)


def _row_integral(x: np.ndarray, y: np.ndarray, u: tuple[float, float]) -> np.ndarray:
    """Integral of I along a row from the star's middle to x >= 0, exact, (rows, columns)."""
    c = np.maximum(1 - y**2, 0)[:, None]
    reach = np.sqrt(c)
    x = np.minimum(x[None, :], reach)
    root = np.sqrt(np.maximum(c - x**2, 0))
    # arcsin(x / reach), which has no meaning outside the star, where all is 0
    mu_part = 0.5 * (x * root + c * np.arctan2(x, root))
    return (1 - u[0] - u[1]) * x + (u[0] + 2 * u[1]) * mu_part - u[1] * (c * x - x**3 / 3)


def chord_deficit(
    silhouette: Silhouette, impact: float, u: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light lost against the position of the body along its chord.

    D(s) = 1/F0 sum_rows sum_x' O(x', y') I(s + x', impact + y') dA

    Args:
        silhouette: The body.
        impact: Height of the chord above the star's centre [stellar radii].
        u: Quadratic limb-darkening coefficients.

    Returns:
        Positions s [stellar radii], ascending, pitch apart, beyond first and last contact, and
        the lost fraction D(s), shape (m,) each.
    """
    h = silhouette.pitch
    ny, nx = silhouette.opacity.shape
    half = int(np.ceil(1 / h)) + 1
    edges = (np.arange(half + 1) + 0.5) * h
    offset = (np.arange(SUBROWS) + 0.5) / SUBROWS - 0.5
    rows = impact + (np.arange(ny) - ny // 2) * h
    summed = _row_integral(edges, (rows[:, None] + offset * h).ravel(), u)
    summed = summed.reshape(ny, SUBROWS, -1).mean(axis=1) * h
    right = np.diff(summed, axis=1)  # the star's left half is its right half mirrored
    star = np.concatenate([right[:, ::-1], 2 * summed[:, :1], right], axis=1)
    n_star = star.shape[1]
    length = next_fast_len(n_star + nx - 1, real=True)
    spectrum = (rfft(star, length) * rfft(silhouette.opacity, length).conj()).sum(axis=0)
    lost = np.roll(irfft(spectrum, length), nx - 1)[: n_star + nx - 1] / star_flux(u)
    s = (np.arange(n_star + nx - 1) - half - (nx - 1) + nx // 2) * h
    return s, np.clip(lost, 0, None)


def orbit_position(
    time: Times, *, period: float, t0: float, a_over_r: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Position along the chord, x = a sin(2 pi (t - t0) / P), and whether the body is in front."""
    phase = 2 * np.pi * (np.asarray(time) - t0) / period
    return a_over_r * np.sin(phase), np.cos(phase) > 0


def transit(
    time: Times,
    silhouette: Silhouette | None = None,
    *,
    period: float,
    t0: float = 0.0,
    a_over_r: float = 10.0,
    impact: float = 0.0,
    u: tuple[float, float] = (0.4, 0.25),
    exposure: float = 0.0,
    offsets: Sequence[float] = (0.0,),
    depths: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Relative flux of a star transited by a rigid silhouette on a circular orbit.

    Args:
        time: [day], shape (n,).
        silhouette: The body; a sphere of a tenth of the star's radius by default.
        period: Of the orbit [day].
        t0: Mid-transit [day].
        a_over_r: Orbital radius [stellar radii], > 1.
        impact: Height of the chord [stellar radii]; (a/R) cos i for inclination i.
        u: Quadratic limb-darkening coefficients.
        exposure: Length of one exposure [day], averaged over; 0 for an instant.
        offsets: Copies of the body that follow at these times after it [day].
        depths: Relative opacity of each copy, in [0, 1]; 1 each by default.

    Returns:
        Flux relative to the star alone, shape (n,), 1 outside transit.

    Raises:
        ValueError: A period, orbit or exposure that is no number or out of range.

    References:
        Limb darkening: Kopal 1950, Harvard Circular 454. Shapes: Arnold 2005, ApJ 627, 534.
    """
    if not (period > 0 and a_over_r > 1 and exposure >= 0):
        raise ValueError(
            f"period ({period}) must be > 0 days, a_over_r ({a_over_r}) > 1, "
            f"exposure ({exposure}) >= 0 days"
        )
    weights = [1.0] * len(offsets) if depths is None else list(depths)
    if len(weights) != len(offsets):
        raise ValueError(f"{len(weights)} depths for {len(offsets)} offsets; give one for each")
    deficit_at = _Deficit(silhouette or disc(), impact, u, a_over_r)
    samples = _exposure_samples(np.asarray(time, np.float64), exposure, period, a_over_r)
    deficit = np.zeros(samples.shape)
    for offset, weight in zip(offsets, weights):
        x, in_front = orbit_position(samples - offset, period=period, t0=t0, a_over_r=a_over_r)
        deficit += weight * deficit_at(x, in_front)
    return 1 - np.clip(deficit.mean(axis=-1), 0, 1)


class _Deficit:
    """Light lost at any place of the orbit.

    On a circular orbit the body stands at the height b cos(phase): at the contacts it is a little
    closer to the star's centre than in mid-transit. The height changes so little that a straight
    line between the chords of mid-transit and of contact follows it.
    """

    def __init__(
        self, silhouette: Silhouette, impact: float, u: tuple[float, float], a_over_r: float
    ) -> None:
        self.a_over_r = a_over_r
        s, middle = chord_deficit(silhouette, impact, u)
        self.reach = float(s[0]), float(s[-1])
        self.contact_drop = 1 - np.sqrt(max(1 - (1 / a_over_r) ** 2, 0.0))
        chords = [middle]
        if impact * self.contact_drop > 1e-6:
            at_contact = chord_deficit(silhouette, impact * (1 - self.contact_drop), u)[1]
            chords.append(at_contact - middle)
        self.curves = CubicSpline(s, np.stack(chords, axis=1))

    def __call__(self, x: np.ndarray, in_front: np.ndarray) -> np.ndarray:
        deficit = np.zeros(x.shape)
        seen = in_front & (x > self.reach[0]) & (x < self.reach[1])
        chords = self.curves(x[seen])
        lost = chords[:, 0]
        if chords.shape[1] > 1:
            drop = 1 - np.sqrt(np.clip(1 - (x[seen] / self.a_over_r) ** 2, 0, None))
            lost = lost + chords[:, 1] * drop / self.contact_drop
        deficit[seen] = np.clip(lost, 0, None)
        return deficit


def _exposure_samples(
    time: np.ndarray, exposure: float, period: float, a_over_r: float
) -> np.ndarray:
    """Instants to average for each exposure, (n, m): the body moves at most 0.02 radii between."""
    speed = 2 * np.pi * a_over_r / period
    m = max(1, int(np.ceil(exposure * speed / 0.02))) if exposure else 1
    return time[:, None] + ((np.arange(m) + 0.5) / m - 0.5) * exposure


def rotating_transit(
    time: Times,
    silhouette: Silhouette,
    *,
    spin_period: float,
    period: float,
    t0: float = 0.0,
    a_over_r: float = 10.0,
    impact: float = 0.0,
    u: tuple[float, float] = (0.4, 0.25),
) -> NDArray[np.float64]:
    """Relative flux for a silhouette that turns in the plane of the sky, by direct summation.

    Args:
        time: [day], shape (n,).
        silhouette: The body at t0.
        spin_period: Time of one turn [day].
        period: Of the orbit [day].
        t0: Mid-transit [day].
        a_over_r: Orbital radius [stellar radii].
        impact: Height of the chord [stellar radii].
        u: Quadratic limb-darkening coefficients.

    Returns:
        Flux relative to the star alone, shape (n,).
    """
    time = np.asarray(time, np.float64)
    x0, in_front = orbit_position(time, period=period, t0=t0, a_over_r=a_over_r)
    columns, rows = silhouette.positions()
    opaque = silhouette.opacity > 0
    px, py = (grid[opaque] for grid in np.meshgrid(columns, rows))
    weight = silhouette.opacity[opaque] * silhouette.pitch**2 / star_flux(u)
    reach = 1 + np.hypot(px, py).max() if len(px) else 0.0
    flux = np.ones(len(time))
    for i in np.flatnonzero(in_front & (np.abs(x0) < reach)):
        angle = 2 * np.pi * (time[i] - t0) / spin_period
        x = x0[i] + np.cos(angle) * px - np.sin(angle) * py
        y = impact + np.sin(angle) * px + np.cos(angle) * py
        flux[i] -= float(weight @ intensity(x, y, u))
    return flux


def equal_area_residual(
    time: Times, silhouette: Silhouette, *, period: float, **orbit: float
) -> NDArray[np.float64]:
    """Arnold's figure: the difference to the transit of a sphere of equal area.

    Args:
        time: [day], shape (n,).
        silhouette: The body.
        period: Of the orbit [day].
        **orbit: Further keywords of :func:`transit`.

    Returns:
        Magnitude of the silhouette's transit minus that of the sphere [mag], shape (n,).
    """
    sphere = disc(float(np.sqrt(silhouette.area / np.pi)), pitch=silhouette.pitch)
    ours = transit(time, silhouette, period=period, **orbit)  # type: ignore[arg-type]
    theirs = transit(time, sphere, period=period, **orbit)  # type: ignore[arg-type]
    return -2.5 * np.log10(ours / theirs)


# --- beacons ----------------------------------------------------------------------------------


def pi_bits(n: int) -> NDArray[np.int8]:
    """Give the first n binary digits of pi, 11.0010 0100 0011 1111 ..., by Machin's formula."""
    guard = 32
    one = 1 << (n + guard)

    def arctan_inverse(k: int) -> int:
        term = total = one // k
        divisor, sign = 3, -1
        while term:
            term //= k * k
            total += sign * (term // divisor)
            divisor, sign = divisor + 2, -sign
        return total

    digits = bin((4 * (4 * arctan_inverse(5) - arctan_inverse(239))) >> guard)[2 : n + 2]
    return np.array([int(digit) for digit in digits], np.int8)


def primes(n: int) -> list[int]:
    """Give the first n primes."""
    found: list[int] = []
    candidate = 2
    while len(found) < n:
        if all(candidate % p for p in found if p * p <= candidate):
            found.append(candidate)
        candidate += 1
    return found


def pi_beacon(n: int, slot: float, *, zero_depth: float = 0.0) -> tuple[list[float], list[float]]:
    """Times and depths of a train of transits that spells pi in binary.

    Args:
        n: How many digits.
        slot: Time from one digit to the next [day].
        zero_depth: Opacity that stands for a 0, in [0, 1); 0 leaves the slot empty.

    Returns:
        ``offsets`` [day] and ``depths`` for :func:`transit`.
    """
    bits = pi_bits(n)
    kept = [
        (k * slot, 1.0 if bit else zero_depth) for k, bit in enumerate(bits) if bit or zero_depth
    ]
    return [time for time, _ in kept], [depth for _, depth in kept]


def prime_beacon(n: int, slot: float) -> tuple[list[float], list[float]]:
    """Times and depths of groups of 2, 3, 5, 7 ... transits, an empty slot between groups.

    Args:
        n: How many groups.
        slot: Time from one transit to the next within a group [day].

    Returns:
        ``offsets`` [day] and ``depths`` for :func:`transit`.

    References:
        Arnold 2005, ApJ 627, 534.
    """
    offsets: list[float] = []
    position = 0
    for count in primes(n):
        offsets += [(position + k) * slot for k in range(count)]
        position += count + 1
    return offsets, [1.0] * len(offsets)
