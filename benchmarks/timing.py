"""Times of several actions, measured in turns so that a disturbance of the machine affects all of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

Action = Callable[[], object]
MOST = 1000  # rounds


@dataclass(frozen=True)
class Conditions:
    """Where actions are measured, and how thoroughly.

    Attributes:
        device: What the actions run on.
        tiny: Whether the sizes are toy sizes, to see that everything runs.
    """

    device: torch.device
    tiny: bool

    @property
    def seconds(self) -> float:
        """How long one comparison lasts at least."""
        return 0.0 if self.tiny else 2.0

    @property
    def rounds(self) -> int:
        """How often an action runs at least."""
        return 3 if self.tiny else 5


def alternating(actions: Mapping[str, Action], conditions: Conditions) -> dict[str, float]:
    """Return the median time of each action in milliseconds.

    Every action runs once to warm up. Rounds follow, in each of which every action runs once, for at least
    ``conditions.seconds`` and ``conditions.rounds``, but at most ``MOST`` rounds.

    Args:
        actions: By name.
        conditions: The device, whose work each time includes, and how long to measure.
    """
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    end, rounds = time.perf_counter() + conditions.seconds, 0
    while rounds < conditions.rounds or (time.perf_counter() < end and rounds < MOST):
        for name, action in actions.items():
            times[name].append(1e3 * seconds(action, conditions.device))
        rounds += 1
    return {name: median(found) for name, found in times.items()}


def seconds(action: Action, device: torch.device) -> float:
    """Return the seconds that one run of an action takes, until the device has finished it."""
    finish(device)
    start = time.perf_counter()
    action()
    finish(device)
    return time.perf_counter() - start


def finish(device: torch.device) -> None:
    """Wait until a GPU has finished everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
