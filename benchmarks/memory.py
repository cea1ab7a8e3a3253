"""The section ``memory``: the most memory that a rule or a step holds at once, also as a multiple of its input."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.document import Row
from benchmarks.subjects import Shape, Subject, normal, stream, subjects
from benchmarks.timing import Action, Conditions
from benchmarks.workloads import mnist, mnist_models, our_step

TITLE = "Peak memory"
METHOD = (
    "The most bytes allocated at once by torch while a rule or a step runs, beyond what was there before, its result "
    "included: on the CPU by every allocation and release that the profiler records, on a GPU by the allocator's own "
    "peak. As a multiple of the input, which for a step is `[R, n, d]` in float32; a step's activations are included."
)
SHAPES: list[Shape] = [(1, 13, 431_080), (16, 15, 5_000)]
TINY: list[Shape] = [(2, 15, 50)]

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler announces every start


def measure(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per subject and shape, then one per model and R."""
    for shape in TINY if conditions.tiny else SHAPES:
        yield from _of_rules(shape, conditions)
    for name, model in mnist_models(conditions.tiny).items():
        workload = mnist(model, conditions.tiny)
        for replicas in (1, 2) if conditions.tiny else (1, 16):
            action = our_step(workload.program(replicas, conditions.device))
            yield _row("step", name, f"R = {replicas}", action, 4 * workload.numbers(replicas), conditions.device)


def _of_rules(shape: Shape, conditions: Conditions) -> Iterator[Row]:
    vectors, numbers = normal(*shape, device=conditions.device), stream(shape[0], conditions.device)
    for subject in subjects():
        f = subject.tolerated(shape[1])[0]

        def action(subject: Subject = subject, f: int = f) -> None:
            subject.ours(vectors, f, numbers)

        yield _row(subject.kind, subject.name, " x ".join(map(str, shape)), action, vectors.nbytes, conditions.device)


def _row(kind: str, name: str, of: str, action: Action, reference: int, device: torch.device) -> Row:
    action()  # what is cached once does not count
    peak = peak_bytes(action, device)
    return {"kind": kind, "name": name, "input": of, "peak MB": peak / 1e6, "peak / input": peak / reference}


def peak_bytes(action: Action, device: torch.device) -> int:
    """Return the most bytes that ``action`` holds at once, beyond those allocated before it.

    Example:
        >>> peak_bytes(lambda: torch.empty(1000), torch.device("cpu"))
        4000
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        action()
    return _highest(profiled)


def _highest(profiled: profile) -> int:
    """Return the highest sum of what was allocated and not yet released."""
    recorded: list[Any] = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in recorded if event.name() == "[memory]")
    held = highest = 0
    for _, change in changes:
        held += change
        highest = max(highest, held)
    return highest
