"""Cells are trained in batches that fit, on the device that the parameters name."""

from dataclasses import replace
from shutil import which

import pytest
import torch
from support import CPU, assert_identical, blobs, cell, parameters, train

from pipeline import execution
from pipeline.errors import UserError
from pipeline.gradients import backend, loop_gradients, replica_gradients, vmap_gradients
from pipeline.models import MODELS
from pipeline.plan import replica_bytes
from pipeline.program import build
from pipeline.simulation import run

DATASET = blobs()


def settings(**changes):
    return parameters().execution.replace(device="cpu", **changes)


def trained(cells, dataset):
    """What the cells give, trained as a stage trains them."""
    batches = execution.train(cells, dataset, settings(), lambda _: lambda *_: None)
    return [result for _, results in batches for result in results]


@pytest.mark.parametrize("replicas", [1, 2, 100])
def test_every_cell_is_trained_once_whatever_the_memory(replicas):
    cells = [cell(attack, seed=seed) for seed in (0, 1, 2) for attack in ("alie", "ipm")]
    memory_gb = replicas * 1.001 * replica_bytes(cells[0], DATASET) / 1e9
    watched, trained = [], {}
    for positions, results in execution.train(
        cells, DATASET, settings(memory_gb=memory_gb), lambda positions: watched.append(positions) or (lambda *_: None)
    ):
        assert len(positions) <= replicas
        trained |= dict(zip(positions, results, strict=True))
    assert sorted(position for positions in watched for position in positions) == list(range(6))
    for position, here in enumerate(cells):
        assert_identical(trained[position], train([here], DATASET)[0])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("CPU: can't allocate memory")])
def test_a_batch_without_memory_is_halved_and_the_results_are_the_same(error, monkeypatch):
    def run_two_at_most(program, watch):
        if len(program.initial) > 2:
            raise error
        return run(program, watch)

    cells = [cell(seed=seed) for seed in range(5)]
    expected = train(cells, DATASET)
    monkeypatch.setattr(execution, "run", run_two_at_most)
    trained = list(execution.train(cells, DATASET, settings(), lambda _: lambda *_: None))
    assert [positions for positions, _ in trained] == [[0, 1], [2], [3, 4]]
    for positions, results in trained:
        for position, result in zip(positions, results, strict=True):
            assert_identical(result, expected[position])


def test_one_replica_without_memory_is_a_user_error_and_another_fault_is_not(monkeypatch):
    def fail(error):
        def run(*_):
            raise error

        monkeypatch.setattr(execution, "run", run)
        list(execution.train([cell(), cell(seed=1)], DATASET, settings(), lambda _: lambda *_: None))

    with pytest.raises(UserError, match="the memory of cpu does not suffice for one replica"):
        fail(torch.OutOfMemoryError("no"))
    with pytest.raises(RuntimeError, match="shapes"):
        fail(RuntimeError("shapes"))


def test_memory_is_the_limit_or_a_share_of_what_is_free():
    assert execution.memory(1.5, torch.device("cpu")) == 1.5e9
    assert 1e7 < execution.memory(None, torch.device("cpu")) < 1e13


@pytest.mark.parametrize(
    ("steps", "compiler", "expected"), [(6, True, False), (10**9, True, True), (10**9, False, False)]
)
@pytest.mark.parametrize("replicas", [1, 3])
def test_long_runs_are_compiled_where_there_is_a_compiler(steps, compiler, expected, replicas, monkeypatch):
    monkeypatch.setattr(execution, "which", lambda _: "/usr/bin/g++" if compiler else None)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "kept")
    program = build([cell(seed=seed) for seed in range(replicas)], DATASET, vmap_gradients, CPU)
    long = replace(program, training=program.training.replace(steps=steps))
    assert execution.worth_compiling(long) is expected


def test_whether_a_replica_is_compiled_does_not_depend_on_its_batch(monkeypatch):
    programs = [build([cell(seed=seed) for seed in range(r)], DATASET, vmap_gradients, CPU) for r in (1, 3)]
    sent = programs[0].training.steps * programs[0].threat.received * programs[0].network.size
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "kept")
    monkeypatch.setattr(execution, "which", lambda _: "/usr/bin/g++")
    for limit, expected in ((sent, True), (sent + 1, False)):
        monkeypatch.setattr(execution, "WORTH_COMPILING", limit)
        assert [execution.worth_compiling(program) for program in programs] == [expected, expected]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about its own imports
@pytest.mark.skipif(not any(map(which, ("g++", "clang++"))), reason="needs a C++ compiler")
def test_a_compiled_replica_does_not_depend_on_its_batch(monkeypatch, tmp_path):
    monkeypatch.setattr(execution, "WORTH_COMPILING", 0)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    cells = [cell("alie", defence, seed=seed) for defence in ("nnm_trimmed_mean", "krum") for seed in (0, 1)]
    for here, together in zip(cells, trained(cells, DATASET), strict=True):
        assert_identical(trained([here], DATASET)[0], together)


def test_a_convolution_is_computed_by_the_backend_measured_to_be_the_fastest(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    models = {name: MODELS.parse({"name": name}, "model") for name in ("cnn_mnist", "cnn_cifar", "logistic")}
    chosen = {name: backend("auto", model, torch.device("cpu")) for name, model in models.items()}
    assert chosen == {"cnn_mnist": replica_gradients, "cnn_cifar": loop_gradients, "logistic": vmap_gradients}
    assert {backend("auto", model, torch.device("cuda")) for model in models.values()} == {vmap_gradients}


@pytest.mark.parametrize("model", ["cnn_mnist", "cnn_cifar"])
def test_a_convolutional_replica_does_not_depend_on_its_batch(model, two_threads):
    data = blobs(shape=(1, 16, 16))
    changes = {"model": {"name": model}, "data.source": {"name": "mnist"}}
    cells = [cell("alie", defence, seed=seed, changes=changes) for defence in ("mean", "krum") for seed in (0, 1)]
    for here, together in zip(cells, trained(cells, data), strict=True):
        assert_identical(trained([here], data)[0], together)


def test_the_watch_of_a_batch_is_told_its_evaluations():
    seen = []
    cells = [cell(seed=0), cell(seed=1)]
    list(execution.train(cells, DATASET, settings(), lambda positions: lambda done, _: seen.append((positions, done))))
    assert seen == [([0, 1], 0), ([0, 1], 4), ([0, 1], 6)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", vmap_gradients), ("vmap", vmap_gradients), ("replicas", replica_gradients), ("loop", loop_gradients)],
)
def test_the_gradient_backend_is_the_one_named(name, expected, monkeypatch):
    used = []
    monkeypatch.setattr(execution, "run", lambda program, _: used.append(program.gradients) or [])
    list(execution.train([cell()], DATASET, settings(gradients=name), lambda _: lambda *_: None))
    assert used == [expected]


@pytest.mark.parametrize(
    ("name", "gpu", "expected"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_device_is_the_one_named(name, gpu, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert execution.device(name).type == expected


def test_a_gpu_that_is_not_there_is_a_user_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"execution.device = 'cuda': PyTorch sees no GPU here; 'auto' takes the CPU"):
        execution.device("cuda")
