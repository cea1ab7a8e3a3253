"""Every worker's gradient: by the chain rule, by ``vmap``, or by the obvious loop that proves both right.

Which is the fastest depends on the network and on the device (docs/performance.md). The choice is a fixed rule, so that
a result does not depend on a measurement. The gradient of a worker has the same bits whatever shares the call.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.nn.functional import cross_entropy

from pipeline.core.kernels import perceptron
from pipeline.core.kernels.products import OrderedProducts
from pipeline.core.vectors import sum_over_columns
from pipeline.simulator.models import Network

Gradients = tuple[Tensor, Tensor]
Backend = Callable[[Network, Tensor, Tensor, Tensor], Gradients]


def chain_gradients(network: Network, params: Tensor, inputs: Tensor, labels: Tensor) -> Gradients:
    """Return the same as :func:`vmap_gradients` for linear layers with ReLU between them, by the chain rule."""
    gradients, entropies = perceptron.gradients(params, network.linear_sizes(), inputs, labels)
    return gradients, sum_over_columns(entropies) / labels.shape[-1]


def vmap_gradients(network: Network, params: Tensor, inputs: Tensor, labels: Tensor) -> Gradients:
    """Return the gradient and the loss of every worker of every replica, as one batched program.

    Args:
        network: The model.
        params: ``[R, d]``.
        inputs: ``[R, w, B, *shape]``.
        labels: ``[R, w, B]``.

    Returns:
        Gradients ``[R, w, d]`` and losses ``[R, w]`` of the mean cross-entropy (nats) over each worker's batch.
    """

    def loss(params: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(network.forward(params, inputs, training=True), labels)

    of_workers = vmap(grad_and_value(loss), in_dims=(None, 0, 0))
    with OrderedProducts():
        gradients, losses = vmap(of_workers)(params, inputs, labels)
    return gradients, losses


def replica_gradients(network: Network, params: Tensor, inputs: Tensor, labels: Tensor) -> Gradients:
    """Return the same as :func:`vmap_gradients`, one replica after the other."""
    gradients, losses = _empty(network, params, labels)
    for r in range(len(params)):
        here = slice(r, r + 1)
        gradients[here], losses[here] = vmap_gradients(network, params[here].clone(), inputs[here], labels[here])
    return gradients, losses


def loop_gradients(network: Network, params: Tensor, inputs: Tensor, labels: Tensor) -> Gradients:
    """Return the same as :func:`vmap_gradients`, one worker at a time by plain autograd: the reference."""
    gradients, losses = _empty(network, params, labels)
    for r in range(labels.shape[0]):
        for w in range(labels.shape[1]):
            leaf = params[r].detach().clone().requires_grad_()
            loss = cross_entropy(network.forward(leaf, inputs[r, w], training=True), labels[r, w])
            (gradients[r, w],) = torch.autograd.grad(loss, leaf)
            losses[r, w] = loss.detach()
    return gradients, losses


def _empty(network: Network, params: Tensor, labels: Tensor) -> Gradients:
    """Return room for all gradients ``[R, w, d]`` and losses ``[R, w]``."""
    return params.new_empty(*labels.shape[:2], network.size), params.new_empty(labels.shape[:2])


BACKENDS: dict[str, Backend] = {
    "chain": chain_gradients,
    "vmap": vmap_gradients,
    "replicas": replica_gradients,
    "loop": loop_gradients,
}
