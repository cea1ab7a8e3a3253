"""The stage ``track``: make MLflow hold exactly the results of the grid, from the result files alone."""

from pathlib import Path

from pipeline import dataset, search_export, store
from pipeline.files import file_hash, write_json
from pipeline.params import Params
from pipeline.paths import DATASET
from pipeline.plan import grid_row
from pipeline.search_results import read_study
from pipeline.tracking import Tracker
from pipeline.tracking_search import study_runs


def track(root: Path, params: Params) -> None:
    """Publish every row, every search and the analysis; a run that is there already is kept.

    ``tracking/imported.json`` lists what was published, by the keys of the cells.
    """
    dataset.load(root / DATASET)
    tracker = Tracker(root, params, file_hash(root / DATASET))
    imported: dict[str, list[str]] = {}
    for attack in params.grid.attacks:
        records = store.read_row(root, grid_row(params, attack))
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
