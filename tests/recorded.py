"""Cells read back, made up one by one, and rows found again in tables."""

import numpy as np
import pandas as pd
from support import parameters

from pipeline.runs.plan import planned
from pipeline.runs.store import Record
from pipeline.simulator.metrics import EVALUATION_METRICS

PARAMS = parameters()


def record(attack, defence, seed, accuracy, partition="iid", loss=1.0, diverged=0.0) -> Record:
    """A cell whose validation accuracy rises from 0 to ``accuracy``, its test accuracy."""
    final = {"validation_accuracy": accuracy, "validation_loss": loss, "test_accuracy": accuracy}
    final |= {"test_loss": loss, "diverged": diverged}
    curves = {"validation_accuracy": np.array([0.0, accuracy]), "validation_loss": np.array([2.0, loss])}
    assert set(curves) == set(EVALUATION_METRICS)
    evaluations = {"steps_done": np.array([0.0, 6.0]), **curves}
    return Record(planned(PARAMS, attack, defence, partition, seed), "key", final, {}, evaluations)


def records(accuracies, partition="iid") -> list[Record]:
    """Cells from ``{(attack, defence): accuracies of seed 0, 1, ...}``."""
    return [
        record(attack, defence, seed, accuracy, partition)
        for (attack, defence), of_seeds in accuracies.items()
        for seed, accuracy in enumerate(of_seeds)
    ]


def row_of(table, **names) -> pd.Series:
    """The one row in which every column of ``names`` has that value."""
    rows = table[np.logical_and.reduce([table[column] == value for column, value in names.items()])]
    assert len(rows) == 1
    return rows.iloc[0]
