"""The folder ``.cellcache``: what is kept of cells outside the results, and what was found damaged."""

import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pipeline.core.files import move, read_sealed, write_sealed
from pipeline.core.paths import CACHE
from pipeline.runs.cell_files import FAULTS, fractions, number_or_none
from pipeline.simulator.loop import Result

Kept = TypeVar("Kept")


class Ending(NamedTuple):
    """How one cell ended: accuracies (fractions), whether training diverged, what a filter would flag.

    ``flagged`` is the mean share of Byzantine vectors (``detection.py``); None where it was not measured.
    """

    validation_accuracy: float
    test_accuracy: float
    diverged: bool
    flagged: float | None


def remember(root: Path, key: str, result: Result) -> Ending:
    """Keep how a cell ended, whoever trained it; what a filter would flag is not forgotten."""
    final, flagged = result.final, result.steps.get("flagged")
    share = None if flagged is None else number_or_none(float(np.nanmean(flagged)))
    ending = Ending(final["validation_accuracy"], final["test_accuracy"], bool(final["diverged"]), share)
    known = recall(root, key) if share is None else None
    if known is not None:
        return known
    write_sealed(_file(root, key), {"key": key, **ending._asdict()})
    return ending


def recall(root: Path, key: str) -> Ending | None:
    """Return how a cell ended, None where that is not known; a damaged file is set aside."""

    def checked(found: dict[str, Any]) -> Ending:
        ending = Ending(**{name: value for name, value in found.items() if name != "key"})
        if found["key"] != key or not fractions(ending[:2]) or not fractions(ending.flagged or 0):
            raise ValueError("of another cell, or a share outside 0 to 1")
        return ending

    return _kept(root, _file(root, key), checked)


def _kept(root: Path, file: Path, checked: Callable[[dict[str, Any]], Kept]) -> Kept | None:
    """Return what a file holds, as ``checked`` reads it; None where it is missing, or damaged and set aside."""
    try:
        return checked(read_sealed(file))
    except FileNotFoundError:
        return None
    except FAULTS as error:
        set_aside(root, file, error)
        return None


def remember_early(root: Path, key: str, steps: int, accuracy: float) -> None:
    """Keep the validation accuracy of a cell after its first ``steps`` steps."""
    write_sealed(_early(root, key, steps), {"key": key, "steps": steps, "validation_accuracy": accuracy})


def recall_early(root: Path, key: str, steps: int) -> float | None:
    """Return what :func:`remember_early` kept, None where nothing is known; a damaged file is set aside."""

    def checked(found: dict[str, Any]) -> float:
        accuracy = float(found["validation_accuracy"])
        if (found["key"], found["steps"]) != (key, steps) or not fractions(accuracy):
            raise ValueError("of another cell, or a share outside 0 to 1")
        return accuracy

    return _kept(root, _early(root, key, steps), checked)


def _early(root: Path, key: str, steps: int) -> Path:
    return _file(root, f"{key}.step{steps}")


def _file(root: Path, key: str) -> Path:
    return root / CACHE / "evaluations" / f"{key}.json"


def set_aside(root: Path, found: Path, reason: object) -> None:
    """Move what is damaged out of the way, and say so in one line."""
    kept = CACHE / f"damaged-{uuid.uuid4().hex[:8]}-{found.name[:200]}"
    (root / CACHE).mkdir(exist_ok=True)
    move(found, root / kept)
    name = found.relative_to(root)
    print(f"{name}: damaged ({reason}), kept as {kept} and computed again", file=sys.stderr, flush=True)
