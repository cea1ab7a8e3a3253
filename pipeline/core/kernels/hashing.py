"""SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a hash of 64 bits, and uniform numbers from it.

The bits are those of signed integers, which torch multiplies modulo 2^64; the loops take the same for unsigned ones.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels import basis
from pipeline.core.kernels.basis import compiled, inlined

WEYL = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
HALF_WAY = 0.5  # of an interval of 2^-52: no number is 0 or 1
_WEYL, _FIRST, _SECOND = np.uint64(WEYL), np.uint64(FIRST), np.uint64(SECOND)
_12, _27, _30, _31 = np.uint64(12), np.uint64(27), np.uint64(30), np.uint64(31)


def signed(number: int) -> int:
    """Return the signed 64-bit integer that equals ``number`` modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


def scrambled(values: Tensor) -> Tensor:
    """Return the hash of each of ``values [...]``, int64."""
    if not basis.on_cpu(values):
        values = (values ^ _shift(values, 30)) * signed(FIRST)
        values = (values ^ _shift(values, 27)) * signed(SECOND)
        return values ^ _shift(values, 31)
    hashes = _scrambled(values.contiguous().numpy().reshape(-1).view(np.uint64))
    return torch.from_numpy(hashes.view(np.int64)).view(values.shape)


def uniform(keys: Tensor, count: int, start: int) -> Tensor:
    """Return ``[R, count]`` numbers, float64, uniform in (0, 1), of the stream of each of ``keys [R]``.

    Args:
        keys: ``[R]``, int64.
        count: How many of each.
        start: How many come before these.
    """
    if not basis.on_cpu(keys):
        positions = torch.arange(start + 1, start + count + 1, device=keys.device) * signed(WEYL)
        return (_shift(scrambled(keys[:, None] + positions), 12).double() + HALF_WAY) * 2.0**-52
    return torch.from_numpy(_uniform(keys.contiguous().numpy().view(np.uint64), count, start))


def _shift(values: Tensor, bits: int) -> Tensor:
    """Shift right without keeping the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


@inlined
def _scramble(value: np.uint64) -> np.uint64:
    value = (value ^ (value >> _30)) * _FIRST
    value = (value ^ (value >> _27)) * _SECOND
    return value ^ (value >> _31)


@compiled
def _scrambled(values: np.ndarray) -> np.ndarray:
    hashes = np.empty_like(values)
    for i in range(len(values)):
        hashes[i] = _scramble(values[i])
    return hashes


@compiled
def _uniform(keys: np.ndarray, count: int, start: int) -> np.ndarray:
    drawn = np.empty((len(keys), count))
    for r in range(len(keys)):
        place = keys[r] + np.uint64(start) * _WEYL
        for i in range(count):
            place += _WEYL
            drawn[r, i] = (np.float64(_scramble(place) >> _12) + HALF_WAY) * 2.0**-52
    return drawn
