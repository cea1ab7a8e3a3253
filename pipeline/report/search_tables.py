"""From the studies of the search to tables: pure functions, with t-intervals and paired sign-flip tests over seeds.

Degradations are fractions: the clean accuracy of the same defence and seed minus the attacked one. Candidates of one
defence share their seeds, so every difference is paired. ``byzantine`` is b and in mode breakdown also the tolerated f.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pipeline.report.intervals import mean_of_all, over_seeds, t_half_width
from pipeline.report.outcomes import OUTCOME, against_alone, outcomes
from pipeline.report.paired import holm, p_greater
from pipeline.report.ranges import ranges_table
from pipeline.report.search_results import StudyResult
from pipeline.runs.params import Analysis
from pipeline.search.pareto import non_dominated

CELL = ["study", "mode", "defence", "byzantine"]
WHAT = ["attack", "parameters", "strength"]
EFFECT = ["degradation", "degradation_half_width"]
FLAGGED = ["flagged", "flagged_half_width"]
LITERATURE, FOUND = "literature", "found"


@dataclass(frozen=True)
class SearchTables:
    """What the searches found.

    Attributes:
        trials: Of :func:`trials_table`.
        confirmed: Of :func:`confirmation_table`.
        compared: Of :func:`literature_and_found`.
        at_threat: The rows of ``compared`` with the threat's number of attackers, in the modes strength and worst.
        worst: For the candidates ``literature`` and ``found``, what hurts each defence most: :func:`worst_confirmed`.
        front: Of :func:`pareto_front`; empty where no study is in mode stealth.
        breakdown: Of :func:`breakdown_curves`; empty where no study is in mode breakdown.
        transfer: Of :func:`transfer_table`; empty where no strength was transferred.
        ranges: Of :func:`pipeline.report.ranges.ranges_table`.
        pruned: The trials that ended early, one row per (study, defence, byzantine, trial, seed); empty without pruner.
    """

    trials: pd.DataFrame
    confirmed: pd.DataFrame
    compared: pd.DataFrame
    at_threat: pd.DataFrame
    worst: dict[str, pd.DataFrame]
    front: pd.DataFrame
    breakdown: pd.DataFrame
    transfer: pd.DataFrame
    ranges: pd.DataFrame
    pruned: pd.DataFrame


NO_RUNS = pd.DataFrame({"partition": [], "seed": [], "accuracy": []})


def search_tables(
    studies: Sequence[StudyResult],
    defences: Sequence[str],
    byzantine: int,
    settings: Analysis,
    alone: pd.DataFrame = NO_RUNS,
) -> SearchTables:
    """Return all tables of at least one study; intervals at ``confidence``, tests at level 1 - ``confidence``.

    Args:
        studies: All studies: the test is adjusted over all of them.
        defences: The order of the rows.
        byzantine: b of the threat.
        settings: Of params.yaml.
        alone: Of :func:`pipeline.report.analysis.alone_runs`.
    """
    studies = [in_order(study, defences) for study in studies]
    confidence = settings.confidence
    trials, ranges = trials_table(studies, confidence), ranges_table(studies, confidence)
    confirmed = confirmation_table(studies, settings, alone)
    compared = literature_and_found(studies, confirmed, ranges, confidence)
    at_b = at_threat(confirmed, byzantine).merge(ranges[[*CELL, "range"]], how="left", on=CELL)
    return SearchTables(
        trials,
        confirmed,
        compared,
        at_threat(compared, byzantine).reset_index(drop=True),
        {candidate: worst_confirmed(at_b, candidate) for candidate in (LITERATURE, FOUND)},
        pareto_front(trials, confirmed),
        breakdown_curves(confirmed),
        transfer_table(studies, confidence),
        ranges,
        pd.concat([_named(study, study.pruned) for study in studies if study.pruned is not None] or [pd.DataFrame()]),
    )


def search_files(tables: SearchTables) -> dict[str, pd.DataFrame]:
    """Return the tables that are not empty, by the names of their files."""
    named = {
        "trials": tables.trials,
        "confirmation": tables.confirmed,
        "literature_and_found": tables.compared,
        "pareto": tables.front,
        "breakdown": tables.breakdown,
        "transfer": tables.transfer,
        "ranges": tables.ranges,
        "pruned": tables.pruned,
    }
    return {name: table for name, table in named.items() if not table.empty}


def in_order(study: StudyResult, defences: Sequence[str]) -> StudyResult:
    """Return ``study`` with the rows of its tables ordered by number of attackers, then by defence as given."""
    place = {defence: position for position, defence in enumerate(defences)}

    def ordered(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        keys = pd.DataFrame({name: table[name].map(place) if name != "byzantine" else table[name] for name in names})
        return table.loc[keys.sort_values(list(names), kind="stable").index]

    transfer = None if study.transfer is None else ordered(study.transfer, ["from_defence", "to_defence"])
    own = ["byzantine", "defence"]
    return replace(
        study, trials=ordered(study.trials, own), confirmation=ordered(study.confirmation, own), transfer=transfer
    )


def trials_table(studies: Sequence[StudyResult], confidence: float) -> pd.DataFrame:
    """Return one row per (study, defence, byzantine, trial), measured on validation data."""
    rows = pd.concat([_named(study, study.trials) for study in studies], ignore_index=True)
    return _over_seeds(rows, [*CELL, "trial", "origin", *WHAT], confidence)


def confirmation_table(studies: Sequence[StudyResult], settings: Analysis, alone: pd.DataFrame) -> pd.DataFrame:
    """Return one row per (study, defence, byzantine, candidate) with its ``OUTCOME`` on test data with fresh seeds."""
    rows = pd.concat([_named(study, study.confirmation) for study in studies], ignore_index=True)
    runs = rows.rename(columns={"attacked_accuracy": "accuracy"})
    runs["alone_degradation"] = against_alone(runs, alone)
    keys = [*CELL, "candidate", "trial", *WHAT]
    shared = _over_seeds(rows, keys, settings.confidence)[["clean", "clean_half_width", *FLAGGED]]
    return pd.concat([outcomes(runs, keys, settings)[[*keys, *OUTCOME]], shared], axis=1)


def _named(study: StudyResult, table: pd.DataFrame) -> pd.DataFrame:
    strength = [json.loads(parameters).get("strength", math.nan) for parameters in table["parameters"]]
    names = {"study": study.name, "mode": study.description["mode"], "partition": study.description["partition"]}
    return table.assign(**names, strength=strength)


def _over_seeds(rows: pd.DataFrame, keys: list[str], confidence: float) -> pd.DataFrame:
    measured: pd.DataFrame = rows.groupby(keys, sort=False, dropna=False).agg(
        seeds=("seed", "count"),
        diverged=("diverged", "sum"),
        **over_seeds("clean", "clean_accuracy", confidence),
        **over_seeds("accuracy", "attacked_accuracy", confidence),
        **over_seeds("degradation", "degradation", confidence),
        **over_seeds("flagged", "flagged", confidence),
    )
    return measured.reset_index()


def literature_and_found(
    studies: Sequence[StudyResult], confirmed: pd.DataFrame, ranges: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """Return one row per (study, defence, byzantine > 0) for which an attack was found.

    ``difference`` is the degradation of the found attack minus that of the literature's, paired by seed, with its
    t-interval. ``p`` is that of the one-sided sign-flip test, ``p_adjusted`` the same after Holm's adjustment over all
    rows, and ``significant`` says whether the latter is at most 1 - ``confidence``. Where the literature gives no
    strength, its columns and the difference are NaN and ``significant`` is False. ``found_range`` is that of
    ``ranges``, NaN where several parameters were searched.
    """
    both = _side(confirmed, LITERATURE).merge(_side(confirmed, FOUND), how="right", on=CELL)
    differences = [row for study in studies for row in _differences(study, confidence)]
    paired = pd.DataFrame(differences, columns=[*CELL, "difference", "difference_half_width", "p"])
    known = ranges[[*CELL, "range"]].rename(columns={"range": "found_range"})
    table = both.merge(known, how="left", on=CELL).merge(paired, on=CELL)
    table["p_adjusted"] = holm(table["p"])
    table["significant"] = table["p_adjusted"] <= 1 - confidence
    return table


def _side(confirmed: pd.DataFrame, candidate: str) -> pd.DataFrame:
    rows = confirmed[(confirmed["candidate"] == candidate) & (confirmed["byzantine"] > 0)]
    columns = [*WHAT, *EFFECT, "accuracy", "accuracy_half_width"]
    return rows[[*CELL, *columns]].rename(columns={column: f"{candidate}_{column}" for column in columns})


def _differences(study: StudyResult, confidence: float) -> Iterator[dict[str, Any]]:
    for (defence, byzantine), rows in study.confirmation.groupby(["defence", "byzantine"], sort=False):
        by_seed = rows.pivot(index="seed", columns="candidate", values="degradation")
        if FOUND in by_seed:
            difference = by_seed[FOUND] - by_seed.get(LITERATURE, math.nan)
            yield {
                "study": study.name,
                "mode": study.description["mode"],
                "defence": defence,
                "byzantine": byzantine,
                "difference": mean_of_all(difference),
                "difference_half_width": t_half_width(difference, confidence),
                "p": p_greater(difference),
            }


def at_threat(table: pd.DataFrame, byzantine: int) -> pd.DataFrame:
    """Return the rows that can be compared across studies: the threat's b, and damage as the only objective."""
    return table[(table["byzantine"] == byzantine) & table["mode"].isin(["strength", "worst"])]


def worst_confirmed(confirmed: pd.DataFrame, candidate: str) -> pd.DataFrame:
    """Return, for each defence, the row of the study whose ``candidate`` degrades it most on test data."""
    rows = confirmed[confirmed["candidate"] == candidate]
    return rows.loc[rows.groupby("defence", sort=False)["degradation"].idxmax()].reset_index(drop=True)


def worst_of_each(worst: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return, for each defence, the row of ``SearchTables.worst`` with the lowest accuracy, of whichever candidate."""
    both = pd.concat([worst[FOUND], worst[LITERATURE]], ignore_index=True)
    return both.loc[both.groupby("defence", sort=False)["accuracy"].idxmin()].reset_index(drop=True)


def pareto_front(trials: pd.DataFrame, confirmed: pd.DataFrame) -> pd.DataFrame:
    """Return the trials of mode stealth that no other trial of their defence beats, in order of the share flagged.

    The values on validation data are followed by those on test data with fresh seeds (``confirmed_...``), NaN for a
    trial that was not rerun.
    """
    stealth = trials[trials["mode"] == "stealth"]
    fronts = [rows[non_dominated(rows)].sort_values("flagged") for _, rows in stealth.groupby(CELL, sort=False)]
    front = pd.concat([stealth.iloc[:0], *fronts])[[*CELL, "trial", "origin", *WHAT, "flagged", *EFFECT]]
    rerun = confirmed[confirmed["candidate"].str.startswith("front_")]
    measured = ["flagged", "flagged_half_width", *EFFECT]
    rerun = rerun[[*CELL, "trial", "candidate", *measured]]
    rerun = rerun.rename(columns={column: f"confirmed_{column}" for column in measured})
    return front.merge(rerun, how="left", on=[*CELL, "trial"])


def breakdown_curves(confirmed: pd.DataFrame) -> pd.DataFrame:
    """Return the degradation against f under the literature's and the found attack, for mode breakdown."""
    rows = confirmed[(confirmed["mode"] == "breakdown") & confirmed["candidate"].isin([LITERATURE, FOUND])]
    return rows[[*CELL, "candidate", *WHAT, "seeds", "diverged", "accuracy", *EFFECT]].reset_index(drop=True)


def transfer_table(studies: Sequence[StudyResult], confidence: float) -> pd.DataFrame:
    """Return one row per (study, from_defence, to_defence): what a strength found for one defence does to another.

    ``own`` is the degradation of ``to_defence`` under the strength found for itself, and ``lost`` = own - degradation,
    paired by seed, with its t-interval. On the diagonal ``lost`` is 0.
    """
    columns = ["study", "from_defence", "to_defence", "seeds", *EFFECT, "own", "lost", "lost_half_width"]
    moved = [(study.name, study.transfer) for study in studies if study.transfer is not None]
    return pd.DataFrame([row for name, table in moved for row in _moved(name, table, confidence)], columns=columns)


def _moved(name: str, transfer: pd.DataFrame, confidence: float) -> Iterator[dict[str, Any]]:
    pairs = transfer.groupby(["from_defence", "to_defence"], sort=False)
    effects = {pair: rows.set_index("seed")["degradation"] for pair, rows in pairs}
    for (from_defence, to_defence), effect in effects.items():
        lost = effects[to_defence, to_defence] - effect
        yield {
            "study": name,
            "from_defence": from_defence,
            "to_defence": to_defence,
            "seeds": len(effect),
            "degradation": mean_of_all(effect),
            "degradation_half_width": t_half_width(effect, confidence),
            "own": mean_of_all(effects[to_defence, to_defence]),
            "lost": mean_of_all(lost),
            "lost_half_width": t_half_width(lost, confidence),
        }
