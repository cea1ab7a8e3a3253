"""``python -m pipeline prefetch`` as a user runs it: ``dvc repro`` finds every cell there, and writes the same lock."""

import signal
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


EVALUATIONS = ".cellcache/evaluations/*.json"


def small_copy(folder):
    project = copy_of_the_project(folder)
    project.stage("set", SMALL)
    return project


def files(project, pattern):
    return list(project.folder.glob(pattern))


def wait_for_a_file(project, pattern, running, more_than=0):
    while len(files(project, pattern)) <= more_than:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)


def started(project, command):
    return subprocess.Popen(
        command, cwd=project.folder, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_killed_and_interrupted_drivers_and_a_removed_node_leave_the_lock_as_it_is_without_ray(nodes, tmp_path):
    alone, project = small_copy(tmp_path / "alone"), small_copy(tmp_path / "project")
    alone.repro("analysis")
    project.repro("prepare")
    made, (first, _) = nodes({"num_cpus": 1}, {"num_cpus": 1})
    command = ["python", "-m", "pipeline", "prefetch", "--address", made.address]

    killed = project.start(*command)
    wait_for_a_file(project, EVALUATIONS, killed)
    killed.kill()
    killed.wait()

    interrupted, known = started(project, command), files(project, EVALUATIONS)
    wait_for_a_file(project, EVALUATIONS, interrupted, len(known))
    interrupted.send_signal(signal.SIGINT)
    _, errors = interrupted.communicate(timeout=60)
    assert (interrupted.returncode, errors) == (130, "interrupted; the next run goes on from here\n")

    again, known = started(project, command), files(project, EVALUATIONS)
    wait_for_a_file(project, "results/train/ipm/*/cell.json", again)
    made.remove_node(first, allow_graceful=False)
    out, errors = again.communicate()
    assert (again.returncode, errors) == (0, "")
    assert out.splitlines()[-1] == "prefetch: every cell is there; `dvc repro` trains none"
    evaluations = {path: path.stat().st_mtime_ns for path in files(project, EVALUATIONS)}
    assert set(known) < set(evaluations)

    told = project.run("dvc", "repro", "analysis").stdout
    todo = [line for line in told.splitlines() if line.endswith("to train")]
    assert len(todo) >= 4
    assert all(line.endswith(" 0 to train") for line in todo)
    assert {path: path.stat().st_mtime_ns for path in evaluations} == evaluations
    for name in ("dvc.lock", "results/summary.json"):
        assert (project.folder / name).read_bytes() == (alone.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("token", "fault"),
    [("1" * 64, "Failed to connect to Ray cluster at "), ("", "Token authentication is enabled but")],
)
def test_who_has_not_the_token_is_refused_within_seconds(token, fault, nodes, tmp_path):
    made, _ = nodes()
    project = copy_of_the_project(tmp_path)
    project.env |= {"RAY_AUTH_TOKEN": token, "HOME": str(tmp_path)}
    begun = time.monotonic()
    refused = project.run("python", "-m", "pipeline", "prefetch", "--address", made.address, check=False)
    assert time.monotonic() - begun < 30
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"error: execution.cluster = '{made.address}': {fault}")
    assert refused.stderr.endswith("; a cluster admits who has its token, RAY_AUTH_TOKEN or ~/.ray/auth_token\n")
    assert refused.stderr.count("\n") == 1


def test_an_address_where_nobody_answers_is_one_line(tmp_path):
    project = small_copy(tmp_path / "project")
    refused = project.run("python", "-m", "pipeline", "prefetch", "--address", "127.0.0.1:9", check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith(
        "error: execution.cluster = '127.0.0.1:9': nobody answers there (Connection refused)"
    )
    assert refused.stderr.count("\n") == 1
