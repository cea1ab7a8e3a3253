"""The run that ``mlflow run`` makes around an entry point: what it is called, and what it holds in the end."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.files import read_json
from pipeline.runs.params import Params
from pipeline.tracking.runs import Point, Whole, finite, flatten
from pipeline.tracking.tracker import Tracker

MADE_UP = re.compile(r"[a-z]+-[a-z]+-\d+")  # a name that MLflow drew, and nobody chose
HEADLINES = ("clean", "accuracy", "found_accuracy")  # of the README's table
INPUTS = ("params.yaml", "dvc.lock")


def publish_outer(
    tracker: Tracker, root: Path, name: str, params: Params, points: Sequence[Point], made: Sequence[str]
) -> None:
    """Under ``mlflow run``, give its run a name, the parameters, headline metrics and what was made.

    A project that was cloned from a URL is temporary: whatever is to stay must go to MLflow.

    Args:
        tracker: The connection to MLflow.
        root: The project's folder.
        name: What was run.
        params: Of params.yaml, tuned.
        points: The headline metrics.
        made: Files and folders in the project's folder; they keep their place in it, so that the report's links work.
    """
    if tracker.outer is None:
        return
    client, run = tracker.client, tracker.client.get_run(tracker.outer)
    changes = " ".join(shlex.split(run.data.params.get("set", "")))  # MLflow keeps it as the shell is given it: quoted
    if MADE_UP.fullmatch(run.info.run_name or ""):
        client.update_run(tracker.outer, name=f"{name} | {changes}" if changes else name)
    client.set_tag(tracker.outer, "current", "true")  # seen in the saved views
    values = flatten(params.model_dump(mode="json"))
    tracker.log_params(tracker.outer, {path: values[path] for path in values.keys() - run.data.params.keys()})
    tracker.log(tracker.outer, points)
    for path in (root / place for place in (*INPUTS, *made)):
        folder = path.relative_to(root)
        if path.is_dir():
            client.log_artifacts(tracker.outer, str(path), folder.as_posix())
        elif path.exists():
            client.log_artifact(tracker.outer, str(path), None if folder.parent == Path() else folder.parent.as_posix())


def row_headlines(runs: Sequence[Whole]) -> list[Point]:
    """Return the mean test accuracy for each run of a row, by defence and partition."""
    return [
        Point(f"test_accuracy/{heading.tags['defence']}/{heading.tags['partition']}", point.step, point.value)
        for heading, content in runs
        for point in content.points
        if point.metric == "test_accuracy"
    ]


def summary_headlines(summary: Path) -> list[Point]:
    """Return the accuracies of the README's table, by defence and partition."""
    return finite(_accuracies(read_json(summary)["grid"]))


def _accuracies(grid: Mapping[str, Mapping[str, Any]]) -> Iterator[Point]:
    for partition, defences in grid.items():
        for defence, row in defences.items():
            for name in HEADLINES:
                if row.get(name) is not None:
                    yield Point(f"{name}/{defence}/{partition}", 0, float(row[name]))
