"""The core: R replicas of Byzantine distributed training, step by step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.attacks import DataAttack
from pipeline.core.vectors import sum_over_columns
from pipeline.data.partitions import Shares
from pipeline.simulator.capture import stepper
from pipeline.simulator.detection import flagged
from pipeline.simulator.metrics import (
    EVALUATION_METRICS,
    FINAL_METRICS,
    HETEROGENEITY_METRICS,
    STEP_METRICS,
    diagnostics,
    dissimilarity,
    evaluate,
    local_gradients,
)
from pipeline.simulator.parts import Worked, craft, serve, work
from pipeline.simulator.program import Program, State
from pipeline.simulator.sampling import put, take
from pipeline.simulator.snapshot import Snapshot


def step(program: Program, state: State, t: int | Tensor) -> tuple[State, Tensor]:
    """Return the state after step t (a number, or a tensor ``[]``), and its diagnostics ``[metrics, R]``."""
    h, b = program.counts(t)
    present = program.present(t)  # [R, k], None: all
    worked = work(program, state.params, take(state.momentum, present), t, present, h)  # [R, k, d]
    honest = worked.momentum[:, :h]
    byzantine, attack = _byzantine(program, worked, state, t)  # [R, b, d]
    sent = torch.cat([honest, byzantine], dim=-2)  # [R, n, d]
    params, velocity, defended = serve(program, state.params, state.velocity, state.defences, sent, t)  # [R, d]
    direction, byzantine_weight = defended.aggregates, sum_over_columns(defended.weights[:, h:])
    measured = diagnostics(honest, worked.losses[:, :h], direction, byzantine_weight, defended.unconverged, b)
    if program.detect:
        measured = torch.cat([measured, flagged(sent, h)[None]])
    momenta = put(state.momentum, present, worked.momentum)
    return State(params, momenta, direction, velocity, attack, defended.states), measured


def _byzantine(program: Program, worked: Worked, state: State, t: int | Tensor) -> tuple[Tensor, Any]:
    """Return the Byzantine vectors ``[R, b, d]``, and what the attack remembers."""
    h, _ = program.counts(t)
    if isinstance(program.attack, DataAttack):
        return program.attack.sent(worked.vectors[:, h:], worked.momentum[:, h:]), None
    return craft(program, worked.momentum, state.previous, state.defences, state.attack, t)


@dataclass(frozen=True)
class Result:
    """The result of one cell.

    Attributes:
        steps: ``STEP_METRICS``, each ``[T]``; with ``Program.detect`` also ``flagged``.
        evaluated: Steps done at each evaluation, ``[E]``, from 0 to T.
        evaluations: ``EVALUATION_METRICS``, each ``[E]``; with ``Program.heterogeneity`` also
            ``HETEROGENEITY_METRICS``.
        final: ``FINAL_METRICS``, one number each.
    """

    steps: dict[str, np.ndarray]
    evaluated: list[int]
    evaluations: dict[str, np.ndarray]
    final: dict[str, float]


Watch = Callable[[int, dict[str, np.ndarray]], None]
Keep = Callable[[int, Callable[[], Snapshot]], None]


def never(*_: object) -> None:
    """Take no snapshot; a ``Keep``."""


def run(
    program: Program,
    watch: Watch,
    begun: Snapshot | None = None,
    keep: Keep = never,
    until: int | None = None,
) -> list[Result]:
    """Train the replicas of ``program``.

    Args:
        program: Of R cells.
        watch: Called at every evaluation with the number of steps done and ``{metric: [R]}``; where training goes on
            from a snapshot, first with the evaluations in it.
        begun: From where training goes on, to the same bits; None: from the start.
        keep: Called before every step, and where training stops early, with the number of steps done and what takes
            a snapshot there.
        until: Steps after which training stops; None: all.

    Returns:
        One result a cell, in order; where training stops early, without final metrics.
    """
    evaluated_metrics = [*EVALUATION_METRICS, *(HETEROGENEITY_METRICS if program.heterogeneity else [])]
    measured_at_steps = [*STEP_METRICS, *(["flagged"] if program.detect else [])]
    begun = begun or Snapshot.at_the_start(program, len(measured_at_steps), len(evaluated_metrics))
    last = until or program.training.steps
    take_step = stepper(partial(step, program), begun.state)
    history = program.initial.new_empty(len(measured_at_steps), len(program.initial), program.training.steps)
    history[..., : begun.done] = begun.steps
    evaluated: list[int] = []
    evaluations: list[Tensor] = []

    def note(t: int, values: Tensor) -> None:
        evaluated.append(t)
        evaluations.append(values)
        measured = _by_name(measured_at_steps, history[..., t - 1]) if t else {}
        watch(t, {**_by_name(evaluated_metrics, values), **measured})

    def snapshot(t: int) -> Snapshot:
        return Snapshot(take_step.state, history[..., :t], list(evaluated), torch.stack(evaluations, dim=-1))

    for t, values in zip(begun.evaluated, begun.evaluations.unbind(dim=-1), strict=True):
        note(t, values)
    for t in range(begun.done, last + 1):
        if (t % program.training.evaluate_every == 0 or t == program.training.steps) and t not in evaluated[-1:]:
            note(t, _evaluation(program, take_step.state))
        if t < program.training.steps:
            keep(t, partial(snapshot, t))
        if t < last:
            history[..., t] = take_step(t)
    steps = _by_name(measured_at_steps, history[..., :last])
    curves = _by_name(evaluated_metrics, torch.stack(evaluations, dim=-1))
    final = _final(program, take_step.state) if last == program.training.steps else {}
    return [
        Result(_of(steps, r), evaluated, _of(curves, r), {name: float(values[r]) for name, values in final.items()})
        for r in range(len(program.initial))
    ]


def _evaluation(program: Program, state: State) -> Tensor:
    measured = evaluate(program.network, state.params, program.dataset.validation)
    values = torch.stack([measured.accuracy, measured.loss])
    return torch.cat([values, _heterogeneity(program, state)]) if program.heterogeneity else values


def _heterogeneity(program: Program, state: State) -> Tensor:
    """Return ``HETEROGENEITY_METRICS`` ``[2, R]`` of the honest workers' gradients over all their samples."""
    h, train = program.threat.honest, program.dataset.train
    measured = []
    for params, held, sizes in zip(state.params, program.held, program.sizes, strict=True):
        shares = Shares(held[:h], sizes[:h])
        measured.append(dissimilarity(local_gradients(program.gradients, program.network, params, train, shares)))
    return torch.tensor(measured, dtype=state.params.dtype, device=state.params.device).mT


def _final(program: Program, state: State) -> dict[str, np.ndarray]:
    validation = evaluate(program.network, state.params, program.dataset.validation)
    test = evaluate(program.network, state.params, program.dataset.test)
    measured = [validation.accuracy, validation.loss, test.accuracy, test.loss, validation.diverged | test.diverged]
    return _by_name(FINAL_METRICS, torch.stack([values.double() for values in measured]))


def _by_name(names: Iterable[str], values: Tensor) -> dict[str, np.ndarray]:
    return dict(zip(names, values.cpu().numpy(), strict=True))


def _of(values: dict[str, np.ndarray], replica: int) -> dict[str, np.ndarray]:
    return {name: series[replica] for name, series in values.items()}
