"""What the operating system refuses, and what the user interrupts, is one line and an exit code."""

import errno
import fcntl
import io
import os
import subprocess
import sys
import threading

import pytest
from support import ROOT, Unwatched, blobs, parameters

from pipeline import __main__ as command_line
from pipeline.__main__ import main
from pipeline.core.errors import UserError
from pipeline.data.dataset import load, write
from pipeline.runs import train as stage
from pipeline.runs.lock import alone


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A project with a copy of params.yaml, as the working folder."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "tests" / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def unprivileged():
    """The rights of a user: the superuser may do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    return main()


def the_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_parameters_that_are_a_folder_are_told(here, monkeypatch, capsys):
    (here / "params.yaml").unlink()
    (here / "params.yaml").mkdir()
    assert run(monkeypatch, "prepare") == 1
    assert the_line(capsys) == f"error: {here}/params.yaml: Is a directory"


def test_parameters_that_may_not_be_read_are_not_called_missing(here, monkeypatch, capsys, unprivileged):
    if os.getuid() != 0:
        (here / "params.yaml").chmod(0)
    assert run(monkeypatch, "set", "training.steps=3") == 1
    assert the_line(capsys) == f"error: {here}/params.yaml: Permission denied"


def test_data_that_may_not_be_read_are_not_called_missing(tmp_path, monkeypatch):
    """The library reports every file that it cannot open as a missing one."""
    path = tmp_path / "dataset.safetensors"
    write(path, blobs())
    monkeypatch.setattr(type(path), "open", lambda *_: refuse(errno.EACCES, path))
    with pytest.raises(PermissionError):
        load(path)


def refuse(number, path=None):
    raise OSError(number, os.strerror(number), path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EMFILE, errno.EIO])
def test_a_stage_that_the_system_stops_is_one_line_with_path_and_cause(number, here, monkeypatch, capsys):
    monkeypatch.setitem(command_line.STAGES, "prepare", lambda *_: refuse(number, "data/dataset.safetensors"))
    assert run(monkeypatch, "prepare") == 1
    assert the_line(capsys) == f"error: data/dataset.safetensors: {os.strerror(number)}"


def test_a_folder_that_may_not_be_written_is_told(here, monkeypatch, capsys):
    (here / ".cellcache").write_text("no folder")
    assert run(monkeypatch, "prepare") == 1
    assert the_line(capsys) == f"error: {here}/.cellcache/locks: Not a directory"


def test_memory_that_does_not_suffice_is_told(here, monkeypatch, capsys):
    def use_up(*_):
        raise MemoryError

    monkeypatch.setitem(command_line.STAGES, "prepare", use_up)
    assert run(monkeypatch, "prepare") == 1
    assert "memory" in the_line(capsys)


def pipeline(*arguments, **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, **settings)


def test_without_the_environment_a_line_says_so():
    ran = pipeline("-S", "-m", "pipeline", "prepare", cwd=ROOT)
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable} has no package ")
    assert "activate" in line


def test_a_library_that_memory_has_no_room_for_is_one_line(monkeypatch, capsys, here):
    def fail(*_):
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    monkeypatch.setitem(command_line.STAGES, "prepare", fail)
    assert run(monkeypatch, "prepare") == 1
    assert the_line(capsys) == (
        f"error: {sys.executable} cannot load a package: libtorch_cpu.so: failed to map segment from shared object"
    )


def test_a_full_disk_below_the_output_is_one_line(here):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ran = pipeline("-m", "pipeline", "list", cwd=here, stdout=full)
    assert ran.returncode == 1
    assert ran.stderr == "error: No space left on device\n"


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("command", "line"), [("prepare", "interrupted; the next run goes on from here"), ("plan", "interrupted")]
)
def test_an_interruption_is_one_line(command, line, here, monkeypatch, capsys):
    monkeypatch.setitem(command_line.STAGES, "prepare", interrupt)
    monkeypatch.setattr(command_line, "_plan", interrupt)
    assert run(monkeypatch, command) == 130
    assert the_line(capsys) == line


INTERRUPTED_AT_THE_END = """
import atexit, os, runpy, signal, sys
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["pipeline", "set", ""]
runpy.run_module("pipeline", run_name="__main__")
"""


def test_an_interruption_after_all_is_done_changes_nothing(here):
    ran = pipeline("-c", INTERRUPTED_AT_THE_END, cwd=here)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (UserError, "FAILED")])
def test_what_follows_a_row_is_told_that_it_was_not_finished(error, status, tmp_path, monkeypatch):
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    told = []

    class Follower(Unwatched):
        def watch(self, cells):
            raise error

        def stop(self, status):
            told.append(status)

    with pytest.raises(error):
        stage.train_row(tmp_path, parameters({"grid.seeds": [0]}), "none", lambda *_: Follower())
    assert told == [status]


def test_of_two_processes_one_waits_and_says_for_whom(tmp_path, capsys):
    path, entered, order = tmp_path / "locks" / "train.ipm", threading.Event(), []

    def first():
        with alone(path):
            entered.set()
            while not waiting():
                pass
            order.append("first")

    def waiting():
        return "waiting" in said.getvalue()

    said, holder = io.StringIO(), threading.Thread(target=first)
    holder.start()
    entered.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", said)
        with alone(path):
            order.append("second")
    holder.join()
    assert order == ["first", "second"]
    assert said.getvalue().startswith(f"train.ipm: process {os.getpid()} on ")


HOLDER = """
import os, sys
from pathlib import Path
from pipeline.runs.lock import alone
with alone(Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    assert pipeline("-c", HOLDER, tmp_path / "lock").returncode == -9
    assert "process" in (tmp_path / "lock").read_text()
    with alone(tmp_path / "lock"), (tmp_path / "lock").open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_every_stage_holds_its_lock(here, monkeypatch):
    def locked(*_):
        with (here / ".cellcache/locks/train.ipm").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setitem(command_line.STAGES, "train", locked)
    assert run(monkeypatch, "train", "ipm") == 0
