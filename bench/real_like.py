"""Vectors to measure searches on: codes of real light curves grown by a fitted mixture, and worse.

Real codes are 40 principal components of simple features (quantiles, moments, neighbour
differences, log power in 30 bands of frequency), each standardised; a Gaussian mixture fitted to
them then gives as many as are asked for. Where the real sets are absent, a mixture of random
Gaussians with a decaying spectrum stands in, and the benchmarks say so.
"""

import time as clock
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.mixture import GaussianMixture

SETS = ("asas_acvs", "sss_crts", "eros1_br")
DATA = Path(__file__).parents[1].parent / "shared" / "data" / "lightcurves"
WIDTH = 40
POINTS = 150
COMPONENTS = 24
TURN = 10
"""Calls of a kind in a row where several are timed."""


def features(time: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Simple statistics and log power of one light curve, shape (51,)."""
    scatter = value.std()
    z = (value - value.mean()) / (scatter if scatter > 0 else 1.0)
    step = np.diff(z)
    statistics = [
        *np.quantile(z, np.linspace(0.02, 0.98, 13)),
        (z**3).mean(),
        (z**4).mean(),
        (step**2).mean(),
        np.abs(step).mean(),
        (step > 0).mean(),
        np.log10(scatter + 1e-6),
        np.log10(len(z)),
        np.log10(np.ptp(time) + 1e-3),
    ]
    frequency = np.geomspace(1e-3, 10.0, 120)  # [1/day]
    wave = np.exp((2j * np.pi) * np.outer(frequency, time))
    power = (np.abs(wave @ z) ** 2 / len(z)).reshape(30, 4).mean(axis=1)
    return np.array([*statistics, *np.log10(power + 1e-3)])


def real_codes(limit: int | None = None) -> np.ndarray | None:
    """40 numbers a real curve, float32 (n, 40); None where the sets are not there."""
    rows: list[np.ndarray] = []
    for name in SETS:
        path = DATA / f"{name}.parquet"
        if not path.exists():
            return None
        table = pq.read_table(path, columns=["time", "value", "band"]).slice(0, limit)
        for batch in table.to_batches(max_chunksize=512):
            columns = (batch[key] for key in ("time", "value", "band"))
            for time, value, band in zip(*columns):
                t, v, b = (x.values.to_numpy(zero_copy_only=False) for x in (time, value, band))
                keep = np.flatnonzero((b == b[0]) & np.isfinite(v) & np.isfinite(t))
                keep = keep[:: max(1, len(keep) // POINTS)][:POINTS]
                if len(keep) > 8:
                    rows.append(features(t[keep] - t[keep[0]], v[keep].astype(np.float64)))
    table_ = np.array(rows)
    table_ -= table_.mean(0)
    table_ /= table_.std(0) + 1e-9
    _, _, axes = np.linalg.svd(table_, full_matrices=False)
    return (table_ @ axes[:WIDTH].T).astype(np.float32)


class Source:
    """A mixture to draw real-like codes from, and what it was fitted to."""

    def __init__(self, rng: np.random.Generator, *, limit: int | None = None) -> None:
        codes = real_codes(limit)
        self.like = "simulated clusters" if codes is None else f"{len(codes)} codes of real curves"
        if codes is None:
            spectrum = np.geomspace(3.0, 0.2, WIDTH)
            self.weights = rng.dirichlet(np.full(COMPONENTS, 2.0))
            self.means = rng.standard_normal((COMPONENTS, WIDTH)) * spectrum
            turn = rng.standard_normal((COMPONENTS, WIDTH, WIDTH)) * 0.5 / np.sqrt(WIDTH)
            self.factors = turn * spectrum[:, None]
            return
        fit = GaussianMixture(COMPONENTS, reg_covar=1e-3, random_state=0, max_iter=30, tol=1e-2)
        fit.fit(codes)
        self.weights, self.means = fit.weights_, fit.means_
        self.factors = np.linalg.cholesky(fit.covariances_)

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Give n codes in random order, float32, shape (n, 40)."""
        label = rng.choice(len(self.weights), n, p=self.weights)
        codes = np.empty((n, WIDTH), np.float32)
        for component, factor in enumerate(self.factors):
            here = np.flatnonzero(label == component)
            noise = rng.standard_normal((len(here), WIDTH), dtype=np.float32)
            codes[here] = noise @ factor.T.astype(np.float32) + self.means[component]
        return codes


def isotropic(n: int, rng: np.random.Generator) -> np.ndarray:
    """Directions without any structure, the worst case of every bound, float32 (n, 40)."""
    return rng.standard_normal((n, WIDTH), dtype=np.float32)


def interleaved(calls: list[Callable[[int], object]], repeats: int) -> list[float]:
    """Median seconds of each of several calls, taken in turns so that all meet the same machine.

    A turn is several calls in a row: each meets the caches as it leaves them itself, not as a
    flat scan of everything does.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for first in range(0, repeats, TURN):
        for call, kept in zip(calls, seconds):
            for i in range(first, min(first + TURN, repeats)):
                start = clock.perf_counter()
                call(i)
                kept.append(clock.perf_counter() - start)
    return [float(np.median(kept)) for kept in seconds]
