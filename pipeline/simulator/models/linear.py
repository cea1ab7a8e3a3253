"""Linear layers with ReLU between them: logistic regression and the multilayer perceptron."""

from itertools import pairwise
from math import prod
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from pipeline.simulator.models import MODELS, Model
from pipeline.simulator.models.base import BackendName, Shape

Units = Annotated[int, Field(ge=1, le=1_000_000)]


@MODELS.register
class LogisticRegression(Model):
    """Multinomial logistic regression on the pixels or features."""

    name: Literal["logistic"] = "logistic"
    cpu_gradients: ClassVar[BackendName] = "chain"
    formula: ClassVar[str] = "softmax(W x + c)"

    def module(self, shape: Shape, classes: int) -> nn.Module:
        """One linear layer."""
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), classes))


@MODELS.register
class MultilayerPerceptron(Model):
    """Fully connected layers with ReLU between them."""

    name: Literal["mlp"] = "mlp"
    cpu_gradients: ClassVar[BackendName] = "chain"
    hidden: Annotated[tuple[Units, ...], Field(strict=False, max_length=100)] = Field(
        description="units of each hidden layer", examples=[[32]]
    )
    formula: ClassVar[str] = "linear layers with ReLU between them"

    def module(self, shape: Shape, classes: int) -> nn.Module:
        """One linear layer more than ``hidden`` has entries."""
        sizes = [prod(shape), *self.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
