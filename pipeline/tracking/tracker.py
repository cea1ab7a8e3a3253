"""Results in MLflow: a view that can be rebuilt from the result files at any time. Only this module imports MLflow.

A run stands for the cells of one attack, defence and partition with all their seeds, below a parent run for the attack;
or for one trial of a search, below the run of its study. The tag ``cell_key`` is a run's identity: a finished run whose
key is wanted stays, any other is deleted, and MLflow can restore it until `mlflow gc`.
"""

import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from filelock import FileLock

# Set before the import: no usage reports to MLflow's makers, and no two lines of addresses for every finished run.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException

from pipeline.core.errors import UserError
from pipeline.runs.params import Params
from pipeline.runs.plan import Planned
from pipeline.runs.store import Record
from pipeline.simulator.loop import Watch
from pipeline.tracking.runs import (
    DESCRIPTION,
    EXPERIMENTS,
    VIEW,
    Content,
    Experiment,
    Group,
    Heading,
    Point,
    StudyRuns,
    analysis_run,
    by_group,
    experiment_tags,
    group_content,
    group_heading,
    mean_points,
)
from pipeline.tracking.store import artifacts, code_tags, default_uri, lock_file, quiet, refuse_moved, uri

METRICS_A_CALL = 1000  # MLflow's limits
PARAMS_A_CALL = 100
ROW = {"train": "attack", "search": "study"}  # the tag that names a row, by stage
DIGEST_LENGTH = 8  # what MLflow itself uses: it shows the digest in the table of runs
PARENT = "mlflow.parentRunId"

ToPublish = tuple[Heading, Callable[[], Content]]


class Tracker:
    """A connection to MLflow, opened once per process.

    ``mlflow run`` exports ``MLFLOW_RUN_ID``: it is removed from the environment, and that run becomes the parent of the
    stages' runs.

    Raises:
        UserError: MLflow cannot be reached, has no such parent run, or the project was moved.
    """

    def __init__(self, root: Path, params: Params, data_hash: str) -> None:
        self._root, self._uri = root.resolve(), uri(root)
        self._outer = os.environ.pop("MLFLOW_RUN_ID", None)
        self._lock = FileLock(lock_file(root, self._uri))
        self._tags = {**code_tags(root), "data_hash": data_hash, "torch": version("torch")}
        self._dataset = _dataset(params.data.source.name, data_hash)
        with self._lock:
            self._client, self._experiments = self._open()

    def live_row(self, attack: str, cells: Sequence[Planned], keys: Mapping[str, str]) -> "LiveRow":
        """Start a row whose curves can be watched while it trains.

        Args:
            attack: The attack of the row.
            cells: All cells of the row.
            keys: The key of each cell, by its folder.
        """
        headings = {}
        for group, members in by_group(cells).items():
            headings[group] = group_heading(members, [keys[planned.folder] for planned in members])
        with self._lock:
            parent, finished = self._prepare("train", attack, {heading.key for heading in headings.values()})
            self._tag_cells(parent, len(cells))
            self._client.update_run(parent.info.run_id, status="RUNNING")
        missing = {group: heading for group, heading in headings.items() if heading.key not in finished}
        return LiveRow(self, attack, parent.info.run_id, cells, missing)

    def publish_row(self, attack: str, records: Sequence[Record]) -> None:
        """Make MLflow hold exactly these results for this attack."""
        runs: list[ToPublish] = []
        for members in by_group(records).values():
            heading = group_heading([record.planned for record in members], [record.key for record in members])
            runs.append((heading, partial(group_content, members)))
        self._publish("train", attack, runs, len(records))

    def publish_search(self, study: str, runs: StudyRuns) -> None:
        """Make MLflow hold exactly this study."""
        heading, content = runs.study
        wanted = {heading.key, *(trial.key for trial, _ in runs.trials)}
        with self._lock:
            found = self._runs("search", study)
            whole = wanted <= {run.data.tags["cell_key"] for run in found if run.info.status == "FINISHED"}
            self._supersede(found, wanted if whole else ())
            if not whole:
                parent = self.start("search", study, heading, self._outer)
                for trial, measured in runs.trials:
                    self._log_trial(study, trial, measured, parent)
                self.complete(parent, content)
                self._client.set_experiment_tag(self._experiments["search"], f"{VIEW}{study}", runs.view)

    def _log_trial(self, study: str, heading: Heading, content: Content, parent: str) -> None:
        """Log a whole run in three calls, as there are hundreds of runs."""
        run_id = self._create("search", study, heading, parent)
        self._client.log_batch(run_id, metrics=_metrics(content.points), params=_params(heading))
        self._client.set_terminated(run_id)

    def publish_analysis(self, summary: Path, reports: Path) -> None:
        """Make MLflow hold one run with the numbers of ``summary`` and the files of ``reports``."""
        heading, content = analysis_run(summary, reports)
        with self._lock:
            kept = self._supersede(self._runs("analysis"), {heading.key})
            if not kept:
                self.complete(self.start("analysis", "", heading, self._outer), content)

    def publish_parent(self, files: Sequence[Path]) -> None:
        """Under ``mlflow run``, copy ``files`` to that run's artifacts: a project cloned from a URL is temporary.

        Args:
            files: In the project's folder; they keep their place in it, so that the report's links work.
        """
        for file in files if self._outer else ():
            folder = file.resolve().relative_to(self._root).parent.as_posix()
            self._client.log_artifact(self._outer, str(file), None if folder == "." else folder)

    def retire_rows(self, trained: Collection[str], searched: Collection[str]) -> None:
        """Delete the runs of attacks that are no longer in the grid, and of studies that are no longer run."""
        with self._lock:
            for stage, rows in (("train", trained), ("search", searched)):
                gone = [run for run in self._runs(stage) if run.data.tags.get(ROW[stage]) not in rows]
                for run in gone:
                    self._client.delete_run(run.info.run_id)
                views = {f"{VIEW}{run.data.tags.get(ROW[stage])}" for run in gone}
                for view in views & self._client.get_experiment(self._experiments[stage]).tags.keys():
                    self._client.delete_experiment_tag(self._experiments[stage], view)

    def start(self, stage: str, row: str, heading: Heading, parent: str | None) -> str:
        """Create a run with all but its results, and return its id."""
        run_id, params = self._create(stage, row, heading, parent), _params(heading)
        for first in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(run_id, params=params[first : first + PARAMS_A_CALL])
        self._log_dataset(run_id)
        return run_id

    def _log_dataset(self, run_id: str) -> None:
        """Record which data a run used; try again if another process is entering the same data."""
        for attempt in range(3):
            try:
                self._client.log_inputs(run_id, [self._dataset])
                return
            except MlflowException:
                if attempt == 2:
                    raise

    def _create(self, stage: str, row: str, heading: Heading, parent: str | None) -> str:
        tags = {**self._tags, **_stage_tags(stage, row), **heading.tags, "cell_key": heading.key}
        if parent:
            tags[PARENT] = parent
        return str(self._client.create_run(self._experiments[stage], tags=tags, run_name=heading.name).info.run_id)

    def log(self, run_id: str, points: Sequence[Point]) -> None:
        """Log metrics, as many per call as MLflow takes."""
        metrics = _metrics(points)
        for first in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(run_id, metrics=metrics[first : first + METRICS_A_CALL])

    def complete(self, run_id: str, content: Content, logged: Collection[tuple[str, int]] = ()) -> None:
        """Give a run its results, except for the metrics ``logged`` before (name, step), and finish it."""
        self.log(run_id, [point for point in content.points if (point.metric, point.step) not in logged])
        with tempfile.TemporaryDirectory() as folder:
            for name, data in content.artifacts.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self._client.log_artifacts(run_id, folder)
        self._client.set_terminated(run_id)

    def end(self, run_id: str, status: str) -> None:
        """End a run that has no results."""
        self._client.set_terminated(run_id, status)

    def _publish(self, stage: str, attack: str, runs: Sequence[ToPublish], cells: int) -> None:
        """Make MLflow hold exactly ``runs`` for this stage and attack."""
        with self._lock:
            parent, finished = self._prepare(stage, attack, {heading.key for heading, _ in runs})
            for heading, content in runs:
                if heading.key not in finished:
                    self.complete(self.start(stage, attack, heading, parent.info.run_id), content())
            self._tag_cells(parent, cells)
            if parent.info.status != "FINISHED":
                self._client.set_terminated(parent.info.run_id)

    def _prepare(self, stage: str, attack: str, wanted: Collection[str]) -> tuple[Run, set[str]]:
        """Return the parent run of a stage and the keys already published; delete the superseded runs."""
        found = self._runs(stage, attack)
        parents = [run for run in found if "stage_key" in run.data.tags]
        finished = self._supersede([run for run in found if "stage_key" not in run.data.tags], wanted)
        return (parents[0] if parents else self._create_parent(stage, attack)), finished

    def _create_parent(self, stage: str, attack: str) -> Run:
        tags = {**_stage_tags(stage, attack), "stage_key": f"{stage}/{attack}"}
        if self._outer:
            tags[PARENT] = self._outer
        return self._client.create_run(self._experiments[stage], tags=tags, run_name=f"{stage} {attack}")

    def _tag_cells(self, parent: Run, cells: int) -> None:
        self._client.set_tag(parent.info.run_id, "cells", str(cells))

    def _supersede(self, runs: Sequence[Run], wanted: Collection[str]) -> set[str]:
        """Delete runs that are unwanted, unfinished or duplicates; return the keys of the others."""
        kept: set[str] = set()
        for run in runs:
            key = run.data.tags.get("cell_key", "")
            if run.info.status == "FINISHED" and key in wanted and key not in kept:
                kept.add(key)
            else:
                self._client.delete_run(run.info.run_id)
        return kept

    def _runs(self, stage: str, row: str | None = None) -> list[Run]:
        """Return the runs of a stage, of one row or all."""
        wanted = f"tags.stage = '{stage}'" + (f" and tags.{ROW[stage]} = '{row}'" if row else "")
        runs: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiments[stage]], wanted, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _open(self) -> tuple[MlflowClient, dict[str, str]]:
        """Return a client and the experiment of each stage; create what is missing, the database included."""
        try:
            with quiet():
                client = MlflowClient(self._uri)
            experiments = {stage: self._experiment(client, experiment) for stage, experiment in EXPERIMENTS.items()}
            if self._outer:
                client.get_run(self._outer)
        except MlflowException as error:
            raise UserError(f"MLflow at {self._uri}: {error}") from error
        return client, experiments

    def _experiment(self, client: MlflowClient, experiment: Experiment) -> str:
        """Return the id of an experiment, ours or one that ``mlflow run --experiment-name`` has just created."""
        location, tags = artifacts(self._uri, experiment.name), experiment_tags(experiment)
        found = client.get_experiment_by_name(experiment.name)
        if found is None:
            return str(client.create_experiment(experiment.name, artifact_location=location, tags=tags))
        if self._uri == default_uri(self._root):
            refuse_moved(found.artifact_location, str(location))
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        if DESCRIPTION not in found.tags:
            for name, value in tags.items():
                client.set_experiment_tag(found.experiment_id, name, value)
        return str(found.experiment_id)


class LiveRow:
    """A row of the grid while it trains."""

    def __init__(
        self,
        tracker: Tracker,
        attack: str,
        parent: str,
        cells: Sequence[Planned],
        headings: Mapping[Group, Heading],
    ) -> None:
        self._tracker, self._attack, self._parent, self._headings = tracker, attack, parent, headings
        self._folders = {group: [c.folder for c in members] for group, members in by_group(cells).items()}
        self._runs: dict[Group, str] = {}
        self._logged: dict[str, set[tuple[str, int]]] = {}

    def watch(self, cells: Sequence[Planned]) -> Watch:
        """Return a function that logs the curves of a batch, of the groups with all seeds in it; the others wait.

        Args:
            cells: R cells, in the order of the metrics ``[R]`` that the function receives.
        """
        place = {planned.folder: position for position, planned in enumerate(cells)}
        whole = {
            self._run(group): [place[folder] for folder in self._folders[group]]
            for group in by_group(cells)
            if group in self._headings and place.keys() >= set(self._folders[group])
        }

        def watch(steps_done: int, metrics: dict[str, np.ndarray]) -> None:
            for run_id, seeds in whole.items():
                points = mean_points(steps_done, {name: values[seeds] for name, values in metrics.items()})
                self._tracker.log(run_id, points)
                self._logged[run_id].update((point.metric, point.step) for point in points)

        return watch

    def finish(self, records: Sequence[Record]) -> None:
        """Finish the runs that were watched and publish the others, to the same end as ``publish_row``."""
        results = by_group(records)
        for group, run_id in self._runs.items():
            if len(results[group]) == len(self._folders[group]):  # otherwise seeds were added: published below
                self._tracker.complete(run_id, group_content(results[group]), self._logged[run_id])
        self._tracker.publish_row(self._attack, records)

    def stop(self, status: str) -> None:
        """End the runs that are live, the parent included, with ``status``."""
        for run_id in (*self._runs.values(), self._parent):
            self._tracker.end(run_id, status)

    def _run(self, group: Group) -> str:
        """Return the live run of a group."""
        if group not in self._runs:
            run_id = self._tracker.start("train", self._attack, self._headings[group], self._parent)
            self._runs[group], self._logged[run_id] = run_id, set()
        return self._runs[group]


def _metrics(points: Sequence[Point]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(point.metric, point.value, now, point.step) for point in points]


def _params(heading: Heading) -> list[Param]:
    return [Param(name, value) for name, value in heading.params.items()]


def _stage_tags(stage: str, row: str) -> dict[str, str]:
    """Return the tags of every run of a stage; MLflow's own column Source shows the stage's name in dvc.yaml."""
    if not row:
        return {"stage": stage, "mlflow.source.name": stage}
    return {"stage": stage, ROW[stage]: row, "mlflow.source.name": f"{stage}@{row}"}


def _dataset(name: str, data_hash: str) -> DatasetInput:
    dataset = Dataset(name, data_hash[:DIGEST_LENGTH], "local", '{"uri": "data/dataset.safetensors"}')
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
