"""Server, workers and adversary, each with what it owns alone, compute what the simulator computes, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from parties import ATTACKED, DATASET, DEFENDED, LOCAL, SAMPLED, cell, in_threads, simulated
from support import CPU, blobs

from pipeline.core.rng import Stream
from pipeline.simulator import distributed
from pipeline.simulator.distributed import owned
from pipeline.simulator.gradients import chain_gradients
from pipeline.simulator.parts import Worked
from pipeline.simulator.program import build

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
IMAGES = blobs(shape=(1, 5, 5), sizes=(90, 30, 20))


def unequal_steps(one, dataset=DATASET):
    """The steps after which the parameters differ in a bit."""
    both = zip(in_threads(one, dataset), simulated(one, dataset), strict=True)
    return [t for t, (params, others) in enumerate(both) if params.numpy().tobytes() != others.numpy().tobytes()]


@pytest.mark.parametrize("attack", ATTACKED)
def test_every_attack_gives_the_simulated_parameters(attack):
    threat = 9 if attack.startswith("mimic") else SAMPLED
    assert unequal_steps(cell(attack, "bucketing clipping", threat)) == []


@pytest.mark.parametrize("attack", ["label_flip", "optimal_ipm", "rop"])
@pytest.mark.parametrize("defence", DEFENDED)
def test_every_kind_of_defence_gives_the_simulated_parameters(defence, attack):
    assert unequal_steps(cell(attack, defence, 9, seed=3)) == []


@pytest.mark.parametrize("attack", ["none", "fang"])
@pytest.mark.parametrize(
    "training",
    [LOCAL, {"clip": 0.5}, {"augment": "crop_flip"}, {"precision": "float32", "damped": False}, {"weight_decay": 0.1}],
    ids=["local steps", "clipping", "augmentation", "float32", "decay"],
)
def test_every_kind_of_training_gives_the_simulated_parameters(training, attack):
    assert unequal_steps(cell(attack, "clipping", SAMPLED, **training), IMAGES) == []


# What would be a fault of the distributed run is found.


def another_place_in_the_streams(monkeypatch):
    monkeypatch.setattr(distributed, "owned", lambda program, number: replace(owned(program, number), first=0))


def the_share_of_another(monkeypatch):
    monkeypatch.setattr(distributed, "owned", lambda program, number: replace(owned(program, 0), first=number))


def patched(name, change):
    """Return what replaces the function ``name`` of the module by ``change`` of it and its arguments."""

    def patch(monkeypatch):
        function = getattr(distributed, name)
        monkeypatch.setattr(distributed, name, lambda *arguments: change(function, *arguments))

    return patch


def no_momentum(work, *arguments):
    worked = work(*arguments)
    return Worked(worked.vectors, worked.vectors, worked.losses)


def no_place(work, *arguments):
    return work(*arguments[:-1], 0)


def forgetful(serve, program, params, velocity, memories, *arguments):
    return serve(program, params, velocity, program.start().defences, *arguments)


def standing(serve, program, params, velocity, *arguments):
    return serve(program, params, torch.zeros_like(velocity), *arguments)


def unaware_of_the_aggregate(craft, program, honest, previous, *arguments):
    return craft(program, honest, torch.zeros_like(previous), *arguments)


def unaware_of_the_memory(craft, program, honest, previous, memories, *arguments):
    return craft(program, honest, previous, program.start().defences, *arguments)


def without_a_memory(craft, program, honest, previous, memories, remembered, t):
    return craft(program, honest, previous, memories, program.start().attack, t)


def hears_another_order(craft, program, honest, *arguments):
    return craft(program, honest.flip(1), *arguments)


FAULTS = {
    "a worker draws at the place of another": (another_place_in_the_streams, cell("none")),
    "a worker holds the share of another": (the_share_of_another, cell("none")),
    "a worker sends its vector before momentum": (patched("work", no_momentum), cell("none")),
    "a worker augments at the place of another": (patched("work", no_place), cell("none", augment="crop_flip")),
    "the server forgets what its defence remembers": (patched("serve", forgetful), cell("none", "clipping")),
    "the server forgets its velocity": (patched("serve", standing), cell("none")),
    "the adversary does not hear the aggregate": (patched("craft", unaware_of_the_aggregate), cell("rop")),
    "the adversary does not hear the memory": (
        patched("craft", unaware_of_the_memory),
        cell("optimal_ipm", "clipping", 9),
    ),
    "the adversary forgets": (patched("craft", without_a_memory), cell("mimic long", "mean", 9)),
    "the adversary hears the workers in another order": (patched("craft", hears_another_order), cell("mimic target")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_in_the_parameters(fault, monkeypatch):
    patch, one = FAULTS[fault]
    assert unequal_steps(one, IMAGES) == []
    patch(monkeypatch)
    assert unequal_steps(one, IMAGES) != []


def test_a_worker_owns_its_share_of_the_data_and_no_other():
    program = build([cell("none")], DATASET, chain_gradients, CPU)
    for number in range(5):
        own = owned(program, number)
        held = program.held[0, number, : program.sizes[0, number]]
        assert torch.equal(own.dataset.train.stored, DATASET.train.stored[held])
        assert torch.equal(own.dataset.train.labels, DATASET.train.labels[held])
        assert len(own.dataset.validation.labels) == len(own.dataset.test.labels) == 0


def test_a_stream_goes_on_from_any_place():
    stream = Stream.of([0, 7], "minibatches")
    np.testing.assert_array_equal(stream.uniform(4, start=3), stream.uniform(7)[:, 3:])
