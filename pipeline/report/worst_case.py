"""The worst case of each defence: the most damaging attack of the literature or of the search, whichever hurts more."""

from typing import Any

import pandas as pd

from pipeline.report.analysis import GROUP
from pipeline.report.outcomes import OUTCOME
from pipeline.report.search_tables import FOUND, LITERATURE, SearchTables

DESCRIBED = ["study", "attack", "parameters", "range"]
COLUMNS = [
    "partition",
    "defence",
    "clean",
    "clean_half_width",
    "source",
    *DESCRIBED,
    *OUTCOME,
    "unconverged",
    "verdict",
]


def worst_cases(heads: pd.DataFrame, search: SearchTables | None, partition: str) -> pd.DataFrame:
    """Return one row per (partition, defence): clean accuracy, and the ``OUTCOME`` of what hurts it most.

    ``source`` is ``literature``, the worst attack of the grid, on the grid's seeds, or ``found``, the worst that a
    study found, on its fresh seeds, if its mean accuracy is lower. Which of them is worse is read off the numbers that
    are then told, so they are a little too low. ``clean`` is that of the source, too. ``verdict`` is missing where the
    row was not prolonged, as what was found never is.

    Args:
        heads: Of :func:`pipeline.report.analysis.headline`.
        search: None where nothing was searched.
        partition: The searched one.
    """
    found = {} if search is None else {row["defence"]: row for row in search.worst[FOUND].to_dict("records")}
    rows = [
        _worse(row, found.get(row["defence"]) if row["partition"] == partition else None)
        for row in heads.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _worse(of_grid: dict[Any, Any], found: dict[Any, Any] | None) -> dict[Any, Any]:
    if found is None or found["accuracy"] >= of_grid["accuracy"]:
        return {**of_grid, "source": LITERATURE if isinstance(of_grid["attack"], str) else None}
    return {**found, "partition": of_grid["partition"], "source": FOUND, "unconverged": False}


def with_verdicts(compared: pd.DataFrame, prolonged: pd.DataFrame | None) -> pd.DataFrame:
    """Return ``compared`` with the ``verdict`` of the rows that were prolonged, and whether they are ``unconverged``.

    Args:
        compared: With attack, defence and partition.
        prolonged: Of :func:`pipeline.report.prolonged.prolonged_table`; None where nothing was prolonged.
    """
    if prolonged is None:
        return compared.assign(unconverged=False, verdict=None)
    both = compared.merge(prolonged[[*GROUP, "converged", "verdict"]], how="left", on=GROUP)
    return both.assign(unconverged=both["converged"].eq(False)).drop(columns="converged")
