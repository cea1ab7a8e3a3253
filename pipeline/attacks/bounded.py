"""Min-Max and Min-Sum: as far from the mean of the honest vectors as their own distances allow.

Notation: g_1..g_h the honest vectors after momentum, mu their mean, sd their coordinate-wise standard deviation with
h - 1 in the denominator. All b Byzantine workers send mu + theta gamma dev, where dev is a direction, gamma the largest
number that meets the attack's bound, and theta the strength: 1, or a search's. For theta > 1 the bound is exceeded.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.attacks import ATTACKS, AttackContext, Choice, Crafted, Space, TunableAttack
from pipeline.attacks.base import normalised, repeat_for_each
from pipeline.core.kernels.elementary import root
from pipeline.core.order import mean_and_deviation_over_workers, mean_over_workers
from pipeline.core.vectors import norms, squared_distances, sum_over_columns


class BoundedDeviation(TunableAttack):
    """All Byzantine workers send mu + theta gamma dev."""

    dev: Literal["unit", "sign", "sd"] = Field("unit", description="direction: -mu / |mu|, -sign(mu) or -sd")
    reference: ClassVar[str] = "Shejwalkar, Houmansadr, NDSS 2021"
    knowledge: ClassVar[str] = "the honest vectors of the step"
    strengths: ClassVar[tuple[float, float]] = (0.1, 2.0)
    space: ClassVar[Space] = {"dev": Choice(("unit", "sign", "sd"))}

    def literature(self, n: int, f: int) -> tuple[float, ...]:
        """Return 1."""
        del n, f
        return (1.0,)

    @abstractmethod
    def largest(self, offsets: Tensor, direction: Tensor) -> Tensor:
        """Return gamma ``[..., 1]``, given ``mu - g_i [..., h, d]`` and dev ``[..., 1, d]``."""

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return ``mu + theta gamma dev`` b times, given ``honest [..., h, d]``, h >= 2."""
        mu = mean_over_workers(honest)[..., None, :]
        direction = self._direction(honest, mu)
        gamma = self.largest(mu - honest, direction)[..., None]
        return Crafted(repeat_for_each(mu + context.strength * gamma * direction, context.byzantine), state)

    def _direction(self, honest: Tensor, mu: Tensor) -> Tensor:
        if self.dev == "unit":
            return -normalised(mu)
        return -mu.sign() if self.dev == "sign" else -mean_and_deviation_over_workers(honest)[1][..., None, :]


@ATTACKS.register
class MinMax(BoundedDeviation):
    """Min-Max: no farther from any honest vector than the two farthest honest vectors are from each other.

    b = mu + gamma dev, the largest gamma with max_i |b - g_i| <= max_ij |g_i - g_j|

    Every i gives a quadratic in gamma, |dev|^2 gamma^2 + 2 <dev, mu - g_i> gamma + |mu - g_i|^2 <= M with M the square
    of the right side; gamma is the smallest of their larger roots.

    Differs from: elsewhere gamma is searched by halving steps, to a tolerance.

    Reference: Shejwalkar, Houmansadr, NDSS 2021; not checked against the paper's text.

    Example:
        >>> MinMax().literature(17, 5)
        (1.0,)
    """

    name: Literal["min_max"] = "min_max"
    formula: ClassVar[str] = "mu + theta gamma dev, largest gamma with max_i |b - g_i| <= max_ij |g_i - g_j|"

    def largest(self, offsets: Tensor, direction: Tensor) -> Tensor:
        """Return the smallest of the larger roots."""
        bound = squared_distances(offsets).amax(dim=(-2, -1))[..., None]
        square = sum_over_columns(direction.square())
        half = sum_over_columns(direction * offsets)
        room = (bound - sum_over_columns(offsets.square())).clamp_min(0)
        length = root(half.square() + square * room)
        # Of two equal forms of the root, the one that subtracts no nearly equal numbers.
        larger = torch.where(half > 0, _ratio(room, length + half), _ratio(length - half, square))
        return larger.amin(dim=-1, keepdim=True)


@ATTACKS.register
class MinSum(BoundedDeviation):
    """Min-Sum: the sum of squared distances to the honest vectors no larger than that of the worst honest vector.

    b = mu + gamma dev, the largest gamma with sum_i |b - g_i|^2 <= max_i sum_j |g_i - g_j|^2

    About the mean, sum_j |x - g_j|^2 = h |x - mu|^2 + const, so gamma = max_i |g_i - mu| / |dev|.

    Differs from: elsewhere the right side is a minimum over i, which makes a weaker attack.

    Reference: Shejwalkar, Houmansadr, NDSS 2021; not checked against the paper's text.

    Example:
        >>> MinSum().literature(17, 5)
        (1.0,)
    """

    name: Literal["min_sum"] = "min_sum"
    formula: ClassVar[str] = "mu + theta gamma dev, largest gamma with sum_i |b - g_i|^2 <= max_i sum_j |g_i - g_j|^2"

    def largest(self, offsets: Tensor, direction: Tensor) -> Tensor:
        """Return ``max_i |g_i - mu| / |dev|``."""
        farthest = norms(offsets).amax(dim=-1, keepdim=True)
        return _ratio(farthest, norms(direction))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return ``above / below``, and 0 where below is 0: there is no direction to go."""
    return (above / below.where(below > 0, 1.0)).where(below > 0, 0.0)
