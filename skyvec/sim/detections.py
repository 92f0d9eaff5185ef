"""Detections on the exposures of a simulated survey, and the truth about each.

Nothing is drawn as a stamp: whatever stands out of a difference image is a detection, and what it
is follows from what was put in, what lies near and what spoiled the pixels there.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skyvec.sim import frames
from skyvec.sim.frames import PIXEL_SCALE, Array, Sources
from skyvec.sim.visits import ON_STAR, Visit, power


def detect(visit: Visit, *, threshold: float = 5.0, apart: float = 4.0) -> NDArray[np.int64]:
    """Positive peaks of the score: highest of 5 x 5 pixels, none within ``apart`` of another.

    Returns:
        (x, y) of each, strongest first, shape (n, 2).
    """
    score = visit.score
    with np.errstate(invalid="ignore"):  # NaN is no detection
        y, x = np.divmod(np.flatnonzero(score > threshold), score.shape[1])
    around = _around(score, np.column_stack([x, y]), 2)
    peak = score[y, x] >= np.where(np.isnan(around), -1, around).max(axis=1, initial=-1)
    x, y = x[peak], y[peak]
    order = np.argsort(-score[y, x], kind="stable")
    places = np.column_stack([x[order], y[order]]).astype(np.int64)
    if len(places) < 2:
        return places
    kept = np.ones(len(places), bool)
    for i, j in sorted(cKDTree(places).query_pairs(apart)):  # i < j: i is the stronger
        if kept[i]:
            kept[j] = False
    return places[kept]


def turned(visit: Visit) -> Visit:
    """The same visit looked at for what has lost light: reference minus new, as alerts have it.

    ZTF's packets of negative detections hold the difference turned round, so that every detection
    is bright in it; so does this visit, in which only what has faded is due to be found.
    """
    return replace(
        visit,
        difference=-visit.difference,
        score=-visit.score,
        expected=-visit.expected,
        sign=-visit.sign,
    )


def cut(visit: Visit, places: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """Cut stamps out, NaN beyond the frame, shape (n, 3, size, size) [counts].

    New and difference are in counts of the sensor, the reference keeps its own unit.
    """
    half, side = size // 2, len(visit.new)
    stamps = np.full((len(places), 3, size, size), np.nan, np.float32)
    for stamp, (x, y) in zip(stamps, places.tolist()):
        low_x, low_y = max(x - half, 0), max(y - half, 0)
        high_x, high_y = min(x + half + 1, side), min(y + half + 1, side)
        rows = slice(low_y - y + half, high_y - y + half)
        columns = slice(low_x - x + half, high_x - x + half)
        for channel, image in enumerate((visit.new, visit.reference, visit.difference)):
            stamp[channel, rows, columns] = image[low_y:high_y, low_x:high_x]
    stamps[:, [0, 2]] /= np.float32(visit.detector.gain)
    return stamps


def _around(image: np.ndarray, places: NDArray[np.int64], half: int) -> np.ndarray:
    """Pixels of the square around each place, the nearest ones beyond the edge, shape (n, k)."""
    grid = np.arange(-half, half + 1)
    y = np.clip(places[:, 1, None] + grid, 0, image.shape[0] - 1)
    x = np.clip(places[:, 0, None] + grid, 0, image.shape[1] - 1)
    found = image[y[:, :, None], x[:, None, :]]
    return np.asarray(found.reshape(len(places), len(grid) ** 2))


# --- the truth --------------------------------------------------------------------------------


def tell(visit: Visit, places: NDArray[np.int64]) -> dict[str, np.ndarray]:
    """Say of each detection what it is.

    A detection is real if a new star lies within 2 px (or 0.7 of the seeing) of it and would give
    at least half of its score alone; otherwise it is bogus, whatever star was put there.

    Args:
        visit: The visit.
        places: (x, y) of the detections, shape (n, 2).

    Returns:
        Columns by name, as ``simulate_stamps`` lists them, with ``id`` and ``object``.
    """
    n = len(places)
    score = visit.score[places[:, 1], places[:, 0]].astype(np.float64)
    unit = _unit(visit)
    match, is_real = np.full(n, -1), np.zeros(n, bool)
    if n and len(visit.sources):
        tree = cKDTree(np.column_stack([visit.sources.x, visit.sources.y]))
        match = tree.query(places)[1]
        near = tree.query_ball_point(places, max(2.0, 0.7 * visit.seeing))
        due = np.array([visit.expected[rows].sum() for rows in near])
        # what counts is the light found, not how it compares with the noise of its place
        is_real = due > 0.5 * score * _local(visit, places)
    kind = np.where(is_real, "field", _causes(visit, places, score))
    host = np.where(is_real, visit.hosts[match] if len(visit.hosts) else -1, -1)
    kind = np.where(is_real & (host >= 0), "near_galaxy", kind)
    kind = np.where(is_real & (host == ON_STAR), "variable", kind)
    star_row, star_away = _nearest(visit.field.stars, places, 20.0)
    galaxy_row, galaxy_away = _nearest(visit.field.galaxies, places, 20.5)
    flux = np.abs(visit.sources.flux)
    true = np.where(is_real, flux[match] if len(flux) else np.nan, np.nan)
    names = [
        _object(visit, real, what, place, row, at, galaxy, near)
        for real, what, place, row, at, galaxy, near in zip(
            is_real.tolist(),
            kind.tolist(),
            places.tolist(),
            star_row.tolist(),
            star_away.tolist(),
            np.where(host >= 0, host, galaxy_row).tolist(),
            np.where(host >= 0, 0.0, galaxy_away).tolist(),
        )
    ]
    key = f"{visit.exposure}-{visit.detector.name}"
    return {
        "id": np.array([f"{key}-{x:03d}-{y:03d}" for x, y in places.tolist()], dtype=np.str_),
        "object": np.array(names, dtype=np.str_),
        "is_real": is_real,
        "kind": kind.astype(np.str_),
        "detector": np.full(n, visit.detector.name),
        "exposure": np.full(n, visit.exposure),
        "magnitude": frames.magnitude(score * _local(visit, places) * unit),
        "true_magnitude": np.asarray(frames.magnitude(np.where(is_real, true, -1.0))),
        "snr": score,
        "host_distance": galaxy_away * PIXEL_SCALE,
        "star_distance": star_away * PIXEL_SCALE,
        "seeing": np.full(n, visit.seeing * PIXEL_SCALE),
        "limit": np.full(n, float(frames.magnitude(5 * unit))),
        "x": places[:, 0].astype(np.float64),
        "y": places[:, 1].astype(np.float64),
    }


def _unit(visit: Visit) -> float:
    """[electrons above the atmosphere] of a score of one on empty sky."""
    if len(visit.sources):
        return float(abs(visit.sources.flux[0] / visit.expected[0]))
    return float(np.sqrt((visit.sky + visit.detector.read_noise**2) / power(visit.psf)))


def _local(visit: Visit, places: NDArray[np.int64]) -> Array:
    """Noise at some places in units of that of empty sky."""
    new = visit.new[places[:, 1], places[:, 0]].astype(np.float64)
    difference = visit.difference[places[:, 1], places[:, 0]].astype(np.float64)
    light = np.maximum(np.nan_to_num(new - visit.sign * difference), 0)
    return np.asarray(np.sqrt(1 + light / (visit.sky + visit.detector.read_noise**2)))


def _nearest(
    sources: Sources, places: NDArray[np.int64], limit: float
) -> tuple[np.ndarray, Array]:
    """Row of the nearest source above a limit of brightness, and its distance [px]."""
    rows = np.flatnonzero(sources.flux > frames.electrons(limit))
    if not len(rows) or not len(places):
        return np.full(len(places), -1), np.full(len(places), np.nan)
    away, found = cKDTree(np.column_stack([sources.x[rows], sources.y[rows]])).query(places)
    return rows[found], np.asarray(away)


def _causes(visit: Visit, places: NDArray[np.int64], score: Array) -> np.ndarray:
    """Name the likeliest cause of detections of nothing."""
    n, side = len(places), len(visit.score)
    x, y = places[:, 0], places[:, 1]
    codes = _around(visit.cause, places, 1)
    painted = np.where(codes[:, 4] > 0, codes[:, 4], codes.max(axis=1, initial=0))
    # residuals of a source are expected within its width, wider where it is brighter
    star, star_away = _nearest(visit.field.stars, places, 17.5)
    galaxy, galaxy_away = _nearest(visit.field.galaxies, places, 18.5)
    flux = visit.field.stars.flux[star] if len(visit.field.stars) else np.zeros(n)
    reach = visit.seeing * (1 + 0.5 * np.log10(np.maximum(flux / 1e3, 1)))
    at_star = star_away < reach
    # with NaN distances (no such source) both comparisons are false, as they should be
    radius = visit.field.galaxies.radius[galaxy] if len(visit.field.galaxies) else np.zeros(n)
    at_galaxy = galaxy_away < visit.seeing + radius
    lowest = np.nan_to_num(_around(visit.score, places, 5)).min(axis=1, initial=0.0)
    is_dipole = lowest < -0.35 * score
    named = np.array(["", *frames.BOGUS_KINDS])[painted]
    at_edge = (np.minimum(x, y) < 5) | (np.maximum(x, y) >= side - 5)
    kind = np.where(at_galaxy, "galaxy", "noise")
    kind = np.where(at_star, np.where(is_dipole, "dipole", "residual"), kind)
    kind = np.where((painted == 0) & at_edge, "edge", kind)
    # a star's own spikes and halo begin at its core: there its residual is the cause
    own = np.isin(named, ["spike", "halo"]) & (star_away < 1.5 * visit.seeing)
    return np.where((painted > 0) & ~own, named, kind)


def _object(
    visit: Visit,
    is_real: bool,
    kind: str,
    place: list[int],
    star: int,
    star_away: float,
    galaxy: int,
    galaxy_away: float,
) -> str:
    """What the detection belongs to: what must not be divided between training and test."""
    field = visit.field.name
    if kind in {"hot_pixel", "column"}:
        # the same pixel of the same sensor in every field, and in every part of a survey
        prefix = field.rsplit("-", 1)[0].split(".", maxsplit=1)[0]
        where = f"x{place[0]}" if kind == "column" else f"x{place[0]}y{place[1]}"
        return f"{prefix}-{visit.detector.name}-{where}"
    if star_away < 6 and (not is_real or star_away < galaxy_away):
        return f"{field}-star{star}"
    if galaxy_away < 12:
        return f"{field}-galaxy{galaxy}"
    return f"{visit.exposure}-x{place[0]}y{place[1]}"
