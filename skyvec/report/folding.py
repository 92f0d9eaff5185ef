"""Fold sparse curves at their strongest period, so that their shape can be seen at all."""

import numpy as np
from astropy.timeseries import LombScargle

from skyvec.schema import Floats

SPARSE = 0.1
"""[day] A curve whose typical step is longer hides everything faster than a week or so."""

MOST_POINTS = 3000
HIGHEST = 12.0
"""[1/day] Highest frequency looked for."""

MOST_FREQUENCIES = 200_000
CERTAIN = 1e-4
"""A false alarm must be less likely than this."""


def strongest_period(time: Floats, value: Floats) -> float | None:
    """Give the period of the highest peak of the Lomb-Scargle periodogram of a sparse curve.

    Args:
        time: [day], shape (N,), ascending.
        value: On the curve's own scale (each band on its own), shape (N,).

    Returns:
        The period [day]; None where the curve is dense enough to be drawn as it is, has fewer
        than 20 points, or where its highest peak may well be noise.

    References:
        Press & Rybicki, 1989, ApJ 338, 277. False alarms: Baluev, 2008, MNRAS 385, 1279.
    """
    n = len(time)
    if not 20 <= n <= MOST_POINTS or float(np.median(np.diff(time))) < SPARSE:
        return None
    span = float(time[-1] - time[0])
    lowest, step = 2 / span, 1 / (5 * span)
    highest = min(HIGHEST, lowest + MOST_FREQUENCIES * step)
    frequency = np.arange(lowest, highest, step)
    if not len(frequency) or not np.ptp(value) > 0:
        return None
    search = LombScargle(time, value)
    power = search.power(frequency, method="fast", assume_regular_frequency=True)
    best = int(np.argmax(power))
    chance = search.false_alarm_probability(power[best], maximum_frequency=highest)
    return float(1 / frequency[best]) if chance < CERTAIN else None
