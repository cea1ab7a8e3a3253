"""What is drawn in a round: which workers take part, and which of its samples each of them reads."""

import torch
from torch import Tensor

from pipeline.core.rng import Stream, numpy_stream

HONEST = 2  # at least, in every round: a mean and a deviation of honest vectors exist


def byzantine_counts(seed: int, steps: int, workers: int, byzantine: int, sampled: int) -> list[int]:
    """Return how many of the workers sampled at each step are Byzantine.

    Hypergeometric: ``sampled`` of ``workers`` without replacement, of which ``byzantine`` are Byzantine; but at most
    ``sampled`` - 2, so that two honest workers take part.

    Example:
        >>> sum(byzantine_counts(0, 1000, workers=20, byzantine=5, sampled=8)) / 1000
        2.014
    """
    stream = numpy_stream(seed, "byzantine counts")
    drawn = stream.hypergeometric(byzantine, workers - byzantine, sampled, size=steps)
    return [min(int(count), sampled - HONEST) for count in drawn]


def subset(total: int, count: int, stream: Stream) -> Tensor:
    """Return a uniform choice of ``count`` of the numbers 0 to ``total`` - 1 for every replica, ascending.

    Args:
        total: How many there are.
        count: How many are chosen.
        stream: Random numbers of the round, ``[R]``.

    Returns:
        ``[R, count]``, int64.
    """
    return stream.permutation(total)[:, :count].sort(dim=-1).values


def take(values: Tensor, workers: Tensor | None) -> Tensor:
    """Return ``values [R, w, ...]`` of the ``workers [R, k]``, all of them for None."""
    if workers is None:
        return values
    return values[torch.arange(len(workers), device=workers.device)[:, None], workers]


def put(values: Tensor, workers: Tensor | None, new: Tensor) -> Tensor:
    """Return ``values [R, w, ...]`` with those of the ``workers [R, k]`` replaced by ``new [R, k, ...]``."""
    if workers is None:
        return new
    replicas = torch.arange(len(workers), device=workers.device)[:, None]
    return values.index_put((replicas.expand_as(workers), workers), new)


def minibatch(stream: Stream, sizes: Tensor, size: int, first: int = 0) -> Tensor:
    """Return which of its samples each worker reads in one step, drawn with replacement.

    Every worker has a place of its own in the stream, so its draws depend neither on the others nor on which of them
    are honest.

    Args:
        stream: Random numbers of the step, ``[R]``.
        sizes: ``[R, w]``, how many samples each worker holds.
        size: How many each reads.
        first: The number of the first of these workers.

    Returns:
        ``[R, w, size]``, those of a worker from 0 to its size - 1, int64.

    Example:
        >>> minibatch(Stream.of([0], "minibatches"), torch.tensor([[1, 100]]), size=3)
        tensor([[[ 0,  0,  0],
                 [67, 72, 46]]])
        >>> minibatch(Stream.of([0], "minibatches"), torch.tensor([[100]]), size=3, first=1)
        tensor([[[67, 72, 46]]])
    """
    drawn = stream.uniform(sizes.shape[-1] * size, first * size).view(*sizes.shape, size)
    return (drawn * sizes[..., None]).long()
