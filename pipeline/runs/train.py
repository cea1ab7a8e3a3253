"""The stage ``train``: one attack against every defence, partition and seed of the grid."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.core.files import file_hash
from pipeline.core.paths import DATASET
from pipeline.data.dataset import readable
from pipeline.runs import store
from pipeline.runs.execution import arithmetic, train, trainer
from pipeline.runs.params import Params
from pipeline.runs.plan import Planned, grid_row
from pipeline.runs.progress import Progress, progress
from pipeline.simulator.loop import Watch


class Observer(Protocol):
    """What follows a row while it trains."""

    def watch(self, cells: Sequence[Planned]) -> Watch:
        """Return what is told the evaluations of a batch of ``cells``."""

    def finish(self, records: Sequence[store.Record]) -> None:
        """Take note of the whole row."""


Observe = Callable[[str, Sequence[Planned], Mapping[str, str]], Observer]


def train_row(root: Path, params: Params, attack: str, observe: Observe) -> None:
    """Train the cells of one attack that are missing, and keep the others.

    Each batch of cells is written when it ends, so an interruption loses the batch under way.

    Args:
        root: The project's folder.
        params: Of params.yaml.
        attack: A name in ``grid.attacks``.
        observe: Given the hash of the data, the row's cells and the key of each folder, returns what follows them.
    """
    with readable(root / DATASET, "prepare") as file:
        data_hash = file_hash(file)
    cells, row = grid_row(params, attack), store.row_folder(root, attack)
    computes = arithmetic(params.model, params.execution)
    keys = {planned.folder: planned.cell.key(data_hash, computes) for planned in cells}
    missing = store.settle(root, row, keys)
    todo = [planned for planned in cells if planned.folder in missing]
    print(f"train {attack}: {len(cells)} cells, {len(todo)} to train", flush=True)
    with trainer(root / DATASET, params.execution, len(todo)) as processes:
        live = observe(data_hash, cells, keys)
        with progress(f"train {attack}", len(todo) * params.training.steps, "step") as bar:
            watch = _watcher(todo, live, bar)
            for positions, results in train([planned.cell for planned in todo], processes, watch):
                for position, result in zip(positions, results, strict=True):
                    store.write(root, row, todo[position], keys[todo[position].folder], result)
    live.finish(store.read_row(root, cells))


def _watcher(todo: list[Planned], live: Observer, bar: Progress) -> Callable[[list[int]], Watch]:
    done = [0] * len(todo)  # steps of each cell; a batch that is halved, or repeated, counts once

    def of_batch(positions: list[int]) -> Watch:
        log = live.watch([todo[position] for position in positions])

        def watch(steps_done: int, metrics: dict[str, np.ndarray]) -> None:
            log(steps_done, metrics)
            accuracy = metrics["validation_accuracy"].mean()
            more = sum(steps_done - done[position] for position in positions)
            bar.advance(more, f"mean validation accuracy {accuracy:.1%}")
            for position in positions:
                done[position] = steps_done

        return watch

    return of_batch
