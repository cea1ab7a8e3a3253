"""From the results of the grid to tables: pure functions of records, with Student-t intervals over seeds.

Accuracies and degradations are fractions. A degradation is the clean accuracy of the same defence, partition and seed
minus the attacked one; the degradation against the honest workers alone takes the accuracy that these reach by
themselves. Intervals are those of the paired differences. Tables keep the order of the grid.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.attacks import TunableAttack
from pipeline.report.intervals import over_seeds
from pipeline.report.outcomes import against_alone, outcomes
from pipeline.runs.params import Analysis
from pipeline.runs.store import Record
from pipeline.simulator.metrics import EVALUATION_METRICS, FINAL_METRICS

CLEAN = "none"
GROUP = ["attack", "defence", "partition"]
PAIR = ["defence", "partition", "seed"]
MEASURED = {"test_accuracy": "accuracy"}
EVALUATED = ("steps_done", *EVALUATION_METRICS)


def cells_table(records: Iterable[Record], alone: Sequence[Record] = ()) -> pd.DataFrame:
    """Return one row per cell: names, seed, strength, ``FINAL_METRICS``, and both degradations on test data.

    Strength is NaN for an attack that has none.

    Args:
        records: Of the grid.
        alone: Of training with the honest workers alone; ``alone_degradation`` is NaN for a seed without one.
    """
    cells = pd.DataFrame([_cell_row(record) for record in records])
    clean = cells[cells["attack"] == CLEAN].set_index(PAIR)["test_accuracy"]
    reference = clean.reindex(pd.MultiIndex.from_frame(cells[PAIR])).to_numpy()
    return cells.assign(
        degradation=reference - cells["test_accuracy"],
        alone_degradation=against_alone(cells.rename(columns=MEASURED), alone_runs(alone)),
    )


def alone_runs(alone: Sequence[Record]) -> pd.DataFrame:
    """Return ``partition``, ``seed`` and test ``accuracy`` of the runs of honest workers alone."""
    rows = [(record.planned.partition, record.planned.cell.seed, record.final["test_accuracy"]) for record in alone]
    return pd.DataFrame(rows, columns=["partition", "seed", "accuracy"])


def _cell_row(record: Record) -> dict[str, Any]:
    planned = record.planned
    attack = planned.cell.attack
    strength = attack.strength if isinstance(attack, TunableAttack) else math.nan
    final = {name: record.final[name] for name in FINAL_METRICS}
    names = dict(zip(GROUP, planned.group, strict=True))
    return {**names, "seed": planned.cell.seed, "strength": strength, **final, "diverged": int(final["diverged"])}


def comparison(cells: pd.DataFrame, settings: Analysis) -> pd.DataFrame:
    """Return one row per (attack, defence, partition) with the ``OUTCOME`` of its runs on test data."""
    return outcomes(cells.rename(columns=MEASURED), GROUP, settings)


def worst_attacks(compared: pd.DataFrame) -> pd.DataFrame:
    """Return, for each partition and defence, the row of the attack with the lowest mean test accuracy."""
    attacked = compared[compared["attack"] != CLEAN]
    lowest = attacked.groupby(["partition", "defence"], sort=False)["accuracy"].idxmin()
    return attacked.loc[lowest].reset_index(drop=True)


def headline(compared: pd.DataFrame) -> pd.DataFrame:
    """Return one row per (partition, defence): clean accuracy, and the row of ``compared`` of its worst attack."""
    clean = compared[compared["attack"] == CLEAN]
    clean = pd.concat([rows for _, rows in clean.groupby("partition", sort=False)])
    clean = clean.rename(columns={"accuracy": "clean", "accuracy_half_width": "clean_half_width"})
    worst = worst_attacks(compared).drop(columns="accuracy_sd")
    columns = ["partition", "defence", "clean", "clean_half_width"]
    return clean[columns].merge(worst, how="left", on=["partition", "defence"])


def cell_curves(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per cell and evaluation: names, seed, ``steps_done`` and ``EVALUATION_METRICS``."""
    cells = [(*record.planned.group, record.planned.cell.seed) for record in records]
    counts = [len(record.evaluations["steps_done"]) for record in records]
    rows = [cell for cell, count in zip(cells, counts, strict=True) for _ in range(count)]
    measured = {name: np.concatenate([record.evaluations[name] for record in records]) for name in EVALUATED}
    return pd.DataFrame(rows, columns=[*GROUP, "seed"]).assign(**measured).astype({"steps_done": int})


def curves(records: Sequence[Record], confidence: float) -> pd.DataFrame:
    """Return one row per (attack, defence, partition, steps_done): validation accuracy and loss over the seeds."""
    measured: pd.DataFrame = (
        cell_curves(records)
        .groupby([*GROUP, "steps_done"], sort=False)
        .agg(
            **over_seeds("accuracy", "validation_accuracy", confidence),
            **over_seeds("loss", "validation_loss", confidence),
        )
    )
    return measured.reset_index()


def wide_curves(measured: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return ``<partition>.<attack>`` -> a table of ``steps_done`` with a column of mean accuracies per defence."""
    tables = {}
    for (partition, attack), rows in measured.groupby(["partition", "attack"], sort=False):
        wide = rows.pivot(index="steps_done", columns="defence", values="accuracy")
        tables[f"{partition}.{attack}"] = wide[list(rows["defence"].unique())].reset_index()
    return tables


def overrun(records: Iterable[Record], tolerated: int) -> float:
    """Return the share of the rounds in which more than ``tolerated`` Byzantine workers took part."""
    return float(np.mean([record.steps["byzantine_workers"] > tolerated for record in records]))
