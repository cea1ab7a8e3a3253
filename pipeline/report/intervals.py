"""Statistics over seeds: Student-t intervals, the paired test, and its adjustment for many comparisons."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

SAME = 1e-9  # differences of accuracies this close are equal: accuracies are multiples of 1 / images


def t_half_width(values: Sequence[float] | pd.Series, confidence: float) -> float:
    """Return the half width of the Student-t interval of the mean of ``values``.

    NaN for fewer than two values, and where one of them is not finite.

    Example:
        >>> round(t_half_width([1.0, 2.0, 3.0, 4.0, 5.0], 0.95), 3)
        1.963
        >>> t_half_width([1.0], 0.95)
        nan
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2 or not np.isfinite(array).all():
        return math.nan
    quantile = stdtrit(len(array) - 1, (1 + confidence) / 2)
    return float(quantile * array.std(ddof=1) / math.sqrt(len(array)))


def mean_of_all(values: pd.Series) -> float:
    """Return the mean; NaN where a value is not finite, since a mean of the others would hide a diverged run."""
    array = values.to_numpy(dtype=float)
    return float(array.mean()) if np.isfinite(array).all() else math.nan


def over_seeds(name: str, column: str, confidence: float) -> dict[str, Any]:
    """Return what pandas' ``agg`` takes to make ``name`` and ``name_half_width``, mean and interval of a column.

    Example:
        >>> table = pd.DataFrame({"defence": ["krum", "krum"], "seed": [0, 1], "test_accuracy": [0.5, 0.7]})
        >>> means = table.groupby("defence").agg(**over_seeds("accuracy", "test_accuracy", 0.95))
        >>> means.round(3).to_dict("list")
        {'accuracy': [0.6], 'accuracy_half_width': [1.271]}
    """
    return {name: (column, mean_of_all), f"{name}_half_width": (column, partial(t_half_width, confidence=confidence))}


def p_greater(differences: Sequence[float] | pd.Series) -> float:
    """Return the p-value of the one-sided paired t-test: P(T >= t) if the mean difference is 0 or less.

    t = mean / (sd / sqrt(k)) over k ``differences``, one per seed. Where all k are equal, a t-test has no spread to go
    by: the p-value is then that of the sign test, 2^-k if they are positive, else 1. NaN for fewer than two
    differences, and where one of them is not finite.

    Example:
        >>> round(p_greater([0.1, 0.2, 0.3]), 4)  # t = 0.2 / (0.1 / sqrt(3)) = 3.46, 2 degrees of freedom
        0.0371
        >>> p_greater([0.1, 0.1, 0.1]), p_greater([0.0, 0.0])
        (0.125, 1.0)
    """
    array = np.asarray(differences, dtype=float)
    k = len(array)
    if k < 2 or not np.isfinite(array).all():
        return math.nan
    if np.ptp(array) < SAME:
        return 0.5**k if array.mean() > SAME else 1.0
    t = array.mean() / (array.std(ddof=1) / math.sqrt(k))
    return float(stdtr(k - 1, -t))


def holm(p_values: Sequence[float] | pd.Series) -> np.ndarray:
    """Return Holm's adjusted p-values, in the order given; NaN stays NaN and is not counted as a comparison.

    With p_(1) <= ... <= p_(m), the i-th becomes max over j <= i of min(1, (m - j + 1) p_(j)).

    Reference: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6, 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), math.nan)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(scaled).clip(max=1)
    return adjusted
