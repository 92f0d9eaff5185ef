"""Losses of a classifier of two classes whose labels may be absent or wrong.

Scores are differences of two logits, s = z_1 - z_0, so that p(1|x) = 1 / (1 + exp(-s)). A label is
1, 0, or ``UNLABELLED``; a sample without a label enters the smoothness alone.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from skyvec.nn.losses import median_distance, mmd2

UNLABELLED = -1
PAIRS = 1 << 22
"""Pairs of scores held at a time by :func:`exp_cross_hinge`: 32 MiB."""


class Labelled(NamedTuple):
    """A batch of a classifier of two classes.

    Args:
        x: Inputs as the network sees them, float32, (n, ...).
        label: 1, 0 or ``UNLABELLED``, int64, (n,).
        weight: Of each sample in the cross-entropy, >= 0, float32, (n,).
        target: Unlabelled inputs of another domain that the classifier is adapted to, (m, ...).
    """

    x: Tensor
    label: Tensor
    weight: Tensor
    target: Tensor | None = None

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.x)

    def to(self, device: torch.device | str) -> "Labelled":
        """Move all tensors to a device."""
        x, label, weight = (part.to(device) for part in (self.x, self.label, self.weight))
        target = None if self.target is None else self.target.to(device)
        return Labelled(x, label, weight, target)


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted mean over the labelled samples of -log p(label | x).

    Args:
        logits: (n, 2).
        label: 1, 0 or ``UNLABELLED``, int64, (n,).
        weight: Of each sample, >= 0, (n,); none for 1 each.

    Returns:
        Scalar sum_i w_i l_i / sum_i w_i; 0 where nothing is labelled.
    """
    each = functional.cross_entropy(
        logits, label, ignore_index=UNLABELLED, reduction="none"
    )  # 0 for the ignored
    counted = (label != UNLABELLED).to(each.dtype)
    if weight is not None:
        counted = counted * weight
    return (each * counted).sum() / counted.sum().clamp(min=torch.finfo(each.dtype).tiny)


def exp_cross_hinge(
    score: Tensor, label: Tensor, *, margin: float = 0.25, cap: float | None = None
) -> Tensor:
    """Mean over all pairs of a 1 and a 0 of exp([s_0 - s_1 + margin]_+), [z]_+ = max(z, 0).

    A smooth upper bound of 1 - AUC: a pair in the wrong order costs more than 1. Any number of
    samples is summed in blocks of bounded memory, in float64.

    Args:
        score: (n,).
        label: 1, 0 or ``UNLABELLED``, (n,).
        margin: By how much the 1 should lead, xi.
        cap: Largest exponent, with the derivative 0 beyond it; none for no limit.

    Returns:
        Scalar, >= 1; 0 where either class is absent.

    References:
        Takahashi et al. 2022, PASJ (arXiv:2206.12478).
    """
    ones, zeros = score[label == 1], score[label == 0]
    if not len(ones) or not len(zeros):
        return score.sum() * 0
    loss: Tensor = _ExpCrossHinge.apply(ones, zeros, margin, cap)  # type: ignore[no-untyped-call]
    return loss


class _ExpCrossHinge(torch.autograd.Function):
    """The derivative is made of the same exponentials, so it is summed along with the value."""

    @staticmethod
    def forward(ctx: Any, ones: Tensor, zeros: Tensor, margin: float, cap: float | None) -> Tensor:
        s, t = ones.double(), zeros.double()
        of_ones, of_zeros = torch.zeros_like(s), torch.zeros_like(t)
        total = s.new_zeros(())
        block = max(1, PAIRS // len(t))
        for first in range(0, len(s), block):
            lead = t[None] - s[first : first + block, None] + margin
            moving = lead > 0
            if cap is not None:
                moving &= lead < cap
            cost = lead.clamp(0, cap).exp()
            total += cost.sum()
            slope = cost * moving
            of_ones[first : first + block] = -slope.sum(1)
            of_zeros += slope.sum(0)
        pairs = len(s) * len(t)
        ctx.save_for_backward((of_ones / pairs).to(ones.dtype), (of_zeros / pairs).to(zeros.dtype))
        return (total / pairs).to(ones.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        of_ones, of_zeros = ctx.saved_tensors
        return upstream * of_ones, upstream * of_zeros, None, None


def divergence(clean: Tensor, logits: Tensor) -> Tensor:
    """KL(p || q) of each sample, p and q the softmax of two sets of logits (n, k); (n,)."""
    p = functional.log_softmax(clean, 1)
    return (p.exp() * (p - functional.log_softmax(logits, 1))).sum(1)


def adversarial_direction(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    clean: Tensor,
    generator: torch.Generator,
    *,
    reach: float = 0.1,
    iterations: int = 1,
) -> Tensor:
    """Find the direction in which the prediction of each sample changes fastest.

    Power iteration on the Hessian of KL(p(x) || p(x + r)) at r = 0, by its gradient at a finite
    distance: d <- g / |g|, g = grad_r KL at r = reach d, d at first uniform on the sphere. Where
    the prediction does not change at all the direction stays as it was.

    Args:
        network: Normalised inputs (n, ...) -> logits (n, k), deterministic.
        x: Inputs as the network sees them: *after* any normalisation, (n, ...).
        clean: Logits at x, (n, k).
        generator: Source of the first direction.
        reach: Distance of the finite difference, xi of the article.
        iterations: Rounds.

    Returns:
        Unit vectors, the shape of x, without gradient.

    References:
        Miyato et al. 2016, arXiv:1507.00677, algorithm 1.
    """
    drawn = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    direction = _unit(drawn, drawn)
    clean = clean.detach()
    for _ in range(iterations):
        r = (reach * direction).requires_grad_()
        with torch.enable_grad():
            change = divergence(clean, network(x.detach() + r)).sum()
        (gradient,) = torch.autograd.grad(change, r)
        direction = _unit(gradient, direction)
    return direction


def _unit(vector: Tensor, otherwise: Tensor) -> Tensor:
    """Give each sample's vector the length 1; ``otherwise`` where it has none."""
    flat = vector.flatten(1)
    # of largest entry 1 first: gradients of confident predictions underflow when squared
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / largest.clamp(min=torch.finfo(flat.dtype).tiny)
    unit = scaled / scaled.norm(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    return torch.where(largest > 0, unit, otherwise.flatten(1)).view_as(vector)


def local_smoothness(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    generator: torch.Generator,
    *,
    length: float = 0.1,
    reach: float = 0.1,
    iterations: int = 1,
    entropy: bool = False,
) -> Tensor:
    """Mean over all samples, labelled or not, of KL(p(y|x) || p(y|x + length d)).

    d is the direction of :func:`adversarial_direction`; the derivative goes through the second
    prediction alone.

    Args:
        network: Normalised inputs (n, ...) -> logits (n, k), deterministic (no drop-out).
        x: Inputs *after* any normalisation, (n, ...).
        generator: Source of the first direction.
        length: Norm of the perturbation, epsilon of the article.
        reach: Distance of the finite difference.
        iterations: Rounds of the power iteration.
        entropy: Add the entropy of p(y|x): the cross-entropy of the released code, whose value
            is not 0 for a perfectly smooth network.

    Returns:
        Scalar, >= 0.

    References:
        Miyato et al. 2016, arXiv:1507.00677; Takahashi et al. 2022, PASJ.
    """
    with torch.no_grad():
        clean = network(x)
    direction = adversarial_direction(
        network, x, clean, generator, reach=reach, iterations=iterations
    )
    each = divergence(clean, network(x + length * direction))
    if entropy:
        p = functional.log_softmax(clean, 1)
        each = each - (p.exp() * p).sum(1)
    return each.mean()


# --- two domains ------------------------------------------------------------------------------

MATCHES = ("class", "share", "whole")
"""How labelled features are weighted against unlabelled ones: see :func:`domain_distance`."""
ROUNDS = 20


def target_share(score: Tensor, share: Tensor | float) -> Tensor:
    """Share of ones among unlabelled samples, by expectation maximisation of the mixture.

    q <- mean_i 1 / (1 + exp(-s_i - logit q + logit share)), from q = 1/2; kept one half of a
    sample away from 0 and 1.

    Args:
        score: Log-odds of being 1 under ``share``, (m,).
        share: Of ones where the scores were learnt, in (0, 1).

    Returns:
        q, scalar without gradient.

    References:
        Saerens, Latinne & Decaestecker 2002, Neural Comput. 14, 21.
    """
    s, least = score.detach().double(), 0.5 / len(score)
    odds = torch.logit(torch.as_tensor(share, dtype=torch.float64))
    q = torch.tensor(0.5, dtype=torch.float64)
    for _ in range(ROUNDS):
        q = torch.sigmoid(s + torch.logit(q) - odds).mean().clamp(least, 1 - least)
    return q.to(score.dtype)


def domain_distance(
    features: Tensor,
    label: Tensor,
    other: Tensor,
    score: Tensor,
    *,
    match: str = "class",
) -> Tensor:
    """How far the features of an unlabelled domain are from those of the labelled one: MMD^2.

    The two domains need not have the same share of ones, so that their features as a whole may
    differ rightly. With q of :func:`target_share` and p_i the probability that an unlabelled
    sample is 1 under q (constants to the gradient), by ``match``:

    * ``class``: q MMD^2(ones, others by p_i) + (1 - q) MMD^2(zeros, others by 1 - p_i): each
      class where it belongs, and of the weight it has in the other domain;
    * ``share``: MMD^2(labelled weighted to a share q of ones, others);
    * ``whole``: MMD^2(labelled, others), for domains of the same mixture.

    Args:
        features: Of the labelled domain, (n, d).
        label: 1, 0 or ``UNLABELLED`` (left out), (n,).
        other: Features of the unlabelled domain, (m >= 2, d).
        score: z_1 - z_0 of the unlabelled samples, (m,).
        match: Of ``MATCHES``.

    Returns:
        Scalar; 0 where a class has fewer than two labelled samples.

    References:
        Zhu et al. 2021, IEEE Trans. Neural Netw. Learn. Syst. 32, 1713 (by class).
    """
    if match not in MATCHES:
        raise ValueError(f"match={match!r} is unknown; choose from {', '.join(MATCHES)}")
    known = label != UNLABELLED
    features, is_one = features[known], label[known] == 1
    ones, zeros = features[is_one], features[~is_one]
    if min(len(ones), len(zeros), len(other)) < 2:
        return features.sum() * 0
    if match == "whole":
        return mmd2(features, other)
    share = len(ones) / len(features)
    q = target_share(score, share)
    width = median_distance(features, other)
    even = other.new_ones(len(other))
    if match == "share":
        weight = torch.where(is_one, q / share, (1 - q) / (1 - share))
        return mmd2(features, other, width=width, weights=(weight, even))
    odds = torch.logit(q.double()) - math.log(share / (1 - share))
    p = torch.sigmoid(score.detach().double() + odds).to(other.dtype)
    total = features.sum() * 0
    for part, weight, mass in ((ones, p, q), (zeros, 1 - p, 1 - q)):
        # none of the class may be there, and of pairs of a single one there is no mean
        if weight.sum() >= 1 and weight.sum() ** 2 >= 2 * (weight * weight).sum():
            own = part.new_ones(len(part))
            total = total + mass * mmd2(part, other, width=width, weights=(own, weight))
    return total
