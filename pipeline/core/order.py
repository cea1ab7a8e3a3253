"""Order statistics over workers, by a sorting network instead of a sort, and their mean and deviation.

A network is a fixed list of comparators (i, j): row i becomes the minimum and row j the maximum of the two, for all
columns at once. Comparators that no wanted row depends on are left out. NaN counts as infinity.

On a CPU :mod:`pipeline.core.kernels` computes; the expressions here are what it computes, and what other devices do.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from pipeline.core import elementary, kernels

Comparators = tuple[tuple[int, int], ...]


@cache
def network(n: int) -> Comparators:
    """Return the comparators of Batcher's odd-even merge sort of n values, ascending.

    Reference: Batcher, AFIPS 1968; in this form Knuth, The Art of Computer Programming, volume 3, algorithm 5.2.2M.

    Example:
        >>> network(3)
        ((0, 2), (0, 1), (1, 2))
    """
    top = 1 << max(0, (n - 1).bit_length() - 1)
    comparators: list[tuple[int, int]] = []
    p = top
    while p > 0:
        q, r, distance = top, 0, p
        while True:
            comparators += [(i, i + distance) for i in range(n - distance) if i & p == r]
            if q == p:
                break
            distance, q, r = q - p, q >> 1, p
        p >>= 1
    return tuple(comparators)


@cache
def needed(n: int, first: int, last: int) -> Comparators:
    """Return the comparators of :func:`network` on which the rows ``first`` to ``last`` - 1 depend.

    Example:
        >>> len(network(13)), len(needed(13, 6, 7))
        (48, 40)
    """
    wanted = set(range(first, last))
    kept: list[tuple[int, int]] = []
    for comparator in reversed(network(n)):
        if wanted.intersection(comparator):
            wanted.update(comparator)
            kept.append(comparator)
    return tuple(reversed(kept))


def _ordered(vectors: Tensor, comparators: Comparators) -> list[Tensor]:
    """Return the rows of ``vectors [..., n, d]`` sorted over the workers, as far as the comparators do."""
    rows = list(torch.where(vectors == vectors, vectors, torch.inf).unbind(dim=-2))
    for i, j in comparators:
        rows[i], rows[j] = torch.minimum(rows[i], rows[j]), torch.maximum(rows[i], rows[j])
    return rows


def _mean_of_ranks(vectors: Tensor, comparators: Comparators, first: int, last: int) -> Tensor:
    """Return per column the mean of the values of rank ``first`` to ``last`` - 1."""
    if kernels.apply_to(vectors):
        return kernels.mean_of_ranks(vectors, comparators, first, last)
    return _mean(_ordered(vectors, comparators)[first:last])


def _mean_of_nearest(vectors: Tensor, first: int, last: int, count: int) -> Tensor:
    """Return per column the mean of the ``count`` values nearest to the mean of the ranks ``first`` to ``last`` - 1."""
    comparators = network(vectors.shape[-2])
    if kernels.apply_to(vectors):
        return kernels.mean_of_nearest(vectors, comparators, first, last, count)
    rows = _ordered(vectors, comparators)
    return mean_of_nearest(_mean(rows[first:last]), rows, count)


def _mean(rows: Sequence[Tensor]) -> Tensor:
    """Return the mean of the rows, added in float64: two of 3e38 have one."""
    total = rows[0].double()
    for row in rows[1:]:
        total = total + row
    return (total / len(rows)).to(rows[0].dtype)


def median_over_workers(vectors: Tensor) -> Tensor:
    """Return the coordinate-wise median, the midpoint of the two middle values for even n.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., d]``.

    Example:
        >>> median_over_workers(torch.tensor([[1.0], [2.0], [4.0], [100.0]]))
        tensor([3.])
    """
    n = vectors.shape[-2]
    first, last = (n - 1) // 2, n // 2 + 1
    return _mean_of_ranks(vectors, needed(n, first, last), first, last)


def trimmed_mean_over_workers(vectors: Tensor, f: int) -> Tensor:
    """Return per coordinate the mean of the values without the f smallest and the f largest.

    Args:
        vectors: ``[..., n, d]``.
        f: Less than n / 2.

    Returns:
        ``[..., d]``.

    Example:
        >>> trimmed_mean_over_workers(torch.tensor([[1.0], [2.0], [3.0], [1e20]]), f=1)
        tensor([2.5000])
    """
    n = vectors.shape[-2]
    return _mean_of_ranks(vectors, needed(n, f, n - f), f, n - f)


def mean_around_median(vectors: Tensor, count: int) -> Tensor:
    """Return per coordinate the mean of the values nearest to the median.

    Of two values at the same distance the smaller is nearer.

    Args:
        vectors: ``[..., n, d]``.
        count: How many values are averaged, 1 to n.

    Returns:
        ``[..., d]``.

    Example:
        >>> mean_around_median(torch.tensor([[9.0], [1.0], [2.5]]), count=2)
        tensor([1.7500])
    """
    n = vectors.shape[-2]
    return _mean_of_nearest(vectors, (n - 1) // 2, n // 2 + 1, count)


def mean_around_trimmed_mean(vectors: Tensor, f: int) -> Tensor:
    """Return per coordinate the mean of the n - f values nearest to the trimmed mean, as :func:`mean_around_median`.

    Args:
        vectors: ``[..., n, d]``.
        f: Less than n / 2.

    Returns:
        ``[..., d]``.
    """
    n = vectors.shape[-2]
    return _mean_of_nearest(vectors, f, n - f, n - f)


def mean_of_nearest(centre: Tensor, rows: Sequence[Tensor], count: int) -> Tensor:
    """Return the mean of the values nearest to a centre; of two at one distance, the smaller is nearer.

    They are a window of the sorted rows. It moves up past a value that is farther from the centre than the one it would
    take in; where it does not move, it does not move later either.

    Args:
        centre: ``[...]``.
        rows: n tensors ``[...]``, ascending.
        count: How many values are averaged, 1 to n.

    Returns:
        ``[...]``.
    """
    window = list(rows[:count])
    for k, entering in enumerate(rows[count:]):
        leaving = window[k % count]
        window[k % count] = torch.where(centre - leaving > entering - centre, entering, leaving)
    return _mean(window)


def mean_over_workers(vectors: Tensor) -> Tensor:
    """Return the coordinate-wise mean.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., d]``.

    Example:
        >>> mean_over_workers(torch.tensor([[1.0], [3.0]]))
        tensor([2.])
    """
    return kernels.mean(vectors) if kernels.apply_to(vectors) else vectors.mean(dim=-2)


def moments_over_workers(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coordinate-wise mean and the coordinate-wise sum of squared deviations from it.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., d]`` each.

    Example:
        >>> moments_over_workers(torch.tensor([[1.0], [3.0]]))
        (tensor([2.]), tensor([2.]))
    """
    if kernels.apply_to(vectors):
        return kernels.moments(vectors)
    mean = vectors.mean(dim=-2)
    return mean, (vectors - mean[..., None, :]).square().sum(dim=-2)


def deviation_over_workers(vectors: Tensor) -> Tensor:
    """Return the coordinate-wise standard deviation, n - 1 in the denominator.

    Args:
        vectors: ``[..., n, d]``, n >= 2.

    Returns:
        ``[..., 1, d]``.

    Example:
        >>> deviation_over_workers(torch.tensor([[1.0], [3.0]]))
        tensor([[1.4142]])
    """
    _, squares = moments_over_workers(vectors)
    variance = (squares / (vectors.shape[-2] - 1))[..., None, :]
    return elementary.root(variance) if kernels.apply_to(vectors) else variance.sqrt()
