"""The stage ``track``: make MLflow hold exactly the current results, from the result files alone."""

from pathlib import Path

from pipeline.core.files import file_hash, write_json
from pipeline.core.paths import DATASET
from pipeline.data import dataset
from pipeline.report import search_export
from pipeline.report.search_results import read_study
from pipeline.runs import store
from pipeline.runs.params import Params
from pipeline.tracking.searches import study_runs
from pipeline.tracking.tracker import Tracker


def track(root: Path, params: Params) -> None:
    """Publish every row, every search and the analysis; a run that is there already is kept.

    ``tracking/imported.json`` lists what was published, by the keys of the cells.
    """
    dataset.load(root / DATASET)
    tracker = Tracker(root, params, file_hash(root / DATASET))
    imported: dict[str, list[str]] = {}
    for attack in params.grid.attacks:
        records = store.read_row(root, params, attack)
        tracker.publish_row(attack, records)
        imported[f"train {attack}"] = [record.key for record in records]
    figures = root / "reports" / "figures"
    studies = [read_study(root, params, name) for name in params.search.studies]
    for study in studies:
        name = study.name
        pictures = sorted(figures.rglob(f"*.{name}.png")) + sorted(figures.rglob(f"*.{name}.*.png"))
        tracker.publish_search(name, study_runs(study, root / "results" / "search" / name, pictures))
    search_export.export(root / "tracking" / "optuna.db", studies)
    tracker.retire_rows(params.grid.attacks, params.search.studies)
    tracker.publish_analysis(root / "results" / "summary.json", root / "reports")
    report = [root / "results" / "summary.json", root / "reports" / "report.md", root / "reports" / "cells.csv"]
    tracker.publish_parent([*report, *sorted(figures.rglob("*.png")), root / "params.yaml", root / "dvc.lock"])
    write_json(root / "tracking" / "imported.json", imported)
