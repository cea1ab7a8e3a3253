"""How often the t-interval covers the truth with few seeds: measured by simulation."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from pipeline.report.intervals import t_half_width

STREAM = 0  # seed of the simulation
DRAWS = 4000  # simulated groups of seeds: a coverage of 95 % is then known to ± 0.7 points
LOW, HIGH, SPREAD = 0.15, 0.75, 0.05  # two humps of test accuracy: collapsed runs, and runs that still learn

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def _humps(share: float) -> Draw:
    """Return a draw of accuracies of which a given share collapses."""

    def draw(stream: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        centres = np.where(stream.random(shape) < share, LOW, HIGH)
        return centres + SPREAD * stream.standard_normal(shape)

    return draw


# What the seeds of a group may look like -> how to draw them, and their mean.
OUTCOMES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda stream, shape: HIGH + SPREAD * stream.standard_normal(shape), HIGH),
    "half of the runs collapse": (_humps(0.5), 0.5 * LOW + 0.5 * HIGH),
    "one run in five collapses": (_humps(0.2), 0.2 * LOW + 0.8 * HIGH),
}


def coverage(seeds: Sequence[int], confidence: float) -> pd.DataFrame:
    """Return a table of how often the t-interval of the mean holds the true mean: a row per number of seeds.

    Example:
        >>> coverage([2], 0.5).columns.to_list()
        ['seeds', 'normal', 'half of the runs collapse', 'one run in five collapses']
    """
    rows = [{"seeds": count, **{name: _covered(name, count, confidence) for name in OUTCOMES}} for count in seeds]
    return pd.DataFrame(rows)


@cache
def _covered(outcome: str, seeds: int, confidence: float) -> float:
    draw, mean = OUTCOMES[outcome]
    groups = draw(np.random.default_rng(STREAM), (DRAWS, seeds))
    held = [abs(group.mean() - mean) <= t_half_width(group, confidence) for group in groups]
    return float(np.mean(held))
