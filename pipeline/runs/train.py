"""The stage ``train``: one attack against every defence and partition of the grid, with as many seeds as needed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from pipeline.core.paths import DATASET
from pipeline.runs import store
from pipeline.runs.execution import Trainer, trainer
from pipeline.runs.params import Params
from pipeline.runs.plan import Planned, grid_row, whole_row
from pipeline.runs.row import Row
from pipeline.simulator.loop import Watch


class Observer(Protocol):
    """What follows a row while it trains."""

    def watch(self, cells: Sequence[Planned]) -> Watch:
        """Return what is told the evaluations of a batch of ``cells``."""

    def finish(self, records: Sequence[store.Record]) -> None:
        """Take note of the whole row."""

    def stop(self, status: Literal["KILLED", "FAILED"]) -> None:
        """Take note that the row will not be whole: it was interrupted, or something went wrong."""


Observe = Callable[[str, Sequence[Planned], Mapping[str, str]], Observer]


def train_row(root: Path, params: Params, attack: str, observe: Observe) -> None:
    """Train the cells of one attack that are missing, keep the others, and add seeds where the results ask for them.

    Args:
        root: The project's folder.
        params: Of params.yaml, tuned.
        attack: A name in ``grid.attacks``.
        observe: Given the hash of the data, the row's first cells and the key of each folder, returns what follows
            them. The seeds that are added are not watched, but finished with the others.
    """
    row = Row(root, params, store.row_folder(root, attack), f"train@{attack}")
    missing = row.settle(whole_row(params, attack))
    cells = grid_row(params, attack)
    first = [planned for planned in cells if planned.folder in missing]
    print(f"train {attack}: {len(cells)} cells, {len(first)} to train", flush=True)
    with trainer(root / DATASET, params.execution, len(missing)) as processes:
        live = _Late(lambda: observe(row.data_hash, cells, row.keys(cells)))
        with _stopped_if_it_fails(live):
            row.train(f"train {attack}", first, processes, live.watch)
            cells = _narrowed(row, attack, cells, missing, processes)
    row.settle(cells)
    live.finish(store.read_row(root, params, attack))


class _Late:
    """An observer that is made when it is first told something: that takes seconds, and the processes train by then."""

    def __init__(self, make: Callable[[], Observer]) -> None:
        self._make = make
        self._observer: Observer | None = None

    def watch(self, cells: Sequence[Planned]) -> Watch:
        """Return what is told the evaluations of a batch."""
        watch = cache(lambda: self._made().watch(cells))
        return lambda *told: watch()(*told)

    def finish(self, records: Sequence[store.Record]) -> None:
        """Take note of the whole row."""
        self._made().finish(records)

    def stop(self, status: Literal["KILLED", "FAILED"]) -> None:
        """Take note that the row will not be whole, if anything is known of it."""
        if self._observer is not None:
            self._observer.stop(status)

    def _made(self) -> Observer:
        if self._observer is None:
            self._observer = self._make()
        return self._observer


def _narrowed(row: Row, attack: str, cells: list[Planned], missing: set[str], processes: Trainer) -> list[Planned]:
    """Train further seeds until no interval asks for more; return all cells."""
    accuracies = _accuracies(row, cells)
    while len(cells := grid_row(row.params, attack, accuracies)) > len(accuracies):
        added = [planned for planned in cells if planned.folder not in accuracies]
        todo = [planned for planned in added if planned.folder in missing]
        print(f"train {attack}: {len(added)} cells more for narrower intervals, {len(todo)} to train", flush=True)
        row.train(f"train {attack}", todo, processes)
        accuracies |= _accuracies(row, added)
    return cells


@contextmanager
def _stopped_if_it_fails(live: Observer) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        live.stop("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


def _accuracies(row: Row, cells: Sequence[Planned]) -> dict[str, float]:
    return {planned.folder: row.read(planned).final["test_accuracy"] for planned in cells}
