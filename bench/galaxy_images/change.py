"""What is left of a code in another survey, and what adaptation gives back."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from galaxy_images.figures import balanced, interval, rounded
from galaxy_images.networks import NETWORKS, Pixels, built, encoder, learn, once, train
from galaxy_images.real_set import pictures
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skyvec.analysis.probes import probe
from skyvec.batches import frames
from skyvec.index.exact import ExactIndex
from skyvec.prep.images import Scaling
from skyvec.sim.galaxies import TELESCOPES, simulate_galaxies
from skyvec.studies.adaptation import Adapting, Both

FEWEST = 64
"""Images a step of adaptation, of each survey: MMD compares whole samples."""


def two_sample(one: NDArray, other: NDArray) -> float:
    """Balanced accuracy of a forest that tells the surveys apart; 0.5 = it cannot."""
    both = np.concatenate([one, other])
    survey = np.repeat(["one", "other"], [len(one), len(other)])
    (row,) = probe(
        both, survey, np.arange(len(both)), rng=np.random.default_rng(0), probes=["forest"],
        folds=3, replicates=0, jobs=1,
    )  # fmt: skip
    return row.balanced_accuracy


def recall_of_partners(one: NDArray, other: NDArray, k: int) -> float:
    """Share of the galaxies whose image in the other survey is among the k nearest there."""
    _, found = ExactIndex(other).search(one, k)
    return float((found == np.arange(len(one))[:, None]).any(axis=1).mean())


def learned(vectors: NDArray, labels: NDArray):
    """A logistic regression on standardised columns, classes weighed alike."""
    model = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=3000)
    )
    return model.fit(vectors, labels)


def adapt(
    name: str,
    model: nn.Module,
    source: Pixels,
    target: Pixels,
    seconds: float,
    *,
    weight: float,
    paired: bool,
) -> int:
    """Go on training on both surveys, with a term that brings their codes together."""
    generator = torch.Generator().manual_seed(1)
    batch = max(FEWEST, NETWORKS[name].batch)
    with torch.no_grad():
        scale = abs(float(model.eval().loss(frames(source[:batch]), generator)[0]))
    adapting = Adapting(model, scale=scale, weight=weight, pairs=1.0 if paired else 0.0)

    def draw(rng: np.random.Generator) -> Both:
        most = min(batch, len(source), len(target))
        first = rng.choice(len(source), most, replace=False)
        second = first if paired else rng.choice(len(target), most, replace=False)
        return Both(frames(source[first]), frames(target[second]))

    return learn(name, adapting, draw, seconds, 1)


def survey_change(
    n: int,
    seconds: float,
    adapting: float,
    weight: float,
    own_scaling: bool,
    networks: list[str],
    keep: Path | None,
) -> dict:
    """Part 2 on simulated pairs; pixels of the target scaled as the source's, or by their own."""
    (catalog, one), (_, other) = simulate_galaxies(
        n, np.random.default_rng(7), telescopes=[TELESCOPES["sdss"], TELESCOPES["decals"]],
        artefacts=0.0,
    )  # fmt: skip
    labels = catalog.columns["label"]
    test = np.arange(n) % 4 == 0
    truth = labels[test]
    scaling = Scaling.fit(one.pixels[~test])
    theirs = Scaling.fit(other.pixels[~test]) if own_scaling else scaling
    source, target = scaling.apply(one.pixels), theirs.apply(other.pixels)
    found: dict = {}
    for name in networks:
        model = built(name, seed=0)
        about = f"change{'-own' if own_scaling else ''}-{name}-{n}-{seconds:g}s"
        once(
            keep, f"{about}-before", model,
            partial(train, name, model, source[~test], seconds, 0),
        )  # fmt: skip
        start = {key: value.clone() for key, value in model.state_dict().items()}
        result: dict = {}
        guesses = {}
        for form in ("before", "mmd", "pairs"):
            if form != "before":
                model.load_state_dict(start)
                once(
                    keep, f"{about}-{form}-{adapting:g}s-{weight:g}", model,
                    partial(
                        adapt, name, model, source[~test], target[~test], adapting,
                        weight=weight, paired=form == "pairs",
                    ),
                )  # fmt: skip
            codes = [encoder(model)(pixels) for pixels in (source, target)]
            probes = [learned(code[~test], labels[~test]) for code in codes]
            asked = {
                "source": probes[0].predict(codes[0][test]),
                "target": probes[0].predict(codes[1][test]),
                "own": probes[1].predict(codes[1][test]),
            }
            guesses[form] = asked
            result[form] = {
                **{
                    part: interval(lambda i, guess=guess: balanced(truth[i], guess[i]), len(truth))
                    for part, guess in asked.items()
                },
                "told_apart": two_sample(codes[0][test], codes[1][test]),
                "recall_1": recall_of_partners(codes[0][test], codes[1][test], 1),
                "recall_10": recall_of_partners(codes[0][test], codes[1][test], 10),
            }
            print(f"simulated pairs, {name}, {form}: {json.dumps(rounded(result[form]))}")

        def lost(rows: NDArray, form: str, guesses=guesses) -> float:
            asked = guesses["before"]["source"], guesses[form]["target"]
            source_score, target_score = (balanced(truth[rows], g[rows]) for g in asked)
            return source_score - target_score

        def recovered(rows: NDArray, form: str) -> float:
            drop = lost(rows, "before")
            return 1 - lost(rows, form) / drop if drop else float("nan")

        result["drop"] = interval(lambda rows: lost(rows, "before"), len(truth))
        for form in ("mmd", "pairs"):
            result[f"recovered_{form}"] = interval(
                lambda rows, form=form: recovered(rows, form), len(truth)
            )
            text = json.dumps(rounded({k: result[k] for k in ("drop", f"recovered_{form}")}))
            print(f"simulated pairs, {name}: {text}", flush=True)
        found[name] = result
    return found


def real_change(
    pixels: Pixels,
    table: dict,
    seconds: float,
    adapting: float,
    weight: float,
    networks: list[str],
    keep: Path | None,
) -> dict:
    """Part 2 on SDSS and DECaLS.

    The DECaLS sample is of featured discs seen face-on, with rings or without, none with arms by
    the votes, and none is known to be in the SDSS sample. So there are no partners to find, and
    of the classes only this can be said: ``edge_on`` and ``elliptical`` are wrong, ``spiral`` is
    the class of the others of their kind. The surveys are told apart, and brought together, by
    the SDSS spirals (``mmd, spirals``), which are the most alike, as well as by all (``mmd``).
    """
    there, _ = pictures("decals_rings", None)
    labels = np.char.replace(np.char.replace(table["label"], "_acw", ""), "_cw", "")
    known, spiral = labels != "unknown", labels == "spiral"
    source = Scaling.fit(pixels, "linear").apply(pixels)
    target = Scaling.fit(there, "linear").apply(there)
    n = len(target)
    result: dict = {
        "sdss": int(known.sum()), "sdss_spirals": int(spiral.sum()), "decals": n,
    }  # fmt: skip
    for name in networks:
        model = built(name, seed=0)
        about = f"real-{name}-{seconds:g}s"
        once(
            keep, f"{about}-before", model,
            partial(train, name, model, source, seconds, 0),
        )  # fmt: skip
        start = {key: value.clone() for key, value in model.state_dict().items()}
        rows = result[name] = {}
        for form in ("before", "mmd", "mmd, spirals"):
            if form != "before":
                model.load_state_dict(start)
                theirs = source[spiral] if form.endswith("spirals") else source
                once(
                    keep, f"{about}-{form}-{adapting:g}s-{weight:g}", model,
                    partial(
                        adapt, name, model, theirs, target, adapting, weight=weight, paired=False
                    ),
                )  # fmt: skip
            one, other = encoder(model)(source), encoder(model)(target)
            probe_of = learned(one[known], labels[known])
            guess = probe_of.predict(other)
            rows[form] = {
                "told_apart": two_sample(one[spiral], other),
                **{
                    f"called_{label}": interval(
                        lambda i, g=guess, label=label: float((g[i] == label).mean()), n
                    )
                    for label in np.unique(labels[known])
                },
            }
            text = json.dumps(rounded(rows[form]))
            print(f"SDSS -> DECaLS, {name}, {form}: {text}", flush=True)
    return result
