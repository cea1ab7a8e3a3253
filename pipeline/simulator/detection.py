"""How visible an attack is: what share of the Byzantine vectors two simple filters would flag."""

import torch
from torch import Tensor

from pipeline.core.order import median_over_workers
from pipeline.core.vectors import norms

DEVIATIONS = 3 * 1.4826  # times the median absolute deviation: three standard deviations of a normal distribution


def flagged(sent: Tensor, honest: int) -> Tensor:
    """Return the share of the Byzantine vectors that a norm or a distance filter flags, NaN if there are none.

    A filter knows no more than the n vectors. It computes s_i = |x_i| (norm) or s_i = |x_i - med(x)| (distance, med the
    coordinate-wise median) and flags s_i > med(s) + 3 * 1.4826 * med(|s - med(s)|); s_i is infinite for a vector that
    is not finite.

    Args:
        sent: ``[..., n, d]``, honest vectors first.
        honest: h.

    Returns:
        ``[...]``, 0 to 1.

    Example:
        >>> flagged(torch.tensor([[1.0], [1.1], [0.9], [1.05], [-9.0], [1.0]]), honest=4)
        tensor(0.5000)
    """
    scores = torch.stack([norms(sent), norms(sent - median_over_workers(sent)[..., None, :])])
    return outlying(scores).any(dim=0)[..., honest:].to(sent.dtype).mean(dim=-1)


def outlying(scores: Tensor) -> Tensor:
    """Return which of ``scores [..., n]`` lie more than three robust standard deviations above their median."""
    middle = _median(scores)
    deviation = _median((scores - middle).abs())
    return scores > middle + DEVIATIONS * deviation


def _median(scores: Tensor) -> Tensor:
    """Return the median over the last dimension, ``[..., 1]``."""
    return median_over_workers(scores[..., None])
