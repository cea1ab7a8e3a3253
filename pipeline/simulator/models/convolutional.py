"""The convolutional networks that are usual in this field."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.core.rng import numpy_stream
from pipeline.simulator.models import MODELS, Model
from pipeline.simulator.models.base import BackendName, Shape, image_shape, normalisation


@MODELS.register
class MnistCnn(Model):
    """The convolutional network usual for MNIST in this field: 431,080 parameters at 1 x 28 x 28 and 10 classes.

    conv 5x5 C -> 20, ReLU, max pool 2; conv 5x5 20 -> 50, ReLU, max pool 2; linear -> 500, ReLU, linear -> classes

    Differs from: the network of the bucketing repository is ``cnn_bucketing``.

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
        channels, height, width = image_shape(self.name, shape, 16)
        rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
        return nn.Sequential(
            *(nn.Conv2d(channels, 20, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(50 * rows * columns, 500), nn.ReLU(), nn.Linear(500, classes)),
        )


@MODELS.register
class BucketingCnn(Model):
    """The network of the bucketing experiments on MNIST: 1,199,882 parameters at 1 x 28 x 28 and 10 classes.

    conv 3x3 C -> 32, ReLU; conv 3x3 32 -> 64, max pool 2; linear -> 128, ReLU, linear -> classes

    There is no ReLU between the second convolution and the pool, so the features that the linear layers read have both
    signs.

    With ``dropout: shared`` a channel of the pooled image is dropped with probability 1/4 and a unit of the linear
    layer with 1/2, and what is kept is scaled up. A mask belongs to a place in the minibatch: it is the same for all
    workers and at all steps, because the authors' simulator restores the random state after each worker.

    Differs from: theirs draws the masks from the seed of the run; here they are the same for all seeds.

    Reference: Karimireddy et al., ICLR 2022, arXiv:2006.09365, as in the authors' public code.

    Example:
        >>> BucketingCnn().network(shape=(1, 28, 28), classes=10).size
        1199882
    """

    name: Literal["cnn_bucketing"] = "cnn_bucketing"
    dropout: Literal["none", "shared"] = Field("none", description="none, or shared by all workers and steps")
    cpu_gradients: ClassVar[BackendName] = "loop"
    formula: ClassVar[str] = "conv3(32), conv3(64), pool without ReLU, linear(128), linear"
    reference: ClassVar[str] = "Karimireddy et al., ICLR 2022, arXiv:2006.09365: the authors' public code"

    def module(self, shape: Shape, classes: int) -> nn.Module:
        """Two convolutions without padding, two linear layers."""
        channels, height, width = image_shape(self.name, shape, 6)
        features = 64 * ((height - 4) // 2) * ((width - 4) // 2)
        of_channels, of_units = (
            (SharedDropout(0.25), SharedDropout(0.5)) if self.dropout == "shared" else (nn.Identity(), nn.Identity())
        )
        return nn.Sequential(
            *(nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.MaxPool2d(2), of_channels),
            *(nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), of_units, nn.Linear(128, classes)),
        )


class SharedDropout(nn.Module):
    """Dropout of channels or units whose mask, one for each place in the minibatch, never changes."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, signal: Tensor) -> Tensor:
        """Return ``signal [B, units, ...]`` with some of its units dropped, or as it is in evaluation."""
        if not self.training:
            return signal
        size, units = signal.shape[:2]
        # By NumPy, since this also runs inside torch.func's transforms, whose tensors have no memory to be read.
        drawn = numpy_stream(0, f"dropout {self.rate}").random((size, units))
        kept = torch.from_numpy((drawn >= self.rate) / (1 - self.rate)).to(signal.device, signal.dtype)
        return signal * kept.view(size, units, *[1] * (signal.ndim - 2))


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
        channels, height, width = image_shape(self.name, shape, 4)
        layers: list[nn.Module] = []
        for inputs, outputs in ((channels, 64), (64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), normalisation(outputs)]
            layers += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), normalisation(outputs), nn.MaxPool2d(2)]
        features = 128 * (height // 4) * (width // 4)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 128), nn.ReLU(), nn.Linear(128, classes))
