"""Elementary functions whose last bits on a CPU are the same on every processor.

Those of the C library and of MKL, which PyTorch uses, are not. Eigenvalues are NumPy's, one matrix after the other:
PyTorch's depend on the processor and on where a matrix lies in memory.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels import basis


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
