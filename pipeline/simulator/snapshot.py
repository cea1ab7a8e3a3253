"""Training that stands between two steps, whole or as a slice for each replica; slices join in any composition."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from pipeline.simulator.capture import mapped, tensors
from pipeline.simulator.program import Program, State

Slice = dict[str, Tensor]  # what stands for one replica: tensors on the CPU, by name


@dataclass(frozen=True)
class Snapshot:
    """R replicas between two steps.

    Random numbers have no state: they are a function of the seed and the step.

    Attributes:
        state: Before the next step.
        steps: ``[metrics, R, t]``, the diagnostics of the t steps done.
        evaluated: Steps done at each evaluation so far, ``[E]``.
        evaluations: ``[metrics, R, E]``.
    """

    state: State
    steps: Tensor
    evaluated: list[int]
    evaluations: Tensor

    @classmethod
    def at_the_start(cls, program: Program, measured_at_steps: int, evaluated: int) -> Self:
        """Return that before the first step, with as many metrics."""
        replicas, empty = len(program.initial), program.initial.new_empty
        return cls(program.start(), empty(measured_at_steps, replicas, 0), [], empty(evaluated, replicas, 0))

    @property
    def done(self) -> int:
        """How many steps are done."""
        return self.steps.shape[-1]


def slices(program: Program, snapshot: Snapshot) -> Iterator[Slice]:
    """Yield the slice of every replica.

    Raises:
        TypeError: An attack or a rule remembers something else than tensors of one entry a replica.
    """
    state = mapped(Tensor.cpu, snapshot.state)
    steps, evaluations = snapshot.steps.cpu(), snapshot.evaluations.cpu()
    for r in range(len(program.initial)):
        own = {f"state.{place}": tensor for place, tensor in enumerate(_of_replica(program, state, r))}
        own |= {"steps": steps[:, r], "evaluations": evaluations[:, r]}
        own |= {"evaluated": torch.tensor(snapshot.evaluated)}
        yield {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in own.items()}


def _of_replica(program: Program, state: State, replica: int) -> list[Tensor]:
    """Return the tensors of one replica: what all have, then what its defence remembers."""
    place, (_, replicas) = next(
        (place, run) for place, run in enumerate(program.defences) if replica in range(run[1].start, run[1].stop)
    )
    count = replicas.stop - replicas.start
    common = [_entry(part, replica, len(program.initial)) for part in _leaves(_common(state))]
    own = [_entry(part, replica - replicas.start, count) for part in _leaves(state.defences[place])]
    return common + own


def _common(state: State) -> tuple[Any, ...]:
    return state.params, state.momentum, state.previous, state.velocity, state.attack


def _leaves(part: Any) -> list[Any]:
    """Return everything that is no tuple in a part of a state."""
    if isinstance(part, tuple):
        return [leaf for member in part for leaf in _leaves(member)]
    return [] if part is None else [part]


def _entry(tensor: Any, replica: int, count: int) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) != count:
        raise TypeError("a memory that is not tensors of one entry a replica")
    return tensor[replica]


def joined(program: Program, members: Sequence[Slice]) -> Snapshot:
    """Return the snapshot of a program whose replicas stand where ``members`` do, which is after the same step.

    Raises:
        ValueError: The slices are of other cells.
        KeyError: A slice is not whole.
    """
    start = program.start()
    common = len(list(tensors(_common(start))))
    names = [(f"state.{place}", slice(None)) for place in range(common)]
    for memory, (_, replicas) in zip(start.defences, program.defences, strict=True):
        names += [(f"state.{common + place}", replicas) for place in range(len(list(tensors(memory))))]
    stacked = iter([torch.stack([member[name] for member in members[replicas]]) for name, replicas in names])
    state: State = mapped(lambda old: _fitting(next(stacked), old), start)
    like = program.initial
    steps = torch.stack([member["steps"] for member in members], dim=1).to(like.device)
    evaluations = torch.stack([member["evaluations"] for member in members], dim=1).to(like.device)
    return Snapshot(state, steps, members[0]["evaluated"].tolist(), evaluations)


def _fitting(new: Tensor, old: Tensor) -> Tensor:
    if new.shape != old.shape or new.dtype != old.dtype:
        raise ValueError(f"{new.dtype} {list(new.shape)} instead of {old.dtype} {list(old.shape)}")
    return new.to(old.device)
