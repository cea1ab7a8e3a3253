"""What the inputs of a data set look like, and how they are normalised."""

from dataclasses import dataclass

from torch import Tensor


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

    def normalise(self, inputs: Tensor) -> Tensor:
        """Return inputs ``[N, *shape]`` as float32 with about zero mean and unit deviation in each channel or feature.

        Example:
            >>> import torch
            >>> Format((2,), classes=2, means=(1.0, 5.0), deviations=(2.0, 1.0), brightest=None).normalise(
            ...     torch.tensor([[3.0, 5.0]])
            ... )
            tensor([[1., 0.]])
        """
        values = inputs.double() if self.brightest is None else inputs.float() / self.brightest
        each = (-1, *[1] * (len(self.shape) - 1))
        mean, deviation = (values.new_tensor(numbers).view(each) for numbers in (self.means, self.deviations))
        return ((values - mean) / deviation).float()
