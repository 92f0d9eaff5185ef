"""Losses that count every series once, however many points it has."""

from torch import Tensor

from skyvec.nn.ragged import Ragged, curve_mean


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
