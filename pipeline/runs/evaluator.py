"""Outcomes of single cells, trained once and remembered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipeline.core.files import read_json, write_json
from pipeline.core.paths import CACHE
from pipeline.runs.execution import Trainer, arithmetic, train
from pipeline.runs.progress import progress
from pipeline.runs.store import number_or_none
from pipeline.simulator.cell import Cell
from pipeline.simulator.loop import Result

SplitName = Literal["validation", "test"]


class Outcome(NamedTuple):
    """How one cell ended: accuracy (fraction) on one split, whether training diverged, what a filter would flag.

    ``flagged`` is the mean share of Byzantine vectors (``detection.py``); None where it was not measured.
    """

    accuracy: float
    diverged: bool
    flagged: float | None = None


@dataclass(frozen=True)
class Evaluator:
    """Trains a cell when its outcome is first needed.

    Every outcome is kept in ``.cellcache/evaluations``, so a killed search goes on where it was, and the studies share
    their clean references.
    """

    root: Path
    trainer: Trainer
    data_hash: str

    def outcomes(self, cells: Sequence[Cell], split: SplitName, title: str, detect: bool = False) -> list[Outcome]:
        """Return the outcome of every cell on ``split``; with ``detect`` also what a filter would flag."""
        files = [self._file(cell, split) for cell in cells]
        known = [_read(file) for file in files]
        unknown = [
            cell
            for cell, outcome in zip(cells, known, strict=True)
            if outcome is None or (detect and outcome.flagged is None)
        ]
        todo = list({cell.model_dump_json(): cell for cell in unknown}.values())
        with progress(title, len(todo), "cell") as bar:
            for positions, results in train(todo, self.trainer, lambda _: lambda *_: None, detect):
                for position, result in zip(positions, results, strict=True):
                    outcome = _outcome(result, split)
                    write_json(self._file(todo[position], split), outcome._asdict())
                bar.advance(len(positions))
        return [Outcome(**read_json(file)) for file in files]

    def _file(self, cell: Cell, split: SplitName) -> Path:
        return (
            self.root
            / CACHE
            / "evaluations"
            / f"{cell.key(self.data_hash, arithmetic(cell.model, self.trainer.execution))}.{split}.json"
        )


def _outcome(result: Result, split: SplitName) -> Outcome:
    flagged = result.steps.get("flagged")
    share = None if flagged is None else number_or_none(float(np.nanmean(flagged)))
    return Outcome(result.final[f"{split}_accuracy"], bool(result.final["diverged"]), share)


def _read(file: Path) -> Outcome | None:
    try:
        return Outcome(**read_json(file))
    except (OSError, ValueError, TypeError):
        return None
