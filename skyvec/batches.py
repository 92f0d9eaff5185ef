"""Shards to batches: who belongs to which split, which curves train, and flat arrays to tensors.

The only place where the schema's arrays become tensors. Choices are made by hashing ids, never by
position, so that they do not change when a survey grows or is stored in other shards.
"""

import ctypes
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skyvec.nn.frames import Frames
from skyvec.nn.ragged import Ragged
from skyvec.prep.images import Scaling, resize
from skyvec.prep.lightcurves import Prepared, prepare
from skyvec.schema import Images, LightCurves, Strings, take_ragged
from skyvec.store import find_images, iterate_objects, read_catalog, survey_bands

SPLITS = ("train", "valid", "test")
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
"""As malloc.h of glibc numbers them."""
POOL = 8
"""Training batches are slices of this many batches' worth of curves ordered by length."""


def hash_uniform(keys: Iterable[str], *, seed: int, purpose: str) -> NDArray[np.float64]:
    """Give each key a number in [0, 1) that depends on nothing but the key, seed and purpose.

    Args:
        keys: Any strings, n of them.
        seed: Another seed gives other, independent numbers.
        purpose: A word; choices made for different purposes are independent.

    Returns:
        The first 53 bits of a BLAKE2b hash over 2^53, shape (n,).
    """
    salt = hashlib.blake2b(f"{purpose}\0{seed}\0".encode(), digest_size=8)
    numbers = []
    for key in keys:
        digest = salt.copy()
        digest.update(key.encode())
        numbers.append(int.from_bytes(digest.digest()))
    return (np.array(numbers, np.uint64) >> np.uint64(11)).astype(np.float64) / 2.0**53


def split(target: Strings, *, seed: int = 0, valid: float = 0.1, test: float = 0.1) -> Strings:
    """Assign every object to a split; all segments of one target land in the same.

    Args:
        target: Object of each segment, shape (n,).
        seed: Another seed gives another split.
        valid: Fraction of the objects for choosing between weights, in [0, 1).
        test: Fraction of the objects kept away from training altogether, in [0, 1).

    Returns:
        ``train``, ``valid`` or ``test``, shape (n,); the same for a target in any survey.

    Raises:
        ValueError: The fractions are negative or leave nothing to train on.
    """
    if valid < 0 or test < 0 or valid + test >= 1:
        raise ValueError(f"valid={valid} and test={test} must be >= 0 and sum to less than 1")
    names, inverse = np.unique(target, return_inverse=True)
    u = hash_uniform(names.tolist(), seed=seed, purpose="split")
    parts = np.where(u < test, "test", np.where(u < test + valid, "valid", "train"))
    return parts[inverse]


def choose_bands(curves: LightCurves, bands: Sequence[str]) -> LightCurves:
    """Keep the points in some bands and let the codes refer to those, in the order given.

    Curves of one band go with a model of one band whatever the two are called: every curve is put
    on its own scale, so the name is all that differs.

    Args:
        curves: Light curves with their own band names.
        bands: Names wanted, in the order of the codes wanted.

    Returns:
        The same curves; one without a point in these bands becomes empty.

    Raises:
        ValueError: The curves have none of these bands.
    """
    bands = tuple(bands)
    if curves.bands == bands or (len(curves.bands) == 1 == len(bands)):
        return replace(curves, bands=bands)
    if not set(bands) & set(curves.bands):
        raise ValueError(
            f"the curves have the bands {', '.join(curves.bands) or '(none)'}, "
            f"but {', '.join(bands)} is wanted; rename the bands, or train on these"
        )
    code = np.array([bands.index(b) if b in bands else -1 for b in curves.bands], np.int16)
    band = code[curves.band]
    keep = band >= 0
    counted = np.concatenate([[0], np.cumsum(keep)])
    return LightCurves(
        curves.id,
        counted[curves.offsets].astype(np.int64),
        curves.mjd[keep],
        curves.flux[keep],
        curves.flux_err[keep],
        band[keep],
        bands,
        curves.flux_unit,
    )


def take(prepared: Prepared, rows: NDArray[np.integer]) -> Prepared:
    """Give the curves asked for, in the order asked for; rows of shape (m,)."""
    points, offsets = take_ragged(prepared.offsets, rows)
    return Prepared(
        prepared.id[rows],
        offsets,
        prepared.time[points],
        prepared.value[points],
        prepared.error[points],
        prepared.band[points],
        prepared.start[rows],
        prepared.level[rows],
        prepared.scale[rows],
        prepared.is_constant[rows],
    )


def join(parts: Sequence[Prepared]) -> Prepared:
    """Lay prepared curves of the same bands one after another."""
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])

    def together(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Prepared(
        together("id"),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        together("time"),
        together("value"),
        together("error"),
        together("band"),
        together("start"),
        together("level"),
        together("scale"),
        together("is_constant"),
    )


def thin(prepared: Prepared, max_points: int) -> Prepared:
    """Keep at most ``max_points`` points a curve: the first, then evenly by rank to the end."""
    lengths = np.diff(prepared.offsets)
    if not (lengths > max_points).any():
        return prepared
    length = np.repeat(lengths, lengths)
    rank = np.arange(prepared.offsets[-1]) - np.repeat(prepared.offsets[:-1], lengths)
    wanted = np.minimum(length, max_points)
    keep = -(-(rank + 1) * wanted // length) > -(-rank * wanted // length)
    counted = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
    return replace(
        prepared,
        offsets=counted[prepared.offsets],
        time=prepared.time[keep],
        value=prepared.value[keep],
        error=prepared.error[keep],
        band=prepared.band[keep],
    )


def training_set(
    survey: Path,
    *,
    curves: int = 20_000,
    seed: int = 0,
    min_points: int = 8,
    max_points: int = 4_000,
    bands: Sequence[str] = (),
    round_days: float = 0.01,
    normalise: str = "std",
    valid: float = 0.1,
    test: float = 0.1,
) -> tuple[Prepared, Strings]:
    """Choose and prepare the curves to train on, in one pass over the shards.

    The curves with the lowest hash of their id are chosen among those that vary and have enough
    points, so the choice depends neither on the order nor on the division of the shards. Memory
    is bounded by ``curves`` times ``max_points`` (18 bytes a point) and one shard.

    Args:
        survey: The survey's folder.
        curves: How many to choose, all splits together.
        seed: Of the choice and of the split.
        min_points: Fewest points of a curve after preparation.
        max_points: Longer curves are thinned evenly to this many points.
        bands: Names of the bands to use; none for all of the survey's.
        round_days: Grid of the rounding of times [day], 0 for none.
        normalise: ``std`` or ``mad``.
        valid: Fraction of the objects for choosing between weights.
        test: Fraction of the objects that never train.

    Returns:
        The prepared curves in the order of their hashes, and the split of each, shape (n,).

    Raises:
        ValueError: No curve of the survey is fit to train on.
    """
    if curves < 1 or min_points < 1 or max_points < min_points:
        raise ValueError(
            f"curves={curves}, min_points={min_points}, max_points={max_points} must be "
            ">= 1, and max_points no less than min_points"
        )
    known = survey_bands(survey)
    wanted = tuple(bands) or known
    if unknown := sorted(set(wanted) - set(known)):
        raise ValueError(f"{survey} has no band {unknown[0]!r}; choose from {', '.join(known)}")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"bands = {list(wanted)} names a band twice")
    kept: list[Prepared] = []
    targets: list[Strings] = []
    keys: list[NDArray[np.float64]] = []
    limit = np.inf
    for _, catalog, light in iterate_objects(survey):
        key = hash_uniform(catalog.id.tolist(), seed=seed, purpose="choice")
        rows = np.flatnonzero((key < limit) & (light.lengths >= min_points))
        chosen = choose_bands(light.take(rows), wanted)
        ready = prepare(chosen, round_days=round_days, normalise=normalise)
        fit = ~ready.is_constant & (np.diff(ready.offsets) >= min_points)
        kept.append(thin(take(ready, np.flatnonzero(fit)), max_points))
        targets.append(catalog.target[rows][fit])
        keys.append(key[rows][fit])
        if sum(map(len, keys)) > 1.25 * curves:  # not at every shard: each time copies them all
            together, target, key = join(kept), np.concatenate(targets), np.concatenate(keys)
            first = np.argsort(key, kind="stable")[:curves]
            kept, targets, keys = [take(together, first)], [target[first]], [key[first]]
            limit = keys[0][-1]
    if not sum(map(len, keys)):
        raise ValueError(
            f"no curve of {survey} varies and has at least {min_points} points in "
            f"{', '.join(wanted) or 'any band'}; ingest more, or lower min_points"
        )
    order = np.argsort(np.concatenate(keys), kind="stable")[:curves]
    target = np.concatenate(targets)[order]
    return take(join(kept), order), split(target, seed=seed, valid=valid, test=test)


def image_training_set(
    survey: Path,
    *,
    images: int = 20_000,
    seed: int = 0,
    bands: Sequence[str] = (),
    crop: int = 0,
    size: int = 64,
    stretch: str = "",
    softening: float = 5.0,
    sky: Sequence[float] = (),
    soft: Sequence[float] = (),
    top: Sequence[float] = (),
    valid: float = 0.1,
    test: float = 0.1,
) -> tuple[NDArray[np.float32], Strings, Strings]:
    """Choose and prepare the images to train on, in one pass over the shards.

    The images with the lowest hash of their id are chosen, so the choice depends neither on the
    order nor on the division of the shards. Memory is bounded by ``images`` prepared images
    (48 kB each at three bands of 64 x 64) and one shard.

    Args:
        survey: The survey's folder.
        images: How many to choose, all splits together.
        seed: Of the choice and of the split.
        bands: Names of the bands to use; none for all of the survey's.
        crop: Side of the central square that is kept [pixel], 0 for the whole image.
        size: Side after averaging blocks of pixels [pixel].
        stretch: ``arcsinh``, ``lupton`` or ``linear``; empty to choose by the pixels.
        softening: Where a stretch turns from linear to logarithmic [sky noise].
        sky: Level of the empty sky of each band [flux]; empty to measure it.
        soft: Where the stretch of each band turns [flux]; empty to measure it.
        top: What becomes 1 in each band [flux]; empty to measure it.
        valid: Fraction of the objects for choosing between weights.
        test: Fraction of the objects that never train.

    Returns:
        Prepared pixels, NaN where not measured, shape (n, band, size, size), in the order of
        their hashes; the id and the split of each, shape (n,).

    Raises:
        ValueError: The survey has no image, or not these bands.
        StoreError: The survey holds no images.
    """
    if images < 1:
        raise ValueError(f"images={images} must be >= 1")
    if not len(sky):
        sky, soft, top, stretch = _measured(
            image_scaling(
                survey,
                seed=seed,
                bands=bands,
                crop=crop,
                size=size,
                stretch=stretch,
                softening=softening,
                valid=valid,
                test=test,
            )
        )
    how: dict[str, Any] = {
        "crop": crop,
        "size": size,
        "stretch": stretch,
        "sky": sky,
        "soft": soft,
        "top": top,
    }
    catalog = read_catalog(survey, [])
    key = hash_uniform(catalog.id.tolist(), seed=seed, purpose="choice")
    order = np.argsort(key, kind="stable")[:images]
    place = {name: i for i, name in enumerate(catalog.id[order].tolist())}
    wanted = tuple(bands) or survey_bands(survey)
    pixels = np.empty((len(order), len(wanted), size, size), np.float32)
    for _, part, stored in iterate_objects(survey, Images):
        rows = np.flatnonzero([name in place for name in part.id.tolist()])
        if len(rows):
            places = [place[name] for name in part.id[rows].tolist()]
            pixels[places] = prepare_images(stored.take(rows), bands=wanted, **how)
    if not len(pixels):
        raise ValueError(f"{survey} holds no image; ingest some")
    parts = split(catalog.target[order], seed=seed, valid=valid, test=test)
    return pixels, catalog.id[order], parts


SCALED_ON = 256
"""Sky, noise and bright end are measured on at most so many images of the train split."""


def image_scaling(
    survey: Path,
    *,
    seed: int = 0,
    bands: Sequence[str] = (),
    crop: int = 0,
    size: int = 64,
    stretch: str = "",
    softening: float = 5.0,
    valid: float = 0.1,
    test: float = 0.1,
) -> Scaling:
    """Measure how the pixels of a survey become numbers of about 0 to 1.

    On the 256 images of the train split with the lowest hashes, cropped and averaged as asked.
    The arguments are those of :func:`image_training_set`.

    Raises:
        ValueError: The train split is empty, a band is unknown or shows nothing.
        StoreError: The survey holds no images.
    """
    catalog = read_catalog(survey, [])
    parts = split(catalog.target, seed=seed, valid=valid, test=test)
    train = np.flatnonzero(parts == "train")
    if not len(train):
        raise ValueError(f"no image of {survey} falls to the train split; ingest more")
    key = hash_uniform(catalog.id[train].tolist(), seed=seed, purpose="choice")
    chosen = catalog.id[train[np.argsort(key, kind="stable")[:SCALED_ON]]]
    some = find_images(survey, chosen.tolist())
    pixels = resize(
        choose_image_bands(some, tuple(bands) or some.bands).pixels, crop=crop, size=size
    )
    raw = some.pixels[~np.isnan(some.pixels)]
    is_bytes = bool((raw >= 0).all() and (raw <= 255).all() and (raw == np.rint(raw)).all())
    kind = stretch or ("linear" if is_bytes else "arcsinh")
    return Scaling.fit(pixels, kind, softening=softening)


def _measured(scaling: Scaling) -> tuple[list[float], list[float], list[float], str]:
    facts = scaling.facts()
    return facts["sky"], facts["soft"], facts["top"], facts["kind"]


def choose_image_bands(images: Images, bands: Sequence[str]) -> Images:
    """Give images in some of their bands, in the order wanted.

    As many bands under other names are taken in their order: the pictures of two viewers go with
    one model.

    Raises:
        ValueError: The images lack a band.
    """
    if images.bands == tuple(bands):
        return images
    if not set(bands) <= set(images.bands):
        if len(bands) == len(images.bands):
            return replace(images, bands=tuple(bands))
        raise ValueError(
            f"the images have the bands {', '.join(images.bands)}, but {', '.join(bands)} are "
            "wanted; choose other [data] bands, or train on these"
        )
    planes = [images.bands.index(band) for band in bands]
    error = None if images.flux_err is None else images.flux_err[:, planes]
    return replace(images, pixels=images.pixels[:, planes], bands=tuple(bands), flux_err=error)


def prepare_images(
    images: Images,
    *,
    bands: Sequence[str],
    crop: int,
    size: int,
    stretch: str,
    sky: Sequence[float],
    soft: Sequence[float],
    top: Sequence[float],
) -> NDArray[np.float32]:
    """Crop, average and scale images as a recipe's ``[data]`` table says.

    Returns:
        Shape (n, band, size, size), NaN where nothing was measured.

    Raises:
        ValueError: The images are too small, or lack a band.
    """
    numbers = (np.asarray(values, np.float64) for values in (sky, soft, top))
    pixels = resize(choose_image_bands(images, bands).pixels, crop=crop, size=size)
    return Scaling(stretch, *numbers).apply(pixels)


def ragged(prepared: Prepared, rows: NDArray[np.integer] | None = None) -> Ragged:
    """Make a batch of tensors of prepared curves.

    Args:
        prepared: Any number of curves.
        rows: Curves wanted, in the order wanted, shape (m,); none for all.

    Returns:
        The batch; its tensors are copies.
    """
    part = prepared if rows is None else take(prepared, rows)
    lengths = np.diff(part.offsets)
    return Ragged(
        torch.tensor(part.time),
        torch.tensor(part.value),
        torch.tensor(part.error),
        torch.tensor(part.band.astype(np.int64)),
        torch.tensor(np.repeat(np.arange(len(part)), lengths)),
        torch.tensor(part.offsets),
        torch.tensor(part.amplitude),
    )


def frames(pixels: NDArray[np.float32]) -> Frames:
    """Make a batch of tensors of prepared images.

    Args:
        pixels: Shape (n, band, y, x), NaN where nothing was measured.

    Returns:
        The batch; NaN became 0 and is marked so in the mask.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(pixels, np.float32))
    measured = ~tensor.isnan()
    return Frames(tensor.where(measured, 0.0), measured)


@contextmanager
def use_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads for a while; none leaves them as they are."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_device(device: str) -> None:
    """Make sure that torch can compute on a device.

    Raises:
        ValueError: There is no such device here; the message says why.
    """
    try:
        torch.zeros(1, device=device).item()
    # torch asserts that it was built for a device, and has no code for some that it names
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"device={device!r} cannot be computed on ({why}); choose cpu, or a device that this "
            "torch and this machine have"
        ) from None


def keep_memory() -> bool:
    """Let memory that is freed stay with the process; for one that does nothing but train.

    glibc gives arrays of more than 32 MB back to the system at once and has them zeroed anew,
    page by page, when the next one is asked for: with convolutions of images that can take as
    long as the step itself. Nothing changes with another C library.

    Returns:
        Whether it was told.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc, or not even POSIX
        return False
    # both: no array by a mapping of its own, and no end of the heap given back
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))


def length_buckets(
    lengths: NDArray[np.integer], *, points: int = 160_000, most: int = 512
) -> list[NDArray[np.int64]]:
    """Divide curves into batches of similar length, for encoding.

    Args:
        lengths: Points of each curve, shape (n,).
        points: Most points of a batch once each curve is padded to the longest; a longer curve
            is a batch of its own.
        most: Most curves of a batch.

    Returns:
        Rows of each batch, ascending in length; every row is in exactly one.
    """
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    ordered = np.maximum(lengths[order], 1)
    batches = []
    first = 0
    while first < len(order):
        # padded size (i + 1 - first) * length[i] ascends with i, so a bisection finds the end
        ahead = ordered[first : first + most]
        padded = np.arange(1, len(ahead) + 1) * ahead
        n = max(1, int(np.searchsorted(padded, points, side="right")))
        batches.append(order[first : first + n])
        first += n
    return batches


def draw_batch(
    lengths: NDArray[np.integer], batch: int, points: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the curves of one training batch: at random, but of similar lengths.

    A pool of several batches' worth is drawn, ordered by length, and one slice of it is the
    batch. Every curve is as likely as every other, and little of a padded batch is padding.

    Args:
        lengths: Points of each curve to draw from, shape (n,).
        batch: Curves of a batch; all of them where there are fewer.
        points: Most points of a batch once padded; curves are left out at random until it holds.
        rng: Source of the draw.

    Returns:
        Rows, shape (at least 1 and at most ``batch``,), in random order.
    """
    n = len(lengths)
    batch = min(batch, n)
    slices = max(1, min(POOL, n // batch))
    pool = rng.choice(n, size=slices * batch, replace=False)
    pool = pool[np.argsort(lengths[pool], kind="stable")]
    start = int(rng.integers(slices)) * batch
    rows = rng.permutation(pool[start : start + batch])
    padded = np.arange(1, batch + 1) * np.maximum.accumulate(lengths[rows])
    return rows[: max(1, int(np.searchsorted(padded, points, side="right")))].astype(np.int64)
