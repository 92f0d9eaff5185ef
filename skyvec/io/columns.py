"""What the columns of a table mean: said by the caller, by a description beside it, or guessed.

A description is a JSON file of the table's name (``stars.json`` beside ``stars.parquet``) with any
of the keys ``time_ref`` (how times are written), ``value_kind`` (magnitude or flux, and its unit),
``bands`` (names of the band codes) and ``columns`` (role: column).
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyvec.io.segments import RefusedError
from skyvec.io.times import SCALES
from skyvec.schema import FLUX_UNIT_RELATIVE

ROLES: dict[str, tuple[str, ...]] = {
    "time": (
        *("time", "mjd", "hmjd", "hjd", "bjd", "jd", "btjd", "bkjd", "midpointmjdtai", "expmjd"),
        *("t", "date", "times", "obsmjd", "mjd_obs", "obs_mjd", "mjds", "rjd", "bmjd", "epoch"),
    ),
    "flux": (
        *("flux", "fluxes", "psfflux", "pdcsap_flux", "sap_flux", "psf_flux", "psfdiffflux"),
        *("fluxcal", "forcediffimflux", "rel_flux", "value", "values"),
    ),
    "mag": ("mag", "magnitude", "magpsf", "mag_psf", "psfmag", "mags", "vmag"),
    "err": (
        *("err", "error", "flux_err", "fluxerr", "flux_error", "magerr", "mag_err", "sigma"),
        *("e_mag", "e_flux", "mag_error", "magnitude_error", "psffluxerr", "sigmapsf", "errors"),
        *("pdcsap_flux_err", "sap_flux_err", "fluxcalerr", "value_err", "dmag", "psfdifffluxerr"),
    ),
    "band": ("band", "bands", "filter", "filt", "fid", "passband", "filtercode", "flt", "fltid"),
    "id": (
        *("object_id", "objectid", "id", "oid", "source_id", "sourceid", "objid", "diaobjectid"),
        *("name", "star_id", "star", "ticid", "tic_id", "tic", "kepid", "ps1_objid"),
    ),
    "target": ("target", "target_id", "target_name"),
    "ra": ("ra", "raj2000", "ra_deg", "ra_icrs", "radeg", "objra", "mean_ra"),
    "dec": ("dec", "dej2000", "dec_deg", "de_icrs", "decdeg", "decl", "objdec", "mean_dec"),
    "label": ("label", "class", "type", "classification", "vartype", "var_type"),
    "split": ("split",),
    "period": ("period",),
    "extra": ("extra",),
}
"""What a column can be, and the names by which it is recognised, in this order."""

ROLE_NAMES = {
    **{name: "err" for name in ("flux_err", "mag_err", "magerr", "error", "sigma")},
    **{name: "time" for name in ("mjd", "hmjd", "jd", "hjd", "bjd", "btjd", "bkjd")},
    "magnitude": "mag",
    "object_id": "id",
    "class": "label",
    "filter": "band",
}
"""Other words for a role in a mapping; ``mjd`` and the like also say how times are written."""

UNITS = {
    **{text: "electron / s" for text in ("e/s", "e-/s", "electron/s", "electrons/s")},
    **{text: "adu / s" for text in ("adu/s", "counts/s", "count/s")},
    "njy": "nJy",
    "ujy": "uJy",
    "mujy": "uJy",
    "mjy": "mJy",
    "jy": "Jy",
    "adu": "adu",
}


@dataclass(frozen=True)
class Layout:
    """Which column of a table is what.

    Args:
        time: Name of the column of times.
        value: Name of the column of magnitudes or fluxes.
        err: Name of the column of errors, empty if there is none.
        band: Name of the column of bands, empty if there is none.
        id: Name of the column that tells objects apart, empty if the file is one object.
        facts: Name of the column of each further role.
        time_ref: How times are written, in words; empty to guess.
        scale: Scale of the times where the caller named it, else empty.
        is_magnitude: The values are magnitudes.
        flux_unit: Unit of the fluxes; microjansky after magnitudes were turned into fluxes.
        bands: Names of the band codes, empty if they are not given.
    """

    time: str
    value: str
    err: str
    band: str
    id: str
    facts: dict[str, str]
    time_ref: str
    scale: str
    is_magnitude: bool
    flux_unit: str
    bands: tuple[str, ...]


def read_description(path: Path) -> dict[str, object]:
    """Read the description beside a table; nothing where there is none.

    Raises:
        RefusedError: The file beside it has no JSON object in it.
    """
    beside = description_path(path)
    if not beside.exists():
        return {}
    try:
        described = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"the description {beside.name} is not readable: {error}") from error
    if not isinstance(described, dict):
        raise RefusedError(f"the description {beside.name} holds no JSON object")
    return described


def description_path(path: Path) -> Path:
    """Where the description of a table would stand."""
    return path.with_name(path.name.removesuffix(".gz")).with_suffix(".json")


def check_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Give a mapping of roles to columns in the roles' own names.

    Raises:
        ValueError: A role is unknown; the message names the nearest.
    """
    checked = {}
    for role, column in columns.items():
        plain = ROLE_NAMES.get(role.lower(), role.lower())
        if plain not in ROLES:
            near = difflib.get_close_matches(plain, [*ROLES, *ROLE_NAMES], 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"unknown column role {role!r}{hint}; choose from {', '.join(ROLES)}")
        checked[plain] = column
    return checked


def find_layout(
    names: Sequence[str],
    description: Mapping[str, object],
    *,
    columns: Mapping[str, str] | None = None,
    time: str = "",
    values: str = "",
    bands: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
) -> Layout:
    """Find out which column of a table is what.

    Args:
        names: Of the table's columns.
        description: What stands beside the table.
        columns: Role: column, from the caller; wins over all else. A role such as ``hjd`` also
            says how times are written.
        time: How times are written, or only their scale, from the caller.
        values: ``mag`` or ``flux``, with a unit in brackets if wanted, from the caller.
        bands: Names of the band codes, from the caller.
        units: Unit of a column, where the file itself gives it.

    Raises:
        RefusedError: A column that is needed is missing.
    """
    given = check_columns(columns or {})
    described = description.get("columns")
    if isinstance(described, dict):
        given = {**check_columns({str(k): str(v) for k, v in described.items()}), **given}
    for role, column in given.items():
        if column not in names:
            raise RefusedError(
                f"no column {column!r} for the {role}; there are {', '.join(names)}"
            )
    # what was given a role has no other
    free = [name for name in names if name not in given.values()]
    found = {role: given.get(role) or _guess(role, free) for role in ROLES}
    kind = values or str(description.get("value_kind", ""))
    value, is_magnitude = _value(found, given, kind)
    unit = (units or {}).get(value, "")
    if not kind and "mag" in unit.lower():
        is_magnitude = True
    if not found["time"] or not value:
        missing = "time" if not found["time"] else "flux or magnitude"
        raise RefusedError(
            f"no column of {missing} among {', '.join(names)}; "
            f"name it (columns: {'time' if missing == 'time' else 'flux or mag'} = ...)"
        )
    if value in ("value", "values") and not kind and not unit and value not in given.values():
        raise RefusedError(f"is the column {value!r} magnitude or flux? say so (values = mag)")
    named = tuple(bands) or tuple(str(b) for b in _list(description.get("bands")))
    given_time = next((r for r in (columns or {}) if ROLE_NAMES.get(r.lower()) == "time"), "")
    scale = time.strip().lower() if time.strip().lower() in SCALES else ""
    return Layout(
        found["time"],
        value,
        found["err"],
        found["band"],
        found["id"],
        {
            role: name
            for role, name in found.items()
            if name and role not in ("time", "flux", "mag", "err", "band", "id")
        },
        ("" if scale else time) or given_time or str(description.get("time_ref", "")),
        scale,
        is_magnitude,
        "uJy" if is_magnitude else _flux_unit(kind, unit),
        named,
    )


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _guess(role: str, names: Sequence[str]) -> str:
    """The column recognised as a role, by its name or by the last part of ``group.name``."""
    plain = {name.lower().rsplit(".", 1)[-1]: name for name in reversed(names)}
    return next((plain[word] for word in ROLES[role] if word in plain), "")


def _value(found: dict[str, str], given: Mapping[str, str], kind: str) -> tuple[str, bool]:
    """Column of the values, and whether they are magnitudes."""
    if "flux" in given or "mag" in given:
        is_magnitude = "mag" in given and "flux" not in given
    elif kind:
        is_magnitude = "mag" in kind.lower()
    else:
        is_magnitude = bool(found["mag"]) and not found["flux"]
    column = found["mag"] if is_magnitude else found["flux"]
    return column or found["flux"] or found["mag"], is_magnitude


def _flux_unit(kind: str, unit: str) -> str:
    """Unit named in ``flux (nJy, difference)``, or by the file for its column."""
    for word in [unit, *re.split(r"[(),;]", kind)]:
        plain = word.lower().replace(" ", "").replace("\u00b5", "u")
        if plain in UNITS:
            return UNITS[plain]
    return unit or FLUX_UNIT_RELATIVE
