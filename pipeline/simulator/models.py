"""Networks as pure functions of a flat parameter vector."""

from abc import abstractmethod
from itertools import pairwise
from math import prod, sqrt
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.core.component import Component, Registry
from pipeline.core.errors import UserError
from pipeline.core.rng import Stream

Shape = tuple[int, int, int]
BackendName = Literal["chain", "vmap", "replicas", "loop"]


class Network:
    """The function that a model computes, ``forward(params [d], inputs [B, C, H, W]) -> logits [B, classes]``.

    Attributes:
        size: d, the number of parameters.
        convolutional: Whether a layer is a convolution.

    Example:
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

    def forward(self, params: Tensor, inputs: Tensor) -> Tensor:
        """Return the logits of ``inputs`` under the flat ``params``."""
        parts = torch.split(params, [shape.numel() for shape in self.shapes.values()], dim=-1)
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        logits: Tensor = torch.func.functional_call(self.module, named, (inputs,))
        return logits

    def linear_layers(self, params: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return weight ``[R, outputs, inputs]`` and bias ``[R, outputs]`` of each layer, given ``params [R, d]``.

        Raises:
            ValueError: The network is not a chain of linear layers with ReLU between them.
        """
        kinds, shapes = [type(layer) for layer in self.module.children()], list(self.shapes.values())
        if kinds != [nn.Flatten, nn.Linear, *[nn.ReLU, nn.Linear] * (len(shapes) // 2 - 1)]:
            raise ValueError("this backend needs linear layers with ReLU between them")
        parts = torch.split(params, [shape.numel() for shape in shapes], dim=-1)
        layers = zip(parts[::2], shapes[::2], parts[1::2], strict=True)
        return [(weight.view(-1, *shape), bias) for weight, shape, bias in layers]

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
        """Return the network for images of ``shape`` (channels, height, width) and ``classes`` outputs."""
        with torch.device("meta"):  # shapes alone: PyTorch's own initialisation would draw from the global generator
            return Network(self.module(shape, classes))

    @abstractmethod
    def module(self, shape: Shape, classes: int) -> nn.Module:
        """Return the layers of the network."""


MODELS: Registry[Model] = Registry("model")


@MODELS.register
class LogisticRegression(Model):
    """Multinomial logistic regression on the pixels."""

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
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] = Field(
        description="units of each hidden layer"
    )
    formula: ClassVar[str] = "linear layers with ReLU between them"

    def module(self, shape: Shape, classes: int) -> nn.Module:
        """One linear layer more than ``hidden`` has entries."""
        sizes = [prod(shape), *self.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


@MODELS.register
class MnistCnn(Model):
    """The convolutional network usual for MNIST in this field: 431,080 parameters at 1 x 28 x 28 and 10 classes.

    conv 5x5 C -> 20, ReLU, max pool 2; conv 5x5 20 -> 50, ReLU, max pool 2; linear -> 500, ReLU, linear -> classes

    Differs from: the bucketing repository uses two 3x3 convolutions (32, 64), a linear layer of 128, and dropout.

    Reference: ByzFL, ``cnn_mnist``.

    Example:
        >>> MnistCnn().network(shape=(1, 28, 28), classes=10).size
        431080
    """

    name: Literal["cnn_mnist"] = "cnn_mnist"
    cpu_gradients: ClassVar[BackendName] = "replicas"
    formula: ClassVar[str] = "conv5(20), pool, conv5(50), pool, linear(500), linear"
    reference: ClassVar[str] = "the model cnn_mnist of ByzFL"

    def module(self, shape: Shape, classes: int) -> nn.Module:
        """Two convolutions without padding, two linear layers."""
        channels, height, width = _at_least(self.name, shape, 16)
        rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
        return nn.Sequential(
            *(nn.Conv2d(channels, 20, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(50 * rows * columns, 500), nn.ReLU(), nn.Linear(500, classes)),
        )


@MODELS.register
class CifarCnn(Model):
    """The convolutional network usual for CIFAR-10 in this field: 1,310,922 parameters at 3 x 32 x 32 and 10 classes.

    twice (conv 3x3 -> k, ReLU, normalise, conv 3x3 k -> k, ReLU, normalise, max pool 2) with k = 64, then 128;
    linear -> 128, ReLU, linear -> classes

    Differs from: the original has BatchNorm, and dropout (1/4) after each pool and before the last layer. Here
    GroupNorm takes the place of BatchNorm and there is no dropout, so that a network is a function of its parameters
    and its input. The model ``cnn_cifar`` of ByzFL is another one: three 5x5 convolutions (20, 100, 200).

    Reference: Xie et al., UAI 2019, arXiv:1903.03936; layers as in ByzantineMomentum, ``empire-cnn``.

    Example:
        >>> CifarCnn().network(shape=(3, 32, 32), classes=10).size
        1310922
    """

    name: Literal["cnn_cifar"] = "cnn_cifar"
    cpu_gradients: ClassVar[BackendName] = "loop"
    formula: ClassVar[str] = "2 x conv3(64), pool, 2 x conv3(128), pool, linear(128), linear; GroupNorm after each conv"
    reference: ClassVar[str] = "Xie et al., UAI 2019, arXiv:1903.03936; empire-cnn of ByzantineMomentum"

    def module(self, shape: Shape, classes: int) -> nn.Module:
        """Four convolutions with padding 1, two linear layers."""
        channels, height, width = _at_least(self.name, shape, 4)
        layers: list[nn.Module] = []
        for inputs, outputs in ((channels, 64), (64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), _normalisation(outputs)]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), _normalisation(outputs), nn.MaxPool2d(2)]
        features = 128 * (height // 4) * (width // 4)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, classes))


def _at_least(name: str, shape: Shape, side: int) -> Shape:
    if min(shape[1:]) < side:
        raise UserError(f"model.name = {name!r}: needs images of {side} x {side} pixels or more, got {shape[1:]}")
    return shape


def _normalisation(channels: int) -> nn.Module:
    """Return a GroupNorm of 32 groups (Wu and He, arXiv:1803.08494), or of pairs of channels if those are fewer."""
    return nn.GroupNorm(min(32, channels // 2), channels)


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)), body = conv 3x3, normalise, ReLU, conv 3x3, normalise."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), _normalisation(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), _normalisation(outputs)),
        )
        projection = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), _normalisation(outputs))
        self.shortcut = nn.Identity() if (inputs, stride) == (outputs, 1) else nn.Sequential(*projection)

    def forward(self, signal: Tensor) -> Tensor:
        """Return ``[B, outputs, H / stride, W / stride]`` for ``signal [B, inputs, H, W]``."""
        return torch.relu(self.body(signal) + self.shortcut(signal))


class ResidualNetwork(Model):
    """A conv 3x3 stem, stages of residual blocks (each but the first halves the image), mean over pixels, linear.

    ``widths`` are the channels of the stages, ``blocks`` is how many residual blocks each has.
    """

    cpu_gradients: ClassVar[BackendName] = "loop"
    widths: ClassVar[tuple[int, ...]]
    blocks: ClassVar[int]

    def module(self, shape: Shape, classes: int) -> nn.Module:
        """The form for small images: no pooling after the stem."""
        first = self.widths[0]
        layers = [nn.Conv2d(shape[0], first, 3, padding=1, bias=False), _normalisation(first), nn.ReLU()]
        for before, width in pairwise([first, *self.widths]):
            stride = 1 if before == width else 2
            layers += [Residual(before, width, stride), *(Residual(width, width, 1) for _ in range(self.blocks - 1))]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.widths[-1], classes))


@MODELS.register
class ResNet18(ResidualNetwork):
    """ResNet-18 for small images, with GroupNorm: 11,173,962 parameters at 3 channels and 10 classes.

    Four stages of two blocks with 64, 128, 256 and 512 channels; GroupNorm of 32 groups.

    Differs from: the original has BatchNorm, and for ImageNet a 7x7 stem with pooling.

    Reference: He et al., CVPR 2016, arXiv:1512.03385; Wu and He, ECCV 2018, arXiv:1803.08494.

    Example:
        >>> ResNet18().network(shape=(3, 32, 32), classes=10).size
        11173962
    """

    name: Literal["resnet18"] = "resnet18"
    formula: ClassVar[str] = "4 stages of 2 residual blocks, 64 to 512 channels; GroupNorm"
    reference: ClassVar[str] = "He et al., CVPR 2016, arXiv:1512.03385; Wu and He, ECCV 2018, arXiv:1803.08494"
    widths: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    blocks: ClassVar[int] = 2


@MODELS.register
class ResNet20(ResidualNetwork):
    """ResNet-20 with GroupNorm: 272,474 parameters at 3 channels and 10 classes.

    Three stages of three blocks with 16, 32 and 64 channels; GroupNorm in groups of two channels.

    Differs from: the original has BatchNorm, and shortcuts padded with zeros where the width changes (269,722
    parameters); with 1x1 convolutions there, it is the network of the centered clipping repository, whose variant with
    GroupNorm groups the channels by two as well.

    Reference: He et al., CVPR 2016, arXiv:1512.03385, section 4.2.

    Example:
        >>> ResNet20().network(shape=(3, 32, 32), classes=10).size
        272474
    """

    name: Literal["resnet20"] = "resnet20"
    formula: ClassVar[str] = "3 stages of 3 residual blocks, 16 to 64 channels; GroupNorm"
    reference: ClassVar[str] = "He et al., CVPR 2016, arXiv:1512.03385; Wu and He, ECCV 2018, arXiv:1803.08494"
    widths: ClassVar[tuple[int, ...]] = (16, 32, 64)
    blocks: ClassVar[int] = 3
