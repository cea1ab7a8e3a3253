"""What MLflow is to show of a search: a run for the study, below it one for every trial. Nothing here calls MLflow."""

import json
import math
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.files import content_hash
from pipeline.search_results import StudyResult
from pipeline.tracking_runs import Content, Heading, Point, finite, flatten

Whole = tuple[Heading, Content]
TRIAL = ["defence", "byzantine", "trial", "origin", "attack", "parameters"]
MEASURED = ["degradation", "attacked_accuracy", "clean_accuracy", "flagged"]


def study_runs(study: StudyResult, folder: Path, pictures: Sequence[Path]) -> tuple[Whole, list[Whole]]:
    """Return the run of a study and a run for every trial.

    Args:
        study: What was found.
        folder: Where its files lie.
        pictures: Of this study.
    """
    heading, content = _study_run(study, folder, pictures)
    return (heading, content), list(_trial_runs(study, heading.key))


def _study_run(study: StudyResult, folder: Path, pictures: Sequence[Path]) -> Whole:
    """Return what was searched, the best and the confirmed values, files and pictures.

    Metrics are named ``<what>/<defence>``; their step is b, the number of Byzantine workers: a breakdown is a curve.
    """
    description = study.description
    artifacts = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    artifacts |= {f"figures/{path.name}": path.read_bytes() for path in pictures}
    digests = {name: sha256(data).hexdigest() for name, data in artifacts.items()}
    heading = Heading(
        name=f"{study.name} | {description['partition']}",
        key=content_hash([description["key"], digests]),
        tags={"mode": description["mode"], "partition": description["partition"]},
        params=flatten({name: value for name, value in description.items() if name not in ("key", "absent")}),
    )
    return heading, Content(finite([*_best(study.trials), *_confirmed(study.confirmation)]), artifacts)


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


def _trial_runs(study: StudyResult, key: str) -> Iterator[Whole]:
    """Yield parameters, the means over the search's seeds and the value of each seed.

    All runs of a study hold the same metrics, so that MLflow can draw them side by side.
    """
    for values, rows in study.trials.groupby(TRIAL, sort=False):
        trial = dict(zip(TRIAL, values, strict=True))
        yield _trial_heading(key, trial), Content(finite(_measured(rows)), {})


def _trial_heading(study_key: str, trial: dict[str, Any]) -> Heading:
    parameters = json.loads(trial.pop("parameters"))
    return Heading(
        name=f"{trial['defence']} | b = {trial['byzantine']} | trial {trial['trial']}",
        key=content_hash([study_key, trial["defence"], trial["byzantine"], trial["trial"]]),
        tags={"defence": trial["defence"]},
        params=flatten({**trial, **parameters}),
    )


def _measured(rows: pd.DataFrame) -> Iterator[Point]:
    for name in MEASURED:
        yield Point(name, 0, float(rows[name].mean()))
    yield Point("diverged", 0, float(rows["diverged"].sum()))
    for seed, accuracy in zip(rows["seed"], rows["attacked_accuracy"], strict=True):
        yield Point(f"attacked_accuracy_by_seed/{seed}", 0, float(accuracy))
