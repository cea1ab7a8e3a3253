"""Order statistics over the workers, column by column, by a sorting network.

A network is a fixed list of comparators (i, j): row i becomes the minimum and row j the maximum of the two, for all
columns at once. NaN counts as infinity.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import array, compiled, inlined

COLUMNS = 128  # that the network treats together: 17 rows of them stay in the first cache

Comparators = Sequence[tuple[int, int]]


def mean_of_ranks(vectors: Tensor, comparators: Comparators, first: int, last: int) -> Tensor:
    """Return per column the mean of the values of rank ``first`` to ``last`` - 1 of ``vectors [..., n, d]``.

    Args:
        vectors: ``[..., n, d]``; NaN counts as infinity.
        comparators: Of a sorting network that brings at least these ranks into place.
        first: From 0, the least.
        last: At most n.
    """
    if not basis.on_cpu(vectors):
        return _mean(_ordered(vectors, comparators)[first:last])
    means = _mean_of_ranks(array(vectors), _pairs(comparators), first, last)
    return torch.from_numpy(means).view(*vectors.shape[:-2], vectors.shape[-1])


def mean_of_nearest(vectors: Tensor, comparators: Comparators, first: int, last: int, count: int) -> Tensor:
    """Return per column the mean of the ``count`` values nearest to :func:`mean_of_ranks`; of equal ones the smaller.

    Args:
        vectors: ``[..., n, d]``; NaN counts as infinity.
        comparators: Of a sorting network.
        first: As for the mean of ranks.
        last: As for the mean of ranks.
        count: 1 to n.
    """
    if not basis.on_cpu(vectors):
        rows = _ordered(vectors, comparators)
        return window_mean(_mean(rows[first:last]), rows, count)
    means = _mean_of_nearest(array(vectors), _pairs(comparators), first, last, count)
    return torch.from_numpy(means).view(*vectors.shape[:-2], vectors.shape[-1])


def _ordered(vectors: Tensor, comparators: Comparators) -> list[Tensor]:
    """Return the rows of ``vectors [..., n, d]`` sorted over the workers, as far as the comparators do."""
    rows = list(torch.where(vectors == vectors, vectors, torch.inf).unbind(dim=-2))
    for i, j in comparators:
        rows[i], rows[j] = torch.minimum(rows[i], rows[j]), torch.maximum(rows[i], rows[j])
    return rows


def _mean(rows: Sequence[Tensor]) -> Tensor:
    """Return the mean of the rows, added in float64: two of 3e38 have one."""
    total = rows[0].double()
    for row in rows[1:]:
        total = total + row
    return (total / len(rows)).to(rows[0].dtype)


def window_mean(centre: Tensor, rows: Sequence[Tensor], count: int) -> Tensor:
    """Return the mean of the values nearest to a centre; of two at one distance, the smaller is nearer.

    They are a window of the sorted rows. It moves up past a value that is farther from the centre than the one it would
    take in; where it does not move, it does not move later either.

    Args:
        centre: ``[...]``.
        rows: n tensors ``[...]``, ascending.
        count: How many values are averaged, 1 to n.

    Returns:
        ``[...]``.
    """
    window = list(rows[:count])
    for k, entering in enumerate(rows[count:]):
        leaving = window[k % count]
        window[k % count] = torch.where(centre - leaving > entering - centre, entering, leaving)
    return _mean(window)


def _pairs(comparators: Comparators) -> np.ndarray:
    return np.array(comparators, dtype=np.int64).reshape(-1, 2)


@inlined
def _sort_columns(
    vectors: np.ndarray, r: int, start: int, width: int, comparators: np.ndarray, rows: np.ndarray
) -> None:
    """Bring ``rows [n, COLUMNS]`` to hold the columns from ``start`` on, sorted as far as the comparators do."""
    for i in range(vectors.shape[1]):
        for c in range(width):
            value = vectors[r, i, start + c]
            rows[i, c] = value if value == value else np.inf
    for k in range(len(comparators)):
        low, high = rows[comparators[k, 0]], rows[comparators[k, 1]]
        for c in range(COLUMNS):
            a, b = low[c], high[c]
            low[c] = a if a < b else b
            high[c] = b if a < b else a


@inlined
def _mean_of_rows(rows: np.ndarray, first: int, last: int, means: np.ndarray) -> None:
    """Bring ``means [COLUMNS]`` to hold the means of the rows ``first`` to ``last`` - 1."""
    for c in range(COLUMNS):
        means[c] = rows[first, c]
    for i in range(first + 1, last):
        for c in range(COLUMNS):
            means[c] += rows[i, c]
    for c in range(COLUMNS):
        means[c] /= last - first


@compiled
def _mean_of_ranks(vectors: np.ndarray, comparators: np.ndarray, first: int, last: int) -> np.ndarray:
    replicas, n, d = vectors.shape
    result = np.empty((replicas, d), vectors.dtype)
    rows, means = np.zeros((n, COLUMNS), vectors.dtype), np.zeros(COLUMNS)
    for r in range(replicas):
        for start in range(0, d, COLUMNS):
            width = min(COLUMNS, d - start)
            _sort_columns(vectors, r, start, width, comparators, rows)
            _mean_of_rows(rows, first, last, means)
            for c in range(width):
                result[r, start + c] = means[c]
    return result


@compiled
def _mean_of_nearest(vectors: np.ndarray, comparators: np.ndarray, first: int, last: int, count: int) -> np.ndarray:
    replicas, n, d = vectors.shape
    result = np.empty((replicas, d), vectors.dtype)
    rows, centre = np.zeros((n, COLUMNS), vectors.dtype), np.zeros(COLUMNS)
    for r in range(replicas):
        for start in range(0, d, COLUMNS):
            width = min(COLUMNS, d - start)
            _sort_columns(vectors, r, start, width, comparators, rows)
            _mean_of_rows(rows, first, last, centre)
            # A window of `count` sorted rows moves up past each value that is farther from the centre than the next.
            for entering in range(count, n):
                for c in range(COLUMNS):
                    leaving, new = rows[entering % count, c], rows[entering, c]
                    rows[entering % count, c] = new if centre[c] - leaving > new - centre[c] else leaving
            _mean_of_rows(rows, 0, count, centre)
            for c in range(width):
                result[r, start + c] = centre[c]
    return result
