"""Checkpoints: a file for each cell under way, from which its training goes on to the same bits.

The file is named after the cell's key, so a cell finds its own in whatever batch it goes on. It is removed when the
cell is written.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from time import monotonic
from typing import Self

from safetensors import SafetensorError, safe_open

from pipeline.core.paths import CACHE
from pipeline.data.dataset import write_tensors
from pipeline.runs.cache import set_aside
from pipeline.runs.cell_files import FAULTS
from pipeline.simulator.loop import Keep, never
from pipeline.simulator.program import Program
from pipeline.simulator.snapshot import Slice, Snapshot, joined, slices

VERSION = 1  # of what a file holds


@dataclass(frozen=True)
class Checkpoints:
    """Those of some cells, in their order.

    Attributes:
        root: The project's folder.
        names: Of the files: the cell's key, and what is measured besides.
    """

    root: Path
    names: tuple[str, ...]

    @classmethod
    def named(cls, root: Path, keys: Iterable[str], detect: bool = False, heterogeneity: bool = False) -> Self:
        """Return those of the cells with these keys; see :func:`pipeline.runs.execution.train`."""
        measured = f"{'.detect' if detect else ''}{'.heterogeneity' if heterogeneity else ''}"
        return cls(root, tuple(f"{key}{measured}" for key in keys))

    def of(self, positions: Iterable[int]) -> "Checkpoints":
        """Return those of the cells at ``positions``."""
        return Checkpoints(self.root, tuple(self.names[position] for position in positions))

    @cached_property
    def done(self) -> list[int]:
        """How many steps of each cell are done; a damaged file is set aside, and its cell starts anew."""
        found = map(self._read, self.names)
        return [0 if kept is None else kept["steps"].shape[-1] for kept in found]

    def joined(self, program: Program) -> Snapshot | None:
        """Return where the cells, which are the replicas of ``program``, stand; None for at the start."""
        members = [kept for kept in map(self._read, self.names) if kept is not None]
        return joined(program, members) if members else None

    def write(self, members: Iterable[Slice]) -> None:
        """Write the slices of all cells; what the system refuses is told, and training goes on without."""
        try:
            for name, kept in zip(self.names, members, strict=True):
                described = {"cell": name, "version": VERSION, "checksum": _checksum(name, kept)}
                write_tensors(self._file(name), kept, {"checkpoint": json.dumps(described)})
        except OSError as error:
            print(f"checkpoint not written ({error}); training goes on", file=sys.stderr, flush=True)

    def remove(self) -> None:
        """Remove the files of all cells."""
        for name in self.names:
            self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.root / CACHE / "checkpoints" / f"{name}.safetensors"

    def _read(self, name: str) -> Slice | None:
        file = self._file(name)
        try:
            file.open("rb").close()  # to safetensors, every file that it cannot open is a missing one
            return _checked(file, name)
        except FileNotFoundError:
            return None
        except (*FAULTS, SafetensorError) as error:
            set_aside(self.root, file, error)
            return None


def keeping(checkpoints: Checkpoints | None, program: Program, minutes: float, until: int | None) -> Keep:
    """Return what writes checkpoints of a batch every ``minutes``, and at its last step where it stops early."""
    if checkpoints is None:
        return never
    due = monotonic() + 60 * minutes

    def keep(done: int, snapshot: Callable[[], Snapshot]) -> None:
        nonlocal due
        if monotonic() < due and done != until:
            return
        try:
            checkpoints.write(slices(program, snapshot()))
            due = monotonic() + 60 * minutes
        except TypeError as error:
            print(f"no checkpoints: {error}", file=sys.stderr, flush=True)
            due = inf

    return keep


def _checked(file: Path, name: str) -> Slice:
    with safe_open(file, framework="pt") as opened:
        described = json.loads((opened.metadata() or {})["checkpoint"])
        kept = {tensor: opened.get_tensor(tensor) for tensor in opened.keys()}  # noqa: SIM118
    if described["version"] != VERSION:
        raise ValueError("of another version")
    if described["cell"] != name:
        raise ValueError("of another cell")
    if described["checksum"] != _checksum(name, kept):
        raise ValueError("its checksum is another")
    return kept


def _checksum(name: str, kept: Slice) -> str:
    digest = hashlib.sha256(f"{VERSION}:{name}".encode())
    for title, tensor in sorted(kept.items()):
        digest.update(f"{title}:{tensor.dtype}:{list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
