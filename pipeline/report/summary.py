"""``results/summary.json`` and ``results/metrics``: the numbers that are quoted elsewhere."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline.report.search_tables import CELL, FOUND
from pipeline.report.tables import Tables

Row = dict[Any, Any]
Rows = dict[str, Row]

CLEAN = ["clean", "clean_half_width"]
OUTCOME = [
    *("seeds", "accuracy", "accuracy_half_width", "accuracy_median", "accuracy_lower_quartile"),
    *("accuracy_upper_quartile", "collapse", "collapse_low", "collapse_high", "degradation"),
    *("degradation_half_width", "alone_degradation", "alone_degradation_half_width"),
]
ATTACKED = ["attack", *OUTCOME]
OF_FOUND = ["study", "attack", "parameters", "range", *OUTCOME]
TUNED = [
    *("common_learning_rate", "common_accuracy", "common_accuracy_half_width"),
    *("tuned_learning_rate", "tuned_parameters", "tuned_accuracy", "tuned_accuracy_half_width"),
]
METRICS = [
    *("clean", "clean_half_width", "worst_attack", "accuracy", "accuracy_half_width", "collapse", "degradation"),
    *("degradation_half_width", "verdict", "found_attack", "found_range", "found_accuracy"),
    *("found_accuracy_half_width", "found_collapse", "worst_source"),
]


def grid_rows(tables: Tables, partition: str) -> Rows:
    """Return ``<partition>.<defence>`` -> the numbers that sum it up; ``partition`` is the searched one."""
    rows = {_name(row): _of_literature(row) for row in tables.heads.to_dict("records")}
    for row in tables.search.worst[FOUND].to_dict("records") if tables.search else []:
        of_grid = rows.get(f"{partition}.{row['defence']}", {})
        of_grid.update({f"found_{name}": plain(row[name]) for name in OF_FOUND})
    for row in tables.worst.to_dict("records"):
        rows[_name(row)]["worst_source"] = plain(row["source"])
    for row in tables.tuned.to_dict("records") if tables.tuned is not None else []:
        for name, of_grid in rows.items():
            if name.split(".")[1] == row["defence"]:
                of_grid.update({column: plain(row[column]) for column in TUNED})
    return rows


def _name(row: Row) -> str:
    return f"{row['partition']}.{row['defence']}"


def _of_literature(row: Row) -> dict[str, Any]:
    named = {"worst_attack" if name == "attack" else name: plain(row[name]) for name in (*CLEAN, *ATTACKED)}
    return named if not isinstance(row["verdict"], str) else {**named, "verdict": row["verdict"]}


def metrics(rows: Rows) -> Rows:
    """Return the few numbers of each row of :func:`grid_rows` that DVC's table of metrics has room for."""
    return {name: {key: row[key] for key in METRICS if key in row} for name, row in rows.items()}


def summary(rows: Rows, tables: Tables) -> dict[str, Any]:
    """Return ``grid``, ``pairs`` and, where something was searched, ``search``.

    ``grid`` holds the rows of :func:`grid_rows` by partition and defence, ``pairs`` the tests of defence against
    defence by partition and pair, ``search`` what was found by study and defence.
    """
    nested: dict[str, Any] = {"grid": {}}
    for name, row in rows.items():
        partition, defence = name.split(".")
        nested["grid"].setdefault(partition, {})[defence] = row
    for row in tables.pairs.to_dict("records"):
        family = nested.setdefault("pairs", {}).setdefault(f"{row['partition']} {row['attacks']}", {})
        family[f"{row['defence']} - {row['other']}"] = _told(row, ("seeds", *PAIR))
    for row in tables.search.at_threat.to_dict("records") if tables.search else []:
        names = [str(name) for name in row if name not in CELL]
        nested.setdefault("search", {}).setdefault(row["study"], {})[row["defence"]] = _told(row, names)
    return nested


PAIR = ("difference", "difference_half_width", "p_adjusted", "apart")


def _told(row: Row, names: Sequence[str]) -> dict[str, Any]:
    return {name: plain(row[name]) for name in names}


def plain(value: Any) -> Any:
    """Return a number with four significant digits, None for one that is not finite, anything else as it is."""
    if not isinstance(value, float):
        return None if value is pd.NA else value
    return float(f"{value:.4g}") if math.isfinite(value) else None
