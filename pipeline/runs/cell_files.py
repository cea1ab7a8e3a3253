"""The files of one cell: written with their checksums, and checked before they are believed.

``cell.json`` holds the cell's identity and its key, the final metrics, the checksums of the other two files, and its
own; ``steps.csv`` holds the diagnostics of every step, ``evaluations.csv`` the metrics of every evaluation.
"""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.files import content_hash, read_sealed, write_sealed
from pipeline.simulator.loop import Result
from pipeline.simulator.metrics import EVALUATION_METRICS, FINAL_METRICS, HETEROGENEITY_METRICS, STEP_METRICS

Columns = dict[str, np.ndarray]
TABLES = ("evaluations.csv", "steps.csv")
DESCRIPTION = "cell.json"
METRICS = {**FINAL_METRICS, **EVALUATION_METRICS, **HETEROGENEITY_METRICS, **STEP_METRICS}
FAULTS = (OSError, KeyError, ValueError, TypeError, AttributeError)  # what reading a damaged cell may raise


@dataclass(frozen=True)
class Stored:
    """What the files of a cell hold.

    Attributes:
        key: The cell's key.
        identity: ``cell`` (its content), ``data``, ``arithmetic`` and ``code``.
        final: ``FINAL_METRICS``, NaN where a number was not finite.
        steps: ``step`` and ``STEP_METRICS``, each ``[T]``.
        evaluations: ``steps_done`` and ``EVALUATION_METRICS``, each ``[E]``.
    """

    key: str
    identity: dict[str, Any]
    final: dict[str, float]
    steps: Columns
    evaluations: Columns


def write_cell(folder: Path, identity: Mapping[str, Any], result: Result) -> None:
    """Write the files of a cell into ``folder``."""
    evaluations = {"steps_done": np.array(result.evaluated), **result.evaluations}
    steps = {"step": np.arange(len(next(iter(result.steps.values())))), **result.steps}
    files = {}
    for name, columns in zip(TABLES, (evaluations, steps), strict=True):
        text = _as_csv(columns)
        (folder / name).write_bytes(text)
        files[name] = sha256(text).hexdigest()
    final = {name: number_or_none(value) for name, value in result.final.items()}
    described = {**identity, "key": content_hash(dict(identity)), "final": final, "files": files}
    write_sealed(folder / DESCRIPTION, described)


def number_or_none(value: float) -> float | None:
    """Return ``value``, or None where JSON has no such number."""
    return value if math.isfinite(value) else None


def _as_csv(columns: Columns) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return stream.getvalue().encode()


def read_cell(folder: Path) -> Stored:
    """Read the files of a cell, and check them.

    Raises:
        FAULTS: A file is missing or not as it was written, a number is out of its range, or there is another file.
    """
    names = sorted(path.name for path in folder.iterdir())
    if names != sorted([DESCRIPTION, *TABLES]):
        raise ValueError(f"it holds {', '.join(names) or 'nothing'}")
    described = read_sealed(folder / DESCRIPTION)
    evaluations, steps = (_table(folder, name, described["files"][name]) for name in TABLES)
    final = {name: math.nan if value is None else float(value) for name, value in described["final"].items()}
    _check_ranges({**evaluations, **steps, **{name: np.array(value) for name, value in final.items()}})
    identity = {name: described[name] for name in ("cell", "data", "arithmetic", "code")}
    return Stored(described["key"], identity, final, steps, evaluations)


def _table(folder: Path, name: str, checksum: str) -> Columns:
    text = (folder / name).read_bytes()
    if sha256(text).hexdigest() != checksum:
        raise ValueError(f"{name} is not as it was written")
    names, *rows = csv.reader(io.StringIO(text.decode("utf-8")))
    values = np.array(rows, dtype=float).reshape(len(rows), len(names))
    return {column: values[:, place] for place, column in enumerate(names)}


def _check_ranges(columns: Columns) -> None:
    """Raise ValueError where a share is not between 0 and 1; where ``unconverged`` is undefined, it is NaN."""
    for name, values in columns.items():
        unit = METRICS[name].unit if name in METRICS else ""
        if (unit == "fraction" and not fractions(values)) or (unit == "0 or 1" and not fractions(values, or_nan=True)):
            raise ValueError(f"{name} is outside 0 to 1")


def fractions(values: Any, or_nan: bool = False) -> bool:
    """Return whether all numbers are between 0 and 1."""
    numbers = np.asarray(values, dtype=float)
    inside = (numbers >= 0) & (numbers <= 1)
    return bool((inside | np.isnan(numbers)).all() if or_nan else inside.all())
