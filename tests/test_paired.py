"""The sign-flip test by hand, against scipy, and its level; Holm's adjustment."""

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.report import paired
from pipeline.report.paired import holm, least_p, p_different, p_greater


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan, 2.0], [1.0, math.inf]])
def test_no_p_value_without_two_finite_values(values):
    assert math.isnan(p_greater(values))
    assert math.isnan(p_different(values))


def test_p_value_by_hand():
    """Of the 8 sign choices of 1, 2, 3, only +++ sums to 6 and only +++ and -++ to 4 or more."""
    assert p_greater([1, 2, 3]) == 1 / 8
    assert p_greater([-1, 2, 3]) == 2 / 8
    assert p_greater([-1, -2, -3]) == 1
    assert p_different([-1, 2, 3]) == 4 / 8
    assert p_different([-1, -2, -3]) == 2 / 8


def test_equal_differences_but_for_rounding():
    gained = np.array([0.9, 0.7, 0.3, 0.2, 0.5]) - np.array([0.8, 0.6, 0.2, 0.1, 0.4])
    assert gained.std() > 0
    assert p_greater(gained) == least_p(5) == 1 / 32
    assert p_greater([0.0] * 5) == 1


@pytest.mark.parametrize(("k", "shift"), [(2, 0.0), (5, 0.3), (9, 0.5), (12, -0.2), (16, 0.4)])
def test_exact_p_value_is_that_of_scipy(k, shift):
    differences = np.random.default_rng(k).normal(shift, size=k)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf, vectorized=True
    )
    assert p_greater(differences) == pytest.approx(expected.pvalue, rel=1e-12)


def test_random_flips_agree_with_all_flips_and_are_always_the_same(monkeypatch):
    differences = np.random.default_rng(3).normal(0.7, size=14)
    exact = p_greater(differences)
    monkeypatch.setattr(paired, "ENUMERATED", 13)
    estimated = p_greater(differences)
    assert 0.01 < exact < 0.2
    assert estimated != exact
    assert estimated == pytest.approx(exact, abs=4 * math.sqrt(exact / paired.FLIPS))
    assert p_greater(differences) == estimated


def test_many_seeds_never_give_p_zero():
    assert p_greater([0.1] * 40) == 1 / (1 + paired.FLIPS)


def two_humps(stream, shape):
    """Differences that are near 0 or near 0.6 either way, as where runs collapse; symmetric about 0."""
    return stream.choice([-0.6, 0.0, 0.6], p=[0.2, 0.6, 0.2], size=shape) + 0.02 * stream.standard_normal(shape)


@pytest.mark.parametrize("seeds", [5, 10, 14])
@pytest.mark.parametrize("draw", [lambda stream, shape: stream.standard_normal(shape), two_humps])
def test_false_alarms_are_no_more_than_alpha(draw, seeds):
    """3000 experiments without a difference: more than 5 % + 3 standard errors would be 6.2 %."""
    groups = draw(np.random.default_rng(seeds), (3000, seeds))
    p = np.array([p_greater(group) for group in groups])
    for alpha in (0.05, 0.2):
        assert (p <= alpha).mean() <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 3000)
    assert (p <= 0.05).mean() > 0.02  # and the test can see something


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
