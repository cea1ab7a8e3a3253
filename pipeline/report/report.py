"""The stage ``analysis``: reads the results of the grid and the searches, and writes tables, figures and the report."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.files import write_json, write_text
from pipeline.core.paths import CACHE, DATASET
from pipeline.data import dataset
from pipeline.data.dataset import Dataset
from pipeline.report import analysis, figures, heterogeneity, search_export
from pipeline.report.analysis import Tables
from pipeline.report.figures import LineStyle, Setting
from pipeline.report.partition_figures import READ_LABELS, label_map
from pipeline.report.published import beside, read_published
from pipeline.report.report_text import Findings, Sections, report
from pipeline.report.search_report import READ_OPTUNA, Frame
from pipeline.report.search_report import sections as search_sections
from pipeline.report.search_results import read_study
from pipeline.report.search_tables import search_files, search_tables
from pipeline.report.wording import Section
from pipeline.runs.execution import device
from pipeline.runs.params import Params
from pipeline.runs.plan import grid_row
from pipeline.runs.store import read_row


def analyse(root: Path, params: Params) -> None:
    """Write ``results/summary.json``, ``results/metrics/`` and ``reports/`` from the results that params.yaml states.

    Raises:
        UserError: The data, a result or the published numbers are missing or broken, or a result belongs to other
            parameters.
    """
    data = dataset.load(root / DATASET)
    findings = find(root, params, data)
    rows = analysis.summary_rows(findings.tables, params.search.partition)
    write_json(root / "results" / "summary.json", analysis.summary(rows, findings.tables.search))
    with _whole_folder(root, root / "results" / "metrics") as folder:
        for name, row in rows.items():
            write_json(folder / f"{name}.json", row)
    with _whole_folder(root, root / "reports") as folder:
        _write_tables(folder, findings)
        sections = draw(params, data, findings, folder / "figures")
        for name, figure in [named for section in sections.all() for named in section.figures.items()]:
            figures.save(figure, folder / "figures" / f"{name}.png")
        write_text(folder / "report.md", report(params, findings, sections))


def find(root: Path, params: Params, data: Dataset) -> Findings:
    """Return everything that the report tells, from the results of the grid and the searches.

    Raises:
        UserError: A result or the file of published numbers is missing or broken, or belongs to other parameters.
    """
    path, confidence = params.analysis.published, params.analysis.confidence
    theirs = read_published(root / path) if path else None
    records = [record for attack in params.grid.attacks for record in read_row(root, grid_row(params, attack))]
    studies = [read_study(root, params, name) for name in params.search.studies]
    search = search_tables(studies, params.search.defences, params.threat.byzantine, confidence) if studies else None
    tables = analysis.tabulate(records, search, confidence)
    partitions = heterogeneity.partitions_table(params, data, device(params.execution.device))
    return Findings(tables, studies, partitions, None if theirs is None else beside(theirs, tables.compared))


@contextmanager
def _whole_folder(root: Path, target: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of ``target`` when the block ends without an error."""
    temporary = root / CACHE / f"writing-{uuid.uuid4().hex[:8]}"
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_tables(folder: Path, findings: Findings) -> None:
    tables = findings.tables
    named = {"cells": tables.cells, "comparison": tables.compared, "curves": tables.measured}
    named |= {"partitions": findings.partitions}
    named |= {} if findings.published is None else {"published": findings.published}
    named |= search_files(tables.search) if tables.search else {}
    named |= {f"plots/{name}": wide for name, wide in analysis.wide_curves(tables.measured).items()}
    for name, table in named.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def draw_labels(params: Params, data: Dataset) -> Section:
    """Draw who holds which classes, a figure a partition of the grid."""
    counts, seed = heterogeneity.label_counts(params, data), params.grid.seeds[0]
    maps = {
        f"labels.{name}": label_map(held.numpy(), params.threat.honest, name, seed) for name, held in counts.items()
    }
    return Section("How the partitions differ", READ_LABELS, maps)


def draw(params: Params, data: Dataset, findings: Findings, folder: Path) -> Sections:
    """Draw every figure of the report; Optuna's own are written to ``folder``."""
    setting = Setting(1 / params.data.source.format.classes, params.analysis.confidence, params.training.steps)
    styles, search = figures.line_styles(params.defences), findings.tables.search
    frame = Frame(params.search.partition, styles, setting)
    return Sections(
        draw_labels(params, data),
        _draw_grid(params, findings.tables, styles, setting),
        [*search_sections(search, findings.studies, frame), _draw_by_optuna(findings, folder)] if search else [],
    )


def _draw_by_optuna(findings: Findings, folder: Path) -> Section:
    paths = [path for study in findings.studies for path in search_export.draw(folder / "search", study)]
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    return Section("How the search went", READ_OPTUNA, {}, drawn=names)


def _draw_grid(params: Params, tables: Tables, styles: dict[str, LineStyle], setting: Setting) -> list[Section]:
    partitions = params.grid.partitions
    heatmaps = {f"heatmap.{name}": figures.heatmap(tables.compared, name, setting) for name in partitions}
    curves = {f"curves.{name}": figures.learning_curves(tables.measured, name, styles, setting) for name in partitions}
    return [
        Section("Test accuracy", figures.READ_HEATMAP, heatmaps),
        Section("Learning curves", figures.READ_CURVES, curves),
    ]
