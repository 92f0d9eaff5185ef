"""Which objects may answer: conditions on catalogue columns and places on the sky.

Every filter gives a boolean mask over the catalogue; a search then looks among those alone. An
unknown number (NaN) fulfils no comparison but ``!=``.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyvec import sky
from skyvec.schema import Catalog

Mask = NDArray[np.bool_]

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def where(catalog: Catalog, condition: str) -> Mask:
    """Evaluate a condition on the catalogue's columns.

    Comparisons, ``and``, ``or``, ``not``, ``in (...)``, + - * / and parentheses of column names,
    numbers and quoted strings; nothing else is understood, so a condition from anywhere is safe.
    For example ``tmag < 12 and sector in (1, 2) and label != 'EW'`` or ``10 < ra < 20``.

    Args:
        catalog: One row a segment.
        condition: As above.

    Raises:
        ValueError: The condition does not parse, names an unknown column or does what it may not.
    """
    return fulfils(_columns(catalog), len(catalog), condition)


def fulfils(columns: Mapping[str, np.ndarray], n: int, condition: str) -> Mask:
    """Evaluate a condition, as in `where`, on n rows of columns.

    Raises:
        ValueError: The condition does not parse, names an unknown column or does what it may not.
    """
    mask = np.asarray(_value(_parse(condition), columns, condition))
    if mask.dtype != bool or mask.shape not in ((), (n,)):
        raise ValueError(f"{condition!r} is no condition; compare a column with something")
    return np.broadcast_to(mask, (n,)).copy()


def columns_in(condition: str) -> list[str]:
    """Names of the columns a condition speaks of, in alphabetical order.

    Raises:
        ValueError: The condition does not parse.
    """
    nodes = ast.walk(_parse(condition))
    return sorted({node.id for node in nodes if isinstance(node, ast.Name)})


def _parse(condition: str) -> ast.expr:
    try:
        return ast.parse(condition.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"cannot read the condition {condition!r}: {error.msg}") from error


def _columns(catalog: Catalog) -> dict[str, np.ndarray]:
    own = {"id": catalog.id, "target": catalog.target, "ra": catalog.ra, "dec": catalog.dec}
    return own | catalog.columns


def _value(node: ast.expr, columns: Mapping[str, np.ndarray], condition: str) -> Any:
    def inner(child: ast.expr) -> Any:
        return _value(child, columns, condition)

    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return node.value
        case ast.Name(id=name):
            if name not in columns:
                known = ", ".join(sorted(columns))
                raise ValueError(f"no column {name!r} in {condition!r}; there are: {known}")
            return columns[name]
        case ast.BoolOp(op=op, values=values):
            combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
            result = inner(values[0])
            for value in values[1:]:
                result = combine(result, inner(value))
            return result
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return np.logical_not(inner(operand))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -inner(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](inner(left), inner(right))
        case ast.Compare(left=left, ops=ops, comparators=rights):
            return _chain(inner(left), ops, rights, inner, condition)
    raise ValueError(
        f"{ast.unparse(node)!r} in {condition!r} is not understood; "
        "use comparisons, and, or, not, in, + - * / and parentheses"
    )


def _chain(
    left: Any,
    ops: list[ast.cmpop],
    rights: list[ast.expr],
    inner: Callable[[ast.expr], Any],
    condition: str,
) -> Any:
    result: Any = True
    for op, node in zip(ops, rights, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(node, ast.Tuple | ast.List):
                raise ValueError(f"'in' wants a list such as (1, 2) in {condition!r}")
            right: Any = [inner(item) for item in node.elts]
            found = np.isin(left, right)
            step = ~found if isinstance(op, ast.NotIn) else found
        else:
            right = inner(node)
            _same_kind(left, right, condition)
            step = _COMPARE[type(op)](left, right)
        result = np.logical_and(result, step)
        left = right
    return result


def _same_kind(left: Any, right: Any, condition: str) -> None:
    kinds = {np.asarray(side).dtype.kind == "U" for side in (left, right)}
    if len(kinds) > 1:
        raise ValueError(f"{condition!r} compares text with a number; put text in quotes")


def cone(catalog: Catalog, ra: float, dec: float, radius: float) -> Mask:
    """Within ``radius`` of a place, border included; all in degrees, ICRS.

    Raises:
        ValueError: A radius that is not > 0, or a place that is none.
    """
    check_cone(ra, dec, radius)
    centre = np.full(len(catalog), float(ra)), np.full(len(catalog), float(dec))
    return sky.separation(catalog.ra, catalog.dec, *centre) <= radius


def check_cone(ra: float, dec: float, radius: float) -> None:
    """Refuse what is no cone; all in degrees.

    Raises:
        ValueError: A radius that is not > 0, or a place that is none.
    """
    if not radius > 0:
        raise ValueError(f"the radius of a cone must be > 0 degrees, not {radius}")
    if not (np.isfinite(ra) and abs(dec) <= 90):
        raise ValueError(f"ra {ra}, dec {dec} is no place on the sky (degrees)")


def polygon(catalog: Catalog, corners: NDArray[np.float64]) -> Mask:
    """Within a convex polygon whose sides are great circles.

    Args:
        catalog: One row a segment.
        corners: ra, dec [deg, ICRS] of the corners in order, shape (m >= 3, 2).

    Raises:
        ValueError: Fewer than three corners, or a polygon that is not convex.
    """
    corners = np.asarray(corners, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(f"a polygon needs at least three corners (ra, dec), not {corners.shape}")
    xyz = _unit(corners[:, 0], corners[:, 1])
    normals = np.cross(xyz, np.roll(xyz, -1, axis=0))
    sides = np.sign((normals @ xyz.T)[~_on_side(len(xyz))])
    if not (np.all(sides >= 0) or np.all(sides <= 0)):
        raise ValueError("the polygon is not convex; split it into convex ones")
    orientation = 1 if np.all(sides >= 0) else -1
    known = np.isfinite(catalog.ra) & np.isfinite(catalog.dec)
    place = _unit(np.where(known, catalog.ra, 0), np.where(known, catalog.dec, 0))
    return known & (orientation * (place @ normals.T) >= 0).all(axis=1)


def _on_side(m: int) -> NDArray[np.bool_]:
    """Which corners are the ends of which side, (m, m)."""
    k = np.arange(m)
    ends = np.zeros((m, m), bool)
    ends[k, k] = ends[k, (k + 1) % m] = True
    return ends


def _unit(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)


def moc(catalog: Catalog, file: Path) -> Mask:
    """Within a multi-order coverage map (IVOA MOC 2.0) read from a FITS or JSON file.

    Raises:
        ModuleNotFoundError: mocpy is not installed.
    """
    from astropy import units as u

    coverage = read_moc(file)
    known = np.isfinite(catalog.ra) & np.isfinite(catalog.dec)
    inside = np.zeros(len(catalog), bool)
    inside[known] = coverage.contains_lonlat(catalog.ra[known] * u.deg, catalog.dec[known] * u.deg)
    return inside


def read_moc(file: Path) -> Any:
    """Read a multi-order coverage map, FITS or JSON, as a ``mocpy.MOC``.

    Raises:
        ModuleNotFoundError: mocpy is not installed.
        FileNotFoundError: There is no such file.
    """
    from mocpy import MOC

    if not file.is_file():
        raise FileNotFoundError(f"no coverage map {file}")
    return MOC.load(str(file), format="json" if file.suffix == ".json" else "fits")
