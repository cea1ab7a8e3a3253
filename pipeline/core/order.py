"""Order statistics over workers, by a sorting network instead of a sort, and their mean and deviation.

Comparators that no wanted row depends on are left out of the network. NaN counts as infinity.
"""

from functools import cache

from torch import Tensor

from pipeline.core.kernels import ranks, workers
from pipeline.core.kernels.elementary import root

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


def median_over_workers(vectors: Tensor) -> Tensor:
    """Return the coordinate-wise median, the midpoint of the two middle values for even n.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., d]``.

    Example:
        >>> import torch
        >>> median_over_workers(torch.tensor([[1.0], [2.0], [4.0], [100.0]]))
        tensor([3.])
    """
    n = vectors.shape[-2]
    first, last = (n - 1) // 2, n // 2 + 1
    return ranks.mean_of_ranks(vectors, needed(n, first, last), first, last)


def trimmed_mean_over_workers(vectors: Tensor, f: int) -> Tensor:
    """Return per coordinate the mean of the values without the f smallest and the f largest.

    Args:
        vectors: ``[..., n, d]``.
        f: Less than n / 2.

    Returns:
        ``[..., d]``.

    Example:
        >>> import torch
        >>> trimmed_mean_over_workers(torch.tensor([[1.0], [2.0], [3.0], [1e20]]), f=1)
        tensor([2.5000])
    """
    n = vectors.shape[-2]
    return ranks.mean_of_ranks(vectors, needed(n, f, n - f), f, n - f)


def mean_around_median(vectors: Tensor, count: int) -> Tensor:
    """Return per coordinate the mean of the values nearest to the median.

    Of two values at the same distance the smaller is nearer.

    Args:
        vectors: ``[..., n, d]``.
        count: How many values are averaged, 1 to n.

    Returns:
        ``[..., d]``.

    Example:
        >>> import torch
        >>> mean_around_median(torch.tensor([[9.0], [1.0], [2.5]]), count=2)
        tensor([1.7500])
    """
    n = vectors.shape[-2]
    return ranks.mean_of_nearest(vectors, network(n), (n - 1) // 2, n // 2 + 1, count)


def mean_around_trimmed_mean(vectors: Tensor, f: int) -> Tensor:
    """Return per coordinate the mean of the n - f values nearest to the trimmed mean, as :func:`mean_around_median`.

    Args:
        vectors: ``[..., n, d]``.
        f: Less than n / 2.

    Returns:
        ``[..., d]``.
    """
    n = vectors.shape[-2]
    return ranks.mean_of_nearest(vectors, network(n), f, n - f, n - f)


def mean_over_workers(vectors: Tensor) -> Tensor:
    """Return the coordinate-wise mean.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., d]``.

    Example:
        >>> import torch
        >>> mean_over_workers(torch.tensor([[1.0], [3.0]]))
        tensor([2.])
    """
    return workers.mean(vectors)


def moments_over_workers(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coordinate-wise mean and the coordinate-wise sum of squared deviations from it.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., d]`` each.

    Example:
        >>> import torch
        >>> moments_over_workers(torch.tensor([[1.0], [3.0]]))
        (tensor([2.]), tensor([2.]))
    """
    return workers.moments(vectors)


def mean_and_deviation_over_workers(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coordinate-wise mean, and the standard deviation with n - 1 in the denominator.

    Args:
        vectors: ``[..., n, d]``, n >= 2.

    Returns:
        ``[..., d]`` each.

    Example:
        >>> import torch
        >>> mean_and_deviation_over_workers(torch.tensor([[1.0], [3.0]]))
        (tensor([2.]), tensor([1.4142]))
    """
    mean, squares = moments_over_workers(vectors)
    return mean, root(squares / (vectors.shape[-2] - 1))
