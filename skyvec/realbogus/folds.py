"""Splits that share neither an object nor an exposure.

Detections of one host, star or injection site look alike, and so do those of one exposure: the
same seeing, the same subtraction, the same noise. A split at random puts such twins on both sides
and reports what was learnt by heart.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skyvec.batches import hash_uniform
from skyvec.schema import Strings

Rows = NDArray[np.int64]


class SplitError(ValueError):
    """The samples cannot be divided as asked for."""


def clumps(object_: Strings, exposure: Strings) -> Rows:
    """Number the sets of samples that are linked by a common object or exposure, shape (n,)."""
    _, o = np.unique(object_, return_inverse=True)
    _, e = np.unique(exposure, return_inverse=True)
    first = int(o.max(initial=-1)) + 1
    size = first + int(e.max(initial=-1)) + 1
    links = coo_array((np.ones(len(o), np.int8), (o, first + e)), shape=(size, size))
    return connected_components(links, directed=False)[1][o].astype(np.int64)


def divide(
    object_: Strings, exposure: Strings, fractions: Sequence[float], *, seed: int = 0
) -> Rows:
    """Give every sample a part, whole clumps at a time where they are small enough.

    Where nearly everything hangs together (the same hot pixel in every field), the objects of the
    most exposures are ignored until the clumps are small, and :func:`apart` then leaves out what
    would share an object. At the worst whole exposures are given out.

    Args:
        object_: Shape (n,).
        exposure: Shape (n,).
        fractions: Of the samples, one a part, of sum 1.
        seed: Another seed gives another division.

    Returns:
        Part of each sample, 0 to len(fractions) - 1, shape (n,); the largest sets are placed
        first, each where the largest share is missing.

    Raises:
        SplitError: There are fewer exposures than parts.
    """
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) <= 0:
        raise SplitError(f"fractions={list(fractions)} must be > 0 and sum to 1")
    unit = _units(object_, exposure, min(fractions) * len(exposure) / 2)
    sizes = np.bincount(unit)
    if len(sizes) < len(fractions):
        raise SplitError(
            f"{len(sizes)} exposures cannot be divided into {len(fractions)} parts that share "
            "none; take stamps of more exposures"
        )
    first = np.unique(unit, return_index=True)[1]
    keys = hash_uniform(exposure[first].tolist(), seed=seed, purpose="realbogus folds")
    missing = np.array(fractions) * len(unit)
    place = np.empty(len(sizes), np.int64)
    for i in np.lexsort((keys, -sizes)):
        # as a share of the part: a small one would otherwise be given the last units alone, the
        # smallest, which are not like the others
        place[i] = np.argmax(missing / fractions)
        missing[place[i]] -= sizes[i]
    return place[unit]


def _units(object_: Strings, exposure: Strings, most: float) -> Rows:
    """Clumps of at most so many samples, or single exposures, shape (n,)."""
    _, o = np.unique(object_, return_inverse=True)
    names, e = np.unique(exposure, return_inverse=True)
    pairs = np.unique(o.astype(np.int64) * len(names) + e)
    degree = np.bincount(pairs // len(names))[o]  # exposures of each sample's object
    own = np.char.add("\0", exposure)
    levels = np.unique(degree)
    found = e.astype(np.int64)
    low, high = 0, len(levels)
    while low < high:  # the more objects link, the larger the clumps
        middle = (low + high) // 2
        linked = clumps(np.where(degree <= levels[middle], object_, own), exposure)
        if np.bincount(linked).max(initial=0) <= most:
            found, low = linked, middle + 1
        else:
            high = middle
    return found


def apart(object_: Strings, exposure: Strings, held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which samples share neither an object nor an exposure with those held out.

    Args:
        object_: Shape (n,).
        exposure: Shape (n,).
        held: True for the samples held out, shape (n,).

    Raises:
        SplitError: No sample is left.
    """
    free = ~held & ~np.isin(object_, object_[held]) & ~np.isin(exposure, exposure[held])
    if not free.any():
        raise SplitError(
            "every sample shares an object or an exposure with those held out; give stamps of "
            "other fields, or finer names of the objects"
        )
    return free
