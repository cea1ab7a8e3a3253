"""``python -m benchmarks``: measures section by section, prints tables, writes one JSON file per machine."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import grid, memory, peer, rules, startup, steps
from benchmarks.document import Document, Machine, Measurement, Row, read, started, write
from benchmarks.tables import machine_line, markdown, section
from benchmarks.timing import Conditions
from pipeline.core.component import allowed
from pipeline.core.errors import UserError
from pipeline.runs.execution import device


@dataclass(frozen=True)
class Part:
    """A section that can be measured: its texts, and the function that yields its rows."""

    title: str
    method: str
    measure: Callable[[Conditions], Iterator[Row]]


SECTIONS = {
    "rules": Part(rules.TITLE, rules.METHOD, rules.measure),
    "step": Part(steps.STEP_TITLE, steps.STEP_METHOD, steps.measure_steps),
    "replicas": Part(steps.REPLICAS_TITLE, steps.REPLICAS_METHOD, steps.measure_replicas),
    "peer": Part(peer.TITLE, peer.METHOD, peer.measure),
    "memory": Part(memory.TITLE, memory.METHOD, memory.measure),
    "startup": Part(startup.STARTUP_TITLE, startup.STARTUP_METHOD, startup.measure_startup),
    "repro": Part(startup.REPRO_TITLE, startup.REPRO_METHOD, startup.measure_repro),
    "grid": Part(grid.GRID_TITLE, grid.GRID_METHOD, grid.measure_grid),
    "agreement": Part(grid.AGREEMENT_TITLE, grid.AGREEMENT_METHOD, grid.measure_agreement),
}

ONLY_WHEN_NAMED = {"repro"}


def show(path: Path) -> None:
    """Print the tables of a file.

    Raises:
        UserError: There is no such file, or it holds something else.
    """
    print(markdown(read(path)), end="")


def bench(names: Sequence[str], out: Path, threads: int, tiny: bool) -> Document:
    """Measure the sections ``names``, or all that take minutes at most; write each section as soon as it ends.

    Raises:
        UserError: A name is unknown, or none of the sections could be measured.
    """
    names = names or [name for name in SECTIONS if tiny or name not in ONLY_WHEN_NAMED]
    for name in names:
        if name not in SECTIONS:
            raise UserError(f"bench --sections {name}: no such section; {allowed(name, SECTIONS)}")
    torch.set_num_threads(threads)
    conditions = Conditions(device("auto"), tiny)
    machine = Machine.here(conditions.device, tiny)
    path = out / f"{_file_name(machine)}.json"
    document = started(path, machine)
    print(machine_line(machine), flush=True)
    for name in names:
        document = document.with_section(name, _measured(SECTIONS[name], conditions))
        print(f"\n{section(document.sections[name])}", flush=True)
        write(path, document)
    print(f"\n{path}")
    _refuse_nothing([document.sections[name] for name in names])
    return document


def _measured(part: Part, conditions: Conditions) -> Measurement:
    """Return the measurement, or one without rows that says why the section cannot be measured."""
    try:
        return Measurement.today(part.title, part.method, part.measure(conditions))
    except UserError as error:
        return Measurement.today(part.title, part.method, [], str(error))


def _refuse_nothing(sections: Sequence[Measurement]) -> None:
    """Raise an error if no section has a row."""
    if all(measured.missing for measured in sections):
        raise UserError("; ".join(str(measured.missing) for measured in sections))


def _file_name(machine: Machine) -> str:
    """Return the device's name as a file name."""
    words = re.sub(r"[^a-z0-9]+", "-", machine.device.lower()).strip("-")
    return f"{words}-tiny" if machine.tiny else words
