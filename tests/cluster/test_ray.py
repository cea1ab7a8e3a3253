"""Cells on real Ray clusters of several nodes, all on this machine: whatever happens to them, the same bits."""

import ast
import os
import subprocess
import sys

import psutil
import pytest
from support import assert_identical, blobs, cell, train, trainer

from pipeline.core.errors import UserError
from pipeline.runs import cluster, execution

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]  # of Ray

DATASET = blobs()
CELLS = [
    cell("alie", defence, seed=seed, changes={"training.steps": 800, "training.evaluate_every": 100})
    for defence in ("krum", "median")
    for seed in range(2)
]


@pytest.fixture
def on_gpus(monkeypatch):
    """Has tasks ask for pretended GPUs, though they compute on a CPU."""

    class OnGpus(cluster.ClusterPool):
        def __init__(self, address, _, *others):
            super().__init__(address, "GPU", *others)

    monkeypatch.setattr(execution, "ClusterPool", OnGpus)


def trained(address, watch=lambda _: lambda *_: None, cells=CELLS, **settings):
    with trainer(DATASET, cluster=address, **settings) as ready:
        return list(execution.train(cells, ready, watch))


@pytest.fixture(scope="module")
def expected():
    return train(CELLS, DATASET)


def assert_those(batches, expected):
    found = {place: result for places, results in batches for place, result in zip(places, results, strict=True)}
    for place, result in enumerate(expected):
        assert_identical(found[place], result)


def workers():
    return [process for process in psutil.process_iter() if process.name().startswith("ray::work")]


@pytest.mark.usefixtures("on_gpus")
def test_two_nodes_whose_gpus_are_shared_give_what_one_process_gives(nodes, expected):
    made, _ = nodes({"num_gpus": 1}, {"num_gpus": 1})
    told, raylets = [], set()

    def watch(places):
        def note(steps, _):
            told.append((tuple(places), steps))
            raylets.update(worker.ppid() for worker in workers())

        return note

    batches = trained(made.address, watch, processes=4)
    assert len(batches) == 4
    assert_those(batches, expected)
    assert sorted(told) == [((place,), steps) for place in range(4) for steps in range(0, 801, 100)]
    assert len(raylets) == 2  # one a node


@pytest.mark.usefixtures("on_gpus")
def test_killed_workers_change_nothing_and_nothing_is_told_twice(nodes, expected):
    made, _ = nodes({"num_gpus": 1}, {"num_gpus": 1})
    told = []

    def watch(places):
        return lambda steps, _: (told.append(steps), len(told) == 3 and [worker.kill() for worker in workers()])

    assert_those(trained(made.address, watch), expected)
    assert sorted(told) == sorted(2 * list(range(0, 801, 100)))


@pytest.mark.usefixtures("on_gpus")
def test_a_node_that_is_removed_changes_nothing(nodes, expected):
    made, (first, _) = nodes({"num_gpus": 1}, {"num_gpus": 1})
    removed = []

    def watch(_):
        return lambda steps, _: removed or (removed.append(steps), made.remove_node(first, allow_graceful=False))

    assert_those(trained(made.address, watch), expected)
    assert removed == [0]


def test_a_node_with_another_version_of_pytorch_is_refused(nodes, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, importlib.util, sys\n"
        "class Other(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch.torch_version':\n"
        "            sys.meta_path.remove(self)\n"
        "            spec = importlib.util.find_spec(name)\n"
        "            run = spec.loader.exec_module\n"
        "            spec.loader.exec_module = lambda module: (run(module), setattr(module, '__version__', '2.11.0'))\n"
        "            return spec\n"
        "sys.meta_path.insert(0, Other())\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    made, _ = nodes({"num_cpus": 1, "env_vars": {"PYTHONPATH": path}})
    with pytest.raises(UserError, match=r"has torch 2\.11\.0 and .*, and this machine torch 2\.15\.0"):
        trained(made.address)


def test_a_cell_whose_workers_are_killed_for_want_of_memory_is_told_in_one_line(nodes):
    kills = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    made, _ = nodes({"num_cpus": 1, "env_vars": kills})
    with pytest.raises(UserError, match="the memory of cpu does not suffice for one replica of this model"):
        trained(made.address, cells=CELLS[:1])


ALONE = """
import psutil
from pipeline.runs import cluster

cluster._one_runs_here = lambda: False  # nor the cluster of another test
cluster.connected("auto")
mine = [process.pid for process in psutil.Process().children(recursive=True)]
print([found.laddr.ip for found in psutil.net_connections() if found.status == "LISTEN" and found.pid in mine])
"""


def test_a_cluster_of_this_machine_listens_on_the_loopback_and_writes_no_token(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env={**kept, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    listening = ast.literal_eval(done.stdout)
    assert len(listening) >= 4
    assert set(listening) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert not (tmp_path / ".ray").exists()
