"""The sections ``grid`` and ``agreement``: a publication's grid on a GPU, and whether the GPU computes the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.document import Row
from benchmarks.timing import Conditions, alternating, seconds
from benchmarks.workloads import Workload, mnist_models, our_step, plain_sgd, threat, unwatched
from pipeline.core.errors import UserError
from pipeline.core.paths import DATASET
from pipeline.runs.execution import Trainer, train, trainer
from pipeline.runs.params import Execution
from pipeline.simulator.cell import Cell
from pipeline.simulator.loop import Result

GRID_TITLE = "A grid on one GPU"
GRID_METHOD = (
    "8 defences x 6 attacks x 5 seeds x 500 steps of the MNIST CNN (431,080 parameters), 17 workers, 4 Byzantine, "
    "25 samples each, random images; seconds of simulation, evaluations at the start and at the end included. Then the "
    "samples per second that the honest workers of 64 replicas read in a step, compared with plain SGD that reads as "
    "many in one batch, and with plain SGD on the batch of one replica."
)
AGREEMENT_TITLE = "CPU against GPU"
AGREEMENT_METHOD = (
    "ALIE, 20 steps of the same cells on both devices: the largest absolute difference of the honest training loss "
    "(nats). TF32 as in the simulator."
)
RULES = ("krum", "geometric_median", "median", "trimmed_mean")
DEFENCES: dict[str, dict[str, Any]] = {
    f"{'nnm ' * mixed}{rule}": {"before": [{"name": "nnm"}] * mixed, "rule": {"name": rule}}
    for mixed, rule in product((False, True), RULES)
}
ATTACKS: dict[str, dict[str, Any]] = {
    "sign_flip": {"name": "sign_flip", "strength": 1.0},
    "ipm": {"name": "ipm", "strength": 0.1},
    "alie": {"name": "alie", "strength": 1.5},
    "min_max": {"name": "min_max", "strength": 1.0},
    "mimic": {"name": "mimic"},
    "label_flip": {"name": "label_flip"},
}


def _need_gpu(conditions: Conditions, name: str) -> None:
    if conditions.device.type != "cuda" and not conditions.tiny:
        raise UserError(f"{name} needs a GPU, and PyTorch sees none here")


def _workload(model: dict[str, Any], tiny: bool) -> Workload:
    if tiny:
        return Workload({"name": "mlp", "hidden": [4]}, (1, 16, 16), threat(9, 2), 2)
    return Workload(model, (1, 28, 28), threat(17, 4), 25)


def measure_grid(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per attack, one for the grid, and the rates at R = 64.

    Raises:
        UserError: There is no GPU.
    """
    _need_gpu(conditions, "grid")
    workload = _workload(mnist_models(conditions.tiny)["cnn"], conditions.tiny)
    times: list[float] = []
    for attack in ATTACKS:
        times.append(_seconds_of_row(attack, workload, conditions))
        yield {"what": f"8 defences x 5 seeds under {attack}", "s": times[-1]}
    yield {"what": "the grid", "s": sum(times)}
    yield from _rates(workload, conditions)


def _seconds_of_row(attack: str, workload: Workload, conditions: Conditions) -> float:
    seeds, steps = (range(1), 2) if conditions.tiny else (range(5), 500)
    cells = [workload.cell(seed, ATTACKS[attack], defence, steps) for defence in DEFENCES.values() for seed in seeds]
    with _trainer(workload, conditions.device) as processes:
        _trained(cells[:1], processes)  # the processes are ready then
        return seconds(lambda: _trained(cells, processes), conditions.device)


@contextmanager
def _trainer(workload: Workload, device: torch.device) -> Iterator[Trainer]:
    """Start processes that hold the data of a workload."""
    name: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    execution = Execution(device=name, cluster=None, processes="auto", memory_gb=None, gradients="auto")
    with TemporaryDirectory() as folder:
        workload.write(Path(folder) / DATASET)
        with trainer(Path(folder) / DATASET, execution) as processes:
            yield processes


def _trained_on(device: torch.device, cells: list[Cell], workload: Workload) -> list[Result]:
    with _trainer(workload, device) as processes:
        return _trained(cells, processes)


def _trained(cells: list[Cell], processes: Trainer) -> list[Result]:
    """Return the results in the order of the cells."""
    found = dict[int, Result]()
    for positions, results in train(cells, processes, unwatched):
        found.update(zip(positions, results, strict=True))
    return [found[position] for position in range(len(cells))]


def _rates(workload: Workload, conditions: Conditions) -> Iterator[Row]:
    replicas = 2 if conditions.tiny else 64
    program = workload.program(replicas, conditions.device)
    actions = {"ours": our_step(program)}
    for name, number in (("plain, one batch", replicas), ("plain, one replica", 1)):
        actions[name] = plain_sgd(program.network, workload.dataset(), number * workload.samples, conditions.device)
    times = alternating(actions, conditions)
    read = {"ours": replicas, "plain, one batch": replicas, "plain, one replica": 1}
    rates = {name: 1e3 * read[name] * workload.samples / times[name] for name in actions}
    for name, rate in rates.items():
        yield {"what": f"samples: {name}", "R": read[name], "samples / s": rate, "ours / this": rates["ours"] / rate}


def measure_agreement(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per model and defence.

    Raises:
        UserError: There is no GPU.
    """
    _need_gpu(conditions, "agreement")
    for name, model in mnist_models(conditions.tiny).items():
        workload = _workload(model, conditions.tiny)
        cells = [
            workload.cell(0, ATTACKS["alie"], defence, 3 if conditions.tiny else 20) for defence in DEFENCES.values()
        ]
        here, there = (_trained_on(device, cells, workload) for device in (conditions.device, torch.device("cpu")))
        for defence, ours, reference in zip(DEFENCES, here, there, strict=True):
            gap = float(np.abs(ours.steps["train_loss"] - reference.steps["train_loss"]).max())
            yield {"devices": f"cpu, {conditions.device.type}", "model": name, "defence": defence, "difference": gap}
