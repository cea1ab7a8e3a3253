"""The geometric median from the inner products of the points; :class:`GeometricMedian` states what is computed.

A place z is held as weights w of the points around their centre, the coordinate-wise median: z - centre =
sum_i w_i (x_i - centre). The centre itself has no weights. On a CPU each replica iterates by itself.

Notation: d_i = |x_i - z|, u_i = (x_i - z) / d_i, s = sum_i 1 / d_i.
"""

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import array, compiled

TINY = float(np.finfo(np.float64).tiny)
AT_POINT = 1e-9  # of the median distance of the points to their centre: nearer than that, z is at a point
CLOSE = 1e-6  # of the squares that a squared distance is the difference of: below, they have cancelled
SINGULAR = 1e-12  # of an entry on the diagonal: what elimination leaves of it is rounding
HALVINGS = 6  # lengths of Newton's step that are tried


def median_weights(products: Tensor, usable: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the weights of the points in their geometric median, and where it was not reached.

    Args:
        products: ``[..., n, n]``, float64, inner products of the points around their coordinate-wise median.
        usable: ``[..., n]``, which points count.
        iterations: Most rounds.
        tolerance: Residual at which a replica stops.

    Returns:
        ``[..., n]``, float64, and ``[...]``, bool: whether the residual was still above the tolerance after the last
        round.
    """
    products = products / 16  # no change of a bit, and no sum below overflows
    if not basis.on_cpu(products):
        return _weights_of_all(products, usable, iterations, tolerance)
    weights, unconverged = _median_weights(array(products), array(usable, dims=2), iterations, tolerance)
    return torch.from_numpy(weights).view(usable.shape), torch.from_numpy(unconverged).view(usable.shape[:-1])


@compiled
def _median_weights(
    products: np.ndarray, usable: np.ndarray, iterations: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    replicas, n = usable.shape
    result, unconverged = np.zeros((replicas, n)), np.zeros(replicas, np.bool_)
    for r in range(replicas):
        used = np.flatnonzero(usable[r])
        weights, unconverged[r] = _minimised(products[r][used][:, used], iterations, tolerance)
        for k in range(len(used)):
            result[r, used[k]] = weights[k]
    return result, unconverged


@compiled
def _minimised(products: np.ndarray, iterations: int, tolerance: float) -> tuple[np.ndarray, bool]:
    lengths = np.sqrt(np.maximum(np.diag(products), 0.0))
    nu = max(AT_POINT * np.sort(lengths)[(len(lengths) - 1) // 2], TINY)
    weights = np.zeros(len(products))
    distances, held, residual = _around(products, weights, nu)
    if residual > tolerance:
        weights = _best_point(products, lengths)
        distances, held, residual = _around(products, weights, nu)
    for _ in range(iterations):
        if residual <= tolerance:
            break
        weights += _step(products, weights, distances, held - weights, nu)
        distances, held, residual = _around(products, weights, nu)
    return held, residual > tolerance


@compiled
def _around(products: np.ndarray, weights: np.ndarray, nu: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the distances of the points to z, the weights of Vardi and Zhang's next z, and the residual."""
    n = len(weights)
    distances, at_z, mean = _distances(products, weights), np.zeros(n), np.zeros(n)
    for i in range(n):
        at_z[i] = distances[i] <= nu
        mean[i] = 0.0 if at_z[i] else 1 / distances[i]
    count, total = at_z.sum(), max(mean.sum(), TINY)
    mean /= total
    step = mean - weights
    pull = total * math.sqrt(max(_dot(step, _times(products, step)), 0.0))
    stay = count / max(pull, count, 1.0)
    held = stay * at_z / max(count, 1.0) + (1 - stay) * mean
    return distances, held, max(pull - count, 0.0) / n


@compiled
def _distances(products: np.ndarray, weights: np.ndarray) -> np.ndarray:
    with_z = _times(products, weights)
    square_of_z, distances = _dot(with_z, weights), np.empty(len(weights))
    for i in range(len(weights)):
        square = products[i, i] - 2 * with_z[i] + square_of_z
        if square < CLOSE * (products[i, i] + square_of_z):
            offset = weights.copy()
            offset[i] -= 1
            square = _dot(offset, _times(products, offset))
        distances[i] = math.sqrt(max(square, 0.0))
    return distances


@compiled
def _best_point(products: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the weights of the point of least sum of distances, or none if the centre's is no larger."""
    n, weights, least, best = len(lengths), np.zeros(len(lengths)), 0.0, -1
    for j in range(n):
        change = 0.0
        for i in range(n):
            more = products[j, j] - 2 * products[i, j]
            change += more / max(lengths[i] + math.sqrt(max(products[i, i] + more, 0.0)), TINY)
        if change < least:
            least, best = change, j
    if best >= 0:
        weights[best] = 1
    return weights


@compiled
def _step(products: np.ndarray, weights: np.ndarray, distances: np.ndarray, plain: np.ndarray, nu: float) -> np.ndarray:
    """Return the first of Newton's step and its halves that is better than the ``plain`` one, or that."""
    if distances.min() <= nu:
        return plain
    step, limit = _newton(products, weights, distances), _change(products, weights, distances, plain)
    for _ in range(HALVINGS):
        if _change(products, weights, distances, step) < limit:
            return step
        step /= 2
    return plain


@compiled
def _change(products: np.ndarray, weights: np.ndarray, distances: np.ndarray, step: np.ndarray) -> float:
    """Return by how much a ``step`` of the weights changes the sum of distances; no large sums are subtracted."""
    along, change = _times(products, step), 0.0
    square, along_z = _dot(along, step), _dot(along, weights)
    for i in range(len(step)):
        more = square - 2 * (along[i] - along_z)
        change += more / (distances[i] + math.sqrt(max(distances[i] * distances[i] + more, 0.0)))
    return change


@compiled
def _newton(products: np.ndarray, weights: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return Newton's step of the weights, zero where the Hessian is singular.

    The Hessian of sum_i d_i is s I - sum_i u_i u_i^T / d_i, and the step p in z solves Hessian p = sum_i u_i. So it is
    p = sum_i q_i u_i with (s diag(d) - (<u_i, u_j>)) q = d, by the matrix inversion lemma.
    """
    n, with_z = len(weights), _times(products, weights)
    square_of_z, total, matrix = _dot(with_z, weights), (1 / distances).sum(), np.empty((n, n))
    for i in range(n):
        for j in range(i):
            product = products[i, j] - with_z[i] - with_z[j] + square_of_z
            matrix[i, j] = -product / (distances[i] * distances[j])
        matrix[i, i] = distances[i] * total - 1
    step: np.ndarray = _solved(matrix, distances) / distances
    step -= step.sum() * weights
    return step


@compiled
def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the solution for a positive definite ``matrix``, given below its diagonal; zero if it is singular.

    Cholesky's decomposition takes the place of the matrix.
    """
    n, solution = len(right), right.copy()
    for i in range(n):
        for j in range(i):
            matrix[i, j] = (matrix[i, j] - _dot(matrix[i, :j], matrix[j, :j])) / matrix[j, j]
        pivot = matrix[i, i] - _dot(matrix[i, :i], matrix[i, :i])
        if not pivot > SINGULAR * matrix[i, i]:
            return np.zeros(n)
        matrix[i, i] = math.sqrt(pivot)
        solution[i] = (solution[i] - _dot(matrix[i, :i], solution[:i])) / matrix[i, i]
    for i in range(n - 1, -1, -1):
        solution[i] /= matrix[i, i]
        for j in range(i):
            solution[j] -= matrix[i, j] * solution[i]
    return solution


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


# The same by operations on all replicas at once.


def _weights_of_all(products: Tensor, usable: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    squares = products.diagonal(dim1=-2, dim2=-1).masked_fill(~usable, torch.inf)
    lengths, middle = _root(squares), (usable.sum(dim=-1, keepdim=True) - 1) // 2
    nu = (AT_POINT * lengths.sort(dim=-1).values.gather(-1, middle)).clamp_min(TINY)
    weights = torch.zeros_like(squares)
    distances, held, residual = _all_around(products, squares, weights, nu)
    weights = torch.where(residual > tolerance, _best_points(products, squares), weights)
    for _ in range(iterations + 1):
        distances, held, residual = _all_around(products, squares, weights, nu)
        step = _steps(products, weights, distances, held - weights, nu)
        weights = torch.where(residual > tolerance, weights + step, weights)
    return held, (residual > tolerance)[..., 0]


def _all_around(products: Tensor, squares: Tensor, weights: Tensor, nu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return :func:`_around`; a point of infinite ``squares [..., n]``, its squared norm, does not count."""
    with_z = _applied(products, weights)
    square_of_z = _product(with_z, weights)
    offsets = weights[..., None, :] - torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    near = ((offsets @ products) * offsets).sum(dim=-1)
    apart = squares - 2 * with_z + square_of_z
    distances = _root(torch.where(apart < CLOSE * (squares + square_of_z), near, apart))
    at_z = distances <= nu
    inverse = distances.reciprocal().masked_fill(at_z, 0.0)
    count, total = at_z.sum(dim=-1, keepdim=True), inverse.sum(dim=-1, keepdim=True).clamp_min(TINY)
    mean = inverse / total
    pull = total * _root(_product(_applied(products, mean - weights), mean - weights))
    stay = count / pull.maximum(count).clamp_min(1)
    held = stay * at_z / count.clamp_min(1) + (1 - stay) * mean
    return distances, held, (pull - count).clamp_min(0) / squares.isfinite().sum(dim=-1, keepdim=True)


def _best_points(products: Tensor, squares: Tensor) -> Tensor:
    more = products.diagonal(dim1=-2, dim2=-1)[..., None, :] - 2 * products  # [..., i, j]
    roots = _root(squares)[..., None] + _root(squares[..., None] + more)
    changes = (more / roots.clamp_min(TINY)).sum(dim=-2).masked_fill(~squares.isfinite(), torch.inf)
    least, best = changes.min(dim=-1, keepdim=True)
    return torch.zeros_like(squares).scatter(-1, best, (least < 0).to(squares.dtype))


def _steps(products: Tensor, weights: Tensor, distances: Tensor, plain: Tensor, nu: Tensor) -> Tensor:
    step, chosen = _newtons(products, weights, distances), plain
    limit, found = _changes(products, weights, distances, plain), (distances <= nu).any(dim=-1, keepdim=True)
    for _ in range(HALVINGS):
        better = (_changes(products, weights, distances, step) < limit) & ~found
        chosen, found, step = torch.where(better, step, chosen), found | better, step / 2
    return chosen


def _changes(products: Tensor, weights: Tensor, distances: Tensor, step: Tensor) -> Tensor:
    along = _applied(products, step)
    more = _product(along, step) - 2 * (along - _product(along, weights))
    return (more / (distances + _root(distances.square() + more))).sum(dim=-1, keepdim=True)


def _newtons(products: Tensor, weights: Tensor, distances: Tensor) -> Tensor:
    counts, with_z = distances.isfinite(), _applied(products, weights)
    between = products - with_z[..., None] - with_z[..., None, :] + _product(with_z, weights)[..., None]
    total = distances.reciprocal().sum(dim=-1, keepdim=True)
    diagonal = (distances * total - 1).where(counts, 1.0)
    matrix = -between / (distances[..., None] * distances[..., None, :])
    matrix.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    factor, _ = torch.linalg.cholesky_ex(matrix)
    regular = (factor.diagonal(dim1=-2, dim2=-1).square() > SINGULAR * diagonal).all(dim=-1, keepdim=True)
    right = distances.where(counts, 0.0)[..., None]
    towards = torch.cholesky_solve(right, factor)[..., 0] / distances
    return (towards - towards.sum(dim=-1, keepdim=True) * weights).where(regular, 0.0)


def _applied(products: Tensor, weights: Tensor) -> Tensor:
    return (products * weights[..., None, :]).sum(dim=-1)


def _product(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=-1, keepdim=True)


def _root(squares: Tensor) -> Tensor:
    return squares.clamp_min(0).sqrt()
