"""What a worker computes at a step: a gradient, or the difference that some local steps make."""

from abc import abstractmethod
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.core import kernels
from pipeline.core.component import Component, Registry
from pipeline.core.vectors import norms
from pipeline.simulator.gradients import Backend, Gradients
from pipeline.simulator.models import Network


class LocalUpdate(Component):
    """A worker's computation on its own samples, from the server's parameters to one vector."""

    @property
    def minibatches(self) -> int:
        """How many minibatches a worker reads at each step."""
        return 1

    @abstractmethod
    def vectors(self, backend: Backend, network: Network, params: Tensor, inputs: Tensor, labels: Tensor) -> Gradients:
        """Return every worker's vector ``[R, w, d]`` and training loss ``[R, w]`` in nats.

        Args:
            backend: How gradients are computed.
            network: The model.
            params: ``[R, d]``, the server's.
            inputs: ``[R, w, minibatches * B, C, H, W]``.
            labels: ``[R, w, minibatches * B]``.
        """


LOCAL_UPDATES: Registry[LocalUpdate] = Registry("local update")


@LOCAL_UPDATES.register
class Gradient(LocalUpdate):
    """The gradient on one minibatch: distributed SGD."""

    name: Literal["gradient"] = "gradient"
    formula: ClassVar[str] = "g_i = grad of the loss on one minibatch"
    reference: ClassVar[str] = "distributed SGD"

    def vectors(self, backend: Backend, network: Network, params: Tensor, inputs: Tensor, labels: Tensor) -> Gradients:
        """Return the gradients; see :meth:`LocalUpdate.vectors`."""
        return backend(network, params, inputs, labels)


@LOCAL_UPDATES.register
class LocalSGD(LocalUpdate):
    """The way back from K local steps of SGD to the server's parameters: FedAvg with model differences.

    z_0 = x, z_k = z_{k-1} - rate grad(z_{k-1}), sent: x - z_K

    With ``training.learning_rate: 1`` and no momentum the mean rule is FedAvg. Never the raw weights are sent: rules
    that look at norms or at zero would mean something else then.

    Reference: McMahan et al., AISTATS 2017, arXiv:1602.05629.
    """

    name: Literal["local_sgd"] = "local_sgd"
    steps: int = Field(ge=1, description="K, local steps between two aggregations")
    learning_rate: float = Field(gt=0, description="of the local steps")
    formula: ClassVar[str] = "x - z_K after K local steps of SGD"
    reference: ClassVar[str] = "McMahan et al., AISTATS 2017, arXiv:1602.05629"

    @property
    def minibatches(self) -> int:
        """One a local step."""
        return self.steps

    def vectors(self, backend: Backend, network: Network, params: Tensor, inputs: Tensor, labels: Tensor) -> Gradients:
        """Return the model differences and the mean loss over the local steps; see :meth:`LocalUpdate.vectors`."""
        replicas, workers = labels.shape[:2]
        local = params.repeat_interleave(workers, dim=0)  # [R w, d]: every worker is a replica with one worker
        losses = []
        for images, targets in zip(inputs.chunk(self.steps, dim=2), labels.chunk(self.steps, dim=2), strict=True):
            gradients, loss = backend(network, local, images.flatten(0, 1)[:, None], targets.flatten(0, 1)[:, None])
            local = local - self.learning_rate * gradients[:, 0]
            losses.append(loss[:, 0])
        difference = params[:, None, :] - local.view(replicas, workers, -1)
        return difference, (sum(losses[1:], losses[0]) / self.steps).view(replicas, workers)


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
    weight = 1 - beta if damped else 1.0
    if kernels.apply_to(vectors):
        return kernels.weighted_sum(beta, momentum, weight, vectors)
    return beta * momentum + weight * vectors
