"""A search that is killed for real, with SIGKILL in the middle of its training, continues to the same bytes."""

import os
import signal
import subprocess
import sys
import time

import pytest
from ruamel.yaml import YAML
from support import ROOT, SMALL, blobs, raw_parameters

from pipeline.data.dataset import write

SETTINGS = {
    **SMALL,
    "training.steps": 60,
    "search.defences": ["median", "krum"],
    "search.sampler": "tpe",
    "search.trials": 16,
    "search.seeds": [100, 101],
    "search.confirmation_seeds": [200, 201],
    "execution.memory_gb": 0.00001,  # a batch a cell, so that there is much to be killed in
}


def project(folder):
    write(folder / "data" / "dataset.safetensors", blobs())
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(raw_parameters(SETTINGS), stream)
    return folder


def start(folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pipeline", "search", "ipm"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def known(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / ".cellcache" / "evaluations").glob("*.json")}


def results(folder):
    return {path.name: path.read_bytes() for path in (folder / "results" / "search" / "ipm").iterdir()}


@pytest.mark.slow
def test_a_search_killed_twice_continues_to_the_same_bytes(tmp_path):
    whole, killed = project(tmp_path / "whole"), project(tmp_path / "killed")
    assert start(whole).wait(timeout=300) == 0
    total = len(known(whole))
    for share in (0.2, 0.7):
        process, deadline = start(killed), time.monotonic() + 300
        while len(known(killed)) < share * total:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / "results" / "search" / "ipm").exists()
    survivors = known(killed)
    assert 0.7 * total <= len(survivors) < total
    assert start(killed).wait(timeout=300) == 0
    assert results(killed) == results(whole)
    assert survivors.items() <= known(killed).items()
