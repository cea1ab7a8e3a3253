"""The server's update: learning-rate schedule and weight decay."""

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.component import Component, Registry


class Schedule(Component):
    """What the learning rate is multiplied by at each step."""

    @abstractmethod
    def factors(self, steps: int) -> Tensor:
        """Return the factor of every step, ``[steps]``, float64."""


SCHEDULES: Registry[Schedule] = Registry("schedule")


@SCHEDULES.register
class Constant(Schedule):
    """The same learning rate at every step.

    Example:
        >>> Constant().factors(3)
        tensor([1., 1., 1.], dtype=torch.float64)
    """

    name: Literal["constant"] = "constant"
    formula: ClassVar[str] = "1"

    def factors(self, steps: int) -> Tensor:
        """1 at every step."""
        return torch.ones(steps, dtype=torch.float64)


@SCHEDULES.register
class Milestones(Schedule):
    """The learning rate drops by a factor at given steps.

    Example:
        >>> Milestones(at=(2,), factor=0.5).factors(4)
        tensor([1.0000, 1.0000, 0.5000, 0.5000], dtype=torch.float64)
    """

    name: Literal["milestones"] = "milestones"
    at: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] = Field(
        description="steps (from 0) at which the rate drops"
    )
    factor: float = Field(gt=0, le=1, description="what the rate is multiplied by at each of them")
    formula: ClassVar[str] = "factor^(number of milestones reached)"

    def factors(self, steps: int) -> Tensor:
        """``factor`` to the number of milestones reached."""
        reached = torch.arange(steps)[:, None] >= torch.tensor(self.at)
        return torch.tensor([self.factor**count for count in reached.sum(dim=-1).tolist()], dtype=torch.float64)


def update(
    params: Tensor, velocity: Tensor, direction: Tensor, rate: Tensor, weight_decay: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """Return the next parameters and velocity.

    v <- momentum v + direction + weight_decay x, x <- x - rate v

    Args:
        params: x, ``[R, d]``.
        velocity: v, ``[R, d]``.
        direction: ``[R, d]``, the aggregate.
        rate: Learning rate, a scalar or ``[R, 1]``.
        weight_decay: L2 coefficient, at least 0.
        momentum: Of the server, in [0, 1).

    Returns:
        Parameters and velocity, ``[R, d]`` each.

    Example:
        >>> one = torch.ones(1, 1)
        >>> update(one, velocity=one, direction=2 * one, rate=torch.tensor(0.1), weight_decay=0.0, momentum=0.5)
        (tensor([[0.7500]]), tensor([[2.5000]]))
    """
    velocity = momentum * velocity + (direction + weight_decay * params)
    return params - rate * velocity, velocity
