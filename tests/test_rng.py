"""Named random streams."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.core.kernels import basis
from pipeline.core.rng import Stream, numpy_stream, stream_seed, torch_stream

PURPOSES = ["partition", "minibatches", "initial weights", "", "1", "partition ", "Partition"]
STREAMS = [torch_stream, numpy_stream]
EVERY_STREAM = pytest.mark.parametrize("stream", STREAMS, ids=["torch", "numpy"])


def draw(stream, seed, purpose, size=64):
    generator = stream(seed, purpose)
    if stream is numpy_stream:
        return generator.random(size).tolist()
    return torch.rand(size, generator=generator, dtype=torch.float64).tolist()


@EVERY_STREAM
def test_one_seed_and_purpose_give_the_same_numbers(stream):
    assert draw(stream, 3, "partition") == draw(stream, 3, "partition")


@EVERY_STREAM
def test_no_two_streams_are_equal(stream):
    """Seeds and purposes, and pairs that read alike when joined (1 and "1x", 11 and "x")."""
    names = [(seed, purpose) for seed in (0, 1, 2, 11, -1, 2**40) for purpose in PURPOSES]
    drawn = [draw(stream, *name) for name in [*names, (1, "1x"), (11, "x"), (1, "1:x"), (11, ":x")]]
    for first, second in combinations(drawn, 2):
        assert not set(first) & set(second)


@EVERY_STREAM
def test_a_stream_does_not_move_another(stream):
    first = stream(0, "partition")
    expected = draw(stream, 0, "partition")
    stream(0, "minibatches")
    values = first.random(64) if stream is numpy_stream else torch.rand(64, generator=first, dtype=torch.float64)
    assert values.tolist() == expected


@EVERY_STREAM
def test_the_global_generators_have_no_influence(stream):
    drawn = []
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        for seed in (0, 1):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            drawn.append(draw(stream, 5, "partition"))
    np.random.set_state(state)  # noqa: NPY002
    assert drawn[0] == drawn[1]


@EVERY_STREAM
def test_the_global_generators_are_left_alone(stream, global_generators_untouched):
    draw(stream, 0, "partition")


def test_streams_are_drawn_on_the_cpu():
    assert torch_stream(0, "partition").device.type == "cpu"


def test_stream_seeds_are_the_same_on_every_machine():
    """Written down: a change of the naming scheme would change every result."""
    assert stream_seed(0, "partition") == 8627091131259867769
    assert all(0 <= stream_seed(seed, "x") < 2**63 for seed in range(100))


def test_forks_of_any_number_are_new_streams():
    """Every step and stage has its own numbers, at any depth; a product beyond 64 bits once ended a training."""
    stream = Stream.of([0, 1], "attack")
    forks = [stream, *(stream.fork(number) for number in (0, 1, 2, 3, 10**6, 2**62))]
    drawn = torch.cat([fork.uniform(50) for deep in forks for fork in (deep, deep.fork(5))]).flatten()
    assert drawn.unique().numel() == drawn.numel()


@pytest.mark.parametrize("number", [0, 7, 12345])
def test_forked_numbers_are_uniform_and_normal(number):
    """Kolmogorov-Smirnov over 20000 numbers. False alarm: 2e-3 for each number."""
    stream = Stream.of([0, 1], "attack").fork(number)
    assert stats.kstest(stream.uniform(10000).flatten().numpy(), stats.uniform.cdf).pvalue > 1e-3
    assert stats.kstest(stream.normal(10000).flatten().numpy(), stats.norm.cdf).pvalue > 1e-3


def test_permutations_hold_every_number_once_and_are_uniform():
    """Where the first of 5 lands, over 5000 streams. False alarm: 1e-3."""
    orders = Stream.of(range(5000), "defence").permutation(5)
    assert torch.equal(orders.sort(dim=-1).values, torch.arange(5).expand(5000, 5))
    assert stats.chisquare(torch.bincount(orders[:, 0]).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("start", [0, 5])
def test_the_loops_draw_what_the_expressions_say(start, monkeypatch):
    stream = Stream.of([0, 1, 2**40], "attack")

    def drawn():
        return stream.fork(3).keys, stream.uniform(1000, start), stream.fork(torch.tensor(7)).uniform(10)

    found = drawn()
    monkeypatch.setattr(basis, "on_cpu", lambda tensor: False)
    assert all(map(torch.equal, found, drawn()))
