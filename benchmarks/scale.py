"""The figures of docs/scale.md: ``python -m benchmarks.scale`` (with the extra ``cluster``) prints them, a line each.

What Ray costs is in seconds; a step, and the files of a cell, in seconds of this process's processor, one thread.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import monotonic, process_time
from typing import Any

import torch

from benchmarks.workloads import NNM_TRIMMED_MEAN, Workload
from pipeline.runs import store
from pipeline.runs.cache import remember
from pipeline.runs.cluster import AUTO, ClusterPool, connected
from pipeline.runs.plan import Planned
from pipeline.runs.pool import Task
from pipeline.simulator.cell import Cell, Threat
from pipeline.simulator.gradients import chain_gradients, vmap_gradients
from pipeline.simulator.loop import Result, run
from pipeline.simulator.precision import backend, keep_freed_memory, kernels_chosen
from pipeline.simulator.program import build

RULES: list[dict[str, Any]] = [{"rule": {"name": name}} for name in ("mean", "krum", "geometric_median")]
DEFENCES = [*RULES, NNM_TRIMMED_MEAN]
ALIE = {"name": "alie"}
THREAT = Threat(workers=17, byzantine=4, tolerated=4, sampled=None)
WORKLOADS = {
    "MNIST CNN": (Workload({"name": "cnn_mnist"}, (1, 28, 28), THREAT, 16), 1),
    "digits MLP": (Workload({"name": "mlp", "hidden": [32]}, (1, 8, 8), THREAT, 16), 12),
}
TASKS = 100
TELLINGS = 16


def _seconds_a_batch(pool: ClusterPool, tellings: int) -> tuple[float, float]:
    """Return what a batch that takes no time costs: seconds, and seconds of the driver's processor."""
    tasks = [Task(None, lambda _, tell: [tell(0) for _ in range(tellings)], (), lambda _: None) for _ in range(TASKS)]
    started, spent = monotonic(), process_time()
    for _ in pool.run(tasks):
        pass
    return (monotonic() - started) / TASKS, (process_time() - spent) / TASKS


def _of_ray() -> Iterator[tuple[str, float]]:
    started = monotonic()
    connected(AUTO)
    yield "start of a cluster on this machine", monotonic() - started
    with TemporaryDirectory() as folder:
        file = Path(folder) / "data"
        file.write_bytes(b"data")
        pool, started = ClusterPool(AUTO, "CPU", "auto", file, lambda *_: None), monotonic()
        for _ in pool.run([Task(None, lambda *_: None, (), lambda _: None)]):
            yield "first worker", monotonic() - started
        for tellings in (0, TELLINGS):
            whole, driver = _seconds_a_batch(pool, tellings)
            yield f"a batch with {tellings} evaluations told", whole
            yield f"a batch with {tellings} evaluations told, the driver's processor", driver


def _cells(workload: Workload, defence: dict[str, Any], replicas: int, steps: int) -> list[Cell]:
    cells = [workload.cell(seed, ALIE, defence, steps) for seed in range(replicas)]
    return [cell.replace(training=cell.training.replace(precision="float64")) for cell in cells]


def _trained(cells: list[Cell], workload: Workload) -> tuple[float, list[Result]]:
    on = torch.device("cpu")
    gradients = backend("auto", cells[0].model, on)
    program, started = build(cells, workload.dataset(), gradients, on), process_time()
    with kernels_chosen(program.training, together=gradients in (chain_gradients, vmap_gradients)):
        results = run(program, lambda *_: None)
    return process_time() - started, results


def _a_step(name: str) -> Iterator[tuple[str, float]]:
    workload, replicas = WORKLOADS[name]
    of_defences = []
    for defence in DEFENCES:
        took = {}
        for steps in (1, 1, 11):  # the first compiles
            cells = _cells(workload, defence, replicas, steps)
            took[steps], _ = _trained(cells, workload)
        of_defences.append((took[11] - took[1]) / 10 / replicas)
        yield f"a step of a replica, {name}, {defence['rule']['name']}", of_defences[-1]
    yield f"a step of a replica, {name}, mean", fmean(of_defences)


def _files() -> Iterator[tuple[str, float]]:
    workload, replicas = WORKLOADS["digits MLP"]
    cells = _cells(workload, DEFENCES[0], replicas, 500)
    _, results = _trained(cells, workload)
    with TemporaryDirectory() as folder:
        for cell, result in zip(cells, results, strict=True):
            if cell.seed == 1:  # the first has hashed the code
                started = process_time()
            store.write(Path(folder), Planned("alie", "mean", "iid", cell), cell.identity("", {}), result)
            remember(Path(folder), str(cell.seed), result)
    yield "the files of a cell of 500 steps", (process_time() - started) / (replicas - 1)


def main() -> None:
    """Measure, and print."""
    torch.set_num_threads(1)
    keep_freed_memory()
    for measured in (_of_ray(), _files(), _a_step("digits MLP"), _a_step("MNIST CNN")):
        for what, seconds in measured:
            print(f"{seconds:10.4f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
