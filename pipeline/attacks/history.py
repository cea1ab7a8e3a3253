"""Attacks that use earlier steps: mimic and relocated orthogonal perturbation.

Notation: g_1..g_h the honest vectors after momentum, mu their mean, theta the strength, t the step from 0. All b
Byzantine workers send the same vector.
"""

from math import cos, radians, sin
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from pipeline.attacks import ATTACKS, AttackContext, Choice, Crafted, Range, Space, TunableAttack, VectorAttack
from pipeline.attacks.base import normalised, repeat_for_each
from pipeline.attacks.omniscient import ALittleIsEnough
from pipeline.core.order import mean_over_workers
from pipeline.core.vectors import mix, sum_over_columns


class Mimicry(NamedTuple):
    """What mimic remembers.

    Attributes:
        mean: ``[..., d]``, the mean of the honest means so far.
        direction: ``[..., d]``, of length one: the estimate of the direction of largest variance.
        target: ``[..., 1]``, int64, the honest worker that is copied.
    """

    mean: Tensor
    direction: Tensor
    target: Tensor


@ATTACKS.register
class Mimic(VectorAttack):
    """Mimic: all Byzantine workers copy one honest worker, and so give its data too much weight.

    b_j = g_i, i = argmax_i <g_i, z> during the first ``warmup`` steps, and the last of these i ever after;
    i = ``target`` where warmup is 0

    z estimates the direction of largest variance between the honest workers, by a power iteration over the steps:

    m_0 = mu_0, z_0 = unit(sum_i <g_i - m_0, r> (g_i - m_0)) for a random r ~ N(0, I)
    m_t = t / (t + 1) m_(t-1) + 1 / (t + 1) mu_t
    z_t = unit(t / (t + 1) z_(t-1) + 1 / (t + 1) unit(sum_i <g_i - m_t, z_(t-1)> (g_i - m_t)))

    Checked against the authors' code, not against the paper's text.

    Differs from: elsewhere a fixed worker is copied, here with ``warmup: 0``; the authors draw the same r in every run.
    The default of one step is that of their code.

    Reference: Karimireddy et al., ICLR 2022, arXiv:2006.09365.

    Example:
        >>> Mimic(warmup=0, target=2)
        Mimic(name='mimic', start=0, ramp=0, warmup=0, target=2)
    """

    name: Literal["mimic"] = "mimic"
    warmup: int = Field(1, ge=0, description="steps that estimate the direction; 0 copies ``target``")
    target: int = Field(0, ge=0, description="honest worker that is copied where warmup is 0")
    formula: ClassVar[str] = "g_i of one honest worker, i = argmax <g_i, z> at the end of the warm-up"
    reference: ClassVar[str] = "Karimireddy et al., ICLR 2022, arXiv:2006.09365"
    knowledge: ClassVar[str] = "the honest vectors of the step, and of the warm-up"
    random: ClassVar[bool] = True
    space: ClassVar[Space] = {"warmup": Choice((0, 1, 10, 50)), "target": Choice((0, 1))}

    def unmet(self, honest: int, sampled: bool) -> str | None:
        """Return what is wrong where ``target`` is not an honest worker, or workers are sampled; or None."""
        if sampled:
            return "name = 'mimic': copies one worker, who must take part in every round; threat.sampled should be null"
        if self.target < honest:
            return None
        return f"target = {self.target}: there are {honest} honest workers, counted from 0"

    def init_state(self, like: Tensor) -> Mimicry:
        """Return a state without a direction, for ``like [..., h, d]``."""
        nothing = torch.zeros_like(like[..., 0, :])
        target = torch.full((*nothing.shape[:-1], 1), self.target, device=like.device)
        return Mimicry(nothing, nothing, target)

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return ``g_i`` b times, given ``honest [R, h, d]`` and a :class:`Mimicry`."""
        if context.step < self.warmup:
            state = _observe(honest, context, state)
        where = state.target[..., None].expand(*honest.shape[:-2], 1, honest.shape[-1])
        return Crafted(repeat_for_each(honest.gather(-2, where), context.byzantine), state)


def _observe(honest: Tensor, context: AttackContext, state: Mimicry) -> Mimicry:
    """Return the state after one step of the warm-up."""
    t, mu = context.step, mean_over_workers(honest)
    mean = t / (t + 1) * state.mean + mu / (t + 1)
    start = context.stream.normal(honest.shape[-1]).to(honest.dtype) if t == 0 else state.direction
    offsets = honest - mean[..., None, :]
    along = sum_over_columns(offsets * start[..., None, :])[..., None]
    power = normalised(mix(along.mT, offsets)[..., 0, :])
    direction = normalised(t / (t + 1) * state.direction + power / (t + 1))
    target = sum_over_columns(honest * direction[..., None, :]).argmax(dim=-1, keepdim=True)
    return Mimicry(mean, direction, target)


@ATTACKS.register
class RelocatedOrthogonalPerturbation(TunableAttack):
    """Relocated orthogonal perturbation (ROP): a push across the previous aggregate, from where it stands.

    b_i = pi a + (1 - pi) mu + theta unit(sin(angle) unit(p) + cos(angle) unit(r)), a the previous aggregate
    r = lambda a + (1 - lambda) mu, mu at the first step; p = e - <e, r> / <r, r> r, e the vector of ones

    The perturbation has the length theta whatever the honest vectors are. By default pi = 1, lambda = 0.9, angle = 270
    degrees (so -unit(p)) and theta = z_max of ALIE, which depends on n and f; where that is not defined a strength must
    be given.

    Checked against the authors' code, not against the paper's text. There, theta is in units of their momentum, damped
    or undamped, and not comparable between the two.

    Reference: Ozfatura et al. 2022, arXiv:2208.09894.

    Example:
        >>> round(RelocatedOrthogonalPerturbation().literature(25, 5)[0], 3)
        0.253
    """

    name: Literal["rop"] = "rop"
    pi: float = Field(1.0, ge=0, le=1, description="where: 1 at the previous aggregate, 0 at the honest mean")
    lambda_: float = Field(0.9, ge=0, le=1, description="reference: 1 the previous aggregate, 0 the honest mean")
    angle: float = Field(270.0, ge=0, le=360, description="degrees from the reference; 90 and 270 are orthogonal to it")
    formula: ClassVar[str] = "pi a + (1 - pi) mu + theta unit(sin(angle) unit(p) + cos(angle) unit(r))"
    reference: ClassVar[str] = "Ozfatura et al. 2022, arXiv:2208.09894"
    knowledge: ClassVar[str] = "the mean of the honest vectors, the previous aggregate, n and f"
    strengths: ClassVar[tuple[float, float]] = (0.1, 100.0)
    space: ClassVar[Space] = {"pi": Range(0, 1), "lambda_": Range(0, 1), "angle": Range(0, 360)}

    def literature(self, n: int, f: int) -> tuple[float, ...]:
        """Return z_max of ALIE, or nothing where it is not a positive number."""
        return ALittleIsEnough().literature(n, f)[:1]

    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return the perturbed vector b times, given ``honest [..., h, d]``."""
        mu, previous = mean_over_workers(honest), context.previous
        blend = 0.0 if context.step == 0 else self.lambda_
        reference = normalised(blend * previous + (1 - blend) * mu)
        across = normalised(1 - sum_over_columns(reference)[..., None] * reference)
        push = normalised(sin(radians(self.angle)) * across + cos(radians(self.angle)) * reference)
        centre = self.pi * previous + (1 - self.pi) * mu
        vector = centre[..., None, :] + context.strength * push[..., None, :]
        return Crafted(repeat_for_each(vector, context.byzantine), state)
