"""Similarity of series beyond the latents: correlation, autocorrelation, complexity, shape.

All take series on a common grid, shape (n, m), each row z-normalised (mean 0, deviation 1). Every
measure is a distance, 0 for equal series, and has an exact full search; any can also re-rank the
candidates of another search.
"""

from collections.abc import Callable
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float32]
COMPLEXITY_FLOOR = 1e-6


class Nearest(NamedTuple):
    """The k nearest rows of each query: distances ascending and rows, shape (q, k) each."""

    distance: NDArray[np.float64]
    rows: NDArray[np.int64]


def euclidean(query: Series, series: Series) -> NDArray[np.float64]:
    """ED(x, y) = |x - y|, one query (m,) against (n, m)."""
    return np.linalg.norm(series.astype(np.float64) - query, axis=1)


def correlation(query: Series, series: Series) -> NDArray[np.float64]:
    """Distance sqrt(2 (1 - rho)), rho the correlation at equal times; equals ED / sqrt(m)."""
    return euclidean(query, series) / np.sqrt(len(query))


def complexity(series: Series) -> NDArray[np.float64]:
    """CE(x) = sqrt(sum_i (x_{i+1} - x_i)^2), the length of the stretched series, (n,)."""
    steps = np.diff(np.atleast_2d(series).astype(np.float64), axis=1)
    return np.maximum(np.sqrt((steps**2).sum(axis=1)), COMPLEXITY_FLOOR)


def complexity_invariant(query: Series, series: Series) -> NDArray[np.float64]:
    """CID(x, y) = ED(x, y) max(CE) / min(CE) (Batista, Wang & Keogh 2011, SDM)."""
    mine, theirs = complexity(query)[0], complexity(series)
    return euclidean(query, series) * np.maximum(mine, theirs) / np.minimum(mine, theirs)


def autocorrelations(series: Series, lags: int, *, decay: float = 0.05) -> Series:
    """Autocorrelation at lags 1 .. lags, weighted so that a Euclidean search compares them.

    r_l = sum_i x_i x_{i+l} / sum_i x_i^2, scaled by sqrt(decay (1 - decay)^l): the distance is the
    ACFG of Montero & Vilar (2014, J. Stat. Softw. 62, 1); decay = 0 weighs all lags alike (ACFU).

    Returns:
        Shape (n, lags); does not depend on the phase of a periodic series.
    """
    m = series.shape[1]
    if not 1 <= lags < m:
        raise ValueError(f"lags must be between 1 and {m - 1}, not {lags}")
    size = 1 << int(np.ceil(np.log2(2 * m)))
    power = np.abs(np.fft.rfft(series.astype(np.float64), size, axis=1)) ** 2
    acf = np.fft.irfft(power, size, axis=1)
    r = acf[:, 1 : lags + 1] / np.maximum(acf[:, :1], 1e-12)
    lag = np.arange(1, lags + 1)
    weight = np.sqrt(decay * (1 - decay) ** lag) if decay else np.ones(lags)
    return (r * weight).astype(np.float32)


def autocorrelation(query: Series, series: Series) -> NDArray[np.float64]:
    """Distance of the weighted autocorrelations up to a third of the series."""
    lags = max(1, series.shape[1] // 3)
    return euclidean(autocorrelations(query[None], lags)[0], autocorrelations(series, lags))


def shape_based(query: Series, series: Series) -> NDArray[np.float64]:
    """SBD = 1 - highest normalised cross-correlation (Paparrizos & Gravano 2015, SIGMOD)."""
    return _shape_distance(query, series, _spectra(series))


def _spectra(series: Series) -> NDArray[np.complex128]:
    return np.fft.rfft(series.astype(np.float64), _padded(series.shape[1]), axis=1)


def _padded(m: int) -> int:
    """Length of a transform that does not let the end of a series run into its beginning."""
    return 1 << int(np.ceil(np.log2(2 * m)))


def _shape_distance(
    query: Series, series: Series, spectra: NDArray[np.complex128]
) -> NDArray[np.float64]:
    size = _padded(len(query))
    cross = np.fft.irfft(spectra * np.fft.rfft(query.astype(np.float64), size).conj(), size)
    norm = np.linalg.norm(series, axis=1) * np.linalg.norm(query)
    return 1 - np.where(norm > 0, cross.max(axis=1) / np.where(norm > 0, norm, 1), 0.0)


MEASURES: dict[str, Callable[[Series, Series], NDArray[np.float64]]] = {
    "correlation": correlation,
    "autocorrelation": autocorrelation,
    "complexity": complexity_invariant,
    "shape": shape_based,
}


def distances(queries: Series, series: Series, measure: str) -> NDArray[np.float64]:
    """Distances of several queries to all series, shape (q, n); what they share is made once.

    Args:
        queries: Shape (q, m), z-normalised.
        series: Shape (n, m), z-normalised.
        measure: A name of MEASURES.

    Raises:
        ValueError: An unknown measure, shapes that do not fit, or values that are not finite.
    """
    compare = _measure(measure)
    _check(queries, series)
    if measure == "autocorrelation":
        lags = max(1, series.shape[1] // 3)
        asked, known = autocorrelations(queries, lags), autocorrelations(series, lags)
        found = [euclidean(query, known) for query in asked]
    elif measure == "shape":
        spectra = _spectra(series)
        found = [_shape_distance(query, series, spectra) for query in queries]
    elif measure == "complexity":
        mine, theirs = complexity(queries), complexity(series)
        found = [
            euclidean(query, series) * np.maximum(ce, theirs) / np.minimum(ce, theirs)
            for query, ce in zip(queries, mine)
        ]
    else:
        found = [compare(query, series) for query in queries]
    return np.array(found).reshape(len(queries), len(series))


def rerank(query: Series, series: Series, candidates: NDArray[np.int64], measure: str) -> Nearest:
    """Order the candidates of one query by another measure.

    Args:
        query: Shape (m,).
        series: All series, shape (n, m).
        candidates: Rows to order, shape (c,).
        measure: A name of MEASURES.

    Raises:
        ValueError: An unknown measure.
    """
    distance = _measure(measure)(query, series[candidates])
    order = np.lexsort((candidates, distance))
    return Nearest(distance[order][None], candidates[order][None])


def search(queries: Series, series: Series, k: int, measure: str) -> Nearest:
    """Find the k nearest series of each query by a measure, exactly; ties go to the lower row.

    Correlation and autocorrelation are Euclidean searches; complexity is found by walking through
    growing Euclidean neighbours, since CID >= ED; shape compares with all by FFT.

    Args:
        queries: Shape (q, m).
        series: Shape (n, m).
        k: How many; fewer are returned where there are fewer.
        measure: A name of MEASURES.
    """
    _check(queries, series)
    k = min(k, len(series))
    if measure == "complexity":
        return _complexity_search(queries, series, k)
    found = distances(queries, series, measure)
    rows = np.stack([np.lexsort((np.arange(len(series)), d))[:k] for d in found])
    return Nearest(np.take_along_axis(found, rows, axis=1), rows)


def _complexity_search(queries: Series, series: Series, k: int) -> Nearest:
    """Exact CID search: no series beyond the k-th best CID found in ED can do better."""
    index = faiss.IndexFlatL2(series.shape[1])
    index.add(np.ascontiguousarray(series, np.float32))
    ce = complexity(series)
    best = [_refine(query, series, index, ce, k) for query in queries]
    return Nearest(np.stack([b[0] for b in best]), np.stack([b[1] for b in best]))


def _refine(
    query: Series, series: Series, index: faiss.Index, ce: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    mine = complexity(query)[0]
    reach = min(len(series), max(4 * k, 32))
    while True:
        squared, rows = index.search(np.ascontiguousarray(query[None], np.float32), reach)
        found = rows[0].astype(np.int64)
        distance = euclidean(query, series[found]) * np.maximum(mine, ce[found])
        distance /= np.minimum(mine, ce[found])
        order = np.lexsort((found, distance))[:k]
        # Faiss rounds in float32: leave it room before trusting its order
        horizon = np.sqrt(max(float(squared[0, -1]), 0.0)) * (1 - 1e-4) - 1e-4
        if reach == len(series) or distance[order[-1]] < horizon:
            return distance[order], found[order]
        reach = min(len(series), 4 * reach)


def _measure(name: str) -> Callable[[Series, Series], NDArray[np.float64]]:
    if name not in MEASURES:
        raise ValueError(f"unknown measure {name!r}; choose from {', '.join(MEASURES)}")
    return MEASURES[name]


def _check(queries: Series, series: Series) -> None:
    if queries.ndim != 2 or series.ndim != 2 or queries.shape[1] != series.shape[1]:
        raise ValueError(
            f"queries {queries.shape} and series {series.shape} must be (q, m) and (n, m)"
        )
    if not (np.isfinite(queries).all() and np.isfinite(series).all()):
        raise ValueError("series must be finite; put them on a grid first")
