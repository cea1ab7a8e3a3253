"""Work on ``[..., n, d]`` in pieces that stay in the processor's cache, or fused by the compiler.

A general operation on all columns at once writes every intermediate result to memory and reads it again: for 13 workers
and 431,080 parameters that is most of its time. No result depends on the size of the pieces along the replicas.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

_SWEEP = 2**21  # numbers of a piece that is swept column by column, 8 MB
_BLOCK = 2**19  # numbers of a piece that is summed over its columns, 2 MB
_MANY = 2**26  # of either on a GPU, whose launches cost more than its memory traffic
_GROUP = 128  # columns that torch sums over the workers together, in an order that depends on their place in it
_fused: ContextVar[bool] = ContextVar("fused", default=False)

Kernel = Callable[..., Tensor]


@contextmanager
def fused(on: bool) -> Iterator[None]:
    """Run compiled kernels while the context lasts; minima and maxima are the same, sums have other last bits."""
    before = _fused.set(on)
    try:
        yield
    finally:
        _fused.reset(before)


def over_columns(kernel: Kernel, vectors: Tensor, **settings: Any) -> Tensor:
    """Return ``kernel(vectors, **settings)`` for a kernel that treats every column on its own.

    Args:
        kernel: Maps ``[..., n, c]`` to ``[..., c]`` or ``[..., k, c]``, elementwise along the last dimension.
        vectors: ``[..., n, d]``.
        settings: Of the kernel; hashable.

    Returns:
        ``[..., d]`` or ``[..., k, d]``.
    """
    if _fused.get():
        return compiled(kernel, **settings)(vectors)
    size = _columns(vectors, vectors[..., 0].numel(), _SWEEP)
    if size >= vectors.shape[-1]:
        return kernel(vectors, **settings)
    return torch.cat([kernel(piece, **settings) for piece in torch.split(vectors, size, dim=-1)], dim=-1)


def sums_are_fused(vectors: Tensor) -> bool:
    """Return whether sums over the columns of ``vectors`` are compiled: where kernels are, on a CPU.

    On a GPU the compiler chooses the order of a sum by the size of the batch.
    """
    return _fused.get() and vectors.device.type == "cpu"


@cache
def compiled(kernel: Kernel, **settings: Any) -> Kernel:
    """Return ``kernel`` with its ``settings``, compiled at its first call."""
    torch._dynamo.config.recompile_limit = 256  # a kernel is compiled anew for every number of workers
    return torch.compile(partial(kernel, **settings), dynamic=True)


def _columns(vectors: Tensor, rows: int, numbers: int) -> int:
    """Return how many columns of ``rows`` numbers make a piece: a multiple of 128, which torch sums in one order."""
    numbers = numbers if vectors.device.type == "cpu" else _MANY
    return max(_GROUP, numbers // max(1, rows) // _GROUP * _GROUP)


def blocks(vectors: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the first and of the last dimension that cut ``[R, n, d]`` into pieces.

    The columns are cut by n and d alone, so that a sum over the columns does not depend on R.
    """
    replicas, n, d = vectors.shape
    columns = _columns(vectors, n, _BLOCK)
    together = max(1, columns // max(1, d))
    for first in range(0, replicas, together):
        for start in range(0, d, columns):
            yield slice(first, first + together), slice(start, start + columns)
