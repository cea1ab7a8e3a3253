"""The results of a few cells as they were, bit for bit, on every x86-64 processor.

The six defences of the default grid under three attacks: the hashes in goldens.json were computed on one machine and
hold on all. A changed number needs its reason in the commit. To write them anew:

    python tests/test_golden.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from levels import LEVELS, OTHER_LIBRARIES

from pipeline.core.environment import environment

HERE = Path(__file__).parent
GOLDENS = HERE / "goldens.json"


def computed(variables: dict[str, str]) -> dict[str, dict[str, str]]:
    """What a fresh process computes that is started with ``variables`` besides those of every computing process."""
    started = {**os.environ, **environment(), "PYTHONPATH": str(HERE.parent), **variables}
    command = [sys.executable, str(HERE / "portable.py")]
    ran = subprocess.run(command, env=started, cwd=HERE, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


@pytest.mark.parametrize("machine", {**LEVELS, **OTHER_LIBRARIES})
def test_the_results_are_those_of_the_golden_file(machine):
    assert computed({**LEVELS, **OTHER_LIBRARIES}[machine]) == json.loads(GOLDENS.read_text())


if __name__ == "__main__":
    GOLDENS.write_text(json.dumps(computed({}), indent=1) + "\n")
