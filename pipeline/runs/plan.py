"""From parameters to cells, and from cells to batches that fit in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product, takewhile
from math import ceil, prod

import torch

from pipeline.attacks import Attack
from pipeline.data.dataset import Dataset
from pipeline.runs.params import Params
from pipeline.runs.seeds import seeds_needed
from pipeline.simulator.cell import Cell, Training
from pipeline.simulator.metrics import STEP_METRICS
from pipeline.simulator.models import Network
from pipeline.simulator.models.base import Shape

COPIES = 12  # of [R, n, d] alive at once in the most demanding step
ACTIVATION_COPIES = 2  # of the activations of all minibatches; measured with ResNet-20: 1
HISTORY_COPIES = 3  # of the metrics of all steps: as they come, stacked, and as they are sent
INDEX = 8  # bytes of a sample's number
TOGETHER = 12  # replicas of a batch on a CPU: measured with the default row on two cores, 8 to 32


@dataclass(frozen=True)
class Planned:
    """A cell of the grid under the names that params.yaml gives its parts."""

    attack: str
    defence: str
    partition: str
    cell: Cell

    @property
    def folder(self) -> str:
        """The name of the cell's folder inside its row."""
        return f"{self.defence}.{self.partition}.seed{self.cell.seed}"

    @property
    def group(self) -> tuple[str, str, str]:
        """Attack, defence and partition: what all seeds have in common."""
        return self.attack, self.defence, self.partition


def grid_row(params: Params, attack: str, accuracies: Mapping[str, float] | None = None) -> list[Planned]:
    """Return the cells of one attack that are needed, equal defences side by side.

    Args:
        params: Of params.yaml, tuned.
        attack: A name in ``grid.attacks``.
        accuracies: Test accuracies of the cells whose results are known, by their folders.
    """
    known, row = accuracies or {}, []
    for defence, partition in product(params.grid.defences, params.grid.partitions):
        group = [planned(params, attack, defence, partition, seed) for seed in params.grid.all_seeds]
        first = takewhile(lambda cell: cell.folder in known, group)
        needed = seeds_needed(params, attack, [known[cell.folder] for cell in first])
        row += group[:needed]
    return row


def whole_row(params: Params, attack: str) -> list[Planned]:
    """Return the cells of one attack with all seeds that it may need."""
    return [
        planned(params, attack, defence, partition, seed)
        for defence, partition, seed in product(params.grid.defences, params.grid.partitions, params.grid.all_seeds)
    ]


def planned(params: Params, attack: str, defence: str, partition: str, seed: int) -> Planned:
    """Return the cell of one combination of names and a seed."""
    entry = params.defences[defence]
    rate = params.training.learning_rate if entry.learning_rate is None else entry.learning_rate
    cell = Cell(
        model=params.model,
        partition=params.partitions[partition],
        threat=params.threat,
        training=params.training.replace(learning_rate=rate),
        defence=entry.defence,
        attack=params.attacks[attack],
        seed=seed,
    )
    return Planned(attack, defence, partition, cell)


def resolved(params: Params, attack: str) -> Attack:
    """Return the attack of that name with its default strength filled in."""
    return params.attacks[attack].resolved(params.threat.received, params.threat.tolerated)


def batches(cells: Sequence[Cell], processes: int = 1, together: int = TOGETHER) -> Iterator[list[int]]:
    """Yield the positions of the cells to train together: neighbours among those that can share a batch.

    Batches are as large as ``together`` allows and about equally large, and their number is a multiple of that of the
    processes where it can be, so that all processes have work to the end.

    Args:
        cells: In any order.
        processes: How many batches are trained at a time.
        together: The most replicas of a batch.
    """
    sharing: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        sharing.setdefault(cell.shared, []).append(position)
    rounds = ceil(len(cells) / (processes * together))
    for positions in sharing.values():
        yield from cut(positions, ceil(len(cells) / (processes * rounds)))


def cut(positions: list[int], most: int) -> Iterator[list[int]]:
    """Yield as few equally large pieces as ``most`` allows; where it does not come out even, some are larger by one."""
    count = ceil(len(positions) / most)
    borders = [len(positions) * number // count for number in range(count + 1)]
    yield from (positions[start:end] for start, end in pairwise(borders))


def replica_bytes(cell: Cell, dataset: Dataset) -> int:
    """Return an estimate of the memory that one replica takes, in bytes."""
    network, training = cell.model.network(dataset.shape, dataset.classes), cell.training
    samples = cell.threat.workers * training.batch_size
    drawn = samples * training.local_update.minibatches
    held = len(dataset.train.labels)
    numbers = (
        COPIES * cell.threat.workers * network.size
        + ACTIVATION_COPIES * samples * activations(network, dataset.shape)
        + drawn * prod(dataset.shape)
        + HISTORY_COPIES * training.steps * len(STEP_METRICS)
    )
    return INDEX * (drawn + held) + number_bytes(training) * numbers


def number_bytes(training: Training) -> int:
    """Return how many bytes one number of a replica takes."""
    return 8 if training.precision == "float64" else 4


def activations(network: Network, shape: Shape) -> int:
    """Return how many numbers the layers of a network put out for one input of ``shape``, the input included.

    Example:
        >>> from pipeline.simulator.models.linear import LogisticRegression
        >>> activations(LogisticRegression().network((1, 8, 8), classes=10), (1, 8, 8))
        138
    """
    if network.chain:  # to run it would make PyTorch import its compiler, which takes a second
        first, *hidden, last = network.linear_sizes()
        return prod(shape) + first + 2 * sum(hidden) + last
    counts = [prod(shape)]
    layers = [layer for layer in network.module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(lambda _, __, put_out: counts.append(put_out.numel())) for layer in layers]
    network.module(torch.empty(1, *shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(counts)
