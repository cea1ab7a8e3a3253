"""A row of the grid in MLflow while it trains; training never needs MLflow, and waits for it no longer than seconds."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.core.errors import UserError
from pipeline.runs.params import Params
from pipeline.runs.plan import Planned
from pipeline.runs.store import Record
from pipeline.simulator.loop import Watch
from pipeline.tracking.connection import faults_told, wait_at_most
from pipeline.tracking.runs import by_group, group_content, mean_points
from pipeline.tracking.store import uri
from pipeline.tracking.tracker import Tracker


class LiveRow:
    """A row of the grid while it trains."""

    def __init__(self, tracker: Tracker, attack: str, cells: Sequence[Planned], keys: Mapping[str, str]) -> None:
        """Begin the row.

        Args:
            tracker: The connection to MLflow.
            attack: The attack of the row.
            cells: All cells of the row.
            keys: The key of each cell, by its folder.
        """
        self._tracker, self._attack = tracker, attack
        headings = tracker.headings(cells, keys)
        self._parent, finished = tracker.begin_row(attack, {heading.key for heading in headings.values()}, len(cells))
        self._missing = {group: heading for group, heading in headings.items() if heading.key not in finished}
        self._folders = {group: [c.folder for c in members] for group, members in by_group(cells).items()}
        self._runs: dict[tuple[str, str, str], str] = {}
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
            if group in self._missing and place.keys() >= set(self._folders[group])
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
        """End the runs that are live, the row's own included, with ``status``."""
        self._tracker.stop(status)

    def _run(self, group: tuple[str, str, str]) -> str:
        """Return the live run of a group."""
        if group not in self._runs:
            run_id = self._tracker.start("train", self._attack, self._missing[group], self._parent)
            self._runs[group], self._logged[run_id] = run_id, set()
        return self._runs[group]


class Followed:
    """A row that is shown live as long as MLflow answers; after its first fault it is not asked again."""

    def __init__(self, address: str, row: LiveRow | None) -> None:
        self._address, self._row = address, row

    def watch(self, cells: Sequence[Planned]) -> Watch:
        """Return what logs the curves of a batch."""
        logs: list[Watch] = []
        self._attempt(lambda row: logs.append(row.watch(cells)))
        return lambda *told: self._attempt(lambda _: logs[0](*told))

    def finish(self, records: Sequence[Record]) -> None:
        """Finish what was begun."""
        self._attempt(lambda row: row.finish(records))

    def stop(self, status: str) -> None:
        """End the runs that are live with ``status``."""
        self._attempt(lambda row: row.stop(status))

    def _attempt(self, do: Callable[[LiveRow], None]) -> None:
        if self._row is None:
            return
        try:
            with faults_told(self._address):
                do(self._row)
        except UserError as error:
            self._row = None
            _warn(error)


def _warn(error: UserError) -> None:
    print(
        f"warning: {error}; training goes on without live curves, "
        "and `python -m pipeline track` puts the results there later",
        file=sys.stderr,
        flush=True,
    )


def follow(
    root: Path, params: Params, data_hash: str, attack: str, cells: Sequence[Planned], keys: Mapping[str, str]
) -> Followed:
    """Return what shows a row in MLflow while it trains, or nothing but a warning where MLflow does not answer."""
    wait_at_most(seconds=10, repeats=1)
    address, row = uri(root), None
    try:
        tracker = Tracker(root, params, data_hash)
        with faults_told(address):
            row = LiveRow(tracker, attack, cells, keys)
    except UserError as error:
        _warn(error)
    return Followed(address, row)
