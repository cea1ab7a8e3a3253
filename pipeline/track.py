"""The stage ``track``: make MLflow hold exactly the results of the grid, from the result files alone."""

from pathlib import Path

from pipeline import dataset, store
from pipeline.files import file_hash, write_json
from pipeline.params import Params
from pipeline.paths import DATASET
from pipeline.plan import grid_row
from pipeline.tracking import Tracker


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
    for study in params.search.studies:
        tracker.publish_search(study, root / "results" / "search" / study)
    tracker.retire_rows(params.grid.attacks, params.search.studies)
    tracker.publish_analysis(root / "results" / "summary.json", root / "reports")
    figures = sorted((root / "reports" / "figures").glob("*.png"))
    report = [root / "results" / "summary.json", root / "reports" / "report.md", root / "reports" / "cells.csv"]
    tracker.publish_parent([*report, *figures, root / "params.yaml", root / "dvc.lock"])
    write_json(root / "tracking" / "imported.json", imported)
