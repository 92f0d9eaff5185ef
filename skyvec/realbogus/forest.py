"""The classical peer: a random forest on the 38 numbers of DES autoScan."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer

from skyvec.prep import autoscan
from skyvec.schema import Catalog, Floats, Ints, Stamps

FROM_CATALOGUE = {
    "mag": "magnitude",
    "snr": "snr",
    "nn_dist_renorm": "star_distance",
    "limmag": "limit",
}
"""Features that a survey's catalogue knows, and the columns they are in."""


def features(stamps: Stamps, catalog: Catalog | None = None) -> NDArray[np.float64]:
    """Measure the 38 features, shape (n, 38), with what the catalogue of the same ids knows."""
    names, row_of = np.unique(stamps.detector, return_inverse=True)
    numbers = np.array([_number(name) for name in names.tolist()], np.float64)
    known: dict[str, np.ndarray] = {"ccdid": numbers[row_of]}
    if catalog is not None:
        row = {key: i for i, key in enumerate(catalog.id.tolist())}
        rows = np.array([row[key] for key in stamps.id.tolist()], np.int64)
        for name, column in FROM_CATALOGUE.items():
            if column in catalog.columns:
                known[name] = catalog.columns[column][rows].astype(np.float64)
    return autoscan.features(stamps.pixels, known)


def _number(detector: str) -> float:
    """The digits of a detector's name; NaN of none. A place in a list would change with it."""
    digits = "".join(c for c in detector if c in "0123456789")
    return float(digits) if digits else float("nan")


@dataclass(frozen=True)
class Forest:
    """A fitted forest: medians for what is missing, then trees.

    Args:
        impute: Fitted to the training features.
        trees: Fitted to the imputed ones.
    """

    impute: Any
    trees: Any

    @classmethod
    def fit(
        cls, table: Floats, label: Ints, *, seed: int, trees: int = 300, leaf: int = 1
    ) -> "Forest":
        """Fit to features (n, 38) and labels 1 or 0, (n,).

        Entropy, the square root of the features a split, as Deep-HiTS's forest has; the number of
        trees is an argument because autoScan's own are not known.
        """
        impute = SimpleImputer(strategy="median", keep_empty_features=True).fit(_finite(table))
        model = RandomForestClassifier(
            trees,
            criterion="entropy",
            max_features="sqrt",
            min_samples_leaf=leaf,
            class_weight="balanced",
            random_state=seed,
        )
        return cls(impute, model.fit(impute.transform(_finite(table)), label))

    def score(self, table: Floats) -> NDArray[np.float64]:
        """Share of the trees for a real, (n,); as a score it orders, it is no log-odds."""
        return self.trees.predict_proba(self.impute.transform(_finite(table)))[:, 1]


def _finite(table: Floats) -> Floats:
    return np.where(np.abs(table) < 1e30, table, np.nan)
