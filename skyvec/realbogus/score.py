"""Score a night: any number of stamps in bounded memory, and from where it was stopped.

One network alone, or a cascade: a fast network screens, and only what it cannot rule out goes to
the one that decides. Threads work on blocks of stamps; a shard of scores is written for each shard
of stamps, and a manifest says which are done.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from skyvec.prep.stamps import normalise
from skyvec.realbogus.calibration import Calibration
from skyvec.realbogus.metrics import clopper_pearson
from skyvec.realbogus.samples import faults
from skyvec.realbogus.train import scores_of
from skyvec.schema import Floats, Ints
from skyvec.store import (
    StoreError,
    clean,
    lock,
    object_shards,
    read_ahead,
    read_manifest,
    read_stamp_block,
    sha256,
    shard_name,
    stamp_blocks,
    write_manifest,
    write_table,
)

BLOCK = 384
"""Stamps a thread takes at a time, at least; a row group of 29 pixels is read without a copy."""
COUNTS = ("received", "scored", "screened", "flagged")
"""What is counted: the first is the sum of the others."""
LOST = 1e-3
"""Fraction of the reals at the operating threshold that a screen may lose."""
SURE = 0.95
"""How sure it must be that it does not lose more."""

Engine = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class Judge:
    """A classifier as a night needs it.

    Args:
        engine: Normalised stamps (n, 3, side, side) -> scores (n,).
        scale: How stamps are normalised, of ``prep.stamps.SCALES``.
        side: [px] of the square it sees.
        hash: Of its weights and recipe.
    """

    engine: Engine
    scale: str
    side: int
    hash: str


@dataclass(frozen=True)
class Scored:
    """What is known of some detections after scoring.

    Args:
        score: z_1 - z_0 of the network that decides; NaN where screened out or not scorable.
        screen: The same of the screening network; NaN without one, or where not scorable.
        reason: Why there is no score: empty, ``screened``, or what is wrong with the stamp.
    """

    score: NDArray[np.float64]
    screen: NDArray[np.float64]
    reason: NDArray[np.str_]


def eager(net: nn.Module) -> Engine:
    """Score with the network's own layers."""
    return lambda pixels: scores_of(net, pixels)


def turned(engine: Engine) -> Engine:
    """Score with the mean over the eight orientations of a stamp, turned and mirrored.

    A detection is as real whichever way it lies, and a network learns that only nearly. Takes
    eight times as long.
    """

    def mean(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
        ways = [np.rot90(pixels, k, (2, 3)) for k in range(4)]
        ways += [way[..., ::-1] for way in ways]
        return np.mean([engine(np.ascontiguousarray(way)) for way in ways], axis=0)

    return mean


def score_block(
    pixels: NDArray[np.float32],
    judge: Judge,
    screen: Judge | None = None,
    pass_at: float = -np.inf,
) -> Scored:
    """Score raw stamps.

    Args:
        pixels: Shape (n, 3, y, x), NaN or sentinels where nothing was measured.
        judge: The network that decides.
        screen: The network that screens, if any.
        pass_at: Score of the screen from which a stamp goes on.
    """
    n = len(pixels)
    reason = faults(pixels, judge.side)
    score, screened = np.full(n, np.nan), np.full(n, np.nan)
    rows = np.flatnonzero(reason == "")
    ready: NDArray[np.float32] | None = None
    if screen is not None and len(rows):
        ready = normalise(_of(pixels, rows), screen.scale, side=screen.side)
        screened[rows] = screen.engine(ready)
        go_on = screened[rows] >= pass_at
        reason[rows[~go_on]] = "screened"
        rows = rows[go_on]
        same = (screen.scale, screen.side) == (judge.scale, judge.side)
        ready = ready[go_on] if same else None
    if len(rows):
        if ready is None:
            ready = normalise(_of(pixels, rows), judge.scale, side=judge.side)
        score[rows] = judge.engine(ready)
    return Scored(score, screened, reason)


def _of(pixels: NDArray[np.float32], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Some of the stamps, not copied if they are all."""
    return pixels if len(rows) == len(pixels) else pixels[rows]


def screen_threshold(
    screen: Floats, score: Floats, label: Ints, threshold: float, *, lost: float = LOST
) -> float:
    """Choose where a screen may stop stamps: the highest score that surely loses few reals.

    A fraction of which k were seen among n is known to an interval only; the upper end of
    Clopper's and Pearson's, with ``SURE`` below it, must not exceed ``lost``. With fewer than
    3,000 reals no score is that sure for 0.001; then all of them pass.

    Args:
        screen: Scores of the screening network, shape (n,).
        score: Scores of the deciding network, shape (n,).
        label: 1 real, 0 bogus, shape (n,).
        threshold: Operating threshold of the deciding network.
        lost: Fraction of the reals at or above that threshold which may be lost.
    """
    wanted = np.sort(np.asarray(screen)[(np.asarray(label) == 1) & (score >= threshold)])
    if not len(wanted):
        raise ValueError("no real passes the operating threshold; a screen cannot be chosen")
    k = 0
    while k + 1 < len(wanted) and _at_most(k + 1, len(wanted)) <= lost:
        k += 1
    return float(wanted[k])


def screen_loss(
    screen: Floats, score: Floats, label: Ints, threshold: float, pass_at: float
) -> dict[str, float]:
    """Count the reals that a screen costs.

    Args:
        screen: Scores of the screening network, shape (n,).
        score: Scores of the deciding network, shape (n,).
        label: 1 real, 0 bogus, shape (n,).
        threshold: Operating threshold of the deciding network.
        pass_at: Score of the screen from which a stamp goes on.

    Returns:
        ``reals`` at or above the operating threshold, how many of them are ``lost``, and the
        fraction lost ``at_most``, with ``SURE`` below it.
    """
    wanted = np.asarray(screen)[(np.asarray(label) == 1) & (score >= threshold)]
    lost = int((wanted < pass_at).sum())
    return {"reals": len(wanted), "lost": lost, "at_most": _at_most(lost, len(wanted))}


def _at_most(k: int, n: int) -> float:
    return clopper_pearson(k, n, 2 * SURE - 1)[1]


def score_survey(
    survey: Path,
    out: Path,
    judge: Judge,
    *,
    screen: Judge | None = None,
    pass_at: float = -np.inf,
    calibration: Calibration | None = None,
    prevalence: float | None = None,
    workers: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, int]:
    """Score every stamp of a survey, or go on with it.

    Shards that are done are not scored again; where calibration or prevalence have changed since,
    their probabilities are made anew from the scores.

    Args:
        survey: A survey of stamps.
        out: Folder of the shards of scores: ``id``, ``score``, ``screen``, ``probability`` (of
            being real; NaN without a score or a calibration) and ``reason``.
        judge: The network that decides.
        screen: The network that screens, if any.
        pass_at: Score of the screen from which a stamp goes on.
        calibration: Of the judge's scores.
        prevalence: Of reals among the detections of this night; none for that of the calibration.
        workers: Threads, a block of stamps each.
        progress: Called with the stamps done and their number.

    Returns:
        Counts ``received`` = ``scored`` + ``screened`` + ``flagged``.

    Raises:
        StoreError: The folder holds scores of other networks or of a survey that has changed, or
            another process scores into it.
    """
    shards = object_shards(survey)
    with lock(out, "realbogus score"):
        clean(out)
        manifest = read_manifest(out)
        made_by = [judge.hash, screen.hash if screen else "", repr(float(pass_at))]
        if manifest.setdefault("made_by", made_by) != made_by:
            raise StoreError(
                f"{out} holds scores of other networks, of another screen or other turns; remove "
                "it to score anew"
            )
        done = manifest["shards"]
        if len(done) > len(shards) or any(
            old["of"] != shard["sha256"] for old, shard in zip(done, shards)
        ):
            raise StoreError(f"{survey} has changed since {out} was begun; remove {out}")
        scale = hashlib.sha256(repr((calibration, prevalence)).encode()).hexdigest()
        for i, old in enumerate(done):
            if old.get("scale") != scale:  # the scores stay, what they mean has changed
                _rescale(out / old["file"], calibration, prevalence)
                done[i] = {**old, "sha256": sha256(out / old["file"]), "scale": scale}
                write_manifest(out, manifest)
        counts = {name: sum(old[name] for old in done) for name in COUNTS}
        total = sum(shard["rows"] for shard in shards)

        def score(pixels: NDArray[np.float32]) -> Scored:
            return score_block(pixels, judge, screen, pass_at)

        left = shards[len(done) :]
        with closing(_scored_shards(survey, left, score, workers)) as made:
            for shard, parts in zip(left, made):
                file = shard_name(len(done))
                table, here = _table(parts, calibration, prevalence)
                write_table(out / file, table)
                facts = {"of": shard["sha256"], "sha256": sha256(out / file), "scale": scale}
                done.append({"file": file, **facts, **here})
                write_manifest(out, manifest)
                counts = {name: n + here[name] for name, n in counts.items()}
                if progress is not None:
                    progress(counts["received"], total)
    return counts


def _scored_shards(
    survey: Path,
    shards: Sequence[Mapping[str, Any]],
    score: Callable[[NDArray[np.float32]], Scored],
    workers: int,
) -> Generator[list[tuple[pa.ChunkedArray, Scored]], None, None]:
    """Ids and scores of the blocks of each shard, read and scored by threads."""

    def block(file: str, groups: list[int]) -> tuple[pa.ChunkedArray, Scored]:
        id, pixels = read_stamp_block(survey, file, groups)
        return id, score(pixels)

    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def begin(shard: Mapping[str, Any]) -> list[Future[tuple[pa.ChunkedArray, Scored]]]:
            file = shard["file"]
            read_ahead(survey, file)
            return [pool.submit(block, file, g) for g in stamp_blocks(survey, file, BLOCK)]

        ahead = begin(shards[0]) if shards else []
        try:
            for i in range(len(shards)):
                # the next shard is begun before this one ends, so that no thread waits
                jobs, ahead = ahead, begin(shards[i + 1]) if i + 1 < len(shards) else []
                yield [job.result() for job in jobs]
        finally:
            for job in ahead:
                job.cancel()


def _rescale(path: Path, calibration: Calibration | None, prevalence: float | None) -> None:
    """Give a stored shard of scores the probabilities of another calibration or prevalence."""
    table = pq.read_table(path)
    column = _probability(table["score"].to_numpy(), calibration, prevalence)
    place = table.column_names.index("probability")
    write_table(path, table.set_column(place, "probability", pa.array(column)))


def _probability(
    score: Floats, calibration: Calibration | None, prevalence: float | None
) -> NDArray[np.float64]:
    """Probability of being real, NaN without a score or a calibration."""
    probability = np.full(len(score), np.nan)
    known = np.isfinite(score)
    if calibration is not None:
        probability[known] = calibration.probability(score[known], prevalence)
    return probability


def _table(
    blocks: list[tuple[pa.ChunkedArray, Scored]],
    calibration: Calibration | None,
    prevalence: float | None,
) -> tuple[pa.Table, dict[str, int]]:
    none: list[Any] = [np.zeros(0)]
    parts = [scored for _, scored in blocks]
    keys = [chunk for id, _ in blocks for chunk in id.chunks]
    score = np.concatenate(none + [part.score for part in parts])
    reason = np.concatenate([np.zeros(0, "<U1"), *(part.reason for part in parts)])
    known = np.isfinite(score)
    screened = int((reason == "screened").sum())
    counts = {
        "rows": len(score),
        "received": len(score),
        "scored": int(known.sum()),
        "screened": screened,
        "flagged": len(score) - int(known.sum()) - screened,
    }
    table = pa.table(
        {
            "id": pa.chunked_array(keys, pa.string()),
            "score": score,
            "screen": np.concatenate(none + [part.screen for part in parts]),
            "probability": _probability(score, calibration, prevalence),
            "reason": pa.array(reason).dictionary_encode(),
        }
    )
    return table, counts
