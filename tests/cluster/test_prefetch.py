"""``python -m pipeline prefetch`` as a user runs it: ``dvc repro`` finds every cell there, and writes the same lock."""

import subprocess
import time

import pytest
from project import copy_of_the_project

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]  # of Ray

SMALL = (
    "training.steps=40 training.evaluate_every=20 grid.attacks=[none,ipm] grid.defences=[mean,krum] "
    "grid.partitions=[alpha_03] grid.seeds=[0,1] grid.max_seeds=4 tuning.defences=[krum] tuning.attacks=[ipm] "
    "tuning.trials=2 tuning.batch=2 tuning.seeds=[300] search.studies=[ipm] search.defences=[mean,krum] "
    "search.trials=3 search.batch=3 search.seeds=[100] search.confirmation_seeds=[200,201] execution.memory_gb=0.00001"
)


def small_copy(folder):
    project = copy_of_the_project(folder)
    project.stage("set", SMALL)
    return project


def wait_for_a_file(project, pattern, running):
    while not list(project.folder.glob(pattern)):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)


def test_a_killed_driver_and_a_removed_node_leave_the_lock_as_it_is_without_ray(nodes, tmp_path):
    alone, project = small_copy(tmp_path / "alone"), small_copy(tmp_path / "project")
    alone.repro("analysis")
    project.repro("prepare")
    made, (first, _) = nodes({"num_cpus": 1}, {"num_cpus": 1})
    command = ["python", "-m", "pipeline", "prefetch", "--address", made.address]

    killed = project.start(*command)
    wait_for_a_file(project, ".cellcache/evaluations/*.json", killed)
    killed.kill()
    killed.wait()
    known = set((project.folder / ".cellcache" / "evaluations").iterdir())

    again = subprocess.Popen(command, cwd=project.folder, env=project.env, stdout=subprocess.PIPE, text=True)
    wait_for_a_file(project, "results/train/ipm/*/cell.json", again)
    made.remove_node(first, allow_graceful=False)
    out, _ = again.communicate()
    assert again.returncode == 0, out
    assert out.splitlines()[-1] == "prefetch: every cell is there; `dvc repro` trains none"
    evaluations = {path: path.stat().st_mtime_ns for path in (project.folder / ".cellcache" / "evaluations").iterdir()}
    assert known < set(evaluations)

    told = project.run("dvc", "repro", "analysis").stdout
    todo = [line for line in told.splitlines() if line.endswith("to train")]
    assert len(todo) >= 4
    assert all(line.endswith(" 0 to train") for line in todo)
    assert {path: path.stat().st_mtime_ns for path in evaluations} == evaluations
    for name in ("dvc.lock", "results/summary.json"):
        assert (project.folder / name).read_bytes() == (alone.folder / name).read_bytes()


def test_an_address_where_nobody_answers_is_one_line(tmp_path):
    project = small_copy(tmp_path / "project")
    refused = project.run("python", "-m", "pipeline", "prefetch", "--address", "127.0.0.1:9", check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith(
        "error: execution.cluster = '127.0.0.1:9': nobody answers there (Connection refused)"
    )
    assert refused.stderr.count("\n") == 1
