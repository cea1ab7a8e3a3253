"""Intervals: of a mean over seeds, of a probability, and the error that the test set itself adds."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import betaincinv

from pipeline.runs.seeds import t_half_width as t_half_width

Values = Sequence[float] | pd.Series | np.ndarray  # a number per seed


def mean_of_all(values: pd.Series) -> float:
    """Return the mean; NaN where a value is not finite, since a mean of the others would hide it, and for no values."""
    array = values.to_numpy(dtype=float)
    return float(array.mean()) if len(array) and np.isfinite(array).all() else math.nan


def over_seeds(name: str, column: str, confidence: float) -> dict[str, Any]:
    """Return what pandas' ``agg`` takes to make ``name`` and ``name_half_width``, mean and interval of a column.

    Example:
        >>> table = pd.DataFrame({"defence": ["krum", "krum"], "seed": [0, 1], "test_accuracy": [0.5, 0.7]})
        >>> means = table.groupby("defence").agg(**over_seeds("accuracy", "test_accuracy", 0.95))
        >>> means.round(3).to_dict("list")
        {'accuracy': [0.6], 'accuracy_half_width': [1.271]}
    """
    return {name: (column, mean_of_all), f"{name}_half_width": (column, partial(t_half_width, confidence=confidence))}


def clopper_pearson(hits: int, runs: int, confidence: float) -> tuple[float, float]:
    """Return the exact interval of a probability after ``hits`` in ``runs`` independent trials.

    Its ends are the probabilities under which so many hits, or more, or so many, or fewer, have the probability
    (1 - ``confidence``) / 2; so it covers the truth at least as often as it says. (0, 1) for no runs.

    Reference: Clopper, Pearson, "The use of confidence or fiducial limits", Biometrika 26, 1934.

    Example:
        >>> [round(end, 3) for end in clopper_pearson(0, 5, 0.95)]
        [0.0, 0.522]
    """
    tail = (1 - confidence) / 2
    low = float(betaincinv(hits, runs - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, runs - hits, 1 - tail)) if hits < runs else 1.0
    return low, high


def binomial_error(accuracy: float, samples: int) -> float:
    """Return the standard error of an accuracy that comes from the finite test set: sqrt(p (1 - p) / N).

    Example:
        >>> binomial_error(0.5, 400)
        0.025
    """
    return math.sqrt(accuracy * (1 - accuracy) / samples)
