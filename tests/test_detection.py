"""What a norm and a distance filter flag, against a plain computation."""

from statistics import median

import numpy as np
import pytest
import torch
from support import blobs, cell, train

from pipeline.simulator.detection import flagged
from pipeline.simulator.gradients import chain_gradients
from pipeline.simulator.loop import run
from pipeline.simulator.program import build


def slow(sent, honest):
    """Both filters in plain Python."""
    centre = [median(column) for column in zip(*sent, strict=True)]
    norms = [sum(x * x for x in row) ** 0.5 for row in sent]
    distances = [sum((x - c) ** 2 for x, c in zip(row, centre, strict=True)) ** 0.5 for row in sent]
    hits = set()
    for scores in (norms, distances):
        middle = median(scores)
        spread = median(abs(score - middle) for score in scores)
        hits |= {i for i, score in enumerate(scores) if score > middle + 3 * 1.4826 * spread}
    return sum(i in hits for i in range(honest, len(sent))) / (len(sent) - honest)


@pytest.mark.parametrize("n", [7, 8, 9, 30])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, 5.0, 30.0])
def test_the_share_is_that_of_a_plain_computation(n, scale):
    generator = np.random.default_rng([n, int(scale)])
    sent = generator.normal(size=(4, n, 6)) + 2
    sent[:, n - 3 :] *= scale * generator.uniform(size=(4, 3, 1))
    expected = [slow(replica.tolist(), n - 3) for replica in sent]
    assert flagged(torch.from_numpy(sent), n - 3).tolist() == pytest.approx(expected)


def test_each_filter_sees_what_the_other_does_not():
    circle = torch.tensor([[10.0, 0.1 * i] for i in range(-3, 4)])
    opposite = torch.tensor([[-10.0, 0.0]])  # of the same norm, far away
    assert flagged(torch.cat([circle, opposite]), honest=7) == 1
    spread = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.01]])
    assert flagged(torch.cat([spread, torch.tensor([[0.0, 0, 1.0]])]), honest=6) == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_what_is_not_finite_is_flagged(value):
    sent = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    sent[5:] = value
    assert flagged(sent, honest=5) == 1


def test_training_measures_it_only_when_asked_and_changes_nothing_else():
    cells, data = [cell("ipm", strength) for strength in ("median", "krum")], blobs()
    plain = train(cells, data)
    seen = run(build(cells, data, chain_gradients, torch.device("cpu"), detect=True), lambda *_: None)
    for one, other in zip(plain, seen, strict=True):
        assert set(other.steps) - set(one.steps) == {"flagged"}
        assert all((one.steps[name] == other.steps[name]).all() for name in ("train_loss", "honest_norm"))
        assert ((other.steps["flagged"] >= 0) & (other.steps["flagged"] <= 1)).all()
