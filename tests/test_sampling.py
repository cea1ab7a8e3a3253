"""Which workers take part in a round."""

import math

import pytest
import torch

from pipeline.core.rng import Stream
from pipeline.simulator.sampling import byzantine_counts, put, subset, take

STREAM = Stream.of(range(200), "rounds")


def test_counts_follow_the_hypergeometric_distribution():
    """4000 rounds of 6 from 15 with 5: each frequency within 5 standard errors, false alarm below 1e-5.

    Over 40 seeds, 100 rounds each; 5 Byzantine workers are cut to 4, as two honest ones take part.
    """
    counts = [count for seed in range(40) for count in byzantine_counts(seed, 100, 15, 5, 6)]
    shares = [math.comb(5, k) * math.comb(10, 6 - k) / math.comb(15, 6) for k in range(6)]
    for k, share in enumerate([*shares[:4], shares[4] + shares[5]]):
        assert abs(counts.count(k) / 4000 - share) < 5 * math.sqrt(share * (1 - share) / 4000)
    assert max(counts) == 4


def test_counts_belong_to_the_seed():
    assert byzantine_counts(0, 9, 15, 5, 6) == byzantine_counts(0, 20, 15, 5, 6)[:9]
    assert len({tuple(byzantine_counts(seed, 20, 15, 5, 6)) for seed in range(10)}) == 10


def test_counts_at_the_limits():
    assert byzantine_counts(0, 9, 15, 0, 6) == [0] * 9
    assert byzantine_counts(0, 3, 15, 5, 15) == [5] * 3
    assert byzantine_counts(0, 9, 15, 13, 3) == [1] * 9  # two of three are honest


def test_a_subset_is_uniform_ascending_and_without_repeats():
    """2000 draws of 3 from 7: each worker's frequency within 5 standard errors of 3/7, false alarm below 1e-5."""
    chosen = torch.cat([subset(7, 3, STREAM.fork(t)) for t in range(10)])
    assert bool((chosen.diff(dim=-1) > 0).all())
    frequency = torch.bincount(chosen.flatten(), minlength=7) / 2000
    assert float((frequency - 3 / 7).abs().max()) < 5 * math.sqrt(3 / 7 * 4 / 7 / 2000)


def test_a_replicas_subset_does_not_depend_on_its_batch():
    alone = subset(7, 3, Stream.of([17], "rounds").fork(4))
    assert torch.equal(alone, subset(7, 3, STREAM.fork(4))[17:18])


@pytest.mark.parametrize("trailing", [(), (4,)])
def test_put_undoes_take(trailing):
    values = torch.randn(200, 7, *trailing, generator=torch.Generator().manual_seed(0))
    workers = subset(7, 3, STREAM)
    taken = take(values, workers)
    assert torch.equal(taken[5, 1], values[5, workers[5, 1]])
    assert torch.equal(put(values, workers, taken), values)
    changed = put(values, workers, taken + 1)
    assert int((changed != values).sum()) == taken.numel()
    assert torch.equal(take(changed, workers), taken + 1)


def test_without_sampling_nothing_is_copied():
    values, new = torch.zeros(2, 3), torch.ones(2, 3)
    assert take(values, None) is values
    assert put(values, None, new) is new
