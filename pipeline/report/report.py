"""The stage ``analysis``: reads the results of the grid and the searches, and writes tables, figures and the report."""

from pathlib import Path

from pipeline.core.files import refilling, write_json, write_text
from pipeline.core.paths import DATASET
from pipeline.data import dataset
from pipeline.data.dataset import Dataset
from pipeline.report import analysis, summary
from pipeline.report.figures.style import save
from pipeline.report.findings import Findings, find
from pipeline.report.page import page
from pipeline.report.pictures import draw
from pipeline.report.report_text import report
from pipeline.report.tables import table_files
from pipeline.report.written import seal
from pipeline.runs.params import Params


def analyse(root: Path, params: Params) -> None:
    """Write ``results/summary.json``, ``results/metrics/`` and ``reports/`` from the results of params.yaml.

    Raises:
        UserError: The data, a result or the published numbers are missing or broken, or a result belongs to other
            parameters.
    """
    data = dataset.load(root / DATASET)
    findings = find(root, params, data)
    rows = summary.grid_rows(findings.tables, params.search.partition)
    write_json(root / "results" / "summary.json", summary.summary(rows, findings.tables))
    with refilling(root / "results" / "metrics") as folder:
        for name, row in summary.metrics(rows).items():
            write_json(folder / f"{name}.json", row)
    with refilling(root / "reports") as folder:
        write(folder, params, data, findings)
        seal(root, folder)


def write(folder: Path, params: Params, data: Dataset, findings: Findings) -> None:
    """Write tables, figures, report.md and report.html into ``folder``."""
    _write_tables(folder, findings)
    pictures = draw(params, data, findings)
    for name, figure in [named for drawn in pictures.values() for named in drawn.items()]:
        save(figure, folder / "figures" / f"{name}.png")
    names = {kind: list(drawn) for kind, drawn in pictures.items()}
    text = report(params, findings, names)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", page(text, folder))


def _write_tables(folder: Path, findings: Findings) -> None:
    named = {**table_files(findings.tables), "partitions": findings.partitions}
    named |= {} if findings.published is None else {"published": findings.published}
    curves = analysis.wide_curves(findings.tables.measured)
    named |= {f"plots/{name}": wide for name, wide in curves.items()}
    for name, table in named.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
