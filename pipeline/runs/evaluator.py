"""Outcomes of single cells, trained once and remembered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.runs.cache import Ending, recall, remember
from pipeline.runs.checkpoints import Checkpoints
from pipeline.runs.execution import Trainer, arithmetic, train
from pipeline.runs.progress import progress
from pipeline.simulator.cell import Cell

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
        keys = [cell.key(self.data_hash, arithmetic(cell.model, self.trainer.execution)) for cell in cells]
        known = {key: recall(self.root, key) for key in dict.fromkeys(keys)}
        unknown = {key: cell for key, cell in zip(keys, cells, strict=True) if _lacking(known[key], detect)}
        todo, cells = list(unknown), list(unknown.values())
        measured: Any = {"detect": detect, "checkpoints": Checkpoints.named(self.root, todo, detect)}
        with progress(title, len(todo), "cell") as bar:
            for positions, results in train(cells, self.trainer, lambda _: lambda *_: None, **measured):
                for position, result in zip(positions, results, strict=True):
                    known[todo[position]] = remember(self.root, todo[position], result)
                bar.advance(len(positions))
        return [_outcome(known[key], split) for key in keys]


def _lacking(ending: Ending | None, detect: bool) -> bool:
    return ending is None or (detect and ending.flagged is None)


def _outcome(ending: Ending | None, split: SplitName) -> Outcome:
    assert ending is not None  # it has been trained
    accuracy = ending.validation_accuracy if split == "validation" else ending.test_accuracy
    return Outcome(accuracy, ending.diverged, ending.flagged)
