"""What MLflow shows of each kind of result: experiments, runs, metrics, artifacts. Nothing here calls MLflow."""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from pipeline.core.files import content_hash, read_json
from pipeline.runs.plan import Planned
from pipeline.runs.store import Record
from pipeline.simulator.metrics import EVALUATION_METRICS, FINAL_METRICS, STEP_METRICS


class View(NamedTuple):
    """A saved view of an experiment's runs: a filter, the columns, and the metric by which the runs are sorted."""

    title: str
    columns: tuple[str, ...]
    conditions: tuple[str, ...]
    order: str = ""
    ascending: bool = True


class Experiment(NamedTuple):
    """An experiment in MLflow, with the views that are saved with it, by their key in an address."""

    name: str
    description: str
    views: Mapping[str, View]


DESCRIPTION = "mlflow.note.content"
SAVED_VIEW = "mlflow.sharedViewState."
IS_CURRENT = "tags.current = 'true'"  # what was published last; whatever it replaced stays in MLflow
HISTORY = ("params.`training.steps`", "tags.`current`", "tags.`scope`")
# Columns of reports/comparison.csv -> metrics. MLflow's table shows 13 characters of a name, which must tell it apart.
COMPARED = {
    "accuracy_half_width": "half_width_accuracy",
    "degradation": "degradation",
    "degradation_half_width": "half_width_degradation",
    "seeds": "seeds",
}
WHOSE = ("tags.`attack`", "tags.`defence`", "tags.`partition`")
GRID = (*WHOSE, *(f"metrics.`{name}`" for name in ("test_accuracy", *COMPARED.values())), "params.`attack.strength`")
CONFIRMED = {**COMPARED, "accuracy": "test_accuracy", "degradation": "test_degradation"}
FOUND = (
    *("tags.`study`", "tags.`defence`", "params.`attack`", "params.`strength`", "params.`byzantine`"),
    *(f"metrics.`{name}`" for name in (*CONFIRMED.values(), "literature_degradation")),
)
STUDIES = (
    *("tags.`study`", "tags.`mode`", "tags.`partition`"),
    *("metrics.`literature_degradation`", "metrics.`found_degradation`", "metrics.`trials`"),
)
# The analysis has its own experiment: beside the training runs, its metrics would be mostly empty columns.
EXPERIMENTS = {
    "train": Experiment(
        "byzantine-training",
        "A run for each attack, defence and partition: the mean over its seeds.",
        {
            "worst": View(
                "The worst attack of each defence", GRID, ("tags.worst = 'true'", IS_CURRENT), "metrics.`test_accuracy`"
            ),
            "current": View("The grid", GRID, ("tags.defence LIKE '%'", IS_CURRENT), "metrics.`test_accuracy`"),
            "all": View("All results", (*GRID, *HISTORY), ()),
        },
    ),
    "search": Experiment(
        "byzantine-search",
        "A run for each study, the search for the attack that hurts most, and below it one for each trial.",
        {
            "found": View(
                "What was found", FOUND, ("tags.found = 'true'", IS_CURRENT), "metrics.`test_degradation`", False
            ),
            "current": View(
                "The studies", STUDIES, ("tags.mode LIKE '%'", IS_CURRENT), "metrics.`found_degradation`", False
            ),
            "all": View("All studies", (*STUDIES, *HISTORY), ("tags.mode LIKE '%'",)),
        },
    ),
    "analysis": Experiment(
        "byzantine-analysis",
        "Summary, figures and report over all results.",
        {
            "current": View("Current results", ("tags.`data_hash`",), (IS_CURRENT,)),
            "all": View("All results", ("tags.`data_hash`", *HISTORY), ()),
        },
    ),
}


def experiment_tags(experiment: Experiment) -> dict[str, str]:
    """Return the description and the saved views: by default MLflow shows no metrics."""
    views = {f"{SAVED_VIEW}{key}": _saved(view) for key, view in experiment.views.items()}
    return {DESCRIPTION: experiment.description, "mlflow.experimentKind": "custom_model_development", **views}


def _saved(view: View) -> str:
    sorted_by = {"orderByKey": view.order, "orderByAsc": view.ascending} if view.order else {}
    state = {"selectedColumns": view.columns, "searchFilter": all_of(*view.conditions), **sorted_by}
    return saved_view(view.title, state)


def all_of(*conditions: str) -> str:
    """Return a filter of runs that meet all conditions."""
    return " AND ".join(conditions)


def saved_view(name: str, state: Mapping[str, Any]) -> str:
    """Return a saved view of an experiment's runs, in the form in which MLflow's pages keep it in a tag."""
    return json.dumps({"name": name, "createdAt": int(time.time() * 1000), "state": json.dumps(state)})


def same_view(held: str, other: str) -> bool:
    """Return whether two saved views show the same, whenever they were made; a view that cannot be read is another."""
    try:
        first, second = json.loads(held), json.loads(other)
        return all(first[part] == second[part] for part in ("name", "state"))
    except (ValueError, KeyError, TypeError):
        return False


class Point(NamedTuple):
    """One value of a metric."""

    metric: str
    step: int
    value: float


@dataclass(frozen=True)
class Heading:
    """What is known of a run before it has results.

    Attributes:
        name: As it is shown.
        key: Its identity: runs with the same key have the same content.
        tags: What it can be looked up by.
        params: The parameters by dotted path.
    """

    name: str
    key: str
    tags: dict[str, str]
    params: dict[str, str]


@dataclass(frozen=True)
class Content:
    """The results of a run: metrics, and artifacts by their path in the run."""

    points: list[Point]
    artifacts: dict[str, bytes]


Whole = tuple[Heading, Content]


class StudyRuns(NamedTuple):
    """What MLflow shows of a study: its own run, one for each trial, and a saved view of these."""

    study: Whole
    trials: list[Whole]
    view: str


Group = tuple[str, str, str]  # attack, defence, partition
Cell = TypeVar("Cell", Planned, Record)


def by_group(cells: Iterable[Cell]) -> dict[Group, list[Cell]]:
    """Return the cells by attack, defence and partition, the seeds of each in order."""
    groups: dict[Group, list[Cell]] = {}
    for cell in cells:
        planned = cell.planned if isinstance(cell, Record) else cell
        groups.setdefault(planned.group, []).append(cell)
    return groups


def group_heading(cells: Sequence[Planned], keys: Sequence[str]) -> Heading:
    """Return the heading of the run for one attack, defence and partition, whose cells differ in their seed."""
    attack, defence, partition = cells[0].group
    content = cells[0].cell.content()
    del content["seed"]
    return Heading(
        name=f"{attack} | {defence} | {partition}",
        key=content_hash(list(keys)),
        tags={"defence": defence, "partition": partition},
        params=flatten({**content, "seeds": [planned.cell.seed for planned in cells]}),
    )


def group_content(records: Sequence[Record]) -> Content:
    """Return learning curves and final metrics over the seeds of one group, with the values of each seed in files."""
    seeds = [{"seed": record.planned.cell.seed, "key": record.key, **record.final} for record in records]
    artifacts = {
        "seeds.csv": _csv(pd.DataFrame(seeds)),
        "evaluations.csv": _csv(
            _by_seed(records, [record.evaluations for record in records]).astype({"steps_done": int})
        ),
        "steps.csv": _csv(_by_seed(records, [record.steps for record in records]).astype({"step": int})),
    }
    return Content([*_curves(records), *_finals(records)], artifacts)


def mean_points(step: int, measured: Mapping[str, Any]) -> list[Point]:
    """Return the mean over seeds of each metric; the values are ``[seeds]``."""
    return finite(Point(name, step, float(np.mean(values, dtype=np.float64))) for name, values in measured.items())


def finite(points: Iterable[Point]) -> list[Point]:
    """Return the points that MLflow can show: it draws infinity as 1.8e308, and NaN hides the last number."""
    return [point for point in points if math.isfinite(point.value)]


def _curves(records: Sequence[Record]) -> list[Point]:
    points: list[Point] = []
    for position, steps_done in enumerate(records[0].evaluations["steps_done"].astype(int).tolist()):
        measured = {name: [record.evaluations[name][position] for record in records] for name in EVALUATION_METRICS}
        if steps_done:
            measured |= {name: [record.steps[name][steps_done - 1] for record in records] for name in STEP_METRICS}
        points += mean_points(steps_done, measured)
    return points


def _finals(records: Sequence[Record]) -> list[Point]:
    finals = {name: np.array([record.final[name] for record in records]) for name in FINAL_METRICS}
    accuracy = finals["test_accuracy"]
    values = {
        "test_accuracy": accuracy.mean(),
        "test_accuracy_sd": accuracy.std(ddof=1) if len(accuracy) > 1 else math.nan,
        "test_accuracy_min": accuracy.min(),
        "test_loss": finals["test_loss"].mean(),
        "diverged": finals["diverged"].sum(),
    }
    steps = records[0].planned.cell.training.steps
    return finite(Point(name, steps, float(value)) for name, value in values.items())


def compared_points(comparison: pd.DataFrame) -> dict[Group, list[Point]]:
    """Return what ``reports/comparison.csv`` adds to the run of each group: half widths and the degradation."""
    return {
        (row["attack"], row["defence"], row["partition"]): finite(
            Point(metric, 0, float(row[column])) for column, metric in COMPARED.items()
        )
        for row in comparison.to_dict("records")
    }


def _by_seed(records: Sequence[Record], tables: Sequence[Mapping[str, np.ndarray]]) -> pd.DataFrame:
    seeds = [record.planned.cell.seed for record in records]
    return pd.concat(
        [pd.DataFrame({"seed": seed, **columns}) for seed, columns in zip(seeds, tables, strict=True)],
        ignore_index=True,
    )


def analysis_run(summary: Path, reports: Path, pictures: Mapping[str, bytes]) -> tuple[Heading, Content]:
    """Return the run with the numbers of ``summary`` as metrics, and that file and all of ``reports`` as artifacts.

    Args:
        summary: The file of the headline numbers.
        reports: The folder of tables, figures and report.
        pictures: Further artifacts, which are no part of the run's identity: it is the same where nothing draws them.
    """
    files = {path.relative_to(reports).as_posix(): path for path in sorted(reports.rglob("*")) if path.is_file()}
    artifacts = {name: path.read_bytes() for name, path in {summary.name: summary, **files}.items()}
    key = content_hash({name: sha256(data).hexdigest() for name, data in artifacts.items()})
    numbers = {name: json.loads(text) for name, text in flatten(read_json(summary)).items() if _is_number(text)}
    points = finite(Point(name, 0, float(number)) for name, number in numbers.items())
    return Heading("analysis", key, {}, {}), Content(points, {**artifacts, **pictures})


def _is_number(text: str) -> bool:
    try:
        return type(json.loads(text)) in (int, float)
    except ValueError:
        return False


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the leaves of nested mappings by dotted path; text as it is, anything else as JSON.

    Example:
        >>> flatten({"model": {"name": "mlp", "hidden": [32]}, "rate": 0.5})
        {'model.name': 'mlp', 'model.hidden': '[32]', 'rate': '0.5'}
    """
    leaves: dict[str, str] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return leaves


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()
