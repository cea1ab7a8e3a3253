"""Elementary functions against those of the C library, and the softmax against them."""

import math

import numpy as np
import pytest
import torch

from pipeline.core.kernels.perceptron import cross_entropy, exponential, logarithm

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


def test_exponentials_side_by_side_have_the_bits_of_each_alone():
    """Across the limit below which powers of two are subnormal, and with infinities and NaN."""
    logits = np.array(
        [[0.0, *RANDOM.uniform(-760, 0, 5), -707.9, -708.0, -708.1, -745.0, -math.inf] for _ in range(70)]
    )
    logits[-1, 3] = math.nan
    losses, derivative = cross_entropy(torch.from_numpy(logits), torch.zeros(70, dtype=torch.int64))
    for row, loss, found in zip(logits, losses.tolist(), derivative.tolist(), strict=True):
        powers = [exponential(x) for x in row]
        total = sum(powers)
        assert [loss, *found] == pytest.approx(
            [logarithm(total), powers[0] / total - 1, *np.divide(powers[1:], total)], rel=0, abs=0, nan_ok=True
        )
