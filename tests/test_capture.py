"""A captured step repeats what it launched, and gives what the plain step gives.

There is no GPU here: ``RecordedGraph`` stands for a CUDA graph. It records the operations on tensors while it is
captured, and repeats them on the same memory; a number that Python took from a tensor is not repeated, as on a GPU.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo  # PyTorch imports it with the first gradient, which must not be under the double of torch.cuda
from support import CPU, assert_identical, blobs, cell, train
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.core.kernels import basis
from pipeline.simulator import capture
from pipeline.simulator import loop as simulation
from pipeline.simulator.capture import Captured, Eager, mapped, stepper, tensors
from pipeline.simulator.gradients import vmap_gradients
from pipeline.simulator.loop import step
from pipeline.simulator.program import build

DATASET = blobs()


class RecordedGraph:
    def __init__(self):
        self.launched = []

    def replay(self):
        for operation, args, kwargs, outputs in self.launched:
            again = operation(*args, **kwargs)
            for old, new in zip(outputs, tensors_in(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def tensors_in(result):
    return [part for part in (result if isinstance(result, tuple | list) else [result]) if torch.is_tensor(part)]


class Recorder(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph, self.inside = graph, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        writes_outside = func._schema.is_mutable and "out" not in kwargs and memory(args[0]) not in self.inside
        result = args[0] if writes_outside else func(*args, **kwargs)  # a capture changes nothing
        self.inside |= {memory(tensor) for tensor in tensors_in(result)} - {memory(arg) for arg in tensors_in(args)}
        if func is not torch.ops.aten._local_scalar_dense.default:
            self.graph.launched.append((func, args, kwargs, tensors_in(result)))
        return result


def memory(tensor):
    return tensor.untyped_storage().data_ptr()


@pytest.fixture
def recording(monkeypatch):
    """A machine whose CUDA graphs are recorded ones."""

    @contextmanager
    def graph(recorded):
        with Recorder(recorded):
            yield

    waiting = SimpleNamespace(wait_stream=lambda _: None)
    cuda = SimpleNamespace(
        Stream=lambda: waiting,
        current_stream=lambda: waiting,
        stream=nullcontext,
        CUDAGraph=RecordedGraph,
        graph=graph,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(basis, "on_cpu", lambda vectors: False)  # a GPU computes by plain expressions
    monkeypatch.setattr(simulation, "stepper", Captured)


def replicas(attack):
    return [cell(attack, defence, seed=seed) for defence in ("mean", "krum", "nnm_trimmed_mean") for seed in (0, 1)]


@pytest.mark.parametrize("attack", ["none", "sign_flip", "alie", "label_flip"])
def test_a_captured_step_gives_what_the_plain_step_gives(attack, recording, monkeypatch):
    captured = train(replicas(attack), DATASET, vmap_gradients)
    monkeypatch.setattr(simulation, "stepper", Eager)
    for found, expected in zip(captured, train(replicas(attack), DATASET, vmap_gradients), strict=True):
        assert_identical(found, expected)


def test_a_captured_step_goes_on_from_a_snapshot(recording):
    def run_from(begun, keep):
        return simulation.run(build(replicas("alie"), DATASET, vmap_gradients, CPU), lambda *_: None, begun, keep)

    taken = {}
    whole = run_from(None, lambda done, take: taken.setdefault(done, copied(take())))
    for found, expected in zip(run_from(taken[3], simulation.never), whole, strict=True):
        assert_identical(found, expected)


def copied(snapshot):
    """A snapshot that later steps do not change."""
    return replace(snapshot, state=mapped(torch.Tensor.clone, snapshot.state), steps=snapshot.steps.clone())


def test_the_recorded_graph_catches_a_step_number_taken_into_python(recording):
    program = build(replicas("alie"), DATASET, vmap_gradients, CPU)
    baked = Captured(lambda state, t: step(program, state, int(t)), program.start())
    right = Eager(partial(step, program), program.start())
    first, second = (baked(0), right(0)), (baked(1), right(1))
    torch.testing.assert_close(*first, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(second[0][0], second[1][0])


def test_a_cpu_takes_steps_launch_by_launch():
    program = build([cell()], DATASET, vmap_gradients, CPU)
    assert isinstance(stepper(partial(step, program), program.start()), Eager)


FAILED_CAPTURES = [
    "CUDA error: operation not permitted when stream is capturing",
    "CUDA error: operation failed due to a previous error during capture",
]
OTHERS = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("shape '[2, 3]' is invalid for input of size 5"),
]


def stepper_when_capturing_raises(error, monkeypatch):
    def captured(step, state):
        raise error

    monkeypatch.setattr(capture, "Captured", captured)
    return stepper(None, SimpleNamespace(params=SimpleNamespace(device=torch.device("cuda"))))


@pytest.mark.parametrize("text", FAILED_CAPTURES)
def test_a_step_that_cannot_be_captured_is_launched_instead(text, monkeypatch):
    assert isinstance(stepper_when_capturing_raises(torch.AcceleratorError(text), monkeypatch), Eager)


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_any_other_error_of_a_capture_is_an_error(error, monkeypatch):
    with pytest.raises(type(error)):
        stepper_when_capturing_raises(error, monkeypatch)


def test_a_state_is_copied_part_by_part():
    program = build([cell("alie", "median")], DATASET, vmap_gradients, CPU)
    state = program.start()
    copied = mapped(torch.Tensor.clone, state)
    pairs = list(zip(tensors(state), tensors(copied), strict=True))
    assert len(pairs) == 4
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)
