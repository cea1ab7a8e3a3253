"""Elementary functions against those of the C library."""

import math

import numpy as np
import pytest

from pipeline.core.kernels.elementary import exponential, logarithm

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("x", [*RANDOM.uniform(-700, 0, 50), *RANDOM.uniform(-1, 0, 50), -1e-300, 0.0, -745.0])
def test_the_exponential_is_right_to_two_units_in_the_last_place(x):
    assert abs(exponential(float(x)) - math.exp(x)) <= 2 * math.ulp(math.exp(x))


@pytest.mark.parametrize("x", [*np.exp(RANDOM.uniform(-700, 700, 50)), *RANDOM.uniform(0.5, 2, 200), 1.0, 2.0**-53])
def test_the_logarithm_is_right_to_two_units_in_the_last_place(x):
    assert abs(logarithm(float(x)) - math.log(x)) <= 2 * math.ulp(math.log(x))


def test_limits():
    assert exponential(-math.inf) == 0
    assert logarithm(math.inf) == math.inf
    assert math.isnan(exponential(math.nan))
    assert math.isnan(logarithm(math.nan))
