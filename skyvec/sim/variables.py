"""Shapes of variable stars, as the literature draws them, at any time stamps.

Every kind is a function of the times [day] and a generator; what is not given is drawn from a
range that such stars have. It returns the flux relative to the quiet (or mean) star and the truth
about it. In every truth ``period`` [day] is NaN where there is none, ``amplitude`` is the range
from faintest to brightest [relative flux] of the whole shape (of the strongest mode for a
pulsator of many, 4 sigma for a random walk), and ``t0`` is the time of its mark: greatest light
of a pulsator or an event, mid-eclipse of the deeper minimum, meridian of a spot.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skyvec.sim.silhouettes import disc
from skyvec.sim.transits import pi_beacon
from skyvec.sim.transits import transit as exact_transit

Flux = NDArray[np.float64]
Truth = dict[str, float]
Made = tuple[Flux, Truth]
TWO_PI = 2 * np.pi
PER_MAGNITUDE = 0.4 * np.log(10)


# --- pulsators --------------------------------------------------------------------------------


def sinusoid(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
) -> Made:
    """One mode: flux = 1 + amplitude / 2 cos(2 pi (t - t0) / P)."""
    period = _drawn(period, rng, 0.1, _longest(time, 20))
    amplitude = _drawn(amplitude, rng, 0.005, 0.3)
    t0 = _epoch(t0, rng, time, period)
    flux = 1 + amplitude / 2 * np.cos(TWO_PI * (time - t0) / period)
    return flux, _truth(period, amplitude, t0)


def delta_scuti(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
    modes: int | None = None,
) -> Made:
    """Several modes within an octave of the strongest one.

    References:
        Breger 2000, ASP Conf. 210, 3.
    """
    period = _drawn(period, rng, 0.05, 0.2)
    amplitude = _drawn(amplitude, rng, 0.003, 0.1)
    t0 = _epoch(t0, rng, time, period)
    modes = int(rng.integers(3, 8)) if modes is None else modes
    frequency = np.append(1.0, rng.uniform(0.7, 1.45, modes - 1)) / period
    height = np.append(1.0, np.sort(rng.uniform(0.15, 0.8, modes - 1))[::-1])
    phase = np.append(0.0, rng.uniform(0, TWO_PI, modes - 1))
    waves = np.cos(TWO_PI * np.outer(time - t0, frequency) + phase)
    return 1 + amplitude / 2 * waves @ height, _truth(period, amplitude, t0, modes=modes)


def rr_lyrae_ab(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
) -> Made:
    """Fundamental mode: a sawtooth of steep rise, in magnitudes a sum of sines.

    References:
        Simon & Teays 1982, ApJ 261, 586; Jurcsik & Kovacs 1996, A&A 312, 111.
    """
    period = _drawn(period, rng, 0.4, 0.8)
    amplitude = _drawn(amplitude, rng, 0.5, 1.5)
    ratios = np.array([1, 0.48, 0.34, 0.23, 0.14, 0.08]) * rng.normal(1, 0.04, 6)
    phases = np.array([0, 2.4, 5.1, 1.5, 4.2, 0.6]) + rng.normal(0, 0.1, 6)
    return _fourier(time, rng, period, amplitude, t0, ratios, phases)


def rr_lyrae_c(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
) -> Made:
    """First overtone: nearly a sine.

    References:
        Simon & Teays 1982, ApJ 261, 586.
    """
    period = _drawn(period, rng, 0.22, 0.42)
    amplitude = _drawn(amplitude, rng, 0.25, 0.5)
    ratios = np.array([1, 0.13, 0.06]) * rng.normal(1, 0.1, 3)
    phases = np.array([0, 3.1, 0.9]) + rng.normal(0, 0.2, 3)
    return _fourier(time, rng, period, amplitude, t0, ratios, phases)


def cepheid(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
) -> Made:
    """Classical Cepheid, its bump drifting through the curve with the period.

    References:
        Simon & Lee 1981, ApJ 248, 291.
    """
    period = _drawn(period, rng, 1.5, _longest(time, 40))
    amplitude = _drawn(amplitude, rng, 0.25, 1.0)
    near_ten = np.clip((period - 3) / 7, 0, 1)
    ratios = np.array([1, 0.45 - 0.28 * near_ten, 0.22 - 0.1 * near_ten, 0.1])
    phases = np.array([0, 2.5 + 1.6 * near_ten, 5.2 + 2.2 * near_ten, 1.6 + 3 * near_ten])
    return _fourier(time, rng, period, amplitude, t0, ratios, phases + rng.normal(0, 0.1, 4))


def _fourier(
    time: Flux,
    rng: np.random.Generator,
    period: float,
    amplitude: float,
    t0: float | None,
    ratios: Flux,
    phases: Flux,
) -> Made:
    """Flux 10^(-0.4 m) of m = sum A_k sin(2 pi k t / P + phi_k), brightest at t0."""
    t0 = _epoch(t0, rng, time, period)
    order = np.arange(1, len(ratios) + 1)
    grid = np.linspace(0, 1, 500, endpoint=False)
    cycle = np.sin(TWO_PI * np.outer(grid, order) + phases) @ ratios
    brightest, faintest = cycle.min(), cycle.max()
    height = np.log1p(amplitude) / PER_MAGNITUDE / (faintest - brightest)
    phase = (time - t0) / period + grid[cycle.argmin()]
    magnitude = height * (np.sin(TWO_PI * np.outer(phase, order) + phases) @ ratios - faintest)
    return np.exp(-PER_MAGNITUDE * magnitude), _truth(period, amplitude, t0)


# --- binaries, planets, spots -----------------------------------------------------------------


def contact_binary(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
) -> Made:
    """W UMa star: flux = 1 + sum a_k cos(2 pi k phase), a_4 = a_2 (1/8 - a_2), a_2 < 0.

    References:
        Rucinski 1993, PASP 105, 1433 and 1997, AJ 113, 407.
    """
    period = _drawn(period, rng, 0.22, 0.8)
    amplitude = _drawn(amplitude, rng, 0.08, 0.6)
    t0 = _epoch(t0, rng, time, period)
    a2 = -amplitude / 2 * rng.uniform(0.85, 1)
    coefficients = [0.06 * a2 * rng.uniform(), a2, 0.0, a2 * (0.125 - a2)]
    o_connell = 0.03 * a2 * rng.normal()

    def shape(phase: Flux) -> Flux:
        waves = np.cos(TWO_PI * np.outer(phase, [1, 2, 3, 4])) @ coefficients
        return np.asarray(waves + o_connell * np.sin(TWO_PI * phase))

    cycle = shape(np.linspace(0, 1, 400, endpoint=False))
    flux = 1 + (shape((time - t0) / period) - cycle.max()) * amplitude / np.ptp(cycle)
    return flux, _truth(period, amplitude, t0)


def detached_binary(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
    secondary: float | None = None,
    eccentric: float | None = None,
) -> Made:
    """Algol: lost(phase) = depth (1 - (1 - exp(1 - cosh(phase / width)))^gamma), twice a cycle.

    Args:
        time: [day], shape (n,).
        rng: Generator of what is not given.
        period: Of the orbit [day].
        amplitude: Depth of the deeper eclipse, in (0, 1).
        t0: Its middle [day].
        secondary: Depth of the other in units of the first, in [0, 1].
        eccentric: Shift of the other from half a cycle [cycles].

    References:
        Mikulasek 2015, A&A 584, A8.
    """
    period = _drawn(period, rng, 0.8, _longest(time, 20))
    amplitude = _drawn(amplitude, rng, 0.05, 0.6)
    t0 = _epoch(t0, rng, time, period)
    width = rng.uniform(0.008, 0.035)
    secondary = rng.uniform(0.05, 0.95) if secondary is None else secondary
    eccentric = rng.uniform(-0.08, 0.08) if eccentric is None else eccentric
    if not (amplitude < 1 and 0 <= secondary <= 1):
        raise ValueError(
            f"amplitude ({amplitude}) must be in (0, 1) and secondary ({secondary}) in [0, 1]"
        )
    gamma = rng.uniform(0.8, 2.5)

    def eclipse(middle: float) -> Flux:
        phase = ((time - t0) / period - middle + 0.5) % 1 - 0.5
        covered = np.exp(1 - np.cosh(np.minimum(np.abs(phase) / width, 20)))
        return np.asarray(1 - (1 - covered) ** gamma)

    lost = eclipse(0.0) + secondary * eclipse(0.5 + eccentric)
    return 1 - amplitude * lost, _truth(period, amplitude, t0, secondary=secondary)


def transit(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
    impact: float | None = None,
) -> Made:
    """A giant planet before a limb-darkened star; amplitude is (R_planet / R_star)^2.

    The orbit is a/R = 4.2 (P / day)^(2/3), that of a star as dense as the Sun.
    """
    period = _drawn(period, rng, 0.8, _longest(time, 10))
    amplitude = _drawn(amplitude, rng, 0.003, 0.03)
    t0 = _epoch(t0, rng, time, period)
    impact = rng.uniform(0, 0.8) if impact is None else impact
    radius = float(np.sqrt(amplitude))
    planet = disc(radius, pitch=radius / 5)
    a_over_r = 4.2 * period ** (2 / 3)
    flux = exact_transit(time, planet, period=period, t0=t0, a_over_r=a_over_r, impact=impact)
    return flux, _truth(period, amplitude, t0, impact=impact)


def rotator(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
    spots: int | None = None,
) -> Made:
    """Spots that come into view, foreshortened, and grow and fade over several turns.

    Light lost to a spot is its area times max(0, sin i cos b cos(l - 2 pi t / P) + cos i sin b).

    References:
        Dorren 1987, ApJ 320, 756.
    """
    period = _drawn(period, rng, 0.4, _longest(time, 15))
    amplitude = _drawn(amplitude, rng, 0.004, 0.08)
    t0 = _epoch(t0, rng, time, period)
    spots = int(rng.integers(2, 6)) if spots is None else spots
    inclination = np.arccos(rng.uniform(0, 0.8))
    latitude = rng.uniform(-0.7, 1.0, spots)
    longitude = np.append(0.0, rng.uniform(0, TWO_PI, spots - 1))
    life = period * rng.uniform(4, 20, spots)
    born = rng.uniform(time.min() - life, time.max() + life)
    born[0] = rng.uniform(time.min(), time.max())
    area = rng.uniform(0.3, 1, spots) * np.exp(-(((time[:, None] - born) / life) ** 2))
    turn = TWO_PI * (time[:, None] - t0) / period
    facing = np.sin(inclination) * np.cos(latitude) * np.cos(longitude - turn)
    lost = (area * np.clip(facing + np.cos(inclination) * np.sin(latitude), 0, None)).sum(axis=1)
    spread = np.ptp(lost)
    lost = (lost - lost.min()) * (amplitude / spread if spread > 0 else 0.0)
    return 1 - lost, _truth(period, amplitude, t0, spots=spots)


# --- events -----------------------------------------------------------------------------------


def flare_shape(x: Flux) -> Flux:
    """Flare of height 1 against (t - peak) / t_half: polynomial rise, two exponentials down.

    References:
        Davenport et al. 2014, ApJ 797, 122.
    """
    rise = 1 + x * (1.941 + x * (-0.175 + x * (-2.246 - 1.125 * x)))
    later = np.clip(x, 0, None)
    fall = 0.6890 * np.exp(-1.600 * later) + 0.3030 * np.exp(-0.2783 * later)
    return np.where(x < -1, 0.0, np.where(x < 0, rise, fall))


def flares(
    time: Flux,
    rng: np.random.Generator,
    *,
    amplitude: float | None = None,
    t0: float | None = None,
    n_flares: int | None = None,
    t_half: float | None = None,
) -> Made:
    """Flares whose heights follow a power law; the largest at t0.

    The template's time ``t_half`` [day], 1.4 of its width at half height, is drawn from twice the
    step of the stamps (3 to 30 minutes) to 0.12 d.
    """
    n_flares = 1 + int(rng.poisson(_span(time) / 4)) if n_flares is None else n_flares
    amplitude = _drawn(amplitude, rng, 0.03, 1.0)
    t0 = float(rng.choice(time)) if t0 is None else t0
    peak = np.append(t0, rng.uniform(time.min(), time.max(), n_flares - 1))
    height = amplitude * np.append(1.0, np.clip(0.05 * rng.pareto(1, n_flares - 1), 0.05, 0.9))
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.02
    shortest = float(np.clip(2 * step, 0.002, 0.02))
    widths = np.exp(rng.uniform(np.log(shortest), np.log(0.12), n_flares))
    if t_half is not None:
        widths = np.full(n_flares, _drawn(t_half, rng, shortest, 0.12))
    flux = np.ones(len(time))
    for middle, top, width in zip(peak, height, widths):
        near = (time > middle - width) & (time < middle + 40 * width)
        flux[near] += top * flare_shape((time[near] - middle) / width)
    return flux, _truth(np.nan, amplitude, t0, n_flares=n_flares)


def microlensing(
    time: Flux,
    rng: np.random.Generator,
    *,
    amplitude: float | None = None,
    t0: float | None = None,
    t_einstein: float | None = None,
    rho: float = 0.0,
    limb: float = 0.0,
) -> Made:
    """A lens passes: u^2 = u_0^2 + ((t - t0) / t_E)^2, magnified as a point or as a disc.

    A point: A(u) = (u^2 + 2) / (u sqrt(u^2 + 4)); a disc: :func:`finite_source`.

    Args:
        time: [day], shape (n,).
        rng: Generator of what is not given.
        amplitude: A - 1 of a point source at the smallest u, > 0.
        t0: Of the smallest u [day].
        t_einstein: Time to cross the Einstein radius [day].
        rho: Radius of the source [Einstein radii]; 0 for a point.
        limb: Linear limb darkening of the source, in [0, 1].

    References:
        Paczynski 1986, ApJ 304, 1.
    """
    amplitude = _drawn(amplitude, rng, 0.3, 20)
    t0 = _within(t0, rng, time)
    t_einstein = _drawn(t_einstein, rng, 0.02 * _span(time), 0.2 * _span(time))
    # A(u_0) = 1 + amplitude, solved for u_0^2 without cancellation
    peak = amplitude * (amplitude + 2)
    u0_squared = 2 * ((1 + amplitude) / np.sqrt(peak) - 1)
    u_squared = u0_squared + ((time - t0) / t_einstein) ** 2
    if rho or limb:
        flux = finite_source(np.sqrt(u_squared), rho, limb)
    else:
        flux = (u_squared + 2) / np.sqrt(u_squared * (u_squared + 4))
    return flux, _truth(np.nan, amplitude, t0, t_einstein=t_einstein)


def finite_source(u: Flux, rho: float, limb: float = 0.0) -> Flux:
    """Magnification of a disc by a point lens.

    Uniform disc: A = 1 / (pi rho^2) * integral of [F(u_2) - F(u_1)] d theta over the rays from
    the lens, F(x) = x sqrt(x^2 + 4) / 2, u_1 and u_2 where a ray enters and leaves the disc. A
    disc darkened towards its limb, I = 1 - limb (1 - mu), is a stack of uniform discs.

    Args:
        u: Distance of the lens from the disc's centre [Einstein radii], >= 0, shape (n,).
        rho: Radius of the disc [Einstein radii], > 0.
        limb: Linear limb darkening, in [0, 1].

    Returns:
        Magnification, shape (n,); within 1e-4 of the limits known in closed form.

    Raises:
        ValueError: A radius or a limb darkening out of range.

    References:
        Witt & Mao 1994, ApJ 430, 505; Lee et al. 2009, ApJ 695, 200.
    """
    if not (rho > 0 and 0 <= limb <= 1):
        raise ValueError(f"rho ({rho}) must be > 0 and limb ({limb}) in [0, 1]")
    u = np.abs(np.asarray(u, np.float64))
    if not limb:
        return _uniform_source(u, rho)
    # flux = integral of (-dI/dr) pi r^2 A(u, r rho) dr + I(1) pi A(u, rho); with r = sin(a),
    # -dI/dr dr = limb sin(a) da
    angle, weight = _nodes(24, 0, np.pi / 2)
    flux = (1 - limb) * _uniform_source(u, rho)
    for a, w in zip(angle, weight):
        flux += w * limb * np.sin(a) ** 3 * _uniform_source(u, rho * np.sin(a))
    return flux / (1 - limb / 3)


def _uniform_source(u: Flux, rho: float) -> Flux:
    def antiderivative(x: Flux) -> Flux:
        return np.asarray(x * np.sqrt(x**2 + 4) / 2)

    result = np.empty(len(u))
    inside = u <= rho
    # the lens before the disc: rays in all directions; the two halves meet where they bend most
    theta, weight = (
        np.concatenate(pair)
        for pair in zip(_nodes(40, 0, np.pi / 2), _nodes(40, np.pi / 2, np.pi))
    )
    near = u[inside, None]
    leaves = near * np.cos(theta) + np.sqrt(np.clip(rho**2 - (near * np.sin(theta)) ** 2, 0, None))
    result[inside] = 2 * (antiderivative(leaves) @ weight)
    # beside it: sin(theta) = rho / u sin(phi) takes the roots out of the integrand's ends
    phi, weight = _nodes(80, 0, np.pi / 2)
    far = u[~inside, None]
    cosine = np.sqrt(np.clip(1 - (rho / far * np.sin(phi)) ** 2, 1e-30, None))
    middle, half = far * cosine, rho * np.cos(phi)
    light = antiderivative(middle + half) - antiderivative(middle - half)
    result[~inside] = 2 * ((light * rho / far * np.cos(phi) / cosine) @ weight)
    return result / (np.pi * rho**2)


def _nodes(n: int, low: float, high: float) -> tuple[Flux, Flux]:
    """Points and weights of Gauss and Legendre between two limits."""
    x, w = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2 * (high - low) + low, w * (high - low) / 2


def outburst(
    time: Flux,
    rng: np.random.Generator,
    *,
    period: float | None = None,
    amplitude: float | None = None,
    t0: float | None = None,
) -> Made:
    """Dwarf nova: outbursts that rise in hours, stay, and decline exponentially in days.

    References:
        Warner 1995, Cataclysmic Variable Stars, chapter 3.
    """
    period = _drawn(period, rng, 8, _longest(time, 80, least=16))
    amplitude = _drawn(amplitude, rng, 3, 40)
    t0 = _within(t0, rng, time)
    rise, stay = rng.uniform(0.1, 0.4), rng.uniform(0.5, 3)
    fall = rng.uniform(0.6, 2)
    first = int(np.floor((time.min() - t0) / period)) - 1
    last = int(np.ceil((time.max() - t0) / period)) + 1
    shape = np.zeros(len(time))
    for k in range(first, last + 1):
        x = time - t0 - period * (k + (rng.normal(0, 0.08) if k else 0.0))
        before, after = np.minimum(x, 0) / rise, np.maximum(x - stay, 0) / fall
        shape = np.maximum(shape, np.exp(before - after))
    return 1 + amplitude * shape, _truth(period, amplitude, t0)


def supernova(
    time: Flux,
    rng: np.random.Generator,
    *,
    amplitude: float | None = None,
    t0: float | None = None,
    rise: float | None = None,
    fall: float | None = None,
) -> Made:
    """Explosion on a constant host: exp(-(t - c) / fall) / (1 + exp(-(t - c) / rise)).

    References:
        Bazin et al. 2009, A&A 499, 653.
    """
    amplitude = _drawn(amplitude, rng, 0.1, 3)
    t0 = _within(t0, rng, time)
    rise = _drawn(rise, rng, 1, 4)
    fall = _drawn(fall, rng, 10, 40)
    if not rise < fall:
        raise ValueError(f"rise ({rise} d) must be shorter than fall ({fall} d)")
    peak = rise * np.log(fall / rise - 1)
    x = np.append(time - t0 + peak, peak)
    logarithm = -x / fall - np.logaddexp(0, -x / rise)
    shape = np.exp(logarithm[:-1] - logarithm[-1])
    return 1 + amplitude * shape, _truth(np.nan, amplitude, t0, rise=rise, fall=fall)


# --- noise and nothing ------------------------------------------------------------------------


def random_walk(
    time: Flux,
    rng: np.random.Generator,
    *,
    amplitude: float | None = None,
    tau: float | None = None,
) -> Made:
    """Damped random walk (Ornstein-Uhlenbeck) of the logarithm of the flux, exact at any gaps.

    cov(x(s), x(t)) = sigma^2 exp(-|s - t| / tau); amplitude = 4 sigma.

    References:
        Kelly, Bechtold & Siemiginowska 2009, ApJ 698, 895.
    """
    amplitude = _drawn(amplitude, rng, 0.02, 0.6)
    tau = _drawn(tau, rng, 0.02 * _span(time), 0.5 * _span(time))
    gap = np.diff(time, prepend=-np.inf) / tau
    keep = np.exp(-gap)
    kick = rng.normal(0, amplitude / 4, len(time)) * np.sqrt(-np.expm1(-2 * gap))
    walk, x = [], 0.0
    for factor, step in zip(keep.tolist(), kick.tolist()):
        x = factor * x + step
        walk.append(x)
    return np.exp(walk), _truth(np.nan, amplitude, np.nan, tau=tau)


def constant(time: Flux, rng: np.random.Generator) -> Made:
    """A star that does nothing."""
    return np.ones(len(time)), _truth(np.nan, 0.0, np.nan)


# --- oddities ---------------------------------------------------------------------------------


def beacon(time: Flux, rng: np.random.Generator, *, amplitude: float | None = None) -> Made:
    """A train of transits that spells the first binary digits of pi, once."""
    amplitude = _drawn(amplitude, rng, 0.02, 0.08)
    slot = _span(time) / 36
    t0 = float(time.min()) + slot
    offsets, depths = pi_beacon(32, slot)
    radius = float(np.sqrt(amplitude))
    flux = exact_transit(
        time,
        disc(radius, pitch=radius / 5),
        period=40 * slot,
        t0=t0,
        a_over_r=60,
        offsets=offsets,
        depths=depths,
    )
    return flux, _truth(np.nan, amplitude, t0)


def chirp(time: Flux, rng: np.random.Generator, *, amplitude: float | None = None) -> Made:
    """An oscillation that runs from slow to fast."""
    amplitude = _drawn(amplitude, rng, 0.05, 0.3)
    x = (time - time.min()) / _span(time)
    slow, fast = rng.uniform(1, 3), rng.uniform(30, 60)
    flux = 1 + amplitude / 2 * np.sin(TWO_PI * (slow * x + (fast - slow) * x**3 / 3))
    return flux, _truth(np.nan, amplitude, np.nan)


def dips(time: Flux, rng: np.random.Generator, *, amplitude: float | None = None) -> Made:
    """A few deep, lopsided dips without period, as of dust clouds.

    References:
        Boyajian et al. 2016, MNRAS 457, 3988.
    """
    amplitude = _drawn(amplitude, rng, 0.1, 0.5)
    span = _span(time)
    n_dips = int(rng.integers(3, 7))
    middle = np.sort(time.min() + span * rng.uniform(0.05, 0.95, n_dips))
    depth = amplitude * np.append(1.0, rng.uniform(0.2, 0.7, n_dips - 1))
    flux = np.ones(len(time))
    for t0, lost in zip(middle, depth):
        before, after = span * rng.uniform(0.003, 0.02, 2)
        flux *= 1 - lost * np.exp(-np.abs(time - t0) / np.where(time < t0, before, after))
    return flux, _truth(np.nan, amplitude, float(middle[0]))


def switch(time: Flux, rng: np.random.Generator, *, amplitude: float | None = None) -> Made:
    """A square wave of random lengths: light that is switched on and off."""
    amplitude = _drawn(amplitude, rng, 0.05, 0.4)
    edges = np.sort(rng.uniform(time.min(), time.max(), int(rng.integers(7, 16))))
    flux = np.where(np.searchsorted(edges, time) % 2, 1 - amplitude, 1.0)
    return flux, _truth(np.nan, amplitude, float(edges[0]))


KINDS: dict[str, Callable[..., Made]] = {
    "constant": constant,
    "sinusoid": sinusoid,
    "delta_scuti": delta_scuti,
    "rr_lyrae_ab": rr_lyrae_ab,
    "rr_lyrae_c": rr_lyrae_c,
    "cepheid": cepheid,
    "contact_binary": contact_binary,
    "detached_binary": detached_binary,
    "transit": transit,
    "rotator": rotator,
    "flares": flares,
    "microlensing": microlensing,
    "outburst": outburst,
    "supernova": supernova,
    "random_walk": random_walk,
}

ODDITIES: dict[str, Callable[..., Made]] = {
    "beacon": beacon,
    "chirp": chirp,
    "dips": dips,
    "switch": switch,
}


# --- drawing ----------------------------------------------------------------------------------


def _truth(period: float, amplitude: float, t0: float, **more: float) -> Truth:
    return {"period": period, "amplitude": amplitude, "t0": t0, **more}


def _drawn(value: float | None, rng: np.random.Generator, low: float, high: float) -> float:
    """The value given, or one drawn evenly in its logarithm."""
    if value is None:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if not value > 0:
        raise ValueError(f"periods, amplitudes and lengths of time must be > 0, not {value}")
    return value


def _span(time: Flux) -> float:
    return float(np.ptp(time)) or 1.0


def _longest(time: Flux, longest: float, *, least: float = 2.0) -> float:
    """The longest period to draw [day]: two cycles are to be seen, but never below ``least``."""
    return max(least, min(longest, _span(time) / 2))


def _within(t0: float | None, rng: np.random.Generator, time: Flux) -> float:
    """The time given, or one in the middle 70 % of the stamps."""
    return t0 if t0 is not None else float(time.min() + rng.uniform(0.15, 0.85) * _span(time))


def _epoch(t0: float | None, rng: np.random.Generator, time: Flux, period: float) -> float:
    """The time given, or one within the first cycle."""
    return t0 if t0 is not None else float(time.min() + rng.uniform() * period)
