"""Sums over workers and over parameters on a CPU, each in an order that is written here.

A library chooses the order of a sum by the processor, by the number of threads and by how many replicas share a call;
here a number has the same bits whatever they are. The loops are compiled by numba, which neither reorders sums nor
contracts a product and a sum to one rounding, with one thread. Other devices take the plain expressions of
:mod:`pipeline.core.order`, :mod:`pipeline.core.vectors` and :mod:`pipeline.core.products`.

Shapes: R replicas (or any batch), n workers or rows, d parameters. A sum over the workers is in the order of the
workers; a sum over the parameters is in float64, in pieces of 512 columns of which every
sixteenth column goes to one of 16 running sums.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

try:
    from numba import njit
except ImportError:  # a machine that computes on a GPU does without
    njit = None  # type: ignore[assignment]

COLUMNS = 128  # that a sorting network treats together: 17 rows of them stay in the first cache
PIECE = 512  # columns whose sums are made before those of the next: all rows of a piece stay in the second cache
LANES = 16  # running sums of a piece: independent of each other, so that the processor adds several at once

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return ``function`` compiled; without numba it runs as it stands, with the same numbers, but slowly."""
    return function if njit is None else cast(Function, njit(cache=True, error_model="numpy")(function))


def _inlined(function: Function) -> Function:
    """Return ``function`` for use in a compiled one, with its body in place of each call."""
    return function if njit is None else cast(Function, njit(error_model="numpy", inline="always")(function))


def apply_to(vectors: Tensor) -> bool:
    """Return whether the kernels of this file compute on ``vectors``: on a CPU."""
    return vectors.device.type == "cpu"


def array(tensor: Tensor, dims: int = 3) -> np.ndarray:
    """Return the values of ``tensor [..., a, b]`` as a contiguous array of ``dims`` dimensions, leading ones joined."""
    leading, trailing = tensor.shape[: 1 - dims], tensor.shape[1 - dims :]
    return tensor.detach().reshape(prod(leading), *trailing).contiguous().numpy()


# Sums over the workers


def moments(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of ``vectors [..., n, d]`` and the sum of squared deviations from it, ``[..., d]`` each."""
    mean, squares = _moments(array(vectors))
    shape = (*vectors.shape[:-2], vectors.shape[-1])
    return torch.from_numpy(mean).view(shape), torch.from_numpy(squares).view(shape)


@compiled
def _moments(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    replicas, n, d = vectors.shape
    mean, squares = np.zeros((replicas, d), vectors.dtype), np.zeros((replicas, d), vectors.dtype)
    for r in range(replicas):
        for i in range(n):
            for c in range(d):
                mean[r, c] += vectors[r, i, c]
        for c in range(d):
            mean[r, c] /= n
        for i in range(n):
            for c in range(d):
                deviation = vectors[r, i, c] - mean[r, c]
                squares[r, c] += deviation * deviation
    return mean, squares


def mean(vectors: Tensor) -> Tensor:
    """Return the mean ``[..., d]`` of ``vectors [..., n, d]``."""
    return torch.from_numpy(_mean(array(vectors))).view(*vectors.shape[:-2], vectors.shape[-1])


@compiled
def _mean(vectors: np.ndarray) -> np.ndarray:
    replicas, n, d = vectors.shape
    mean = np.zeros((replicas, d), vectors.dtype)
    for r in range(replicas):
        for i in range(n):
            for c in range(d):
                mean[r, c] += vectors[r, i, c]
        for c in range(d):
            mean[r, c] /= n
    return mean


def weighted_sum(a: float, one: Tensor, b: float, other: Tensor) -> Tensor:
    """Return ``a one + b other`` for tensors of one shape, each product rounded before the sum."""
    factors = torch.tensor([a, b], dtype=other.dtype).numpy()
    total = _weighted_sum(factors, array(one.reshape(1, -1), 2)[0], array(other.reshape(1, -1), 2)[0])
    return torch.from_numpy(total).view(other.shape)


@compiled
def _weighted_sum(factors: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    total = np.empty_like(one)
    a, b = factors
    for i in range(len(total)):
        total[i] = a * one[i] + b * other[i]
    return total


def mix(weights: Tensor, vectors: Tensor) -> Tensor:
    """Return the sums ``[..., k, d]`` of ``vectors [..., n, d]`` with ``weights [..., k, n]``; a zero erases a row."""
    mixed = _mix(array(weights.to(vectors.dtype)), array(vectors))
    return torch.from_numpy(mixed).view(*weights.shape[:-1], vectors.shape[-1])


@compiled
def _mix(weights: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    replicas, outputs, n = weights.shape
    d = vectors.shape[-1]
    mixed, used = np.zeros((replicas, outputs, d), vectors.dtype), np.empty(n, np.int64)
    for r in range(replicas):
        for first in range(0, d, PIECE):
            end = min(d, first + PIECE)
            for k in range(outputs):
                count = 0
                for i in range(n):
                    if weights[r, k, i] != 0:
                        used[count] = i
                        count += 1
                _add_rows(mixed[r, k], weights[r, k], vectors[r], used[:count], first, end)
    return mixed


@_inlined
def _add_rows(sums: np.ndarray, weights: np.ndarray, rows: np.ndarray, used: np.ndarray, first: int, end: int) -> None:
    """Add the weighted rows that are ``used`` to the columns ``first`` to ``end`` - 1 of ``sums``, in their order."""
    whole = len(used) // 4 * 4
    for at in range(0, whole, 4):  # four rows at a time, added one after the other
        i, j, k, m = used[at], used[at + 1], used[at + 2], used[at + 3]
        p, q, s, t = weights[i], weights[j], weights[k], weights[m]
        u, v, w, x = rows[i], rows[j], rows[k], rows[m]
        for c in range(first, end):
            sums[c] = sums[c] + p * u[c] + q * v[c] + s * w[c] + t * x[c]
    for at in range(whole, len(used)):
        p, u = weights[used[at]], rows[used[at]]
        for c in range(first, end):
            sums[c] += p * u[c]


# Order statistics over the workers


def mean_of_ranks(vectors: Tensor, comparators: Sequence[tuple[int, int]], first: int, last: int) -> Tensor:
    """Return per column the mean of the values of rank ``first`` to ``last`` - 1 of ``vectors [..., n, d]``.

    Args:
        vectors: ``[..., n, d]``; NaN counts as infinity.
        comparators: Of a sorting network that brings at least these ranks into place.
        first: From 0, the least.
        last: At most n.
    """
    means = _mean_of_ranks(array(vectors), _pairs(comparators), first, last)
    return torch.from_numpy(means).view(*vectors.shape[:-2], vectors.shape[-1])


def mean_of_nearest(
    vectors: Tensor, comparators: Sequence[tuple[int, int]], first: int, last: int, count: int
) -> Tensor:
    """Return per column the mean of the ``count`` values nearest to :func:`mean_of_ranks`; of equal ones the smaller.

    Args:
        vectors: ``[..., n, d]``; NaN counts as infinity.
        comparators: Of a sorting network.
        first: As for the mean of ranks.
        last: As for the mean of ranks.
        count: 1 to n.
    """
    means = _mean_of_nearest(array(vectors), _pairs(comparators), first, last, count)
    return torch.from_numpy(means).view(*vectors.shape[:-2], vectors.shape[-1])


def _pairs(comparators: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.array(comparators, dtype=np.int64).reshape(-1, 2)


@_inlined
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


@_inlined
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


# Sums over the parameters


def row_products(vectors: Tensor, others: Tensor) -> Tensor:
    """Return the inner product ``[..., n]``, float64, of each of ``vectors [..., n, d]`` with its row of ``others``.

    Args:
        vectors: ``[..., n, d]``.
        others: ``[..., n, d]``, or ``[..., 1, d]`` for one row against all.
    """
    sums = _row_sums(array(vectors), array(others), False)
    return torch.from_numpy(sums).view(vectors.shape[:-1])


def row_square_distances(vectors: Tensor, others: Tensor) -> Tensor:
    """Return the squared distance ``[..., n]``, float64, of each row to its row of ``others``, as the products."""
    sums = _row_sums(array(vectors), array(others), True)
    return torch.from_numpy(sums).view(vectors.shape[:-1])


@compiled
def _row_sums(vectors: np.ndarray, others: np.ndarray, differences: bool) -> np.ndarray:
    replicas, n, d = vectors.shape
    sums, lanes = np.zeros((replicas, n)), np.zeros(LANES)
    for r in range(replicas):
        for i in range(n):
            row, other = vectors[r, i], others[r, i if others.shape[1] > 1 else 0]
            for first in range(0, d, PIECE):
                end = min(d, first + PIECE)
                if differences:
                    sums[r, i] += _square_distance(row, other, first, end, lanes)
                else:
                    sums[r, i] += _product(row, other, first, end, lanes)
    return sums


def square_distances(vectors: Tensor) -> Tensor:
    """Return the squared distances ``[..., n, n]``, float64, between the rows of ``vectors [..., n, d]``."""
    return torch.from_numpy(_square_distances(array(vectors))).view(*vectors.shape[:-1], vectors.shape[-2])


@compiled
def _square_distances(vectors: np.ndarray) -> np.ndarray:
    replicas, n, d = vectors.shape
    sums, lanes = np.zeros((replicas, n, n)), np.zeros(LANES)
    for r in range(replicas):
        for first in range(0, d, PIECE):
            end = min(d, first + PIECE)
            for i in range(n):
                for j in range(i):
                    sums[r, i, j] += _square_distance(vectors[r, i], vectors[r, j], first, end, lanes)
        _mirror(sums[r])
    return sums


def products_around(vectors: Tensor, centre: Tensor) -> Tensor:
    """Return the inner products ``[..., n, n]``, float64, of ``vectors [..., n, d]`` minus ``centre [..., d]``."""
    sums = _products_around(array(vectors), array(centre, dims=2))
    return torch.from_numpy(sums).view(*vectors.shape[:-1], vectors.shape[-2])


@compiled
def _products_around(vectors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    replicas, n, d = vectors.shape
    sums, lanes, offsets = np.zeros((replicas, n, n)), np.zeros(LANES), np.zeros((n, PIECE))
    for r in range(replicas):
        for first in range(0, d, PIECE):
            width = min(PIECE, d - first)
            for i in range(n):
                for c in range(width):
                    offsets[i, c] = np.float64(vectors[r, i, first + c]) - np.float64(centre[r, first + c])
                for j in range(i + 1):
                    sums[r, i, j] += _product(offsets[i], offsets[j], 0, width, lanes)
        _mirror(sums[r])
    return sums


@_inlined
def _mirror(matrix: np.ndarray) -> None:
    """Copy what stands below the diagonal above it."""
    for i in range(len(matrix)):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@_inlined
def _square_distance(row: np.ndarray, other: np.ndarray, first: int, end: int, lanes: np.ndarray) -> float:
    """Return the sum of ``(row - other)^2`` over the columns ``first`` to ``end`` - 1."""
    lanes[:] = 0
    whole = first + (end - first) // LANES * LANES
    for start in range(first, whole, LANES):
        for lane in range(LANES):
            difference = np.float64(row[start + lane] - other[start + lane])
            lanes[lane] += difference * difference
    for c in range(whole, end):
        difference = np.float64(row[c] - other[c])
        lanes[c - whole] += difference * difference
    return _total(lanes)


@_inlined
def _product(row: np.ndarray, other: np.ndarray, first: int, end: int, lanes: np.ndarray) -> float:
    """Return the sum of ``row * other`` over the columns ``first`` to ``end`` - 1."""
    lanes[:] = 0
    whole = first + (end - first) // LANES * LANES
    for start in range(first, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += np.float64(row[start + lane]) * np.float64(other[start + lane])
    for c in range(whole, end):
        lanes[c - whole] += np.float64(row[c]) * np.float64(other[c])
    return _total(lanes)


@_inlined
def _total(lanes: np.ndarray) -> float:
    total = 0.0
    for lane in range(LANES):
        total += lanes[lane]
    return total
