"""Where cells are trained, and in which batches."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pipeline.core.environment import environment
from pipeline.core.errors import UserError
from pipeline.data.dataset import Dataset, load
from pipeline.runs.checkpoints import Checkpoints, keeping
from pipeline.runs.cluster import ClusterPool
from pipeline.runs.memory import available
from pipeline.runs.params import Execution
from pipeline.runs.plan import TOGETHER, batches, cut, replica_bytes
from pipeline.runs.pool import Pool, Task, cores
from pipeline.simulator.cell import Cell
from pipeline.simulator.gradients import chain_gradients, vmap_gradients
from pipeline.simulator.loop import Result, Watch, run
from pipeline.simulator.models import Model
from pipeline.simulator.precision import backend, backend_name, keep_freed_memory, kernels_chosen
from pipeline.simulator.program import build

CPU_SHARE, GPU_SHARE = 0.25, 0.8  # of the available memory, where execution.memory_gb sets no limit


def device(name: str) -> torch.device:
    """Return the device that ``execution.device`` stands for.

    Raises:
        UserError: ``cuda`` was chosen and there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("execution.device = 'cuda': PyTorch sees no GPU here; 'auto' takes the CPU then")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def processes(wanted: int | Literal["auto"], on: torch.device) -> int:
    """Return how many processes train: as many as wanted, or one for every core or GPU that may be used."""
    if wanted != "auto":
        return wanted
    return torch.cuda.device_count() if on.type == "cuda" else cores()


def halves(on: torch.device) -> bool:
    """Return whether a batch that memory does not hold can be found out and halved, as on a GPU."""
    return on.type == "cuda"


@dataclass(frozen=True)
class Trainer:
    """What trains the cells of a stage, and what it trains with.

    Attributes:
        pool: Processes, or workers of a cluster.
        dataset: Normalised data.
        execution: Device, memory and gradient backend.
        on: The device.
    """

    pool: Pool | ClusterPool
    dataset: Dataset
    execution: Execution
    on: torch.device


@contextmanager
def trainer(data: Path, execution: Execution, most: int | None = None) -> Iterator[Trainer]:
    """Start the processes of a stage; they import what they need meanwhile, and end with the context.

    Args:
        data: The file of the data set, which the processes read themselves and share in memory.
        execution: Device, cluster, number of processes, memory and gradient backend.
        most: Cells that will be trained, where that is known; no more processes are started.

    Raises:
        UserError: The file does not hold a data set, or there is no such device.
    """
    on, dataset = device(execution.device), load(data)
    with _pool(data, execution, on, most) as pool:
        yield Trainer(pool, dataset, execution, on)


def _pool(data: Path, execution: Execution, on: torch.device, most: int | None) -> Pool | ClusterPool:
    if execution.cluster is not None:
        unit: Literal["GPU", "CPU"] = "GPU" if on.type == "cuda" else "CPU"
        return ClusterPool(execution.cluster, unit, execution.processes, data, _prepare, execution, on, libraries())
    count = processes(execution.processes, on)
    count = count if most is None else min(count, most)
    environments = [{**environment(), **_one_gpu(number, on)} for number in range(count)]
    neighbours = ceil(count / torch.cuda.device_count()) if on.type == "cuda" else count
    return Pool(environments, _prepare, data, neighbours, execution, on, libraries())


def _one_gpu(number: int, on: torch.device) -> dict[str, str]:
    """Return what lets a process see one GPU: the processes take turns."""
    if on.type != "cuda":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[number % torch.cuda.device_count()].strip()}


@dataclass(frozen=True)
class Batch:
    """Cells that are trained together, and how; see :func:`train`."""

    cells: list[Cell]
    detect: bool
    heterogeneity: bool
    checkpoints: Checkpoints | None
    until: int | None


def arithmetic(model: Model, execution: Execution) -> dict[str, str]:
    """Return what computes the cells of ``model``: the part of their identity that params.yaml does not hold."""
    on = device(execution.device)
    return {**libraries(), "device": on.type, "gradients": backend_name(execution.gradients, model, on)}


def libraries() -> dict[str, str]:
    """Return the versions that may change the last bits of a result."""
    return {"torch": torch.__version__, "numpy": np.__version__}


def train(
    cells: Sequence[Cell],
    trainer: Trainer,
    watch: Callable[[list[int]], Watch],
    detect: bool = False,
    heterogeneity: bool = False,
    checkpoints: Checkpoints | None = None,
    until: int | None = None,
) -> Iterator[tuple[list[int], list[Result]]]:
    """Train ``cells`` in batches, as many at a time as there are processes.

    A batch is cut further where the memory of the process that is to train it does not hold it. Cells that an
    interruption left at one step go on together. Workers of a cluster keep no checkpoints: they share no disk.

    Args:
        cells: In any order; equal defences side by side are applied at once.
        trainer: What trains them.
        watch: Given the positions of a batch's cells, returns what to call at each of its evaluations; no cell's
            evaluation is told twice, even if a batch must be repeated.
        detect: Measure what share of the Byzantine vectors a filter would flag.
        heterogeneity: Measure G and B at every evaluation.
        checkpoints: Of the cells, written every ``execution.checkpoint_minutes``; None: an interruption loses all.
        until: Steps after which training stops, and leaves its checkpoints to go on from; None: all.

    Yields:
        The positions in ``cells`` of a batch, with their results, as the batches end. When the next are asked for, the
        caller has written these, and their checkpoints are removed.

    Raises:
        UserError: Memory does not suffice for a single replica, or a process died twice over a batch.
    """
    told = [-1] * len(cells)

    def task(positions: list[int]) -> Task:
        kept = checkpoints and checkpoints.of(positions)
        batch = Batch([cells[position] for position in positions], detect, heterogeneity, kept, until)
        return Task(positions, _attempt, (batch,), _once(told, positions, watch))

    checkpoints = None if isinstance(trainer.pool, ClusterPool) else checkpoints
    waiting = [task(positions) for positions in _planned(cells, trainer, checkpoints)]
    for ended, returned in trainer.pool.run(waiting):
        if not isinstance(returned, list):
            waiting[:0] = map(task, _smaller(ended.key, returned, trainer.on, checkpoints))
            continue
        yield ended.key, returned
        if checkpoints is not None and until is None:
            checkpoints.of(ended.key).remove()


def _once(told: list[int], positions: list[int], watch: Callable[[list[int]], Watch]) -> Watch:
    """Return what tells the watch of a batch what is new; ``told`` holds the last evaluation of each cell."""
    begun: list[Watch] = []  # a batch that is cut before it begins has none

    def new(steps_done: int, metrics: dict[str, np.ndarray]) -> None:
        if steps_done > told[positions[0]]:
            for position in positions:
                told[position] = steps_done
            begun[:] = begun or [watch(positions)]
            begun[0](steps_done, metrics)

    return new


def _planned(cells: Sequence[Cell], trainer: Trainer, checkpoints: Checkpoints | None) -> Iterator[list[int]]:
    """Yield the positions of the cells of each batch; those of one batch stand at the same step."""
    if not cells:
        return
    together = len(cells) if trainer.on.type == "cuda" else TOGETHER
    for positions in _at_one_step(list(range(len(cells))), checkpoints):
        alike = [cells[position] for position in positions]
        for batch in batches(alike, trainer.pool.size, together):
            yield [positions[place] for place in batch]


def _at_one_step(positions: list[int], checkpoints: Checkpoints | None) -> list[list[int]]:
    """Return the positions grouped by how many steps are done, those with most to do first."""
    done = [0] * len(positions) if checkpoints is None else checkpoints.of(positions).done
    return [[position for position, at in zip(positions, done, strict=True) if at == step] for step in sorted({*done})]


def _smaller(
    positions: list[int], fitting: int | None, on: torch.device, checkpoints: Checkpoints | None
) -> Iterable[list[int]]:
    """Return what to train instead of a batch whose cells stand at several steps, or do not fit into memory.

    Args:
        positions: Of the cells of the batch.
        fitting: How many of them memory holds; None if it failed unexpectedly: they are halved.
        on: The device.
        checkpoints: Of all cells.
    """
    if len(standing := _at_one_step(positions, checkpoints)) > 1:
        return standing
    if len(positions) == 1:
        raise UserError(f"execution.device: the memory of {on} does not suffice for one replica of this model")
    return cut(positions, fitting or ceil(len(positions) / 2))


# What follows runs in the processes.


@dataclass(frozen=True)
class _Prepared:
    dataset: Dataset
    neighbours: int  # processes that share this memory
    execution: Execution
    on: torch.device


def _prepare(
    data: Path, neighbours: int, execution: Execution, on: torch.device, expected: Mapping[str, str]
) -> _Prepared:
    if (found := libraries()) != expected:
        raise UserError(
            f"execution.cluster: node {socket.gethostname()} has {_versions(found)}, and this machine "
            f"{_versions(expected)}: a key of a cell holds both versions, so they must be equal"
        )
    torch.set_num_threads(1)
    keep_freed_memory()
    return _Prepared(load(data), neighbours, execution, on)


def _versions(found: Mapping[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in found.items())


def _attempt(here: _Prepared, batch: Batch, watch: Watch) -> list[Result] | int | None:
    """Return the results of a batch, or how many of its cells memory holds.

    None if memory fails unexpectedly, or the cells stand at several steps.
    """
    if batch.checkpoints is not None and len(set(batch.checkpoints.done)) > 1:  # a process ended while it wrote them
        return None
    fitting = max(1, int(memory(here) / replica_bytes(batch.cells[0], here.dataset)))
    if len(batch.cells) > fitting:
        return fitting
    try:
        return _train_batch(here, batch, watch)
    except (RuntimeError, MemoryError) as error:
        out_of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not out_of_memory and "can't allocate memory" not in str(error):
            raise
    torch.cuda.empty_cache()  # only outside the block above does the error no longer hold the memory
    return None


def memory(here: _Prepared) -> float:
    """Return how many bytes a batch may take: the limit, or a share of what is available now."""
    if here.execution.memory_gb is not None:
        return here.execution.memory_gb * 1e9
    if here.on.type != "cuda":
        return CPU_SHARE * available() / here.neighbours
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # by this process, for no tensor
    return GPU_SHARE * (torch.cuda.mem_get_info()[0] + kept) / here.neighbours


def _train_batch(here: _Prepared, batch: Batch, watch: Watch) -> list[Result]:
    gradients = backend(here.execution.gradients, batch.cells[0].model, here.on)
    program = build(batch.cells, here.dataset, gradients, here.on, batch.detect, batch.heterogeneity)
    begun = None if batch.checkpoints is None else batch.checkpoints.joined(program)
    keep = keeping(batch.checkpoints, program, here.execution.checkpoint_minutes, batch.until)
    with kernels_chosen(program.training, together=gradients in (chain_gradients, vmap_gradients)):
        return run(program, watch, begun, keep, batch.until)
