"""A batch of replicas: what stays the same over the steps of training, and what changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipeline.attacks import Attack, DataAttack, VectorAttack
from pipeline.core.rng import Stream
from pipeline.data.augmentation import augment
from pipeline.data.dataset import Dataset
from pipeline.data.partitions import Shares
from pipeline.defences.defence import Defence
from pipeline.simulator.cell import Cell, Threat, Training
from pipeline.simulator.gradients import Backend
from pipeline.simulator.models import Network
from pipeline.simulator.sampling import byzantine_counts, minibatch, subset, take
from pipeline.simulator.worker import clipped


@dataclass(frozen=True)
class State:
    """R replicas between two steps.

    Attributes:
        params: ``[R, d]``.
        momentum: ``[R, w, d]``, of the w workers that compute gradients.
        previous: ``[R, d]``, the last aggregate.
        velocity: ``[R, d]``, of the server.
        attack: What the attack remembers.
        defences: What each defence remembers.
    """

    params: Tensor
    momentum: Tensor
    previous: Tensor
    velocity: Tensor
    attack: Any
    defences: tuple[Any, ...]


class Defended(NamedTuple):
    """What the defences make of the vectors that were sent.

    Attributes:
        aggregates: ``[..., R, d]``.
        states: What each defence remembers.
        weights: ``[..., R, n]``, of each vector in the aggregate; NaN where a rule is not a weighted mean.
        unconverged: ``[..., R]``, 1 where a rule stopped before its tolerance, else 0; NaN where it has none.
    """

    aggregates: Tensor
    states: tuple[Any, ...]
    weights: Tensor
    unconverged: Tensor


@dataclass(frozen=True)
class Program:
    """What stays the same over the steps of a batch of replicas.

    Attributes:
        network: The model.
        dataset: On the device.
        threat: n, b and f.
        training: Rates, momentum, steps.
        attack: The attack of every replica.
        defences: The replicas ``slice`` of each defence.
        gradients: The gradient backend.
        strength: ``[R, 1, 1]``.
        ratios: ``[T, R, 1, 1]``, r of the attack's schedule; None where every attack is at full size from step 0.
        held: ``[R, w, m]``, sample numbers; those of a smaller share are followed by zeros.
        sizes: ``[R, n]``, how many samples each worker holds.
        first: The number of the first of these workers: 0, but in a process that is a single worker.
        minibatches: ``[R]``, random numbers of the minibatches.
        rates: ``[T, R, 1]``, learning rates.
        initial: ``[R, d]``, initial parameters.
        adversary: ``[R]``, random numbers of the attack.
        server: ``[R]``, random numbers of the defence.
        rounds: ``[R]``, random numbers of the choice of workers.
        images: ``[R]``, random numbers of the augmentation.
        detect: Whether to measure at every step what a filter would flag.
        heterogeneity: Whether to measure G and B at every evaluation.
        byzantine_counts: ``[T]``, Byzantine workers in each round; None if all workers take part.
    """

    network: Network
    dataset: Dataset
    threat: Threat
    training: Training
    attack: Attack
    defences: tuple[tuple[Defence, slice], ...]
    gradients: Backend
    strength: Tensor
    ratios: Tensor | None
    held: Tensor
    sizes: Tensor
    first: int
    minibatches: Stream
    rates: Tensor
    initial: Tensor
    adversary: Stream
    server: Stream
    rounds: Stream
    images: Stream
    detect: bool
    heterogeneity: bool
    byzantine_counts: list[int] | None

    def counts(self, t: int | Tensor) -> tuple[int, int]:
        """Return how many honest and how many Byzantine workers take part in step t."""
        if self.byzantine_counts is None:
            return self.threat.honest, self.threat.byzantine
        return self.threat.received - self.byzantine_counts[t], self.byzantine_counts[t]

    def present(self, t: int | Tensor) -> Tensor | None:
        """Return which of the w computing workers take part in step t, ``[R, k]``, honest first; None for all."""
        if self.byzantine_counts is None:
            return None
        (honest, byzantine), stream = self.counts(t), self.rounds.fork(t)
        chosen = subset(self.threat.honest, honest, stream.fork(0))
        if isinstance(self.attack, VectorAttack):
            return chosen
        others = self.threat.honest + subset(self.threat.byzantine, byzantine, stream.fork(1))
        return torch.cat([chosen, others], dim=-1)

    def batch(self, t: int | Tensor, present: Tensor | None, honest: int, place: int = 0) -> tuple[Tensor, Tensor]:
        """Return the inputs ``[R, k, B, *shape]`` and labels ``[R, k, B]`` of the workers ``present`` at step t.

        Args:
            t: The step.
            present: ``[R, k]``, honest first; None: all.
            honest: How many of these are honest; the others poison their labels where the attack is one on data.
            place: Of the first of these among the workers of the step.
        """
        size = self.training.batch_size * self.training.local_update.minibatches
        sizes = self.sizes[:, : self.held.shape[1]]
        drawn = minibatch(self.minibatches.fork(t), sizes, size, self.first)
        samples = take(self.held.gather(-1, drawn), present)
        labels = self.dataset.train.labels[samples]
        if isinstance(self.attack, DataAttack):
            poisoned = self.attack.poison(labels[:, honest:], self.dataset.classes)
            labels = torch.cat([labels[:, :honest], poisoned], dim=1)
        read = self.dataset.train.read(samples, self.initial.dtype)
        inputs = augment(self.training.augment, read, self.images.fork(t), place)
        return inputs, labels

    def defend(self, sent: Tensor, states: tuple[Any, ...], stream: Stream) -> Defended:
        """Return what the defences make of the vectors ``sent``.

        Args:
            sent: ``[..., R, n, d]``.
            states: What each defence remembers.
            stream: ``[R]``.
        """
        f = self.threat.tolerated
        results = [
            defence.aggregate(sent[..., replicas, :, :], f, memory, stream[replicas])
            for (defence, replicas), memory in zip(self.defences, states, strict=True)
        ]
        alike = [sent[..., replicas, :, 0] for _, replicas in self.defences]  # [..., n]
        weights = [_or_nan(result.weights, like) for result, like in zip(results, alike, strict=True)]
        unconverged = [_or_nan(result.unconverged, like[..., 0]) for result, like in zip(results, alike, strict=True)]
        return Defended(
            torch.cat([result.vector for result in results], dim=-2),
            tuple(result.state for result in results),
            torch.cat(weights, dim=-2),
            torch.cat(unconverged, dim=-1),
        )

    def start(self) -> State:
        """Return the state before the first step."""
        workers = self.held.shape[1]
        momentum = self.initial.new_zeros(len(self.initial), workers, self.network.size)
        previous = torch.zeros_like(self.initial)
        attack = self.attack.init_state(momentum) if isinstance(self.attack, VectorAttack) else None
        defences = tuple(defence.rule.init_state(previous[replicas]) for defence, replicas in self.defences)
        return State(self.initial, momentum, previous, torch.zeros_like(previous), attack, defences)


def _or_nan(known: Tensor | None, like: Tensor) -> Tensor:
    return torch.full_like(like, torch.nan) if known is None else known.to(like.dtype)


def at(series: Tensor, t: int | Tensor) -> Tensor:
    """Return what ``series`` holds for step t; no value is read if t is a tensor ``[]``."""
    return series[t] if isinstance(t, int) else series.index_select(0, t.view(1)).squeeze(0)


DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build(
    cells: Sequence[Cell],
    dataset: Dataset,
    backend: Backend,
    device: torch.device,
    detect: bool = False,
    heterogeneity: bool = False,
) -> Program:
    """Return the program that trains ``cells``, one replica each; side by side, equal defences are applied at once."""
    first = cells[0]
    if any(cell.shared != first.shared for cell in cells):
        raise ValueError("these cells cannot share a batch")
    training = first.training
    computing = first.threat.workers if isinstance(first.attack, DataAttack) else first.threat.honest
    network = first.model.network(dataset.shape, dataset.classes)
    shares = _shares(cells, dataset.train.labels.cpu())
    held = pad_sequence([share.samples.mT for share in shares], batch_first=True).mT[:, :computing]
    dtype = DTYPES[training.precision]
    return Program(
        network=network,
        dataset=dataset.to(device),
        threat=first.threat,
        training=training,
        attack=first.attack,
        defences=_side_by_side([cell.defence for cell in cells]),
        gradients=clipped(backend, training.clip),
        strength=torch.tensor([cell.strength for cell in cells], dtype=dtype, device=device)[:, None, None],
        ratios=None if (ratios := _ratios(cells)) is None else ratios.to(device, dtype),
        held=held.to(device),
        sizes=torch.stack([share.sizes for share in shares]).to(device),
        first=0,
        minibatches=Stream.of([cell.seed for cell in cells], "minibatches", device),
        rates=_rates(cells).to(device, dtype),
        initial=_initial(network, cells, dtype).to(device),
        adversary=Stream.of([cell.seed for cell in cells], "attack", device),
        server=Stream.of([cell.seed for cell in cells], "defence", device),
        rounds=Stream.of([cell.seed for cell in cells], "rounds", device),
        images=Stream.of([cell.seed for cell in cells], "augmentation", device),
        detect=detect,
        heterogeneity=heterogeneity,
        byzantine_counts=_byzantine_counts(first),
    )


def _shares(cells: Sequence[Cell], labels: Tensor) -> list[Shares]:
    """Return who holds what for every cell; cells with one partition and seed have one assignment."""
    threat = cells[0].threat
    wanted = {(cell.partition, cell.seed) for cell in cells}
    assigned = {
        (partition, seed): partition.shares(labels, threat.workers, threat.byzantine, seed)
        for partition, seed in wanted
    }
    return [assigned[cell.partition, cell.seed] for cell in cells]


def _initial(network: Network, cells: Sequence[Cell], dtype: torch.dtype) -> Tensor:
    """Return the initial parameters ``[R, d]``; cells with one seed start alike."""
    of_seed = {seed: network.initial(seed, dtype) for seed in {cell.seed for cell in cells}}
    return torch.stack([of_seed[cell.seed] for cell in cells])


def _side_by_side(defences: Sequence[Defence]) -> tuple[tuple[Defence, slice], ...]:
    """Return every run of equal defences with the slice of replicas that it covers."""
    runs, start = [], 0
    for defence, members in groupby(defences):
        end = start + len(list(members))
        runs.append((defence, slice(start, end)))
        start = end
    return tuple(runs)


def _rates(cells: Sequence[Cell]) -> Tensor:
    """Return the learning rate of every step and replica, ``[T, R, 1]``, float64."""
    of_cells = [cell.training.learning_rate * cell.training.schedule.factors(cell.training.steps) for cell in cells]
    return torch.stack(of_cells, dim=-1)[..., None]


def _ratios(cells: Sequence[Cell]) -> Tensor | None:
    """Return r_t of every replica's attack, ``[T, R, 1, 1]``; None where all are 1."""
    attacks = [cell.attack for cell in cells if isinstance(cell.attack, VectorAttack)]
    if not any(attack.start or attack.ramp for attack in attacks):
        return None
    steps = torch.arange(cells[0].training.steps)[:, None]
    start = torch.tensor([attack.start for attack in attacks])
    ramp = torch.tensor([attack.ramp for attack in attacks])
    return ((steps - start + 1).double() / (ramp + 1)).clamp(0, 1)[..., None, None]


def _byzantine_counts(cell: Cell) -> list[int] | None:
    """Return the counts of the cell's seed, which all cells of its batch share; None if all workers take part."""
    threat = cell.threat
    if threat.sampled is None:
        return None
    return byzantine_counts(cell.seed, cell.training.steps, threat.workers, threat.byzantine, threat.sampled)
