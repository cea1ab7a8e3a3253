"""Order statistics over workers."""

import math

import pytest
import torch
from inputs import unequal_vectors

from pipeline.core.kernels import basis
from pipeline.core.kernels.ranks import window_mean
from pipeline.core.order import (
    mean_and_deviation_over_workers,
    mean_around_median,
    mean_around_trimmed_mean,
    mean_over_workers,
    median_over_workers,
    moments_over_workers,
    needed,
    network,
    trimmed_mean_over_workers,
)

STATISTICS = {
    "mean": lambda vectors: mean_over_workers(vectors),
    "median": lambda vectors: median_over_workers(vectors),
    "trimmed_mean": lambda vectors: trimmed_mean_over_workers(vectors, 2),
    "mean_around_median": lambda vectors: mean_around_median(vectors, 5),
    "mean_around_trimmed_mean": lambda vectors: mean_around_trimmed_mean(vectors, 2),
    "deviation": lambda vectors: mean_and_deviation_over_workers(vectors)[1],
}


def sorted_by(comparators, rows):
    rows = list(rows.unbind(0))
    for i, j in comparators:
        rows[i], rows[j] = torch.minimum(rows[i], rows[j]), torch.maximum(rows[i], rows[j])
    return torch.stack(rows)


def zeros_and_ones(n):
    """All columns of n zeros and ones: what sorts these sorts everything (the 0-1 principle)."""
    return (torch.arange(2**n) >> torch.arange(n)[:, None]) & 1


@pytest.mark.parametrize("n", range(1, 15))
def test_the_network_sorts_everything(n):
    columns = zeros_and_ones(n)
    assert torch.equal(sorted_by(network(n), columns), columns.sort(dim=0).values)


@pytest.mark.parametrize("n", [15, 16, 17, 30, 33, 51, 64, 65, 100])
def test_the_network_sorts_many_workers(n):
    columns = unequal_vectors(n, 500).round(decimals=1)
    assert torch.equal(sorted_by(network(n), columns), columns.sort(dim=0).values)


@pytest.mark.parametrize("n", [3, 4, 7, 8, 13])
def test_the_needed_comparators_sort_the_wanted_rows(n):
    columns = zeros_and_ones(n)
    expected = columns.sort(dim=0).values
    for first in range(n):
        for last in range(first + 1, n + 1):
            found = sorted_by(needed(n, first, last), columns)
            assert torch.equal(found[first:last], expected[first:last])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 30, 51, 100])
def test_the_median_and_trimmed_mean_agree_with_a_sort(n):
    vectors = unequal_vectors(2, 3, n, 40)
    ordered, f = vectors.sort(dim=-2).values, (n - 1) // 2
    middle = (ordered[..., (n - 1) // 2, :] + ordered[..., n // 2, :]) / 2
    torch.testing.assert_close(median_over_workers(vectors), middle)
    torch.testing.assert_close(trimmed_mean_over_workers(vectors, f), ordered[..., f : n - f, :].mean(dim=-2))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([5.0], 5.0),
        ([3.0, 1.0, 2.0], 2.0),
        ([4.0, 1.0, 2.0, 100.0], 3.0),
        ([math.nan, 1.0, 2.0, 4.0, math.inf], 4.0),
        ([-math.inf, math.nan, 1.0, 2.0, 3.0, 4.0], 2.5),
        ([3e38, 3e38, 1.0, 3e38], 3e38),
    ],
)
def test_median_over_workers(column, expected):
    vectors = torch.tensor(column)[:, None]
    before = vectors.clone()
    assert median_over_workers(vectors) == pytest.approx(expected)
    torch.testing.assert_close(vectors, before, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("n", [6, 7, 30])
def test_the_mean_around_a_statistic_takes_the_nearest_values(n):
    vectors = unequal_vectors(3, n, 40).round(decimals=1)
    for centre, found in [
        (median_over_workers(vectors), mean_around_median(vectors, n - 2)),
        (trimmed_mean_over_workers(vectors, 2), mean_around_trimmed_mean(vectors, 2)),
    ]:
        torch.testing.assert_close(found, nearest_by_sorting(vectors, centre, n - 2))


def nearest_by_sorting(vectors, centre, count):
    ordered = vectors.sort(dim=-2).values
    order = (ordered - centre[..., None, :]).abs().argsort(dim=-2, stable=True)[..., :count, :]
    return ordered.gather(-2, order).mean(dim=-2)


@pytest.mark.parametrize("count", range(1, 8))
def test_the_mean_of_the_values_nearest_to_any_centre(count):
    vectors = unequal_vectors(3, 7, 5).round(decimals=1)
    centre = unequal_vectors(3, 5, seed=1).round(decimals=1)
    found = window_mean(centre, vectors.sort(dim=-2).values.unbind(dim=-2), count)
    torch.testing.assert_close(found, nearest_by_sorting(vectors, centre, count))


@pytest.mark.parametrize(
    ("values", "centre", "count", "expected"),
    [
        ([1.0, 3.0], 2.0, 1, 1.0),
        ([1.0, 2.0, 3.0], 2.0, 2, 1.5),
        ([1.0, 2.0, math.inf, math.inf], 1.0, 2, 1.5),
        ([-math.inf, 1.0, 2.0, 1e20], 1.0, 2, 1.5),
        ([-3e38, 3e38, 3e38], 3e38, 1, 3e38),
        ([5.0, 5.0, 5.0], 5.0, 3, 5.0),
        ([0.0, 0.0, 0.0, 1.0], 5.0, 2, 0.5),
        ([0.0, 0.0, 0.0, 1.0], -5.0, 2, 0.0),
    ],
)
def test_the_mean_of_the_nearest_with_ties_and_hostile_values(values, centre, count, expected):
    found = window_mean(torch.tensor(centre), [torch.tensor(value) for value in values], count)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(2, 3), (7, 1), (2, 5, 4)], ids=str)
def test_deviation_has_n_minus_1_in_the_denominator(shape):
    vectors = unequal_vectors(*shape)
    mean, deviation = mean_and_deviation_over_workers(vectors)
    assert torch.equal(mean, mean_over_workers(vectors))
    torch.testing.assert_close(deviation, torch.from_numpy(vectors.numpy().std(axis=-2, ddof=1)))
    assert mean_and_deviation_over_workers(torch.ones(4, 2))[1].tolist() == [0.0, 0.0]


def test_the_moments_are_the_mean_and_the_squared_deviations():
    vectors = unequal_vectors(2, 5, 4)
    mean, squares = moments_over_workers(vectors)
    torch.testing.assert_close(mean, vectors.mean(dim=-2))
    torch.testing.assert_close(squares, 4 * vectors.var(dim=-2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_kernels_compute_what_the_expressions_say(statistic, dtype, monkeypatch):
    """The same bits for order statistics, whose sums have one order; moments to rounding."""
    vectors = unequal_vectors(2, 9, 1003, dtype=dtype)
    if statistic not in ("mean", "deviation"):
        vectors[0, 1, 3], vectors[1, 2, 5] = math.nan, -math.inf
    found = STATISTICS[statistic](vectors)
    monkeypatch.setattr(basis, "on_cpu", lambda vectors: False)
    exactly = {"rtol": 0, "atol": 0} if statistic not in ("mean", "deviation") else {}
    torch.testing.assert_close(found, STATISTICS[statistic](vectors), equal_nan=True, **exactly)


@pytest.mark.company
@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_statistic_does_not_depend_on_the_batch(statistic):
    vectors = unequal_vectors(3, 9, 1003, dtype=torch.float32)
    together = STATISTICS[statistic](vectors)
    for i in range(3):
        assert torch.equal(STATISTICS[statistic](vectors[i]), together[i])
        assert torch.equal(STATISTICS[statistic](vectors[i, :, :77]), together[i, ..., :77])
