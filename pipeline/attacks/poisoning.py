"""Byzantine workers that compute on data of their own: honestly, on poisoned labels, or to send the reverse."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.attacks import ATTACKS, DataAttack


@ATTACKS.register
class NoAttack(DataAttack):
    """The b workers behave honestly, with data and momentum of their own: the clean reference of every degradation."""

    name: Literal["none"] = "none"
    formula: ClassVar[str] = "the b workers behave honestly"
    reference: ClassVar[str] = "the clean reference"
    knowledge: ClassVar[str] = "nothing"

    def poison(self, labels: Tensor, classes: int) -> Tensor:
        """Return the labels as they are."""
        del classes
        return labels


class OwnGradients(DataAttack):
    """Byzantine workers that send what they have computed on data of their own."""

    momentum: bool = Field(True, description="whether they keep momentum of their own; false: plain gradients are sent")

    def sent(self, vectors: Tensor, momentum: Tensor) -> Tensor:
        """Return the vectors after momentum, or before it; see :meth:`DataAttack.sent`."""
        return momentum if self.momentum else vectors


@ATTACKS.register
class LabelFlip(OwnGradients):
    """Label flipping: honest computation on flipped labels.

    y -> C - 1 - y

    The Byzantine workers hold data of their own and, unless ``momentum`` is false, keep their own momentum.

    Differs from: elsewhere the Byzantine vector is the mean of the honest workers' gradients on flipped labels.
    Tolpegin et al. flip one source class to one target class.

    Reference: as in ByzFL 0.0.11 and Blades; the idea: Tolpegin et al., ESORICS 2020, arXiv:2007.08432.

    Example:
        >>> import torch
        >>> LabelFlip().poison(torch.tensor([0, 1, 9]), classes=10)
        tensor([9, 8, 0])
    """

    name: Literal["label_flip"] = "label_flip"
    formula: ClassVar[str] = "honest computation on labels C - 1 - y"
    reference: ClassVar[str] = "as in ByzFL and Blades; the idea: Tolpegin et al., ESORICS 2020, arXiv:2007.08432"
    knowledge: ClassVar[str] = "its own data"

    def poison(self, labels: Tensor, classes: int) -> Tensor:
        """Return ``classes - 1 - labels``."""
        return classes - 1 - labels


@ATTACKS.register
class BitFlip(OwnGradients):
    """Bit flipping: each Byzantine worker reverses the gradient that it has computed on its own data.

    b_i = -g_i, g_i the vector of Byzantine worker i

    The Byzantine workers hold data of their own and, unless ``momentum`` is false, keep their own momentum.

    Differs from: ``sign_flip`` reverses honest vectors, or their mean, and needs no data. Flipping a bit elsewhere
    means one of a number's mantissa or exponent.

    Reference: Karimireddy et al., ICLR 2022, arXiv:2006.09365, as in the authors' public code.

    Example:
        >>> import torch
        >>> BitFlip().sent(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, -4.0]]))
        tensor([[-3.,  4.]])
    """

    name: Literal["bit_flip"] = "bit_flip"
    formula: ClassVar[str] = "-g_i of its own data"
    reference: ClassVar[str] = "Karimireddy et al., ICLR 2022, arXiv:2006.09365: the authors' public code"
    knowledge: ClassVar[str] = "its own data"

    def poison(self, labels: Tensor, classes: int) -> Tensor:
        """Return the labels as they are."""
        del classes
        return labels

    def sent(self, vectors: Tensor, momentum: Tensor) -> Tensor:
        """Return the reversed vectors; see :meth:`DataAttack.sent`."""
        return -super().sent(vectors, momentum)
