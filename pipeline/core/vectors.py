"""Linear algebra on workers' vectors ``[..., n, d]`` that up to f arbitrary rows cannot break.

Rows that hold NaN are infinitely far from every other row. Every function treats the leading dimensions as a batch and
works along the last two. Sums over the columns are made in float64.
"""

import torch
from torch import Tensor

from pipeline.core.kernels import columns, workers
from pipeline.core.kernels.elementary import eigenvalues, eigenvectors, root
from pipeline.core.order import median_over_workers


def squared_distances(vectors: Tensor) -> Tensor:
    """Return the squared Euclidean distances between rows.

    Computed from differences, summed in float64. The matrix form
    ``|x|^2 + |y|^2 - 2 <x, y>`` is faster and cancels: a spread of 1e-3 of the norm is off by a third, and one attacker
    at 1e15 erases every distance between honest rows.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n, n]``, symmetric, zero on the diagonal; infinite where a row is not finite or the square overflows.

    Example:
        >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([[ 0., 25.],
                [25.,  0.]])
    """
    return columns.square_distances(vectors).to(vectors.dtype).nan_to_num(nan=torch.inf, posinf=torch.inf)


def squared_distances_to(point: Tensor, vectors: Tensor) -> Tensor:
    """Return the squared distances of rows to a point.

    Args:
        point: ``[..., d]``.
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n]``, float64; infinite where the row or the point is not finite.

    Example:
        >>> squared_distances_to(torch.zeros(2), torch.tensor([[3.0, 4.0], [torch.nan, 0.0]])).tolist()
        [25.0, inf]
    """
    return columns.row_square_distances(vectors, point[..., None, :]).nan_to_num(nan=torch.inf, posinf=torch.inf)


def squared_norms(vectors: Tensor) -> Tensor:
    """Return the squared norms of rows: :func:`squared_distances_to` zero.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n]``, float64; infinite where a row is not finite.
    """
    return row_products(vectors, vectors).nan_to_num(nan=torch.inf, posinf=torch.inf)


def row_products(vectors: Tensor, others: Tensor) -> Tensor:
    """Return the inner product of each row with its row of ``others``.

    Args:
        vectors: ``[..., n, d]``.
        others: ``[..., n, d]``, or ``[..., 1, d]`` for one row against all.

    Returns:
        ``[..., n]``, float64.

    Example:
        >>> row_products(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([3., 7.], dtype=torch.float64)
    """
    return columns.row_products(vectors, others)


def sum_over_columns(values: Tensor) -> Tensor:
    """Return the sums over the last dimension, added in float64.

    Args:
        values: ``[..., d]``.

    Returns:
        ``[...]``.

    Example:
        >>> sum_over_columns(torch.ones(2, 3000))
        tensor([3000., 3000.])
    """
    return columns.sums(values)


def distances_to_others(vectors: Tensor) -> Tensor:
    """Return :func:`squared_distances` sorted along the last dimension, without the zero of a row to itself.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n, n - 1]``, ascending.
    """
    distances = squared_distances(vectors)
    itself = torch.eye(distances.shape[-1], dtype=torch.bool, device=distances.device)
    others = distances.masked_fill(itself, torch.inf)
    return others.sort(dim=-1).values[..., :-1]


def lowest(scores: Tensor, count: int) -> Tensor:
    """Return which entries are the ``count`` lowest; of equal ones, those of lowest index.

    Args:
        scores: ``[..., n]``.
        count: 0 to n.

    Returns:
        ``[..., n]``, bool.

    Example:
        >>> lowest(torch.tensor([3.0, 1.0, 1.0, 2.0]), count=1)
        tensor([False,  True, False, False])
    """
    chosen = scores.argsort(dim=-1, stable=True)[..., :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, chosen, True)


def take_rows(vectors: Tensor, rows: Tensor) -> Tensor:
    """Return the ``rows [..., k]`` of ``vectors [..., n, d]``, as ``[..., k, d]``."""
    n, d = vectors.shape[-2:]
    first = torch.arange(rows[..., 0].numel(), device=rows.device)[:, None] * n
    chosen = (rows.reshape(-1, rows.shape[-1]) + first).flatten()
    return vectors.reshape(-1, d).index_select(0, chosen).view(*rows.shape, d)


def norms(vectors: Tensor) -> Tensor:
    """Return the Euclidean norms ``[...]`` of vectors ``[..., d]``; infinite where a vector is not finite."""
    return root(squared_norms(vectors.unsqueeze(-2)).squeeze(-1)).to(vectors.dtype)


def mix(weights: Tensor, vectors: Tensor) -> Tensor:
    """Return the weighted sums of rows, in which a zero weight erases a row even if it holds NaN or infinity.

    Args:
        weights: ``[..., k, n]``.
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., k, d]``; not finite in a column of a sum that gives weight to a number that is not finite.

    Example:
        >>> mix(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[1.0], [3.0], [torch.inf]]))
        tensor([[2.]])
    """
    return workers.mix(weights, vectors)


def gram_around_median(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inner products of the rows around their coordinate-wise median, and which rows are usable.

    They hold everything about the rows' geometry: distances, variances, the span. Each entry comes from two rows alone,
    in float64, so a huge row spoils no other. A row that is not finite, or whose square overflows, is zero and not
    usable. If no row is usable, all count as usable: whatever is chosen among them is then not finite.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n, n]``, float64, symmetric, and ``[..., n]``, bool.

    Example:
        >>> gram_around_median(torch.tensor([[1.0, 0.0], [2.0, 2.0], [3.0, 9.0]]))[0]
        tensor([[  5.,   0., -15.],
                [  0.,   0.,   0.],
                [-15.,   0.,  50.]], dtype=torch.float64)
    """
    products = columns.products_around(vectors, median_over_workers(vectors))
    usable = products.diagonal(dim1=-2, dim2=-1).isfinite()
    products = products.where(usable[..., None] & usable[..., None, :], 0.0)
    return products, usable | ~usable.any(dim=-1, keepdim=True)


def products_around_mean(distances: Tensor, weights: Tensor) -> Tensor:
    """Return the inner products of rows around their weighted mean, from their squared distances alone.

    <x_i - mu, x_j - mu> = (a_i + a_j - s - d_ij) / 2 with a_i = sum_j w_j d_ij and s = sum_i w_i a_i

    Args:
        distances: d, ``[..., n, n]``, squared, finite.
        weights: w, ``[..., n]``, of sum 1.

    Returns:
        ``[..., n, n]``.

    Example:
        >>> products_around_mean(torch.tensor([[0.0, 4.0], [4.0, 0.0]]), weights=torch.tensor([0.5, 0.5]))
        tensor([[ 1., -1.],
                [-1.,  1.]])
    """
    to_mean = row_products(distances, weights[..., None, :])[..., None, :]
    twice_variance = row_products(to_mean, weights[..., None, :])[..., None]
    return ((to_mean + to_mean.mT - twice_variance - distances) / 2).to(distances.dtype)


def usable_distances(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distances between the usable rows, and which rows are usable.

    A row that is not finite, or whose square overflows, is infinitely far from the majority: it is not usable, and its
    distances are given as zero. If no row is usable, all count as usable: whatever is chosen among them is
    then not finite.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n, n]``, float64, and ``[..., n]``, bool.
    """
    distances = squared_distances(vectors).double()
    near = distances.isfinite()
    usable = 2 * near.sum(dim=-1) > vectors.shape[-2]
    distances = distances.where(near & usable[..., None] & usable[..., None, :], 0.0)
    return distances, usable | ~usable.any(dim=-1, keepdim=True)


def top_eigenvalue(matrices: Tensor) -> Tensor:
    """Return the largest eigenvalue ``[...]`` of positive semi-definite ``matrices [..., n, n]``."""
    return eigenvalues(matrices)[..., -1]


def top_eigenvector(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalue and its eigenvector, of either sign.

    Args:
        matrices: ``[..., n, n]``, positive semi-definite.

    Returns:
        ``[...]`` and ``[..., n]``.
    """
    values, vectors = eigenvectors(matrices)
    return values[..., -1], vectors[..., -1]
