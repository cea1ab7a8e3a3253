"""A step reads no value: a GPU never has to wait for the host."""

from dataclasses import fields, replace

import pytest
import torch
from support import cell
from test_simulation import ATTACKS, DEFENCES, program_of
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.core.rng import Stream
from pipeline.simulator.loop import step
from pipeline.simulator.metrics import STEP_METRICS


def to_meta(program):
    """The program on a device without values: anything that looks at one raises an error."""
    moved = {}
    for field in fields(program):
        value = getattr(program, field.name)
        if isinstance(value, torch.Tensor):
            moved[field.name] = value.to("meta")
        if isinstance(value, Stream):
            moved[field.name] = Stream(value.keys.to("meta"))
    return replace(program, dataset=program.dataset.to("meta"), **moved)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_step_never_looks_at_a_value(attack):
    program = to_meta(program_of(*[cell(attack, defence) for defence in DEFENCES]))
    state, measured = step(program, program.start(), 0)
    assert state.params.shape == (6, program.network.size)
    assert measured.shape == (len(STEP_METRICS), 6)
    with pytest.raises(RuntimeError):
        measured.sum().item()


class HostReads(TorchDispatchMode):
    """Counts how often a tensor's value is read into Python."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_step_on_the_cpu_reads_no_value_but_in_rules_that_save_work_by_a_look(attack):
    looking = {"geometric_median", "median", "trimmed_mean", "nnm_trimmed_mean"}
    program = program_of(*[cell(attack, defence) for defence in DEFENCES if defence not in looking])
    state = program.start()
    with HostReads() as reads:
        step(program, state, 0)
    assert reads.count == 0
    with HostReads() as reads:
        torch.ones(1).item()
    assert reads.count == 1
