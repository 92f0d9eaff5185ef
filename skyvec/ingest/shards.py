"""Shards gathered item by item; what has no place in the survey becomes a reject."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyvec import store
from skyvec.ingest.reading import Item
from skyvec.ingest.tables import Object, to_tables
from skyvec.io.cutouts import Cutout
from skyvec.io.segments import Segment
from skyvec.io.stamps import Triplet
from skyvec.schema import FLUX_UNIT_RELATIVE, Reject


class Shard:
    """Gathers items until they fill a shard, and writes it."""

    def __init__(
        self,
        survey: Path,
        points: int,
        pixels: int,
        rows: int,
        finished: Mapping[str, int],
        state: Callable[[str], str],
    ) -> None:
        self._survey, self._most_rows, self._state = survey, rows, state
        self._most = {Segment: points, Cutout: pixels, Triplet: pixels}
        self._ids, self._kinds = _stored_names(survey)
        self._promise = _stored_promise(survey)
        self._next_row = dict(finished)
        self._empty()
        self.new_segments = self.new_rejects = 0

    def _empty(self) -> None:
        self._objects: list[Object] = []
        self._sources: list[str] = []
        self._rejects: list[Reject] = []
        self._share = 0.0

    def add(self, source: str, item: Item) -> None:
        """Take an item in, and write the shard if it is full then."""
        row = self._next_row.get(source, 0)
        self._next_row[source] = row + 1
        if not isinstance(item, Reject):
            reason = self._misfit(item)
            item = Reject(source, row, item.id, reason) if reason else item
        if isinstance(item, Reject):
            self._rejects.append(replace(item, state=self._state(source)))
        else:
            if self._objects and not _go_together(self._objects[0], item):
                self.flush()
            self._promise = self._promise or _promise(item)
            self._ids.add(item.id)
            self._objects.append(item)
            self._sources.append(source)
            self._share += _weight(item) / self._most[type(item)]
        is_long = len(self._objects) + len(self._rejects) >= self._most_rows
        if is_long or self._share >= 1:
            self.flush()

    def _misfit(self, item: Object) -> str:
        """Why an object has no place in this survey; empty if it has. The same words for all."""
        if item.id in self._ids:
            return (
                "duplicate: the id is in the survey already; if it is another object, ingest its "
                "catalogue with a prefix"
            )
        if self._promise and _promise(item) != self._promise:
            return (
                f"another form: {_in_words(_promise(item))}, but the survey holds "
                f"{_in_words(self._promise)}; ingest it into another survey"
                + (", or all with --size N" if self._promise[0] == "stamps" else "")
            )
        return ""

    def flush(self) -> None:
        """Write what is gathered, if anything.

        Raises:
            OSError: The disk is full or not writable.
        """
        if not self._objects and not self._rejects:
            return
        catalog, objects = to_tables(self._objects, self._kinds)
        try:
            store.append_objects(
                self._survey,
                catalog,
                objects,
                np.array(self._sources, dtype=object),
                self._rejects,
            )
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write ({error.strerror or error}); what is finished is kept, make room "
                "and run the same command again",
                str(self._survey),
            ) from error
        self.new_segments += len(self._objects)
        self.new_rejects += len(self._rejects)
        self._empty()


def _stored_names(survey: Path) -> tuple[set[str], dict[str, str]]:
    """Ids in the survey, and the kind (text or number) of each column."""
    ids: set[str] = set()
    for stored in stored_columns(survey, ["id"]):
        ids.update(stored["id"].to_pylist())
    return ids, store.column_kinds(survey)


def stored_columns(survey: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """Read some columns of the objects shard by shard, those of them that a shard has."""
    for shard in store.object_shards(survey):
        path = store.objects_folder(survey) / shard["file"]
        there = pq.read_schema(path).names
        yield pq.read_table(path, columns=[name for name in names if name in there])


def _weight(item: Object) -> int:
    return len(item.mjd) if isinstance(item, Segment) else item.pixels.size


def _go_together(one: Object, other: Object) -> bool:
    """Whether two objects can stand in one shard."""
    if isinstance(one, Cutout) and isinstance(other, Cutout):
        same_errors = (one.flux_err is None) == (other.flux_err is None)
        return same_errors and one.flux_unit == other.flux_unit
    if isinstance(one, Triplet) or isinstance(other, Triplet):
        return True  # stamps are in counts of their sensor, each in its own
    return one.flux_unit == other.flux_unit


Promise = tuple[str, tuple[int, ...], tuple[str, ...], float, str]
"""Kind, shape, bands and pixel scale [arcsec] (0 = unknown) of the objects of a survey."""


def _promise(item: Object) -> Promise:
    """What must be the same for all objects of a survey."""
    if isinstance(item, Segment):
        return "lightcurves", (), (), 0.0, ""
    if isinstance(item, Triplet):
        return "stamps", item.pixels.shape, (), 0.0, ""
    scale = item.pixel_scale if item.pixel_scale > 0 else 0.0
    # the scaling of pixels is one for the survey: counts among nanomaggies would be nonsense
    return "images", item.pixels.shape, item.bands, scale, item.flux_unit


def _stored_promise(survey: Path) -> Promise | None:
    manifest = store.read_manifest(store.objects_folder(survey))
    if not any(shard["rows"] for shard in manifest["shards"]):
        return None
    kind = store.survey_kind(survey)
    if kind == "lightcurves":
        return kind, (), (), 0.0, ""
    shape, bands = store.survey_shape(survey), tuple(manifest["bands"])
    if kind == "stamps":
        return kind, shape, (), 0.0, ""
    unit = next(shard["flux_unit"] for shard in manifest["shards"] if shard["rows"])
    return kind, shape, bands, manifest.get("pixel_scale") or 0.0, unit


def misfit(survey: Path, other: Path) -> str:
    """Say in what the images of another survey differ from those of this one; empty if in nothing.

    What one of both does not say (names of bands, pixel scale, unit) is no difference.
    """
    here, there = _stored_promise(survey), _stored_promise(other)
    if here is None or there is None or here[0] != "images":
        return ""
    shapes = here[1] != there[1]
    bands = _are_named(here[2]) and _are_named(there[2]) and here[2] != there[2]
    scales = here[3] and there[3] and here[3] != there[3]
    units = FLUX_UNIT_RELATIVE not in (here[4], there[4]) and here[4] != there[4]
    if not (shapes or bands or scales or units):
        return ""
    return f"{_in_words(there)}, but the survey holds {_in_words(here)}"


def _are_named(bands: tuple[str, ...]) -> bool:
    return bands != tuple(f"band{i}" for i in range(len(bands))) and bands != ("unknown",)


def _in_words(promise: Promise) -> str:
    kind, shape, bands, scale, unit = promise
    if kind == "lightcurves":
        return "light curves"
    if kind == "stamps":
        return f"stamps of {shape[2]} x {shape[1]} pixels"
    pixels = f" of {' x '.join(map(str, shape))} in {', '.join(bands)}"
    return kind + pixels + f" [{unit}]" + (f" at {scale:g} arcsec a pixel" if scale else "")
