"""Losses as functions: of series, of images, of distributions of codes.

Every series and every image counts once, however many points or pixels were measured of it. The
losses of images give one number an image, in sums over its pixels, as the terms of a bound on a
likelihood must have; an image with a hole is scaled up to the pixels it should have had.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from skyvec.nn.frames import Frames, frame_mean
from skyvec.nn.ragged import Ragged, curve_mean

SSIM_WINDOW = 7
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Widths of the kernels of MMD, in units of the median distance."""


def curve_l1(predicted: Tensor, target: Ragged) -> Tensor:
    """Mean absolute residual of each series first, then over the series that have points.

    loss = mean_b (sum_j |predicted_bj - x_bj| / n_b)

    Args:
        predicted: Value at every point of ``target``, (N,).
        target: The points to predict.

    Returns:
        Scalar; 0 where no series has a point.
    """
    each = curve_mean((predicted - target.value).abs(), target)
    return each.sum() / (target.lengths > 0).sum().clamp(min=1)


# --- images -----------------------------------------------------------------------------------


def image_mse(predicted: Tensor, frames: Frames) -> Tensor:
    """D times the mean squared residual over the measured of the D pixels, (n,)."""
    return _pixels(frames) * frame_mean((predicted - frames.pixels).square(), frames)


def image_l1(predicted: Tensor, frames: Frames) -> Tensor:
    """D times the mean absolute residual over the measured of the D pixels, (n,)."""
    return _pixels(frames) * frame_mean((predicted - frames.pixels).abs(), frames)


def image_ssim(predicted: Tensor, frames: Frames) -> Tensor:
    """D (1 - SSIM) for a range of values of 1, (n,)."""
    return _pixels(frames) * (1 - ssim(predicted, frames.pixels, frames.mask))


IMAGE_LOSSES: dict[str, Callable[[Tensor, Frames], Tensor]] = {
    "mse": image_mse,
    "l1": image_l1,
    "ssim": image_ssim,
}


def ssim(
    one: Tensor,
    other: Tensor,
    mask: Tensor | None = None,
    *,
    data_range: float = 1.0,
    window: int = SSIM_WINDOW,
) -> Tensor:
    """Structural similarity: luminance x contrast x structure, mean over sliding windows.

    In each window, with means m, sample variances v and sample covariance c,
    SSIM = (2 m1 m2 + C1) (2 c + C2) / ((m1^2 + m2^2 + C1) (v1 + v2 + C2)),
    C1 = (0.01 range)^2, C2 = (0.03 range)^2.

    Args:
        one: Images, finite, (n, C, Y, X).
        other: The images to compare with, (n, C, Y, X).
        mask: True where measured, (n, C, Y, X); only windows that are measured whole count.
        data_range: Difference of the highest and the lowest value that pixels may have.
        window: Side of the uniform window, odd [pixel].

    Returns:
        Mean over windows and bands, (n,), in [-1, 1]; 1 for an image without a whole window,
        which nothing contradicts.

    Raises:
        ValueError: The window is even or larger than the images.

    References:
        Wang et al. 2004, IEEE Trans. Image Process. 13, 600.
    """
    if window % 2 == 0 or window > min(one.shape[-2:]):
        raise ValueError(
            f"window = {window} must be odd and no larger than the images {tuple(one.shape[-2:])}"
        )
    # sums in double: variances of bright, flat regions are differences of large numbers
    first, second = one.double(), other.double()
    sample = window**2 / (window**2 - 1)

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, window, 1)

    m1, m2 = mean(first), mean(second)
    v1 = sample * (mean(first * first) - m1 * m1)
    v2 = sample * (mean(second * second) - m2 * m2)
    c = sample * (mean(first * second) - m1 * m2)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = (2 * m1 * m2 + c1) * (2 * c + c2) / ((m1**2 + m2**2 + c1) * (v1 + v2 + c2))
    if mask is None:
        return found.flatten(1).mean(1).to(one.dtype)
    whole = (mean(mask.double()) > 1 - 0.5 / window**2).double()
    lost = ((1 - found) * whole).flatten(1).sum(1) / whole.flatten(1).sum(1).clamp(min=1)
    return (1 - lost).to(one.dtype)


def gaussian_nll(predicted: Tensor, frames: Frames, log_variance: Tensor) -> Tensor:
    """Negative log-likelihood of the pixels under a Gaussian of learned variance (sigma-VAE).

    nll = D mean_j (log(2 pi) + s_j + (x_j - predicted_j)^2 exp(-s_j)) / 2 over the measured
    pixels j, s their log-variance.

    Args:
        predicted: Means, (n, C, Y, X).
        frames: What was measured.
        log_variance: s; any shape that broadcasts to the pixels, such as (C, 1, 1).

    Returns:
        (n,)

    References:
        Rybkin, Daniilidis & Levine 2021, ICML (arXiv:2006.13202).
    """
    squares = (predicted - frames.pixels).square()
    each = (math.log(2 * math.pi) + log_variance + squares * torch.exp(-log_variance)) / 2
    return _pixels(frames) * frame_mean(each, frames)


def _pixels(frames: Frames) -> int:
    return math.prod(frames.pixels.shape[1:])


# --- variational codes ------------------------------------------------------------------------


def kl_to_standard(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of a diagonal Gaussian from the standard one.

    KL = -1/2 sum_k (1 + s_k - mean_k^2 - exp(s_k))

    Args:
        mean: (n, d).
        log_variance: s, (n, d).

    Returns:
        (n,), >= 0.

    References:
        Kingma & Welling 2014, ICLR (arXiv:1312.6114).
    """
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)


def warmed(weight: float, step: int, warm_up: int) -> float:
    """Weight of a term that grows linearly over the first steps: weight min(1, step / warm_up).

    Args:
        weight: At the end.
        step: Steps already made, >= 0.
        warm_up: Steps until the whole weight; 0 = from the start.
    """
    return weight * min(1.0, step / warm_up) if warm_up else weight


# --- distributions of codes -------------------------------------------------------------------


def median_distance(one: Tensor, other: Tensor) -> Tensor:
    """Median distance between different rows of two sets joined; 1 where all are the same."""
    both = torch.cat([one, other]).detach()
    middle = torch.pdist(both).median() if len(both) > 1 else both.new_zeros(())
    return torch.where(middle > 0, middle, torch.ones_like(middle))


def mmd2(
    one: Tensor,
    other: Tensor,
    *,
    width: Tensor | float | None = None,
    bandwidths: Sequence[float] = BANDWIDTHS,
    weights: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Squared maximum mean discrepancy of two samples, unbiased, with a sum of RBF kernels.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j),
    k(a, b) = sum_h exp(-|a - b|^2 / (2 (h width)^2)). Its mean is 0 where both are drawn from one
    distribution, so single values may be negative. With weights all three are weighted means,
    each pair by the product of its two.

    Args:
        one: x, (n >= 2, d).
        other: y, (m >= 2, d).
        width: Unit of the bandwidths; None = median distance of the two joined. No gradient
            goes through it.
        bandwidths: h.
        weights: Of the rows of x and of y, >= 0, (n,) and (m,), at least two of each > 0; None =
            all the same.

    Returns:
        Scalar.

    Raises:
        ValueError: A sample has fewer than two rows.

    References:
        Gretton et al. 2012, J. Mach. Learn. Res. 13, 723.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(
            f"MMD needs two samples of at least two rows, not {len(one)} and {len(other)}"
        )
    unit = (
        median_distance(one, other) if width is None else torch.as_tensor(width, dtype=one.dtype)
    )

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        square = (a[:, None] - b[None]).square().sum(2) / unit.to(a) ** 2
        return torch.stack([torch.exp(-square / (2 * h * h)) for h in bandwidths]).sum(0)

    def among(a: Tensor, w: Tensor) -> Tensor:
        k = kernel(a, a)
        same = (w * w * k.diagonal()).sum()
        return (w @ k @ w - same) / (w.sum() ** 2 - (w * w).sum())

    v, w = weights or (one.new_ones(len(one)), other.new_ones(len(other)))
    across = v @ kernel(one, other) @ w / (v.sum() * w.sum())
    return among(one, v) + among(other, w) - 2 * across


# --- codes without reconstruction -------------------------------------------------------------


def vicreg(
    one: Tensor,
    other: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Tensor:
    """Two views of one thing get the same code, and the codes do not collapse.

    loss = a mean|z - z'|^2 + b sum_views mean_k max(0, 1 - sqrt(var_k + 1e-4))
    + c sum_views sum_{k != l} cov_kl^2 / d

    Args:
        one: z, (n >= 2, d).
        other: z', codes of the same things, (n, d).
        invariance: a.
        variance: b.
        covariance: c.

    Returns:
        Scalar.

    References:
        Bardes, Ponce & LeCun 2022, ICLR (arXiv:2105.04906).
    """
    total = invariance * functional.mse_loss(one, other)
    for z in (one, other):
        centred = z - z.mean(0)
        spread = (centred.square().sum(0) / (len(z) - 1) + 1e-4).sqrt()
        total = total + variance * functional.relu(1 - spread).mean()
        matrix = centred.T @ centred / (len(z) - 1)
        crossed = matrix.square().sum() - matrix.diagonal().square().sum()
        total = total + covariance * crossed / z.shape[1]
    return total
