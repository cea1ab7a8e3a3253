"""Residual networks for small images."""

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.simulator.models import MODELS, Model
from pipeline.simulator.models.base import BackendName, Shape, image_shape, normalisation


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)), body = conv 3x3, normalise, ReLU, conv 3x3, normalise."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), normalisation(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), normalisation(outputs)),
        )
        projection = (nn.Conv2d(inputs, outputs, 1, stride, bias=False), normalisation(outputs))
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
        (channels, _, _), first = image_shape(self.name, shape), self.widths[0]
        layers = [nn.Conv2d(channels, first, 3, padding=1, bias=False), normalisation(first), nn.ReLU()]
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
