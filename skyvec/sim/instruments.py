"""When a survey looks, and what it adds to the light: time stamps, noise, habits of instruments.

A *visit* is one stretch of observation of one target. The space survey follows TESS: sectors of
two orbits with a gap between them, stamps shifted to the barycentre star by star, momentum dumps,
scattered light at the end of an orbit. The survey from the ground has nights, seasons and weather.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SECTOR_DAYS = 27.4
ORBIT_DAYS = 13.7
FIRST_SECTOR = 58324.8
"""MJD at the start of sector 1, 2018 July 25."""
LIGHT_TIME_AU = 499.005 / 86400
"""[day] Light takes this long from the Sun to the Earth."""
OBLIQUITY = np.radians(23.4393)


@dataclass(frozen=True)
class Visit:
    """One stretch of observation.

    Args:
        name: What tells it from other visits of the target; empty if there is only one.
        mjd: Barycentric [day], ascending, shape (m,).
        columns: What the survey notes of it, such as sector, camera and CCD.
    """

    name: str
    mjd: Floats
    columns: dict[str, int]


@dataclass(frozen=True)
class Instrument:
    """How a survey observes.

    Args:
        visits: From a generator, position [deg] and a count to that many consecutive visits.
        observe: From relative flux, visit, magnitude and a generator to the flux as measured and
            its error, relative to the quiet star.
        bright: Magnitude of the brightest targets.
        faint: Magnitude of the faintest ones, the most common.
        zero_point: Magnitude of a source of flux 1.
        flux_unit: Of that flux.
    """

    visits: Callable[[np.random.Generator, float, float, int], list[Visit]]
    observe: Callable[[Floats, Visit, float, np.random.Generator], tuple[Floats, Floats]]
    bright: float
    faint: float
    zero_point: float
    flux_unit: str


# --- from space -------------------------------------------------------------------------------


def tess(minutes: float) -> Instrument:
    """TESS at an exposure of so many minutes: 2 (postage stamps), 10 or 30 (full frames)."""
    exposure = minutes / 1440

    def visits(rng: np.random.Generator, ra: float, dec: float, count: int) -> list[Visit]:
        sector = int(rng.integers(1, 27 - count))
        camera, ccd = int(rng.integers(1, 5)), int(rng.integers(1, 5))
        return [
            Visit(
                f"s{number:04d}-{camera}-{ccd}",
                _barycentric(tess_stamps(rng, number, exposure), ra, dec),
                {"sector": number, "camera": camera, "ccd": ccd},
            )
            for number in range(sector, sector + count)
        ]

    def observe(
        flux: Floats, visit: Visit, magnitude: float, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        sigma = tess_noise(magnitude) * np.sqrt(60 / minutes)
        mjd = visit.mjd
        measured = flux + rng.normal(0, 1, len(mjd)) * sigma * np.sqrt(np.clip(flux, 0.05, None))
        measured += sigma * (_dumps(mjd, rng) + _scattered_light(mjd, rng) + _drift(mjd, rng))
        hit = rng.random(len(mjd)) < 5e-4
        measured[hit] += sigma * rng.exponential(8, hit.sum())
        return measured, np.full(len(mjd), sigma * rng.normal(1, 0.03))

    return Instrument(visits, observe, 7.0, 14.0, 20.44, "electron / s")


def tess_stamps(rng: np.random.Generator, sector: int, exposure: float) -> Floats:
    """Mid-exposures of a sector at the spacecraft, MJD: two orbits, gaps, and lost cadences."""
    start = FIRST_SECTOR + SECTOR_DAYS * (sector - 1)
    mjd = start + np.arange(exposure / 2, SECTOR_DAYS - 0.6, exposure)
    since = mjd - start
    downlink = (since > ORBIT_DAYS - rng.uniform(0.6, 1.1)) & (since < ORBIT_DAYS + 0.3)
    return mjd[~downlink & (rng.random(len(mjd)) > 0.01)]


def tess_noise(magnitude: float) -> float:
    """One-sigma noise of TESS in an hour [relative flux], for TESS magnitudes 4 to 17.

    References:
        Stassun et al. 2018, AJ 156, 102, after Sullivan et al. 2015, ApJ 809, 77.
    """
    t = float(np.clip(magnitude, 4, 17))
    log_ppm = 3.29685004771 + t * (
        0.8500214657
        + t * (-0.2850416324 + t * (0.039590832137 + t * (-0.00223080159 + t * 4.73508403525e-5)))
    )
    return 1e-6 * float(np.exp(log_ppm))


def _barycentric(mjd: Floats, ra: float, dec: float) -> Floats:
    """Add the light time from the Earth, on a circular orbit, to the Sun along the star's line."""
    longitude = 2 * np.pi * (mjd - 58384.08) / 365.25  # the Earth passes 0 in September
    alpha, delta = np.radians(ra), np.radians(dec)
    earth = (
        np.cos(longitude) * np.cos(delta) * np.cos(alpha)
        + np.sin(longitude) * np.cos(OBLIQUITY) * np.cos(delta) * np.sin(alpha)
        + np.sin(longitude) * np.sin(OBLIQUITY) * np.sin(delta)
    )
    return np.asarray(mjd + LIGHT_TIME_AU * earth)


def _dumps(mjd: Floats, rng: np.random.Generator) -> Floats:
    """Every few days the wheels are unloaded and the star jumps for some minutes [sigma]."""
    every = rng.uniform(2.5, 4.4)
    since = (mjd - mjd[0] + rng.uniform(0, every)) % every
    return np.asarray(rng.normal(0, 4) * np.exp(-since / 0.02) * (since < 0.2))


def _scattered_light(mjd: Floats, rng: np.random.Generator) -> Floats:
    """Earth and Moon shine into the camera towards the end of each orbit [sigma]."""
    phase = (mjd - FIRST_SECTOR) % ORBIT_DAYS
    height = rng.normal(0, 2) * rng.lognormal(0, 0.7)
    return np.asarray(height * np.exp((phase - ORBIT_DAYS + 0.6) / rng.uniform(0.3, 0.9)))


def _drift(mjd: Floats, rng: np.random.Generator) -> Floats:
    """What detrending leaves of the slow changes of a sector [sigma]."""
    x = 2 * (mjd - mjd[0]) / SECTOR_DAYS - 1
    return np.asarray(np.polynomial.chebyshev.chebval(x, np.append(0, rng.normal(0, 0.4, 3))))


# --- from the ground --------------------------------------------------------------------------


def ground(years: float = 6.0) -> Instrument:
    """A survey telescope: 100 to 500 points in the nights and seasons of some years."""

    def visits(rng: np.random.Generator, ra: float, dec: float, count: int) -> list[Visit]:
        if count != 1:
            raise ValueError(f"a survey from the ground has one visit a target, not {count}")
        return [Visit("", _barycentric(ground_stamps(rng, ra, years), ra, dec), {})]

    def observe(
        flux: Floats, visit: Visit, magnitude: float, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        photon = 0.02 * 10 ** (0.2 * (magnitude - 15))
        seeing = rng.lognormal(0, 0.3, len(flux))
        err = np.hypot(0.008, photon * seeing) * np.sqrt(np.clip(flux, 0.05, None))
        cloudy = rng.random(len(flux)) < 0.005
        error_size = np.where(cloudy, 6.0, 1.0)
        return flux + rng.normal(0, 1, len(flux)) * err * error_size, err

    return Instrument(visits, observe, 11.0, 17.0, 23.9, "uJy")


def ground_stamps(rng: np.random.Generator, ra: float, years: float) -> Floats:
    """Nights in the season of a right ascension [deg], MJD: one exposure a night, within hours."""
    opposition = 58384.08 - 0.25 + 365.25 * ra / 360  # the Sun stands at RA + 12 h
    wanted = int(rng.integers(100, 501))
    half_season = rng.uniform(90, 120)
    day = np.arange(int(365.25 * years))
    away = (day - (opposition - 58384.0) + 182.625) % 365.25 - 182.625
    nights = day[(np.abs(away) < half_season) & (rng.random(len(day)) > 0.2)]
    nights = np.sort(rng.choice(nights, min(wanted, len(nights)), replace=False))
    return np.asarray(58384.0 + nights + rng.uniform(0.1, 0.4, len(nights)))


INSTRUMENTS: dict[str, Callable[[], Instrument]] = {
    "tess": lambda: tess(30),
    "tess-10min": lambda: tess(10),
    "tess-2min": lambda: tess(2),
    "ground": ground,
}


# --- habits of instruments as signals of their own -----------------------------------------------


def momentum_dumps(
    time: Floats,
    rng: np.random.Generator,
    *,
    amplitude: float | None = None,
    period: float | None = None,
    t0: float | None = None,
    recovery: float = 0.02,
) -> tuple[Floats, dict[str, float]]:
    """Jumps each time the wheels are unloaded, gone within minutes to an hour.

    Args:
        time: [day], shape (n,).
        rng: Generator of what is not given.
        amplitude: Height of a jump [relative flux]; negative for a loss of light.
        period: From one unloading to the next [day].
        t0: Of one of them [day].
        recovery: Time in which a jump falls to 1/e [day].
    """
    if amplitude is None:
        amplitude = float(rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(0.002), np.log(0.05))))
    period = float(rng.uniform(2.5, 6.5)) if period is None else period
    _above_zero(period=period, recovery=recovery)
    t0 = float(time.min() + rng.uniform(0, period)) if t0 is None else t0
    flux = 1 + amplitude * np.exp(-((time - t0) % period) / recovery)
    return flux, {"period": period, "amplitude": amplitude, "t0": t0}


def scattered_light(
    time: Floats,
    rng: np.random.Generator,
    *,
    amplitude: float | None = None,
    length: float | None = None,
    orbit: float = ORBIT_DAYS,
    t0: float | None = None,
) -> tuple[Floats, dict[str, float]]:
    """Earth and Moon shine in: an exponential ramp towards the end of every orbit.

    Args:
        time: [day], shape (n,).
        rng: Generator of what is not given.
        amplitude: Height at the end of an orbit [relative flux].
        length: Time in which the ramp grows by e [day].
        orbit: Length of an orbit [day].
        t0: End of one of them [day].
    """
    if amplitude is None:
        amplitude = float(np.exp(rng.uniform(np.log(0.003), np.log(0.1))))
    length = float(rng.uniform(0.2, 1.2)) if length is None else length
    _above_zero(length=length, orbit=orbit)
    t0 = float(time.min() + rng.uniform(0.3, 1) * orbit) if t0 is None else t0
    before_end = (t0 - time) % orbit
    flux = 1 + amplitude * np.exp(-before_end / length)
    return flux, {"period": orbit, "amplitude": amplitude, "t0": t0, "length": length}


def level_steps(
    time: Floats,
    rng: np.random.Generator,
    *,
    amplitude: float | None = None,
    n_steps: float | None = None,
) -> tuple[Floats, dict[str, float]]:
    """The level jumps and stays: what is left where stretches on two sides of a gap do not meet.

    Args:
        time: [day], shape (n,).
        rng: Generator of what is not given.
        amplitude: Typical size of a step [relative flux].
        n_steps: How many, at the longest gaps of the stamps first.
    """
    if amplitude is None:
        amplitude = float(np.exp(rng.uniform(np.log(0.003), np.log(0.05))))
    count = int(rng.integers(1, 4)) if n_steps is None else int(n_steps)
    _above_zero(n_steps=count)
    after = np.argsort(-np.diff(time), kind="stable")[:count] + 1
    flux = np.ones(len(time))
    for first in after:
        flux[first:] += amplitude * rng.normal()
    t0 = float(time[after[0]]) if len(after) else float(time[0])
    return flux, {"period": np.nan, "amplitude": amplitude, "t0": t0}


SYSTEMATICS: dict[str, Callable[..., tuple[Floats, dict[str, float]]]] = {
    "momentum_dumps": momentum_dumps,
    "scattered_light": scattered_light,
    "level_steps": level_steps,
}


def with_gaps(
    mjd: Floats, rng: np.random.Generator, *, share: float, gaps: int = 3
) -> NDArray[np.bool_]:
    """Which points are left after a share of the span is lost in gaps of random place.

    Args:
        mjd: [day], ascending, shape (n,).
        rng: Generator of the places.
        share: Of the span that is lost, in [0, 1).
        gaps: In how many pieces; some may touch, but none overlap.
    """
    if not 0 <= share < 1 or gaps < 1:
        raise ValueError(f"share ({share}) must be in [0, 1) and gaps ({gaps}) at least 1")
    if len(mjd) < 2:
        return np.ones(len(mjd), bool)
    span = float(mjd[-1] - mjd[0])
    # cut what stays at random places and push the gaps in between
    cuts = np.sort(rng.uniform(0, (1 - share) * span, gaps))
    begin = mjd[0] + cuts + np.arange(gaps) * share * span / gaps
    lost = np.zeros(len(mjd), bool)
    for first in begin:
        lost |= (mjd >= first) & (mjd < first + share * span / gaps)
    return ~lost


def _above_zero(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, not {value}")
