"""The stage ``track``: make the results, from their files alone, the current runs in MLflow."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.core.component import allowed
from pipeline.core.errors import UserError
from pipeline.core.files import file_hash, write_json
from pipeline.core.paths import DATASET
from pipeline.data import dataset
from pipeline.report import search_export
from pipeline.report.analysis import worst_attacks
from pipeline.report.figures.model import drawn
from pipeline.report.search_results import StudyResult, read_study
from pipeline.report.written import check
from pipeline.runs import store
from pipeline.runs.params import Params
from pipeline.tracking.connection import faults_told, wait_at_most
from pipeline.tracking.outer import publish_outer, row_headlines, summary_headlines
from pipeline.tracking.runs import StudyRuns, analysis_run, compared_points
from pipeline.tracking.searches import study_runs
from pipeline.tracking.store import uri
from pipeline.tracking.tracker import Tracker

SUMMARY, REPORTS = Path("results/summary.json"), Path("reports")
FIGURES = REPORTS / "figures"


def track(root: Path, params: Params, stage: str | None = None) -> None:
    """Publish every row, every search and the analysis, or one stage alone; a run that is there already is kept.

    Args:
        root: The project's folder.
        params: Of params.yaml, tuned.
        stage: ``train@<attack>`` or ``search@<study>``, to publish that alone.

    Raises:
        UserError: There is no such stage, a result is missing, or MLflow cannot be reached.
    """
    stages: dict[str, Callable[[Tracker, Path, Params, str], None]]
    stages = {f"train@{attack}": _track_row for attack in params.grid.attacks}
    stages |= {f"search@{study}": _track_study for study in params.search.studies}
    if stage is not None and stage not in stages:
        raise UserError(f"track {stage}: no stage that is tracked alone; {allowed(stage, stages)}")
    wait_at_most(seconds=60, repeats=3)
    data = dataset.load(root / DATASET)
    tracker = Tracker(root, params, file_hash(root / DATASET))
    with faults_told(uri(root)):
        try:
            if stage is None:
                _track_all(tracker, root, params, _model_pictures(data, params))
            else:
                stages[stage](tracker, root, params, stage.partition("@")[2])
        except KeyboardInterrupt:
            tracker.stop("KILLED")
            raise


def _track_row(tracker: Tracker, root: Path, params: Params, attack: str) -> None:
    published = tracker.publish_row(attack, store.read_row(root, params, attack))
    made = [f"results/train/{attack}", "results/tune"]
    publish_outer(tracker, root, f"train {attack}", params, row_headlines(published), made)


def _track_study(tracker: Tracker, root: Path, params: Params, name: str) -> None:
    runs = _study_runs(root, params, read_study(root, params, name), [])  # figures are there after the analysis
    tracker.publish_search(name, runs)
    made = [f"results/search/{name}", "results/tune"]
    publish_outer(tracker, root, f"search {name}", params, runs.study[1].points, made)


def _model_pictures(data: dataset.Dataset, params: Params) -> Mapping[str, bytes]:
    """Return the pictures of the model; where something is missing that draws them, say so in a line, and go on."""
    try:
        return {f"model/{name}": picture for name, picture in drawn(data, params.model).items()}
    except UserError as error:
        print(f"no picture of the model in MLflow: {error}", file=sys.stderr, flush=True)
        return {}


def _track_all(tracker: Tracker, root: Path, params: Params, pictures: Mapping[str, bytes]) -> None:
    """Publish everything; ``tracking/imported.json`` lists it, by the keys of the cells."""
    check(root)
    imported: dict[str, list[str]] = {}
    for attack in params.grid.attacks:
        records = store.read_row(root, params, attack)
        tracker.publish_row(attack, records)
        imported[f"train {attack}"] = [record.key for record in records]
    studies = [read_study(root, params, name) for name in params.search.studies]
    for study in studies:
        tracker.publish_search(study.name, _study_runs(root, params, study, _pictures(root, study.name)))
    search_export.export(root / "tracking" / "optuna.db", studies)
    tracker.retire_rows(params.grid.attacks, params.search.studies)
    comparison = pd.read_csv(root / REPORTS / "comparison.csv")
    worst = worst_attacks(comparison)[["attack", "defence", "partition"]]
    tracker.publish_comparison(compared_points(comparison), set(worst.itertuples(index=False, name=None)))
    tracker.publish_analysis(*analysis_run(root / SUMMARY, root / REPORTS, pictures))
    made = [SUMMARY, REPORTS / "report.md", REPORTS / "report.html", REPORTS / "cells.csv", FIGURES]
    publish_outer(tracker, root, _title(params), params, summary_headlines(root / SUMMARY), list(map(str, made)))
    write_json(root / "tracking" / "imported.json", imported)


def _title(params: Params) -> str:
    grid, studies = params.grid, params.search.studies
    return f"{len(grid.defences)} defences | {len(grid.attacks)} attacks | {len(studies)} searches"


def _pictures(root: Path, study: str) -> list[Path]:
    patterns = (f"*.{study}.png", f"*.{study}.*.png")
    return [path for pattern in patterns for path in sorted((root / FIGURES).rglob(pattern))]


def _study_runs(root: Path, params: Params, study: StudyResult, pictures: Sequence[Path]) -> StudyRuns:
    return study_runs(study, root / "results" / "search" / study.name, pictures, params.analysis.confidence)
