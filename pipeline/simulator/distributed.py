"""A cell as a real system: a server, workers that own their data, and an adversary, each in a process of its own.

Each function below is what one process does from the first step to the last. It holds its own state, computes with the
functions of :mod:`pipeline.simulator.parts`, and knows of the others what comes over a :class:`Wire`. The simulator
trains the same cell with the same functions, so the parameters are equal after every step, bit for bit.

Every worker draws its own random numbers: those at its own place in the streams of the simulator, where all workers are
drawn at once. A real worker has a stream of its own instead; what it draws is then another number, not another rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.attacks import DataAttack, VectorAttack
from pipeline.data.dataset import Split
from pipeline.simulator.capture import mapped, tensors
from pipeline.simulator.parts import craft, serve, work
from pipeline.simulator.program import Program

SERVER = 0
ABSENT = -1  # in place of a worker's place: it takes no part in this step


class Wire(Protocol):
    """Carries tensors from one process to another, those between two of them in order."""

    def send(self, tensor: Tensor, to: int) -> None:
        """Send ``tensor`` to the process of that rank."""

    def receive(self, into: Tensor, sender: int) -> Tensor:
        """Fill ``into`` with the next tensor that the process of rank ``sender`` has sent here; return it."""


def rank(worker: int) -> int:
    """Return the rank of a worker's process: the server has 0, the honest workers come next."""
    return worker + 1


def server(program: Program, wire: Wire, tap: Wire) -> Iterator[Tensor]:
    """Be the server: hold the parameters, the velocity and what the defence remembers.

    Args:
        program: Of one replica; the defence and the rates are used, the data are not.
        wire: To and from the workers.
        tap: What an omniscient adversary overhears goes here. A real server has none.

    Yields:
        The parameters ``[1, d]`` after every step.
    """
    start = program.start()
    params, velocity, previous, memories = start.params, start.velocity, start.previous, start.defences
    for t in range(program.training.steps):
        h, _ = program.counts(t)
        present = _present(program, t)
        _call(program, present, params, wire)
        honest = _collected(present[:h], params, wire)
        if _overheard(program):
            for told in (honest, previous, *tensors(memories)):
                tap.send(told, rank(program.threat.honest))
        sent = torch.cat([honest, _collected(present[h:], params, wire)], dim=-2)
        params, velocity, defended = serve(program, params, velocity, memories, sent, t)
        previous, memories = defended.aggregates, defended.states
        yield params


def _present(program: Program, t: int) -> list[int]:
    """Return the numbers of the workers that take part in step t, honest first; of the colluding ones the first b."""
    (h, b), computing = program.counts(t), program.present(t)
    if computing is None:
        return list(range(h + b))
    numbers: list[int] = computing[0].tolist()
    colluding = range(program.threat.honest, program.threat.honest + h + b - len(numbers))
    return [*numbers, *colluding]


def _call(program: Program, present: Sequence[int], params: Tensor, wire: Wire) -> None:
    """Tell every worker its place in this step, and those that have one the parameters."""
    for worker in range(program.threat.workers):
        place = present.index(worker) if worker in present else ABSENT
        wire.send(torch.tensor([place]), rank(worker))
        if place != ABSENT:
            wire.send(params, rank(worker))


def _collected(workers: Sequence[int], like: Tensor, wire: Wire) -> Tensor:
    """Return the vectors ``[1, k, d]`` of the ``workers``, in their order."""
    received = like.new_empty(1, len(workers), like.shape[-1])
    for place, worker in enumerate(workers):
        wire.receive(received[0, place], rank(worker))
    return received


def _overheard(program: Program) -> bool:
    """Return whether there is an adversary that hears what the others send."""
    return isinstance(program.attack, VectorAttack) and program.threat.byzantine > 0


def take_part(program: Program, number: int, wire: Wire, tap: Wire) -> None:
    """Be worker ``number``, in whatever way the attack has it behave; ``program`` is what it owns."""
    if number < program.threat.honest or isinstance(program.attack, DataAttack):
        worker(program, number, wire)
    elif number == program.threat.honest:
        adversary(program, wire, tap)
    else:
        accomplice(program, wire, tap)


def owned(program: Program, number: int) -> Program:
    """Return what a worker owns of a program of one replica: of the data its own share alone, none if it needs none."""
    held = program.held[0, number : number + 1].flatten()[: int(program.sizes[0, number])]
    train, none = _samples(program.dataset.train, held), _samples(program.dataset.test, held[:0])
    return replace(
        program,
        dataset=replace(program.dataset, train=train, validation=none, test=none),
        held=torch.arange(len(held))[None, None],
        sizes=torch.tensor([[len(held)]]),
        first=number,
    )


def _samples(split: Split, samples: Tensor) -> Split:
    return Split(split.stored[samples], split.labels[samples], split.pixels)


def worker(program: Program, number: int, wire: Wire) -> None:
    """Be a worker that computes on its own data: an honest one, or a Byzantine one of a data attack.

    Args:
        program: What it owns.
        number: Of the worker; those from h on are Byzantine.
        wire: To and from the server.
    """
    honest = number < program.threat.honest
    momentum = program.initial.new_zeros(1, 1, program.network.size)
    for t in range(program.training.steps):
        place, params = _called(program, wire)
        if place == ABSENT:
            continue
        worked = work(program, params, momentum, t, None, int(honest), place)
        momentum, sent = worked.momentum, worked.momentum
        if not honest:
            assert isinstance(program.attack, DataAttack)
            sent = program.attack.sent(worked.vectors, momentum)
        wire.send(sent[0, 0], SERVER)


def _called(program: Program, wire: Wire) -> tuple[int, Tensor]:
    """Return the worker's place in this step, and the parameters ``[1, d]``, which mean nothing if it is ABSENT."""
    place = int(wire.receive(torch.empty(1, dtype=torch.int64), SERVER))
    params = torch.empty_like(program.initial)
    return place, params if place == ABSENT else wire.receive(params, SERVER)


def adversary(program: Program, wire: Wire, tap: Wire) -> None:
    """Be the first Byzantine worker of a vector attack: hear what the threat model says, and decide for all of them.

    It hears the honest vectors of every step, the last aggregate and what the defence remembers, and tells each of its
    accomplices what to send.
    """
    assert isinstance(program.attack, VectorAttack)
    start, of_all = program.start(), program.initial.new_zeros(1, program.threat.honest, program.network.size)
    remembered = program.attack.init_state(of_all)
    for t in range(program.training.steps):
        h, b = program.counts(t)
        _called(program, wire)
        honest = tap.receive(program.initial.new_empty(1, h, program.network.size), SERVER)
        previous, *memories = _heard(tap, start.previous, *start.defences)
        crafted, remembered = craft(program, honest, previous, tuple(memories), remembered, t)
        for other in range(1, b):
            tap.send(crafted[0, other], rank(program.threat.honest + other))
        if b > 0:
            wire.send(crafted[0, 0], SERVER)


def _heard(tap: Wire, *alike: Any) -> list[Any]:
    """Return what comes over the tap, each part with the tensors of the one in ``alike``."""
    return [mapped(lambda like: tap.receive(torch.empty_like(like), SERVER), part) for part in alike]


def accomplice(program: Program, wire: Wire, tap: Wire) -> None:
    """Be any other Byzantine worker of a vector attack: send what the adversary says."""
    for _ in range(program.training.steps):
        place, like = _called(program, wire)
        if place != ABSENT:
            wire.send(tap.receive(torch.empty_like(like[0]), rank(program.threat.honest)), SERVER)
