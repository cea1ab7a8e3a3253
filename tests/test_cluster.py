"""Cells on a Ray cluster, as far as it is ours: with a stand-in for Ray, which CI need not install.

``tests/cluster`` does the same with Ray itself.
"""

import os
import re
import signal
import socket
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from ray_stand_in import ObjectLostError, OutOfMemoryError, Ray, RuntimeEnvSetupError, WorkerCrashedError
from support import PARAMS, assert_identical, blobs, cell, parameters, train, trainer

from pipeline import __main__ as command_line
from pipeline.core.errors import UserError
from pipeline.core.identity import PACKAGE
from pipeline.runs import cluster, cluster_worker, execution, params
from pipeline.runs.plan import replica_bytes

DATASET = blobs()
CELLS = [cell("alie", defence, seed=seed) for defence in ("krum", "median") for seed in range(3)]


@pytest.fixture
def ray(monkeypatch, tmp_path):
    """Two nodes with two cores each; the driver starts anew, in an empty folder."""
    made = Ray([{"CPU": 2.0}, {"CPU": 2.0}])
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setattr(cluster, "_one_runs_here", lambda: False)
    monkeypatch.setattr(cluster_worker, "_kept", {})
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    threads = torch.get_num_threads()
    cluster._connected.cache_clear()
    yield made
    cluster._connected.cache_clear()
    torch.set_num_threads(threads)


def trained(watch=lambda _: lambda *_: None, cells=CELLS, **settings):
    """The positions and results of every batch."""
    with trainer(DATASET, cluster="auto", **settings) as ready:
        return list(execution.train(cells, ready, watch))


def assert_those_of_one_process(batches, cells=CELLS):
    found = {place: result for places, results in batches for place, result in zip(places, results, strict=True)}
    assert sum(len(places) for places, _ in batches) == len(found)
    for place, expected in enumerate(train(cells, DATASET)):
        assert_identical(found[place], expected)


def test_results_are_those_of_one_process_and_every_evaluation_is_told_before_its_batch_ends(ray):
    told = []
    with trainer(DATASET, cluster="auto") as ready:
        batches = []
        for places, results in execution.train(CELLS, ready, lambda ps: lambda t, _: told.append((ps, t))):
            assert [done for here, done in told if here == places] == [0, 4, 6]
            batches.append((places, results))
    assert len(batches) == 3
    assert_those_of_one_process(batches)
    assert len(ray.put_there) == 1  # the data set, once


@pytest.mark.parametrize("fault", [WorkerCrashedError(), ObjectLostError(), OutOfMemoryError()])
@pytest.mark.parametrize("after", [0, 2])
def test_a_worker_that_dies_changes_nothing_and_nothing_is_told_twice(fault, after, ray):
    ray.faults, ray.after = [fault] * cluster.REPEATS, after
    told = []
    batches = trained(lambda _: lambda t, _: told.append(t), processes=1)
    assert_those_of_one_process(batches)
    assert told == [0, 4, 6]
    assert len(ray.asked) == 1 + cluster.REPEATS


def test_a_batch_that_kills_every_worker_is_one_user_error(ray):
    ray.faults = [WorkerCrashedError()] * (cluster.REPEATS + 1)
    with pytest.raises(UserError, match=r"4 workers died over the same batch, the last one of WorkerCrashedError"):
        trained(processes=1)


def test_a_batch_whose_workers_are_killed_for_their_memory_is_halved(ray):
    ray.faults = [OutOfMemoryError()] * (cluster.REPEATS + 1)
    batches = trained(processes=1)
    assert [places for places, _ in batches] == [[0, 1, 2], [3, 4, 5]]
    assert_those_of_one_process(batches)


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_batch_is_cut_for_the_memory_of_the_worker_that_trains_it(replicas, monkeypatch):
    share = 2 / execution.CPU_SHARE  # two tasks share the memory of a node
    there = share * replicas * 1.001 * replica_bytes(CELLS[0], DATASET)
    monkeypatch.setattr(execution, "available", lambda: there)
    batches = trained(processes=2)
    assert max(len(places) for places, _ in batches) == replicas
    assert_those_of_one_process(batches)


@pytest.mark.usefixtures("ray")
def test_a_node_with_another_version_of_pytorch_is_refused_with_both(monkeypatch):
    ours = execution.libraries()
    found = iter([ours, {**ours, "torch": "2.11.0"}])
    monkeypatch.setattr(execution, "libraries", lambda: next(found))
    with pytest.raises(
        UserError, match=rf"node \S+ has torch 2.11.0 and .* this machine torch {re.escape(ours['torch'])} and"
    ):
        trained()


@pytest.mark.usefixtures("ray")
def test_a_node_that_lacks_a_package_is_named(monkeypatch):
    def absent(*_):
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr(cluster_worker, "_written", absent)
    with pytest.raises(UserError, match=rf"node {socket.gethostname()} has no package 'numba'"):
        trained()


def test_a_node_that_cannot_make_its_environment_is_told(ray):
    ray.faults = [RuntimeEnvSetupError("disk full")]
    with pytest.raises(UserError, match="a node cannot start a worker: disk full"):
        trained()


@pytest.mark.parametrize(
    ("nodes", "device", "processes", "asked"),
    [
        ([{"CPU": 2.0}], "cpu", "auto", {"num_cpus": 1.0}),
        ([{"CPU": 2.0}], "cpu", 4, {"num_cpus": 0.5}),
        ([{"CPU": 2.0, "GPU": 1.0}, {"GPU": 1.0}], "cuda", "auto", {"num_gpus": 1.0, "num_cpus": 0}),
        ([{"CPU": 2.0, "GPU": 1.0}, {"GPU": 1.0}], "cuda", 3, {"num_gpus": 0.5, "num_cpus": 0}),
    ],
)
def test_a_task_asks_for_a_core_a_gpu_or_a_share_of_one(nodes, device, processes, asked, ray, tmp_path, monkeypatch):
    ray._nodes = nodes
    unit = "GPU" if device == "cuda" else "CPU"
    (tmp_path / "file").write_bytes(b"data")
    pool = cluster.ClusterPool("auto", unit, processes, tmp_path / "file", lambda path, neighbours: path.read_bytes())
    returned = pool.run([cluster.Task(0, lambda prepared, tell: prepared, (), print)])
    assert [value for _, value in returned] == [b"data"]
    assert ray.asked == [asked]


@pytest.mark.usefixtures("ray")
def test_a_worker_prepares_once_and_its_node_gets_the_file_once(tmp_path):
    (tmp_path / "file").write_bytes(b"data")

    def prepare(path, _):
        with path.with_suffix(".count").open("a") as stream:
            stream.write("prepared\n")
        return path

    pool = cluster.ClusterPool("auto", "CPU", "auto", tmp_path / "file", prepare)
    tasks = [cluster.Task(number, lambda path, tell: path, (), print) for number in range(3)]
    (path,) = {value for _, value in pool.run(tasks)}
    assert path.read_bytes() == b"data"
    assert path.with_suffix(".count").read_text() == "prepared\n"


def test_no_more_tasks_are_handed_out_than_are_wanted_at_a_time(ray):
    with trainer(DATASET, cluster="auto", processes=1) as ready:
        run = execution.train(
            [*CELLS, *[cell("ipm", seed=seed) for seed in range(3)]], ready, lambda _: lambda *_: None
        )
        next(run)
        assert len(ray.asked) == 1
        run.close()


def test_a_run_that_is_abandoned_takes_its_tasks_along(ray):
    with trainer(DATASET, cluster="auto") as ready:
        run = execution.train(CELLS, ready, lambda _: lambda *_: None)
        next(run)
        run.close()
    assert len(ray.cancelled) == 2


def test_a_cluster_without_a_gpu_is_refused(ray):
    with pytest.raises(UserError, match="no node of the cluster has a GPU to train on"):
        cluster.shares(cluster._Cluster(ray).counts("GPU"), "auto", "GPU")


def test_where_nothing_is_to_be_trained_ray_is_not_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert trained(cells=[]) == []


def test_without_ray_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"^execution.cluster: Ray is not installed here; `pip install -e '.\[clu"):
        cluster.connected("auto")


@pytest.mark.usefixtures("ray")
def test_an_address_where_nobody_answers_is_one_line_within_seconds():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(UserError, match=rf"^execution.cluster = '{address}': nobody answers there \(.+\); .*$"):
            cluster.connected(address)
    assert time.monotonic() - started < cluster.ANSWERS_WITHIN + 1


def test_a_cluster_of_this_machine_listens_on_the_loopback_and_asks_for_a_token(ray):
    before = signal.getsignal(signal.SIGTERM)
    ray.init = lambda **settings: (setattr(ray, "settings", settings), signal.signal(signal.SIGTERM, signal.SIG_IGN))
    cluster.connected("auto")
    assert (ray.settings["address"], ray.settings["_node_ip_address"]) == ("local", "127.0.0.1")
    assert ray.settings["include_dashboard"] is False
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_cluster_that_is_joined_is_asked_with_the_users_own_token(ray, monkeypatch):
    monkeypatch.setattr(cluster, "_one_runs_here", lambda: True)
    cluster.connected("auto")
    assert ray.settings["address"] == "auto"
    assert not {"num_cpus", "_node_ip_address"} & set(ray.settings)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_node_of_this_user_is_joined_but_not_one_that_has_ended_nor_one_of_somebody_else(monkeypatch):
    def found(*described):
        processes = [
            SimpleNamespace(info={"name": name, "status": status, "uids": SimpleNamespace(real=user)})
            for name, status, user in described
        ]
        monkeypatch.setattr(cluster.psutil, "process_iter", lambda _: processes)
        return cluster._one_runs_here()

    mine, running, ended = os.getuid(), psutil.STATUS_SLEEPING, psutil.STATUS_ZOMBIE
    assert found(("python", running, mine), ("raylet", running, mine))
    assert not found(("python", running, mine), ("raylet", ended, mine), ("raylet", running, mine + 1))


def test_the_package_travels_and_nothing_beside_it(ray):
    cluster.connected("auto")
    code = ray.settings["runtime_env"]
    assert code["working_dir"] == str(PACKAGE.parent)
    assert code["excludes"][:2] == ["/*", "!/pipeline"]
    assert {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Prescott"}.items() <= code["env_vars"].items()


@pytest.mark.parametrize(("visible", "given", "expected"), [("", [1], 1), ("4,GPU-a", ["GPU-a"], 1), ("4,5", ["4"], 0)])
def test_a_worker_computes_on_the_gpu_of_its_present_task(visible, given, expected, ray, monkeypatch):
    chosen = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    ray._gpus = given
    cluster_worker._choose_gpu()
    assert chosen == [expected]


@pytest.fixture
def prefetched(ray, tmp_path, monkeypatch):
    """What ``prefetch`` has the stages do: their names, and how many of them at the same time."""
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    calls = []

    def stage(here, parameters, name, row):
        calls.append((name, row, parameters.execution.cluster))
        time.sleep(0.02)
        calls.append((f"end of {name}", row, parameters.execution.cluster))

    monkeypatch.setattr(command_line, "_stage", stage)
    return calls


def test_prefetch_goes_through_the_stages_as_dvc_repro_does(prefetched, tmp_path):
    given = params.load(tmp_path / "params.yaml")
    command_line._prefetch(tmp_path, given, None)
    order = [name for name, *_ in prefetched]
    tuned, middle = 2 * len(given.tuning.defences), {"train": given.grid.attacks, "search": given.search.studies}
    assert sorted(order[:tuned]) == sorted(["tune", "end of tune"] * len(given.tuning.defences))
    begun = [(name, row) for name, row, _ in prefetched[tuned:-2] if not name.startswith("end")]
    assert sorted(begun) == sorted((name, row) for name, rows in middle.items() for row in rows)
    assert len(prefetched[tuned:-2]) == 2 * len(begun)
    assert order[-2:] == ["references", "end of references"]
    assert {address for *_, address in prefetched} == {"auto"}


@pytest.mark.usefixtures("prefetched")
def test_an_address_that_is_none_is_refused_as_in_params_yaml(tmp_path):
    with pytest.raises(UserError, match=r"execution.cluster = 'head': should be 'auto', host:port, or null"):
        command_line._prefetch(tmp_path, parameters(), "head")


def test_when_one_stage_fails_the_others_stop_where_they_train(ray, monkeypatch):
    monkeypatch.setattr(cluster, "_stopping", cluster.threading.Event())
    ended = []

    def endless():
        try:
            while True:
                trained()
        finally:
            ended.append(True)

    def fails():
        raise UserError("no such row")

    with pytest.raises(UserError, match="no such row"):
        cluster.at_once([endless, fails])
    assert ended == [True]
