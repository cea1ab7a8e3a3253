"""Outcomes of single cells, trained once and remembered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.runs.cache import Ending, recall, recall_early, remember, remember_early
from pipeline.runs.checkpoints import Checkpoints
from pipeline.runs.execution import Trainer, arithmetic, train
from pipeline.runs.progress import progress
from pipeline.simulator.cell import Cell
from pipeline.simulator.loop import Watch

SplitName = Literal["validation", "test"]


class Outcome(NamedTuple):
    """How one cell ended on one split; see :class:`pipeline.runs.cache.Ending`."""

    accuracy: float
    diverged: bool
    flagged: float | None = None


@dataclass(frozen=True)
class Evaluator:
    """Trains a cell when its outcome is first needed.

    Every outcome is remembered under the cell's key, so a killed search goes on where it was, the studies share their
    clean references, and no cell of the grid is trained again.
    """

    root: Path
    trainer: Trainer
    data_hash: str

    def outcomes(self, cells: Sequence[Cell], split: SplitName, title: str, detect: bool = False) -> list[Outcome]:
        """Return the outcome of every cell on ``split``; with ``detect`` also what a filter would flag."""
        keys = self._keys(cells)
        known = {key: recall(self.root, key) for key in dict.fromkeys(keys)}
        unknown = {key: cell for key, cell in zip(keys, cells, strict=True) if _lacking(known[key], detect)}
        todo = list(unknown)
        measured: Any = {"detect": detect, "checkpoints": Checkpoints.named(self.root, todo, detect)}
        with progress(title, len(todo), "cell") as bar:
            for positions, results in train(list(unknown.values()), self.trainer, unwatched, **measured):
                for position, result in zip(positions, results, strict=True):
                    known[todo[position]] = remember(self.root, todo[position], result)
                bar.advance(len(positions))
        Checkpoints.named(self.root, keys, detect).remove()  # what is known needs none
        return [_outcome(known[key], split) for key in keys]

    def early(self, cells: Sequence[Cell], steps: int, title: str) -> list[float]:
        """Return the validation accuracy of every cell after its first ``steps`` steps, one of an evaluation.

        Cells stop there, and leave checkpoints from which :meth:`outcomes` goes on.
        """
        keys = self._keys(cells)
        known = {key: recall_early(self.root, key, steps) for key in dict.fromkeys(keys)}
        unknown = {key: cell for key, cell in zip(keys, cells, strict=True) if known[key] is None}
        todo, kept = list(unknown), Checkpoints.named(self.root, unknown)
        with progress(title, len(todo), "cell") as bar:
            batches = train(list(unknown.values()), self.trainer, unwatched, checkpoints=kept, until=steps)
            for positions, results in batches:
                for position, result in zip(positions, results, strict=True):
                    accuracy = result.evaluations["validation_accuracy"][result.evaluated.index(steps)]
                    known[todo[position]] = float(accuracy)
                    remember_early(self.root, todo[position], steps, float(accuracy))
                bar.advance(len(positions))
        return [accuracy for key in keys if (accuracy := known[key]) is not None]

    def drop(self, cells: Sequence[Cell]) -> None:
        """Remove the checkpoints of cells that do not go on."""
        Checkpoints.named(self.root, self._keys(cells)).remove()

    def _keys(self, cells: Sequence[Cell]) -> list[str]:
        return [cell.key(self.data_hash, arithmetic(cell.model, self.trainer.execution)) for cell in cells]


def unwatched(_: list[int]) -> Watch:
    """Look at no evaluation."""
    return lambda *_: None


def _lacking(ending: Ending | None, detect: bool) -> bool:
    return ending is None or (detect and ending.flagged is None)


def _outcome(ending: Ending | None, split: SplitName) -> Outcome:
    assert ending is not None  # it has been trained
    accuracy = ending.validation_accuracy if split == "validation" else ending.test_accuracy
    return Outcome(accuracy, ending.diverged, ending.flagged)
