"""The sections ``startup`` and ``repro``: what a stage costs before it computes, and what a default run costs."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.document import Row
from benchmarks.timing import Conditions
from pipeline.core.errors import UserError

STARTUP_TITLE = "Start-up of a stage"
STARTUP_METHOD = (
    "Seconds of `python -c 'import ...'` for the modules that each command imports, `pipeline.runs.params` among them; "
    "medians of three fresh processes with a warm file cache."
)
REPRO_TITLE = "A default `dvc repro`"
REPRO_METHOD = (
    "In a fresh clone of the last commit, without any cache. Seconds between the lines with which DVC announces its "
    "stages; computing starts with the stage's own first line, after imports and reading the data."
)
MODULES = {
    "python": "sys",
    "simulator": "pipeline.runs.execution",
    "download, prepare": "pipeline.runs.params, pipeline.data.prepare",
    "train": "pipeline.runs.params, pipeline.runs.train",
    "search": "pipeline.runs.params, pipeline.search.stage",
    "analysis": "pipeline.runs.params, pipeline.report.report",
    "track": "pipeline.runs.params, pipeline.tracking.track",
}
ROOT = Path(__file__).resolve().parents[1]


def measure_startup(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per stage."""
    for stage in ["python", "simulator"] if conditions.tiny else MODULES:
        times = [_seconds_of_import(MODULES[stage]) for _ in range(1 if conditions.tiny else 3)]
        yield {"stage": stage, "imports": MODULES[stage], "s": median(times)}


def _seconds_of_import(modules: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], cwd=ROOT, check=True)
    return time.perf_counter() - start


def measure_repro(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per stage of a default run, then one for the whole run.

    Raises:
        UserError: Toy sizes are asked for, the clone fails, or the run fails.
    """
    if conditions.tiny:
        raise UserError("the default run has one size, no toy one")
    with tempfile.TemporaryDirectory() as folder:
        yield from stage_times(list(_default_run(Path(folder) / "clone")))


def _default_run(clone: Path) -> Iterator[tuple[float, str]]:
    """Run ``dvc repro`` in a new clone; yield each line that it prints, with its time in seconds."""
    cloned = subprocess.run(["git", "clone", "--quiet", ROOT, clone], capture_output=True, text=True)
    if cloned.returncode:
        raise UserError(f"bench --sections repro: no clone of {ROOT}: {cloned.stderr.strip()}")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "dvc", "repro"]
    environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
    run = subprocess.Popen(command, cwd=clone, env=environment, text=True, stdout=subprocess.PIPE)
    start = time.perf_counter()
    assert run.stdout is not None
    for line in run.stdout:
        yield time.perf_counter() - start, line
    if run.wait():
        raise UserError("bench --sections repro: dvc repro failed in a fresh clone")
    yield time.perf_counter() - start, "end"


def stage_times(lines: list[tuple[float, str]]) -> Iterator[Row]:
    """Yield one row per stage that the lines of ``dvc repro`` announce, then one for the whole run.

    Args:
        lines: Seconds since the start, and the text; the last one marks the end.

    Example:
        >>> lines = [(1.0, "Running stage 'train@none':"), (4.0, "train none: 60 cells, 60 to train"), (9.0, "end")]
        >>> list(stage_times(lines))[0]
        {'stage': 'train@none', 's': 8.0, 'computing s': 5.0, 'of the run': 0.5555555555555556}
    """
    total = lines[-1][0]
    starts = [(at, text.split("'")[1]) for at, text in lines if text.startswith("Running stage '")]
    ends = [at for at, _ in starts[1:]] + [total]
    rows = [_stage_row(name, at, end, lines, total) for (at, name), end in zip(starts, ends, strict=True)]
    computing = sum(float(row["computing s"] or 0.0) for row in rows)
    yield from rows
    yield {"stage": "all", "s": total, "computing s": computing, "of the run": computing / total}


def _stage_row(name: str, start: float, end: float, lines: list[tuple[float, str]], total: float) -> Row:
    first = name.replace("@", " ") + ":"  # such as "train alie: 60 cells, 60 to train"
    computing = next((end - at for at, text in lines if text.startswith(first) and at >= start), None)
    of_run = None if computing is None else computing / total
    return {"stage": name, "s": end - start, "computing s": computing, "of the run": of_run}
