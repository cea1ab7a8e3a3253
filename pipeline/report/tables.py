"""Every table of the report but those of the partitions and of published numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.report import analysis, theory
from pipeline.report.pairs import pairs_table, worst_of_both, worst_of_literature
from pipeline.report.prolonged import prolonged_table
from pipeline.report.search_results import StudyResult
from pipeline.report.search_tables import FOUND, SearchTables, search_files, search_tables
from pipeline.report.tuning import Tuning, tuned_table, tuning_trials
from pipeline.report.worst_case import with_verdicts, worst_cases
from pipeline.runs.params import Params
from pipeline.runs.store import Record


@dataclass(frozen=True)
class Results:
    """What was computed; all but ``records`` may be missing.

    Attributes:
        records: Of the grid; groups may have different numbers of seeds.
        alone: Of training with the honest workers alone.
        prolonged: Of the worst rows, trained on.
        studies: Of the search.
        tuning: Of the defences.
    """

    records: Sequence[Record]
    alone: Sequence[Record] = ()
    prolonged: Sequence[Record] = ()
    studies: Sequence[StudyResult] = ()
    tuning: Tuning | None = None


@dataclass(frozen=True)
class Tables:
    """All tables.

    Attributes:
        cells: Of :func:`pipeline.report.analysis.cells_table`.
        compared: Of :func:`pipeline.report.analysis.comparison`, with the verdicts of longer training.
        heads: Of :func:`pipeline.report.analysis.headline`.
        measured: Of :func:`pipeline.report.analysis.curves`.
        worst: Of :func:`pipeline.report.worst_case.worst_cases`.
        pairs: Of :func:`pipeline.report.pairs.pairs_table`.
        theory: Of :func:`pipeline.report.theory.theory_table`.
        search: None where nothing is searched.
        prolonged: Of :func:`pipeline.report.prolonged.prolonged_table`; None where nothing was prolonged.
        tuning: Of :func:`pipeline.report.tuning.tuning_trials`; None where nothing was tuned.
        tuned: Of :func:`pipeline.report.tuning.tuned_table`; None where nothing was tuned.
    """

    cells: pd.DataFrame
    compared: pd.DataFrame
    heads: pd.DataFrame
    measured: pd.DataFrame
    worst: pd.DataFrame
    pairs: pd.DataFrame
    theory: pd.DataFrame
    search: SearchTables | None
    prolonged: pd.DataFrame | None
    tuning: pd.DataFrame | None
    tuned: pd.DataFrame | None


def tabulate(results: Results, partitions: pd.DataFrame, params: Params) -> Tables:
    """Return all tables.

    Args:
        results: What was computed.
        partitions: Of :func:`pipeline.report.heterogeneity.partitions_table`.
        params: Of the project.
    """
    settings, partition, search = params.analysis, params.search.partition, _search(results, params)
    cells = analysis.cells_table(results.records, results.alone)
    prolonged = prolonged_table(results.prolonged, cells, settings) if results.prolonged else None
    compared = with_verdicts(analysis.comparison(cells, settings), prolonged)
    heads = analysis.headline(compared)
    tuning = tuning_trials(results.tuning, settings.confidence) if results.tuning else None
    return Tables(
        cells=cells,
        compared=compared,
        heads=heads,
        measured=analysis.curves(results.records, settings.confidence),
        worst=worst_cases(heads, search, partition),
        pairs=_pairs(results, cells, compared, search, params),
        theory=theory.theory_table(results.records, results.alone, partitions, params),
        search=search,
        prolonged=prolonged,
        tuning=tuning,
        tuned=None if tuning is None else tuned_table(tuning),
    )


def _search(results: Results, params: Params) -> SearchTables | None:
    if not results.studies:
        return None
    alone = analysis.alone_runs(results.alone)
    return search_tables(results.studies, params.search.defences, params.threat.byzantine, params.analysis, alone)


def _pairs(
    results: Results, cells: pd.DataFrame, compared: pd.DataFrame, search: SearchTables | None, params: Params
) -> pd.DataFrame:
    worst = worst_of_literature(cells, compared)
    if search is not None and not search.worst[FOUND].empty:
        worst = pd.concat([worst, worst_of_both(search, results.studies, params.search.partition)])
    return pairs_table(worst, params.analysis.confidence)


def table_files(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return the tables that are there, by the names of their files."""
    named = {
        "cells": tables.cells,
        "comparison": tables.compared,
        "curves": tables.measured,
        "worst_cases": tables.worst,
        "pairs": tables.pairs,
        "theory": tables.theory,
        "prolonged": tables.prolonged,
        "tuning": tables.tuning,
        "tuned": tables.tuned,
        **(search_files(tables.search) if tables.search else {}),
    }
    return {name: table for name, table in named.items() if table is not None and not table.empty}
