"""Made-up skies of light curves whose truth is known: variable stars seen by a survey.

The truth travels as columns of the catalogue. No model is known here: the exam must not know the
pupil.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from skyvec.schema import Catalog, LightCurves
from skyvec.sim.instruments import INSTRUMENTS, Instrument, Visit
from skyvec.sim.variables import KINDS, ODDITIES, Flux, Made, Truth

TRUTHS = ("period", "amplitude", "t0")
ODDITY = "oddity"
UNSEEN_FROM_GROUND = {"delta_scuti", "transit", "rotator", "flares"}
"""Too shallow or too rare for a point every few nights: left out there unless asked for."""


def simulate(
    kind: str, time: NDArray[np.floating], rng: np.random.Generator, **parameters: float
) -> Made:
    """Draw one noiseless light curve.

    Args:
        kind: A name in ``KINDS`` or ``ODDITIES`` of :mod:`skyvec.sim.variables`.
        time: [day], finite, ascending, shape (n,), n >= 1.
        rng: Generator of every parameter that is not given.
        **parameters: Those of the kind, such as ``period`` [day] or ``amplitude``.

    Returns:
        Flux relative to the quiet (or mean) star, shape (n,), and the truth by name; ``period``,
        ``amplitude`` and ``t0`` are always there, NaN where the kind has none.

    Raises:
        ValueError: An unknown kind or parameter (the message names the known ones), or times that
            are empty, not finite or not ascending.
    """
    known = KINDS | ODDITIES
    if kind not in known:
        raise ValueError(
            f"unknown kind {kind!r}{_nearest(kind, known)}; choose from {_list(known)}"
        )
    accepted = list(inspect.signature(known[kind]).parameters)[2:]
    for name in parameters:
        if name not in accepted:
            raise ValueError(
                f"{kind} has no parameter {name!r}{_nearest(name, accepted)}; "
                f"it has {_list(accepted) or 'none'}"
            )
    stamps = np.asarray(time, np.float64)
    if stamps.ndim != 1 or not len(stamps):
        raise ValueError(f"time must have shape (n >= 1,), not {stamps.shape}")
    if not (np.isfinite(stamps).all() and (np.diff(stamps) >= 0).all()):
        raise ValueError("time must be finite and ascend; sort the stamps first")
    return known[kind](stamps, rng, **parameters)


def simulate_sky(
    n: int,
    rng: np.random.Generator,
    *,
    cadence: str = "tess",
    kinds: Mapping[str, float] | Iterable[str] | None = None,
    twice: float = 0.1,
    oddities: float = 0.003,
    first: int = 0,
) -> tuple[Catalog, LightCurves]:
    """Draw a sky of stars and observe it.

    Every target has a generator of its own, spawned from ``rng``, so that a sky depends only on
    the arguments and the state of ``rng``.

    Args:
        n: How many light curves.
        rng: Generator of everything.
        cadence: ``tess`` (30 minutes, about 1,200 points), ``tess-10min``, ``tess-2min``, or
            ``ground`` (100 to 500 points in six years).
        kinds: Names in ``KINDS``, or their relative frequencies by name; by default all alike,
            from the ground without those that cannot be seen there.
        twice: Share of the targets that are seen in two consecutive sectors (space only), which
            makes two light curves of one target.
        oddities: Share of the targets that are planted oddities, one at least of any n >= 100.
        first: Number of the first target; another sky can go on where one ended.

    Returns:
        Catalogue and light curves, n rows each. Columns of the catalogue: ``label`` (the kind, or
        ``oddity``), ``shape`` (the kind, or the oddity's name), ``period`` [day], ``amplitude``
        [relative flux], ``t0`` [MJD] (see :mod:`skyvec.sim.variables`), ``mag``, ``snr`` (scatter
        of the noiseless curve over the error of a point), and ``sector``, ``camera``, ``ccd`` from
        space.

    Raises:
        ValueError: An unknown cadence or kind, or a count or share out of range.
    """
    if cadence not in INSTRUMENTS:
        raise ValueError(f"unknown cadence {cadence!r}; choose from {_list(INSTRUMENTS)}")
    if n < 0 or not 0 <= twice <= 1 or not 0 <= oddities <= 1:
        raise ValueError(
            f"n ({n}) must be >= 0, twice ({twice}) and oddities ({oddities}) in [0, 1]"
        )
    instrument = INSTRUMENTS[cadence]()
    n_targets = n if cadence == "ground" else int(np.ceil(n / (1 + twice)))
    n_twice = n - n_targets
    if kinds is None:
        kinds = [kind for kind in KINDS if cadence != "ground" or kind not in UNSEEN_FROM_GROUND]
    shapes = _draw_shapes(n_targets, rng, kinds, oddities)
    visits = np.where(np.arange(n_targets) < n_twice, 2, 1)
    rng.shuffle(visits)
    seen: list[_Seen] = []
    for i, (shape, count, own) in enumerate(zip(shapes, visits, rng.spawn(n_targets))):
        seen += _observe_target(f"SIM {first + i}", shape, int(count), instrument, own)
    return _assemble(seen, instrument)


@dataclass(frozen=True)
class _Seen:
    """One light curve with its truth."""

    target: str
    shape: str
    visit: Visit
    flux: Flux
    err: Flux
    ra: float
    dec: float
    mag: float
    snr: float
    truth: Truth


def _draw_shapes(
    n: int,
    rng: np.random.Generator,
    kinds: Mapping[str, float] | Iterable[str],
    oddities: float,
) -> list[str]:
    """A kind or an oddity for each target, (n,)."""
    weights = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(kinds, 1.0)
    for kind in weights:
        if kind not in KINDS:
            raise ValueError(
                f"unknown kind {kind!r}{_nearest(kind, KINDS)}; choose from {_list(KINDS)}"
            )
    frequency = np.array(list(weights.values()), np.float64)
    if not ((frequency >= 0).all() and frequency.sum() > 0):
        raise ValueError(f"the kinds' frequencies must be >= 0 with a sum > 0, not {weights}")
    shapes = rng.choice(list(weights), n, p=frequency / frequency.sum())
    n_odd = round(oddities * n) or int(oddities > 0 and n >= 100)
    shapes = shapes.astype(object)
    shapes[rng.choice(n, n_odd, replace=False)] = rng.choice(list(ODDITIES), n_odd)
    return [str(shape) for shape in shapes]


def _observe_target(
    target: str, shape: str, count: int, instrument: Instrument, rng: np.random.Generator
) -> list[_Seen]:
    """Put one star on the sky and look at it so many times."""
    ra, dec = float(rng.uniform(0, 360)), float(np.degrees(np.arcsin(rng.uniform(-1, 1))))
    reach = instrument.faint - instrument.bright
    mag = instrument.faint - min(float(rng.exponential(1.5)), reach)
    visits = instrument.visits(rng, ra, dec, count)
    clean, truth = (KINDS | ODDITIES)[shape](np.concatenate([v.mjd for v in visits]), rng)
    seen = []
    ends = np.cumsum([len(v.mjd) for v in visits])
    for visit, quiet in zip(visits, np.split(clean, ends[:-1])):
        flux, err = instrument.observe(quiet, visit, mag, rng)
        snr = float(np.std(quiet) / np.median(err))
        seen.append(_Seen(target, shape, visit, flux, err, ra, dec, mag, snr, truth))
    return seen


def _assemble(seen: list[_Seen], instrument: Instrument) -> tuple[Catalog, LightCurves]:
    """Lay the curves end to end and turn relative into measured flux."""
    ids = np.array([_segment_id(s) for s in seen], dtype=np.str_)
    columns = {
        "label": np.array([ODDITY if s.shape in ODDITIES else s.shape for s in seen], np.str_),
        "shape": np.array([s.shape for s in seen], np.str_),
        "mag": np.array([s.mag for s in seen], np.float64),
        "snr": np.array([s.snr for s in seen], np.float64),
    }
    columns |= {name: np.array([s.truth[name] for s in seen], np.float64) for name in TRUTHS}
    noted = seen[0].visit.columns if seen else {}
    columns |= {name: np.array([s.visit.columns[name] for s in seen], np.int64) for name in noted}
    catalog = Catalog(
        ids,
        np.array([s.target for s in seen], dtype=np.str_),
        np.array([s.ra for s in seen], np.float64),
        np.array([s.dec for s in seen], np.float64),
        columns,
    )
    offsets = np.zeros(len(seen) + 1, np.int64)
    offsets[1:] = np.cumsum([len(s.flux) for s in seen])
    level = [10 ** (0.4 * (instrument.zero_point - s.mag)) for s in seen]
    nothing = [np.zeros(0)]
    curves = LightCurves(
        ids,
        offsets,
        np.concatenate([s.visit.mjd for s in seen] or nothing),
        np.concatenate([f * s.flux for f, s in zip(level, seen)] or nothing).astype(np.float32),
        np.concatenate([f * s.err for f, s in zip(level, seen)] or nothing).astype(np.float32),
        np.zeros(offsets[-1], np.int16),
        ("T",) if "sector" in noted else ("V",),
        instrument.flux_unit,
    )
    return catalog, curves


def _segment_id(seen: _Seen) -> str:
    return f"{seen.target}/{seen.visit.name}" if seen.visit.name else seen.target


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
