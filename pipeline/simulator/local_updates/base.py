"""The contract of a local update: what a worker computes on its own samples in a round."""

from abc import abstractmethod

from torch import Tensor

from pipeline.core.component import Component
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
            inputs: ``[R, w, minibatches * B, *shape]``.
            labels: ``[R, w, minibatches * B]``.
        """
