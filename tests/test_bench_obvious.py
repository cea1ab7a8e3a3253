"""The implementations that ours are compared with compute the same."""

import pytest
import torch

from benchmarks import obvious
from benchmarks.subjects import normal, stream, subjects
from pipeline.defences.aggregators import AGGREGATORS
from pipeline.defences.preaggregators import PREAGGREGATORS

CPU = torch.device("cpu")
SUBJECTS = {subject.name: subject for subject in subjects()}


def test_every_obvious_twin_is_that_of_a_registered_rule_or_pre_aggregation():
    assert set(obvious.RULES) <= set(AGGREGATORS.names)
    assert set(obvious.MAPS) <= set(PREAGGREGATORS.names)


@pytest.fixture
def same_order(monkeypatch):
    """``torch.randperm`` gives the orders that our components draw, replica by replica."""

    def order(name, replicas, n):
        ours = stream(replicas, CPU).fork(0) if name == "dnc" else stream(replicas, CPU)
        drawn = iter(ours.permutation(n))
        monkeypatch.setattr(torch, "randperm", lambda _, device: next(drawn))

    return order


@pytest.mark.parametrize("n", [13, 14])
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("name", SUBJECTS)
def test_equal_on_benign_vectors(name, replicas, n, same_order):
    subject, d = SUBJECTS[name], 10_400 if name == "dnc" else 60
    vectors = 1 + normal(replicas, n, d, device=CPU).double()
    for f in subject.tolerated(n):
        if name == "mda":  # else several subsets have the least diameter
            vectors[:, :f] += 9
        same_order(name, replicas, n if name == "bucketing" else d)
        found = subject.obvious(vectors, f)
        torch.testing.assert_close(subject.ours(vectors, f, stream(replicas, CPU)), found, rtol=1e-3, atol=1e-3)
        assert found.shape[0] == replicas
        assert f > 0


@pytest.mark.parametrize("name", SUBJECTS)
def test_measured_at_an_f_that_is_tolerated(name):
    for n in (13, 15, 25, 51):
        assert all(SUBJECTS[name].tolerates(n, f) for f in SUBJECTS[name].tolerated(n))
    assert SUBJECTS["median"].tolerated(51) == [12]
    assert SUBJECTS["mda"].tolerated(51) == [2, 12]
    assert not SUBJECTS["mda"].has_obvious(51, 12)
