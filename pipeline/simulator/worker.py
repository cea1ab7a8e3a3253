"""What a worker does to its vector before it sends it: clipping and momentum."""

from functools import partial

from torch import Tensor

from pipeline.core.kernels.workers import weighted_sum
from pipeline.core.vectors import norms
from pipeline.simulator.gradients import Backend, Gradients
from pipeline.simulator.models import Network


def clipped(backend: Backend, limit: float | None) -> Backend:
    """Return ``backend`` with every gradient's norm clipped: g min(1, limit / |g|); unchanged for None."""
    return backend if limit is None else partial(_clipped_gradients, backend, limit)


def _clipped_gradients(
    backend: Backend, limit: float, network: Network, params: Tensor, inputs: Tensor, labels: Tensor
) -> Gradients:
    gradients, losses = backend(network, params, inputs, labels)
    scale = (limit / norms(gradients)).clamp_max(1.0)
    return gradients * scale[..., None], losses


def with_momentum(momentum: Tensor, vectors: Tensor, beta: float, damped: bool) -> Tensor:
    """Return the workers' momentum: beta m + (1 - beta) g, or beta m + g where it is not damped.

    Undamped momentum is 1 / (1 - beta) times as long in the steady state, so the two need different learning rates, and
    a clipping radius has to be scaled with it.

    Args:
        momentum: ``[R, w, d]``, of the step before.
        vectors: ``[R, w, d]``, of this step.
        beta: In [0, 1).
        damped: Whether the new vector is scaled by 1 - beta.

    Example:
        >>> import torch
        >>> with_momentum(torch.tensor([1.0]), torch.tensor([2.0]), beta=0.5, damped=True)
        tensor([1.5000])
    """
    return weighted_sum(beta, momentum, 1 - beta if damped else 1.0, vectors)
