"""What the inputs of a data set look like, and how they are normalised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """How uint8 pixels become numbers of about zero mean and unit deviation.

    (x / brightest - mean) / deviation, in float32 whatever the numbers are used for, so that they are the same for both
    precisions of training

    Attributes:
        brightest: ``[]``, the largest pixel.
        means: ``[C, 1, 1]``, of each channel after division by ``brightest``.
        deviations: Likewise.

    Example:
        >>> Pixels.of(16, [0.5], [0.25]).normalise(torch.tensor([[[0, 8, 16]]], dtype=torch.uint8))
        tensor([[[-2.,  0.,  2.]]])
    """

    brightest: Tensor
    means: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, brightest: int, means: Sequence[float], deviations: Sequence[float]) -> "Pixels":
        """Return the normalisation of images with one mean and one deviation for each channel."""
        of_channels = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (means, deviations))
        return cls(torch.tensor(float(brightest)), *of_channels)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return ``pixels [..., C, H, W]`` as float32."""
        return pixels.float().div_(self.brightest).sub_(self.means).div_(self.deviations)

    def to(self, device: torch.device | str) -> "Pixels":
        """Return the same on a device."""
        return Pixels(self.brightest.to(device), self.means.to(device), self.deviations.to(device))

    def content(self) -> dict[str, Any]:
        """Return the arguments of :meth:`of`, as JSON types."""
        means, deviations = (numbers.flatten().tolist() for numbers in (self.means, self.deviations))
        return {"brightest": int(self.brightest), "means": means, "deviations": deviations}


@dataclass(frozen=True)
class Format:
    """What the inputs of a source are: images or feature vectors, and in which numbers.

    Attributes:
        shape: (channels C, height, width) of an image, or (p,) of a feature vector.
        classes: Labels run from 0 to ``classes`` - 1.
        means: One number per channel or feature, of the training inputs after division by ``brightest``; a constant of
            the source, so that a split cannot change it.
        deviations: Likewise.
        brightest: Inputs are integers from 0 to this; None: they are any finite numbers, and divided by nothing.
        own_test: Whether the source has a test part of its own.
    """

    shape: tuple[int, ...]
    classes: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    brightest: int | None = 255
    own_test: bool = True

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that the source comes in, from which the splits are made."""
        return ("train", "test") if self.own_test else ("train",)

    @property
    def pixels(self) -> Pixels | None:
        """How pixels are normalised; None where inputs are no pixels."""
        return None if self.brightest is None else Pixels.of(self.brightest, self.means, self.deviations)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return inputs ``[N, *shape]`` that are no pixels as float32, each channel or feature normalised in float64.

        Example:
            >>> import torch
            >>> Format((2,), classes=2, means=(1.0, 5.0), deviations=(2.0, 1.0), brightest=None).normalise(
            ...     torch.tensor([[3.0, 5.0]])
            ... )
            tensor([[1., 0.]])
        """
        each = (-1, *[1] * (len(self.shape) - 1))
        mean, deviation = (
            torch.tensor(numbers, dtype=torch.float64).view(each) for numbers in (self.means, self.deviations)
        )
        return ((inputs.double() - mean) / deviation).float()
