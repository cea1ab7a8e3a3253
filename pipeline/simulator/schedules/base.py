"""The contract of a learning-rate schedule."""

from abc import abstractmethod

from torch import Tensor

from pipeline.core.component import Component


class Schedule(Component):
    """What the learning rate is multiplied by at each step."""

    @abstractmethod
    def factors(self, steps: int) -> Tensor:
        """Return the factor of every step, ``[steps]``, float64."""
