"""The numbers that ``templates/search.md.j2`` tells of the searches."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.report.search_results import StudyResult
from pipeline.report.search_tables import FOUND, LITERATURE, SearchTables

Row = dict[Any, Any]


def search_context(search: SearchTables, studies: Sequence[StudyResult]) -> dict[str, Any]:
    """Return the variables of the template; what there is nothing of is an empty list."""
    return {
        "worst": worst(search),
        "compared": compared(search, studies),
        "comparisons": int(search.compared["p"].notna().sum()),
        "furthest": furthest(search),
        "front": search.front.dropna(subset="confirmed_degradation").to_dict("records"),
        "breakdown": [breakdown(curves) for _, curves in search.breakdown.groupby("study", sort=False)],
        "transfer": [transferred(rows) for _, rows in search.transfer.groupby(["study", "from_defence"], sort=False)],
        "trial_runs": runs(search.trials),
        "pruned": 0
        if search.pruned.empty
        else len(search.pruned.drop_duplicates(["study", "defence", "byzantine", "trial"])),
        "confirmation_runs": runs(search.confirmed),
    }


def worst(search: SearchTables) -> list[Row]:
    """Return, for each defence, the costliest attack found and the costliest default of the literature (or None)."""
    told = {row["defence"]: row for row in search.worst[LITERATURE].to_dict("records")}
    return [
        {"defence": row["defence"], FOUND: row, LITERATURE: told.get(row["defence"])}
        for row in search.worst[FOUND].to_dict("records")
    ]


def compared(search: SearchTables, studies: Sequence[StudyResult]) -> list[Row]:
    """Return the rows of ``at_threat``, with a verdict, and whether a found parameter is at the limit of its range."""
    spaces = {study.name: study.description["spaces"] for study in studies}
    return [
        {
            **row,
            "verdict": verdict(row),
            "at_limit": at_limit(row["found_parameters"], spaces[row["study"]][row["found_attack"]]),
        }
        for row in search.at_threat.to_dict("records")
    ]


def verdict(row: Mapping[Any, Any]) -> str:
    """Return in words what the test says about a row of ``literature_and_found``."""
    if not math.isfinite(row["p_adjusted"]):
        return "not tested"
    if row["literature_attack"] == row["found_attack"] and row["literature_parameters"] == row["found_parameters"]:
        return "the default itself"
    return "significant" if row["significant"] else "not significant"


def at_limit(parameters: str, space: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a parameter is within 1 % of an end of its range; zero is not counted, nothing lies beyond."""
    ends = [(name, entry[end]) for name, entry in space.items() for end in ("low", "high") if entry.get(end)]
    values = json.loads(parameters)
    return any(math.isclose(values[name], end, rel_tol=0.01) for name, end in ends)


def furthest(search: SearchTables) -> Row | None:
    """Return the row whose default is furthest from the worst and, of several studies, the one furthest on average."""
    known = search.at_threat.dropna(subset="difference")
    if known.empty:
        return None
    row = max(known.to_dict("records"), key=lambda row: float(row["difference"]))
    means = known.groupby("study", sort=False)["difference"].mean()
    of_study = {"name": means.idxmax(), "difference": means.max()} if len(means) > 1 else None
    return {**row, "verdict": verdict(row), "of_study": of_study}


def breakdown(curves: pd.DataFrame) -> dict[str, Any]:
    """Return what was found at each f for each defence of one study (None where it does not tolerate f)."""
    found = curves[curves["candidate"] == FOUND]
    cells = {(row["defence"], row["byzantine"]): row for row in found.to_dict("records")}
    every = sorted(found["byzantine"].unique())
    defences = {defence: [cells.get((defence, f)) for f in every] for defence in found["defence"].unique()}
    return {"study": found["study"].iloc[0], "byzantine": every, "defences": defences}


def transferred(table: pd.DataFrame) -> Row:
    """Return what a strength costs its own defence, what it costs the others on average, and what they are spared.

    Args:
        table: The rows of one study and ``from_defence``.
    """
    from_defence = table["from_defence"].iloc[0]
    own, others = table[table["to_defence"] == from_defence], table[table["to_defence"] != from_defence]
    return {
        "study": table["study"].iloc[0],
        "from_defence": from_defence,
        "own": own["degradation"].mean(),
        "others": others["degradation"].mean(),
        "lost": others["lost"].mean(),
    }


def runs(table: pd.DataFrame) -> dict[str, int]:
    """Return how many runs there were, and how many of them diverged."""
    return {"all": int(table["seeds"].sum()), "diverged": int(table["diverged"].sum())}
