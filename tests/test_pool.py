"""Batches are trained by real processes: the same bits, whatever happens to the processes."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from support import ROOT, assert_identical, blobs, cell, parameters, train, trainer

from pipeline.core.environment import environment
from pipeline.core.errors import UserError
from pipeline.data.dataset import write
from pipeline.runs import execution
from pipeline.runs.pool import Pool, Task, plain_errors

DATASET = blobs()
CELLS = [cell("alie", defence, seed=seed) for defence in ("krum", "median") for seed in range(3)]
LONG = {"training.steps": 10**6}


@pytest.fixture(autouse=True)
def real_pool(monkeypatch):
    monkeypatch.setattr(execution, "Pool", Pool)


def unwatched(_):
    return lambda *_: None


def results(cells, ready, watch=unwatched):
    found = {}
    for positions, trained in execution.train(cells, ready, watch):
        found.update(zip(positions, trained, strict=True))
    return [found[position] for position in range(len(cells))]


def workers():
    """The processes of pools that this one has started."""
    return [child for child in psutil.Process().children() if "popen_loky" in " ".join(child.cmdline())]


def returned(pool, function, *arguments):
    ((_, value),) = pool.run([Task(None, function, arguments, lambda *_: None)])
    return value


def nothing():
    pass


def test_a_process_that_the_system_does_not_let_start_is_told(monkeypatch):
    def refuse(**_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("pipeline.runs.pool.Pipe", refuse)
    with pytest.raises(UserError, match=r"^execution.processes: .* could not be started: Too many open files; "):
        Pool([{}], nothing).__enter__()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")])
def test_memory_that_does_not_suffice_in_a_process_is_no_traceback(error):
    with pytest.raises(MemoryError), plain_errors():
        raise error


def variables(_, names, __):
    return {name: os.environ.get(name) for name in names}


def state(*_):
    return torch.get_num_threads(), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []), os.getpid()


def fail(_, error, __):
    raise error


def two_replicas_at_most(*_):
    """Let larger batches fail for want of memory, in this process from now on."""
    run = execution.run

    def limited(program, *others):
        if len(program.initial) > 2:
            raise MemoryError
        return run(program, *others)

    execution.run = limited


@pytest.mark.parametrize("processes", [1, 3])
def test_results_are_those_of_one_process_and_every_evaluation_is_told(processes):
    told = []
    with trainer(DATASET, processes=processes) as ready:
        assert len(workers()) == processes
        trained = results(CELLS, ready, lambda positions: lambda steps, _: told.append((positions, steps)))
        again = results(CELLS, ready)
    assert workers() == []
    for here, result, repeated in zip(train(CELLS, DATASET), trained, again, strict=True):
        assert_identical(here, result)
        assert_identical(here, repeated)
    batches = {tuple(positions): [t for other, t in told if other == positions] for positions, _ in told}
    assert len(batches) == processes
    assert sorted(position for batch in batches for position in batch) == list(range(6))
    assert all(steps == [0, 4, 6] for steps in batches.values())


def test_a_process_killed_once_changes_nothing_and_tells_nothing_twice():
    told = []

    def watch(steps, _):
        told.append(steps)
        if len(told) == 2:
            workers()[0].kill()

    cells = [here.replace(training=here.training.replace(steps=400)) for here in CELLS]
    with trainer(DATASET, processes=1) as ready:
        trained = results(cells, ready, lambda _: watch)
    assert told == list(range(0, 401, 4))
    for here, result in zip(train(cells, DATASET), trained, strict=True):
        assert_identical(here, result)


def test_a_process_killed_while_it_waits_is_replaced():
    with trainer(DATASET, processes=1) as ready:
        first = results(CELLS, ready)
        (worker,) = workers()
        worker.kill()
        worker.wait()
        for here, result in zip(first, results(CELLS, ready), strict=True):
            assert_identical(here, result)


def test_a_process_killed_twice_over_a_batch_is_one_user_error():
    with (
        trainer(DATASET, processes=2) as ready,
        pytest.raises(UserError, match=r"ended twice .* \{SIGKILL\(-9\)\}; .* lower execution.processes"),
    ):
        results([cell(changes=LONG)], ready, lambda _: lambda *_: [worker.kill() for worker in workers()])
    assert workers() == []


def test_a_batch_without_memory_is_halved():
    with trainer(DATASET, processes=1) as ready:
        returned(ready.pool, two_replicas_at_most)
        batches = list(execution.train(CELLS[:5], ready, unwatched))
    assert [positions for positions, _ in batches] == [[0, 1], [2], [3, 4]]
    expected = train(CELLS[:5], DATASET)
    for positions, trained in batches:
        for position, result in zip(positions, trained, strict=True):
            assert_identical(result, expected[position])


def test_errors_arrive_and_the_process_goes_on():
    with Pool([{}], nothing) as pool:
        with pytest.raises(UserError, match=r"^threat.workers: too few$"):
            returned(pool, fail, UserError("threat.workers: too few"))
        with pytest.raises(OSError, match="No space left on device: 'results/train/ipm'"):
            returned(pool, fail, OSError(28, "No space left on device", "results/train/ipm"))
        with pytest.raises(RuntimeError, match=r"(?s)Traceback.*in fail.*ZeroDivisionError: by nought"):
            returned(pool, fail, ZeroDivisionError("by nought"))
        assert returned(pool, state)[2] == workers()[0].pid


def test_an_error_of_the_preparation_arrives():
    with Pool([{}], fail, None, UserError("no data"), None) as pool, pytest.raises(UserError, match="no data"):
        returned(pool, state)


def test_a_run_that_is_abandoned_leaves_nothing_behind():
    with trainer(DATASET, processes=2) as ready:
        run = execution.train([cell(changes=LONG), CELLS[0]], ready, unwatched)
        next(run)
        run.close()
        assert_identical(results(CELLS[:1], ready)[0], train(CELLS[:1], DATASET)[0])


def test_no_more_processes_are_started_than_there_are_cells(tmp_path):
    write(tmp_path / "data", DATASET)
    settings = parameters({"execution.processes": 3, "execution.device": "cpu"}).execution
    for cells in (0, 1):
        with execution.trainer(tmp_path / "data", settings, cells) as ready:
            assert len(workers()) == cells
            assert list(execution.train([], ready, unwatched)) == []


def parent():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return dict(os.environ), handlers, mask, torch.get_num_threads(), threading.active_count()


def test_a_process_has_its_environment_and_one_thread_and_the_parent_keeps_its_own():
    before = parent()
    wanted = [{**environment(), "ATEN_CPU_CAPABILITY": level} for level in ("avx2", "default")]
    with Pool(wanted, nothing) as pool:
        tasks = [Task(None, variables, (list(wanted[0]),), lambda *_: None) for _ in wanted]
        found = [value for _, value in pool.run(tasks)]
    assert sorted(found, key=lambda value: value["ATEN_CPU_CAPABILITY"]) == wanted
    with trainer(DATASET, processes=1) as ready:
        threads, deaf, _ = returned(ready.pool, state)
    assert (threads, deaf) == (1, True)
    until = time.monotonic() + 10
    while threading.active_count() > before[-1] and time.monotonic() < until:
        time.sleep(0.05)  # loky's own thread ends soon after its process
    *after, threads = parent()
    assert after == [*before[:-1]]
    assert threads <= before[-1]  # one of an earlier pool may have ended meanwhile


SCRIPT = """
import sys
from pathlib import Path
from support import blobs, cell, trainer
from pipeline.runs import execution

def watch(positions):
    return lambda steps, _: print("told", flush=True)

cells = [cell(seed=seed, changes={"training.steps": 10**6}) for seed in range(2)]
with trainer(blobs(), processes=2) as ready:
    print("started", flush=True)
    list(execution.train(cells, ready, watch))
"""


AHEAD = """
from pipeline.core.environment import environment
from pipeline.runs.pool import start_ahead
start_ahead(environment(), "pipeline.runs.execution")
"""


@pytest.fixture
def script(tmp_path, request):
    """A training that goes on for ever, from a script without a main guard, in a process group of its own.

    Or, where it is asked for, with processes that are forked from one that was started ahead, as in a stage.
    """
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen(
        [sys.executable, "-c", AHEAD + SCRIPT]
        if request.param == "stage"
        else [sys.executable, tmp_path / "script.py"],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    yield process
    for child in of_session(process.pid):
        child.kill()
    process.communicate()


def of_session(number):
    """The processes that run in a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


def left_after_two_seconds(session):
    deadline = time.monotonic() + 2
    while of_session(session) and time.monotonic() < deadline:
        time.sleep(0.02)
    return of_session(session)


def wait_for(line, script):
    while (read := script.stdout.readline()) != f"{line}\n":
        assert read, script.stderr.read()


KINDS = pytest.mark.parametrize(
    ("script", "when"), [("script", "started"), ("script", "told"), ("stage", "told")], indirect=["script"]
)


@KINDS
def test_processes_end_with_a_killed_parent(when, script):
    wait_for(when, script)
    assert len(of_session(script.pid)) > 2
    script.kill()
    assert left_after_two_seconds(script.pid) == []


def deaf(process):
    """Whether a process holds back or ignores SIGINT; only Linux tells."""
    status = dict(line.split(":\t") for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return any(int(status[name], 16) >> (signal.SIGINT - 1) & 1 for name in ("SigBlk", "SigIgn"))


@KINDS
def test_ctrl_c_leaves_nothing_running_and_only_the_parent_speaks(when, script):
    wait_for(when, script)
    assert all(map(deaf, psutil.Process(script.pid).children()))
    os.killpg(script.pid, signal.SIGINT)
    _, errors = script.communicate(timeout=10)
    assert left_after_two_seconds(script.pid) == []
    assert script.returncode != 0
    assert errors.count("Traceback") == 1
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


FORKED = """
import os, signal
from pipeline.core.environment import environment
from pipeline.runs.pool import Pool, Task, start_ahead
from test_pool import nothing, parents
started = {**environment(), "OMP_NUM_THREADS": "1"}
start_ahead(started, "test_pool")
tasks = [Task(None, parents, (), lambda *_: None) for _ in range(2)]
with Pool([started, started], nothing) as pool, Pool([{}], nothing) as other:
    (first, second) = [found for _, found in pool.run(list(tasks))]
    assert first[1] == second[1] != os.getpid()
    assert first[2:] == ("1", "1e18")
    for number in (first[0], second[0]):
        os.kill(number, signal.SIGKILL)
    assert {found[1] for _, found in pool.run(list(tasks))} == {first[1]}
    assert [found[1] for _, found in other.run(tasks[:1])] == [os.getpid()]
assert "OMP_NUM_THREADS" not in os.environ
"""


def parents(*_):
    names = ("OMP_NUM_THREADS", "LOKY_MAX_MEMORY_LEAK_SIZE")
    return (os.getpid(), os.getppid(), *map(os.environ.get, names))


def test_processes_of_the_same_environment_are_forked_from_the_one_that_was_started_ahead():
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-c", FORKED]
    ran = subprocess.run(command, env={**inherited, "PYTHONPATH": paths}, text=True, capture_output=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
