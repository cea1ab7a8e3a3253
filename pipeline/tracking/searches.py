"""What MLflow shows of a search: a run for the study, and below it one for each trial. Nothing here calls MLflow."""

import json
import math
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.files import content_hash
from pipeline.report.intervals import over_seeds
from pipeline.report.search_results import StudyResult
from pipeline.tracking.runs import (
    CONFIRMED,
    IS_CURRENT,
    Content,
    Heading,
    Point,
    StudyRuns,
    Whole,
    all_of,
    finite,
    flatten,
    saved_view,
)

TRIAL = ["defence", "byzantine", "trial", "origin", "attack", "parameters"]
MEASURED = ["degradation", "attacked_accuracy", "clean_accuracy", "flagged"]


def study_runs(study: StudyResult, folder: Path, pictures: Sequence[Path], confidence: float) -> StudyRuns:
    """Return the run of a study, a run for each trial, and a view that draws the trials.

    Args:
        study: The study, read back.
        folder: The one with its files.
        pictures: The files of its figures.
        confidence: Of the intervals.
    """
    heading, content = _study_run(study, folder, pictures, confidence)
    return StudyRuns((heading, content), list(_trial_runs(study, heading.key, confidence)), _trials_view(study))


def _trials_view(study: StudyResult) -> str:
    """Return a view of one study's trials: the largest degradation first, parallel coordinates and a scatter plot."""
    parameters = sorted({name for space in study.description["spaces"].values() for name in space})
    names = ["defence", *(["attack"] if study.description["mode"] == "worst" else []), "origin", *parameters]
    section = {"uuid": "trials", "name": "Trials", "display": True, "isReordered": True, "columns": 1}
    common = {"metricSectionId": "trials", "runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    parallel = {"uuid": "parallel", "type": "PARALLEL", "showAllRuns": True, **common}
    parallel |= {"selectedParams": names, "selectedMetrics": ["attacked_accuracy", "degradation"]}
    scatter = {"uuid": "scatter", "type": "SCATTER", **common}
    scatter |= {"xaxis": {"key": parameters[-1], "type": "PARAM"}, "yaxis": {"key": "degradation", "type": "METRIC"}}
    state = {
        "selectedColumns": [*(f"metrics.`{name}`" for name in MEASURED), *(f"params.`{name}`" for name in names)],
        "searchFilter": all_of(f"tags.study = '{study.name}'", "tags.defence LIKE '%'", IS_CURRENT),
        "orderByKey": "metrics.`degradation`",  # an order by time would hide the trials below their study
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [section],
        "compareRunCharts": [parallel, scatter],
        "isAccordionReordered": True,
    }
    return saved_view(f"Trials of {study.name}", state)


def _study_run(study: StudyResult, folder: Path, pictures: Sequence[Path], confidence: float) -> Whole:
    """Return what was searched, the best and the confirmed values, the files and the pictures.

    Metrics are named ``<what>/<defence>``, and their means over the defences ``<what>``. The step is b, the number of
    Byzantine workers, so that a breakdown becomes a curve.
    """
    description = study.description
    artifacts = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    artifacts |= {f"figures/{path.name}": path.read_bytes() for path in pictures}
    count = len(study.trials.groupby(["defence", "byzantine", "trial"]))
    points = [Point("trials", 0, float(count)), *_best(study.trials)]
    if study.pruned is not None:
        points.append(Point("pruned_trials", 0, float(study.pruned.groupby(["defence", "byzantine", "trial"]).ngroups)))
    digests = {name: sha256(data).hexdigest() for name, data in artifacts.items()}
    heading = Heading(
        name=f"{study.name} | {description['partition']}",
        key=content_hash([description["key"], confidence, digests]),
        tags={"mode": description["mode"], "partition": description["partition"]},
        params=flatten({name: value for name, value in description.items() if name not in ("key", "absent")}),
    )
    return heading, Content(finite([*points, *_confirmed(study.confirmation)]), artifacts)


def _best(trials: pd.DataFrame) -> Iterator[Point]:
    means = trials.groupby(["defence", "byzantine", "trial"], sort=False)["degradation"].mean()
    best = means.groupby(["defence", "byzantine"], sort=False).max().reset_index()
    for row in best.to_dict("records"):
        yield Point(f"best_validation_degradation/{row['defence']}", row["byzantine"], float(row["degradation"]))


def _confirmed(confirmation: pd.DataFrame) -> Iterator[Point]:
    keys = ["defence", "byzantine", "candidate", "parameters"]
    means = confirmation.groupby(keys, sort=False)["degradation"].mean().reset_index()
    for row in means.to_dict("records"):
        defence, byzantine, candidate = row["defence"], row["byzantine"], row["candidate"]
        yield Point(f"confirmed_degradation_{candidate}/{defence}", byzantine, float(row["degradation"]))
        strength = json.loads(row["parameters"]).get("strength", math.nan)
        yield Point(f"strength_{candidate}/{defence}", byzantine, float(strength))
    over_defences = means.groupby(["candidate", "byzantine"], sort=False)["degradation"].mean().reset_index()
    for row in over_defences.to_dict("records"):
        yield Point(f"confirmed_degradation_{row['candidate']}", row["byzantine"], float(row["degradation"]))


def _trial_runs(study: StudyResult, key: str, confidence: float) -> Iterator[Whole]:
    """Yield the run of each trial: its parameters, the means over the search's seeds and the value for each seed.

    All runs of a study have these metrics, so that MLflow can draw them side by side; the one that was found for a
    defence also has what it was confirmed with, on test data.
    """
    found = _found(study.confirmation, confidence)
    for values, rows in study.trials.groupby(TRIAL, sort=False):
        trial = dict(zip(TRIAL, values, strict=True))
        confirmed = found.get((trial["defence"], trial["byzantine"], trial["trial"]), [])
        yield _trial_heading(key, trial, bool(confirmed)), Content(finite([*_measured(rows), *confirmed]), {})


def _found(confirmation: pd.DataFrame, confidence: float) -> dict[tuple[Any, ...], list[Point]]:
    """Return what the found trials were confirmed with, beside the literature's default, by defence, b and trial."""
    columns = dict(zip(CONFIRMED, ("attacked_accuracy", "degradation"), strict=True))
    measured = {key: entry for new, old in columns.items() for key, entry in over_seeds(new, old, confidence).items()}
    means = confirmation.groupby(["candidate", "defence", "byzantine"])
    table = means.agg(**measured, trial=("trial", "first"), seeds=("seed", "size"))
    found = {}
    for (candidate, *cell), row in table.iterrows():
        if candidate == "found":
            points = [Point(name, 0, float(row[name])) for name in (*measured, "seeds")]
            default = table["confirmed_degradation"].get(("literature", *cell), math.nan)
            found[(*cell, int(row["trial"]))] = [*points, Point("literature_degradation", 0, float(default))]
    return found


def _trial_heading(study_key: str, trial: dict[str, Any], found: bool) -> Heading:
    parameters = json.loads(trial.pop("parameters"))
    return Heading(
        name=f"trial {trial['trial']} | {trial['defence']} | b = {trial['byzantine']}",
        key=content_hash([study_key, trial["defence"], trial["byzantine"], trial["trial"]]),
        tags={"defence": trial["defence"], "found": str(found).lower()},
        params=flatten({**trial, **parameters}),
    )


def _measured(rows: pd.DataFrame) -> Iterator[Point]:
    for name in MEASURED:
        yield Point(name, 0, float(rows[name].mean()))
    yield Point("diverged", 0, float(rows["diverged"].sum()))
    for seed, accuracy in zip(rows["seed"], rows["attacked_accuracy"], strict=True):
        yield Point(f"attacked_accuracy_by_seed/{seed}", 0, float(accuracy))
