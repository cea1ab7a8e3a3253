"""Byzantine workers that follow the protocol: honestly, or on poisoned labels."""

from typing import ClassVar, Literal

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


@ATTACKS.register
class LabelFlip(DataAttack):
    """Label flipping: honest computation on flipped labels.

    y -> C - 1 - y

    The Byzantine workers hold data of their own and keep their own momentum.

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
