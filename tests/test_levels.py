"""What shares a batch with a replica does not matter, at every instruction level that this processor has."""

import os
import subprocess
import sys

import pytest
from levels import LEVELS
from support import ROOT

FILES = sorted(path for path in (ROOT / "tests").glob("test_*.py") if "@pytest.mark.company" in path.read_text())


@pytest.mark.parametrize("level", LEVELS)
def test_a_replica_does_not_depend_on_its_batch_at_any_level(level):
    started = {**os.environ, **LEVELS[level], "OMP_NUM_THREADS": "1"}
    options = ["-q", "-m", "company", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", *options, *FILES]
    ran = subprocess.run(command, env=started, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "passed" in ran.stdout
