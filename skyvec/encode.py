"""Objects in, latents out: streaming, in bounded memory, resumable shard by shard.

The vector of an object depends on nothing but the object and the checkpoint: not on the batch, the
chunk or the shard it came in (to the tolerance of its solver, where that is adaptive). A curve
without a point in the model's bands, or an image without a measured pixel, gets the zero vector, a
constant curve whatever the model makes of zeros. A vector of zeros has no cosine to any other.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skyvec.batches import (
    choose_bands,
    frames,
    hash_uniform,
    image_scaling,
    image_training_set,
    length_buckets,
    prepare_images,
    ragged,
    split,
    use_threads,
)
from skyvec.checkpoint import Checkpoint, Recipe, is_finished, load, save
from skyvec.cluster import as_finished
from skyvec.nn.frames import Frames, frame_mean
from skyvec.nn.ragged import Ragged
from skyvec.prep.codes import BASELINES, baselines_of
from skyvec.prep.images import Scaling
from skyvec.prep.lightcurves import Prepared, prepare
from skyvec.schema import Catalog, Images, Latents, LightCurves
from skyvec.store import (
    StoreError,
    check_survey,
    clean,
    iterate_objects,
    latents_folder,
    lock,
    model_folder,
    object_shards,
    read_catalog,
    read_manifest,
    read_objects,
    survey_bands,
    survey_kind,
    survey_shape,
    write_latents,
)

CHUNK_POINTS = 2_000_000
"""Raw points prepared at a time: a few hundred MB of working memory."""

CHUNK_PIXELS = 4_000_000
"""Raw pixels prepared at a time: a hundred MB of working memory."""

IMAGE_BATCH = 128
"""Images a network sees at a time: few enough for its layers to stay near the processor."""

CHECKED_POINTS = 64
"""Points of a curve at which its reconstruction is compared with it."""


class Reconstruction(NamedTuple):
    """What a model believes the light curve to be at the curve's own times.

    Shapes: N points of the curves asked for, in their order; NaN in bands the model does not know.

    Args:
        value: In units of the curve's own level and scale, float32, (N,).
        flux: In the curve's flux unit, float32, (N,).
    """

    value: NDArray[np.float32]
    flux: NDArray[np.float32]


def encode(
    survey: Path,
    name: str,
    *,
    progress: Callable[[int, int], object] | None = None,
    threads: int | None = None,
    scheduler: str | None = None,
) -> int:
    """Encode all objects of a survey that this model has not encoded yet.

    With a scheduler the shards are handed to the workers of a Dask cluster, which must see the
    survey's folder; a worker that dies costs its shard's time and nothing else. The same function
    makes a shard's latents here and there, and this process alone writes them.

    Args:
        survey: The survey's folder.
        name: Name of a trained model of the survey; its latents get the same name. Or a baseline,
            ``statistics`` or ``features``, which is fitted first (:func:`fit_baseline`).
        progress: Called with the segments done and all segments after every chunk.
        threads: Threads of torch; none leaves them as they are. Workers use one each.
        scheduler: Address of a Dask scheduler, ``tcp://host:8786``; ``local`` starts a cluster of
            one worker a core; none encodes in this process. Dask comes with the extra ``survey``.

    Returns:
        How many segments were encoded now.

    Raises:
        CheckpointError: The model is missing or damaged.
        StoreError: Latents of another model lie under this name, or another process encodes.
        ValueError: The survey has none of the model's bands.
    """
    check_survey(survey)
    with lock(latents_folder(survey, name), "encode"):
        if name in BASELINES:
            fit_baseline(survey, name)
        checkpoint = load(model_folder(survey, name))
        total = sum(shard["rows"] for shard in object_shards(survey))
        waiting = _unfinished(survey, checkpoint)
        encoded = 0
        done = total - sum(shard["rows"] for shard in waiting)

        def count(rows: int) -> None:
            nonlocal encoded, done
            encoded, done = encoded + rows, done + rows
            if progress is not None:
                progress(done, total)

        if scheduler is None:
            with use_threads(threads):
                for shard in waiting:
                    latents = encode_shard(survey, checkpoint, shard["file"], count)
                    write_latents(survey, shard["file"], latents, shard["sha256"])
        else:
            for shard, latents in _on_cluster(survey, name, waiting, scheduler):
                write_latents(survey, shard["file"], latents, shard["sha256"])
                count(len(latents))
    if progress is not None:
        progress(total, total)
    return encoded


def _unfinished(survey: Path, checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Object shards whose latents are missing or older than the shard; strays are removed."""
    folder = latents_folder(survey, checkpoint.name)
    clean(folder)
    manifest = read_manifest(folder)
    if manifest.get("model_hash", checkpoint.hash) != checkpoint.hash:
        raise StoreError(
            f"{folder} holds latents of another model ({manifest['model_hash'][:12]}, not "
            f"{checkpoint.hash[:12]}); remove the folder to encode again"
        )
    finished = {shard["file"]: shard["objects_sha256"] for shard in manifest["shards"]}
    return [
        shard
        for shard in object_shards(survey)
        if shard["rows"] and finished.get(shard["file"]) != shard["sha256"]
    ]


def encode_shard(
    survey: Path,
    checkpoint: Checkpoint,
    file: str,
    report: Callable[[int], object] | None = None,
) -> Latents:
    """Encode one shard of objects, chunk by chunk.

    Args:
        survey: The survey's folder.
        checkpoint: A trained model.
        file: Name of the shard.
        report: Called with the number of segments of each chunk as it is finished.
    """
    vectors, errors = [], []
    parts: Iterator[tuple[int, tuple[NDArray[np.float32], NDArray[np.float32]]]]
    if survey_kind(survey) == "images":
        catalog, images = read_objects(survey, file, Images)
        parts = _image_parts(checkpoint, images)
    else:
        catalog, curves = read_objects(survey, file)
        parts = (
            (len(rows), encode_curves(checkpoint, curves.take(rows))) for rows in _chunks(curves)
        )
    for n, (vector, error) in parts:
        vectors.append(vector)
        errors.append(error)
        if report is not None:
            report(n)
    return _latents(checkpoint, catalog, vectors, errors)


def _on_cluster(
    survey: Path, name: str, shards: list[dict[str, Any]], scheduler: str
) -> Iterator[tuple[dict[str, Any], Latents]]:
    """Shards with their latents as a Dask cluster finishes them."""
    folder = str(survey.resolve())
    calls = [(folder, name, shard["file"]) for shard in shards]
    for i, latents in as_finished(_remote_shard, calls, scheduler):
        yield shards[i], latents


def _remote_shard(survey: str, name: str, file: str) -> Latents:
    """Encode a shard in a worker: one thread, the model loaded once a process."""
    with use_threads(1):
        return encode_shard(Path(survey), _loaded(survey, name), file)


@lru_cache(maxsize=4)
def _loaded(survey: str, name: str) -> Checkpoint:
    return load(model_folder(Path(survey), name))


def fit_baseline(
    survey: Path,
    name: str,
    *,
    objects: int = 5_000,
    min_points: int = 8,
    seed: int = 0,
    valid: float = 0.1,
    test: float = 0.1,
) -> Path:
    """Fit a code without a network on the train split, and store it like a model.

    What is already fitted stays as it is.

    Args:
        survey: The survey's folder.
        name: ``statistics`` (PCA of the log power spectrum and simple statistics) or ``features``
            (the light-curve package) of light curves, ``pixels`` (their PCA) or ``morphology``
            (concentration, asymmetry, Gini, ...) of images; also the name of the model and of
            its latents.
        objects: How many of the train split to fit on, chosen by the hash of their ids.
        min_points: Fewest points of those, where they are light curves.
        seed: Of the choice and of the split.
        valid: Fraction of the objects in the validation split; they are not fitted on.
        test: Fraction of the objects in the test split; they are not fitted on.

    Returns:
        The model's folder.

    Raises:
        ValueError: No such baseline, or too few curves to fit it on.
        ModuleNotFoundError: ``features`` needs the light-curve package.
    """
    if name not in BASELINES:
        raise ValueError(f"no baseline {name!r}; choose from {', '.join(BASELINES)}")
    if BASELINES[name].modality != survey_kind(survey):
        raise ValueError(
            f"{name} is a code of {BASELINES[name].modality}, but {survey} holds "
            f"{survey_kind(survey)}; choose from {', '.join(baselines_of(survey_kind(survey)))}"
        )
    folder = model_folder(survey, name)
    if is_finished(folder):
        return folder
    split_by = {"seed": seed, "valid": valid, "test": test}
    if BASELINES[name].modality == "images":
        table, data = _image_table(survey, name, objects, split_by)
    else:
        table, data = _curve_table(survey, name, objects, min_points, split_by)
    code = BASELINES[name].code.fit(table)
    recipe: Recipe = {"data": data, "model": {"name": name}}
    arrays = {key: torch.from_numpy(array) for key, array in code.arrays().items()}
    save(folder, recipe, arrays, {"model": name, "objects": {"train": len(table)}})
    return folder


def _curve_table(
    survey: Path, name: str, objects: int, min_points: int, split_by: dict[str, Any]
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    catalog, bands = read_catalog(survey, []), survey_bands(survey)
    parts = split(catalog.target, **split_by)
    key = hash_uniform(catalog.id.tolist(), seed=split_by["seed"], purpose="choice")
    train = np.flatnonzero(parts == "train")
    chosen = catalog.id[train[np.argsort(key[train], kind="stable")[:objects]]]
    tables = []
    for _, _, light in iterate_objects(survey):
        rows = np.flatnonzero(np.isin(light.id, chosen) & (light.lengths >= min_points))
        if len(rows):
            tables.append(BASELINES[name].measure(choose_bands(light.take(rows), bands)))
    if sum(map(len, tables)) < 2:
        raise ValueError(
            f"fewer than 2 curves of the train split of {survey} have {min_points} points; "
            "ingest more, or lower min_points"
        )
    data = {"curves": objects, "min_points": min_points, "bands": list(bands), **split_by}
    return np.concatenate(tables), data


def _image_table(
    survey: Path, name: str, objects: int, split_by: dict[str, Any]
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    size = min(64, *survey_shape(survey)[1:])
    scaling = image_scaling(survey, size=size, **split_by).facts()
    data = {
        "images": objects,
        "bands": list(survey_bands(survey)),
        "crop": 0,
        "size": size,
        "stretch": scaling["kind"],
        **{key: scaling[key] for key in ("sky", "soft", "top")},
        **split_by,
    }
    pixels, _, parts = image_training_set(survey, **data)
    if (parts == "train").sum() < 2:
        raise ValueError(f"fewer than 2 images of {survey} fall to the train split; ingest more")
    return BASELINES[name].measure(pixels[parts == "train"]), data


def encode_curves(
    checkpoint: Checkpoint, curves: LightCurves
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Encode light curves held in memory.

    Args:
        checkpoint: A trained model.
        curves: n light curves in bands the model knows (one band goes with one band).

    Returns:
        Vectors of shape (n, d), and the mean absolute difference between each curve and its
        reconstruction at up to 64 of its points, in units of the curve's own scatter, shape (n,):
        0 = reproduced exactly, about 0.8 = no better than the mean; NaN without points, and for
        baselines, which do not reconstruct.
    """
    if baseline := BASELINES.get(checkpoint.recipe["model"]["name"]):
        chosen = choose_bands(curves, checkpoint.recipe["data"]["bands"])
        coded = checkpoint.model.transform(baseline.measure(chosen)).vectors
        coded[chosen.lengths == 0] = 0
        return coded, np.full(len(curves), np.nan, np.float32)
    prepared = _prepare(checkpoint, curves)
    vectors = np.zeros((len(curves), checkpoint.model.latent), np.float32)
    errors = np.full(len(curves), np.nan, np.float32)
    with torch.inference_mode():
        for rows in _batches(prepared):
            batch = ragged(prepared, rows)
            code = checkpoint.model.code(batch)
            vectors[rows] = code[:, : checkpoint.model.latent].numpy()
            errors[rows] = _error(checkpoint, batch, code).numpy()
    return vectors, errors


def encode_images(
    checkpoint: Checkpoint, images: Images
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Encode images held in memory.

    Args:
        checkpoint: A trained model.
        images: n images, no smaller than the model's recipe asks for, in its bands (as many
            bands of other names are taken in their order).

    Returns:
        Vectors of shape (n, d), and the mean absolute difference between each image and its
        reconstruction over its measured pixels, in units of the image's own deviation, shape
        (n,); NaN without measured pixels, and where the model does not reconstruct.

    Raises:
        ValueError: The images are too small, or lack a band.
    """
    return _encode_prepared(checkpoint, _prepare_images(checkpoint, images))


def _prepare_images(checkpoint: Checkpoint, images: Images) -> NDArray[np.float32]:
    data = checkpoint.recipe["data"]
    return prepare_images(images, **{key: data[key] for key in PREPARED_BY})


def _encode_prepared(
    checkpoint: Checkpoint, pixels: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    name = checkpoint.recipe["model"]["name"]
    is_seen = ~np.isnan(pixels).all(axis=(1, 2, 3))
    errors = np.full(len(pixels), np.nan, np.float32)
    if name in BASELINES:
        coded = checkpoint.model.transform(BASELINES[name].measure(pixels)).vectors
        coded[~is_seen] = 0
        return coded, errors
    model = checkpoint.model
    vectors = np.zeros((len(pixels), model.latent), np.float32)
    rows = np.flatnonzero(is_seen)
    with torch.inference_mode():
        for start in range(0, len(rows), IMAGE_BATCH):
            part = rows[start : start + IMAGE_BATCH]
            batch = frames(pixels[part])
            code = model.code(batch)
            vectors[part] = code[:, : model.latent].numpy()
            if reconstructs(model):
                errors[part] = _image_error(batch, model.decode(code)).numpy()
    return vectors, errors


PREPARED_BY = ("bands", "crop", "size", "stretch", "sky", "soft", "top")
"""The keys of a recipe's ``[data]`` that say how images are prepared."""


def reconstructs(model: Any) -> bool:
    """Say whether a model draws what it has encoded."""
    return hasattr(model, "decode")


def _image_error(batch: Frames, drawn: torch.Tensor) -> torch.Tensor:
    """Mean absolute residual of each image over its deviation, (n,)."""
    mean = frame_mean(batch.pixels, batch)[:, None, None, None]
    deviation = frame_mean((batch.pixels - mean).square(), batch).sqrt()
    return frame_mean((drawn - batch.pixels).abs(), batch) / deviation.clamp(min=1e-6)


def reconstruct_images(checkpoint: Checkpoint, images: Images) -> tuple[Images, Images]:
    """Encode images and draw them again from their codes.

    Args:
        checkpoint: A trained model that reconstructs.
        images: n images in the model's bands.

    Returns:
        The images as the model was shown them and as it draws them, cropped and averaged as its
        recipe says, both in the flux unit of the images.

    Raises:
        ValueError: The model does not reconstruct.
    """
    name, data = checkpoint.recipe["model"]["name"], checkpoint.recipe["data"]
    if name in BASELINES or not reconstructs(checkpoint.model):
        raise ValueError(f"{checkpoint.name!r} draws nothing; choose a model that reconstructs")
    pixels = _prepare_images(checkpoint, images)
    drawn = np.empty_like(pixels)
    with torch.inference_mode():
        for start in range(0, len(images), IMAGE_BATCH):
            part = slice(start, start + IMAGE_BATCH)
            model = checkpoint.model
            drawn[part] = model.decode(model.code(frames(pixels[part]))).numpy()
    numbers = (np.asarray(data[key], np.float64) for key in ("sky", "soft", "top"))
    scaling = Scaling(data["stretch"], *numbers)
    bands = tuple(data["bands"])
    shown, again = (
        Images(images.id, scaling.undo(part), bands, flux_unit=images.flux_unit)
        for part in (pixels, drawn)
    )
    return shown, again


def reconstruct(checkpoint: Checkpoint, curves: LightCurves) -> Reconstruction:
    """Encode light curves and decode them at their own times.

    Args:
        checkpoint: A trained model.
        curves: Light curves in bands the model knows (one band goes with one band).

    Returns:
        The decoded light at every point, normalised and in flux.

    Raises:
        ValueError: The model is a baseline, which cannot decode.
    """
    if checkpoint.recipe["model"]["name"] in BASELINES:
        raise ValueError(f"{checkpoint.name!r} is a baseline and cannot decode; choose a model")
    prepared = _prepare(checkpoint, curves)
    known = _known_bands(checkpoint, curves)
    chosen = choose_bands(curves, checkpoint.recipe["data"]["bands"])
    curve = np.repeat(np.arange(len(curves)), chosen.lengths)
    # the same curves at the times before any rounding
    raw = replace(
        prepared,
        offsets=chosen.offsets,
        time=chosen.mjd - prepared.start[curve],
        value=np.zeros(len(curve), np.float32),
        error=np.full(len(curve), np.nan, np.float32),
        band=chosen.band,
    )
    decoded = np.full(len(curve), np.nan, np.float32)
    with torch.inference_mode():
        for rows in _batches(prepared):
            code = checkpoint.model.code(ragged(prepared, rows))
            points = np.isin(curve, rows)
            order = np.argsort(rows)
            times = ragged(raw, rows[order])
            decoded[points] = checkpoint.model.decode(code[torch.from_numpy(order)], times).numpy()
    value = np.full(len(curves.mjd), np.nan, np.float32)
    value[known] = decoded
    flux = np.full(len(curves.mjd), np.nan, np.float32)
    flux[known] = (
        decoded * prepared.scale[curve, chosen.band] + (prepared.level[curve, chosen.band])
    )
    return Reconstruction(value, flux)


def _prepare(checkpoint: Checkpoint, curves: LightCurves) -> Prepared:
    data = checkpoint.recipe["data"]
    chosen = choose_bands(curves, data["bands"])
    return prepare(chosen, round_days=data["round_days"], normalise=data["normalise"])


def _known_bands(checkpoint: Checkpoint, curves: LightCurves) -> NDArray[np.bool_]:
    """Points in bands the model knows, (N,)."""
    bands = checkpoint.recipe["data"]["bands"]
    if len(curves.bands) == 1 == len(bands):
        return np.ones(len(curves.mjd), bool)
    return np.isin(curves.band, [i for i, band in enumerate(curves.bands) if band in bands])


def _batches(prepared: Prepared) -> Iterator[NDArray[np.int64]]:
    """Rows of the curves with points, in batches of similar length."""
    lengths = np.diff(prepared.offsets)
    occupied = np.flatnonzero(lengths)
    for bucket in length_buckets(lengths[occupied]):
        yield occupied[bucket]


def _error(checkpoint: Checkpoint, batch: Ragged, code: torch.Tensor) -> torch.Tensor:
    """Mean absolute residual over evenly chosen points of each curve, (n,)."""
    length = batch.lengths[batch.curve]
    rank = torch.arange(len(batch.time)) - batch.offsets[:-1][batch.curve]
    wanted = length.clamp(max=CHECKED_POINTS)
    some = batch.keep((rank + 1) * wanted // length > rank * wanted // length)
    residual = (checkpoint.model.decode(code, some) - some.value).abs()
    total = torch.zeros(batch.n).index_add_(0, some.curve, residual)
    return total / some.lengths


def _chunks(curves: LightCurves) -> Iterator[NDArray[np.int64]]:
    """Rows in order, in chunks of a bounded number of points (or one longer curve)."""
    first = 0
    while first < len(curves):
        limit = curves.offsets[first] + CHUNK_POINTS
        last = int(np.searchsorted(curves.offsets, limit, side="right")) - 1
        last = min(max(last, first + 1), len(curves))
        yield np.arange(first, last)
        first = last


def _image_parts(
    checkpoint: Checkpoint, images: Images
) -> Iterator[tuple[int, tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    """Vectors and errors chunk by chunk; the next chunk is prepared while one is encoded."""
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[NDArray[np.float32]]] = deque()
        chunks = _image_chunks(images)
        for rows in islice(chunks, 2):
            waiting.append(pool.submit(_prepare_images, checkpoint, images.take(rows)))
        while waiting:
            pixels = waiting.popleft().result()
            for rows in islice(chunks, 1):
                waiting.append(pool.submit(_prepare_images, checkpoint, images.take(rows)))
            yield len(pixels), _encode_prepared(checkpoint, pixels)


def _image_chunks(images: Images) -> Iterator[slice]:
    """Rows in order, in chunks of a bounded number of pixels."""
    step = max(1, CHUNK_PIXELS // max(1, images.pixels[:1].size))
    for first in range(0, len(images), step):
        yield slice(first, min(first + step, len(images)))


def _latents(
    checkpoint: Checkpoint,
    catalog: Catalog,
    vectors: list[NDArray[np.float32]],
    errors: list[NDArray[np.float32]],
) -> Latents:
    return Latents(
        catalog.id,
        catalog.target,
        np.concatenate(vectors),
        checkpoint.name,
        checkpoint.hash,
        catalog.ra,
        catalog.dec,
        np.concatenate([np.zeros(0, np.float32), *errors]),
    )
