"""The contract of an attack: what the adversary sees, and the kinds of attack."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.component import Component
from pipeline.core.errors import UserError
from pipeline.core.order import mean_over_workers
from pipeline.core.rng import Stream
from pipeline.core.space import Choice, Range, Space, Value, narrowed
from pipeline.core.vectors import norms

VARYING = ("strength", "start", "ramp")  # parameters that may differ between the replicas of a batch


@dataclass(frozen=True)
class AttackContext:
    """What an adversary may use besides the honest vectors.

    Attributes:
        byzantine: b, how many workers are Byzantine.
        tolerated: f, how many the defence was told to tolerate.
        step: The step of training, from 0; on a GPU possibly a tensor ``[]``.
        strength: theta, ``[..., 1, 1]``; it may differ between the replicas of a batch.
        previous: ``[..., d]``, the aggregate of the step before; zero at step 0.
        defence: The defence of every replica, ``[..., R, n, d] -> [..., R, d]``, as it stands at this step; it draws
            other random numbers than the server does.
        stream: Random numbers of the step, ``[R]``.
    """

    byzantine: int
    tolerated: int
    step: int | Tensor
    strength: Tensor
    previous: Tensor
    defence: Callable[[Tensor], Tensor]
    stream: Stream


class Crafted(NamedTuple):
    """What a vector attack returns: the Byzantine vectors ``[..., b, d]`` and what it remembers for the next step."""

    vectors: Tensor
    state: Any = None


class Attack(Component):
    """An attack of b colluding Byzantine workers on n - b honest ones.

    ``knowledge`` says what the adversary must know.
    """

    knowledge: ClassVar[str]

    def unmet(self, honest: int, sampled: bool) -> str | None:
        """Return what this attack lacks with ``honest`` honest workers, ``sampled`` anew in every round; or None."""
        del honest, sampled
        return None

    def resolved(self, n: int, f: int) -> Self:
        """Return this attack with its default strength filled in, where it has a strength.

        Raises:
            UserError: There is no default for this n and f.
        """
        del n, f
        return self


class DataAttack(Attack):
    """Byzantine workers follow the protocol on data of their own, which the attack has poisoned."""

    @abstractmethod
    def poison(self, labels: Tensor, classes: int) -> Tensor:
        """Return the labels (any shape, values 0 to ``classes`` - 1) that the Byzantine workers train on."""

    def sent(self, vectors: Tensor, momentum: Tensor) -> Tensor:
        """Return what the Byzantine workers send, ``[..., b, d]``, of their own vectors before and after momentum."""
        del vectors
        return momentum


class VectorAttack(Attack):
    """Byzantine workers send vectors made from the honest ones (after their momentum).

    What is sent is mu + r_t (b_i - mu), mu the mean of the honest vectors, b_i what the attack's formula gives, and
    r_t = clip((t - start + 1) / (ramp + 1), 0, 1): the honest mean before ``start``, then in equal steps to b_i.

    ``random`` is True for an attack that draws from the context's stream; ``space`` is what a search varies besides the
    strength.
    """

    random: ClassVar[bool] = False
    space: ClassVar[Mapping[str, Range | Choice]] = {}
    start: int = Field(0, ge=0, description="first step that is attacked; before it the honest mean is sent")
    ramp: int = Field(0, ge=0, description="steps from ``start`` on in which the attack grows to its full size")

    def searched(self, changes: Mapping[str, Sequence[Value]], path: str) -> Space:
        """Return what a search varies, with the ``changes`` that stand at ``path`` of params.yaml.

        Raises:
            UserError: A parameter or a value that this attack does not have.
        """
        return narrowed(self, self._declared(), changes, path)

    def _declared(self) -> Space:
        return dict(self.space)

    def init_state(self, like: Tensor) -> Any:
        """Return the state before the first step, for honest vectors shaped as ``like`` ``[..., h, d]``."""
        del like

    def craft(self, honest: Tensor, context: AttackContext, state: Any = None) -> Crafted:
        """Return what the Byzantine workers send.

        Args:
            honest: ``[..., h, d]``; ``[R, h, d]`` for an attack that draws random numbers.
            context: What else the adversary may use.
            state: What ``init_state`` or the step before returned.
        """
        return self._of_a_batch._craft(honest, context, state)

    @abstractmethod
    def _craft(self, honest: Tensor, context: AttackContext, state: Any) -> Crafted:
        """Return what the Byzantine workers send; see :meth:`craft`.

        One object stands for all replicas of a batch. What differs between them, the strength, is in the context;
        reading ``strength``, ``start`` or ``ramp`` from the object here is an error.
        """

    @property
    def _of_a_batch(self) -> Self:
        """This attack without the parameters that differ between the replicas of a batch."""
        shared = self.model_copy()
        for parameter in VARYING:
            shared.__dict__.pop(parameter, None)
        return shared

    if not TYPE_CHECKING:  # a type checker would take every misspelt attribute for a defined one

        def __getattr__(self, name: str) -> Any:
            if name in VARYING and name in type(self).model_fields:
                raise AttributeError(
                    f"{type(self).__name__}._craft reads self.{name}, which differs between the replicas of a batch; "
                    "the strength is context.strength, and the schedule is applied to what _craft returns"
                )
            return super().__getattr__(name)


class TunableAttack(VectorAttack):
    """A vector attack with a strength theta.

    A subclass declares ``strengths``, the range that a search tunes (on a logarithmic scale), and ``literature``, the
    strengths that publications use; with ``strength: null`` in params.yaml the first of these is taken.
    """

    strengths: ClassVar[tuple[float, float]]
    strength: float | None = Field(None, gt=0, description="theta; null: the literature's default")

    @abstractmethod
    def literature(self, n: int, f: int) -> tuple[float, ...]:
        """Return the strengths used in publications for n workers of which f are tolerated, the default first.

        Empty where the publication's formula gives none.
        """

    def resolved(self, n: int, f: int) -> Self:
        """Return this attack with its default strength filled in; see :meth:`Attack.resolved`."""
        if self.strength is not None:
            return self
        if not self.literature(n, f):
            raise UserError(f"strength = None: {self.name} has no default strength for n = {n}, f = {f}; give a number")
        return self.replace(strength=self.literature(n, f)[0])

    def _declared(self) -> Space:
        return {"strength": Range(*self.strengths, log=True), **self.space}


def scheduled(crafted: Tensor, honest: Tensor, ratio: Tensor) -> Tensor:
    """Return ``mu + r (b - mu)``, exactly ``b`` where r is 1 and the mean mu of the honest vectors where it is 0.

    Args:
        crafted: b, ``[..., b, d]``.
        honest: ``[..., h, d]``.
        ratio: r, ``[..., 1, 1]``, 0 to 1.

    Example:
        >>> ratio = torch.tensor([0.0, 0.5, 1.0])[:, None, None]
        >>> scheduled(torch.full((3, 1, 1), 9.0), torch.tensor([[1.0], [3.0]]).expand(3, 2, 1), ratio).flatten()
        tensor([2.0000, 5.5000, 9.0000])
    """
    mu = mean_over_workers(honest)[..., None, :]
    partly = torch.where(ratio < 1, mu + ratio * (crafted - mu), crafted)
    return torch.where(ratio > 0, partly, mu)


def repeat_for_each(vector: Tensor, byzantine: int) -> Tensor:
    """Return ``[..., b, d]``: every Byzantine worker sends the same ``vector [..., 1, d]``."""
    return vector.expand(*vector.shape[:-2], byzantine, vector.shape[-1])


def draw_for_each(draw: Callable[[Stream, int], Tensor], honest: Tensor, context: AttackContext) -> Tensor:
    """Return ``[..., b, d]``, drawn by every Byzantine worker from a stream of its own.

    Args:
        draw: ``Stream.uniform`` or ``Stream.normal``.
        honest: ``[..., h, d]``, whose batch, size, type and device the draws take.
        context: With the streams ``[R]`` and b.
    """
    d = honest.shape[-1]
    drawn = honest.new_empty(*honest.shape[:-2], context.byzantine, d)
    for worker in range(context.byzantine):
        drawn[..., worker, :] = draw(context.stream.fork(worker), d)
    return drawn


def normalised(vectors: Tensor) -> Tensor:
    """Return ``vectors [..., d]`` at length one; a zero vector stays zero."""
    lengths = norms(vectors)[..., None]
    return vectors / lengths.where(lengths > 0, 1.0)
