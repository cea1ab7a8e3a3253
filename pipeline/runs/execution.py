"""Where cells are trained, and in which batches."""

import os
from collections.abc import Callable, Iterator, Sequence
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
from pipeline.runs.memory import available
from pipeline.runs.params import Execution
from pipeline.runs.plan import TOGETHER, batches
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
    """The processes of a stage, and what they train with.

    Attributes:
        pool: The processes.
        dataset: Normalised data.
        execution: Device, memory and gradient backend.
        on: The device.
    """

    pool: Pool
    dataset: Dataset
    execution: Execution
    on: torch.device


@contextmanager
def trainer(data: Path, execution: Execution, most: int | None = None) -> Iterator[Trainer]:
    """Start the processes of a stage; they import what they need meanwhile, and end with the context.

    Args:
        data: The file of the data set, which the processes read themselves and share in memory.
        execution: Device, number of processes, memory and gradient backend.
        most: Cells that will be trained, where that is known; no more processes are started.

    Raises:
        UserError: The file does not hold a data set, or there is no such device.
    """
    on, dataset = device(execution.device), load(data)
    count = processes(execution.processes, on)
    count = count if most is None else min(count, most)
    environments = [{**environment(), **_one_gpu(number, on)} for number in range(count)]
    with Pool(environments, _prepare, data, execution, on) as pool:
        yield Trainer(pool, dataset, execution, on)


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
    libraries = {"torch": torch.__version__, "numpy": np.__version__}
    return {**libraries, "device": on.type, "gradients": backend_name(execution.gradients, model, on)}


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

    A batch for which memory does not suffice is halved. Cells that an interruption left at one step go on together.

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
        return Task(positions, _attempt, (batch,), _once(told, positions, watch(positions)))

    waiting = [task(positions) for positions in _planned(cells, trainer, checkpoints)]
    for ended, results in trainer.pool.run(waiting):
        if results is None:
            waiting[:0] = map(task, _smaller(ended.key, trainer.on, checkpoints))
            continue
        yield ended.key, results
        if checkpoints is not None and until is None:
            checkpoints.of(ended.key).remove()


def _once(told: list[int], positions: list[int], watch: Watch) -> Watch:
    """Return ``watch`` for what is new: ``told`` holds the last evaluation of each cell."""

    def new(steps_done: int, metrics: dict[str, np.ndarray]) -> None:
        if steps_done > told[positions[0]]:
            for position in positions:
                told[position] = steps_done
            watch(steps_done, metrics)

    return new


def _planned(cells: Sequence[Cell], trainer: Trainer, checkpoints: Checkpoints | None) -> Iterator[list[int]]:
    """Yield the positions of the cells of each batch; those of one batch stand at the same step."""
    if not cells:
        return
    together, limit = len(cells) if trainer.on.type == "cuda" else TOGETHER, memory(trainer)
    for positions in _at_one_step(list(range(len(cells))), checkpoints):
        alike = [cells[position] for position in positions]
        for batch in batches(alike, trainer.dataset, limit, trainer.pool.size, together):
            yield [positions[place] for place in batch]


def _at_one_step(positions: list[int], checkpoints: Checkpoints | None) -> list[list[int]]:
    """Return the positions grouped by how many steps are done, those with most to do first."""
    done = [0] * len(positions) if checkpoints is None else checkpoints.of(positions).done
    return [[position for position, at in zip(positions, done, strict=True) if at == step] for step in sorted({*done})]


def memory(trainer: Trainer) -> float:
    """Return how many bytes a batch may take in each process: the limit, or a share of what is available now."""
    pool, limit_gb = trainer.pool, trainer.execution.memory_gb
    if limit_gb is not None:
        return limit_gb * 1e9
    if trainer.on.type != "cuda":
        return CPU_SHARE * available() / pool.size
    asked = [Task(None, _free_gpu_memory, (), lambda: None) for _ in range(pool.size)]
    least: int = min(free for _, free in pool.run(asked))
    return GPU_SHARE * least / ceil(pool.size / torch.cuda.device_count())


def _smaller(positions: list[int], on: torch.device, checkpoints: Checkpoints | None) -> list[list[int]]:
    """Return what to train instead of a batch whose cells stand at several steps, or do not fit into memory."""
    if len(standing := _at_one_step(positions, checkpoints)) > 1:
        return standing
    if len(positions) == 1:
        raise UserError(f"execution.device: the memory of {on} does not suffice for one replica of this model")
    middle = len(positions) // 2
    return [positions[:middle], positions[middle:]]


# What follows runs in the processes.


@dataclass(frozen=True)
class _Prepared:
    dataset: Dataset
    execution: Execution
    on: torch.device


def _prepare(data: Path, execution: Execution, on: torch.device) -> _Prepared:
    torch.set_num_threads(1)
    keep_freed_memory()
    return _Prepared(load(data), execution, on)


def _attempt(here: _Prepared, batch: Batch, watch: Watch) -> list[Result] | None:
    """Return the results of a batch; None if memory does not suffice, or its cells stand at several steps."""
    if batch.checkpoints is not None and len(set(batch.checkpoints.done)) > 1:  # a process ended while it wrote them
        return None
    try:
        return _train_batch(here, batch, watch)
    except (RuntimeError, MemoryError) as error:
        out_of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not out_of_memory and "can't allocate memory" not in str(error):
            raise
    torch.cuda.empty_cache()  # only outside the block above does the error no longer hold the memory
    return None


def _free_gpu_memory(_: _Prepared, __: Watch) -> int:
    """Return what other processes, and the tensors of this one, leave of its GPU's memory."""
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + kept


def _train_batch(here: _Prepared, batch: Batch, watch: Watch) -> list[Result]:
    gradients = backend(here.execution.gradients, batch.cells[0].model, here.on)
    program = build(batch.cells, here.dataset, gradients, here.on, batch.detect, batch.heterogeneity)
    begun = None if batch.checkpoints is None else batch.checkpoints.joined(program)
    keep = keeping(batch.checkpoints, program, here.execution.checkpoint_minutes, batch.until)
    with kernels_chosen(program.training, together=gradients in (chain_gradients, vmap_gradients)):
        return run(program, watch, begun, keep, batch.until)
