"""Weiszfeld iterations on the inner products of the points; :class:`GeometricMedian` states what they compute.

On a CPU each replica iterates by itself, until its own point stands still.
"""

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import array, compiled

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
    if not basis.on_cpu(products):
        return _weights_of_all(products, usable, iterations, tolerance)
    weights = _median_weights(array(products), array(usable, dims=2), iterations, tolerance)
    return torch.from_numpy(weights).view(usable.shape)


def _weights_of_all(products: Tensor, usable: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Return :func:`median_weights` by operations on all replicas at once."""
    squares = products.diagonal(dim1=-2, dim2=-1).masked_fill(~usable, torch.inf)
    middle = (squares.shape[-1] - 1) // 2
    scale = _root(squares).sort(dim=-1).values[..., middle, None]
    nu, close = (1e-6 * scale).clamp_min(TINY), tolerance * scale
    weights = torch.zeros_like(squares)
    moving = torch.ones_like(scale, dtype=torch.bool)
    for _ in range(iterations):
        next_weights, moved = _next(products, squares, weights, nu)
        weights = torch.where(moving, next_weights, weights)
        moving = moving & (moved > close)
    return weights


def _next(products: Tensor, squares: Tensor, weights: Tensor, nu: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights ``[..., n]`` of the next z, and how far ``[..., 1]`` it is from z = sum_i w_i x_i.

    A point of infinite ``squares [..., n]``, its squared norm, does not count.
    """
    with_z = (products * weights[..., None, :]).sum(dim=-1)
    distances = _root(squares - 2 * with_z + _product(with_z, weights))
    at_z = distances <= nu
    inverse = distances.reciprocal().masked_fill(at_z, 0.0)
    total = inverse.sum(dim=-1, keepdim=True).clamp_min(TINY)
    mean = inverse / total
    step = mean - weights
    length = _root(_product((products * step[..., None, :]).sum(dim=-1), step))
    return _held(mean, length, total, at_z)


def _held(mean: Tensor, length: Tensor, total: Tensor, at_z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights and the movement when the c points ``at_z [..., n]`` hold z with the share ``stay``.

    Where the others' pull is at most c, that is all of the weight, and z is the minimiser.
    """
    count = at_z.sum(dim=-1, keepdim=True)
    stay = count / (length * total).maximum(count).clamp_min(1)
    return stay * at_z / count.clamp_min(1) + (1 - stay) * mean, (1 - stay) * length


def _product(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=-1, keepdim=True)


def _root(squares: Tensor) -> Tensor:
    return squares.clamp_min(0).sqrt()


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
