"""What a table says of an object apart from its light: its key, its target, and further facts."""

import json
import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from skyvec.io.columns import Layout
from skyvec.io.formats import numbers, whole
from skyvec.io.segments import RefusedError, Value

RESERVED = (
    *("id", "target", "ra", "dec", "source", "mjd", "flux", "flux_err", "band"),
    *("n_dropped", "time_ref", "value_kind"),
)
SEGMENT_KEYS = {"sector": "s{:04d}", "quarter": "q{:02d}", "campaign": "c{:02d}"}
CATALOGUES = {"tic": "TIC", "kic": "KIC", "epic": "EPIC"}
EXACT = 2**53
"""Integers beyond lose digits in a float and are kept as text."""


def text_id(value: object) -> str:
    """An id as text, without ever losing a digit."""
    if isinstance(value, float):
        if not (value.is_integer() and abs(value) < EXACT):
            raise RefusedError(f"the id {value} is a float that may have lost digits")
        value = int(value)
    text = "" if value is None else str(value).strip()
    if not text:
        raise RefusedError("the id is empty")
    return text


def identity(key: str, target: str, facts: dict[str, Value]) -> tuple[str, str, dict[str, Value]]:
    """Key, target and facts of a row; one of several segments of its object is named as such.

    ``BSDL1674_s03`` with a sector 3 among its facts becomes ``BSDL1674/s0003`` of ``BSDL1674``.
    """
    for name, form in SEGMENT_KEYS.items():
        number = facts.get(name)
        if not isinstance(number, int | float) or not float(number).is_integer():
            continue
        ending = re.search(rf"[_\-./ ]{form[0]}?0*{int(number)}$", key, re.IGNORECASE)
        if ending:
            target = target or _known_name(facts) or key[: ending.start()]
            return f"{target}/{form.format(int(number))}", target, {**facts, "object_id": key}
    return key, target or key, facts


def _known_name(facts: Mapping[str, Value]) -> str:
    for name, catalogue in CATALOGUES.items():
        if facts.get(name):
            return f"{catalogue} {facts[name]}"
    given = facts.get("name", "")
    return given if isinstance(given, str) else ""


class Facts:
    """The rows of facts of a block, ready to be asked one by one."""

    def __init__(self, table: pa.Table, layout: Layout, used: set[str]) -> None:
        roles = {name: role for role, name in layout.facts.items()}
        nan = np.full(table.num_rows, np.nan)
        self.ra, self.dec = (
            numbers(whole(table[layout.facts[role]]), role).tolist()
            if role in layout.facts
            else nan
            for role in ("ra", "dec")
        )
        targets = layout.facts.get("target")
        self._target = table[targets].to_pylist() if targets else []
        skip = used | {layout.facts.get(role, "") for role in ("ra", "dec", "target", "extra")}
        self._columns: dict[str, list[Value]] = {}
        for name in table.column_names:
            if name not in skip and name != "n":
                self._columns[_free_name(roles.get(name, name))] = _values(table[name])
        extra = layout.facts.get("extra")
        self._extra = table[extra].cast(pa.string()).to_pylist() if extra else []

    def target(self, i: int) -> str:
        """Target named in row i, empty if there is none."""
        named = self._target[i] if self._target else None
        return "" if named is None else text_id(named)

    def row(self, i: int) -> dict[str, Value]:
        """All further facts of row i."""
        known = {name: column[i] for name, column in self._columns.items()}
        return {**known, **_extra(self._extra[i], known)} if self._extra else known


def _free_name(name: str) -> str:
    return f"{name}_given" if name in RESERVED else name


def _values(column: pa.ChunkedArray) -> list[Value]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        values = column.to_pylist()
        if any(isinstance(v, int) and abs(v) > EXACT for v in values):
            return ["" if v is None else str(v) for v in values]
        return [
            float("nan") if v is None else int(v) if v is True or v is False else v for v in values
        ]
    return ["" if v is None else str(v) for v in column.to_pylist()]


def _extra(text: str | None, known: Mapping[str, Value]) -> dict[str, Value]:
    """The plain items of a JSON object, each a column of its own, and the whole as text."""
    try:
        items = json.loads(text or "{}")
    except ValueError as error:
        raise RefusedError(f"extra is no JSON: {error}") from error
    if not isinstance(items, dict):
        raise RefusedError(f"extra is no JSON object: {text}")
    plain: dict[str, Value] = {"extra": text or "{}"}
    for name, value in items.items():
        free = f"extra_{name}" if name in known or name == "extra" else _free_name(name)
        if isinstance(value, bool):
            plain[free] = int(value)
        elif isinstance(value, str | float) or (isinstance(value, int) and abs(value) <= EXACT):
            plain[free] = value
        elif isinstance(value, int):
            plain[free] = str(value)
    return plain
