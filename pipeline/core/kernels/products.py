"""Products of matrices under ``vmap`` whose bits do not depend on how many replicas and workers share them.

A library picks the kernel of a product by its shape, so a worker's gradient would depend on its company. Here each
entry of a product is a sum in one order (:func:`ordered_product`), whatever stands beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import compiled


def ordered_product(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left [A, m, k] @ right [B, k, c]``, ``[max(A, B), m, c]``, summed in the order of k; A or B may be 1."""
    batch = max(len(left), len(right))
    result = np.empty((batch, left.shape[1], right.shape[2]), left.detach().numpy().dtype)
    _matrix_product(left.detach().numpy(), right.detach().contiguous().numpy(), result)
    return torch.from_numpy(result)


@compiled
def _matrix_product(left: np.ndarray, right: np.ndarray, result: np.ndarray) -> None:
    batch, rows, columns = result.shape
    inner = left.shape[2]
    whole = inner // 4 * 4
    for r in range(batch):
        a, b = left[r if len(left) > 1 else 0], right[r if len(right) > 1 else 0]
        for i in range(rows):
            sums = result[r, i]
            for c in range(columns):
                sums[c] = 0
            for k in range(0, whole, 4):  # four terms at a time, added one after the other
                p, q, s, t = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
                u, v, w, x = b[k], b[k + 1], b[k + 2], b[k + 3]
                for c in range(columns):
                    sums[c] = sums[c] + p * u[c] + q * v[c] + s * w[c] + t * x[c]
            for k in range(whole, inner):
                p, u = a[i, k], b[k]
                for c in range(columns):
                    sums[c] += p * u[c]


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left [..., m, k] @ right [..., k, c]``, the leading dimensions broadcast; on a CPU in one order.

    Example:
        >>> matmul(torch.ones(2, 1, 3), torch.ones(3, 1)).flatten()
        tensor([3., 3.])
    """
    if not basis.on_cpu(left):
        return left @ right
    shape = (*_broadcast(left, right), left.shape[-2], right.shape[-1])
    while right.dim() > 2 and right.shape[-3] == 1 and left.dim() == right.dim():
        left, right = left.flatten(-3, -2), right.squeeze(-3)  # one factor for all: their rows are those of one
    batch = _broadcast(left, right)
    return ordered_product(_flat(left, batch), _flat(right, batch)).view(shape)


class Product(torch.autograd.Function):
    """:func:`matmul`, under any nesting of ``vmap`` and ``grad``."""

    @staticmethod
    def forward(left: Tensor, right: Tensor) -> Tensor:
        """Return the products; the leading dimensions are broadcast."""
        return matmul(left, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep both factors."""
        del output
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients with respect to the factors, matrices each, where they are needed."""
        left, right = ctx.saved_tensors
        of_left, of_right = ctx.needs_input_grad
        return (
            multiply(gradient, right.mT) if of_left else None,
            multiply(gradient.mT, left).mT if of_right else None,  # a transposed weight gets a contiguous gradient
        )

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], left: Tensor, right: Tensor) -> tuple[Tensor, int]:
        """Return the products of the members of a batch, along the first dimension."""
        del info
        ranks = [factor.dim() - (dim is not None) for factor, dim in zip((left, right), dims, strict=True)]
        left, right = (
            factor if dim is None else _first(factor, dim, max(ranks) + 1)
            for factor, dim in zip((left, right), dims, strict=True)
        )
        return multiply(left, right), 0


def _first(factor: Tensor, dim: int, rank: int) -> Tensor:
    """Return ``factor`` with dimension ``dim`` in front, and ones after it until it has ``rank`` dimensions."""
    factor = factor.movedim(dim, 0)
    return factor[(slice(None), *(None,) * (rank - factor.dim()))]


def _broadcast(left: Tensor, right: Tensor) -> torch.Size:
    """Return the leading dimensions of a product."""
    if left.dim() == right.dim() and left.shape[:-2] == right.shape[:-2]:
        return left.shape[:-2]
    shape: torch.Size = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])  # type: ignore[no-untyped-call]
    return shape


def _flat(factor: Tensor, batch: Sequence[int]) -> Tensor:
    """Return ``factor`` as a batch of matrices, of one where it is the same for all."""
    if prod(factor.shape[:-2]) > 1:
        factor = factor.expand(*batch, -1, -1)
    return factor.reshape(-1, *factor.shape[-2:])


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left @ right`` by :class:`Product`."""
    product: Tensor = Product.apply(left, right)
    return product


class OrderedProducts(TorchFunctionMode):
    """While this context lasts, the linear layers of a network multiply by :class:`Product` on a CPU."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or stand in for it where it is a linear layer."""
        del types
        if func is functional.linear and basis.on_cpu(args[0]):
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``inputs [B, k] @ weight [c, k]^T + bias [c]``."""
    product = multiply(inputs, weight.mT)
    return product if bias is None else product + bias
