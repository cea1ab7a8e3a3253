"""Elementary functions whose last bits on a CPU are the same on every processor.

Those of the C library and of MKL, which PyTorch uses, are not. Eigenvalues are NumPy's, one matrix after the other:
PyTorch's depend on the processor and on where a matrix lies in memory.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import array, compiled


def eigenvalues(matrices: Tensor) -> Tensor:
    """Return the eigenvalues ``[..., n]``, ascending, of symmetric ``matrices [..., n, n]``."""
    if not basis.on_cpu(matrices):
        values: Tensor = torch.linalg.eigvalsh(matrices)
        return values
    return torch.from_numpy(np.linalg.eigvalsh(matrices.numpy()))


def eigenvectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues ``[..., n]``, ascending, and eigenvectors ``[..., n, n]``, one per column."""
    if not basis.on_cpu(matrices):
        decomposed: tuple[Tensor, Tensor] = torch.linalg.eigh(matrices)
        return decomposed
    values, vectors = np.linalg.eigh(matrices.numpy())
    return torch.from_numpy(values), torch.from_numpy(vectors)


def root(values: Tensor) -> Tensor:
    """Return the square roots of ``values [...]``; on a CPU each is the number nearest to the true one.

    IEEE 754 asks for that; MKL, which PyTorch uses, does not give it.

    Example:
        >>> root(torch.tensor([4.0, 2.0]))
        tensor([2.0000, 1.4142])
    """
    if not basis.on_cpu(values):
        return values.sqrt()
    return torch.from_numpy(np.asarray(np.sqrt(values.detach().numpy())))


def inverse_normal(shares: Tensor) -> Tensor:
    """Return the standard normal quantiles of ``shares``, float64, in (0, 1)."""
    if not basis.on_cpu(shares):
        quantiles: Tensor = torch.special.ndtri(shares)
        return quantiles
    from scipy.special import ndtri  # an import of tenths of a second, which few attacks need

    return torch.from_numpy(ndtri(shares.numpy()))


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy ``[...]`` (nats) of ``logits [..., C]``, and its derivative by them ``[..., C]``.

    Args:
        logits: ``[..., C]``.
        labels: ``[...]``, int64, 0 to C - 1.

    Example:
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
        (tensor([0.6931]), tensor([[ 0.5000, -0.5000]]))
    """
    if not basis.on_cpu(logits):
        logarithms, chosen = log_softmax(logits, dim=-1), labels[..., None]
        is_label = chosen == torch.arange(logits.shape[-1], device=labels.device)
        return -logarithms.gather(-1, chosen).squeeze(-1), logarithms.exp() - is_label.to(logits.dtype)
    losses, derivative = _cross_entropy(array(logits, dims=2), labels.reshape(-1).numpy())
    return torch.from_numpy(losses).view(labels.shape), torch.from_numpy(derivative).view(logits.shape)


@compiled
def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    samples, classes = logits.shape
    losses, derivative = np.empty(samples, logits.dtype), np.empty(logits.shape, logits.dtype)
    powers = np.empty(classes)
    for i in range(samples):
        largest = logits[i, 0]
        for c in range(1, classes):
            largest = max(largest, logits[i, c])
        total = 0.0
        for c in range(classes):
            powers[c] = exponential(np.float64(logits[i, c]) - np.float64(largest))
            total += powers[c]
        losses[i] = logarithm(total) - (np.float64(logits[i, labels[i]]) - np.float64(largest))
        for c in range(classes):
            derivative[i, c] = powers[c] / total
        derivative[i, labels[i]] -= 1
    return losses, derivative


LN2, LN2_REST = 0.6931471803691238, 1.9082149292705877e-10  # their sum is ln 2 to 1e-26; k LN2 is exact for |k| < 2^20


@compiled
def exponential(x: float) -> float:
    """Return e^x for x <= 0, to 2 units in the last place; NaN for NaN.

    x = k ln 2 + r with |r| <= ln 2 / 2, and e^r by its series up to r^13 / 13!, whose rest is below 1e-17.

    Example:
        >>> exponential(-1.0)
        0.36787944117144233
    """
    if not x > -745.0:
        return x if x != x else 0.0
    k = math.floor(x / (LN2 + LN2_REST) + 0.5)
    r = (x - k * LN2) - k * LN2_REST
    series = 1.0
    for i in range(13, 0, -1):
        series = 1.0 + series * r / i
    return math.ldexp(series, int(k))


@compiled
def logarithm(x: float) -> float:
    """Return ln x for finite x > 0 that is not subnormal, to 2 units in the last place; NaN for NaN.

    x = 2^k m with m in [1/sqrt 2, sqrt 2), and ln m = 2 (f + f^3 / 3 + f^5 / 5 + ...) with f = (m - 1) / (m + 1), up to
    f^23, whose rest is below 1e-18.

    Example:
        >>> logarithm(10.0)
        2.302585092994046
    """
    if not x < math.inf:
        return x
    m, k = math.frexp(x)
    if m < 0.7071067811865476:
        m, k = 2 * m, k - 1
    f = (m - 1) / (m + 1)
    series = 0.0
    for i in range(23, 0, -2):
        series = series * f * f + 2.0 / i
    return k * LN2 + (series * f + k * LN2_REST)
