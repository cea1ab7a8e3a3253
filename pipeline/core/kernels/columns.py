"""Sums over the parameters, in float64: in pieces of 512 columns, every sixteenth column to one of 16 running sums."""

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import PIECE, array, compiled, inlined

LANES = 16  # running sums of a piece: independent of each other, so that the processor adds several at once


def row_products(vectors: Tensor, others: Tensor) -> Tensor:
    """Return the inner product ``[..., n]``, float64, of each of ``vectors [..., n, d]`` with its row of ``others``.

    Args:
        vectors: ``[..., n, d]``.
        others: ``[..., n, d]``, or ``[..., 1, d]`` for one row against all.
    """
    if not basis.on_cpu(vectors):
        return (vectors.double() * others).sum(dim=-1)
    others = others.expand(*vectors.shape[:-2], -1, -1)
    return torch.from_numpy(_row_sums(array(vectors), array(others), False)).view(vectors.shape[:-1])


def sums(values: Tensor) -> Tensor:
    """Return the sums ``[...]`` of ``values [..., d]``, added in float64."""
    if not basis.on_cpu(values):
        return values.sum(dim=-1)
    return torch.from_numpy(_sums(array(values, 2))).view(values.shape[:-1]).to(values.dtype)


@compiled
def _sums(values: np.ndarray) -> np.ndarray:
    sums, lanes = np.zeros(len(values)), np.zeros(LANES)
    for i in range(len(values)):
        for first in range(0, values.shape[1], PIECE):
            piece = values[i, first : first + PIECE]
            whole = len(piece) // LANES * LANES
            lanes[:] = 0
            for start in range(0, whole, LANES):
                for lane in range(LANES):
                    lanes[lane] += np.float64(piece[start + lane])
            for c in range(whole, len(piece)):
                lanes[c - whole] += np.float64(piece[c])
            sums[i] += _total(lanes, 0)
    return sums


def row_square_distances(vectors: Tensor, others: Tensor) -> Tensor:
    """Return the squared distance ``[..., n]``, float64, of each row to its row of ``others``, as the products."""
    if not basis.on_cpu(vectors):
        return (vectors - others).double().square().sum(dim=-1)
    others = others.expand(*vectors.shape[:-2], -1, -1)
    return torch.from_numpy(_row_sums(array(vectors), array(others), True)).view(vectors.shape[:-1])


@compiled
def _row_sums(vectors: np.ndarray, others: np.ndarray, differences: bool) -> np.ndarray:
    replicas, n, d = vectors.shape
    sums, lanes = np.zeros((replicas, n)), np.zeros(LANES)
    for r in range(replicas):
        for i in range(n):
            row, other = vectors[r, i], others[r, i if others.shape[1] > 1 else 0]
            for first in range(0, d, PIECE):
                a, b = row[first : first + PIECE], other[first : first + PIECE]
                sums[r, i] += _square_distance(a, b, lanes) if differences else _product(a, b, lanes)
    return sums


def square_distances(vectors: Tensor) -> Tensor:
    """Return the squared distances ``[..., n, n]``, float64, between the rows of ``vectors [..., n, d]``."""
    if not basis.on_cpu(vectors):
        against = [vectors - row[..., None, :] for row in vectors.unbind(dim=-2)]
        return torch.stack([offsets.square().sum(dim=-1, dtype=torch.float64) for offsets in against], dim=-2)
    return torch.from_numpy(_square_distances(array(vectors))).view(*vectors.shape[:-1], vectors.shape[-2])


@compiled
def _square_distances(vectors: np.ndarray) -> np.ndarray:
    replicas, n, d = vectors.shape
    sums, lanes, rows = np.zeros((replicas, n, n)), np.zeros(4 * LANES), np.zeros((n, PIECE), vectors.dtype)
    for r in range(replicas):
        for first in range(0, d, PIECE):
            width = min(PIECE, d - first)
            filled = _whole_lanes(width)
            for i in range(n):
                piece = vectors[r, i][first : first + width]
                for c in range(width):
                    rows[i, c] = piece[c]
            rows[:, width:filled] = 0
            for i in range(n):
                for j in range(0, i, 4):
                    last = min(j + 4, i) - 1
                    _four_square_distances(rows[i, :filled], rows, j, last, lanes)
                    for k in range(j, last + 1):
                        sums[r, i, k] += _total(lanes, k - j)
        _mirror(sums[r])
    return sums


def products_around(vectors: Tensor, centre: Tensor) -> Tensor:
    """Return the inner products ``[..., n, n]``, float64, of ``vectors [..., n, d]`` minus ``centre [..., d]``."""
    if not basis.on_cpu(vectors):
        offsets = vectors.double() - centre[..., None, :]
        return offsets @ offsets.mT
    products = _products_around(array(vectors), array(centre, dims=2))
    return torch.from_numpy(products).view(*vectors.shape[:-1], vectors.shape[-2])


@compiled
def _products_around(vectors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    replicas, n, d = vectors.shape
    sums, lanes, offsets = np.zeros((replicas, n, n)), np.zeros(4 * LANES), np.zeros((n, PIECE))
    for r in range(replicas):
        for first in range(0, d, PIECE):
            rows, middle = vectors[r, :, first : first + PIECE], centre[r, first : first + PIECE]
            filled = _whole_lanes(len(middle))
            for i in range(n):
                for c in range(len(middle)):
                    offsets[i, c] = np.float64(rows[i, c]) - np.float64(middle[c])
                offsets[i, len(middle) : filled] = 0
                for j in range(0, i + 1, 4):
                    last = min(j + 4, i + 1) - 1
                    _four_products(offsets[i, :filled], offsets, j, last, lanes)
                    for k in range(j, last + 1):
                        sums[r, i, k] += _total(lanes, k - j)
        _mirror(sums[r])
    return sums


@inlined
def _mirror(matrix: np.ndarray) -> None:
    """Copy what stands below the diagonal above it."""
    for i in range(len(matrix)):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@inlined
def _square_distance(row: np.ndarray, other: np.ndarray, lanes: np.ndarray) -> float:
    """Return the sum of ``(row - other)^2``."""
    lanes[:] = 0
    whole = len(row) // LANES * LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            difference = np.float64(row[start + lane] - other[start + lane])
            lanes[lane] += difference * difference
    for c in range(whole, len(row)):
        difference = np.float64(row[c] - other[c])
        lanes[c - whole] += difference * difference
    return _total(lanes, 0)


@inlined
def _product(row: np.ndarray, other: np.ndarray, lanes: np.ndarray) -> float:
    """Return the sum of ``row * other``."""
    lanes[:] = 0
    whole = len(row) // LANES * LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += np.float64(row[start + lane]) * np.float64(other[start + lane])
    for c in range(whole, len(row)):
        lanes[c - whole] += np.float64(row[c]) * np.float64(other[c])
    return _total(lanes, 0)


# Four rows at a time take half of the time of one after the other. The last of them may be the same. Their pieces are
# filled up with zeros to whole lanes, which adds nothing.


@inlined
def _whole_lanes(width: int) -> int:
    return (width + LANES - 1) // LANES * LANES


@inlined
def _four_square_distances(row: np.ndarray, others: np.ndarray, j: int, last: int, lanes: np.ndarray) -> None:
    """Bring ``lanes`` to hold the running sums of ``(row - other)^2`` for the four rows from j on, up to the last."""
    a, b, c, d = others[j], others[min(j + 1, last)], others[min(j + 2, last)], others[min(j + 3, last)]
    lanes[:] = 0
    for start in range(0, len(row), LANES):
        for lane in range(LANES):
            x = row[start + lane]
            p, q = np.float64(x - a[start + lane]), np.float64(x - b[start + lane])
            s, t = np.float64(x - c[start + lane]), np.float64(x - d[start + lane])
            lanes[lane] += p * p
            lanes[LANES + lane] += q * q
            lanes[2 * LANES + lane] += s * s
            lanes[3 * LANES + lane] += t * t


@inlined
def _four_products(row: np.ndarray, others: np.ndarray, j: int, last: int, lanes: np.ndarray) -> None:
    """Bring ``lanes`` to hold the running sums of ``row * other`` for the four rows from j on, up to the last."""
    a, b, c, d = others[j], others[min(j + 1, last)], others[min(j + 2, last)], others[min(j + 3, last)]
    lanes[:] = 0
    for start in range(0, len(row), LANES):
        for lane in range(LANES):
            x = row[start + lane]
            lanes[lane] += x * a[start + lane]
            lanes[LANES + lane] += x * b[start + lane]
            lanes[2 * LANES + lane] += x * c[start + lane]
            lanes[3 * LANES + lane] += x * d[start + lane]


@inlined
def _total(lanes: np.ndarray, of: int) -> float:
    total = 0.0
    for lane in range(LANES):
        total += lanes[of * LANES + lane]
    return total
