"""Matched filters in the time domain: a search of its own, and a second look at what codes found.

Curves are averaged in cells of time, and may be flattened: less a running median, as is usual
before a search for transits, since slow changes of the star are no white noise.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from skyvec.schema import Floats, LightCurves
from skyvec.sim.signals import Drawable

CELL = 0.02
"""[day] Coarsest step of the time grid on which templates are shifted: half an hour."""

HALVINGS = 4
"""So many times it may be halved where stamps are denser: down to 108 s."""

LONGEST = 2**15
"""Where the span has more cells than this and stamps are sparser, cells are doubled until not."""

FLAT = 1.5
"""[day] Window of the running median."""

BANK = 12
"""Templates of a filter: draws of the signal, as free as the query's."""

LEAST = 0.5
"""A signal-to-noise ratio below this counts as this much, before its logarithm is taken."""


class Binned(NamedTuple):
    """One curve by cells of time: which cells, mean relative residual there, its scatter."""

    cells: NDArray[np.int64]
    residual: NDArray[np.float64]
    scatter: float


def binned(curves: LightCurves, i: int, flat: float, cell: float = CELL) -> Binned:
    """Average the i-th curve in cells of time and flatten it.

    Args:
        curves: Any number.
        i: Which of them.
        flat: Window of the running median [day]; 0 for none.
        cell: Step of the grid [day], CELL times a power of two.

    Returns:
        Cells, flux / median - 1 less the running median, and 1.4826 MAD; nothing for a curve of
        fewer than three points.
    """
    part = slice(curves.offsets[i], curves.offsets[i + 1])
    flux = curves.flux[part].astype(np.float64)
    if len(flux) < 3:
        return Binned(np.zeros(0, np.int64), np.zeros(0), 1.0)
    number = np.round((curves.mjd[part] - curves.mjd[part.start]) / cell).astype(np.int64)
    cells, place, count = np.unique(number, return_inverse=True, return_counts=True)
    level = float(np.median(flux))
    mean = np.bincount(place, flux) / count
    residual = flatten((mean - level) / max(abs(level), 1e-12), cells, flat, cell)
    scatter = 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
    return Binned(cells, residual, max(scatter, 1e-12))


def flatten(
    residual: NDArray[np.float64],
    cells: NDArray[np.int64],
    window: float = FLAT,
    cell: float = CELL,
) -> NDArray[np.float64]:
    """Take a running median away; that of finer cells is the one of CELL, between its middles.

    Args:
        residual: Mean of each cell of time, shape (m,).
        cells: Which cells, ascending, shape (m,).
        window: Length of the running median [day]; 0 leaves the values as they are.
        cell: Step of the grid [day].
    """
    if not window or len(residual) < 3:
        return residual
    factor = max(round(CELL / cell), 1)
    coarse, place, count = np.unique(cells // factor, return_inverse=True, return_counts=True)
    mean = np.bincount(place, residual) / count
    step = max(float(np.median(np.diff(coarse))), 1.0) if len(coarse) > 1 else 1.0
    step *= max(CELL, cell)
    width = min(2 * int(window / step / 2) + 1, len(mean))
    trend = median_filter(mean, size=max(width, 3), mode="nearest")
    middle = coarse * factor + (factor - 1) / 2
    return np.asarray(residual - np.interp(cells, middle, trend))


class Bank:
    """Draws of one signal over one span, the same at any step of time.

    Args:
        signal: What to draw; what it leaves free differs from one template to the next.
        span: Their length [day].
        rng: Generator of the draws.
    """

    def __init__(self, signal: Drawable, span: float, rng: np.random.Generator) -> None:
        self.signal, self.span = signal, max(span, 2 * CELL)
        self.seed = int(rng.integers(2**63))

    def at(self, cell: float) -> NDArray[np.float64]:
        """Relative change of flux (median 0) at steps of ``cell`` [day], (BANK, m)."""
        time, rng = np.arange(0, self.span, cell), np.random.default_rng(self.seed)
        flux = np.stack([self.signal.draw(time, rng)[0] for _ in range(BANK)])
        return np.asarray(flux - np.median(flux, axis=1, keepdims=True))


def median_span(curves: LightCurves) -> float:
    """Median time from first to last point of the curves with two [day]; 0 if there are none."""
    some = np.flatnonzero(curves.lengths > 1)
    if not len(some):
        return 0.0
    first, last = curves.offsets[some], curves.offsets[some + 1] - 1
    return float(np.median(curves.mjd[last] - curves.mjd[first]))


def matched_filter(
    curves: LightCurves, templates: NDArray[np.float64] | Bank, *, flat: float = 0.0
) -> NDArray[np.float64]:
    """Highest signal-to-noise of any template over all its shifts in time, (n,).

    S/N(s) = sum_j r_j T(t_j - s) / (sigma sqrt(sum_j T(t_j - s)^2)), on a grid by two Fourier
    transforms a curve. The shapes are known, the phase is not: no search in the time domain
    without trends can do better against white noise.

    Args:
        curves: n light curves.
        templates: Relative change of flux (0 = none) at steps of CELL days, shape (m,) or, for
            several, (b, m); or a bank, which is drawn at the step nearest to a curve's own.
        flat: Window of the running median taken away from curves and templates [day].

    References:
        Turin 1960, IRE Trans. Inf. Theory 6, 311.
    """
    best = np.zeros(len(curves))
    banks: dict[float, np.ndarray] = {}
    spectra: dict[tuple[float, int], tuple[np.ndarray, np.ndarray]] = {}
    for i in range(len(curves)):
        cell = _step(curves, i) if isinstance(templates, Bank) else CELL
        cells, residual, scatter = binned(curves, i, flat, cell)
        if len(cells) < 3:
            continue
        if cell not in banks:
            drawn = templates.at(cell) if isinstance(templates, Bank) else templates
            banks[cell] = _flat_bank(np.atleast_2d(drawn), flat, cell)
        bank = banks[cell]
        size = 1 << int(np.ceil(np.log2(cells[-1] + bank.shape[1] + 1)))
        if (cell, size) not in spectra:
            single = bank.astype(np.float32)  # half the time, and errors of 1e-6 of the S/N
            transforms = (np.fft.rfft(single, size), np.fft.rfft(single**2, size))
            spectra[cell, size] = (transforms[0].conj(), transforms[1].conj())
        shape, square = spectra[cell, size]
        signal = np.bincount(cells, residual, size).astype(np.float32)
        count = np.bincount(cells, minlength=size).astype(np.float32)
        top = np.fft.irfft(np.fft.rfft(signal) * shape, size)
        power = np.fft.irfft(np.fft.rfft(count) * square, size)
        enough = power > np.maximum(0.02 * power.max(axis=1, keepdims=True), 1e-30)
        found = np.where(enough, top / np.sqrt(np.where(enough, power, 1)), -np.inf)
        best[i] = np.max(found) / scatter
    return best


def filtered(curves: LightCurves, bank: Bank) -> NDArray[np.float64]:
    """Highest signal-to-noise of a bank in the raw and in the flattened curves, (n, 2)."""
    return np.stack([matched_filter(curves, bank, flat=flat) for flat in (0.0, FLAT)], axis=1)


class SecondLook:
    """Codes and curves together: the log odds that a curve shows a signal.

        odds = a log r + b log(S/N) + c,

    r the ratio of distances by code (:class:`skyvec.analysis.directed.Contrast`), S/N that of the
    matched filter on raw or on flattened curves, whichever tells the cloud better from the survey
    (area under the curve of rates). a and b are fitted to the cloud against the survey (logistic
    regression, both weighing the same), so each has the say that it earns for this signal.

    Args:
        cloud: Score by code of the query's members, shape (m,), finite.
        cloud_filtered: Of :func:`filtered`, shape (m, 2).
        survey: Score by code of objects of the survey, shape (n,).
        survey_filtered: Shape (n, 2).

    Raises:
        ValueError: No member or no object has a finite score.
    """

    def __init__(
        self, cloud: Floats, cloud_filtered: Floats, survey: Floats, survey_filtered: Floats
    ) -> None:
        score = np.concatenate([cloud, survey])
        snr = _log(np.concatenate([cloud_filtered, survey_filtered]))
        is_cloud = np.arange(len(score)) < len(cloud)
        usable = np.isfinite(score)
        if not (usable & is_cloud).any() or not (usable & ~is_cloud).any():
            raise ValueError("a second look needs members of a cloud and of a survey with codes")
        told = [roc_auc_score(is_cloud[usable], snr[usable, column]) for column in (0, 1)]
        self.column = int(np.argmax(told))
        table = np.stack([score, snr[:, self.column]], axis=1)[usable]
        self._mean, self._scale = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-9)
        fitted = LogisticRegression(class_weight="balanced").fit(
            (table - self._mean) / self._scale, is_cloud[usable]
        )
        self._weight, self._offset = fitted.coef_[0], float(fitted.intercept_[0])

    def odds(self, score: Floats, snr: Floats) -> Floats:
        """Log odds [nat] of codes' scores (n,) and filters' S/N (n, 2), (n,); -inf stays."""
        table = np.stack([score, _log(snr)[:, self.column]], axis=1)
        finite = np.isfinite(score)
        scaled = (np.where(finite[:, None], table, 0) - self._mean) / self._scale
        return np.where(finite, scaled @ self._weight + self._offset, -np.inf)


def _log(snr: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(snr, LEAST)))


def _step(curves: LightCurves, i: int) -> float:
    """CELL times the power of two that suits a curve's own step and span [day]."""
    steps = np.diff(curves.mjd[curves.offsets[i] : curves.offsets[i + 1]])
    own = float(np.median(steps)) if len(steps) else CELL
    halvings = np.clip(np.round(np.log2(CELL / max(own, 1e-9))), 0, HALVINGS)
    cell = float(CELL / 2**halvings)
    while steps.sum() / cell > LONGEST and cell < own:
        cell *= 2
    return cell


def _flat_bank(bank: NDArray[np.float64], flat: float, cell: float) -> NDArray[np.float64]:
    if not flat:
        return bank
    # nothing comes before and after a template, so that a dip at its edge is no trend
    bank = np.pad(bank, ((0, 0), (round(flat / cell), round(flat / cell))))
    return np.stack([flatten(one, np.arange(len(one)), flat, cell) for one in bank])
