"""Attacks by a formula of the honest vectors of the step: sign flipping, inner-product manipulation, ALIE, Fang.

Notation: g_1..g_h the honest vectors after momentum, mu their mean, sd their coordinate-wise standard deviation with
h - 1 in the denominator, theta the strength. All b Byzantine workers send the same vector unless stated.
"""

from statistics import NormalDist
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.attacks import ATTACKS, AttackContext, Choice, Crafted, Space, TunableAttack
from pipeline.attacks.base import draw_for_each, repeat_for_each
from pipeline.core.order import mean_and_deviation_over_workers, mean_over_workers
from pipeline.core.rng import Stream


@ATTACKS.register
class SignFlip(TunableAttack):
    """Sign flipping: the mean of the honest vectors, reversed.

    b_i = -theta mu, theta = 1 by default; with ``own``: b_i = -theta g_(i mod h)

    With ``own`` every Byzantine worker reverses a vector by itself. A vector attack has no gradients of its own, so
    worker i reverses that of honest worker i (again from the first where b > h), which it knows.

    Differs from: in the paper each Byzantine worker reverses a gradient that it has drawn itself; here ``own`` reverses
    one that the server also receives, so that the plain mean cancels the pair at theta = 1.

    Reference: Allen-Zhu et al., ICLR 2021, arXiv:2012.14368.

    Example:
        >>> SignFlip().literature(17, 5)
        (1.0,)
    """

    name: Literal["sign_flip"] = "sign_flip"
    own: bool = Field(False, description="reverse the vector of one honest worker each instead of their mean")
    formula: ClassVar[str] = "-theta mu; own: -theta g_i"
    reference: ClassVar[str] = "Allen-Zhu et al., ICLR 2021, arXiv:2012.14368"
    knowledge: ClassVar[str] = "the honest vectors of the step"
    strengths: ClassVar[tuple[float, float]] = (0.1, 100.0)

    def literature(self, n: int, f: int) -> tuple[float, ...]:
        """Return 1."""
        del n, f
        return (1.0,)

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return the reversed mean b times, or b reversed vectors, given ``honest [..., h, d]``."""
        if not self.own:
            return Crafted(_negated_mean(honest, context), state)
        chosen = torch.arange(context.byzantine, device=honest.device) % honest.shape[-2]
        return Crafted(-context.strength * honest[..., chosen, :], state)


@ATTACKS.register
class InnerProductManipulation(TunableAttack):
    """Inner-product manipulation (IPM): a small reversed mean that hides among the honest vectors.

    b_i = -eps mu, eps = theta = 0.1 by default; against the plain mean the update is reversed when eps > h / b

    At eps = 1 it is ``sign_flip``, so publications of either are publications of both.

    Differs from: elsewhere written (1 - factor) mu, where the factor 1.1 is eps = 0.1.

    Reference: Xie et al., UAI 2019, arXiv:1903.03936.

    Example:
        >>> InnerProductManipulation().literature(17, 5)
        (0.1, 1.0)
    """

    name: Literal["ipm"] = "ipm"
    formula: ClassVar[str] = "-theta mu"
    reference: ClassVar[str] = "Xie et al., UAI 2019, arXiv:1903.03936"
    knowledge: ClassVar[str] = "the honest vectors of the step"
    strengths: ClassVar[tuple[float, float]] = (0.01, 100.0)

    def literature(self, n: int, f: int) -> tuple[float, ...]:
        """Return 0.1, and the 1 of sign flipping."""
        del n, f
        return (0.1, 1.0)

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return ``-theta mu`` b times, given ``honest [..., h, d]``."""
        return Crafted(_negated_mean(honest, context), state)


def _negated_mean(honest: Tensor, context: AttackContext) -> Tensor:
    mu = mean_over_workers(honest)[..., None, :]
    return repeat_for_each(-context.strength * mu, context.byzantine)


@ATTACKS.register
class ALittleIsEnough(TunableAttack):
    """A little is enough (ALIE): as far from the mean as the honest vectors' own spread hides.

    b_i = mu + sign theta sd, theta = z_max = Phi^-1((n - f - s) / (n - f)), s = floor(n / 2 + 1) - f, sign = -1

    f is the number of tolerated workers. ``z_formula`` says of which share z_max is the quantile: of
    (n - f - s) / (n - f), or of (n - s) / n. Where these quantiles are not both positive numbers (f too small or too
    large for n) there is no default, and a strength must be given.

    Differs from: elsewhere z is fixed at 1.5 (ByzFL, ByzantineMomentum), or mu + z sd is sent (here ``sign``).

    Reference: Baruch et al., NeurIPS 2019, arXiv:1902.06156.

    Example:
        >>> [round(z, 3) for z in ALittleIsEnough().literature(25, 5)]
        [0.253, 0.468, 1.5]
        >>> [round(z, 3) for z in ALittleIsEnough(z_formula="(n-s)/n").literature(25, 5)]
        [0.468, 0.253, 1.5]
    """

    name: Literal["alie"] = "alie"
    sign: Literal[-1, 1] = Field(-1, description="on which side of the mean")
    z_formula: Literal["(n-f-s)/(n-f)", "(n-s)/n"] = Field("(n-f-s)/(n-f)", description="share whose quantile z_max is")
    formula: ClassVar[str] = "mu + sign theta sd"
    reference: ClassVar[str] = "Baruch et al., NeurIPS 2019, arXiv:1902.06156"
    knowledge: ClassVar[str] = "the honest vectors of the step, n and f"
    strengths: ClassVar[tuple[float, float]] = (0.05, 20.0)
    space: ClassVar[Space] = {"sign": Choice((-1, 1))}

    def literature(self, n: int, f: int) -> tuple[float, ...]:
        """Return z_max by both formulas, the chosen one first, and 1.5; nothing where a z_max is not positive."""
        supporters = n // 2 + 1 - f
        shares = [(n - f - supporters) / (n - f), (n - supporters) / n]
        if not all(0.5 < share < 1 for share in shares):
            return ()
        over_others, over_all = (NormalDist().inv_cdf(share) for share in shares)
        return (over_others, over_all, 1.5) if self.z_formula == "(n-f-s)/(n-f)" else (over_all, over_others, 1.5)

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return ``mu + sign theta sd`` b times, given ``honest [..., h, d]``, h >= 2."""
        mu, sd = (moment[..., None, :] for moment in mean_and_deviation_over_workers(honest))
        return Crafted(repeat_for_each(mu + self.sign * context.strength * sd, context.byzantine), state)


@ATTACKS.register
class DirectedDeviation(TunableAttack):
    """Directed deviation of Fang et al. (full knowledge, against the trimmed mean): just beyond the honest extremes.

    s = sign(mu), per coordinate; u ~ U(0, 1), for every coordinate of every Byzantine worker anew
    extreme = min g where s > 0, max g where s < 0
    b_i = extreme (1 + u (theta - 1))        where that moves away from mu: extreme and s have different signs
    b_i = extreme (1 - u (1 - 1 / theta))    where the extreme has the sign of s, and shrinking moves away from mu
    b_i = 0                                  where mu = 0: there is no direction to deviate from

    That is, uniform between the extreme and theta or 1 / theta times it. theta = 2 is b of the paper. The paper states
    it for models; for the vectors that are aggregated here, s is the direction in which the aggregate would move the
    model without an attack. Checked against the authors' code; the paper leaves mu = 0 open.

    Differs from: the authors' code takes the end of the interval (u = 1) instead of a random point; a public notebook
    multiplies by theta without regard to the sign of the extreme, which can land inside the honest range.

    Reference: Fang et al., USENIX Security 2020, arXiv:1911.11815.

    Example:
        >>> DirectedDeviation().literature(17, 5)
        (2.0,)
    """

    name: Literal["fang"] = "fang"
    strength: float | None = Field(None, ge=1, description="theta, the paper's b; null: the literature's default")
    formula: ClassVar[str] = "min g (where mu > 0) or max g (where mu < 0), moved away from mu by a factor up to theta"
    reference: ClassVar[str] = "Fang et al., USENIX Security 2020, arXiv:1911.11815"
    knowledge: ClassVar[str] = "the honest vectors of the step"
    strengths: ClassVar[tuple[float, float]] = (1.1, 10.0)
    random: ClassVar[bool] = True

    def literature(self, n: int, f: int) -> tuple[float, ...]:
        """Return 2."""
        del n, f
        return (2.0,)

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return ``[R, b, d]``, every Byzantine worker its own draw, given ``honest [R, h, d]``."""
        direction = mean_over_workers(honest)[..., None, :].sign()
        low, high = honest.amin(dim=-2, keepdim=True), honest.amax(dim=-2, keepdim=True)
        extreme = torch.where(direction > 0, low, high) * direction.abs()
        uniform = draw_for_each(Stream.uniform, honest, context)
        shrinks = extreme * direction > 0
        factor = torch.where(shrinks, 1 - uniform * (1 - 1 / context.strength), 1 + uniform * (context.strength - 1))
        return Crafted(extreme * factor, state)
