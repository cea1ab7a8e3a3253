"""The same in processes that talk over gloo: one pair in CI, all of them with ``make soak``."""

import os
import signal
import subprocess
import sys
from itertools import product

import psutil
import pytest
from parties import ATTACKED, DATASET, DEFENDED, LOCAL, SAMPLED, THREATS, cell, one_after_the_other
from support import ROOT, parameters

from pipeline.core.errors import UserError
from pipeline.core.paths import DATASET as FILE
from pipeline.data.dataset import write
from pipeline.runs.distributed import started_here
from pipeline.runs.together import together

EXECUTION = parameters().execution


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with parameters and prepared data."""
    folder = tmp_path_factory.mktemp("project")
    write(folder / FILE, DATASET)
    (folder / "params.yaml").write_bytes((ROOT / "tests" / "params.yaml").read_bytes())
    return folder


def equal(report, one):
    whole = report.equal == [True] * one.training.steps
    return whole and report.difference == 0.0 and report.accuracies[0] == report.accuracies[1]


def test_processes_give_the_simulated_parameters_and_count_their_bytes(project):
    one = cell("optimal_ipm", "bucketing clipping", 5)
    report = started_here(project / FILE, EXECUTION, one)
    assert equal(report, one)
    d, n, b, number = 53, 5, 1, 8
    assert report.down == number * n * (d + 1)  # the parameters, and each worker's place
    assert report.up == number * n * d
    assert report.overheard == number * (n - b + 2) * d  # the last aggregate and the defence's memory as well


def sudden(rank):
    if rank == 1:
        os._exit(3)
    signal.pause()


def wrong(rank):
    if rank == 1:
        raise UserError("this is wrong")
    signal.pause()


@pytest.mark.parametrize(("function", "told"), [(wrong, "^this is wrong$"), (sudden, "^process 1 of 3 died$")])
def test_one_that_fails_or_dies_ends_the_others(function, told):
    with pytest.raises(UserError, match=told):
        together(3, function)
    running = [process.cmdline() for process in psutil.Process().children(recursive=True)]
    assert sum("multiprocessing.forkserver" in " ".join(command) for command in running) <= 1  # what forks them


def kinds(threat):
    for training, defence, attack in product(({}, LOCAL), DEFENDED, ATTACKED):
        if not (attack.startswith("mimic") and threat == SAMPLED):  # it copies one worker, who must take part
            yield (training, defence, attack), cell(attack, defence, threat, **training)


@pytest.mark.soak
@pytest.mark.parametrize("threat", THREATS)
def test_every_kind_gives_the_simulated_parameters(threat, project, tmp_path):
    names, cells = zip(*kinds(threat), strict=True)
    world = cells[0].threat.workers + 1
    reports = together(world, one_after_the_other, world, f"file://{tmp_path}/here", project / FILE, EXECUTION, cells)
    assert len(reports) > 150
    assert [name for name, one, report in zip(names, cells, reports, strict=True) if not equal(report, one)] == []


COMMAND = ["-m", "pipeline", "distributed", "sign_flip", "median", "--workers", "4", "--byzantine", "1"]


def command(project, *start):
    settings = {"cwd": project, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True, "start_new_session": True}
    return subprocess.Popen([*start, *COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)


@pytest.mark.soak
def test_torchrun_starts_the_same_processes(project):
    by_itself, told = command(project, sys.executable).communicate(timeout=300)
    torchrun = command(project, sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "5")
    assert torchrun.communicate(timeout=300)[0] == by_itself, told
    assert "bit for bit: after 150 of 150 steps" in by_itself


@pytest.mark.soak
def test_an_interruption_leaves_nothing_running(project):
    process = command(project, sys.executable)
    assert process.stdout.readline().startswith("sign_flip against median")
    children = []
    while len(children) < 5:
        children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told.splitlines()[-1]) == (130, "interrupted")
    assert "Traceback" not in told
    assert psutil.wait_procs(children, timeout=10)[1] == []
