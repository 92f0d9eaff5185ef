"""Hand-crafted numbers of a light curve: the rows that every learned code has to beat.

The power spectrum with fifteen statistics, and the features of the ``light-curve`` package, each
by band; :mod:`skyvec.prep.codes` makes vectors of them. What cannot be computed is NaN.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyvec.prep.lightcurves import prepare
from skyvec.prep.spectra import log_power_spectrum
from skyvec.prep.statistics import LEAST_POINTS, simple_statistics
from skyvec.schema import LightCurves

Numbers = NDArray[np.float64]


def spectrum_and_statistics(
    curves: LightCurves, *, with_mean: bool = False, round_days: float = 0.0
) -> Numbers:
    """What :class:`StatisticsCode` is made of: log power in 128 cells, then the statistics.

    Args:
        curves: Light curves, n, of D bands.
        with_mean: Add the mean of each band to the statistics.
        round_days: Grid of times that are averaged [day], 0 for none: rounding to 0.01 d would
            take light from the fastest pulsators.

    Returns:
        Shape (n, 128 + 15 D), or (n, 128 + 16 D) with the mean; NaN where there is no statistic.
    """
    prepared = prepare(curves, round_days=round_days)
    table = [log_power_spectrum(prepared), simple_statistics(prepared, with_mean=with_mean)]
    return np.concatenate(table, axis=1).astype(np.float64)


NEED_ERRORS = ("chi2", "excess_variance", "linear_fit", "roms", "stetson_K")
"""Beginnings of the names of features that mean nothing without errors."""


def package_features(
    curves: LightCurves, *, with_mean: bool = False, highest_frequency: float = 24.0
) -> Numbers:
    """Features of the ``light-curve`` package, of each band of each curve.

    They are computed on flux / |median flux| of the band, so that brightness does not enter: the
    usual moments and percentiles, trends, variability indices, the three highest peaks of a
    Lomb-Scargle periodogram, and four features of the curve folded at the first.

    Args:
        curves: Light curves, n, of D bands.
        with_mean: Add log10(median flux) of each band.
        highest_frequency: End of the periodogram [1/day]; its step is at most half of 1 / span.

    Returns:
        Shape (n, F D), named by :func:`package_names`. NaN is what cannot be computed: everything
        of a band with fewer than five points, no scatter, no span or a median of 0; peaks that
        are not there; and whatever needs errors where one is unknown.

    Raises:
        ModuleNotFoundError: The package is not installed; ``pip install 'skyvec[baselines]'``.

    References:
        Malanchev et al. 2021, MNRAS 502, 5147. https://github.com/light-curve
    """
    names = list(_extractor(4, highest_frequency).names)
    unsure = np.array([name.startswith(NEED_ERRORS) for name in names])
    table = np.full((len(curves), len(curves.bands), len(names) + with_mean), np.nan)
    for i in range(len(curves)):
        inside = slice(curves.offsets[i], curves.offsets[i + 1])
        for band in range(len(curves.bands)):
            points = curves.band[inside] == band
            mjd, flux = curves.mjd[inside][points], curves.flux[inside][points].astype(np.float64)
            median = float(np.median(flux)) if len(flux) else 0.0
            if with_mean and median > 0:
                table[i, band, -1] = np.log10(median)
            if len(flux) < LEAST_POINTS or not (np.ptp(flux) and np.ptp(mjd) and median):
                continue
            err = curves.flux_err[inside][points].astype(np.float64) / abs(median)
            row = _package_row(mjd - mjd[0], flux / abs(median), err, highest_frequency)
            row[unsure & np.isnan(err).any()] = np.nan
            table[i, band, : len(names)] = row
    return table.reshape(len(curves), -1)


def package_names(bands: Sequence[str], *, with_mean: bool = False) -> list[str]:
    """Name the columns of :func:`package_features`, band by band."""
    names = [*_extractor(4, 24.0).names, *["mean"] * with_mean]
    return [f"{name}_{band}" for band in bands for name in names]


def _package_row(time: Numbers, flux: Numbers, err: Numbers, highest: float) -> Numbers:
    """Features of one band, (F,)."""
    doublings = int(np.clip(np.ceil(np.log2(2 * highest * time[-1])), 4, 21))
    extractor = _extractor(doublings, highest)
    known = None if np.isnan(err).any() else err
    row = np.asarray(extractor(time, flux, known, sorted=True, check=False, fill_value=np.nan))
    peaks = np.array([name.startswith("periodogram_period_") for name in extractor.names])
    row[peaks & (row == 0)] = np.nan  # the package writes 0 for a peak that is not there
    row[~np.isfinite(row)] = np.nan
    return row


@lru_cache(maxsize=32)
def _extractor(doublings: int, highest_frequency: float) -> Any:
    """The features, with a periodogram of 2^doublings frequencies."""
    # an extra, and slow to import
    try:
        import light_curve as lc
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the light-curve package is not installed; run pip install 'skyvec[baselines]'"
        ) from error
    angular = np.linspace(0, 2 * np.pi * highest_frequency, 2**doublings + 1)
    folded = [lc.Eta(), lc.LaflerKinmanStringLength(), lc.MaximumSlope(), lc.LinearTrend()]
    spectrum = [lc.StandardDeviation(), lc.Skew(), lc.PercentAmplitude(), lc.Cusum()]
    return lc.Extractor(
        lc.Amplitude(),
        lc.AndersonDarlingNormal(),
        lc.BeyondNStd(1),
        lc.BeyondNStd(2),
        lc.BiweightScale(),
        lc.Cusum(),
        lc.Eta(),
        lc.EtaE(),
        lc.ExcessVariance(),
        lc.InterPercentileRange(0.02),
        lc.InterPercentileRange(0.1),
        lc.InterPercentileRange(0.25),
        lc.Kurtosis(),
        lc.LinearFit(),
        lc.LinearTrend(),
        lc.MagnitudePercentageRatio(0.4, 0.05),
        lc.MagnitudePercentageRatio(0.2, 0.05),
        lc.MaximumSlope(),
        lc.MedianAbsoluteDeviation(),
        lc.MedianBufferRangePercentage(0.1),
        lc.MedianBufferRangePercentage(0.2),
        lc.OtsuSplit(),
        lc.PercentAmplitude(),
        lc.PercentDifferenceMagnitudePercentile(0.05),
        lc.ReducedChi2(),
        lc.Roms(),
        lc.Skew(),
        lc.StandardDeviation(),
        lc.StetsonK(),
        lc.Periodogram(
            peaks=3, freqs=angular, fast=True, features=spectrum, phase_features=folded
        ),
    )
