"""Intervals and tests against printed tables, scipy and hand computation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.report.intervals import holm, mean_of_all, p_greater, t_half_width


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
def test_no_half_width_and_no_p_value_without_two_finite_values(values):
    assert math.isnan(t_half_width(values, 0.95))
    assert math.isnan(p_greater(values))


def test_a_mean_does_not_leave_out_a_value_that_is_not_finite():
    assert mean_of_all(pd.Series([1.0, 2.0])) == 1.5
    assert math.isnan(mean_of_all(pd.Series([1.0, math.nan])))


def test_p_value_of_a_printed_table():
    """With 4 degrees of freedom t = 2.132 has 5 % above it, and t = 3.747 has 1 %."""
    unit = np.array([-2, -1, 0, 1, 2]) / math.sqrt(2.5) * math.sqrt(5)  # mean 0, standard error 1
    assert p_greater(unit + 2.131847) == pytest.approx(0.05, abs=1e-6)
    assert p_greater(unit + 3.746947) == pytest.approx(0.01, abs=1e-6)


@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.03, 0.2])
def test_p_value_is_that_of_scipys_paired_test(shift):
    literature, noise = np.random.default_rng(0).normal(size=(2, 5))
    found = literature + 0.1 * noise + shift
    expected = stats.ttest_rel(found, literature, alternative="greater").pvalue
    assert p_greater(found - literature) == pytest.approx(expected, rel=1e-9)


def test_equal_differences_have_the_p_value_of_the_sign_test():
    gained = np.array([0.9, 0.7, 0.3, 0.2, 0.5]) - np.array([0.8, 0.6, 0.2, 0.1, 0.4])  # 0.1 but for rounding
    assert gained.std() > 0
    assert p_greater(gained) == 1 / 32
    assert p_greater([0.0] * 5) == 1
    assert p_greater([-0.1] * 5) == 1


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last may not fall below the one before."""
    assert holm([0.01, 0.04, 0.005, 0.03]) == pytest.approx([0.03, 0.06, 0.02, 0.06])


def test_holm_is_cut_at_one_and_counts_only_what_was_tested():
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    np.testing.assert_allclose(holm([math.nan, 0.02, math.nan, 0.01]), [math.nan, 0.02, math.nan, 0.02])
    assert holm([]).tolist() == []


def test_holm_is_never_below_the_p_value_nor_above_bonferronis():
    p = np.random.default_rng(1).uniform(size=50) ** 3
    assert (holm(p) >= p).all()
    assert (holm(p) <= np.minimum(1, 50 * p) + 1e-12).all()
    assert holm(p).min() == pytest.approx(50 * p.min())
