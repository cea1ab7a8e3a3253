"""Everything the report tells, read and computed from the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.report import analysis, heterogeneity
from pipeline.report.analysis import Tables
from pipeline.report.published import beside, read_published
from pipeline.report.search_results import StudyResult, read_study
from pipeline.report.search_tables import search_tables
from pipeline.runs.execution import device
from pipeline.runs.params import Params
from pipeline.runs.store import read_row


@dataclass(frozen=True)
class Findings:
    """All numbers in the report.

    Attributes:
        tables: Of the grid and the searches.
        studies: Of the search.
        partitions: Of :func:`pipeline.report.heterogeneity.partitions_table`.
        overrun: Of :func:`pipeline.report.analysis.overrun`; None where all workers take part in every round.
        published: Of :func:`pipeline.report.published.beside`; None where params.yaml names no published numbers.
    """

    tables: Tables
    studies: Sequence[StudyResult]
    partitions: pd.DataFrame
    overrun: float | None
    published: pd.DataFrame | None


def find(root: Path, params: Params, data: Dataset) -> Findings:
    """Read the results of the grid and the searches, and compute every table.

    Raises:
        UserError: A result or the file of published numbers is missing or broken, or belongs to other parameters.
    """
    path, confidence = params.analysis.published, params.analysis.confidence
    theirs = read_published(root / path) if path else None
    records = [record for attack in params.grid.attacks for record in read_row(root, params, attack)]
    studies = [read_study(root, params, name) for name in params.search.studies]
    search = search_tables(studies, params.search.defences, params.threat.byzantine, confidence) if studies else None
    tables = analysis.tabulate(records, search, confidence)
    partitions = heterogeneity.partitions_table(params, data, device(params.execution.device))
    overrun = None if params.threat.sampled is None else analysis.overrun(records, params.threat.tolerated)
    return Findings(tables, studies, partitions, overrun, None if theirs is None else beside(theirs, tables.compared))
