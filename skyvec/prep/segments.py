"""Several segments of one target made one light curve."""

import numpy as np

from skyvec.schema import FLUX_UNIT_RELATIVE, Catalog, LightCurves


def join_segments(catalog: Catalog, curves: LightCurves) -> tuple[Catalog, LightCurves]:
    """Join the segments of each target in time, each divided by its own median in each band.

    flux = flux / median(flux of the segment's band): sectors and quarters are calibrated apart,
    and the median is what they have in common.

    Args:
        catalog: One row a segment, n of them.
        curves: The same segments in the same order.

    Returns:
        One row a target, in the order of their first segments, with the id of the target. Facts
        that all segments of each target share are kept, ``n_segments`` is added. The flux is
        relative.

    Raises:
        ValueError: The rows differ, or a median is not positive (a difference flux has none).
    """
    if not np.array_equal(catalog.id, curves.id):
        raise ValueError("catalog and curves must hold the same segments in the same order")
    median = _median_of_points(curves)
    targets, first, group = np.unique(catalog.target, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[group]  # targets in the order they are met
    group_of_point = np.repeat(rank, curves.lengths)
    order = np.lexsort((curves.mjd, group_of_point))
    offsets = np.zeros(len(targets) + 1, np.int64)
    np.cumsum(np.bincount(group_of_point, minlength=len(targets)), out=offsets[1:])
    rows = np.sort(first)
    joined = LightCurves(
        catalog.target[rows],
        offsets,
        curves.mjd[order],
        (curves.flux / median).astype(np.float32)[order],
        (curves.flux_err / median).astype(np.float32)[order],
        curves.band[order],
        curves.bands,
        FLUX_UNIT_RELATIVE,
    )
    shared = {
        name: column[rows]
        for name, column in catalog.columns.items()
        if _is_shared(column, column[rows][rank])
    }
    shared["n_segments"] = np.bincount(rank, minlength=len(targets))
    target = catalog.target[rows]
    return Catalog(target, target, catalog.ra[rows], catalog.dec[rows], shared), joined


def _is_shared(column: np.ndarray, of_first: np.ndarray) -> bool:
    return bool(np.array_equal(column, of_first, equal_nan=column.dtype.kind == "f"))


def _median_of_points(curves: LightCurves) -> np.ndarray:
    """Median flux of the segment and band each point belongs to, float64, (N,)."""
    n_bands = max(1, len(curves.bands))
    curve = np.repeat(np.arange(len(curves)), curves.lengths)
    key = curve * n_bands + curves.band
    order = np.lexsort((curves.flux, key))
    starts = np.flatnonzero(np.r_[True, np.diff(key[order]) != 0]) if len(key) else key
    counts = np.diff(np.r_[starts, len(key)])
    ordered = curves.flux[order].astype(np.float64)
    middle = (ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]) / 2
    if (middle <= 0).any():
        worst = curve[order][starts[middle <= 0][0]]
        raise ValueError(
            f"segment {str(curves.id[worst])!r} has a median flux that is not positive; segments "
            "of difference fluxes cannot be joined by their medians"
        )
    of_point = np.empty(len(key))
    of_point[order] = np.repeat(middle, counts)
    return of_point
