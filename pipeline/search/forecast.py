"""What a run of the whole pipeline takes, told before a cell is trained: cells, steps, memory and minutes."""

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import NamedTuple

from pipeline.attacks import Attack, TunableAttack
from pipeline.core.errors import UserError
from pipeline.core.paths import DATASET
from pipeline.runs.execution import Trainer, device, halves, processes, train, trainer
from pipeline.runs.memory import available
from pipeline.runs.params import Params
from pipeline.runs.plan import INDEX, activations, number_bytes, planned
from pipeline.runs.references import LONGER
from pipeline.runs.seeds import CLEAN
from pipeline.search.study import Study
from pipeline.simulator.cell import Cell
from pipeline.simulator.metrics import STEP_METRICS

GB = 1e9
PROCESS = 300_000_000  # bytes that a process has of its own before it computes: its libraries
TIMED = 0.3  # seconds of the shortest training that is believed
BASIS = (
    "minutes: from {seconds:.0f} s of training here, one cell of each defence under each attack, divided by "
    "{processes} processes; training alone, and less where cells are known already"
)


class Work(NamedTuple):
    """Cells of one stage.

    Attributes:
        stage: As ``dvc repro`` takes it.
        attacks: Under which the cells are trained.
        least: How many cells there are.
        most: And with all seeds that may be added.
        steps: Of each.
    """

    stage: str
    attacks: tuple[str, ...]
    least: int
    most: int
    steps: int

    @property
    def text(self) -> str:
        """Cells and steps in words."""
        cells = f"{self.most:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"
        return f"{cells} cells of {self.steps:,} steps"


def works(params: Params) -> Iterator[Work]:
    """Yield what each stage trains, in the order in which the stages run."""
    grid, tuning, steps = params.grid, params.tuning, params.training.steps
    tried = tuning.trials * len(tuning.attacks) * len(tuning.seeds)
    for defence in tuning.defences:
        yield Work(f"tune@{defence}", tuning.attacks, tried, tried, steps)
    groups = len(grid.defences) * len(grid.partitions)
    for attack in grid.attacks:
        least = grid.max_seeds if attack == CLEAN else len(grid.seeds)
        yield Work(f"train@{attack}", (attack,), groups * least, groups * grid.max_seeds, steps)
    alone = len(grid.partitions) * grid.max_seeds + len(params.search.confirmation_seeds)
    yield Work("references", (CLEAN,), alone, alone, steps)
    yield Work("references", grid.attacks, groups * len(grid.seeds), groups * len(grid.seeds), LONGER * steps)
    for name in params.search.studies:
        yield _searched(Study(params, name))


def _searched(study: Study) -> Work:
    """Return the work of a study: every trial and the run without attack, then what is confirmed and transferred."""
    search = study.params.search
    trials = sum(search.trials if target.byzantine else 1 for target in study.targets) + len(study.targets)
    confirmed = search.finalists + 1 + max(len(study.literature(name, max(study.threats))) for name in study.spaces)
    transferred = len(study.targets) if search.transfer and study.mode == "strength" else 0
    again = len(study.targets) * (confirmed + transferred) * len(search.confirmation_seeds)
    cells = trials * len(search.seeds) + again
    return Work(f"search@{study.name}", study.declared.attacks, cells, cells, study.params.training.steps)


def announced(params: Params, stage: str) -> str:
    """Return in a line what a stage trains.

    Raises:
        UserError: Memory cannot suffice for it.
    """
    mine = [work for work in works(params) if work.stage == stage]
    for work in mine:
        _check_memory(params, work)
    needed = max(sum(_least_bytes(params, work.steps).values()) for work in mine)
    return f"{stage}: {', '.join(work.text for work in mine)}; {needed / GB:.2g} GB or more for each at a time"


def _check_memory(params: Params, work: Work) -> None:
    on = device(params.execution.device)
    if halves(on) or params.execution.cluster is not None:
        return
    parts = _least_bytes(params, work.steps)
    count, here = min(work.most, processes(params.execution.processes, on)), available()
    if sum(parts.values()) * count > here:
        blamed = max(parts, key=lambda name: parts[name])
        raise UserError(
            f"{blamed}: a cell of {work.stage} takes {sum(parts.values()) / GB:,.1f} GB or more, most of it for this; "
            f"{count} at a time (execution.processes) do not fit into the {here / GB:,.1f} GB that are available"
        )


def _least_bytes(params: Params, steps: int) -> dict[str, int]:
    """Return what a process that trains one cell takes at the very least, by the parameter that asks for it."""
    format, threat, training = params.data.source.format, params.threat, params.training
    network = params.model.network(format.shape, format.classes)
    drawn = training.batch_size * training.local_update.minibatches
    numbers = {
        "model": (threat.honest + threat.workers) * network.size,  # the momentum, and what is sent
        "training.batch_size": training.batch_size * activations(network, format.shape)
        + min(threat.honest, threat.received) * drawn * prod(format.shape),
        "training.steps": steps * len(STEP_METRICS),
    }
    taken = {name: number_bytes(training) * count for name, count in numbers.items()}
    taken["training.batch_size"] += INDEX * threat.honest * drawn
    return {**taken, "execution.processes": PROCESS}


def table(root: Path, params: Params) -> str:
    """Return what every stage trains and about how long that takes.

    Raises:
        UserError: Memory cannot suffice for a stage.
    """
    todo = list(works(params))
    for work in todo:
        _check_memory(params, work)
    lines = [f"{work.stage:<40} {work.text}" for work in todo]
    needed = max(sum(_least_bytes(params, work.steps).values()) for work in todo)
    lines.append(f"memory: {needed / GB:.2g} GB or more for each cell at a time, {available() / GB:.1f} GB available")
    if not (root / DATASET).exists():
        return "\n".join([*lines, "minutes: known after `dvc repro prepare`"])
    started, count = monotonic(), processes(params.execution.processes, device(params.execution.device))
    seconds = _seconds(root, params, todo)
    minutes = [fmean(seconds[attack] for attack in work.attacks) * work.most * work.steps / count / 60 for work in todo]
    lines[: len(todo)] = [f"{line:<90} {time:>8.1f} min" for line, time in zip(lines, minutes, strict=False)]
    lines.append(f"{'together, at most':<90} {sum(minutes):>8.1f} min")
    return "\n".join([*lines, BASIS.format(seconds=monotonic() - started, processes=count)])


def _seconds(root: Path, params: Params, todo: Sequence[Work]) -> dict[str, float]:
    """Return how long one process takes for a step of a cell under each attack, the mean over the defences."""
    attacks = {attack for work in todo for attack in work.attacks}
    with trainer(root / DATASET, params.execution.replace(processes=1, cluster=None)) as process:
        return {attack: _seconds_a_step(_one_of_each(params, attack), process) for attack in sorted(attacks)}


def _one_of_each(params: Params, attack: str) -> list[Cell]:
    """Return a cell of each defence under this attack, with strength 1 where it has no default."""
    threat, changed = params.threat, {**params.attacks}
    changed[attack] = _with_a_strength(params.attacks[attack], threat.received, threat.tolerated)
    changed_params = params.model_copy(update={"attacks": changed})
    where, seed = params.grid.partitions[0], params.grid.seeds[0]
    return [planned(changed_params, attack, defence, where, seed).cell for defence in params.grid.defences]


def _with_a_strength(attack: Attack, n: int, f: int) -> Attack:
    try:
        return attack.resolved(n, f)
    except UserError:
        assert isinstance(attack, TunableAttack)
        return attack.replace(strength=1.0)


def _seconds_a_step(cells: Sequence[Cell], process: Trainer) -> float:
    def timed(steps: int) -> float:
        started = monotonic()
        shorter = [cell.replace(training=cell.training.replace(steps=steps)) for cell in cells]
        for _ in train(shorter, process, lambda _: lambda *_: None):
            pass
        return monotonic() - started

    timed(1)  # compiles
    start, steps = timed(1), 4
    while (took := timed(steps) - start) < TIMED:
        steps *= 4
    return took / (steps - 1) / len(cells)
