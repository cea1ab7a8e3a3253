"""Which defence is best, and whether that can be said: the opening of the report, and the pairs as a matrix."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from pipeline.report.paired import least_p
from pipeline.report.pairs import FAMILY
from pipeline.report.search_tables import FOUND, LITERATURE, worst_of_each
from pipeline.report.tables import Tables

Row = dict[Any, Any]


def standings(tables: Tables, partition: str, confidence: float) -> list[Row]:
    """Return, for each partition and kind of attack, the defence with the highest accuracy, and who comes close.

    The keys are ``partition``, ``attacks`` (``literature`` or ``found``), ``best`` (the row of its worst attack),
    ``rivals`` (the defences that cannot be told from it), ``others`` (how many there are), ``p`` (the largest adjusted
    one of its comparisons), ``too_few`` (whether no p-value of so many seeds could be small enough) and ``lower`` (the
    rows of the defences that an attack of the grid hurts more than all that was searched, of ``found`` alone).

    Args:
        tables: Of the report.
        partition: The searched one.
        confidence: Of the tests.
    """
    families = {names: rows for names, rows in tables.pairs.groupby(FAMILY, sort=False)}
    return [
        {
            **dict(zip(FAMILY, names, strict=True)),
            **_standing(worst, families.get(names), confidence),
            "lower": _hurt_more(tables.heads, worst, partition) if names[1] == FOUND else [],
        }
        for names, worst in _families(tables, partition)
    ]


def _hurt_more(heads: pd.DataFrame, searched: pd.DataFrame, partition: str) -> list[Row]:
    """Return the rows of ``heads`` with a lower accuracy than that of the same defence in ``searched``."""
    reached = dict(zip(searched["defence"], searched["accuracy"], strict=True))
    rows = heads[heads["partition"] == partition].to_dict("records")
    return [row for row in rows if row["accuracy"] < reached.get(row["defence"], 0.0)]


def _families(tables: Tables, partition: str) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """Yield the rows of every defence's worst attack, by ``FAMILY``."""
    attacked = tables.heads.dropna(subset="accuracy")
    for name, rows in attacked.groupby("partition", sort=False):
        yield (str(name), LITERATURE), rows
    if tables.search is not None and not tables.search.worst[FOUND].empty:
        yield (partition, FOUND), worst_of_each(tables.search.worst).assign(unconverged=False)


def _standing(worst: pd.DataFrame, pairs: pd.DataFrame | None, confidence: float) -> Row:
    best = max(worst.to_dict("records"), key=lambda row: float(row["accuracy"]))
    if pairs is None:
        return {"best": best, "rivals": [], "others": 0, "p": None, "too_few": False}
    own = pairs[(pairs["defence"] == best["defence"]) | (pairs["other"] == best["defence"])]
    close = own[~own["apart"].astype(bool)]
    rivals = [name for name in (*close["defence"], *close["other"]) if name != best["defence"]]
    too_few = bool(2 * least_p(int(own["seeds"].max())) > 1 - confidence)
    return {"best": best, "rivals": rivals, "others": len(own), "p": own["p_adjusted"].max(), "too_few": too_few}


def matrices(pairs: pd.DataFrame) -> list[Row]:
    """Return the pairs of each partition as a matrix.

    ``defences`` are in order of their mean accuracy, and ``cells[defence][other]`` holds ``difference`` and ``apart``
    for every other that comes later.
    """
    return [_matrix(names, rows) for names, rows in pairs.groupby(FAMILY, sort=False)]


def _matrix(names: Any, rows: pd.DataFrame) -> Row:
    mirrored = rows.rename(columns={"defence": "other", "other": "defence"}).assign(difference=-rows["difference"])
    both = pd.concat([rows, mirrored])
    lead = both.groupby("defence", sort=False)["difference"].sum()
    defences = [str(name) for name in lead.sort_values(ascending=False, kind="stable").index]
    cells: dict[str, dict[str, Row]] = {defence: {} for defence in defences}
    for row in both.to_dict("records"):
        if defences.index(row["defence"]) < defences.index(row["other"]):
            cells[row["defence"]][row["other"]] = row
    return {**dict(zip(FAMILY, names, strict=True)), "defences": defences, "cells": cells, "pairs": len(rows)}
