"""Short vectors for everything a sky survey measures: search, oddities, groups, maps.

The names below are the plain types and the questions; a stage lies in the room of its name
(``from skyvec.train import train``). A name is imported when it is first used, so that
``import skyvec`` costs nothing and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skyvec.analysis.clusters import cluster as cluster
    from skyvec.analysis.maps import tsne_map as tsne_map
    from skyvec.analysis.neighbours import search as search
    from skyvec.analysis.outliers import outliers as outliers
    from skyvec.analysis.probes import probe as probe
    from skyvec.schema import Catalog as Catalog
    from skyvec.schema import Latents as Latents
    from skyvec.schema import LightCurves as LightCurves
    from skyvec.sim.lightcurves import simulate_sky as simulate_sky
    from skyvec.store import find_curves as find_curves
    from skyvec.store import read_catalog as read_catalog
    from skyvec.store import read_latents as read_latents

__version__ = "0.1.0"

HOMES = {
    "Catalog": "skyvec.schema",
    "Latents": "skyvec.schema",
    "LightCurves": "skyvec.schema",
    "cluster": "skyvec.analysis.clusters",
    "find_curves": "skyvec.store",
    "outliers": "skyvec.analysis.outliers",
    "probe": "skyvec.analysis.probes",
    "read_catalog": "skyvec.store",
    "read_latents": "skyvec.store",
    "search": "skyvec.analysis.neighbours",
    "simulate_sky": "skyvec.sim.lightcurves",
    "tsne_map": "skyvec.analysis.maps",
}
"""Where each public name lives."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"skyvec has no {name!r}; it has {', '.join(sorted(HOMES))}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*HOMES, "__version__"])
