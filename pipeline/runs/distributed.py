"""The command ``distributed``: a cell as processes that exchange vectors and parameters, beside the simulated one."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist

from pipeline.core.component import allowed, parse
from pipeline.core.errors import UserError
from pipeline.core.paths import DATASET
from pipeline.runs.gloo import Report, party
from pipeline.runs.params import Execution, Params
from pipeline.runs.together import together
from pipeline.simulator.cell import Cell
from pipeline.simulator.distributed import SERVER

Launch = Callable[[Path, Execution, Cell], Report | None]
SECONDS = 10  # in which the first process of a machine tells what is wrong


def run_distributed(
    root: Path, params: Params, attack: str, defence: str, workers: int | None, byzantine: int | None
) -> None:
    """Train a cell as a server and n workers, each a process, and tell how it compares with the simulated one.

    Under ``torchrun`` this process is one of them, otherwise they are started here.

    Args:
        root: The project's folder.
        params: Of params.yaml.
        attack: A name in ``attacks``.
        defence: A name in ``defences``.
        workers: n; None: as in params.yaml.
        byzantine: b, all of them tolerated; None: as in params.yaml.

    Raises:
        UserError: A wrong name or number, no gloo, another number of processes, machines that differ, or parameters
            that do.
    """
    try:
        _train(f"{attack} against {defence}", root, params, _cell(params, attack, defence, workers, byzantine))
    except UserError:
        if int(os.environ.get("LOCAL_RANK", 0)) > 0:
            _end_when_told()
            time.sleep(SECONDS)  # the first of this machine tells the same, and then torchrun ends the others
        raise


def _launched() -> int | None:
    """Return how many processes ``torchrun`` has started; None where it did not start this one.

    Raises:
        UserError: A variable that it sets is missing.
    """
    if "RANK" not in os.environ:
        return None
    if missing := [name for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UserError(f"distributed: RANK is set, but not {' and '.join(missing)}; use torchrun, or unset RANK")
    return int(os.environ["WORLD_SIZE"])


def _train(title: str, root: Path, params: Params, cell: Cell) -> None:
    if not (dist.is_available() and dist.is_gloo_available()):
        raise UserError(f"distributed: PyTorch {torch.__version__} here was built without gloo; install one from PyPI")
    world, launched = cell.threat.workers + 1, _launched()
    if launched not in (None, world):
        raise UserError(_wrong_size(launched, cell))
    rank = int(os.environ.get("RANK", SERVER))
    if rank == SERVER:
        print(f"{title}: {_described(cell)}", flush=True)
    if launched is None:
        launch: Launch = started_here
    else:
        launch = partial(party, rank, world, "env://")
        _end_when_told()
    report = launch(root / DATASET, params.execution, cell)
    if report is not None:
        print(_compared(report), flush=True)
        if not all(report.equal):
            raise UserError(f"distributed: step {report.equal.index(False)} gave other parameters than simulated")


def _end_when_told() -> None:
    """Have Ctrl-C and torchrun end this process at once: Python does not hear them while it waits for another one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _cell(params: Params, attack: str, defence: str, workers: int | None, byzantine: int | None) -> Cell:
    """Return the cell of the grid's first partition and seed, with another threat where one is given."""
    for name, section in ((attack, "attacks"), (defence, "defences")):
        if name not in getattr(params, section):
            raise UserError(f"distributed {name}: not in {section}; {allowed(name, getattr(params, section))}")
    threat, entry = params.threat.content(), params.defences[defence]
    if workers is not None:
        threat["workers"] = workers
    if byzantine is not None:
        threat |= {"byzantine": byzantine, "tolerated": byzantine}
    rate = params.training.learning_rate if entry.learning_rate is None else entry.learning_rate
    raw = {
        "model": params.model,
        "partition": params.partitions[params.grid.partitions[0]],
        "threat": threat,
        "training": params.training.replace(learning_rate=rate),
        "defence": entry.defence,
        "attack": params.attacks[attack],
        "seed": params.grid.seeds[0],
    }
    cell: Cell = parse(Cell, raw, "distributed")
    return cell


def _wrong_size(launched: int, cell: Cell) -> str:
    return (
        f"distributed: {launched} processes, but {cell.threat.workers} workers and a server are "
        f"{cell.threat.workers + 1}; start as many, or give --workers {launched - 1} and --byzantine"
    )


def _described(cell: Cell) -> str:
    threat = cell.threat
    of_round = "" if threat.sampled is None else f", {threat.sampled} of them in a round"
    return (
        f"{cell.training.steps} steps, {threat.workers} workers ({threat.byzantine} Byzantine){of_round}, "
        f"{threat.workers + 1} processes"
    )


def _compared(report: Report) -> str:
    steps, (distributed, simulated) = len(report.equal), report.accuracies
    return "\n".join(
        [
            f"parameters equal to the simulated cell's, bit for bit: after {sum(report.equal)} of {steps} steps",
            f"largest difference of a parameter after any step: {report.difference}",
            f"test accuracy: {distributed:.4f} distributed, {simulated:.4f} simulated",
            f"bytes per step: {report.down:,.0f} from the server, {report.up:,.0f} from the workers",
            f"bytes per step that only the experiment needs, to and from the adversary: {report.overheard:,.0f}",
        ]
    )


def started_here(data: Path, execution: Execution, cell: Cell) -> Report:
    """Start all processes of a distributed cell on this machine; see :func:`party`."""
    world = cell.threat.workers + 1
    with TemporaryDirectory() as folder:
        report: Report = together(world, party, world, f"file://{folder}/rendezvous", data, execution, cell)
        return report
