"""Light curves in tables: Parquet, CSV, ECSV and VOTable, one row an object or one row a point.

Three forms are told apart by the columns: *nested* (times are lists: one row an object), *long*
(one row a point and a column that tells objects apart) and *single* (one row a point, the file is
one object and gives it its name). Parquet and CSV stream; ECSV and VOTable are read whole.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skyvec.io.columns import Layout, check_columns, find_layout, read_description
from skyvec.io.facts import Facts, identity, text_id
from skyvec.io.formats import (
    BATCH_POINTS,
    CSV,
    DAMAGED,
    ECSV,
    PARQUET,
    VOTABLE,
    Opened,
    numbers,
    open_table,
    opened_table,
    whole,
)
from skyvec.io.segments import MAX_POINTS, RefusedError, Segment, admit
from skyvec.io.times import (
    TimeSystem,
    check_time,
    guess_time_system,
    parse_time_system,
    to_mjd_tdb,
)
from skyvec.photometry import flux_from_magnitude
from skyvec.schema import FLUX_UNIT_RELATIVE, Reject

OPTIONS = ("columns", "time", "values", "bands", "max_points")
GROUP_POINTS = 4_000_000
"""Points held at once where the rows of an object do not stand together."""

MAGNITUDES = (-30.0, 50.0)
"""[mag] From brighter than the Sun to fainter than any detector; 99.999 is a placeholder."""

LARGEST_ERROR = 9.0
"""[mag] An error of this size (9.999, 99.999) is a placeholder; the point is dropped."""


PUBLISHED = ("id", "target", "ra", "dec", "mjd", "flux", "flux_err", "band", "flux_unit")
"""The columns by which a table that `skyvec publish` wrote is known; times are MJD TDB."""

HOUSE = ("time_ref", "value_kind", "n_dropped")
"""What such a table says of each curve that skyvec says itself of others'."""


class _Block(NamedTuple):
    """Some objects: one row of facts each, and their points one after the other."""

    facts: pa.Table
    offsets: np.ndarray
    time: np.ndarray
    value: np.ndarray
    err: np.ndarray | None
    band: pa.Array | None
    problems: dict[int, str]


def matches(path: Path) -> bool:
    """Say whether a file's name is that of a table."""
    return path.name.lower().endswith(PARQUET + CSV + ECSV + VOTABLE)


def count_items(path: Path) -> int | None:
    """How many segments a file holds, where that can be told without reading it."""
    if not path.name.lower().endswith(PARQUET):
        return None
    try:
        with pq.ParquetFile(path) as file:
            types = [pa.types.is_nested(field.type) for field in file.schema_arrow]
            return int(file.metadata.num_rows) if any(types) else None
    except (pa.ArrowException, OSError):
        return 1


def check(
    *,
    columns: Mapping[str, str] | None = None,
    time: str = "",
    values: str = "",
    **others: object,
) -> None:
    """Make sure that options mean something.

    Raises:
        ValueError: ``columns`` has an unknown role, ``time`` is not understood, or ``values`` is
            neither magnitude nor flux.
    """
    check_columns(columns or {})
    check_time(time)
    if values and not re.search("mag|flux", values.lower()):
        raise ValueError(f"values must be mag or flux, optionally flux (UNIT), not {values!r}")


def read(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    time: str = "",
    values: str = "",
    bands: Sequence[str] = (),
    max_points: int = MAX_POINTS,
    table: pa.Table | None = None,
) -> Iterator[Segment | Reject]:
    """Read the segments of a table, in the order of the file.

    Magnitudes become fluxes in microjansky on the AB scale. What is not said is taken from the
    JSON description beside the table, and else guessed from names.

    Args:
        path: A table.
        columns: Role: column, for example ``{"hjd": "HJD", "mag": "V", "id": "star"}``.
        time: How times are written, for example ``JD-2450000 UTC``.
        values: ``mag`` or ``flux``, with a unit in brackets where known: ``flux (nJy)``.
        bands: Names of the codes 0, 1, ... in the column of bands.
        max_points: A curve with more usable points is refused.
        table: Read this instead of the file, whose path is then only a name.

    Yields:
        Segments, and a reject for each row (or for the rest of the file) that cannot be taken.

    Raises:
        ValueError: An option means nothing.
    """
    check(columns=columns, time=time, values=values)
    row = 0
    try:
        opened = open_table(path) if table is None else opened_table(table)
        if set(PUBLISHED) <= set(opened.schema.names) and not (columns or time or values or bands):
            yield from _published(path, opened, max_points)
            return
        layout = find_layout(
            opened.schema.names,
            read_description(path),
            columns=columns,
            time=time,
            values=values,
            bands=bands,
            units=opened.units,
        )
        system: TimeSystem | None = None
        for block in _blocks(path, opened, layout):
            system = system or _time_system(layout, block.time)
            for item in _segments(path, block, layout, system, row, max_points):
                yield item
                row += 1
        if not row:
            raise RefusedError("the table has no rows")
    except RefusedError as error:
        yield Reject(str(path), -1, "", str(error))
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        yield Reject(str(path), -1, "", f"not readable after {row} rows: {reason}")


def _published(path: Path, opened: Opened, max_points: int) -> Iterator[Segment | Reject]:
    """Read what skyvec published: the same curves, each in its own unit, with the same facts."""
    roles = ("id", "target", "ra", "dec", "err", "band")
    named = {role: {"err": "flux_err"}.get(role, role) for role in roles}
    layout = find_layout(
        PUBLISHED, {}, columns={**named, "time": "mjd", "flux": "flux"}, time="MJD TDB"
    )
    layout = replace(layout, facts={role: role for role in ("target", "ra", "dec")})
    row = 0
    for block in _blocks(path, opened, layout):
        units = [text or FLUX_UNIT_RELATIVE for text in block.facts["flux_unit"].to_pylist()]
        said = {
            name: block.facts[name].to_pylist()
            for name in HOUSE
            if name in block.facts.column_names
        }
        known = [name for name in block.facts.column_names if name not in _NO_FACTS]
        facts = Facts(block.facts.select(known), layout, {"id"})
        band, bands = _band_codes(block, layout)
        ids = block.facts["id"].to_pylist()
        for i, (start, stop) in enumerate(pairwise(block.offsets.tolist())):
            key = ""
            try:
                key = text_id(ids[i])
                if i in block.problems:
                    raise RefusedError(block.problems[i])
                words = {
                    name: "" if said[name][i] is None else str(said[name][i])
                    for name in HOUSE[:2]
                    if name in said
                }
                segment = admit(
                    id=key,
                    target=facts.target(i) or key,
                    ra=facts.ra[i],
                    dec=facts.dec[i],
                    mjd=block.time[start:stop],
                    flux=block.value[start:stop],
                    flux_err=None if block.err is None else block.err[start:stop],
                    band=band[start:stop],
                    bands=bands,
                    flux_unit=units[i],
                    columns={**facts.row(i), **words},
                    max_points=max_points,
                )
                before = said["n_dropped"][i] if "n_dropped" in said else 0
                segment.columns["n_dropped"] = stop - start - len(segment.mjd) + int(before or 0)
                yield segment
            except RefusedError as error:
                yield Reject(str(path), row + i, key, str(error))
        row += len(ids)
    if not row:
        raise RefusedError("the table has no rows")


_NO_FACTS = {"flux_unit", "source", "_healpix_29", *HOUSE}


def _time_system(layout: Layout, times: np.ndarray) -> TimeSystem:
    if layout.time_ref:
        system = parse_time_system(layout.time_ref)
    else:
        system = guess_time_system(layout.time.rsplit(".", 1)[-1], times)
    if layout.scale and system.zero is not None:
        name = f"{system.name.partition(':')[0]} {layout.scale.upper()}"
        system = replace(system, scale=layout.scale, name=name)
    return system


# --- forms ------------------------------------------------------------------------------------


def _blocks(path: Path, opened: Opened, layout: Layout) -> Iterator[_Block]:
    if _is_list(opened.schema, layout.time):
        facts = [
            n for n in opened.schema.names if not pa.types.is_nested(opened.schema.field(n).type)
        ]
        points = [n for n in (layout.time, layout.value, layout.err, layout.band) if n]
        wanted = [n for n in opened.schema.names if n in {*facts, *points}]
        return (_nested(part, layout) for part in opened.parts(wanted) if part.num_rows)
    if layout.id:
        return _long(opened, layout)
    return _single(path, opened, layout)


def _is_list(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _nested(table: pa.Table, layout: Layout) -> _Block:
    table = table.combine_chunks()
    lists = {
        role: whole(table[name])
        for role, name in _point_columns(layout).items()
        if _is_list(table.schema, name)
    }
    lengths = {
        role: pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        for role, column in lists.items()
    }
    n = lengths["time"].astype(np.int64)
    differs = np.any([length != n for length in lengths.values()], axis=0)
    problems = {
        int(row): "lists of unequal length: "
        + ", ".join(f"{lengths[role][row]} of {role}" for role in lists)
        for row in np.flatnonzero(differs)
    }
    if problems:
        keep = pa.array(~differs)
        lists = {role: column.filter(keep) for role, column in lists.items()}
        n[differs] = 0
    curve = np.repeat(np.arange(len(n)), n)
    points = {role: pc.list_flatten(column) for role, column in lists.items()}
    for role, name in _point_columns(layout).items():
        if role not in points:  # one band, or one error, for the whole curve
            points[role] = whole(table[name]).take(pa.array(curve))
    scalars = [name for name in table.column_names if not pa.types.is_nested(table[name].type)]
    return _block(table.select(scalars), np.r_[0, np.cumsum(n)], points, problems)


def _point_columns(layout: Layout) -> dict[str, str]:
    named = {
        "time": layout.time,
        "value": layout.value,
        "err": layout.err,
        "band": layout.band,
    }
    return {role: name for role, name in named.items() if name}


def _block(
    facts: pa.Table, offsets: np.ndarray, points: Mapping[str, pa.Array], problems: dict[int, str]
) -> _Block:
    return _Block(
        facts,
        offsets.astype(np.int64),
        numbers(points["time"], "time"),
        numbers(points["value"], "value"),
        numbers(points["err"], "error") if "err" in points else None,
        points.get("band"),
        problems,
    )


def _long_columns(layout: Layout) -> list[str]:
    names = [*_point_columns(layout).values(), layout.id, *layout.facts.values()]
    return list(dict.fromkeys(name for name in names if name))


def _long(opened: Opened, layout: Layout) -> Iterator[_Block]:
    ids, counts, stand_together = _survey_ids(opened, layout.id)
    if stand_together:
        yield from _consecutive(opened, layout)
        return
    # several walks through the file, each for as many objects as memory allows
    walk = np.cumsum(counts) // GROUP_POINTS
    for number in np.unique(walk):
        chosen = pa.array(np.array(ids, dtype=object)[walk == number], pa.string())
        parts = []
        for part in opened.parts(_long_columns(layout)):
            rank = pc.index_in(_as_text(part[layout.id]), value_set=chosen)
            keep = pc.is_valid(rank)
            parts.append(part.append_column("rank", rank).filter(keep))
        gathered = pa.concat_tables(parts)
        order = np.argsort(gathered["rank"].to_numpy(), kind="stable")
        yield _grouped(gathered.drop_columns(["rank"]).take(pa.array(order)), layout)


def _survey_ids(opened: Opened, name: str) -> tuple[list[str], np.ndarray, bool]:
    """Ids in the order of their first rows, rows of each, and whether its rows stand together."""
    counts: dict[str, int] = {}
    last, stand_together = None, True
    for part in opened.parts([name]):
        runs = pc.run_end_encode(whole(_as_text(part[name])), run_end_type=pa.int64())
        values, ends = runs.values.to_pylist(), runs.run_ends.to_pylist()
        for value, length in zip(values, np.diff([0, *ends]).tolist(), strict=True):
            key = value or ""
            stand_together &= key == last or key not in counts
            counts[key] = counts.get(key, 0) + length
            last = key
    return list(counts), np.array(list(counts.values()), np.int64), stand_together


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(column.cast(pa.string()), "")


def _consecutive(opened: Opened, layout: Layout) -> Iterator[_Block]:
    rest: pa.Table | None = None
    for part in opened.parts(_long_columns(layout)):
        table = part if rest is None else pa.concat_tables([rest, part])
        starts = _starts(table, layout.id)
        if len(starts) < 2 or table.num_rows < BATCH_POINTS // 2:
            rest = table
            continue
        yield _grouped(table.slice(0, int(starts[-1])), layout)
        rest = table.slice(int(starts[-1]))
    if rest is not None and rest.num_rows:
        yield _grouped(rest, layout)


def _starts(table: pa.Table, name: str) -> np.ndarray:
    """First row of each run of equal ids."""
    text = whole(_as_text(table[name])).dictionary_encode().indices.to_numpy()
    return np.flatnonzero(np.r_[True, text[1:] != text[:-1]]) if len(text) else np.zeros(0, int)


def _grouped(table: pa.Table, layout: Layout) -> _Block:
    table = table.combine_chunks()
    starts = _starts(table, layout.id)
    facts = table.select([layout.id, *dict.fromkeys(layout.facts.values())]).take(pa.array(starts))
    points = {role: whole(table[name]) for role, name in _point_columns(layout).items()}
    return _block(facts, np.r_[starts, table.num_rows], points, {})


def _single(path: Path, opened: Opened, layout: Layout) -> Iterator[_Block]:
    parts = list(opened.parts(_long_columns(layout)))
    if not sum(part.num_rows for part in parts):
        return
    table = pa.concat_tables(parts).combine_chunks()
    points = {role: whole(table[name]) for role, name in _point_columns(layout).items()}
    facts = table.select(list(dict.fromkeys(layout.facts.values()))).slice(0, 1)
    stem = re.sub(r"(\.[A-Za-z]+){1,2}$", "", path.name)
    facts = facts.append_column(_STEM, pa.array([stem]))
    yield _block(facts, np.array([0, table.num_rows]), points, {})


_STEM = "file stem"


# --- segments ---------------------------------------------------------------------------------


def _segments(
    path: Path,
    block: _Block,
    layout: Layout,
    system: TimeSystem,
    first_row: int,
    max_points: int,
) -> Iterator[Segment | Reject]:
    mjd = to_mjd_tdb(block.time, block.offsets, system)
    flux, flux_err = _fluxes(block, layout)
    band, bands = _band_codes(block, layout)
    flux = np.where(band < 0, np.nan, flux)  # a point of no band is no use
    band = np.maximum(band, 0)
    id_column = layout.id or _STEM
    facts = Facts(block.facts, layout, {id_column})
    ids = block.facts[id_column].to_pylist() if id_column in block.facts.column_names else None
    fixed = {"time_ref": system.name, "value_kind": _kind(layout)}
    for i, (start, stop) in enumerate(pairwise(block.offsets.tolist())):
        key = ""
        try:
            key = f"{path.stem}/{first_row + i}" if ids is None else text_id(ids[i])
            if i in block.problems:
                raise RefusedError(block.problems[i])
            known = facts.row(i)
            key, target, known = identity(key, facts.target(i), known)
            yield admit(
                id=key,
                target=target,
                ra=facts.ra[i],
                dec=facts.dec[i],
                mjd=mjd[start:stop],
                flux=flux[start:stop],
                flux_err=None if flux_err is None else flux_err[start:stop],
                band=band[start:stop],
                bands=bands,
                flux_unit=layout.flux_unit,
                columns={**known, **fixed},
                max_points=max_points,
            )
        except RefusedError as error:
            yield Reject(str(path), first_row + i, key, str(error))


def _kind(layout: Layout) -> str:
    if layout.is_magnitude:
        return "magnitude, turned into flux in uJy on the AB scale"
    return f"flux ({layout.flux_unit})"


def _fluxes(block: _Block, layout: Layout) -> tuple[np.ndarray, np.ndarray | None]:
    if not layout.is_magnitude:
        return block.value, block.err
    is_magnitude = (block.value > MAGNITUDES[0]) & (block.value < MAGNITUDES[1])
    if block.err is not None:
        is_magnitude &= ~(block.err >= LARGEST_ERROR)
    magnitude = np.where(is_magnitude, block.value, np.nan)
    flux, flux_err = flux_from_magnitude(magnitude, block.err)
    return flux, flux_err if block.err is not None else None


def _band_codes(block: _Block, layout: Layout) -> tuple[np.ndarray, tuple[str, ...]]:
    """Code of each point, -1 where it has no band, and what the codes mean."""
    n = len(block.time)
    if block.band is None:
        if len(layout.bands) > 1:
            raise RefusedError(
                f"bands {', '.join(layout.bands)} are named, but no column of bands"
            )
        return np.zeros(n, np.int32), layout.bands or ("unknown",)
    band = block.band
    if layout.bands and (pa.types.is_integer(band.type) or pa.types.is_floating(band.type)):
        codes = np.nan_to_num(numbers(band, "band"), nan=-1.0)
        return np.clip(codes, -1, 32_767).astype(np.int32), layout.bands
    if pa.types.is_floating(band.type):
        band = pc.cast(band, pa.int64(), safe=False)
    encoded = pc.utf8_trim_whitespace(band.cast(pa.string())).dictionary_encode()
    seen = encoded.dictionary.to_pylist()
    names = tuple(layout.bands) if set(seen) <= set(layout.bands) else tuple(sorted(seen))
    meaning = np.array([names.index(name) for name in seen] or [0], np.int32)
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return np.where(codes < 0, -1, meaning[codes]).astype(np.int32), names
