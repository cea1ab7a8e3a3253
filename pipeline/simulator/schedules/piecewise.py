"""Learning rates that stay the same between given steps."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.simulator.schedules import SCHEDULES, Schedule


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
        description="steps (from 0) at which the rate drops", examples=[[3, 7]]
    )
    factor: float = Field(gt=0, le=1, description="what the rate is multiplied by at each of them", examples=[0.1])
    formula: ClassVar[str] = "factor^(number of milestones reached)"

    def factors(self, steps: int) -> Tensor:
        """``factor`` to the number of milestones reached."""
        reached = torch.arange(steps)[:, None] >= torch.tensor(self.at)
        return torch.tensor([self.factor**count for count in reached.sum(dim=-1).tolist()], dtype=torch.float64)
