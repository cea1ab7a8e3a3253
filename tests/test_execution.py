"""Cells are trained in batches that fit, on the device that the parameters name."""

import numpy as np
import pytest
import torch
from support import CPU, assert_identical, blobs, cell, parameters, train, trainer

from pipeline.core.errors import UserError
from pipeline.runs import execution
from pipeline.runs.plan import replica_bytes
from pipeline.simulator.gradients import chain_gradients, loop_gradients, replica_gradients, vmap_gradients
from pipeline.simulator.loop import run
from pipeline.simulator.models import MODELS
from pipeline.simulator.precision import backend, kernels_chosen

DATASET = blobs()


def batches_of(cells, dataset, watch=lambda _: lambda *_: None, **changes):
    """Train the cells as a stage trains them; return the positions and results of each batch."""
    with trainer(dataset, **changes) as ready:
        return list(execution.train(cells, ready, watch))


def trained(cells, dataset):
    """What the cells give."""
    return [result for _, results in batches_of(cells, dataset) for result in results]


@pytest.mark.parametrize("replicas", [1, 2, 100])
def test_every_cell_is_trained_once_whatever_the_memory(replicas):
    cells = [cell(attack, seed=seed) for seed in (0, 1, 2) for attack in ("alie", "ipm")]
    memory_gb = replicas * 1.001 * replica_bytes(cells[0], DATASET) / 1e9
    watched, trained = [], {}
    watch = lambda positions: watched.append(positions) or (lambda *_: None)  # noqa: E731
    for positions, results in batches_of(cells, DATASET, watch, memory_gb=memory_gb):
        assert len(positions) <= replicas
        trained |= dict(zip(positions, results, strict=True))
    assert sorted(position for positions in watched for position in positions) == list(range(6))
    for position, here in enumerate(cells):
        assert_identical(trained[position], train([here], DATASET)[0])


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("CPU: can't allocate memory"), MemoryError()]
)
def test_a_batch_without_memory_is_halved_and_the_results_are_the_same(error, monkeypatch):
    def run_two_at_most(program, watch, *_):
        if len(program.initial) > 2:
            raise error
        return run(program, watch)

    cells = [cell(seed=seed) for seed in range(5)]
    expected = train(cells, DATASET)
    monkeypatch.setattr(execution, "run", run_two_at_most)
    trained = batches_of(cells, DATASET)
    assert [positions for positions, _ in trained] == [[0, 1], [2], [3, 4]]
    for positions, results in trained:
        for position, result in zip(positions, results, strict=True):
            assert_identical(result, expected[position])


def test_one_replica_without_memory_is_a_user_error_and_another_fault_is_not(monkeypatch):
    def fail(error):
        def run(*_):
            raise error

        monkeypatch.setattr(execution, "run", run)
        batches_of([cell(), cell(seed=1)], DATASET)

    with pytest.raises(UserError, match="the memory of cpu does not suffice for one replica"):
        fail(torch.OutOfMemoryError("no"))
    with pytest.raises(RuntimeError, match="shapes"):
        fail(RuntimeError("shapes"))


def test_memory_is_the_limit_for_each_process_or_its_share_of_what_is_available(monkeypatch):
    monkeypatch.setattr(execution, "available", lambda: 8e9)
    with trainer(DATASET, processes=4, memory_gb=1.5) as limited, trainer(DATASET, processes=4) as free:
        assert execution.memory(limited.pool.prepared) == 1.5e9
        assert execution.memory(free.pool.prepared) == execution.CPU_SHARE * 2e9


def test_the_memory_of_a_gpu_is_what_is_free_there_and_what_its_process_holds_for_no_tensor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (6 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 10**9)
    here = execution._Prepared(DATASET, 2, parameters().execution, torch.device("cuda"))
    assert execution.memory(here) == execution.GPU_SHARE * 4e9


def test_the_evaluations_of_a_batch_that_is_halved_late_are_told_once(monkeypatch):
    def halfway(program, watch, *_):
        if len(program.initial) > 2:
            watch(0, {"validation_accuracy": np.zeros(3)})
            watch(4, {"validation_accuracy": np.zeros(3)})
            raise MemoryError
        return run(program, watch)

    monkeypatch.setattr(execution, "run", halfway)
    seen = []
    batches_of(
        [cell(seed=seed) for seed in range(3)], DATASET, lambda positions: lambda t, _: seen.append((positions, t))
    )
    assert seen == [([0, 1, 2], 0), ([0, 1, 2], 4), ([0], 6), ([1, 2], 6)]


@pytest.mark.parametrize(("wanted", "gpus", "expected"), [("auto", 0, 5), ("auto", 3, 3), (7, 0, 7), (7, 3, 7)])
def test_there_is_a_process_for_every_core_or_gpu_or_as_many_as_wanted(wanted, gpus, expected, monkeypatch):
    monkeypatch.setattr(execution, "cores", lambda: 5)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert execution.processes(wanted, torch.device("cuda" if gpus else "cpu")) == expected


@pytest.mark.parametrize(("visible", "expected"), [(None, ["0", "1", "0"]), ("3, GPU-a", ["3", "GPU-a", "3"])])
def test_each_process_sees_one_gpu_in_turn(visible, expected, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    seen = [execution._one_gpu(number, torch.device("cuda")) for number in range(3)]
    assert seen == [{"CUDA_VISIBLE_DEVICES": name} for name in expected]
    assert execution._one_gpu(0, CPU) == {}


def test_a_convolution_is_computed_by_the_backend_measured_to_be_the_fastest(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    models = {name: MODELS.parse({"name": name}, "model") for name in ("cnn_mnist", "cnn_cifar", "logistic")}
    chosen = {name: backend("auto", model, torch.device("cpu")) for name, model in models.items()}
    assert chosen == {"cnn_mnist": replica_gradients, "cnn_cifar": loop_gradients, "logistic": chain_gradients}
    assert {backend("auto", model, torch.device("cuda")) for model in models.values()} == {vmap_gradients}


@pytest.mark.company
@pytest.mark.parametrize("model", ["cnn_mnist", "cnn_cifar"])
def test_a_convolutional_replica_does_not_depend_on_its_batch(model):
    data = blobs(shape=(1, 16, 16))
    changes = {"model": {"name": model}, "data.source": {"name": "mnist"}, "training.steps": 2}
    cells = [cell("alie", defence, seed=seed, changes=changes) for defence in ("mean", "krum") for seed in (0, 1)]
    for here, together in zip(cells, trained(cells, data), strict=True):
        assert_identical(trained([here], data)[0], together)


def test_the_watch_of_a_batch_is_told_its_evaluations():
    seen = []
    cells = [cell(seed=0), cell(seed=1)]
    batches_of(cells, DATASET, lambda positions: lambda done, _: seen.append((positions, done)))
    assert seen == [([0, 1], 0), ([0, 1], 4), ([0, 1], 6)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", chain_gradients),
        ("chain", chain_gradients),
        ("vmap", vmap_gradients),
        ("replicas", replica_gradients),
        ("loop", loop_gradients),
    ],
)
def test_the_gradient_backend_is_the_one_named(name, expected, monkeypatch):
    used = []
    monkeypatch.setattr(execution, "run", lambda program, *_: used.append(program.gradients) or [])
    batches_of([cell()], DATASET, gradients=name)
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


def test_what_computing_sets_in_pytorch_is_as_it_was_afterwards():
    def settings_of_pytorch():
        mkldnn, cuda, cudnn = torch.backends.mkldnn, torch.backends.cuda, torch.backends.cudnn
        return mkldnn.enabled, cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, torch.get_num_threads()

    before = settings_of_pytorch()
    training = cell(changes={"training.tf32": True}).training
    with kernels_chosen(training, together=True):
        assert settings_of_pytorch()[:3] == (False, "tf32", "tf32")
    with pytest.raises(RuntimeError, match="no"), kernels_chosen(training, together=False):
        raise RuntimeError("no")
    assert settings_of_pytorch() == before
