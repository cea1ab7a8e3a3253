"""Every attack, pre-aggregation and partition inside the simulator: replicas together are each alone, bit by bit."""

import pytest
import torch
from inputs import example
from support import CPU, assert_identical, blobs, cell, parameters, train

from pipeline.attacks import ATTACKS
from pipeline.core.errors import UserError
from pipeline.data.partitions import PARTITIONS
from pipeline.defences.preaggregators import PREAGGREGATORS
from pipeline.simulator.gradients import vmap_gradients
from pipeline.simulator.program import build

DATASET = blobs(sizes=(140, 30, 20))


def of(changes, seeds=(0, 1)):
    """Cells of two seeds and two defences under the attack and partition that ``changes`` put in place."""
    small = {"search.studies": [], **changes}
    return [
        cell("ipm", defence, "alpha_03", seed, small) for defence in ("median", "nnm_trimmed_mean") for seed in seeds
    ]


def assert_together_is_alone(cells):
    together = train(cells, DATASET)
    for one, result in zip(cells, together, strict=True):
        assert_identical(train([one], DATASET)[0], result)
    return together


@pytest.mark.parametrize("name", ATTACKS.names)
def test_every_attack(name):
    results = assert_together_is_alone(of({"attacks.ipm": example(ATTACKS[name]).content()}))
    assert all(result.final["diverged"] == 0 for result in results)


def test_an_attack_with_a_memory():
    assert_together_is_alone(of({"attacks.ipm": {"name": "mimic", "warmup": 2}}))


@pytest.mark.parametrize("name", PREAGGREGATORS.names)
def test_every_pre_aggregation(name):
    changes = {
        "defences.median.before": [example(PREAGGREGATORS[name]).content()],
        "threat.tolerated": 1,
        "threat.byzantine": 1,
    }
    assert_together_is_alone(of(changes | {"attacks.alie.strength": 1}))


@pytest.mark.parametrize("holders", ["all", "honest", "honest_and_iid"])
@pytest.mark.parametrize("name", PARTITIONS.names)
def test_every_partition(name, holders):
    partition = example(PARTITIONS[name], holders=holders).content()
    assert_together_is_alone(of({"partitions.alpha_03": partition, "attacks.ipm": {"name": "label_flip"}}))


def test_partitions_with_shares_of_different_sizes_share_a_batch():
    """Side by side with a partition of larger shares, the padding changes nothing."""
    changes = {"partitions.iid": {"name": "dirichlet_by_class", "alpha": 0.5, "minimum": 3}}
    cells = [cell("ipm", "median", name, seed, changes) for name in ("alpha_03", "iid") for seed in (0, 1)]
    assert_together_is_alone(cells)


def test_no_worker_reads_beyond_its_share():
    changes = {"partitions.alpha_03": {"name": "dirichlet_by_class", "alpha": 0.5, "minimum": 3}, "search.studies": []}
    cells = [cell("none", "median", "alpha_03", seed, changes) for seed in range(3)]
    program = build(cells, DATASET, vmap_gradients, CPU)
    for r, one in enumerate(cells):
        shares = one.partition.shares(DATASET.train.labels, 7, 2, one.seed)
        for worker, size in enumerate(shares.sizes.tolist()):
            own = DATASET.train.inputs[shares.samples[worker, :size]].flatten(1).double()
            for t in range(6):
                read = program.batch(t, None, honest=5)[0][r, worker].flatten(1)
                assert bool((read[:, None] == own).all(dim=-1).any(dim=-1).all())


def test_with_honest_holders_byzantine_workers_read_shares_of_honest_ones():
    changes = {"partitions.alpha_03": {"name": "iid", "holders": "honest"}, "search.studies": []}
    program = build([cell("none", "median", "alpha_03", 0, changes)], DATASET, vmap_gradients, CPU)
    assert program.held.shape == (1, 7, 140 // 5)
    assert torch.equal(program.held[:, 5:], program.held[:, :2])
    inputs, _ = program.batch(0, None, honest=5)
    assert not torch.equal(inputs[:, 5:], inputs[:, :2])


@pytest.mark.parametrize("name", ["zero", "label_flip", "none"])
def test_an_attack_without_parameters_cannot_be_searched(name):
    with pytest.raises(UserError, match=rf"studies\.ipm\.space\.ipm: '{name}' has nothing to search"):
        parameters({"attacks.ipm": {"name": name}, "search.studies": ["ipm"]})
