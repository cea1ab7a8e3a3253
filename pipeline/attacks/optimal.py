"""Attacks whose strength is chosen at every step, for every replica, against the defence itself.

Notation: g_1..g_h the honest vectors after momentum, mu their mean, sd their coordinate-wise standard deviation, F the
defence with everything that it remembers. All b Byzantine workers send the same vector mu + theta p.

The choice is greedy: it maximises the error of this step's aggregate, not the damage at the end of the training. Keep
the plain attacks in every "worst of" set.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.attacks import ATTACKS, AttackContext, Choice, Crafted, Space, TunableAttack, VectorAttack
from pipeline.attacks.omniscient import ALittleIsEnough, InnerProductManipulation
from pipeline.core.order import mean_over_workers
from pipeline.core.vectors import sum_over_columns

COARSE, FINE, ROUNDS = 15, 8, 2  # strengths of the first round; of every refinement; refinements
NUMBERS_AT_ONCE = 2**24  # of the received vectors under all the candidates that the defence is shown in one call


class OptimalAttack(VectorAttack):
    """The plain attack ``twin`` at the strength that moves the aggregate most.

    theta = argmax |F(g_1..g_h, b(theta) b times) - mu|^2

    The twin's default strength and a logarithmic grid over its range are tried first, then twice a finer grid around
    the best. A later strength is taken only if it is better, so the result is never below the twin's default (1 where
    the twin has none), and it may be smaller or larger than that.

    Differs from: searches elsewhere start from a first accepted strength and can only go up from it.
    """

    knowledge: ClassVar[str] = "the honest vectors of the step, the defence with its memory, n and f"

    @property
    @abstractmethod
    def twin(self) -> TunableAttack:
        """The plain attack."""

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return the twin's vectors at the chosen strengths, given ``honest [R, h, d]``."""
        if context.byzantine == 0:
            return Crafted(honest[..., :0, :].clone(), state)
        theta = self.strongest(honest, context)[..., None, None]
        return Crafted(self._candidates(honest, context, theta), state)

    def strongest(self, honest: Tensor, context: AttackContext) -> Tensor:
        """Return the chosen strengths ``[R]``, given ``honest [R, h, d]`` and b >= 1."""
        low, high = self.twin.strengths
        n = honest.shape[-2] + context.byzantine
        best = honest.new_full(honest.shape[:-2], (*self.twin.literature(n, context.tolerated), 1.0)[0])
        value = self._errors(honest, context, best[None])[0]
        grid = torch.logspace(0, 1, COARSE, base=high / low, dtype=torch.float64).to(honest) * low
        best, value = self._better(honest, context, _for_each(grid, best), best, value)
        ratio = (high / low) ** (1 / (COARSE - 1))
        for _ in range(ROUNDS):
            around = torch.linspace(-1, 1, FINE + 2, dtype=torch.float64)[1:-1].to(honest)
            candidates = (best * ratio ** _for_each(around, best)).clamp(low, high)
            best, value = self._better(honest, context, candidates, best, value)
            ratio **= 2 / (FINE + 1)
        return best

    def _better(
        self, honest: Tensor, context: AttackContext, candidates: Tensor, best: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the best strengths ``[R]`` and their errors, of the ``candidates [K, R]`` and the best so far."""
        values = torch.cat([value[None], self._errors(honest, context, candidates)])
        value, winner = values.max(dim=0, keepdim=True)
        return torch.cat([best[None], candidates]).gather(0, winner)[0], value[0]

    def _errors(self, honest: Tensor, context: AttackContext, strengths: Tensor) -> Tensor:
        """Return ``|F - mu|^2 [K, R]`` for the ``strengths [K, R]``; -1 where it is NaN."""
        n = honest.shape[-2] + context.byzantine
        at_once = max(1, NUMBERS_AT_ONCE // (n * honest.shape[-1] * max(1, strengths[0].numel())))
        starts = range(0, len(strengths), at_once)
        pieces = [self._errors_at_once(honest, context, strengths[i : i + at_once]) for i in starts]
        return torch.cat(pieces).nan_to_num(nan=-1.0, posinf=torch.inf)

    def _errors_at_once(self, honest: Tensor, context: AttackContext, strengths: Tensor) -> Tensor:
        crafted = self._candidates(honest, context, strengths[..., None, None])
        sent = torch.cat([honest.expand(len(strengths), *honest.shape), crafted], dim=-2)
        return sum_over_columns((context.defence(sent) - mean_over_workers(honest)).square())

    def _candidates(self, honest: Tensor, context: AttackContext, strengths: Tensor) -> Tensor:
        """Return the twin's vectors ``[..., R, b, d]`` for the ``strengths [..., R, 1, 1]``."""
        return self.twin.craft(honest, replace(context, strength=strengths)).vectors


def _for_each(values: Tensor, replicas: Tensor) -> Tensor:
    """Return ``values [K]`` as ``[K, R]``, the same for each of the ``replicas [R]``."""
    return values.view(-1, *(1,) * replicas.dim()).expand(-1, *replicas.shape)


@ATTACKS.register
class OptimalALittleIsEnough(OptimalAttack):
    """Optimal ALIE: the strength of ALIE that hurts the defence most, chosen at every step.

    b_i = mu + sign theta sd, theta = argmax |F(...) - mu|^2 over 0.05 to 20, sign = -1

    Differs from: searches elsewhere can only go up from their first accepted strength.

    Reference: El Mhamdi et al., ICLR 2021, arXiv:2003.00010; search against the defence: arXiv:2205.12173. The
    formula was not checked against the papers' text.

    Example:
        >>> OptimalALittleIsEnough(sign=1).twin.sign
        1
    """

    name: Literal["optimal_alie"] = "optimal_alie"
    sign: Literal[-1, 1] = Field(-1, description="on which side of the mean")
    formula: ClassVar[str] = "mu + sign theta sd, theta = argmax |F(...) - mu|^2 at every step"
    reference: ClassVar[str] = "El Mhamdi et al., ICLR 2021, arXiv:2003.00010; arXiv:2205.12173"
    space: ClassVar[Space] = {"sign": Choice((-1, 1))}

    @property
    def twin(self) -> ALittleIsEnough:
        """ALIE on the same side of the mean."""
        return ALittleIsEnough(sign=self.sign)


@ATTACKS.register
class OptimalInnerProductManipulation(OptimalAttack):
    """Optimal IPM: the strength of inner-product manipulation that hurts the defence most, chosen at every step.

    b_i = -theta mu, theta = argmax |F(...) - mu|^2 over 0.01 to 100

    Differs from: searches elsewhere can only go up from their first accepted strength.

    Reference: El Mhamdi et al., ICLR 2021, arXiv:2003.00010; search against the defence: arXiv:2205.12173. The
    formula was not checked against the papers' text.

    Example:
        >>> OptimalInnerProductManipulation().twin.strengths
        (0.01, 100.0)
    """

    name: Literal["optimal_ipm"] = "optimal_ipm"
    formula: ClassVar[str] = "-theta mu, theta = argmax |F(...) - mu|^2 at every step"
    reference: ClassVar[str] = "El Mhamdi et al., ICLR 2021, arXiv:2003.00010; arXiv:2205.12173"

    @property
    def twin(self) -> InnerProductManipulation:
        """Plain inner-product manipulation."""
        return InnerProductManipulation()
