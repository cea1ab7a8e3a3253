"""A folder of cells on disk, and the training of those that are missing."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import content_hash
from pipeline.core.paths import DATASET
from pipeline.data.dataset import data_hash
from pipeline.runs import store
from pipeline.runs.cache import remember
from pipeline.runs.checkpoints import Checkpoints
from pipeline.runs.execution import Trainer, arithmetic, train
from pipeline.runs.params import Params
from pipeline.runs.plan import Planned
from pipeline.runs.progress import Progress, progress
from pipeline.simulator.loop import Result, Watch

Watcher = Callable[[Sequence[Planned]], Watch]


@dataclass(frozen=True)
class Row:
    """Cells that stand in one folder.

    Attributes:
        root: The project's folder.
        params: Of params.yaml, tuned.
        folder: Where the cells stand.
        stage: Which stage writes them.
    """

    root: Path
    params: Params
    folder: Path
    stage: str

    @cached_property
    def data_hash(self) -> str:
        """The hash of the prepared data."""
        return data_hash(self.root / DATASET)

    @cached_property
    def _arithmetic(self) -> dict[str, str]:
        return arithmetic(self.params.model, self.params.execution)

    def keys(self, cells: Iterable[Planned]) -> dict[str, str]:
        """Return the key of every cell by its folder."""
        return {planned.folder: planned.cell.key(self.data_hash, self._arithmetic) for planned in cells}

    def settle(self, cells: Iterable[Planned]) -> set[str]:
        """Keep these cells and no others; return the folders of those that are missing."""
        return store.settle(self.root, self.folder, self.keys(cells))

    def read(self, planned: Planned) -> store.Record:
        """Read one cell."""
        return store.read(self.folder, planned, self.data_hash, self.stage)

    def train(
        self,
        title: str,
        cells: Sequence[Planned],
        processes: Trainer,
        watcher: Watcher = lambda _: lambda *_: None,
        heterogeneity: bool = False,
    ) -> None:
        """Train cells, and write those of a batch when it ends; what an interruption left goes on where it was.

        Args:
            title: Of the progress.
            cells: In any order; equal defences side by side are applied at once.
            processes: What trains them.
            watcher: Given the cells of a batch, returns what is told its evaluations.
            heterogeneity: Measure G and B at every evaluation.
        """
        checkpoints = Checkpoints.named(self.root, self.keys(cells).values(), heterogeneity=heterogeneity)
        steps = sum(planned.cell.training.steps for planned in cells)
        with progress(title, steps, "step", sum(checkpoints.done)) as bar:
            watch = _advancing(cells, watcher, bar, checkpoints.done)
            measured: Any = {"heterogeneity": heterogeneity, "checkpoints": checkpoints}
            for positions, results in train([planned.cell for planned in cells], processes, watch, **measured):
                for position, result in zip(positions, results, strict=True):
                    self._write(cells[position], result)

    def _write(self, planned: Planned, result: Result) -> None:
        identity = planned.cell.identity(self.data_hash, self._arithmetic)
        store.write(self.folder, planned, identity, result)
        remember(self.root, content_hash(identity), result)


def _advancing(
    cells: Sequence[Planned], watcher: Watcher, bar: Progress, before: Sequence[int]
) -> Callable[[list[int]], Watch]:
    """Return what makes the watch of a batch that moves the bar, too, from the steps done ``before``."""
    done = [*before]  # steps of each cell; a batch that is halved, repeated, or told again, counts once

    def of_batch(positions: list[int]) -> Watch:
        log = watcher([cells[position] for position in positions])

        def watch(steps_done: int, metrics: dict[str, np.ndarray]) -> None:
            log(steps_done, metrics)
            accuracy = metrics["validation_accuracy"].mean()
            more = sum(max(0, steps_done - done[position]) for position in positions)
            bar.advance(more, f"mean validation accuracy {accuracy:.1%}")
            for position in positions:
                done[position] = max(steps_done, done[position])

        return watch

    return of_batch
