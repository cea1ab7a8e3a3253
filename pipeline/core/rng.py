"""Named random streams, the only place that makes generators.

A stream is named by the seed of its replica and by its purpose. Two replicas with one seed draw the same numbers
(common random numbers), whatever shares their batch, on whatever device: streams are drawn on the CPU.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.core.kernels.elementary import inverse_normal
from pipeline.core.kernels.hashing import scrambled, signed, uniform

_FORK = signed(0xD1342543DE82EF95)


def stream_seed(seed: int, purpose: str) -> int:
    """Return a 63-bit number that identifies the stream of ``purpose`` in the replica of ``seed``.

    Example:
        >>> stream_seed(0, "partition") != stream_seed(0, "initial weights") != stream_seed(1, "partition")
        True
    """
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_stream(seed: int, purpose: str) -> torch.Generator:
    """Return a fresh CPU generator at the start of the stream."""
    return torch.Generator().manual_seed(stream_seed(seed, purpose))


def numpy_stream(seed: int, purpose: str) -> np.random.Generator:
    """Return a fresh NumPy generator at the start of the stream."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, purpose)))


@dataclass(frozen=True)
class Stream:
    """Random numbers for a batch of replicas, drawn on their own device: a hash of key, fork and position.

    The same key gives the same numbers on every device, whatever else is in the batch; there is no state to advance.
    ``fork`` names what the numbers are for.

    Attributes:
        keys: ``[R]``, int64, one key a replica.

    Example:
        >>> stream = Stream.of([0, 1], "attack")
        >>> stream.uniform(3).shape
        torch.Size([2, 3])
        >>> bool((stream.fork(0).uniform(3) == stream.fork(1).uniform(3)).any())
        False
        >>> bool((Stream.of([1], "attack").uniform(3) == stream[1:].uniform(3)).all())
        True
    """

    keys: Tensor

    @classmethod
    def of(cls, seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu") -> "Stream":
        """Return the streams of replicas with these seeds for one purpose."""
        return cls(torch.tensor([stream_seed(seed, purpose) for seed in seeds], device=device))

    def __getitem__(self, replicas: slice) -> "Stream":
        return Stream(self.keys[replicas])

    def fork(self, number: int | Tensor) -> "Stream":
        """Return the streams for sub-purpose ``number`` >= 0, such as a step or a stage; a tensor is int64, ``[]``."""
        product = (number + 1) * _FORK
        return Stream(scrambled(self.keys + (signed(product) if isinstance(product, int) else product)))

    def uniform(self, count: int, start: int = 0) -> Tensor:
        """Return ``[R, count]`` numbers, float64, uniform in (0, 1): those of the stream after the first ``start``."""
        return uniform(self.keys, count, start)

    def normal(self, count: int) -> Tensor:
        """Return ``[R, count]`` numbers, float64, standard normal."""
        return inverse_normal(self.uniform(count))

    def permutation(self, n: int) -> Tensor:
        """Return ``[R, n]``, int64, a random order of 0 to n - 1 for every replica."""
        return self.uniform(n).argsort(dim=-1, stable=True)
