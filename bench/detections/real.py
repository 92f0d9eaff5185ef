"""Published figures, and what is learnt in simulation on real stamps."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detections.scales import SIDE
from detections.workbench import Bench, say

from skyvec.io.stamps import Triplet, read
from skyvec.prep.stamps import normalise
from skyvec.realbogus import metrics, suspects
from skyvec.realbogus.folds import divide
from skyvec.realbogus.frames import stamps_of_folder
from skyvec.realbogus.gallery import gallery
from skyvec.realbogus.samples import faults, join
from skyvec.realbogus.train import Draw, Samples, scores_of, split
from skyvec.schema import Catalog, Stamps
from skyvec.sim.frames import make_detectors
from skyvec.sim.stamps import simulate_stamps
from skyvec.store import iterate_objects


def real(bench: Bench) -> None:
    """Published figures, and real stamps."""
    folder = Path(bench.options.data)
    with np.load(folder / "scores" / "deephits_test_predictions.npz") as file:
        for name in ("cnn", "rf"):
            points = metrics.curve(file[f"{name}_p"], file[f"{name}_label"])
            fnr = 1 - points.tpr[points.at_fpr(0.01)]
            say(f"Deep-HiTS {name}: AUC {points.auc():.5f}, FNR {fnr:.2%} at FPR 1 %")
    ztf = triplets(bench, folder / "stamps" / "ztf_triplets.parquet")
    lsst = triplets(bench, folder / "stamps" / "lsst_triplets.parquet")
    kinds = np.array([str(t.columns["suggested_label"]) for t in ztf])
    # light that is new, and light of something the reference has already
    reference = normalise(np.stack([t.pixels for t in ztf]), "robust", side=SIDE)[:, 1]
    has_source = reference[:, 13:16, 13:16].mean((1, 2)) > 1
    is_turned = np.array([str(t.columns["cand_isdiffpos"]) in "f0" for t in ztf])
    likely = np.array([float(t.columns.get("rel") or 0.0) for t in lsst])
    size, n = bench.size, bench.size.reals + bench.size.bogus

    def simulated(seed: int, name: str, **options: Any) -> Samples:
        rng = np.random.default_rng(seed)
        make = partial(simulate_stamps, size.reals, size.bogus, rng, name=name, **options)
        return bench.made(f"real-{seed}", make)

    wide = make_detectors(8, seed=3, focus=3.5)
    learn = {
        "stars": simulated(21, "a"),
        "variables": simulated(22, "b", variables=0.5),
        "fading": simulated(23, "c", variables=0.5, negative=True),
        "frames": bench.made("real-frames", lambda: real_frames(bench, folder / "frames")),
        "wide": simulated(
            24, "d", variables=0.3, negative=True, detectors=wide, magnitudes=(12.1, 17.3)
        ),
    }
    learn["all five"] = join(list(learn.values()))
    say(f"learnt from {n:,} simulated stamps, {len(learn['frames']):,} of real frames, joined")
    nights = {"ztf": (ztf, "group"), "lsst": (lsst, "cand_visit")}
    stamps = {name: night(bench, *night, name) for name, night in nights.items()}
    arms: list[tuple[str, str, dict[str, Any]]] = [
        *((name, "", {}) for name in ("stars", "variables", "fading")),
        ("fading", "ztf", {"mmd": 0.3}),
        ("fading", "ztf", {"mmd": 0.3, "match": "whole"}),
        *((name, "", {}) for name in ("frames", "wide", "all five")),
        ("all five", "lsst", {"mmd": 0.3}),
    ]
    for name, to, loss in arms:
        scores = {}
        for night, (one, half) in stamps.items():
            if to in ("", night):
                scores[night] = adapted(bench, learn[name], name, one, half, to, loss)
        title = name + (f", adapted to {to} {loss}" if to else "")
        if "lsst" in scores:
            score, high = scores["lsst"], (likely > 0.5).astype(int)
            auc = metrics.auc(score, high)
            kept = [(int((score[high == k] >= 0).sum()), int((high == k).sum())) for k in (1, 0)]
            low, top = _interval(score, high, stamps["lsst"][0].id)
            say(
                f"  {title}: LSST by reliability AUC {auc:.3f} ({low:.3f} to {top:.3f}); kept "
                f"{kept[0][0]} of {kept[0][1]} above .5, {kept[1][0]} of {kept[1][1]} below"
            )
            bench.result[f"lsst_{title}"] = {"auc": auc, "interval": [low, top], "kept": kept}
        if "ztf" not in scores:
            continue
        score = scores["ztf"]
        cuts = {kind: kinds == kind for kind in np.unique(kinds)}
        braai = cuts.pop("real_braai>0.9")
        cuts |= {
            "braai>0.9, new": braai & ~has_source,
            "braai>0.9, brighter": braai & has_source & ~is_turned,
            "braai>0.9, fainter": braai & has_source & is_turned,
        }
        known = cuts["real_asteroid"] | cuts["bogus"]
        truth = cuts["real_asteroid"][known].astype(int)
        auc = metrics.auc(score[known], truth)
        low, top = _interval(score[known], truth, stamps["ztf"][0].exposure[known])
        found = {cut: (int((score[rows] >= 0).sum()), int(rows.sum()))
                 for cut, rows in cuts.items()}  # fmt: skip
        say(f"  {title}: asteroids against bogus AUC {auc:.4f} ({low:.4f} to {top:.4f}); kept "
            + ", ".join(f"{cut} {k} of {m}" for cut, (k, m) in found.items()))  # fmt: skip
        bench.result[f"ztf_{title}"] = {"auc": auc, "interval": [low, top], **found}
        if bench.options.gallery:
            order = np.argsort(-score)
            wrong = [i for i in order if kinds[i] == "bogus"][:12]
            wrong += [i for i in order[::-1] if kinds[i].startswith("real")][:24]
            truth = np.char.startswith(kinds[wrong], "real").astype(np.int64)
            page = Path(bench.options.gallery) / f"{len(bench.result)}-{name}.html"
            gallery(
                page, np.array([ztf[i].id for i in wrong]),
                np.stack([ztf[i].pixels for i in wrong]),
                truth, score[wrong],
                suspects.doubt(score[wrong], truth),
                notes=[str(kinds[i]) for i in wrong], title=f"ZTF, learnt from {title}",
            )  # fmt: skip


def night(
    bench: Bench, taken: list[Triplet], column: str, name: str
) -> tuple[Samples, np.ndarray]:
    """Unlabelled samples of real stamps, and in which half of the nights each is."""
    night = np.array([str(t.columns[column]) for t in taken])
    names = np.array([f"{name}{i}" for i in range(len(taken))])
    pixels = normalise(np.stack([t.pixels for t in taken]), "asinh", side=SIDE)
    unknown = np.full(len(taken), -1)
    samples = Samples(names, pixels, unknown, np.full(len(taken), name), night, names)
    return samples, divide(names, night, [0.5, 0.5])


def adapted(
    bench: Bench,
    learn: Samples,
    name: str,
    night: Samples,
    half: np.ndarray,
    to: str,
    loss: dict[str, Any],
) -> np.ndarray:
    """Scores above the threshold of validation stamps; no stamp by a network adapted to it."""
    score = np.full(len(night), np.nan)
    for k in (0, 1) if to else (2,):
        target = night.take(np.flatnonzero(half == k)) if to else None
        way = f"-{to}{k}-{loss.get('match', 'class')}" if to else ""
        recipe = bench.recipe("simple", loss, 0, steps=300)
        model = bench.train(learn, recipe, f"real-{name}{way}", target=target)
        look = learn.take(np.flatnonzero(split(learn, Draw(test=0.0)) == 1))
        at = metrics.best_threshold(scores_of(model, look.pixels), look.label)["threshold"]
        rows = half != k
        score[rows] = scores_of(model, night.pixels[rows]) - at
    return score


def triplets(bench: Bench, path: Path) -> list[Triplet]:
    """Stamps of alerts that can be scored."""
    found = list(read(path, size=63 if "ztf" in path.name else SIDE))
    taken = [t for t in found if isinstance(t, Triplet)]
    for t in taken:  # as ZTF sends them and alerts are read: bright in the difference
        if float(t.columns.get("cand_psfFlux") or 1.0) < 0:
            t.pixels[2] *= -1
    pixels = [t.pixels[None] for t in taken]
    good = [bool(faults(p, SIDE)[0] == "") for p in pixels]
    say(f"{path.stem}: {len(found)} read, {len(taken)} taken, {sum(good)} scored")
    return [t for t, fine in zip(taken, good) if fine]


def real_frames(bench: Bench, folder: Path) -> tuple[Stamps, Catalog]:
    """Detections on real frames, with artificial stars as the reals."""
    work = bench.folder / "frames"
    work.mkdir(parents=True, exist_ok=True)
    rows = ["new,reference,detector"]
    for place in sorted(folder.iterdir()):
        files = sorted(place.iterdir())
        for i, new in enumerate(files):
            for step in range(1, min(4, len(files))):
                other = files[(i + step) % len(files)]
                rows.append(f"{new.resolve()},{other.resolve()},{place.name}")
    (work / "pairs.csv").write_text("\n".join(rows) + "\n")
    stored, refused = stamps_of_folder(work, work / "survey", embedded=150)
    parts = list(iterate_objects(work / "survey", Stamps))
    say(f"{len(rows) - 1} pairs of real frames, {refused} refused now, {stored} stored now")
    stamps = [stamps for _, _, stamps in parts]
    columns = {"is_real": np.concatenate([c.columns["label"] == "real" for _, c, _ in parts])}
    whole = Stamps(*(
        np.concatenate([getattr(s, name) for s in stamps])
        for name in ("id", "pixels", "detector", "exposure", "object")
    ))  # fmt: skip
    unknown = np.full(len(whole), np.nan)
    return whole, Catalog(whole.id, whole.object, unknown, unknown.copy(), columns)


def _interval(score: np.ndarray, label: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """95 % interval of the AUC by whole nights or stamps."""
    drawn = metrics.resampled(score, label, group, np.random.default_rng(0), draws=400)["auc"]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
