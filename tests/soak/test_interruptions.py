"""Ctrl-C in the middle of training: one line, exit code 130, and nothing that runs on."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support import ROOT
from test_search_kill import known, project

pytestmark = pytest.mark.soak


def of_session(number):
    found = [process for process in psutil.process_iter(["status"]) if process.info["status"] != psutil.STATUS_ZOMBIE]
    return [process.pid for process in found if os.getsid(process.pid) == number]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_is_one_line_and_leaves_nothing_running(number, code, tmp_path):
    folder, environment = project(tmp_path), {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", "search", "ipm"]
    settings = {"cwd": folder, "env": environment, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen(command, **settings, text=True, start_new_session=True)
    while not known(folder):
        assert process.poll() is None
        time.sleep(0.01)
    assert len(of_session(process.pid)) > 2
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told.splitlines()[-1]) == (code, "interrupted; the next run goes on from here")
    assert "Traceback" not in told
    time.sleep(1)
    assert of_session(process.pid) == []
