"""Byzantine workers that change nothing: the reference of training with the honest workers alone."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from pipeline.attacks import ATTACKS, AttackContext, Crafted, VectorAttack
from pipeline.attacks.base import repeat_for_each
from pipeline.core.order import mean_over_workers


@ATTACKS.register
class Absent(VectorAttack):
    """The Byzantine workers send the mean of the honest vectors, as if they were not there.

    b = mu

    With the rule ``mean`` the aggregate is the mean of the honest vectors, up to rounding: training is that of the
    honest workers alone. A robust rule sees b vectors in the middle of the others.
    """

    name: Literal["absent"] = "absent"
    formula: ClassVar[str] = "mu"
    reference: ClassVar[str] = "the reference of training with the honest workers alone"
    knowledge: ClassVar[str] = "the mean of the honest vectors"

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return ``mu`` b times, given ``honest [..., h, d]``."""
        return Crafted(repeat_for_each(mean_over_workers(honest)[..., None, :], context.byzantine), state)
