"""Where cells are trained, and in which batches."""

from collections.abc import Callable, Iterator, Sequence

import torch

from pipeline.cell import Cell
from pipeline.dataset import Dataset
from pipeline.errors import UserError
from pipeline.gradients import BACKENDS
from pipeline.params import Execution
from pipeline.plan import batches
from pipeline.simulation import Result, Watch, run


def device(name: str) -> torch.device:
    """Return the device that ``execution.device`` stands for.

    Raises:
        UserError: A GPU is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("execution.device = 'cuda': PyTorch sees no GPU here; 'auto' takes the CPU then")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def train(
    cells: Sequence[Cell],
    dataset: Dataset,
    execution: Execution,
    watch: Callable[[list[int]], Watch],
    detect: bool = False,
) -> Iterator[tuple[list[int], list[Result]]]:
    """Train ``cells`` batch by batch.

    Args:
        cells: In any order; equal defences side by side are applied at once.
        dataset: Normalised data.
        execution: Device, memory and gradient backend.
        watch: Given the positions of a batch's cells, returns what to call at each of its evaluations.
        detect: Measure what share of the Byzantine vectors a filter would flag.

    Yields:
        The positions in ``cells`` of a batch, with their results.
    """
    # oneDNN chooses its kernels by shape: a replica's last bits would depend on its batch.
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    on, backend = device(execution.device), BACKENDS[execution.gradients]
    for positions in batches(cells, dataset, execution.memory_gb):
        yield positions, run([cells[p] for p in positions], dataset, backend, on, watch(positions), detect)
