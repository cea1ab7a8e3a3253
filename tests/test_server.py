"""The server's update."""

import oracles
import pytest
import torch
from inputs import examples

from pipeline.core.errors import UserError
from pipeline.simulator.schedules import SCHEDULES
from pipeline.simulator.server import update

SCHEDULE = examples(SCHEDULES)


def factors(value, steps):
    return SCHEDULES.parse(value, "schedule").factors(steps).tolist()


def test_constant():
    assert factors({"name": "constant"}, 4) == [1.0] * 4
    assert factors({"name": "constant"}, 0) == []


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ([], [1, 1, 1, 1, 1]),
        ([1], [1, 0.5, 0.5, 0.5, 0.5]),
        ([2, 4], [1, 1, 0.5, 0.5, 0.25]),
        ([4, 2], [1, 1, 0.5, 0.5, 0.25]),
        ([9], [1, 1, 1, 1, 1]),
    ],
    ids=str,
)
def test_milestones(at, expected):
    assert factors({"name": "milestones", "at": at, "factor": 0.5}, 5) == expected


def test_milestones_agree_with_pytorch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[3, 7], gamma=0.1)
    rates = []
    for _ in range(10):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert factors({"name": "milestones", "at": [3, 7], "factor": 0.1}, 10) == pytest.approx(rates)


@pytest.mark.parametrize(
    ("key", "value"),
    [("at", [0]), ("at", [-1]), ("at", ["3"]), ("at", 3), ("factor", 0.0), ("factor", 1.5), ("factor", "0.1")],
)
def test_wrong_milestones_are_named(key, value):
    with pytest.raises(UserError, match=rf"^schedule\.{key}"):
        SCHEDULES.parse({"name": "milestones", "at": [3], "factor": 0.1} | {key: value}, "schedule")


@pytest.mark.parametrize("schedule", SCHEDULE.values(), ids=SCHEDULE)
@pytest.mark.parametrize("steps", [0, 1, 12])
def test_every_schedule_is_its_slow_twin(schedule, steps):
    twin, fields = oracles.twin("schedules", schedule.name), schedule.model_dump(exclude={"name"})
    found = schedule.factors(steps)
    assert (found.dtype, found.shape) == (torch.float64, (steps,))
    assert found.tolist() == pytest.approx([twin(t, **fields) for t in range(steps)], rel=1e-12)
    assert schedule.formula
    assert SCHEDULES.parse(schedule.content(), "schedule") == schedule


def test_update_by_hand():
    """1 - 0.1 (2 + 0.5 * 1) = 0.75 and -4 - 0.1 (0 + 0.5 * -4) = -3.8."""
    params, direction, still = torch.tensor([[1.0, -4.0]]), torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2)
    moved, velocity = update(params, still, direction, torch.tensor(0.1), weight_decay=0.5, momentum=0.0)
    torch.testing.assert_close(moved, torch.tensor([[0.75, -3.8]]))
    torch.testing.assert_close(velocity, torch.tensor([[2.5, -2.0]]))


def test_the_rate_may_differ_between_replicas():
    params, direction = torch.ones(2, 3), torch.ones(2, 3)
    rates = torch.tensor([[0.5], [0.25]])
    moved, _ = update(params, torch.zeros(2, 3), direction, rates, weight_decay=0.0, momentum=0.0)
    assert moved.tolist() == [[0.5] * 3, [0.75] * 3]
    assert torch.equal(params, torch.ones(2, 3))
    assert torch.equal(direction, torch.ones(2, 3))


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_updates_are_those_of_sgd_with_weight_decay_and_momentum(momentum):
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    moved, velocity = parameter.detach().clone()[None], torch.zeros(1, 3)
    optimizer = torch.optim.SGD([parameter], lr=0.2, weight_decay=0.01, momentum=momentum)
    for gradient in ([0.3, 0.2, -0.1], [0.1, 0.0, 0.5], [-0.4, 0.2, 0.0]):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        moved, velocity = update(moved, velocity, parameter.grad[None], torch.tensor(0.2), 0.01, momentum)
    torch.testing.assert_close(moved[0], parameter.detach())
