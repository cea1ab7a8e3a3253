"""The cells of a row on disk, one folder per cell, whole or absent, kept while its key matches.

A cell's folder holds ``cell.json`` (key, content, final metrics), ``steps.csv`` (diagnostics of every step) and
``evaluations.csv``. A cell that the row no longer holds moves to ``.cellcache/<key>``; one that comes back is taken
from there.
"""

import csv
import math
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import UserError
from pipeline.core.files import read_json, write_json
from pipeline.core.paths import CACHE
from pipeline.runs.params import Params
from pipeline.runs.plan import Planned, grid_row
from pipeline.simulator.loop import Result

Columns = dict[str, np.ndarray]


def row_folder(root: Path, attack: str) -> Path:
    """Return the folder of an attack's row."""
    return root / "results" / "train" / attack


def settle(root: Path, row: Path, keys: Mapping[str, str]) -> set[str]:
    """Make ``row`` hold no cell but those of ``keys``, and return the folders that are still missing.

    Args:
        root: The project's folder.
        row: The row's folder.
        keys: The key that the cell in each folder must have.
    """
    row.mkdir(parents=True, exist_ok=True)
    cache = root / CACHE
    cache.mkdir(exist_ok=True)
    for found in row.iterdir():
        if not (key := _key_of(found)) or key != keys.get(found.name):
            _retire(found, cache / (key or f"broken-{uuid.uuid4().hex[:8]}"))
    for folder, key in keys.items():
        if not (row / folder).exists() and _key_of(cache / key) == key:
            (cache / key).rename(row / folder)
    return {folder for folder in keys if not (row / folder).exists()}


def _key_of(folder: Path) -> str | None:
    """Return the key of a whole cell, None for anything else."""
    try:
        return str(read_json(folder / "cell.json")["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _retire(found: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    found.rename(target)


def write(root: Path, row: Path, planned: Planned, key: str, result: Result) -> None:
    """Write a cell's folder under a temporary name, then rename it into its row."""
    temporary = root / CACHE / f"writing-{uuid.uuid4().hex[:8]}"
    temporary.mkdir(parents=True)
    evaluations = {"steps_done": np.array(result.evaluated), **result.evaluations}
    steps = {"step": np.arange(len(next(iter(result.steps.values())))), **result.steps}
    _write_columns(temporary / "evaluations.csv", evaluations)
    _write_columns(temporary / "steps.csv", steps)
    final = {name: number_or_none(value) for name, value in result.final.items()}
    write_json(temporary / "cell.json", {"key": key, "cell": planned.cell.content(), "final": final})
    temporary.rename(row / planned.folder)


def number_or_none(value: float) -> float | None:
    """Return ``value``, or None where JSON has no such number."""
    return value if math.isfinite(value) else None


def _write_columns(path: Path, columns: Columns) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _read_columns(path: Path) -> Columns:
    with path.open(newline="", encoding="utf-8") as stream:
        names, *rows = csv.reader(stream)
    values = np.array(rows, dtype=float).reshape(len(rows), len(names))
    return {name: values[:, column] for column, name in enumerate(names)}


@dataclass(frozen=True)
class Record:
    """A cell read back.

    Attributes:
        planned: Which cell.
        key: Its identity.
        final: ``FINAL_METRICS``, NaN where a number was not finite.
        steps: ``step`` and ``STEP_METRICS``, each ``[T]``.
        evaluations: ``steps_done`` and ``EVALUATION_METRICS``, each ``[E]``.
    """

    planned: Planned
    key: str
    final: dict[str, float]
    steps: Columns
    evaluations: Columns


def read(row: Path, planned: Planned) -> Record:
    """Read one cell.

    Raises:
        UserError: The cell is missing, broken, or was trained with other parameters.
    """
    folder = row / planned.folder
    again = f"run `dvc repro train@{planned.attack}`"
    try:
        described: dict[str, Any] = read_json(folder / "cell.json")
        steps, evaluations = _read_columns(folder / "steps.csv"), _read_columns(folder / "evaluations.csv")
        final = {name: math.nan if value is None else float(value) for name, value in described["final"].items()}
        key, content = described["key"], described["cell"]
    except FileNotFoundError:
        raise UserError(f"{folder}: no such result; {again}") from None
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: not a whole result ({error}); {again}") from None
    if content != planned.cell.content():
        raise UserError(f"{folder}: trained with other parameters than params.yaml states; {again}")
    return Record(planned, key, final, steps, evaluations)


def read_row(root: Path, params: Params, attack: str) -> list[Record]:
    """Read all cells of one attack: those that the grid asks for, and those that their results ask for.

    Raises:
        UserError: A cell is missing, broken, or was trained with other parameters.
    """
    found: dict[str, Record] = {}
    while True:
        cells = grid_row(params, attack, {folder: record.final["test_accuracy"] for folder, record in found.items()})
        if all(planned.folder in found for planned in cells):
            return [found[planned.folder] for planned in cells]
        new = [planned for planned in cells if planned.folder not in found]
        found |= {planned.folder: read(row_folder(root, attack), planned) for planned in new}


def retire_rows(root: Path, trained: Sequence[str], searched: Sequence[str], tuned: Sequence[str]) -> None:
    """Take away the results that params.yaml no longer names; cells go to the cache.

    Args:
        root: The project's folder.
        trained: The attacks of the grid.
        searched: The studies of the search.
        tuned: The defences that are tuned.
    """
    for row in _folders(root / "results" / "train"):
        if row.name not in trained:
            settle(root, row, {})
            row.rmdir()
    for parent, names in (("search", searched), ("tune", tuned)):
        for row in _folders(root / "results" / parent):
            if row.name not in names:
                shutil.rmtree(row)


def _folders(parent: Path) -> list[Path]:
    return [entry for entry in parent.iterdir() if entry.is_dir()] if parent.exists() else []
