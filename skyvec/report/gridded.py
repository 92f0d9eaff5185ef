"""The light curves of a survey as series on a common grid, as measures of similarity want them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skyvec import store
from skyvec.prep.grid import on_grid
from skyvec.prep.lightcurves import prepare
from skyvec.prep.statistics import LEAST_POINTS
from skyvec.schema import LightCurves, Strings

CELLS = 128
"""Cells of the grid; each curve is averaged in as many equal parts of its own span."""


class Series(NamedTuple):
    """Series of n segments.

    Args:
        id: Segment keys, shape (n,).
        values: Each of mean 0 and deviation 1, float32, shape (n, CELLS).
        usable: The segment has five points at least in the band, and scatter; bool, shape (n,).
    """

    id: Strings
    values: NDArray[np.float32]
    usable: NDArray[np.bool_]


def check_light(survey: Path, question: str) -> None:
    """Make sure that a survey holds light curves.

    Raises:
        StoreError: It does not; the message names the question that cannot be asked.
    """
    kind = store.survey_kind(survey)
    if kind != "lightcurves":
        raise store.StoreError(
            f"{question} compares light curves point by point, and {survey} holds {kind}; "
            "search it by its vectors, without a measure"
        )


def choose_band(survey: Path, band: str) -> str:
    """Give the band that is compared: the one named, else that of most points in the first shard.

    Raises:
        ValueError: The survey has no such band.
    """
    bands = store.survey_bands(survey)
    if band and band not in bands:
        raise ValueError(f"no band {band!r} in {survey}; there are: {', '.join(bands)}")
    if band or len(bands) == 1:
        return band or bands[0]
    for shard in store.object_shards(survey):
        if shard["rows"]:
            curves = store.read_objects(survey, shard["file"])[1]
            return bands[int(np.bincount(curves.band, minlength=len(bands)).argmax())]
    raise store.StoreError(f"{survey} has no objects; ingest some first")


def series_of(curves: LightCurves, band: str) -> Series:
    """Put curves on the grid.

    Args:
        curves: n curves.
        band: Name of the band that is used; a curve of the only band there is goes with any.

    Raises:
        ValueError: The curves are in other bands.
    """
    if band not in curves.bands and len(curves.bands) != 1:
        raise ValueError(
            f"band {band} is compared, and there are only {', '.join(curves.bands)}; "
            "name another with --band"
        )
    code = curves.bands.index(band) if band in curves.bands else 0
    values = on_grid(prepare(curves, round_days=0), CELLS, band=code)
    own = np.repeat(np.arange(len(curves)), curves.lengths)[curves.band == code]
    points = np.bincount(own, minlength=len(curves))
    return Series(curves.id, values, (points >= LEAST_POINTS) & (values != 0).any(axis=1))


def survey_series(survey: Path, model: str, band: str) -> Series:
    """Put all curves of a survey on the grid, in the order of a model's latents.

    About 0.5 kB a curve stays in memory; the curves themselves are read shard by shard.
    """
    parts = [
        series_of(store.read_objects(survey, shard["file"])[1], band)
        for shard in store.latent_shards(survey, model)
        if shard["rows"]
    ]
    return Series(*(np.concatenate(columns) for columns in zip(*parts)))


def find_series(survey: Path, ids: Sequence[str], band: str) -> Series:
    """Put some segments of a survey on the grid, in the order asked for."""
    return series_of(store.find_curves(survey, ids), band)
