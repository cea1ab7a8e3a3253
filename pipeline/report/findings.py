"""Everything the report tells, read and computed from the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.data.dataset import Dataset
from pipeline.report import analysis, heterogeneity
from pipeline.report.published import beside, our_runs, read_published
from pipeline.report.search_results import StudyResult, read_study
from pipeline.report.tables import Results, Tables, tabulate
from pipeline.report.tuning import read_tuning
from pipeline.runs.execution import device
from pipeline.runs.params import Params
from pipeline.runs.references import References, read_references
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
        test_samples: How many images the test accuracies are taken over.
    """

    tables: Tables
    studies: Sequence[StudyResult]
    partitions: pd.DataFrame
    overrun: float | None
    published: pd.DataFrame | None
    test_samples: int


def find(root: Path, params: Params, data: Dataset) -> Findings:
    """Read the results of the grid and the searches, and compute every table.

    Raises:
        UserError: A result or the file of published numbers is missing or broken, or belongs to other parameters.
    """
    path = params.analysis.published
    theirs = read_published(root / path) if path else None
    return computed(read(root, params), params, data, theirs)


def read(root: Path, params: Params) -> Results:
    """Return all results.

    Raises:
        UserError: A result is missing or broken, or belongs to other parameters.
    """
    records = [record for attack in params.grid.attacks for record in read_row(root, params, attack)]
    references = read_references(root, params) if (root / "results" / "references").exists() else References([], [])
    studies = [read_study(root, params, name) for name in params.search.studies]
    return Results(records, *references, studies, read_tuning(root, params.tuning.defences))


def computed(results: Results, params: Params, data: Dataset, published: pd.DataFrame | None) -> Findings:
    """Compute every table.

    Args:
        results: What was trained and searched.
        params: Of the project.
        data: Of the project.
        published: Of :func:`pipeline.report.published.read_published`.
    """
    partitions = heterogeneity.partitions_table(params, data, device(params.execution.device))
    tables = tabulate(results, partitions, params)
    ours = None if published is None else beside(published, our_runs(results.records))
    overrun = None if params.threat.sampled is None else analysis.overrun(results.records, params.threat.tolerated)
    return Findings(tables, results.studies, partitions, overrun, ours, len(data.test.labels))
