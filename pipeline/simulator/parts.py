"""What each party computes in a step: a worker, the adversary, the server.

The simulator calls these one after the other, for all replicas and workers at once; a distributed run calls each in the
process that owns what it is given (docs/distributed.md). So both compute the same bits.
"""

from typing import Any, NamedTuple

from torch import Tensor

from pipeline.attacks import AttackContext, VectorAttack
from pipeline.attacks.base import scheduled
from pipeline.simulator.program import Defended, Program, at
from pipeline.simulator.server import update
from pipeline.simulator.worker import with_momentum


class Worked(NamedTuple):
    """What k workers have computed in a step.

    Attributes:
        vectors: ``[R, k, d]``, before momentum.
        momentum: ``[R, k, d]``, after it: what an honest worker sends.
        losses: ``[R, k]``, training losses in nats.
    """

    vectors: Tensor
    momentum: Tensor
    losses: Tensor


class Served(NamedTuple):
    """What the server has after a step: parameters and velocity, ``[R, d]`` each, and what its defences have made."""

    params: Tensor
    velocity: Tensor
    defended: Defended


def work(
    program: Program,
    params: Tensor,
    momentum: Tensor,
    t: int | Tensor,
    present: Tensor | None,
    honest: int,
    place: int = 0,
) -> Worked:
    """Return what workers compute on their own data.

    Args:
        program: What they hold.
        params: ``[R, d]``, the server's.
        momentum: ``[R, k, d]``, their own, of the step before.
        t: The step.
        present: ``[R, k]``, which of the workers of ``program`` these are, honest first; None: all.
        honest: How many of these are honest.
        place: Of the first of these among the workers of the step.
    """
    training = program.training
    inputs, labels = program.batch(t, present, honest, place)
    vectors, losses = training.local_update.vectors(program.gradients, program.network, params, inputs, labels)
    return Worked(vectors, with_momentum(momentum, vectors, training.momentum, training.damped), losses)


def craft(
    program: Program, honest: Tensor, previous: Tensor, memories: tuple[Any, ...], remembered: Any, t: int | Tensor
) -> tuple[Tensor, Any]:
    """Return what the adversary of a vector attack has its workers send, ``[R, b, d]``, and what it remembers.

    Args:
        program: Attack and defences.
        honest: ``[R, h, d]``, what the honest workers send.
        previous: ``[R, d]``, the last aggregate.
        memories: What each defence remembers.
        remembered: By the adversary, of the step before.
        t: The step.
    """
    assert isinstance(program.attack, VectorAttack)
    context = AttackContext(
        byzantine=program.counts(t)[1],
        tolerated=program.threat.tolerated,
        step=t,
        strength=program.strength,
        previous=previous,
        defence=lambda vectors: program.defend(vectors, memories, program.adversary.fork(2 * t)).aggregates,
        stream=program.adversary.fork(2 * t + 1),
    )
    crafted, remembered = program.attack.craft(honest, context, remembered)
    return crafted if program.ratios is None else scheduled(crafted, honest, at(program.ratios, t)), remembered


def serve(
    program: Program, params: Tensor, velocity: Tensor, memories: tuple[Any, ...], sent: Tensor, t: int | Tensor
) -> Served:
    """Return what the server has after it has aggregated the vectors that were sent.

    Args:
        program: Defences and rates.
        params: ``[R, d]``.
        velocity: ``[R, d]``.
        memories: What each defence remembers.
        sent: ``[R, n, d]``, honest workers first.
        t: The step.
    """
    training = program.training
    defended = program.defend(sent, memories, program.server.fork(t))
    rate, decay = at(program.rates, t), training.weight_decay
    moved = update(params, velocity, defended.aggregates, rate, decay, training.server_momentum)
    return Served(*moved, defended)
