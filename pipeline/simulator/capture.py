"""A training step on a GPU, replayed as a whole: its hundreds of launches cost as much as one.

A CUDA graph repeats what was launched while it was captured, on the same memory. So the step's number is a tensor that
the graph itself advances, and the state is copied back to where it was read. A step that reads a value into Python (the
search for a subset of least diameter, eigenvalues, workers drawn anew, a warm-up) cannot be captured and is launched
operation by operation.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.core.kernels.basis import on_gpu
from pipeline.simulator.program import State

Step = Callable[[State, int | Tensor], tuple[State, Tensor]]
WARM_UP = 3  # steps before the capture, in which libraries set themselves up


class Stepper(Protocol):
    """Holds a state, and takes it one step further at each call; returns what was measured ``[metrics, R]``."""

    state: State

    def __call__(self, t: int) -> Tensor:
        """Take step t; the steps are taken in order."""


class Eager:
    """Takes a step by launching each of its operations."""

    def __init__(self, step: Step, state: State) -> None:
        self.step, self.state = step, state

    def __call__(self, t: int) -> Tensor:
        """Take step t."""
        self.state, measured = self.step(self.state, t)
        return measured


class Captured:
    """Takes a step by replaying a CUDA graph."""

    def __init__(self, step: Step, state: State) -> None:
        self.state: State = mapped(Tensor.clone, state)
        self.t = torch.zeros((), dtype=torch.int64, device=state.params.device)
        self.next = 0  # what t holds after the capture, known here without reading it
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                step(self.state, self.t)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            after, self.measured = step(self.state, self.t)
            for kept, new in zip(tensors(self.state), tensors(after), strict=True):
                kept.copy_(new)
            self.t += 1

    def __call__(self, t: int) -> Tensor:
        """Take step t."""
        if t != self.next:
            self.t.fill_(t)
        self.next = t + 1
        self.graph.replay()
        return self.measured.clone()


def stepper(step: Step, state: State) -> Stepper:
    """Return what takes ``step`` from ``state`` on: captured on a GPU where it can be, else launch by launch."""
    if not on_gpu(state.params):
        return Eager(step, state)
    try:
        return Captured(step, state)
    except torch.AcceleratorError as error:
        if "captur" not in str(error):  # CUDA's texts for the errors of a capture, 900 to 908, all speak of it
            raise
        return Eager(step, state)


def mapped(function: Callable[[Tensor], Tensor], part: Any) -> Any:
    """Return a state, or a part of one, with ``function`` applied to each of its tensors."""
    if isinstance(part, Tensor):
        return function(part)
    if isinstance(part, State):
        return State(*(mapped(function, getattr(part, field.name)) for field in fields(part)))
    if isinstance(part, tuple):
        members = [mapped(function, member) for member in part]
        return type(part)(*members) if hasattr(part, "_fields") else tuple(members)
    return part


def tensors(part: Any) -> Iterator[Tensor]:
    """Yield the tensors of a state, or of a part of one, in their order."""
    found: list[Tensor] = []
    mapped(lambda tensor: found.append(tensor) or tensor, part)  # type: ignore[func-returns-value]
    yield from found
