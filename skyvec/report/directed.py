"""Directed search: ask a survey for a signal that nobody has seen yet."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from skyvec import store
from skyvec.analysis.directed import Contrast, ranking
from skyvec.analysis.matched import Bank, SecondLook, filtered, median_span
from skyvec.batches import join
from skyvec.checkpoint import Checkpoint, load
from skyvec.encode import encode_curves, reconstruct
from skyvec.prep.codes import BASELINES
from skyvec.prep.lightcurves import prepare
from skyvec.report import pictures
from skyvec.report.answers import checked_latents
from skyvec.report.remember import Answer, remember
from skyvec.report.searching import InMemory, Which
from skyvec.schema import Floats, Ints, Latents, LightCurves
from skyvec.sim.signals import Drawable, Template, cloud_in

DRAWS = 256
"""Members of the query's cloud."""

LENDERS = 400
"""So many segments of the survey, taken at random, may lend their stamps and noise."""

LOOKED = 128
"""Members of the cloud, and of the lenders, that tell a second look what it is worth."""

SHOWN = 3
"""Members of the cloud in the picture."""


def search_signal(
    survey: Path,
    model: str,
    signal: Drawable,
    *,
    k: int = 20,
    draws: int = DRAWS,
    seed: int = 0,
    check: int = 0,
    which: Which | None = None,
) -> tuple[Answer, Path]:
    """Rank a survey by how much each object looks like a signal rather than like the survey.

    The signal is drawn into curves of the survey, each time with other phases, free parameters
    and, where its size is left open, another depth; the cloud of their codes is held against the
    codes of the survey (:class:`skyvec.analysis.directed.Contrast`). Each object stands once, by
    its best segment. The picture shows some of the cloud in red and the first answers in black,
    with what the decoder makes of each.

    Args:
        survey: The survey's folder.
        model: Whose latents are searched.
        signal: What to look for.
        k: How many answers.
        draws: Members of the cloud.
        seed: Of the draws.
        check: So many segments, the best by code, are looked at again in their light curves, by
            matched filters (:class:`skyvec.analysis.matched.SecondLook`), and only they answer.
        which: What may answer; the survey that the signal is held against stays whole.

    Returns:
        Columns rank, id, target, score, segments, ra, dec, and the picture's path. A score above 0
        says: nearer to the signal than to the rest of the survey; after a second look it is the
        log odds [nat] of the signal against the survey, as many of each.

    Raises:
        ValueError: k < 1, fewer to check than to answer, the survey holds no light curve to draw
            into, or ``which`` asks for a distance from the query, which has no place.
    """
    which = which or Which()
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if check and check < k:
        raise ValueError(f"a second look at {check} segments cannot give {k} answers; check more")
    if which.apart:
        raise ValueError("a signal stands nowhere on the sky, so nothing can be apart from it")
    checkpoint = load(store.model_folder(survey, model))
    arguments: dict[str, Any] = {
        "signal": str(signal),
        "digest": _digest(signal),
        "k": k,
        "draws": draws,
        "seed": seed,
        "check": check,
        "which": which.arguments(),
    }
    path = store.answers_folder(survey, "directed", model) / "directed.png"

    def make() -> tuple[pa.Table, dict[str, Any]]:
        latents = checked_latents(survey, model)
        query = _ask(survey, checkpoint, latents, signal, draws, seed)
        score = query.contrast.score(latents.vectors, latents.target)
        among = which.mask(InMemory(survey, latents))
        if among is not None:
            score = np.where(among, score, -np.inf)
        if check:
            score = _look_again(survey, latents, signal, query, score, check, seed)
        order = ranking(score, latents.target)
        order = order[np.isfinite(score[order])]
        table = _table(latents, score, order[:k])
        # before the answer counts as made, so that a picture always belongs to its table
        content = pictures.png(_draw(survey, checkpoint, query.cloud, table))
        store.write_atomic(path, lambda temporary: temporary.write_bytes(content))
        facts = {"signal": str(signal), "searched": len(latents), "objects": len(order)}
        return table, facts | {"picture": hashlib.sha256(content).hexdigest()}

    answer = remember(survey, "directed", model, arguments, make)
    return answer, path


def _digest(signal: Drawable) -> str:
    if isinstance(signal, Template):
        return hashlib.sha256(signal.time.tobytes() + signal.flux.tobytes()).hexdigest()
    return ""


class _Query(NamedTuple):
    """A cloud and what it is held against.

    Args:
        cloud: Members, those that show the signal best first, m.
        score: Theirs by code, shape (m,).
        lenders: Curves of the survey that may have lent their stamps and noise.
        rows: Their rows among the latents.
        contrast: The cloud's codes held against the survey's.
    """

    cloud: LightCurves
    score: Floats
    lenders: LightCurves
    rows: Ints
    contrast: Contrast


def _ask(
    survey: Path,
    checkpoint: Checkpoint,
    latents: Latents,
    signal: Drawable,
    draws: int,
    seed: int,
) -> _Query:
    """Draw the cloud and hold it against the survey."""
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(np.any(latents.vectors != 0, axis=1))
    lenders = np.sort(rng.permutation(usable)[:LENDERS])
    curves = store.find_curves(survey, latents.id[lenders].tolist())
    cloud, rows = cloud_in(curves, signal, rng, draws=draws)
    codes = encode_curves(checkpoint, cloud)[0]
    target = latents.target[lenders[rows]]
    contrast = Contrast(codes, target, latents.vectors, latents.target)
    score = contrast.score(codes, target)
    clearest = np.argsort(-score, kind="stable")
    return _Query(cloud.take(clearest), score[clearest], curves, lenders, contrast)


def _look_again(
    survey: Path,
    latents: Latents,
    signal: Drawable,
    query: _Query,
    score: Floats,
    check: int,
    seed: int,
) -> Floats:
    """Log odds of the best by code after a look at their curves, -inf of the others, (n,)."""
    rng = np.random.default_rng([seed, 1])
    bank = Bank(signal, median_span(query.lenders), rng)
    some = np.sort(rng.permutation(len(query.cloud))[:LOOKED])
    others = np.sort(rng.permutation(len(query.lenders))[:LOOKED])
    rows = query.rows[others]
    second = SecondLook(
        query.score[some],
        filtered(query.cloud.take(some), bank),
        query.contrast.score(latents.vectors[rows], latents.target[rows]),
        filtered(query.lenders.take(others), bank),
    )
    best = np.argsort(-score, kind="stable")[:check]
    best = best[np.isfinite(score[best])]
    odds = np.full(len(score), -np.inf)
    curves = store.find_curves(survey, latents.id[best].tolist())
    odds[best] = second.odds(score[best], filtered(curves, bank))
    return odds


def _table(latents: Latents, score: Floats, rows: Ints) -> pa.Table:
    names, counts = np.unique(latents.target, return_counts=True)
    return pa.table(
        {
            "rank": np.arange(1, len(rows) + 1),
            "id": latents.id[rows],
            "target": latents.target[rows],
            "score": score[rows],
            "segments": counts[np.searchsorted(names, latents.target[rows])],
            "ra": latents.ra[rows],
            "dec": latents.dec[rows],
        }
    )


def _draw(survey: Path, checkpoint: Checkpoint, cloud: LightCurves, table: pa.Table) -> Figure:
    """Some of the query in red, the first answers in black, what is decoded over both."""
    rows = table.to_pylist()[: 4 * SHOWN]
    shown = np.arange(min(SHOWN, len(cloud)))
    parts = [cloud.take(shown), store.find_curves(survey, [row["id"] for row in rows])]
    prepared = [prepare(part, round_days=0) for part in parts]
    models = None
    if checkpoint.recipe["model"]["name"] not in BASELINES:
        models = [
            model
            for part, ready in zip(parts, prepared)
            for model in pictures.decoded_models(part, ready, reconstruct(checkpoint, part).flux)
        ]
    captions = [f"query {i + 1}\n{str(parts[0].id[i])[:60]}" for i in range(len(shown))]
    captions += [f"{row['rank']}. {row['id']}\nscore {row['score']:.2f}" for row in rows]
    colours = [pictures.QUERY_COLOUR] * len(shown) + [pictures.INK] * len(rows)
    return pictures.curve_grid(
        join(prepared),
        np.arange(len(captions)),
        captions,
        across=SHOWN,
        colours=colours,
        models=models,
        fade=False,
    )
