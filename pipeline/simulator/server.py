"""The server's update of the parameters, with momentum and weight decay."""

from torch import Tensor


def update(
    params: Tensor, velocity: Tensor, direction: Tensor, rate: Tensor, weight_decay: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """Return the next parameters and velocity.

    v <- momentum v + direction + weight_decay x, x <- x - rate v

    Args:
        params: x, ``[R, d]``.
        velocity: v, ``[R, d]``.
        direction: ``[R, d]``, the aggregate.
        rate: Learning rates, ``[R, 1]``.
        weight_decay: L2 coefficient, at least 0.
        momentum: Of the server, in [0, 1).

    Returns:
        Parameters and velocity, ``[R, d]`` each.

    Example:
        >>> import torch
        >>> one = torch.ones(1, 1)
        >>> update(one, velocity=one, direction=2 * one, rate=torch.tensor([[0.1]]), weight_decay=0.0, momentum=0.5)
        (tensor([[0.7500]]), tensor([[2.5000]]))
    """
    velocity = momentum * velocity + (direction + weight_decay * params)
    return params - rate * velocity, velocity
