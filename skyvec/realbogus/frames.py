"""Image pairs -> stamps: our own subtraction of real frames, with artificial stars as reals.

As a survey makes its training set: stars of the frame's own point-spread function are put into
the new image, half of them around extended sources, half anywhere; the pipeline runs; what it
finds at their places is real, everything else it finds is bogus. Some of that everything is truly
new or variable: such a training set has errors in its labels, as every survey's has.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skyvec import store
from skyvec.prep.frames import (
    FrameError,
    background,
    embed,
    find_extended,
    find_stars,
    fwhm,
    measure_psf,
    moved,
    offset,
)
from skyvec.prep.subtract import (
    Difference,
    cut_stamps,
    detect,
    fit_kernel,
    matched_filter,
    zogy,
)
from skyvec.schema import Catalog, Reject, Stamps

Image = NDArray[np.float64]

ENDINGS = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.fz")
NEW, REFERENCE = ("_new", "_sci", "_science"), ("_ref", "_reference", "_template")
KERNEL = ((0.8, 3), (1.8, 2))
"""Gaussians of the kernel that tells the ratio of fluxes, fewer than a subtraction would use."""
APART = 12.0
"""[px] Least distance between artificial stars."""
SAME = 6.0
"""[px] A detection so near a source of the reference is of that source."""
_DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError)


@dataclass(frozen=True)
class Pair:
    """A new image and its reference, ready to be subtracted.

    Args:
        new: Background-subtracted [counts], NaN where full or not measured, shape (y, x).
        reference: Moved onto it, the same shape.
        noise: One sigma of the backgrounds: new, reference.
        psf: Point-spread functions: new, reference.
        scale: Counts in the new image of a source of one count in the reference.
        shift: (dx, dy) that the reference was moved [px].
        gain: [electrons per count] of the new image.
        astrometry: rms of the registration that is left [px].
        sources: (x, y) of what shines in the reference, in its own pixels before it was moved:
            the same in every pair with this reference, shape (k, 2).
    """

    new: Image
    reference: Image
    noise: tuple[float, float]
    psf: tuple[Image, Image]
    scale: float
    shift: tuple[float, float]
    gain: float
    astrometry: float
    sources: NDArray[np.int64]


def read_frame(path: Path) -> tuple[Image, fits.Header]:
    """Read the first image of a FITS file, integers as numbers, float sentinels as NaN.

    Raises:
        FrameError: There is none, or it is a cube.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # old headers are often odd
        with fits.open(path, memmap=False) as file:
            for hdu in file:
                if getattr(hdu, "data", None) is not None:
                    image, header = np.asarray(hdu.data, np.float64), hdu.header.copy()
                    break
            else:
                raise FrameError("the file holds no image")
    if image.ndim != 2 or min(image.shape) < 64:
        raise FrameError(f"a frame has two axes of at least 64 pixels, not {image.shape}")
    image[~(np.abs(image) < 1e30)] = np.nan
    return image, header


def prepare_pair(
    new: np.ndarray,
    reference: np.ndarray,
    *,
    saturation: float | None = None,
    gain: float | None = None,
    box: int = 64,
) -> Pair:
    """Measure all that a subtraction needs: background, stars, psf, shift, ratio of fluxes.

    Args:
        new: [counts] as read out, shape (y, x).
        reference: The same shape, on the same grid but for a shift.
        saturation: [counts] at and above which a pixel is full; by default 0.95 of the highest,
            if several pixels are there.
        gain: [electrons per count]; if not given, from the background's level and noise, as if
            it were all the sky's. Of a frame whose sky was taken off, infinite: give it.
        box: [px] of the background's mesh.

    Raises:
        FrameError: One of them cannot be measured, or they show different fields.
    """
    if new.shape != reference.shape:
        raise FrameError(
            f"new {new.shape} and reference {reference.shape} differ in shape; align them first"
        )
    images, noises, psfs, levels = [], [], [], []
    for image in (new, reference):
        full = _full_level(image) if saturation is None else saturation
        clean = np.where(np.asarray(image) < full, image, np.nan).astype(np.float64)
        sky = background(clean, box=box)
        level = float(np.median(sky.level))
        clean -= sky.level
        stars = find_stars(clean, sky.noise, saturation=0.8 * (full - level), isolation=10)
        psfs.append(measure_psf(clean, sky.noise, stars))
        images.append(clean)
        noises.append(sky.noise)
        levels.append(level)
    dx, dy = offset(images[0], images[1])
    aligned = moved(images[1], dx, dy)
    stars = find_stars(images[0], noises[0], fwhm=fwhm(psfs[0]), isolation=8)
    left_x, left_y = _left_over(images[0], aligned, stars)
    if max(abs(left_x), abs(left_y)) > 0.02:
        dx, dy = dx + left_x, dy + left_y
        aligned = moved(images[1], dx, dy)
    scale = _scale(images[0], aligned, noises[0], stars)
    if gain is None:
        # a frame whose sky was taken off before does not tell; then photons are left out
        gain = levels[0] / noises[0] ** 2 if levels[0] > 10 * noises[0] else np.inf
    rest = _scatter(images[0], aligned, stars)
    return Pair(
        images[0],
        aligned,
        (noises[0], noises[1]),
        (psfs[0], psfs[1]),
        scale,
        (dx, dy),
        float(gain),
        rest,
        detect(matched_filter(images[1], psfs[1], noises[1] ** 2)[0]),
    )


def _full_level(image: np.ndarray) -> float:
    highest = float(np.nanmax(image))
    many = np.count_nonzero(image >= 0.98 * highest)
    clips = many >= 3 and highest > float(np.nanmedian(image))
    return 0.95 * highest if clips else np.inf


def _centres(image: Image, stars: NDArray[np.integer]) -> NDArray[np.float64]:
    """Centroids [px] of the light within 3 px of some places, NaN where a pixel is missing."""
    grid = np.arange(-3, 4)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    found = np.full((len(stars), 2), np.nan)
    for i, (sx, sy) in enumerate(stars.tolist()):
        cut = image[max(sy - 3, 0) : sy + 4, max(sx - 3, 0) : sx + 4]
        if cut.shape == (7, 7) and np.isfinite(cut).all() and cut.sum() > 0:
            light = np.maximum(cut, 0) * (np.hypot(x, y) <= 3.2)
            found[i] = (light * x).sum() / light.sum(), (light * y).sum() / light.sum()
    return found


def _left_over(new: Image, aligned: Image, stars: NDArray[np.integer]) -> tuple[float, float]:
    """Shift that is left between stars, robustly."""
    away = _centres(new, stars) - _centres(aligned, stars)
    away = away[np.isfinite(away).all(axis=1)]
    if len(away) < 5:
        return 0.0, 0.0
    middle = np.median(away, axis=0)
    return float(middle[0]), float(middle[1])


def _scatter(new: Image, aligned: Image, stars: NDArray[np.integer]) -> float:
    away = _centres(new, stars) - _centres(aligned, stars)
    away = away[np.isfinite(away).all(axis=1)]
    if len(away) < 5:
        return 0.1
    spread = 1.4826 * np.median(np.abs(away - np.median(away, axis=0)))
    return float(np.clip(spread, 0.02, 1.0))


def _scale(new: Image, aligned: Image, noise: float, stars: NDArray[np.integer]) -> float:
    if len(stars) < 5:
        raise FrameError(f"{len(stars)} common stars are too few to compare the fluxes of")
    kernel = fit_kernel(new, aligned, noise=noise, stars=stars, gaussians=KERNEL, half=7)
    scale = float(kernel.at(new.shape[1] / 2, new.shape[0] / 2).sum())
    if not scale > 0:
        raise FrameError("the frames' stars do not agree; are they of the same field and band?")
    return scale


def subtract_pair(pair: Pair, new: Image | None = None) -> Difference:
    """Proper subtraction of a pair, or of the pair with another new image such as one with stars.

    Its score knows the photons of sources and the registration's error, so that bright stars are
    no detections for their brightness alone.
    """
    image = pair.new if new is None else new
    variances = []
    for pixels, sigma, gain in (
        (image, pair.noise[0], pair.gain),
        (pair.reference, pair.noise[1], pair.gain),
    ):
        variances.append(sigma**2 + np.maximum(np.nan_to_num(pixels), 0) / gain)
    return zogy(
        image,
        pair.reference,
        pair.psf[0],
        pair.psf[1],
        noise_new=pair.noise[0],
        noise_reference=pair.noise[1],
        scale_new=pair.scale,
        variance_new=variances[0],
        variance_reference=variances[1],
        astrometry=(pair.astrometry, pair.astrometry),
    )


def stamps_of_pair(
    pair: Pair,
    rng: np.random.Generator,
    *,
    embedded: int = 100,
    threshold: float = 5.0,
    side: int = 29,
    near_extended: float = 0.5,
    brightness: tuple[float, float] = (5.0, 200.0),
    name: str = "pair",
    detector: str = "",
) -> tuple[Stamps, Catalog]:
    """Embed stars, subtract, detect, and label what was found.

    Args:
        pair: From ``prepare_pair``.
        rng: Generator of the stars.
        embedded: Number of artificial stars; 0 for a night's detections as they are.
        threshold: Least score of a detection.
        side: Of a stamp [px], odd.
        near_extended: Share of the stars put around extended sources of the reference.
        brightness: Range of the signal to noise that the stars would have on empty sky,
            uniform in its logarithm.
        name: Of the exposure; begins the keys.
        detector: Of the sensor.

    Returns:
        Stamps, and their catalogue with the columns ``label`` (``real``: at an embedded star;
        ``bogus``: anything else), ``kind`` (``near_extended``, ``field`` or ``detection``),
        ``snr``, ``flux`` and ``flux_err`` [counts], ``embedded_snr`` (NaN of others), ``x``, ``y``
        [px] and ``seeing`` [px].

    Raises:
        ValueError: A number makes no sense.
    """
    if embedded < 0 or not 0 < brightness[0] < brightness[1]:
        raise ValueError(f"embedded ({embedded}) must be >= 0 and brightness {brightness} ascend")
    clean = subtract_pair(pair)
    unit = float(np.nanmedian(clean.flux_err)) * pair.scale  # counts of the new image
    x, y, extended = _places(pair, rng, embedded, near_extended)
    low, high = float(np.log(brightness[0])), float(np.log(brightness[1]))
    due = np.exp(rng.uniform(low, high, embedded))
    image = embed(pair.new, pair.psf[0], x, y, due * unit, gain=pair.gain, rng=rng)
    result = subtract_pair(pair, image) if embedded else clean
    places = detect(result.score, threshold=threshold)
    # an embedded star must have made the detection: what was there before is no part of it
    before = clean.score[places[:, 1], places[:, 0]]
    score = result.score[places[:, 1], places[:, 0]]
    match, near = np.full(len(places), -1), np.zeros(len(places), bool)
    if embedded and len(places):
        away, match = cKDTree(np.column_stack([x, y])).query(places)
        near = (away < max(2.0, 0.6 * fwhm(pair.psf[0]))) & (score - np.nan_to_num(before) > 2.5)
    stamps = cut_stamps(image, pair.reference, result.difference, places, side)
    ids = np.array([f"{name}-x{px:04d}y{py:04d}" for px, py in places.tolist()], dtype=np.str_)
    n = len(ids)
    kind = np.full(n, "detection")
    if embedded:
        kind = np.where(near, np.where(extended[match], "near_extended", "field"), "detection")
    objects = _objects(places, pair, name)
    found = Stamps(ids, stamps, np.full(n, detector), np.full(n, name), objects)
    unknown = np.full(n, np.nan)
    columns = {
        "label": np.where(near, "real", "bogus" if embedded else ""),
        "kind": kind.astype(np.str_),
        "snr": score,
        "flux": result.flux[places[:, 1], places[:, 0]],
        "flux_err": result.flux_err[places[:, 1], places[:, 0]],
        "embedded_snr": np.where(near, due[match], np.nan) if embedded else unknown.copy(),
        "x": places[:, 0].astype(np.float64),
        "y": places[:, 1].astype(np.float64),
        "seeing": np.full(n, fwhm(pair.psf[0])),
    }
    return found, Catalog(ids, found.object, unknown, unknown.copy(), columns)


def _objects(places: NDArray[np.int64], pair: Pair, name: str) -> NDArray[np.str_]:
    """What of the field it is, the same in every image: the nearest source of the reference.

    Far from all of them it is the place on the reference, in cells of 8 px: what lies at the
    border of two may bear one name in one image, and the other in the next.
    """
    field = name.split("/", maxsplit=1)[0]
    at = places - np.array(pair.shift)
    cells = np.rint(at / 8).astype(int).tolist()
    names = [f"{field}-{x}-{y}" for x, y in cells]
    if len(pair.sources) and len(places):
        away, row = cKDTree(pair.sources).query(at)
        for i in np.flatnonzero(away <= SAME):
            x, y = pair.sources[row[i]].tolist()
            names[i] = f"{field}-x{x}y{y}"
    return np.array(names, dtype=np.str_)


def _places(
    pair: Pair, rng: np.random.Generator, n: int, near: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    rows, columns = pair.new.shape
    x, y = rng.uniform(8, columns - 9, n), rng.uniform(8, rows - 9, n)
    extended = np.zeros(n, bool)
    hosts = find_extended(pair.reference, pair.noise[1], pair.psf[1])
    if len(hosts):
        extended = rng.uniform(size=n) < near
        chosen = hosts[rng.integers(0, len(hosts), extended.sum())]
        away = fwhm(pair.psf[1]) * rng.gamma(1.5, 0.7, len(chosen))
        angle = rng.uniform(0, 2 * np.pi, len(chosen))
        x[extended] = np.clip(chosen[:, 0] + away * np.cos(angle), 8, columns - 9)
        y[extended] = np.clip(chosen[:, 1] + away * np.sin(angle), 8, rows - 9)
    # two artificial stars must not be one detection: of close ones the later goes elsewhere
    for _ in range(20):
        close = cKDTree(np.column_stack([x, y])).query_pairs(APART) if n else set()
        late = np.array(sorted({j for _, j in close}), np.int64)
        if not len(late):
            break
        x[late] = rng.uniform(8, columns - 9, len(late))
        y[late] = rng.uniform(8, rows - 9, len(late))
        extended[late] = False
    return x, y, extended


# --- a folder of pairs ------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Two files to subtract.

    Args:
        name: Key of the exposure, ``field/image``.
        new: The new image.
        reference: Its reference.
        detector: Name of the sensor, empty where unknown.
    """

    name: str
    new: Path
    reference: Path
    detector: str = ""

    @property
    def source(self) -> str:
        """What a survey calls the pair, wherever the command is run from."""
        return f"{os.path.abspath(self.new)} - {os.path.abspath(self.reference)}"


def find_pairs(folder: Path) -> list[Work]:
    """Find the pairs of a folder, in alphabetical order.

    Either a table ``pairs.csv`` with the columns ``new`` and ``reference`` (and ``detector``, if
    it is known), or files ``NAME_new.fits`` and ``NAME_ref.fits``, or one ``reference.fits`` and
    new images of any other name.

    Raises:
        FrameError: The folder is none of these, or a file of the table is missing.
    """
    table = folder / "pairs.csv"
    if table.exists():
        rows = pacsv.read_csv(table).to_pylist()
        if not rows or not {"new", "reference"} <= set(rows[0]):
            raise FrameError(f"{table} must have the columns new and reference, and some rows")
        work = [
            Work(
                f"{_stem(Path(row['reference']))}/{_stem(Path(row['new']))}",
                folder / row["new"],
                folder / row["reference"],
                str(row.get("detector") or ""),
            )
            for row in rows
        ]
        for pair in work:
            for path in (pair.new, pair.reference):
                if not path.is_file():
                    raise FrameError(f"{table} names {path.name}, which is not there")
        return work
    if not folder.is_dir():
        raise FrameError(f"{folder} is no folder")
    files = sorted(p for p in folder.iterdir() if p.name.lower().endswith(ENDINGS))
    by_stem = {_stem(path): path for path in files}
    found = []
    for stem, path in by_stem.items():
        for ending in NEW:
            if stem.endswith(ending):
                base = stem.removesuffix(ending)
                partner = next((by_stem[base + r] for r in REFERENCE if base + r in by_stem), None)
                if partner is not None:
                    found.append(Work(f"{base}/{stem}", path, partner))
    if found:
        return found
    one = by_stem.get("reference", by_stem.get("ref"))
    if one is not None and len(files) > 1:
        return [Work(f"{folder.name}/{_stem(p)}", p, one) for p in files if p != one]
    raise FrameError(
        f"{folder} holds no pairs: neither pairs.csv, nor NAME_new.fits with NAME_ref.fits, nor "
        "reference.fits with others"
    )


def _stem(path: Path) -> str:
    name = path.name
    ending = next((e for e in sorted(ENDINGS, key=len)[::-1] if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)] if ending else path.stem


def stamps_of_folder(
    folder: Path,
    survey: Path,
    *,
    embedded: int = 100,
    threshold: float = 5.0,
    side: int = 29,
    saturation: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[int, int]:
    """Subtract all pairs of a folder and keep their detections in a survey.

    Pairs that are in the survey are not made again; a pair that cannot be subtracted is a reject
    with its reason, and is tried again when its files or an option have changed.

    Args:
        folder: See ``find_pairs``.
        survey: Made if it is not there.
        embedded: Artificial stars a pair.
        threshold: Least score.
        side: Of a stamp [px].
        saturation: [counts] of a full pixel; found in the frames if not given.
        seed: Of the artificial stars; each pair has its own by its place in the order.
        progress: Called with pairs done and in all.

    Returns:
        Detections stored and pairs refused, now.

    Raises:
        FrameError: The folder holds no pairs.
        ValueError: An option means nothing.
    """
    if not (threshold > 0 and np.isfinite(threshold)):
        raise ValueError(f"threshold={threshold} must be a number > 0")
    if saturation is not None and not saturation > 0:
        raise ValueError(f"a full pixel has more than 0 counts, not {saturation}")
    if side < 5 or side % 2 == 0:
        raise ValueError(f"side={side} px must be odd and >= 5, so that a pixel is the centre")
    work = find_pairs(folder)
    store.create_survey(survey)
    options = {"embedded": embedded, "threshold": threshold, "side": side, "full": saturation}
    with store.lock(store.objects_folder(survey), "realbogus frames"):
        state = {one.source: _state(one, options) for one in work}
        refused_in = store.rejected_items(survey)
        changed = [s for s, now in state.items() if s in refused_in and {now} != {*refused_in[s]}]
        if changed:  # a repaired frame, or another option, is worth another try
            store.withdraw_rejects(survey, changed)
        done = store.finished_items(survey)
        stored = refused = 0
        for i, one in enumerate(work):
            source = one.source
            if source not in done:
                rng = np.random.default_rng([seed, i])
                made = _try(one, rng, embedded, threshold, side, saturation)
                if isinstance(made, str):
                    empty = _nothing(side)
                    nothing = Catalog(empty.id, empty.object, np.zeros(0), np.zeros(0))
                    reject = Reject(source, 0, one.name, made, state[source])
                    store.append_objects(survey, nothing, empty, np.array([], object), [reject])
                    refused += 1
                else:
                    stamps, catalog = made
                    sources = np.full(len(stamps), source, object)
                    store.append_objects(survey, catalog, stamps, sources, [])
                    stored += len(stamps)
            if progress is not None:
                progress(i + 1, len(work))
        facts: dict[str, object] = {
            "folder": str(folder),
            "pairs": len(work),
            "embedded": embedded,
        }
        store.note(survey, "frames", {**facts, "threshold": threshold, "seed": seed})
    return stored, refused


def _state(one: Work, options: Mapping[str, object]) -> str:
    """A short text that changes with all that decides what becomes of a pair."""
    files = [(path.stat().st_size, path.stat().st_mtime_ns) for path in (one.new, one.reference)]
    text = json.dumps([files, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _nothing(side: int) -> Stamps:
    none = np.array([], dtype=np.str_)
    return Stamps(none, np.zeros((0, 3, side, side), np.float32), none, none, none)


def _try(
    one: Work,
    rng: np.random.Generator,
    embedded: int,
    threshold: float,
    side: int,
    saturation: float | None,
) -> tuple[Stamps, Catalog] | str:
    try:
        new, header = read_frame(one.new)
        reference, _ = read_frame(one.reference)
        gain = header.get("GAIN")
        pair = prepare_pair(
            new,
            reference,
            saturation=saturation,
            gain=float(gain) if isinstance(gain, int | float) and gain > 0 else None,
        )
        made = stamps_of_pair(
            pair,
            rng,
            embedded=embedded,
            threshold=threshold,
            side=side,
            name=one.name,
            detector=one.detector or str(header.get("DETECTOR", header.get("INSTRUME", ""))),
        )
    except (FrameError, *_DAMAGED) as error:
        return " ".join(str(error).split())
    return made if len(made[0]) else "nothing was detected"
