"""Intervals against printed tables, scipy and hand computation."""

import math

import pandas as pd
import pytest
from scipy import stats

from pipeline.report.intervals import binomial_error, clopper_pearson, mean_of_all, t_half_width


@pytest.mark.parametrize(
    ("values", "confidence", "expected"),
    [
        ([0.0, 2.0], 0.95, 12.7062),  # t = 12.7062 with 1 degree of freedom, s / sqrt(n) = 1
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.95, 2.776445 * math.sqrt(2.5 / 5)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.99, 4.604095 * math.sqrt(2.5 / 5)),
        ([7.0, 7.0, 7.0], 0.95, 0.0),
    ],
)
def test_t_half_width_of_printed_tables(values, confidence, expected):
    assert t_half_width(values, confidence) == pytest.approx(expected, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan, 2.0], [1.0, math.inf]])
def test_no_half_width_without_two_finite_values(values):
    assert math.isnan(t_half_width(values, 0.95))


def test_a_mean_does_not_leave_out_a_value_that_is_not_finite():
    assert math.isnan(mean_of_all(pd.Series([], dtype=float)))
    assert mean_of_all(pd.Series([1.0, 2.0])) == 1.5
    assert math.isnan(mean_of_all(pd.Series([1.0, math.nan])))


@pytest.mark.parametrize(
    ("hits", "runs", "low", "high"),
    [(0, 10, 0.0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (0, 0, 0.0, 1.0)],
)
def test_clopper_pearson_of_printed_tables(hits, runs, low, high):
    assert clopper_pearson(hits, runs, 0.95) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_clopper_pearson_is_that_of_scipy(confidence):
    for runs in (1, 5, 20):
        for hits in range(runs + 1):
            expected = stats.binomtest(hits, runs).proportion_ci(confidence, method="exact")
            assert clopper_pearson(hits, runs, confidence) == pytest.approx((expected.low, expected.high))


def test_the_test_sets_own_error():
    """3600 images, half of them right: a standard deviation of 30 images."""
    assert binomial_error(0.5, 3600) == pytest.approx(30 / 3600)
    assert binomial_error(1.0, 360) == 0
