"""Sums over the workers, in the order of the workers."""

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import PIECE, array, compiled, inlined

COLUMNS = 256  # whose moments are computed together: 13 rows of them stay in the first cache


def moments(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of ``vectors [..., n, d]`` and the sum of squared deviations from it, ``[..., d]`` each."""
    if not basis.on_cpu(vectors):
        mean = vectors.mean(dim=-2)
        return mean, (vectors - mean[..., None, :]).square().sum(dim=-2)
    means, squares = _moments(array(vectors))
    shape = (*vectors.shape[:-2], vectors.shape[-1])
    return torch.from_numpy(means).view(shape), torch.from_numpy(squares).view(shape)


@compiled
def _moments(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    replicas, n, d = vectors.shape
    means, squares = np.zeros((replicas, d), vectors.dtype), np.zeros((replicas, d), vectors.dtype)
    for r in range(replicas):
        for first in range(0, d, COLUMNS):
            mean, square = means[r][first : first + COLUMNS], squares[r][first : first + COLUMNS]
            _add_mean(vectors[r], first, mean)
            for i in range(n):
                row = vectors[r, i][first : first + COLUMNS]
                for c in range(len(mean)):
                    deviation = row[c] - mean[c]
                    square[c] += deviation * deviation
    return means, squares


@inlined
def _add_mean(rows: np.ndarray, first: int, mean: np.ndarray) -> None:
    """Bring ``mean``, which holds zeros, to hold that of the rows' columns from ``first`` on."""
    for i in range(len(rows)):
        row = rows[i][first : first + len(mean)]
        for c in range(len(mean)):
            mean[c] += row[c]
    for c in range(len(mean)):
        mean[c] /= len(rows)


def mean(vectors: Tensor) -> Tensor:
    """Return the mean ``[..., d]`` of ``vectors [..., n, d]``."""
    if not basis.on_cpu(vectors):
        return vectors.mean(dim=-2)
    return torch.from_numpy(_mean(array(vectors))).view(*vectors.shape[:-2], vectors.shape[-1])


@compiled
def _mean(vectors: np.ndarray) -> np.ndarray:
    replicas, _, d = vectors.shape
    means = np.zeros((replicas, d), vectors.dtype)
    for r in range(replicas):
        _add_mean(vectors[r], 0, means[r])
    return means


def weighted_sum(a: float, one: Tensor, b: float, other: Tensor) -> Tensor:
    """Return ``a one + b other`` for tensors of one shape, each product rounded before the sum."""
    if not basis.on_cpu(other):
        return a * one + b * other
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
    if not basis.on_cpu(vectors):
        weights = weights.to(vectors.dtype)
        spoiled = (weights != 0).to(vectors.dtype) @ (~vectors.isfinite()).to(vectors.dtype) > 0
        return (weights @ vectors.nan_to_num(0, 0, 0)).masked_fill(spoiled, torch.nan)
    mixed = _mix(array(weights.to(vectors.dtype)), array(vectors))
    return torch.from_numpy(mixed).view(*weights.shape[:-1], vectors.shape[-1])


@compiled
def _mix(weights: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    replicas, outputs, n = weights.shape
    d = vectors.shape[-1]
    mixed, rows = np.zeros((replicas, outputs, d), vectors.dtype), np.zeros((n, PIECE), vectors.dtype)
    used = np.empty(n, np.int64)
    for r in range(replicas):
        for first in range(0, d, PIECE):
            width = min(PIECE, d - first)
            for i in range(n):
                piece = vectors[r, i][first : first + width]
                for c in range(width):
                    rows[i, c] = piece[c]
            for k in range(outputs):
                count = 0
                for i in range(n):
                    if weights[r, k, i] != 0:
                        used[count] = i
                        count += 1
                _add_rows(mixed[r, k, first : first + width], weights[r, k], rows, used[:count])
    return mixed


@inlined
def _add_rows(sums: np.ndarray, weights: np.ndarray, rows: np.ndarray, used: np.ndarray) -> None:
    """Add the weighted rows that are ``used`` to ``sums``, in their order."""
    whole = len(used) // 4 * 4
    for at in range(0, whole, 4):  # four rows at a time, added one after the other
        i, j, k, m = used[at], used[at + 1], used[at + 2], used[at + 3]
        p, q, s, t = weights[i], weights[j], weights[k], weights[m]
        u, v, w, x = rows[i], rows[j], rows[k], rows[m]
        for c in range(len(sums)):
            sums[c] = sums[c] + p * u[c] + q * v[c] + s * w[c] + t * x[c]
    for at in range(whole, len(used)):
        p, u = weights[used[at]], rows[used[at]]
        for c in range(len(sums)):
            sums[c] += p * u[c]
