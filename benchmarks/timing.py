"""Times of several actions, measured in turns so that a disturbance of the machine meets all of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

Action = Callable[[], object]
MOST = 1000  # rounds


@dataclass(frozen=True)
class Setting:
    """Where is measured, and how thoroughly.

    Attributes:
        device: Where.
        tiny: Toy sizes, to see that everything runs.
    """

    device: torch.device
    tiny: bool

    @property
    def seconds(self) -> float:
        """How long one comparison goes on."""
        return 0.0 if self.tiny else 2.0

    @property
    def rounds(self) -> int:
        """The fewest runs of an action."""
        return 3 if self.tiny else 5


def alternating(actions: Mapping[str, Action], setting: Setting) -> dict[str, float]:
    """Return the median time of each action in milliseconds.

    Every action runs once to warm up. Then rounds, in each of which every action runs once, until ``setting.seconds``
    are over, but at least ``setting.rounds``.

    Args:
        actions: By name.
        setting: The device, for which each time waits.
    """
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    end, rounds = time.perf_counter() + setting.seconds, 0
    while rounds < setting.rounds or (time.perf_counter() < end and rounds < MOST):
        for name, action in actions.items():
            times[name].append(1e3 * seconds(action, setting.device))
        rounds += 1
    return {name: median(found) for name, found in times.items()}


def seconds(action: Action, device: torch.device) -> float:
    """Return the time of one run of an action, until the device has done it."""
    finish(device)
    start = time.perf_counter()
    action()
    finish(device)
    return time.perf_counter() - start


def finish(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
