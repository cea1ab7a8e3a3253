"""One gradient, or the way back from some local steps."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.simulator.gradients import Backend, Gradients
from pipeline.simulator.local_updates import LOCAL_UPDATES, LocalUpdate
from pipeline.simulator.models import Network


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

    With ``training.learning_rate: 1`` and no momentum the mean rule is FedAvg. The raw weights are never sent: rules
    that look at norms or at zero would mean something else for them.

    Reference: McMahan et al., AISTATS 2017, arXiv:1602.05629.
    """

    name: Literal["local_sgd"] = "local_sgd"
    steps: int = Field(ge=1, description="K, local steps between two aggregations", examples=[3])
    learning_rate: float = Field(gt=0, description="of the local steps", examples=[0.2])
    formula: ClassVar[str] = "x - z_K after K local steps of SGD"
    reference: ClassVar[str] = "McMahan et al., AISTATS 2017, arXiv:1602.05629"

    @property
    def minibatches(self) -> int:
        """One for each local step."""
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
