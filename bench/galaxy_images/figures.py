"""Figures with their spread, and as they are printed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def interval(measure: Callable[[NDArray], float], n: int, draws: int = 1000) -> list[float]:
    """A measure of n objects (by their rows), and its central 95 % when they are drawn again."""
    rng = np.random.default_rng(0)
    spread = [measure(rng.integers(n, size=n)) for _ in range(draws)]
    low, high = np.nanquantile(spread, [0.025, 0.975])
    return [measure(np.arange(n)), float(low), float(high)]


def balanced(truth: NDArray, guess: NDArray) -> float:
    """Mean recall over the classes that there are."""
    return float(np.mean([(guess[truth == c] == c).mean() for c in np.unique(truth)]))


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
