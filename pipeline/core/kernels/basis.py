"""What all kernels stand on: on which device a tensor is, the compiler, and tensors as arrays."""

from collections.abc import Callable
from math import prod
from typing import Any, TypeVar, cast

import numpy as np
from torch import Tensor

try:
    from numba import njit
except ImportError:  # a machine that computes on a GPU does without
    njit = None  # type: ignore[assignment]

PIECE = 512  # columns that are summed before the next: all rows of a piece stay in the second cache

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return ``function`` compiled; without numba it runs as it stands, with the same numbers, but slowly."""
    return function if njit is None else cast(Function, njit(cache=True, error_model="numpy")(function))


def inlined(function: Function) -> Function:
    """Return ``function`` for use in a compiled one, with its body in place of each call."""
    return function if njit is None else cast(Function, njit(error_model="numpy", inline="always")(function))


def on_cpu(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is on a CPU, where the loops of this package compute."""
    return tensor.device.type == "cpu"


def on_gpu(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is on a GPU."""
    return tensor.device.type == "cuda"


def array(tensor: Tensor, dims: int = 3) -> np.ndarray:
    """Return the values of ``tensor [..., a, b]`` as a contiguous array of ``dims`` dimensions, leading ones joined."""
    leading, trailing = tensor.shape[: 1 - dims], tensor.shape[1 - dims :]
    return tensor.detach().reshape(prod(leading), *trailing).contiguous().numpy()
