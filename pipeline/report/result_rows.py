"""The rows that ``compare`` sets side by side, read from a folder or from a revision of the git repository.

A row is one of ``results/summary.json``, a file of ``results/metrics`` or, where both sides have ``reports/``, a row of
one of its ``TABLES``. Left out are the trials, which say how a search went and not what it found, and the tables that
repeat numbers of others (worst_cases, pareto, breakdown, published, plots).
"""

import csv
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter

from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.report.analysis import GROUP
from pipeline.report.computed_on import TRACKED

Value = str | bool | int | float | None
Key = tuple[str, ...]  # the file or section a row comes from, then its names
Row = dict[str, Value]
Rows = dict[Key, Row]

IN_GIT = ("params.yaml", "results/summary.json", "results/metrics", TRACKED.as_posix())
TABLES = {
    "cells.csv": (*GROUP, "seed"),
    "comparison.csv": tuple(GROUP),
    "curves.csv": (*GROUP, "steps_done"),
    "confirmation.csv": ("study", "defence", "byzantine", "candidate"),
    "literature_and_found.csv": ("study", "defence", "byzantine"),
    "transfer.csv": ("study", "from_defence", "to_defence"),
    "ranges.csv": ("study", "defence", "byzantine"),
    "pairs.csv": ("partition", "attacks", "defence", "other"),
    "prolonged.csv": ("defence", "partition"),
    "tuned.csv": ("defence",),
    "theory.csv": ("partition", "defence"),
    "partitions.csv": ("partition",),
}


@dataclass(frozen=True)
class Side:
    """A folder with results, and what the user calls it."""

    name: str
    folder: Path


@contextmanager
def opened(root: Path, to: str) -> Iterator[Side]:
    """Yield the side that ``to`` names, a folder or a revision, whose files then lie in a temporary folder meanwhile.

    Raises:
        UserError: ``to`` is neither, or ``root`` is not in a git repository.
    """
    if to and Path(to).is_dir():
        yield Side(to, Path(to))
        return
    commit = _commit(root, to)
    with TemporaryDirectory() as temporary:
        names = _git(root, "ls-tree", "-r", "-z", "--name-only", commit, *IN_GIT).decode()
        for name in names.split("\0")[:-1]:
            path = Path(temporary, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_git(root, "show", f"{commit}:./{name}"))
        yield Side(to, Path(temporary))


def _commit(root: Path, revision: str) -> str:
    _git(root, "rev-parse", "--git-dir")  # tells a folder outside git from an unknown revision
    try:
        found = _git(root, "rev-parse", "--verify", f"{revision}^{{commit}}")
    except UserError:
        raise UserError(f"--to {revision}: neither a folder nor a revision of this repository") from None
    return found.decode().strip()


def _git(root: Path, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise UserError("git: not found; --to takes a folder, too") from None
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip().splitlines() or ["failed"]
        raise UserError(f"git: {told[0].removeprefix('fatal: ')}") from None


def read_both(here: Side, there: Side) -> tuple[Rows, Rows]:
    """Return the rows of both sides.

    Raises:
        UserError: The results of a side are missing or damaged.
    """
    ours, theirs = _results(here), _results(there)
    for name in TABLES:
        if all((side.folder / "reports" / name).exists() for side in (here, there)):
            ours |= _table(here, name)
            theirs |= _table(there, name)
    return ours, theirs


def _results(side: Side) -> Rows:
    summary = _json(side, Path("results/summary.json"), dict[str, dict[str, dict[str, Row]]])
    rows: Rows = {
        (part, group, defence): row
        for part, groups in summary.items()
        for group, defences in groups.items()
        for defence, row in defences.items()
    }
    for path in sorted((side.folder / "results" / "metrics").glob("*.json")):
        rows["metrics", path.stem] = _json(side, path.relative_to(side.folder), Row)
    return {key: {name: _number(value) for name, value in row.items()} for key, row in rows.items()}


def _json(side: Side, name: Path, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(read_json(side.folder / name))
    except FileNotFoundError:
        raise UserError(f"{side.name}: no {name}; `dvc repro` writes it") from None
    except (OSError, ValueError):
        raise _damaged(side, name) from None


def _damaged(side: Side, name: Path) -> UserError:
    return UserError(f"{side.name}: {name} is damaged: it is not what the stage analysis writes")


def _table(side: Side, name: str) -> Rows:
    path = Path("reports", name)
    try:
        with (side.folder / path).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        keyed = {(name, *(row.pop(column) for column in TABLES[name])): row for row in rows}
        table = {key: {column: _cell(text) for column, text in row.items()} for key, row in keyed.items()}
    except (OSError, ValueError, TypeError, KeyError, csv.Error):  # TypeError: a row too short or too long
        raise _damaged(side, path) from None
    if not rows or len(table) < len(rows):
        raise _damaged(side, path)
    return table


def _cell(text: str) -> Value:
    try:
        return _number(float(text))
    except ValueError:
        return text or None


def _number(value: Value) -> Value:
    """Return None for NaN, which is not equal to itself; both mean that there is no number."""
    return None if isinstance(value, float) and isnan(value) else value
