"""Defence against defence, each under its own worst attack: which of them can be told apart."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from pipeline.report.analysis import GROUP, MEASURED, worst_attacks
from pipeline.report.intervals import mean_of_all, t_half_width
from pipeline.report.paired import holm, p_different
from pipeline.report.search_results import StudyResult
from pipeline.report.search_tables import CELL, FOUND, LITERATURE, SearchTables, worst_of_each

FAMILY = ["partition", "attacks"]
NAMED = [*FAMILY, "defence", "other"]
NUMBERS = ["seeds", "difference", "difference_half_width", "p", "p_adjusted"]


def pairs_table(worst: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return one row per pair of defences on each partition: the two-sided sign-flip test of their difference.

    ``difference`` is the accuracy of ``defence`` minus that of ``other``, over the seeds that both have. ``p_adjusted``
    is p after Holm's adjustment over all pairs of the partition, and ``apart`` says whether it is at most
    1 - ``confidence``. All pairs count, and not only those with the best, because which one is best is read off the
    same numbers.

    Args:
        worst: One row per run under the worst attack of its defence: ``FAMILY``, ``defence``, ``seed``, ``accuracy``.
        confidence: Of the intervals and tests.
    """
    families = [_family(runs, confidence) for _, runs in worst.groupby(FAMILY, sort=False)]
    found = [table for table in families if not table.empty]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*NAMED, *NUMBERS, "apart"])


def _family(runs: pd.DataFrame, confidence: float) -> pd.DataFrame:
    by_seed = runs.pivot(index="seed", columns="defence", values="accuracy")
    names = runs[FAMILY].iloc[0].to_dict()
    rows = [{**names, **_pair(by_seed, *pair, confidence)} for pair in combinations(runs["defence"].unique(), 2)]
    table = pd.DataFrame(rows, columns=[*NAMED, *NUMBERS])
    table["p_adjusted"] = holm(table["p"])
    return table.assign(apart=table["p_adjusted"] <= 1 - confidence)


def _pair(by_seed: pd.DataFrame, defence: str, other: str, confidence: float) -> dict[str, Any]:
    difference = (by_seed[defence] - by_seed[other]).dropna()
    return {
        "defence": defence,
        "other": other,
        "seeds": len(difference),
        "difference": mean_of_all(difference),
        "difference_half_width": t_half_width(difference, confidence),
        "p": p_different(difference),
    }


def worst_of_literature(cells: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the grid under the worst attack of each defence and partition, for :func:`pairs_table`."""
    runs = worst_attacks(compared)[GROUP].merge(cells.rename(columns=MEASURED), on=GROUP)
    return runs.assign(attacks=LITERATURE)[[*FAMILY, "defence", "seed", "accuracy"]]


def worst_of_both(search: SearchTables, studies: Sequence[StudyResult], partition: str) -> pd.DataFrame:
    """Return the runs on fresh seeds under what hurts each defence most there, the literature's default or a find."""
    confirmed = pd.concat([study.confirmation.assign(study=study.name) for study in studies])
    runs = pd.concat([_runs(row, confirmed) for row in worst_of_each(search.worst).to_dict("records")])
    return runs.assign(partition=partition, attacks=FOUND)[[*FAMILY, "defence", "seed", "accuracy"]]


def _runs(row: dict[Any, Any], confirmed: pd.DataFrame) -> pd.DataFrame:
    names = [name for name in (*CELL, "candidate") if name != "mode"]
    same = (confirmed[names] == pd.Series({name: row[name] for name in names})).all(axis=1)
    return confirmed[same].rename(columns={"attacked_accuracy": "accuracy"})
