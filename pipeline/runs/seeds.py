"""How many seeds a group of cells needs, decided from its results alone, so that every machine decides alike."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pipeline.runs.params import Params

CLEAN = "none"


def t_half_width(values: ArrayLike, confidence: float) -> float:
    """Return the half width of the Student-t interval of the mean of ``values``.

    NaN for fewer than two values, and where one of them is not finite.

    Example:
        >>> round(t_half_width([1.0, 2.0, 3.0, 4.0, 5.0], 0.95), 3)
        1.963
        >>> t_half_width([1.0], 0.95)
        nan
    """
    from scipy.special import stdtrit  # an import of tenths of a second, which most commands do without

    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all():
        return math.nan
    quantile = stdtrit(len(array) - 1, (1 + confidence) / 2)
    return float(quantile * array.std(ddof=1) / math.sqrt(len(array)))


def seeds_needed(params: Params, attack: str, accuracies: Sequence[float]) -> int:
    """Return how many seeds one attack, defence and partition needs, as far as the known accuracies tell.

    ``grid.seeds`` come first, then as many again and again, until the interval of the mean is narrow enough or
    ``grid.max_seeds`` are reached. Without attack all seeds are needed: they are the reference of every attack.

    Args:
        params: Of params.yaml.
        attack: Of the row.
        accuracies: Test accuracies of the first seeds of ``grid.all_seeds``; further ones do no harm.

    Returns:
        Between the number of ``grid.seeds`` and ``grid.max_seeds``; more than there are accuracies where these do not
        suffice.
    """
    grid, analysis = params.grid, params.analysis
    if attack == CLEAN:
        return grid.max_seeds
    return until_narrow(accuracies, len(grid.seeds), grid.max_seeds, analysis.half_width, analysis.confidence)


def until_narrow(values: Sequence[float], first: int, most: int, half_width: float, confidence: float) -> int:
    """Return how many values make the interval of their mean narrow enough, as far as they tell.

    Args:
        values: In the order in which they are added.
        first: Values of each round.
        most: Values at which rounds end.
        half_width: Aimed at.
        confidence: Of the Student-t interval.

    Returns:
        Between ``first`` and ``most``; more than ``len(values)`` where these do not suffice.

    Example:
        >>> until_narrow([0.1, 0.9, 0.5, 0.5, 0.5, 0.5], first=2, most=6, half_width=0.6, confidence=0.95)
        4
    """
    count = first
    while count < most and len(values) >= count:
        if t_half_width(values[:count], confidence) <= half_width:
            break
        count = min(count + first, most)
    return count
