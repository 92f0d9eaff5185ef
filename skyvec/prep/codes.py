"""Codes without a network: hand-crafted numbers, scaled on a training part.

Of light curves: the leading components of the log power spectrum with the statistics
(``StatisticsCode``), and the features of the ``light-curve`` package (``FeatureCode``). Of images:
the leading components of the pixels (``PixelsCode``), and shapes measured by hand. What is missing
(NaN) becomes the median of the training part, never 0, and is counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec.prep.features import package_features, spectrum_and_statistics
from skyvec.prep.images import block_average
from skyvec.prep.morphology import shape_statistics
from skyvec.prep.spectra import FREQUENCY_EDGES

Numbers = NDArray[np.float64]
Vectors = NDArray[np.float32]
N_COMPONENTS = 30
CLIP = 5.0
"""[robust deviations] Features are heavy-tailed; beyond this they only say "far out"."""

Arrays = dict[str, np.ndarray]


class Coded(NamedTuple):
    """Codes and how much of them is not measured.

    Args:
        vectors: Finite, float32, (n, d).
        n_imputed: Numbers of each row that could not be computed and were put in its place, (n,).
    """

    vectors: Vectors
    n_imputed: NDArray[np.int64]


@dataclass(frozen=True)
class StatisticsCode:
    """Thirty components of the log power spectrum and the standardised statistics.

    Both parts weigh the same in a distance: the components are scaled together, not each by its
    own, to a mean square norm of the number of statistics. For one band: 45 numbers.

    Args:
        spectrum_mean: (F,).
        components: Principal axes times their common scale, (F, 30).
        fill: Median of each statistic, in the place of one that is missing, (s,).
        centre: Mean of each statistic, (s,).
        scale: Deviation of each statistic, infinite if it never varied, (s,).
    """

    spectrum_mean: Numbers
    components: Numbers
    fill: Numbers
    centre: Numbers
    scale: Numbers

    @classmethod
    def fit(cls, table: Numbers) -> "StatisticsCode":
        """Learn from the training part.

        Args:
            table: From :func:`spectrum_and_statistics`, (n >= 2, F + s).
        """
        _require_rows(table)
        spectrum, statistics = _split_spectrum(table)
        mean = spectrum.mean(axis=0)
        _, axes = np.linalg.eigh((spectrum - mean).T @ (spectrum - mean))
        axes = axes[:, : -N_COMPONENTS - 1 : -1]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        power = float((((spectrum - mean) @ axes) ** 2).sum(axis=1).mean())
        common = np.sqrt(statistics.shape[1] / power) if power > 0 else 1.0
        fill = _median(statistics)
        whole = _impute(statistics, fill)
        deviation = whole.std(axis=0)
        # what never varied in training tells nothing: divided by infinity it is 0 for every curve
        scale = np.where(deviation > 0, deviation, np.inf)
        return cls(mean, axes * common, fill, whole.mean(axis=0), scale)

    def transform(self, table: Numbers) -> Coded:
        """Code any curves: table (n, F + s) -> vectors (n, 30 + s)."""
        _require_columns(table, len(self.spectrum_mean) + len(self.fill))
        spectrum, statistics = _split_spectrum(table)
        missing = np.isnan(statistics).sum(axis=1)
        standard = (_impute(statistics, self.fill) - self.centre) / self.scale
        scores = (spectrum - self.spectrum_mean) @ self.components
        return Coded(np.concatenate([scores, standard], axis=1).astype(np.float32), missing)

    def arrays(self) -> Arrays:
        """All that is learned, by name, for storage."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "StatisticsCode":
        """The code that gave these ``arrays``."""
        return cls(**arrays)


@dataclass(frozen=True)
class FeatureCode:
    """Features by median and interquartile range of the training part, clipped at 5.

    A feature that the training part never has, or that never varies there, is left out.

    Args:
        is_kept: Features that are part of the code, (F,); d of them are.
        fill: Their medians, which are also the centres, (d,).
        scale: Interquartile range / 1.349 (or the deviation, where that is 0), > 0, (d,).
    """

    is_kept: NDArray[np.bool_]
    fill: Numbers
    scale: Numbers

    @classmethod
    def fit(cls, table: Numbers) -> "FeatureCode":
        """Learn from the training part.

        Args:
            table: From :func:`package_features`, (n >= 2, F).
        """
        _require_rows(table)
        seen = ~np.isnan(table).all(axis=0)
        fill = _median(table)
        whole = _impute(table, fill)
        low, high = np.quantile(whole, (0.25, 0.75), axis=0)
        scale = np.where(high > low, (high - low) / 1.349, whole.std(axis=0))
        is_kept = np.asarray(seen & (scale > 0))
        return cls(is_kept, fill[is_kept], scale[is_kept])

    def transform(self, table: Numbers) -> Coded:
        """Code any curves: table (n, F) -> vectors (n, d)."""
        _require_columns(table, len(self.is_kept))
        kept = table[:, self.is_kept]
        scaled = (_impute(kept, self.fill) - self.fill) / self.scale
        vectors = np.clip(scaled, -CLIP, CLIP).astype(np.float32)
        return Coded(vectors, np.isnan(kept).sum(axis=1))

    def arrays(self) -> Arrays:
        """All that is learned, by name, for storage."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "FeatureCode":
        """The code that gave these ``arrays``."""
        return cls(**arrays)


N_PIXEL_COMPONENTS = 40
PIXEL_SIDE = 32
"""[pixel] Images are averaged down to about this side before their components are taken."""


def pixel_table(pixels: Vectors) -> Numbers:
    """Prepared images (n, C, y, x) as rows of coarse pixels, (n, C * side**2), NaN kept."""
    factor = max(1, min(pixels.shape[-2:]) // PIXEL_SIDE)
    coarse = block_average(pixels, factor) if factor > 1 else pixels
    return coarse.reshape(len(pixels), -1).astype(np.float64)


@dataclass(frozen=True)
class PixelsCode:
    """The leading 40 principal components of the pixels, each with its own size.

    Args:
        fill: Median of each pixel, in the place of one that was not measured, (P,).
        mean: (P,).
        components: Principal axes, orthonormal columns, (P, d).
    """

    fill: Numbers
    mean: Numbers
    components: Numbers

    @classmethod
    def fit(cls, table: Numbers) -> "PixelsCode":
        """Learn from the training part.

        Args:
            table: From :func:`pixel_table`, (n >= 2, P).

        References:
            Halko, Martinsson & Tropp 2011, SIAM Review 53, 217 (the range finder used here).
        """
        _require_rows(table)
        fill = _median(table)
        whole = _impute(table, fill)
        mean = whole.mean(axis=0)
        centred = whole - mean
        width = min(N_PIXEL_COMPONENTS, *centred.shape)
        # a fixed start: the same table always gives the same axes
        start = np.random.default_rng(0).standard_normal(
            (len(centred), min(width + 20, *table.shape))
        )
        basis = np.linalg.qr(centred.T @ start)[0]
        for _ in range(4):
            basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
        _, _, axes = np.linalg.svd(centred @ basis, full_matrices=False)
        components = basis @ axes[:width].T
        largest = np.abs(components).argmax(axis=0)
        return cls(fill, mean, components * np.sign(components[largest, np.arange(width)]))

    def transform(self, table: Numbers) -> Coded:
        """Code any images: table (n, P) -> vectors (n, d)."""
        _require_columns(table, len(self.mean))
        scores = (_impute(table, self.fill) - self.mean) @ self.components
        return Coded(scores.astype(np.float32), np.isnan(table).sum(axis=1))

    def arrays(self) -> Arrays:
        """All that is learned, by name, for storage."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "PixelsCode":
        """The code that gave these ``arrays``."""
        return cls(**arrays)


class Baseline(NamedTuple):
    """A code without a network: ``code.fit(measure(train))``, then ``transform(measure(any))``.

    Args:
        measure: Makes the table: of light curves in some bands, or of prepared images.
        code: What is fitted to it.
        modality: What it is for.
    """

    measure: Callable[..., Numbers]
    code: type[StatisticsCode] | type[FeatureCode] | type[PixelsCode]
    modality: str = "lightcurves"


BASELINES = {
    "statistics": Baseline(spectrum_and_statistics, StatisticsCode),
    "features": Baseline(package_features, FeatureCode),
    "pixels": Baseline(pixel_table, PixelsCode, "images"),
    "morphology": Baseline(shape_statistics, FeatureCode, "images"),
}


def baselines_of(modality: str) -> list[str]:
    """Names of the codes without a network for one kind of object."""
    return [name for name, baseline in BASELINES.items() if baseline.modality == modality]


def _split_spectrum(table: Numbers) -> tuple[Numbers, Numbers]:
    n_cells = len(FREQUENCY_EDGES) - 1
    return table[:, :n_cells], table[:, n_cells:]


def _median(table: Numbers) -> Numbers:
    """Median of each column without its NaN; 0 for a column of nothing else, (F,)."""
    ordered = np.sort(table, axis=0)  # NaN last
    count = (~np.isnan(table)).sum(axis=0)
    below = np.take_along_axis(ordered, (np.maximum(count - 1, 0) // 2)[None], axis=0)[0]
    above = np.take_along_axis(ordered, np.minimum(count // 2, len(table) - 1)[None], axis=0)[0]
    return np.where(count > 0, (below + above) / 2, 0.0)


def _impute(table: Numbers, fill: Numbers) -> Numbers:
    return np.where(np.isnan(table), fill, table)


def _require_rows(table: Numbers) -> None:
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"a code needs a table of at least 2 objects to fit, not {table.shape}")


def _require_columns(table: Numbers, wanted: int) -> None:
    if table.ndim != 2 or table.shape[1] != wanted:
        raise ValueError(
            f"the code was fitted on {wanted} numbers an object, but the table is {table.shape}; "
            "measure it with the same bands and options"
        )
