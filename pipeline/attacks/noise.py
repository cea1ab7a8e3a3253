"""Attacks that need to know nothing: Gaussian noise and constants."""

from math import inf, nan
from typing import Any, ClassVar, Literal

from torch import Tensor

from pipeline.attacks import ATTACKS, AttackContext, Crafted, TunableAttack, VectorAttack
from pipeline.attacks.base import draw_for_each
from pipeline.core.rng import Stream


@ATTACKS.register
class Gaussian(TunableAttack):
    """Gaussian noise around zero.

    b_i ~ N(0, theta^2 I), every Byzantine worker its own draw at every step

    Differs from: elsewhere the noise is around the honest mean.

    Reference: Blanchard et al., NeurIPS 2017, arXiv:1703.02757, with a standard deviation of 200 (not checked against
    the paper's text).

    Example:
        >>> Gaussian().literature(17, 5)
        (200.0,)
    """

    name: Literal["gaussian"] = "gaussian"
    formula: ClassVar[str] = "N(0, theta^2 I), each its own draw"
    reference: ClassVar[str] = "Blanchard et al., NeurIPS 2017, arXiv:1703.02757"
    knowledge: ClassVar[str] = "nothing"
    strengths: ClassVar[tuple[float, float]] = (0.01, 1000.0)
    random: ClassVar[bool] = True

    def literature(self, n: int, f: int) -> tuple[float, ...]:
        """Return 200."""
        del n, f
        return (200.0,)

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return ``[R, b, d]`` draws, given ``honest [R, h, d]``."""
        return Crafted(context.strength * draw_for_each(Stream.normal, honest, context), state)


class Constant(VectorAttack):
    """Every number of every Byzantine vector is the same."""

    value: ClassVar[float]
    reference: ClassVar[str] = "a check of the defence's handling of missing and broken workers"
    knowledge: ClassVar[str] = "nothing"

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return ``[..., b, d]``, given ``honest [..., h, d]``."""
        shape = (*honest.shape[:-2], context.byzantine, honest.shape[-1])
        return Crafted(honest.new_full(shape, self.value), state)


@ATTACKS.register
class Zero(Constant):
    """Zero vectors: workers that contribute nothing."""

    name: Literal["zero"] = "zero"
    formula: ClassVar[str] = "0"
    value: ClassVar[float] = 0.0


@ATTACKS.register
class NotANumber(Constant):
    """Vectors of NaN: one of them in a plain mean ends the training."""

    name: Literal["nan"] = "nan"
    formula: ClassVar[str] = "NaN"
    value: ClassVar[float] = nan


@ATTACKS.register
class Infinite(Constant):
    """Vectors of infinity."""

    name: Literal["inf"] = "inf"
    formula: ClassVar[str] = "infinity"
    value: ClassVar[float] = inf
