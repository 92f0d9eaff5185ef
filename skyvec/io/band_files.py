"""Files of one object, one a band: ``J1000+0200-g.fits`` beside ``J1000+0200-r.fits``."""

import re
from functools import lru_cache
from pathlib import Path

BANDS = ("u", "U", "g", "B", "V", "r", "R", "i", "I", "z", "y", "Y", "J", "H", "K", "Ks")
"""Bands that the end of a file's name may say, blue first."""

_NAME = re.compile(
    rf"(?P<object>.+[-_.])(?P<band>{'|'.join(BANDS)})(?P<ending>\.fits?(\.gz|\.fz)?)$"
)


def one_a_band(path: Path) -> tuple[str, dict[str, Path]]:
    """Give the files of an object that differ in the band at the end of their names only.

    Args:
        path: One of them.

    Returns:
        What their names have in common, and the files by band, blue first; the file alone under
        no band (``""``) where it names none or has no other beside it.
    """
    named = _NAME.match(path.name)
    if named is None:
        return "", {"": path}
    folder = path.parent
    found = _listed(folder, folder.stat().st_mtime_ns).get((named["object"], named["ending"]), ())
    if len(found) < 2 or named["band"] not in found:
        return "", {"": path}
    name, ending = named["object"], named["ending"]
    # without the mark between name and band
    return name[:-1], {band: folder / f"{name}{band}{ending}" for band in BANDS if band in found}


@lru_cache(maxsize=4)
def _listed(folder: Path, _changed: int) -> dict[tuple[str, str], frozenset[str]]:
    """Bands by object and ending, of all files of a folder (as it is at this change)."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in folder.iterdir():
        named = _NAME.match(path.name)
        if named is not None:
            found.setdefault((named["object"], named["ending"]), set()).add(named["band"])
    return {key: frozenset(bands) for key, bands in found.items()}
