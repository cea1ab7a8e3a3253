"""From the results of the grid to tables: pure functions of records, with Student-t intervals over seeds.

Accuracies and degradations are fractions. A degradation is the clean accuracy of the same defence, partition and seed
minus the attacked one; its interval is that of the paired differences. Tables keep the order of the grid.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pipeline.attacks import TunableAttack
from pipeline.report.intervals import mean_of_all, over_seeds, t_half_width
from pipeline.report.search_tables import CELL, SearchTables
from pipeline.runs.store import Record
from pipeline.simulator.metrics import FINAL_METRICS

CLEAN = "none"
GROUP = ["attack", "defence", "partition"]
PAIR = ["defence", "partition", "seed"]
HEADLINE_COLUMNS = {
    "clean": "clean",
    "clean_half_width": "clean_half_width",
    "worst_attack": "attack",
    "accuracy": "accuracy",
    "accuracy_half_width": "accuracy_half_width",
    "degradation": "degradation",
    "half_width": "degradation_half_width",
}
FOUND_COLUMNS = {
    "found_attack": "attack",
    "found_strength": "strength",
    "found_accuracy": "accuracy",
    "found_accuracy_half_width": "accuracy_half_width",
    "found_degradation": "degradation",
    "found_half_width": "degradation_half_width",
}


@dataclass(frozen=True)
class Tables:
    """All tables.

    Attributes:
        cells: Of :func:`cells_table`.
        compared: Of :func:`comparison`.
        heads: Of :func:`headline`.
        measured: Of :func:`curves`.
        search: None where nothing is searched.
    """

    cells: pd.DataFrame
    compared: pd.DataFrame
    heads: pd.DataFrame
    measured: pd.DataFrame
    search: SearchTables | None


def cells_table(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per cell: names, seed, strength, ``FINAL_METRICS``, and the degradation on test data.

    Strength is NaN for an attack that has none.
    """
    cells = pd.DataFrame([_cell_row(record) for record in records])
    clean = cells[cells["attack"] == CLEAN].set_index(PAIR)["test_accuracy"]
    reference = clean.reindex(pd.MultiIndex.from_frame(cells[PAIR])).to_numpy()
    return cells.assign(degradation=reference - cells["test_accuracy"])


def _cell_row(record: Record) -> dict[str, Any]:
    planned = record.planned
    attack = planned.cell.attack
    strength = attack.strength if isinstance(attack, TunableAttack) else math.nan
    final = {name: record.final[name] for name in FINAL_METRICS}
    names = dict(zip(GROUP, planned.group, strict=True))
    return {**names, "seed": planned.cell.seed, "strength": strength, **final, "diverged": int(final["diverged"])}


def comparison(cells: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return one row per (attack, defence, partition): test accuracy and degradation over the seeds of ``cells``."""
    compared: pd.DataFrame = cells.groupby(GROUP, sort=False).agg(
        accuracy=("test_accuracy", mean_of_all),
        accuracy_sd=("test_accuracy", "std"),
        accuracy_half_width=("test_accuracy", partial(t_half_width, confidence=confidence)),
        accuracy_min=("test_accuracy", "min"),
        accuracy_max=("test_accuracy", "max"),
        seeds=("seed", "count"),
        diverged=("diverged", "sum"),
        **over_seeds("degradation", "degradation", confidence),
    )
    return compared.reset_index()


def worst_attacks(compared: pd.DataFrame) -> pd.DataFrame:
    """Return, for each partition and defence, the row of the attack with the lowest mean test accuracy."""
    attacked = compared[compared["attack"] != CLEAN]
    lowest = attacked.groupby(["partition", "defence"], sort=False)["accuracy"].idxmin()
    return attacked.loc[lowest].reset_index(drop=True)


def headline(compared: pd.DataFrame) -> pd.DataFrame:
    """Return one row per (partition, defence): clean accuracy, the worst attack of the grid, and what it does."""
    clean = compared[compared["attack"] == CLEAN]
    clean = pd.concat([rows for _, rows in clean.groupby("partition", sort=False)])
    clean = clean.rename(columns={"accuracy": "clean", "accuracy_half_width": "clean_half_width"})
    worst = worst_attacks(compared)[
        [*GROUP, "accuracy", "accuracy_half_width", "degradation", "degradation_half_width"]
    ]
    columns = ["partition", "defence", "clean", "clean_half_width"]
    return clean[columns].merge(worst, how="left", on=["partition", "defence"])


def cell_curves(records: Iterable[Record]) -> pd.DataFrame:
    """Return one row per cell and evaluation: names, seed, ``steps_done`` and ``EVALUATION_METRICS``."""
    rows = []
    for record in records:
        names = dict(zip(GROUP, record.planned.group, strict=True))
        evaluations = pd.DataFrame({**names, "seed": record.planned.cell.seed, **record.evaluations})
        rows.append(evaluations.astype({"steps_done": int}))
    return pd.concat(rows, ignore_index=True)


def curves(records: Iterable[Record], confidence: float) -> pd.DataFrame:
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


def summary_rows(tables: Tables, partition: str) -> dict[str, dict[str, Any]]:
    """Return ``<partition>.<defence>`` -> the few numbers that sum it up; ``partition`` is the searched one."""
    rows = {
        f"{row['partition']}.{row['defence']}": {new: plain(row[old]) for new, old in HEADLINE_COLUMNS.items()}
        for row in tables.heads.to_dict("records")
    }
    for row in tables.search.worst["found"].to_dict("records") if tables.search else []:
        of_grid = rows.get(f"{partition}.{row['defence']}", {})
        of_grid.update({new: plain(row[old]) for new, old in FOUND_COLUMNS.items()})
    return rows


def summary(rows: Mapping[str, Any], search: SearchTables | None) -> dict[str, Any]:
    """Return ``rows`` of :func:`summary_rows` by partition and defence, and the search by study and defence."""
    nested: dict[str, Any] = {"grid": {}}
    for name, row in rows.items():
        partition, defence = name.split(".")
        nested["grid"].setdefault(partition, {})[defence] = row
    for row in search.at_threat.to_dict("records") if search else []:
        numbers = {str(name): plain(value) for name, value in row.items() if name not in CELL}
        nested.setdefault("search", {}).setdefault(row["study"], {})[row["defence"]] = numbers
    return nested


def plain(value: Any) -> Any:
    """Return a number with four significant digits, None for one that is not finite, anything else as it is."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None


def overrun(records: Iterable[Record], tolerated: int) -> float:
    """Return the share of the rounds in which more than ``tolerated`` Byzantine workers took part."""
    return float(np.mean([record.steps["byzantine_workers"] > tolerated for record in records]))


def tabulate(records: Sequence[Record], search: SearchTables | None, confidence: float) -> Tables:
    """Return all tables."""
    cells = cells_table(records)
    compared = comparison(cells, confidence)
    return Tables(cells, compared, headline(compared), curves(records, confidence), search)
