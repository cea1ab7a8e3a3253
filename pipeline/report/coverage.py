"""How often the t-interval covers the truth, with few seeds and with seeds added until it is narrow: simulated."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import pandas as pd

from pipeline.report.intervals import t_half_width
from pipeline.runs.seeds import until_narrow

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


def coverage_of_added(first: int, most: int, half_widths: Sequence[float], confidence: float) -> pd.DataFrame:
    """Return how often the t-interval holds the true mean where seeds were added until it was narrow enough.

    A row for each half width aimed at; seeds come in rounds of ``first``, up to ``most``.

    Example:
        >>> coverage_of_added(2, 4, [0.03], 0.5).columns.to_list()
        ['half_width', 'normal', 'half of the runs collapse', 'one run in five collapses']
    """
    rounds = [(first, most, aimed, confidence) for aimed in half_widths]
    return pd.DataFrame(
        [{"half_width": aimed[2], **{name: _covered_added(name, *aimed) for name in OUTCOMES}} for aimed in rounds]
    )


def _covered_added(outcome: str, first: int, most: int, half_width: float, confidence: float) -> float:
    draw, mean = OUTCOMES[outcome]
    whole = draw(np.random.default_rng(STREAM), (DRAWS, most))
    groups = [group[: until_narrow(group, first, most, half_width, confidence)] for group in whole]
    return _held(groups, mean, confidence)


def _held(groups: Iterable[np.ndarray], mean: float, confidence: float) -> float:
    """Return the share of groups whose interval holds ``mean``."""
    return float(np.mean([abs(group.mean() - mean) <= t_half_width(group, confidence) for group in groups]))


@cache
def _covered(outcome: str, seeds: int, confidence: float) -> float:
    draw, mean = OUTCOMES[outcome]
    return _held(draw(np.random.default_rng(STREAM), (DRAWS, seeds)), mean, confidence)
