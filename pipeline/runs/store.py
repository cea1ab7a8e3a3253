"""The cells of a row on disk, one folder per cell, whole or absent, kept while its key matches.

A cell that the row no longer holds moves to ``.cellcache/<key>``; one that comes back is taken from there. A damaged
one is set aside there, and counts as missing.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.files import WRITING, move, naming, remove, temporary_in
from pipeline.core.paths import CACHE, DATASET
from pipeline.data.dataset import data_hash
from pipeline.runs.cache import set_aside
from pipeline.runs.cell_files import FAULTS, Columns, read_cell, write_cell
from pipeline.runs.params import Params
from pipeline.runs.plan import Planned, grid_row
from pipeline.simulator.loop import Result

OTHER = {"cell": "parameters than params.yaml states", "data": f"data than {DATASET} holds", "code": "code"}


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
    for found in list(row.iterdir()):
        if found.name.startswith(WRITING):
            remove(found)
        elif (key := _key_of(root, found)) and key != keys.get(found.name):
            _retire(root, found, key)
    missing = {folder: root / CACHE / key for folder, key in keys.items() if not (row / folder).exists()}
    for folder, kept in missing.items():
        if kept.exists() and _key_of(root, kept, kept.name):
            move(kept, row / folder)
    return {folder for folder in missing if not (row / folder).exists()}


def _key_of(root: Path, folder: Path, wanted: str | None = None) -> str | None:
    """Return the key of a whole cell; anything else is set aside, and so is a cell of another key than the wanted."""
    try:
        key = read_cell(folder).key
        if wanted not in (None, key):
            raise ValueError("another cell")
    except FAULTS as error:
        set_aside(root, folder, error)
        return None
    return key


def _retire(root: Path, found: Path, key: str) -> None:
    """Move a cell to the cache; if its twin is there already, one of them is enough."""
    kept = root / CACHE / key
    if kept.exists() and _key_of(root, kept, key):
        remove(found)
    else:
        kept.parent.mkdir(exist_ok=True)
        move(found, kept)


def write(row: Path, planned: Planned, identity: Mapping[str, Any], result: Result) -> None:
    """Write a cell's folder under a temporary name, then rename it."""
    temporary = temporary_in(row)
    with naming(row / planned.folder):
        temporary.mkdir()
        write_cell(temporary, identity, result)
    temporary.rename(row / planned.folder)


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


def read(row: Path, planned: Planned, data: str, stage: str) -> Record:
    """Read one cell.

    What computed it (processor or GPU, version of PyTorch) is not compared: results may come from another machine.

    Args:
        row: The row's folder.
        planned: Which cell.
        data: The hash of the prepared data.
        stage: Which stage writes the row.

    Raises:
        UserError: The cell is missing, damaged, or was trained with other parameters, data or code.
    """
    folder = row / planned.folder
    if not folder.exists():
        raise UserError(f"{folder}: no such result; run `dvc repro {stage}`")
    try:
        found = read_cell(folder)
    except FAULTS as error:
        raise UserError(f"{folder}: not a whole result ({error}); run `dvc repro -f -s {stage}`") from None
    wanted = {"cell": planned.cell.content(), "data": data, "code": planned.cell.code}
    differing = [OTHER[part] for part in wanted if found.identity[part] != wanted[part]]
    if differing:
        raise UserError(f"{folder}: trained with other {' and other '.join(differing)}; run `dvc repro {stage}`")
    return Record(planned, found.key, found.final, found.steps, found.evaluations)


def read_row(root: Path, params: Params, attack: str) -> list[Record]:
    """Read all cells of one attack: those that the grid asks for, and those that their results ask for.

    Raises:
        UserError: A cell is missing, damaged, or was trained with other parameters, data or code.
    """
    row, data, stage = row_folder(root, attack), data_hash(root / DATASET), f"train@{attack}"
    found: dict[str, Record] = {}
    while True:
        cells = grid_row(params, attack, {folder: record.final["test_accuracy"] for folder, record in found.items()})
        if all(planned.folder in found for planned in cells):
            return [found[planned.folder] for planned in cells]
        new = [planned for planned in cells if planned.folder not in found]
        found |= {planned.folder: read(row, planned, data, stage) for planned in new}


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
