"""Train classifiers of stamps, with doubtful labels kept, removed, unlabelled or flipped."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skyvec.batches import check_device, hash_uniform, use_threads
from skyvec.checkpoint import (
    CheckpointError,
    Recipe,
    Training,
    fill,
    load_arrays,
)
from skyvec.models.stamps import CLASSIFIERS
from skyvec.nn.labels import (
    MATCHES,
    UNLABELLED,
    Labelled,
    cross_entropy,
    domain_distance,
    exp_cross_hinge,
    local_smoothness,
)
from skyvec.realbogus.folds import SplitError, apart, divide
from skyvec.schema import Strings
from skyvec.store import write_table
from skyvec.train import Progress, fit

RELEASED_CAP = 6.0
VALID_BATCH = 256
TREATMENTS = ("keep", "remove", "unlabel", "flip")
"""What may be done with the labels of suspects."""
TARGET = "target.parquet"
"""In a model's folder: the ids of the unlabelled stamps that it was adapted to."""
LEAST_TARGET = 16


@dataclass(frozen=True)
class Samples:
    """Stamps as a network sees them, with what is known of each.

    Args:
        id: Key of the detection, shape (n,).
        pixels: Normalised, float32, finite, shape (n, 3, y, x).
        label: 1 real, 0 bogus, -1 unlabelled, int64, shape (n,).
        detector: Shape (n,).
        exposure: Shape (n,).
        object: Shape (n,).
        columns: Anything else known of them, shape (n,) each.

    Raises:
        ValueError: Lengths differ, a label is unknown or a pixel is not finite.
    """

    id: Strings
    pixels: NDArray[np.float32]
    label: NDArray[np.int64]
    detector: Strings
    exposure: Strings
    object: Strings
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.id)
        for name in ("pixels", "label", "detector", "exposure", "object"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{len(getattr(self, name))} {name} for {n} stamps")
        if not np.isin(self.label, (0, 1, UNLABELLED)).all():
            raise ValueError("labels must be 1 (real), 0 (bogus) or -1 (unlabelled)")
        if not np.isfinite(self.pixels.sum(dtype=np.float64)):
            raise ValueError("pixels must be finite: mask and normalise stamps first")

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: NDArray[Any]) -> "Samples":
        """Give the samples asked for, in the order asked for."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Samples(
            self.id[rows],
            self.pixels[rows],
            self.label[rows],
            self.detector[rows],
            self.exposure[rows],
            self.object[rows],
            columns,
        )

    def with_label(self, label: NDArray[np.int64]) -> "Samples":
        """Give the same samples under other labels."""
        return replace(self, label=label)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The ``[loss]`` table of a recipe: L = ce L_ce + ech L_ech + lds L_lds + mmd MMD^2.

    Args:
        ce: Weight of the cross-entropy over the labelled.
        ech: Weight of the exponential hinge over pairs of a real and a bogus.
        lds: Weight of the local smoothness over all samples, labelled or not, of the target too.
        mmd: Weight of the distance of the target's features (those that the last layer weighs)
            from the labelled ones; needs a target. It counts (1 - ce / log 2)^2 times, nothing
            where the cross-entropy ``ce`` of a batch is that of a guess: before the labels are
            learnt, which class a stamp of the target belongs to is anybody's guess too.
        match: How a target of another share of reals is compared: ``class``, ``share`` or
            ``whole``, see :func:`~skyvec.nn.labels.domain_distance`.
        margin: By how much a real should outscore a bogus.
        length: Norm of the adversarial perturbation of a normalised stamp.
        reach: Distance of the finite difference that finds its direction.
        iterations: Rounds of the power iteration.
        share: Of a batch that the smoothness is taken over, drawn anew every step: the same mean
            in expectation for less work, in (0, 1].
        as_released: As the code released with Takahashi et al. 2022 computes: the smoothness has
            weight 1 and its ``lds`` goes to the hinge instead (whose ``ech`` is lost), the hinge
            is capped at e^6 and starts from 0, the direction is sought at distance 1, and the
            smoothness includes the entropy.
    """

    ce: float = 1.0
    ech: float = 0.0
    lds: float = 0.0
    mmd: float = 0.0
    match: str = "class"
    margin: float = 0.25
    length: float = 0.1
    reach: float = 0.1
    iterations: int = 1
    share: float = 1.0
    as_released: bool = False

    def __post_init__(self) -> None:
        weights = (self.ce, self.ech, self.lds)
        if min(weights) < 0 or not sum(weights):
            raise ValueError(f"[loss] ce, ech, lds = {weights} must be >= 0, and not all 0")
        if self.mmd < 0:
            raise ValueError(f"[loss] mmd = {self.mmd} must be >= 0")
        if self.match not in MATCHES:
            raise ValueError(
                f"[loss] match = {self.match!r} is unknown; choose from {', '.join(MATCHES)}"
            )
        if min(self.length, self.reach) <= 0 or self.iterations < 1:
            raise ValueError("[loss] length and reach must be > 0, iterations >= 1")
        if not 0 < self.share <= 1:
            raise ValueError(f"[loss] share = {self.share} must be in (0, 1]")

    def weights(self) -> dict[str, float]:
        """Weight of each part as it is trained with."""
        found = {"ce": self.ce, "ech": self.ech, "lds": self.lds, "mmd": self.mmd}
        if self.as_released and self.lds:
            found |= {"ech": self.lds, "lds": 1.0}
        return found


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The ``[data]`` table of a recipe: which stamps, and how they are drawn.

    Args:
        stamps: How many to choose at most, all splits together.
        seed: Of the choice and of the split.
        label: Column of the survey with 1 or ``real``, 0 or ``bogus``, anything else unlabelled.
        detectors: Names of the detectors to learn from; none for all.
        side: Central pixels of a stamp that are used, odd.
        normalise: How a stamp is put on a scale of its own.
        valid: Fraction for choosing between weights.
        test: Fraction that never trains.
        reals: Share of reals among the labelled of a batch; 0 to draw them as they come.
        augment: Turn and mirror every stamp of a batch at random.
    """

    stamps: int = 200_000
    seed: int = 0
    label: str = "label"
    detectors: Sequence[str] = ()
    side: int = 29
    normalise: str = "minmax"
    valid: float = 0.15
    test: float = 0.15
    reals: float = 0.5
    augment: bool = True

    def __post_init__(self) -> None:
        if self.side < 15 or self.side % 2 == 0:
            raise ValueError(f"[data] side = {self.side} must be odd and >= 15")
        if not (self.valid > 0 and self.test >= 0 and self.valid + self.test < 1):
            raise ValueError(
                f"[data] valid = {self.valid} must be > 0, test = {self.test} >= 0, and their "
                "sum less than 1"
            )
        if not 0 <= self.reals < 1:
            raise ValueError(f"[data] reals = {self.reals} must be in [0, 1)")


class Objective(nn.Module):
    """A network with the losses it is trained by: what the training loop asks for.

    Args:
        net: Normalised stamps (n, 3, y, x) -> logits (n, 2), of ``CLASSIFIERS``.
        loss: Weights and numbers of the losses.
    """

    def __init__(self, net: nn.Module, loss: Loss) -> None:
        super().__init__()
        # the convolutions of a CPU are about twice as fast where channels lie together
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.terms = loss

    def parts(self, batch: Labelled, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses that have a weight, unweighted."""
        terms, weights = self.terms, self.terms.weights()
        x = batch.x.contiguous(memory_format=torch.channels_last)
        n = len(x)
        if batch.target is not None:
            x = torch.cat([x, batch.target]).contiguous(memory_format=torch.channels_last)
        found = {}
        seed = int(torch.randint(1 << 62, (1,), generator=generator, device=generator.device))
        if weights["ce"] or weights["ech"] or weights["mmd"]:
            # drop-out draws from torch's own source, which is lent to it for this one pass
            devices = [x.device] if x.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed)
                features = self.net.features(x if weights["mmd"] else x[:n])
                logits = self.net.head(features)
            if weights["mmd"] and batch.target is not None:
                found["mmd"] = domain_distance(
                    features[:n],
                    batch.label,
                    features[n:],
                    logits[n:, 1] - logits[n:, 0],
                    match=terms.match,
                )
            logits = logits[:n]
            found["ce"] = cross_entropy(logits, batch.label, batch.weight)
            if "mmd" in found:
                learnt = (1 - found["ce"].detach() / math.log(2)).clamp(min=0)
                found["mmd"] = learnt**2 * found["mmd"]
            cap = RELEASED_CAP if terms.as_released else None
            score = logits[:, 1] - logits[:, 0]
            found["ech"] = exp_cross_hinge(score, batch.label, margin=terms.margin, cap=cap)
            if terms.as_released:
                found["ech"] = found["ech"] - 1
        if weights["lds"]:
            # without drop-out, so that only the perturbation makes the predictions differ
            was = self.net.training
            self.net.eval()
            if terms.share < 1:
                order = torch.randperm(len(x), generator=generator, device=generator.device)
                some = order[: max(1, round(terms.share * len(x)))].to(x.device)
                x = x[some].contiguous(memory_format=torch.channels_last)
            found["lds"] = local_smoothness(
                self.net,
                x,
                generator,
                length=terms.length,
                reach=1.0 if terms.as_released else terms.reach,
                iterations=terms.iterations,
                entropy=terms.as_released,
            )
            self.net.train(was)
        return {name: value for name, value in found.items() if weights[name]}

    def loss(
        self, batch: Labelled, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the parts, and the parts."""
        parts = self.parts(batch, generator)
        weights = self.terms.weights()
        total = sum(
            (weights[name] * value for name, value in parts.items()), start=torch.zeros(())
        )
        return total, {name: value.detach() for name, value in parts.items()}


def complete(content: Mapping[str, Any]) -> Recipe:
    """Check a recipe of a classifier and write out every default.

    Raises:
        RecipeError: A table, key or type is unknown.
        ValueError: A value is out of its range.
    """
    tables: dict[str, Callable[..., Any]] = {"data": Draw, "loss": Loss, "train": Training}
    recipe = fill(content, tables, CLASSIFIERS)
    recipe["model"]["side"] = recipe["data"]["side"]
    Draw(**recipe["data"]), Loss(**recipe["loss"]), Training(**recipe["train"])
    return recipe


def build(recipe: Recipe) -> nn.Module:
    """Make the network of a completed recipe, with first weights drawn from its seed alone."""
    settings = {key: value for key, value in recipe["model"].items() if key != "name"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe["train"]["seed"])
        return CLASSIFIERS[recipe["model"]["name"]](**settings)


def load(folder: Path) -> tuple[nn.Module, Recipe, dict[str, Any]]:
    """Open a trained classifier.

    Returns:
        The network in evaluation mode, its recipe and its scores.

    Raises:
        CheckpointError: The folder is missing, unfinished, damaged, or no classifier of stamps.
    """
    make = "train one with `skyvec realbogus train`, or name the survey that holds it with --from"
    recipe, weights, scores = load_arrays(folder, make=make)
    if recipe.get("model", {}).get("name") not in CLASSIFIERS:
        raise CheckpointError(f"{folder} is no classifier of stamps; choose another model")
    net = build(recipe)
    try:
        net.load_state_dict({key.removeprefix("net."): value for key, value in weights.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{folder} does not fit this version of skyvec: {error}") from error
    return net.eval(), recipe, scores


def train_on(
    samples: Samples,
    recipe: Mapping[str, Any],
    folder: Path,
    *,
    parts: NDArray[np.int64] | None = None,
    target: Samples | None = None,
    progress: Callable[[Progress], object] | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> Path:
    """Train a classifier on samples, or go on with a training that was killed.

    With a target, the classifier is adapted to it: as many of its stamps as labelled ones are in
    every batch, and their labels, if there are any, are not looked at. A share ``[data] valid`` of
    them is for choosing between weights.

    Args:
        samples: With the labels to learn; unlabelled ones enter the smoothness alone.
        recipe: The tables ``data``, ``model``, ``loss`` and ``train``.
        folder: The model's folder.
        parts: 0 to train on, 1 to choose weights by, 2 for neither, shape (n,); by default
            divided by object and exposure as ``[data]`` says.
        target: Stamps of another instrument, normalised in the same way; they enter ``mmd`` and
            ``lds``.
        progress: Called after every step.
        threads: Threads of torch; none leaves them as they are.
        device: Where torch computes.

    Returns:
        The folder; in it ``target.parquet`` with the ids of the target, if there is one.

    Raises:
        SplitError: A part lacks reals or bogus.
        ValueError: There is a target without a weight for it, a weight without a target, or too
            few stamps in it.
        TrainingError: The loss is not finite.
    """
    full = complete(recipe)
    data, loss, options = Draw(**full["data"]), Loss(**full["loss"]), Training(**full["train"])
    check_device(device)
    _check_target(target, loss)
    if parts is None:
        parts = split(samples, data)
    for part, name in ((0, "train"), (1, "validate")):
        for label, kind in ((1, "real"), (0, "bogus")):
            if not ((parts == part) & (samples.label == label)).any():
                raise SplitError(f"there is no {kind} to {name} on among {len(samples):,} stamps")
    learn = np.flatnonzero(parts == 0)
    look = np.flatnonzero((parts == 1) & (samples.label != UNLABELLED))
    share = float((samples.label[look] == 1).mean())
    weigh = {1: data.reals / share, 0: (1 - data.reals) / (1 - share)} if data.reals else {}
    valid = [
        batch_of(samples, look[i : i + VALID_BATCH], weigh)
        for i in range(0, len(look), VALID_BATCH)
    ]
    lists = [learn[samples.label[learn] == k] for k in (1, 0, UNLABELLED)]
    if not loss.weights()["lds"]:
        lists[2] = lists[2][:0]
    counts = {
        "real": len(lists[0]),
        "bogus": len(lists[1]),
        "unlabelled": len(lists[2]),
        "validation": len(look),
    }
    digest = _hash(samples, parts)
    theirs = np.zeros(0, np.int64)
    if target is not None:
        place = hash_uniform(target.id.tolist(), seed=data.seed, purpose="realbogus target")
        order = np.argsort(place, kind="stable")
        n = max(2, round(data.valid * len(target)))
        theirs, held = order[n:], order[:n]
        look_at = np.arange(min(n, VALID_BATCH))
        valid = [
            batch._replace(target=_pixels(target, held[(k * VALID_BATCH + look_at) % n]))
            for k, batch in enumerate(valid)
        ]
        counts["target"] = len(theirs)
        digest = hashlib.sha256(f"{digest} {_hash(target, order)}".encode()).hexdigest()

    def draw(rng: np.random.Generator) -> Labelled:
        made = _draw(samples, lists, options.batch, data, rng)
        if target is None:
            return made
        known = int((made.label != UNLABELLED).sum())
        x = _pixels(target, rng.choice(theirs, known, replace=known > len(theirs)))
        return made._replace(target=turn(x, rng) if data.augment else x)

    with use_threads(threads):
        made = fit(
            Objective(build(full).to(device), loss),
            draw,
            valid,
            options,
            folder,
            full,
            digest,
            facts={"stamps": counts},
            progress=progress,
        )
    if target is not None:
        write_table(made / TARGET, pa.table({"id": pa.array(target.id)}))
    return made


def _check_target(target: Samples | None, loss: Loss) -> None:
    if target is None:
        if loss.mmd:
            raise ValueError(
                f"[loss] mmd = {loss.mmd} adapts to a target, and there is none: give a survey of "
                "its stamps with --target, or set mmd = 0"
            )
        return
    if not (loss.mmd or loss.weights()["lds"]):
        raise ValueError(
            "a target has no part in this loss; set [loss] mmd (or lds) > 0, or leave it out"
        )
    if len(target) < LEAST_TARGET:
        raise ValueError(
            f"{len(target)} stamps of the target are too few to tell how they are distributed; "
            f"give at least {LEAST_TARGET}"
        )


def split(samples: Samples, data: Draw) -> NDArray[np.int64]:
    """Divide samples: 0 train, 1 valid, 2 test, -1 left out, shape (n,).

    No two parts share an object or an exposure.
    """
    fractions = [1 - data.valid - data.test, data.valid] + ([data.test] if data.test else [])
    parts = divide(samples.object, samples.exposure, fractions, seed=data.seed)
    for part in (2, 1):  # what shares an object with the test leaves the others, and so on
        if (parts == part).any():
            free = apart(samples.object, samples.exposure, parts == part)
            parts[~free & (parts < part)] = -1
    return parts


def batch_of(
    samples: Samples, rows: NDArray[np.integer], weigh: Mapping[int, float] | None = None
) -> Labelled:
    """Make a batch of tensors, weighted by class."""
    label = samples.label[rows]
    weight = np.ones(len(rows), np.float32)
    for kind, value in (weigh or {}).items():
        weight[label == kind] = value
    pixels = np.ascontiguousarray(samples.pixels[rows])
    return Labelled(torch.from_numpy(pixels), torch.from_numpy(label), torch.from_numpy(weight))


def _pixels(samples: Samples, rows: NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples.pixels[rows]))


def _draw(
    samples: Samples,
    lists: Sequence[NDArray[np.int64]],
    batch: int,
    data: Draw,
    rng: np.random.Generator,
) -> Labelled:
    reals, bogus, unlabelled = (len(rows) for rows in lists)
    # however few the labelled are, there is one of each class in every batch
    none = min(round(batch * unlabelled / (reals + bogus + unlabelled)), max(batch - 2, 0))
    share = data.reals or reals / (reals + bogus)
    # the fraction of a sample is drawn, so that rare classes keep their share
    wanted = (batch - none) * share
    n_reals = min(batch - none - 1, max(1, math.floor(wanted + rng.random())))
    counts = (n_reals, batch - none - n_reals, none)
    rows = np.concatenate([rng.choice(some, n) for some, n in zip(lists, counts) if n])
    made = batch_of(samples, rows)
    return made._replace(x=turn(made.x, rng)) if data.augment else made


def turn(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn each stamp by a multiple of 90 degrees and mirror every other, at random."""
    which = rng.integers(8, size=len(x))
    out = torch.empty_like(x)
    for i in range(8):
        rows = torch.from_numpy(np.flatnonzero(which == i))
        turned = torch.rot90(x[rows], i % 4, (2, 3))
        out[rows] = turned.flip(3) if i >= 4 else turned
    return out


def treat(
    label: NDArray[np.int64], suspect: NDArray[np.bool_], how: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Change the labels of suspects.

    Args:
        label: 1, 0 or -1, shape (n,): the labels at hand, whatever the truth may be.
        suspect: Shape (n,).
        how: ``keep``, ``remove``, ``unlabel`` (they enter the smoothness alone) or ``flip``.

    Returns:
        The new labels, and which samples stay in the training, shape (n,) each.
    """
    if how not in TREATMENTS:
        raise ValueError(f"suspects={how!r} is unknown; choose from {', '.join(TREATMENTS)}")
    changed, stays = label.copy(), np.ones(len(label), bool)
    known = suspect & (label != UNLABELLED)
    if how == "remove":
        stays = ~suspect
    elif how == "unlabel":
        changed[known] = UNLABELLED
    elif how == "flip":
        changed[known] = 1 - label[known]
    return changed, stays


def scores_of(
    net: nn.Module, pixels: NDArray[np.float32], *, batch: int = 64
) -> NDArray[np.float64]:
    """Score normalised stamps with the network as it is: z_1 - z_0, shape (n,)."""
    was = net.training
    net.eval()
    device = next(net.parameters()).device
    out = [np.zeros(0)]
    with torch.inference_mode():
        for first in range(0, len(pixels), batch):
            x = torch.from_numpy(np.ascontiguousarray(pixels[first : first + batch])).to(device)
            z = net(x.contiguous(memory_format=torch.channels_last))
            out.append((z[:, 1] - z[:, 0]).double().cpu().numpy())
    net.train(was)
    return np.concatenate(out)


def _hash(samples: Samples, parts: NDArray[np.int64]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for array in (samples.id, samples.label, parts, samples.pixels):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
