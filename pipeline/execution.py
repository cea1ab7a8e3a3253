"""Where cells are trained, and in which batches."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from shutil import which

import torch

from pipeline.cell import Cell
from pipeline.columns import fused
from pipeline.dataset import Dataset
from pipeline.errors import UserError
from pipeline.files import root
from pipeline.gradients import Backend, backend, vmap_gradients
from pipeline.params import Execution
from pipeline.paths import CACHE
from pipeline.plan import batches
from pipeline.program import Program, build
from pipeline.simulation import Result, Watch, run

WORTH_COMPILING = 1e8  # numbers that a replica's workers send; 2 ns saved for each, 20 s spent by the first process
CPU_SHARE, GPU_SHARE = 0.25, 0.8  # of the free memory, where execution.memory_gb sets no limit


def device(name: str) -> torch.device:
    """Return the device that ``execution.device`` stands for.

    Raises:
        UserError: A GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("execution.device = 'cuda': PyTorch sees no GPU here; 'auto' takes the CPU then")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def memory(limit_gb: float | None, on: torch.device) -> float:
    """Return how many bytes a batch of replicas may take: ``limit_gb``, or a share of what is free now."""
    if limit_gb is not None:
        return limit_gb * 1e9
    if on.type == "cuda":
        return GPU_SHARE * torch.cuda.mem_get_info()[0]
    return CPU_SHARE * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def train(
    cells: Sequence[Cell],
    dataset: Dataset,
    execution: Execution,
    watch: Callable[[list[int]], Watch],
    detect: bool = False,
) -> Iterator[tuple[list[int], list[Result]]]:
    """Train ``cells`` batch by batch; a batch for which memory does not suffice is halved.

    Args:
        cells: In any order; equal defences side by side are applied at once.
        dataset: Normalised data.
        execution: Device, memory and gradient backend.
        watch: Given the positions of a batch's cells, returns what to call at each of its evaluations.
        detect: Measure what share of the Byzantine vectors a filter would flag.

    Yields:
        The positions in ``cells`` of a batch, with their results.

    Raises:
        UserError: Memory does not suffice for a single replica.
    """
    on = device(execution.device)
    keep_freed_memory()
    waiting = list(batches(cells, dataset, memory(execution.memory_gb, on)))
    while waiting:
        positions = waiting.pop(0)
        try:
            results = _train_batch([cells[p] for p in positions], dataset, execution, on, watch(positions), detect)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            results = None  # only outside this block does the error no longer hold the memory
        if results is None:
            waiting[:0] = _halves(positions, on)
        else:
            yield positions, results


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _halves(positions: list[int], on: torch.device) -> list[list[int]]:
    if len(positions) == 1:
        raise UserError(f"execution.device: the memory of {on} does not suffice for one replica of this model")
    torch.cuda.empty_cache()
    middle = len(positions) // 2
    return [positions[:middle], positions[middle:]]


def _train_batch(
    cells: Sequence[Cell], dataset: Dataset, execution: Execution, on: torch.device, watch: Watch, detect: bool
) -> list[Result]:
    gradients = backend(execution.gradients, cells[0].model, on)
    program = build(cells, dataset, gradients, on, detect)
    set_precision(gradients, program.training.tf32)
    with fused(worth_compiling(program)):
        return run(program, watch)


def keep_freed_memory() -> None:
    """Have the C library hand out again what is freed, instead of returning it to the system.

    Fresh memory costs a page fault every 4 KB. With replicas whose vectors take more than 32 MB together, that was half
    of the time of a step.
    """
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # as in malloc.h of the GNU C library
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(trim_threshold, 2**31 - 1)
            library.mallopt(mmap_threshold, 2**31 - 1)


def set_precision(gradients: Backend, tf32: bool) -> None:
    """Choose the kernels of PyTorch.

    oneDNN chooses its own by shape: where replicas share a call, the last bits of one would depend on the others.
    """
    torch.backends.mkldnn.set_flags(gradients is not vmap_gradients)  # type: ignore[no-untyped-call]
    precision = "tf32" if tf32 else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def worth_compiling(program: Program) -> bool:
    """Return whether compiling pays, with a compiler at hand whose results outlive the process.

    It changes the last bits of sums, so a replica's own size decides, not that of its batch.
    """
    sent = program.training.steps * program.threat.received * program.network.size
    if sent < WORTH_COMPILING or not any(map(which, ("g++", "clang++"))):
        return False
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(root() / CACHE / "compiled"))
    return True
