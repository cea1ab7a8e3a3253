"""What a benchmark writes: one JSON file per machine, one section per question."""

import json
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self

import torch
from pydantic import Field

from pipeline.core.component import Schema, parse
from pipeline.core.errors import UserError
from pipeline.core.files import read_json, write_text

Value = str | bool | int | float | None
Row = dict[str, Value]


class Machine(Schema):
    """What the numbers of a file have in common.

    Attributes:
        device: Name of the GPU, or of the processor where there is none.
        cpu: Name of the processor.
        cores: Processors that this process sees.
        threads: Threads that torch uses.
        tiny: Whether the sizes are toy sizes, whose times say nothing.
    """

    device: str
    cpu: str
    cores: int
    threads: int
    torch_version: str
    python_version: str
    tiny: bool

    @classmethod
    def here(cls, device: torch.device, tiny: bool) -> Self:
        """Return the description of this machine."""
        cpu, cores = _processor()
        return cls(
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
            cpu=cpu,
            cores=cores,
            threads=torch.get_num_threads(),
            torch_version=torch.__version__,
            python_version=platform.python_version(),
            tiny=tiny,
        )


def _processor() -> tuple[str, int]:
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (names[0], len(names)) if names else (platform.processor() or platform.machine(), 1)


class Measurement(Schema):
    """What one section answers its question with.

    Attributes:
        title: The question.
        method: How it was measured, in a sentence or two.
        commit: Of this project, ``-dirty`` where files were changed.
        date: Day of the measurement, UTC.
        missing: Why there are no rows; None where there are some.
        rows: A table; the keys carry the units.
    """

    title: str
    method: str
    commit: str
    date: str
    missing: str | None
    rows: Annotated[tuple[Row, ...], Field(strict=False)]

    @classmethod
    def today(cls, title: str, method: str, rows: Iterable[Row], missing: str | None = None) -> Self:
        """Return a measurement of this commit and day."""
        day = datetime.now(UTC).date().isoformat()
        return cls(title=title, method=method, commit=_commit(), date=day, missing=missing, rows=tuple(rows))


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        ran = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return ran.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Document(Schema):
    """All that was measured on one machine."""

    machine: Machine
    sections: dict[str, Measurement]

    def with_section(self, name: str, measurement: Measurement) -> Self:
        """Return the document with one section added or replaced."""
        return self.replace(sections={**self.sections, name: measurement})


def read(path: Path) -> Document:
    """Return the document at ``path``.

    Raises:
        UserError: The file is missing, or is not such a document.
    """
    try:
        document: Document = parse(Document, read_json(path), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `python -m benchmarks` writes one") from None
    except ValueError as error:
        raise UserError(f"{path}: not a file of `python -m benchmarks` ({error})") from None
    return document


def started(path: Path, machine: Machine) -> Document:
    """Return the document at ``path``, or an empty one if there is none or if it describes another machine."""
    if path.exists():
        document = read(path)
        if document.machine == machine:
            return document
    return Document(machine=machine, sections={})


def write(path: Path, document: Document) -> None:
    """Write the document atomically, with its sections and columns in order."""
    write_text(path, json.dumps(document.content(), indent=1, allow_nan=False) + "\n")
