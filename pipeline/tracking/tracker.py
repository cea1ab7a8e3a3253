"""Results in MLflow: a view that can be rebuilt from the result files at any time.

A run stands for the cells of one attack, defence and partition with all their seeds, below a parent run for the attack;
or for one trial of a search, below the run of its study. It belongs to its content (the tag ``cell_key``) and to its
scope: this clone of the project, or the run that ``mlflow run`` made around it. Inside a scope, content that is there
is found again, other content gets a run of its own, and the tag ``current`` tells what was published last. No run is
ever deleted, and those of another scope are not touched.
"""

import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException

from pipeline.runs.params import Params
from pipeline.runs.plan import Planned
from pipeline.runs.store import Record
from pipeline.tracking import connection
from pipeline.tracking.clone import identify, remember
from pipeline.tracking.database import move_along, set_damaged_aside
from pipeline.tracking.runs import (
    IS_CURRENT,
    SAVED_VIEW,
    Content,
    Group,
    Heading,
    Point,
    StudyRuns,
    Whole,
    all_of,
    by_group,
    group_content,
    group_heading,
)
from pipeline.tracking.store import OWN, code_tags, database_of, lock_file, uri

METRICS_A_CALL = 1000  # MLflow's limits
PARAMS_A_CALL = 100
ROW = {"train": "attack", "search": "study"}  # the tag that names a row, by stage
DIGEST_LENGTH = 8  # what MLflow itself uses: it shows the digest in the table of runs
PARENT = "mlflow.parentRunId"


class Tracker:
    """A connection to MLflow, opened once per process.

    ``mlflow run`` exports ``MLFLOW_RUN_ID``: it is removed from the environment, and that run becomes the parent of the
    stages' runs.

    Raises:
        UserError: MLflow cannot be reached, or has no such parent run.
    """

    def __init__(self, root: Path, params: Params, data_hash: str) -> None:
        self._root, self._uri = root.resolve(), uri(root)
        self.outer = os.environ.pop("MLFLOW_RUN_ID", None)
        self._tags = {**code_tags(root), "data_hash": data_hash, "torch": version("torch")}
        self._dataset = _dataset(params.data.source.name, data_hash)
        self._running: list[str] = []  # the ids of the runs that this process has begun, and not ended
        with connection.faults_told(self._uri):
            self._lock = FileLock(lock_file(self._uri))
            with self._lock:
                self.client, self._scope = self._open()
                self._experiments = connection.experiments(self.client, self._uri)
            if self.outer:
                self.client.get_run(self.outer)

    def _open(self) -> tuple[MlflowClient, str]:
        """Return a client, and the scope of the runs; the project's own database is put in order before."""
        clone, database = identify(self._root), self._root / OWN
        own = database_of(self._uri) == database
        if own:
            set_damaged_aside(database)
        client = connection.client(self._uri)
        if own:
            move_along(database, self._root, clone)
        remember(self._root, clone)
        return client, self.outer or clone.id

    def headings(self, cells: Sequence[Planned], keys: Mapping[str, str]) -> dict[Group, Heading]:
        """Return the heading of the run for each group of cells, whose keys are given by their folders."""
        return {
            group: group_heading(members, [keys[planned.folder] for planned in members])
            for group, members in by_group(cells).items()
        }

    def begin_row(self, attack: str, wanted: Collection[str], cells: int) -> tuple[str, set[str]]:
        """Begin a row that is about to be trained.

        Args:
            attack: The attack of the row.
            wanted: The keys of its runs.
            cells: How many cells it has.

        Returns:
            The id of the row's own run, and the keys of the runs that are there already.
        """
        with self._lock:
            parent, finished = self._prepare("train", attack, wanted)
            self._tag_cells(parent, cells)
            self.client.update_run(parent.info.run_id, status="RUNNING")
            self._running.append(parent.info.run_id)
        return parent.info.run_id, set(finished)

    def publish_row(self, attack: str, records: Sequence[Record]) -> list[Whole]:
        """Make these results the current ones of this attack, and return what its runs hold."""
        keys = {record.planned.folder: record.key for record in records}
        headings = self.headings([record.planned for record in records], keys).values()
        runs = list(zip(headings, map(group_content, by_group(records).values()), strict=True))
        with self._lock:
            parent, finished = self._prepare("train", attack, {heading.key for heading, _ in runs})
            for heading, content in runs:
                self._publish("train", attack, heading, content, parent.info.run_id, finished)
            self._tag_cells(parent, len(records))
            if parent.info.status != "FINISHED":
                self._end(parent.info.run_id)
        return runs

    def publish_search(self, study: str, runs: StudyRuns) -> None:
        """Make this study, with its trials, the current one of its name."""
        heading, content = runs.study
        with self._lock:
            found = self._runs("search", study, "tags.mode LIKE '%'")
            known = [run for run in found if self._is_whole(run, heading.key, len(runs.trials))][:1]
            for run in found:
                if run in known or run.data.tags["current"] == "true":
                    self._mark_study(study, run, current=run in known)
            if known:
                self._restore(known[0].info.run_id, content)
            else:
                self._publish_study(study, runs)

    def _is_whole(self, run: Run, key: str, trials: int) -> bool:
        """Return whether a study's run has these results, and all its trials."""
        same = run.info.status == "FINISHED" and run.data.tags["cell_key"] == key
        return same and len(self._trials(run.data.tags["study"], run)) == trials

    def _trials(self, study: str, parent: Run) -> list[Run]:
        return self._runs("search", study, f"tags.`{PARENT}` = '{parent.info.run_id}'")

    def _mark_study(self, study: str, run: Run, current: bool) -> None:
        """Mark a study's run and its trials; it is current before they are, and no longer after they are not."""
        members = [run, *self._trials(study, run)]
        for member in members if current else reversed(members):
            self._mark(member, current)

    def _publish_study(self, study: str, runs: StudyRuns) -> None:
        """Enter a study and its trials; its own run is finished last, so that a killed publication is seen."""
        heading, content = runs.study
        parent = self.start("search", study, heading, self.outer)
        for trial, measured in runs.trials:
            run_id = self._create("search", study, trial, parent)
            self.client.log_batch(run_id, metrics=_metrics(measured.points), params=_params(trial.params))
            self._end(run_id)
        self.complete(parent, content)
        self.client.set_experiment_tag(self._experiments["search"], f"{SAVED_VIEW}{study}", runs.view)

    def publish_analysis(self, heading: Heading, content: Content) -> None:
        """Make these numbers and files of the analysis the current ones."""
        with self._lock:
            finished = self._settle(self._runs("analysis"), {heading.key})
            self._publish("analysis", "", heading, content, self.outer, finished)

    def publish_comparison(self, compared: Mapping[Group, Sequence[Point]], worst: Collection[Group]) -> None:
        """Give the current runs of the grid what the analysis says of them, and mark the ``worst`` ones."""
        with self._lock:
            for run in self._runs("train", conditions=all_of("tags.defence LIKE '%'", IS_CURRENT)):
                tags, held = run.data.tags, run.data.metrics
                group = (tags["attack"], tags["defence"], tags["partition"])
                changed = [point for point in compared.get(group, ()) if held.get(point.metric) != point.value]
                self.log(run.info.run_id, changed)
                if tags.get("worst") != (is_worst := str(group in worst).lower()):
                    self.client.set_tag(run.info.run_id, "worst", is_worst)

    def retire_rows(self, trained: Collection[str], searched: Collection[str]) -> None:
        """Mark the runs of attacks that are no longer in the grid, and of studies that are no longer run."""
        with self._lock:
            for stage, rows in (("train", trained), ("search", searched)):
                for run in self._runs(stage, conditions=IS_CURRENT):
                    if run.data.tags[ROW[stage]] not in rows:
                        self._mark(run, current=False)

    def start(self, stage: str, row: str, heading: Heading, parent: str | None) -> str:
        """Create a run with all but its results, and return its id."""
        run_id = self._create(stage, row, heading, parent)
        self.log_params(run_id, heading.params)
        self._log_dataset(run_id)
        return run_id

    def _log_dataset(self, run_id: str) -> None:
        """Record which data a run used; try again if another process is entering the same data."""
        for attempt in range(3):
            try:
                self.client.log_inputs(run_id, [self._dataset])
                return
            except MlflowException:
                if attempt == 2:
                    raise

    def _create(self, stage: str, row: str, heading: Heading, parent: str | None) -> str:
        own = {**heading.tags, "cell_key": heading.key}
        return str(self._create_run(stage, row, heading.name, own, parent).info.run_id)

    def _create_run(self, stage: str, row: str, name: str, own: Mapping[str, str], parent: str | None) -> Run:
        tags = {**self._tags, **_stage_tags(stage, row), **own, "scope": self._scope, "current": "true"}
        if parent:
            tags[PARENT] = parent
        run = self.client.create_run(self._experiments[stage], tags=tags, run_name=name)
        self._running.append(run.info.run_id)
        return run

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Log parameters, as many per call as MLflow takes."""
        entries = _params(params)
        for first in range(0, len(entries), PARAMS_A_CALL):
            self.client.log_batch(run_id, params=entries[first : first + PARAMS_A_CALL])

    def log(self, run_id: str, points: Sequence[Point]) -> None:
        """Log metrics, as many per call as MLflow takes."""
        metrics = _metrics(points)
        for first in range(0, len(metrics), METRICS_A_CALL):
            self.client.log_batch(run_id, metrics=metrics[first : first + METRICS_A_CALL])

    def complete(self, run_id: str, content: Content, logged: Collection[tuple[str, int]] = ()) -> None:
        """Give a run its results, except for the metrics ``logged`` before (name, step), and finish it."""
        self.log(run_id, [point for point in content.points if (point.metric, point.step) not in logged])
        self._log_files(run_id, content.artifacts)
        self._end(run_id)

    def _end(self, run_id: str, status: str = "FINISHED") -> None:
        self.client.set_terminated(run_id, status)
        if run_id in self._running:
            self._running.remove(run_id)

    def stop(self, status: str) -> None:
        """End the runs that this process has begun, and not ended, with ``status``."""
        for run_id in list(self._running):
            self._end(run_id, status)

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self.client.log_artifacts(run_id, folder)

    def _restore(self, run_id: str, content: Content) -> None:
        """Log those artifacts of a finished run again that are missing or cut."""
        held = dict(self._held(run_id))
        lost = {name: data for name, data in content.artifacts.items() if held.get(name) != len(data)}
        if lost:
            self._log_files(run_id, lost)

    def _held(self, run_id: str, folder: str | None = None) -> Iterator[tuple[str, int]]:
        """Yield the path and the size of every artifact of a run."""
        for entry in self.client.list_artifacts(run_id, folder):
            if entry.is_dir:
                yield from self._held(run_id, entry.path)
            else:
                yield entry.path, entry.file_size or 0

    def _publish(
        self, stage: str, row: str, heading: Heading, content: Content, parent: str | None, finished: Mapping[str, str]
    ) -> None:
        """Enter a run, unless it is among the ``finished`` ones, by key, and only its artifacts need a look."""
        if heading.key in finished:
            self._restore(finished[heading.key], content)
        else:
            self.complete(self.start(stage, row, heading, parent), content)

    def _prepare(self, stage: str, row: str, wanted: Collection[str]) -> tuple[Run, dict[str, str]]:
        """Return the row's own run, and the ids of the runs of ``wanted`` keys that are there; mark all."""
        found = self._runs(stage, row)
        parents = [run for run in found if "stage_key" in run.data.tags]
        for parent in parents:
            self._mark(parent, current=True)
        finished = self._settle([run for run in found if run not in parents], wanted)
        return (parents[0] if parents else self._create_parent(stage, row)), finished

    def _create_parent(self, stage: str, row: str) -> Run:
        return self._create_run(stage, row, f"{stage} {row}", {"stage_key": f"{stage}/{row}"}, self.outer)

    def _tag_cells(self, parent: Run, cells: int) -> None:
        self.client.set_tag(parent.info.run_id, "cells", str(cells))

    def _settle(self, runs: Sequence[Run], wanted: Collection[str]) -> dict[str, str]:
        """Mark one finished run for each ``wanted`` key as current, the others as not; return its id by key."""
        kept: dict[str, str] = {}
        for run in runs:
            key = run.data.tags["cell_key"]
            current = run.info.status == "FINISHED" and key in wanted and key not in kept
            self._mark(run, current)
            if current:
                kept[key] = run.info.run_id
        return kept

    def _mark(self, run: Run, current: bool) -> None:
        """Tag a run as current or not; what a killed process left unfinished ends here."""
        if run.data.tags.get("current") != (value := str(current).lower()):
            self.client.set_tag(run.info.run_id, "current", value)
        if not current and run.info.status == "RUNNING":
            self.client.set_terminated(run.info.run_id, "KILLED")

    def _runs(self, stage: str, row: str = "", conditions: str = "") -> list[Run]:
        """Return the runs of a stage in this scope, of one row or all, that meet further conditions."""
        own = [f"tags.stage = '{stage}'", f"tags.scope = '{self._scope}'"]
        wanted = all_of(*own, *([f"tags.{ROW[stage]} = '{row}'"] if row else []), *([conditions] if conditions else []))
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self._experiments[stage]], wanted, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs


def _metrics(points: Sequence[Point]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(point.metric, point.value, now, point.step) for point in points]


def _params(params: Mapping[str, str]) -> list[Param]:
    return [Param(name, value) for name, value in params.items()]


def _stage_tags(stage: str, row: str) -> dict[str, str]:
    """Return the tags of every run of a stage; MLflow's own column Source shows the stage's name in dvc.yaml."""
    if not row:
        return {"stage": stage, "mlflow.source.name": stage}
    return {"stage": stage, ROW[stage]: row, "mlflow.source.name": f"{stage}@{row}"}


def _dataset(name: str, data_hash: str) -> DatasetInput:
    dataset = Dataset(name, data_hash[:DIGEST_LENGTH], "local", '{"uri": "data/dataset.safetensors"}')
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
