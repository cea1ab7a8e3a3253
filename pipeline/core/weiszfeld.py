"""Weiszfeld iterations on a CPU: each replica by itself, until its own point stands still.

What they compute is said, and written as operations on all replicas, in :mod:`pipeline.defences.aggregators.iterative`.
"""

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels import array, compiled

TINY = float(np.finfo(np.float64).tiny)


def median_weights(products: Tensor, usable: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Return the weights of the points in their geometric median.

    Args:
        products: ``[..., n, n]``, float64, inner products of the points around the start.
        usable: ``[..., n]``, which points count.
        iterations: Most rounds.
        tolerance: Movement at which a replica stops, relative to the median distance of the points to the start.

    Returns:
        ``[..., n]``, float64.
    """
    weights = _median_weights(array(products), array(usable, dims=2), iterations, tolerance)
    return torch.from_numpy(weights).view(usable.shape)


@compiled
def _median_weights(products: np.ndarray, usable: np.ndarray, iterations: int, tolerance: float) -> np.ndarray:
    replicas, n = usable.shape
    result, lengths = np.zeros((replicas, n)), np.empty(n)
    for r in range(replicas):
        for i in range(n):
            lengths[i] = math.sqrt(max(products[r, i, i], 0.0)) if usable[r, i] else np.inf
        scale = np.sort(lengths)[(n - 1) // 2]
        nu = max(1e-6 * scale, TINY)
        for _ in range(iterations):
            moved = _round(products[r], usable[r], result[r], nu)
            if not moved > tolerance * scale:
                break
    return result


@compiled
def _round(products: np.ndarray, usable: np.ndarray, weights: np.ndarray, nu: float) -> float:
    """Move z = sum_i w_i x_i once, by changing the ``weights``; return how far it moves."""
    n = len(weights)
    with_z, mean, at_z = _times(products, weights), np.empty(n), np.zeros(n)
    square, total = _dot(with_z, weights), 0.0
    for i in range(n):
        distance = math.sqrt(max(products[i, i] - 2 * with_z[i] + square, 0.0)) if usable[i] else np.inf
        at_z[i] = distance <= nu
        mean[i] = 0.0 if at_z[i] else 1 / distance
        total += mean[i]
    total = max(total, TINY)
    mean /= total
    step = mean - weights
    length, count = math.sqrt(max(_dot(_times(products, step), step), 0.0)), at_z.sum()
    stay = count / max(length * total, count, 1.0)
    for i in range(n):
        held = stay * at_z[i] / max(count, 1.0)
        weights[i] = held + (1 - stay) * mean[i]
    return float((1 - stay) * length)


@compiled
def _times(products: np.ndarray, weights: np.ndarray) -> np.ndarray:
    result = np.empty(len(weights))
    for i in range(len(weights)):
        result[i] = _dot(products[i], weights)
    return result


@compiled
def _dot(one: np.ndarray, other: np.ndarray) -> float:
    total = 0.0
    for i in range(len(one)):
        total += one[i] * other[i]
    return total
