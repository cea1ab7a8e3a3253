"""One process of a distributed cell: its wire, and the server's comparison with the simulated cell."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.core.errors import UserError
from pipeline.data.dataset import data_hash, load
from pipeline.runs.execution import arithmetic
from pipeline.runs.params import Execution
from pipeline.simulator.cell import Cell
from pipeline.simulator.distributed import SERVER, owned, server, take_part
from pipeline.simulator.gradients import chain_gradients, vmap_gradients
from pipeline.simulator.loop import step
from pipeline.simulator.metrics import evaluate
from pipeline.simulator.precision import backend, keep_freed_memory, kernels_chosen
from pipeline.simulator.program import Program, build

CPU = torch.device("cpu")  # gloo carries what is there


class Report(NamedTuple):
    """What came of a distributed cell.

    Attributes:
        equal: Of every step, whether the parameters are the simulated cell's, bit for bit.
        difference: The largest of any parameter after any step.
        accuracies: On test data, distributed and simulated.
        down: Bytes of a step from the server to the workers.
        up: Bytes of a step from the workers to the server.
        overheard: Bytes of a step to and from the adversary that no real system would carry.
    """

    equal: list[bool]
    difference: float
    accuracies: tuple[float, float]
    down: float
    up: float
    overheard: float


class Gloo:
    """A wire of ``torch.distributed``.

    Attributes:
        carried: Bytes of the tensors that were sent from here.
    """

    def __init__(self) -> None:
        self.carried = 0

    def send(self, tensor: Tensor, to: int) -> None:
        """Send ``tensor`` to the process of that rank."""
        with _told_if_gone(to):
            dist.send(tensor.contiguous(), to)
        self.carried += tensor.nbytes

    def receive(self, into: Tensor, sender: int) -> Tensor:
        """Fill ``into`` with the next tensor from the process of rank ``sender``; return it."""
        with _told_if_gone(sender):
            dist.recv(into, sender)
        return into


@contextmanager
def _told_if_gone(rank: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise UserError(f"distributed: no answer from rank {rank}: {str(error).splitlines()[0]}") from None


def party(rank: int, world: int, address: str, data: Path, execution: Execution, cell: Cell) -> Report | None:
    """Be one of the processes of a distributed cell.

    Args:
        rank: 0 for the server, i for worker i - 1.
        world: How many processes there are.
        address: Where they find each other, as ``torch.distributed`` writes it.
        data: The file of the data set on this machine.
        execution: The backend of the gradients.
        cell: What is trained.
    """
    with group(rank, world, address):
        return play(rank, world, data, execution, cell)


@contextmanager
def group(rank: int, world: int, address: str) -> Iterator[None]:
    """Join the processes; leave them if the block ends well, since an end by an error is the launcher's to tell."""
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"distributed: the processes do not find each other: {error}") from None
    yield
    dist.destroy_process_group()


def play(rank: int, world: int, data: Path, execution: Execution, cell: Cell) -> Report | None:
    """Be one of the processes of a group from the first step of a cell to the last; see :func:`party`.

    The server compares the cell with the simulated one.
    """
    on_cpu = execution.replace(device="cpu")
    gradients = backend(on_cpu.gradients, cell.model, CPU)
    whole = build([cell], load(data), gradients, CPU)
    program = whole if rank == SERVER else owned(whole, rank - 1)
    del whole  # a worker keeps its own share of the data
    _refuse_others(cell.key(data_hash(data), arithmetic(cell.model, on_cpu)), world)
    with kernels_chosen(cell.training, together=gradients in (chain_gradients, vmap_gradients)):
        return _played(program, rank)


def _refuse_others(key: str, world: int) -> None:
    """Raise a UserError unless all processes would train the same cell, by the same code, from the same data."""
    own = torch.tensor([int(key[:15], 16)])
    found = [torch.empty_like(own) for _ in range(world)]
    dist.all_gather(found, own)
    if others := [rank for rank, other in enumerate(found) if not torch.equal(other, found[SERVER])]:
        ranks = ", ".join(map(str, others))
        raise UserError(f"distributed: other params.yaml, data, code or libraries than the server's at rank {ranks}")


def _played(program: Program, rank: int) -> Report | None:
    wire, tap = Gloo(), Gloo()
    if rank == SERVER:
        report = _beside_the_simulated(program, wire, tap)
    else:
        take_part(program, rank - 1, wire, tap)
    carried = torch.tensor([wire.carried * (rank == SERVER), wire.carried * (rank != SERVER), tap.carried])
    dist.all_reduce(carried)
    if rank != SERVER:
        return None
    down, up, overheard = (carried / program.training.steps).tolist()
    return report._replace(down=down, up=up, overheard=overheard)


def _beside_the_simulated(program: Program, wire: Gloo, tap: Gloo) -> Report:
    """Return how the parameters of the server compare with those of the simulator, which takes the same steps here."""
    state, equal, differences = program.start(), [], []
    for t, params in enumerate(server(program, wire, tap)):
        state, _ = step(program, state, t)
        equal.append(torch.equal(params.view(torch.uint8), state.params.view(torch.uint8)))
        differences.append(_difference(params, state.params))
    distributed, simulated = (
        float(evaluate(program.network, end, program.dataset.test).accuracy) for end in (params, state.params)
    )
    return Report(equal, float(torch.stack(differences).max()), (distributed, simulated), 0, 0, 0)


def _difference(params: Tensor, others: Tensor) -> Tensor:
    """Return the largest difference of two numbers in the same place, ``[]``; two that are both NaN do not differ."""
    same = (params == others) | (params.isnan() & others.isnan())
    return (params - others).abs().where(~same, 0.0).max()
