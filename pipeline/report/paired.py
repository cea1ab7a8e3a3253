"""The paired test: sign flips of differences within a seed, and its adjustment for many comparisons."""

import math
from functools import lru_cache

import numpy as np

from pipeline.report.intervals import Values

SAME = 1e-9  # differences of accuracies this close are equal: accuracies are multiples of 1 / images
ENUMERATED = 16  # differences at most for which all sign flips are tried
FLIPS = 100_000  # drawn at random for more differences
STREAM = 0  # seed of these


def p_greater(differences: Values) -> float:
    """Return the p-value of the one-sided sign-flip test of the hypothesis that the mean difference is 0 or less.

    If the two sides of a pair could as well be swapped, every difference had either sign with equal probability. p is
    the share of all 2^k choices of signs whose mean is at least as large as that observed, so with k differences it is
    never below 2^-k. For k > 16 it is estimated from 100,000 random choices, always the same, the observed one added.
    NaN for fewer than two differences, and where one of them is not finite.

    Reference: Fisher, "The design of experiments", 1935; Phipson, Smyth, arXiv:1603.05766 (the observed one counts).

    Example:
        >>> p_greater([0.1, 0.2, 0.3]), p_greater([0.1, 0.2, -0.3]), p_greater([0.0, 0.0])
        (0.125, 0.625, 1.0)
    """
    array = np.asarray(differences, dtype=float)
    k = len(array)
    if k < 2 or not np.isfinite(array).all():
        return math.nan
    if k <= ENUMERATED:
        return float((_all_sums(array) >= array.sum() - k * SAME).mean())
    as_large = np.count_nonzero(_random_sums(array) >= array.sum() - k * SAME)
    return (1 + as_large) / (1 + FLIPS)


def _all_sums(array: np.ndarray) -> np.ndarray:
    """Return the sums of ``array [k]`` under all choices of signs, ``[2^k]``."""
    sums = np.zeros(1)
    for value in array:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _random_sums(array: np.ndarray) -> np.ndarray:
    """Return the sums of ``array [k]`` under random choices of signs, ``[FLIPS]``."""
    sums: np.ndarray = _random_signs(len(array)) @ array
    return sums


@lru_cache(maxsize=2)
def _random_signs(k: int) -> np.ndarray:
    """Return -1 and 1 in equal shares, ``[FLIPS, k]``, the same for every test."""
    return 2.0 * np.random.default_rng(STREAM).integers(0, 2, size=(FLIPS, k)) - 1


def p_different(differences: Values) -> float:
    """Return the p-value of the two-sided sign-flip test: twice the smaller one-sided one, at most 1.

    Example:
        >>> p_different([-0.1, -0.2, -0.3])
        0.25
    """
    array = np.asarray(differences, dtype=float)
    return float(np.minimum(1.0, 2 * np.minimum(p_greater(array), p_greater(-array))))


def least_p(seeds: int) -> float:
    """Return the smallest p-value that the one-sided test can give with so many seeds, random flips left aside.

    Example:
        >>> least_p(5), least_p(4)
        (0.03125, 0.0625)
    """
    return 0.5**seeds


def holm(p_values: Values) -> np.ndarray:
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
