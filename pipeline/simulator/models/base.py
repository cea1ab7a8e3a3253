"""The contract of a model, and its network: a pure function of a flat parameter vector."""

from abc import abstractmethod
from math import sqrt
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.core.component import Component
from pipeline.core.errors import UserError
from pipeline.core.rng import Stream

Shape = tuple[int, ...]  # (C, H, W) of images, (p,) of feature vectors
BackendName = Literal["chain", "vmap", "replicas", "loop"]


class Network:
    """The function that a model computes, ``forward(params [d], inputs [B, *shape]) -> logits [B, classes]``.

    Attributes:
        size: d, the number of parameters.
        convolutional: Whether a layer is a convolution.
        chain: Whether it is linear layers with ReLU between them.

    Example:
        >>> from pipeline.simulator.models.linear import LogisticRegression
        >>> network = LogisticRegression().network(shape=(1, 8, 8), classes=10)
        >>> network.size
        650
        >>> network.forward(network.initial(seed=0), torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """

    def __init__(self, module: nn.Module) -> None:
        if any(True for _ in module.buffers()):
            raise ValueError("a layer with buffers (BatchNorm) mixes the samples of different steps; use GroupNorm")
        self.module = module.to("meta")
        self.shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        self.size = sum(shape.numel() for shape in self.shapes.values())
        self.convolutional = any(isinstance(layer, nn.Conv2d) for layer in module.modules())
        kinds, linear = [type(layer) for layer in module.children()], len(self.shapes) // 2
        self.chain = kinds == [nn.Flatten, nn.Linear, *[nn.ReLU, nn.Linear] * (linear - 1)]

    def forward(self, params: Tensor, inputs: Tensor, training: bool = False) -> Tensor:
        """Return the logits of ``inputs`` under the flat ``params``; dropout acts in ``training`` alone."""
        parts = torch.split(params, [shape.numel() for shape in self.shapes.values()], dim=-1)
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        logits: Tensor = torch.func.functional_call(self.module.train(training), named, (inputs,))
        return logits

    def linear_sizes(self) -> list[int]:
        """Return the inputs of the first linear layer, then the outputs of each.

        Raises:
            ValueError: The network is not a chain of linear layers with ReLU between them.
        """
        if not self.chain:
            raise ValueError("this backend needs linear layers with ReLU between them")
        weights = list(self.shapes.values())[::2]
        return [weights[0][1], *(outputs for outputs, _ in weights)]

    def initial(self, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return initial parameters ``[d]`` from the replica's own stream.

        Weights and biases of a layer are uniform in +-1/sqrt(fan-in), PyTorch's default; normalisations start at the
        identity.
        """
        uniform = Stream.of([seed], "initial weights").uniform(self.size)[0]
        layers = [layer for layer in self.module.modules() if any(True for _ in layer.parameters(recurse=False))]
        spans = [_initial_span(layer, parameter) for layer in layers for parameter in layer.parameters(recurse=False)]
        least, width = (torch.cat(ends) for ends in zip(*spans, strict=True))
        return (least + width * uniform).to(dtype)


def _initial_span(layer: nn.Module, parameter: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least initial value, and how far the largest is from it, of each number of a layer's parameter."""
    if isinstance(layer, nn.Linear | nn.Conv2d):
        least, width = -1 / sqrt(layer.weight[0].numel()), 2 / sqrt(layer.weight[0].numel())
    elif isinstance(layer, nn.GroupNorm):
        least, width = float(parameter is layer.weight), 0.0
    else:
        raise ValueError(f"no initialisation is defined for the layer {layer}")
    shape = (parameter.numel(),)
    return torch.full(shape, least, dtype=torch.float64), torch.full(shape, width, dtype=torch.float64)


class Model(Component):
    """An architecture; its fields are its sizes.

    ``cpu_gradients`` is the backend (:mod:`pipeline.simulator.gradients`) that was measured to be the fastest on a CPU.
    """

    cpu_gradients: ClassVar[BackendName] = "vmap"

    def network(self, shape: Shape, classes: int) -> Network:
        """Return the network for inputs of ``shape`` and ``classes`` outputs.

        Raises:
            UserError: The model cannot take inputs of this shape.
        """
        with torch.device("meta"):  # shapes alone: PyTorch's own initialisation would draw from the global generator
            return Network(self.module(shape, classes))

    @abstractmethod
    def module(self, shape: Shape, classes: int) -> nn.Module:
        """Return the layers of the network."""


def image_shape(name: str, shape: Shape, side: int = 1) -> tuple[int, int, int]:
    """Return ``shape`` as (channels, height, width), for the model ``name``.

    Raises:
        UserError: It is that of a vector, or of an image with a side shorter than ``side`` pixels.
    """
    if len(shape) != 3:
        raise UserError(f"model.name = {name!r}: needs images, but the data are vectors of {shape[0]} features")
    channels, height, width = shape
    if min(height, width) < side:
        raise UserError(f"model.name = {name!r}: needs images of {side} x {side} pixels or more, got {shape[1:]}")
    return channels, height, width


def normalisation(channels: int) -> nn.Module:
    """Return a GroupNorm of 32 groups (Wu and He, arXiv:1803.08494), or of pairs of channels if those are fewer."""
    return nn.GroupNorm(min(32, channels // 2), channels)
