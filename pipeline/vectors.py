"""Linear algebra on workers' vectors ``[..., n, d]`` that up to f arbitrary rows cannot break.

Rows that hold NaN are infinitely far from every other row. Every function treats the leading dimensions as a batch and
works along the last two.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.columns import blocks, compiled, sums_are_fused
from pipeline.order import median_over_workers

_STRETCH = 1024  # numbers whose squares are added in the type of the vectors: the relative error stays below 1e-6


def squared_distances(vectors: Tensor) -> Tensor:
    """Return the squared Euclidean distances between rows.

    Computed from differences, summed in float64 over pieces of the columns. The matrix form
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
    n = vectors.shape[-2]
    flat = vectors.reshape(-1, *vectors.shape[-2:])
    row = torch.arange(n, device=vectors.device)
    other = (row + torch.arange(1, n // 2 + 1, device=vectors.device)[:, None]) % n
    sums = _fused_square_differences(flat, other) if sums_are_fused(flat) else _square_differences(flat)
    distances = flat.new_zeros(len(flat), n, n)
    distances[:, row.expand_as(other), other] = distances[:, other, row.expand_as(other)] = sums.to(flat.dtype)
    return distances.nan_to_num(nan=torch.inf, posinf=torch.inf).view(*vectors.shape[:-1], n)


def _fused_square_differences(vectors: Tensor, other: Tensor) -> Tensor:
    """Return the float64 ``|x_j - x_i|^2`` of ``vectors [R, n, d]``, j = ``other [s, n]`` at row i, ``[R, s, n]``."""
    whole, rest = vectors.tensor_split([vectors.shape[-1] // _STRETCH * _STRETCH], dim=-1)
    kernel = compiled(_stretch_differences)
    sums = kernel(pad(rest, (0, _STRETCH - rest.shape[-1])), other)
    if whole.numel():
        sums = torch.cat([sums, kernel(whole, other)], dim=1)
    return sums.sum(dim=1, dtype=torch.float64)


def _stretch_differences(vectors: Tensor, other: Tensor) -> Tensor:
    """Return the ``|x_j - x_i|^2`` over each of K stretches of ``vectors [R, n, K * 1024]``, ``[R, K, s, n]``."""
    stretches = vectors.view(*vectors.shape[:-1], -1, _STRETCH).transpose(1, 2)
    differences = stretches[:, :, other] - stretches[:, :, None]
    return differences.square().sum(dim=-1)


def _square_differences(vectors: Tensor) -> Tensor:
    """Return the float64 ``|x_(i + s) - x_i|^2`` of ``vectors [R, n, d]``, i + s modulo n, at [r, s - 1, i]."""
    n = vectors.shape[-2]
    sums = vectors.new_zeros(len(vectors), n // 2, n, dtype=torch.float64)
    for replicas, columns in blocks(vectors):
        _add_square_differences(sums[replicas], vectors[replicas, :, columns])
    return sums


def _add_square_differences(sums: Tensor, piece: Tensor) -> None:
    """Add to ``sums [R, n // 2, n]`` those of ``piece [R, n, c]``.

    All n rows are summed at once: torch adds up a single row in another order than several.
    """
    n = piece.shape[-2]
    differences = torch.empty_like(piece, memory_format=torch.contiguous_format)
    for s in range(1, n // 2 + 1):
        torch.sub(piece[:, s:], piece[:, : n - s], out=differences[:, : n - s])
        torch.sub(piece[:, :s], piece[:, n - s :], out=differences[:, n - s :])
        sums[:, s - 1] += differences.square_().sum(dim=-1)


def squared_distances_to(point: Tensor, vectors: Tensor) -> Tensor:
    """Return the squared distances of rows to a point.

    Args:
        point: ``[..., d]``.
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n]``, float64, to a relative 1e-6 above 1e-30; infinite where the row or the point is not finite.

    Example:
        >>> squared_distances_to(torch.zeros(2), torch.tensor([[3.0, 4.0], [torch.nan, 0.0]])).tolist()
        [25.0, inf]
    """
    points = point.expand(*vectors.shape[:-2], vectors.shape[-1]).reshape(-1, 1, vectors.shape[-1])
    return _square_sums(vectors, points)


def squared_norms(vectors: Tensor) -> Tensor:
    """Return the squared norms of rows: :func:`squared_distances_to` zero.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n]``, float64; infinite where a row is not finite.
    """
    return _square_sums(vectors, None)


def _square_sums(vectors: Tensor, points: Tensor | None) -> Tensor:
    """Return the sums of squares of ``vectors [..., n, d]`` minus ``points [R, 1, d]``.

    Those that overflow in float32 are summed in float64. Every row has its own choice, so none depends on another.
    """
    flat = vectors.reshape(-1, *vectors.shape[-2:])
    sums = sums_of_squares(flat, points, flat.dtype)
    looks = flat.device.type == "cpu"  # a GPU would have to wait for the answer
    if not (looks and sums.isfinite().all()):
        sums = sums.where(sums.isfinite(), sums_of_squares(flat, points, torch.float64))
    return sums.nan_to_num(nan=torch.inf, posinf=torch.inf).view(vectors.shape[:-1])


def sums_of_squares(vectors: Tensor, points: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the sums of squares of rows, or of their differences to a point, with no look at a value.

    Args:
        vectors: ``[R, n, d]``.
        points: ``[R, 1, d]``; None for zero.
        dtype: In which stretches of 1024 numbers are summed; these sums are added in float64.

    Returns:
        ``[R, n]``, float64; infinite where a piece overflows, NaN where a row or the point holds NaN.
    """
    sums = vectors.new_zeros(vectors.shape[:-1], dtype=torch.float64)
    for replicas, columns in blocks(vectors):
        piece = vectors[replicas, :, columns]
        differences = piece if points is None else piece - points[replicas, :, columns]
        sums[replicas] += _square_norms(differences.to(dtype))
    return sums


def _square_norms(rows: Tensor) -> Tensor:
    """Return the squared norms ``[..., n]`` of ``rows [..., n, c]``, float64: norms of stretches, squared and added."""
    stretches = rows.shape[-1] // _STRETCH
    whole, rest = rows.tensor_split([stretches * _STRETCH], dim=-1)
    whole = whole.view(*rows.shape[:-1], stretches, _STRETCH)
    of_whole: Tensor = torch.linalg.vector_norm(whole, dim=-1).double().square().sum(dim=-1)
    of_rest: Tensor = torch.linalg.vector_norm(rest, dim=-1).double().square()
    return of_whole + of_rest


def sum_over_columns(values: Tensor) -> Tensor:
    """Return the sums over the last dimension, in an order that does not depend on the others.

    ``Tensor.sum`` adds up a single long row by several threads, and each of several rows by one.

    Args:
        values: ``[..., d]``.

    Returns:
        ``[...]``.

    Example:
        >>> sum_over_columns(torch.ones(2, 3000))
        tensor([3000., 3000.])
    """
    stretches = values.shape[-1] // _STRETCH
    whole, rest = values.tensor_split([stretches * _STRETCH], dim=-1)
    of_whole = whole.reshape(*values.shape[:-1], stretches, _STRETCH).sum(dim=-1)
    return of_whole.sum(dim=-1) + rest.sum(dim=-1)


def distances_to_others(vectors: Tensor) -> Tensor:
    """Return :func:`squared_distances` sorted along the last dimension, without the zero of a row to itself.

    Args:
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., n, n - 1]``, ascending.
    """
    distances = squared_distances(vectors)
    others = distances.masked_fill(_diagonal(distances), torch.inf)
    return others.sort(dim=-1).values[..., :-1]


def _diagonal(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)


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


def median_over_last(values: Tensor) -> Tensor:
    """Return the lower median over the last dimension, NaN counted as the largest.

    Args:
        values: ``[..., n]``.

    Returns:
        ``[...]``, one of the values.
    """
    middle = (values.shape[-1] - 1) // 2
    return values.sort(dim=-1).values[..., middle]


def norms(vectors: Tensor) -> Tensor:
    """Return the Euclidean norms ``[...]`` of vectors ``[..., d]``; infinite where a vector is not finite."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return lengths.nan_to_num(nan=torch.inf, posinf=torch.inf)


def mix(weights: Tensor, vectors: Tensor) -> Tensor:
    """Return the weighted sums of rows, in which a zero weight erases a row even if it holds NaN or infinity.

    Args:
        weights: ``[..., k, n]``.
        vectors: ``[..., n, d]``.

    Returns:
        ``[..., k, d]``; NaN in a sum that gives weight to a row that is not finite.

    Example:
        >>> mix(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[1.0], [3.0], [torch.inf]]))
        tensor([[2.]])
    """
    left, right = weights.reshape(-1, *weights.shape[-2:]), vectors.reshape(-1, *vectors.shape[-2:])
    total = left @ right
    looks = vectors.device.type == "cpu"  # a GPU would have to wait for the answer
    if not (looks and total.sum().isfinite()):
        finite = (right * 0).sum(dim=-1) == 0
        spoiled = ((left != 0) & ~finite[:, None]).any(dim=-1, keepdim=True)
        total = (left @ right.nan_to_num(0, 0, 0)).masked_fill_(spoiled, torch.nan)
    return total.view(*weights.shape[:-1], vectors.shape[-1])


def gram_around_median(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inner products of the rows around their coordinate-wise median, and which rows are usable.

    They hold everything about the rows' geometry: distances, variances, the span. Each entry comes from two rows alone,
    in float64, so a huge row spoils no other. A row that is not finite, or whose square overflows, is zero and not
    usable. If no row is usable, all are called so: what is chosen among them is then not finite whatever the choice.

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
    centre = median_over_workers(vectors)
    flat = vectors.reshape(-1, *vectors.shape[-2:])
    origins = centre.reshape(-1, 1, centre.shape[-1])
    products = flat.new_zeros(*flat.shape[:-1], flat.shape[-2], dtype=torch.float64)
    for replicas, columns in blocks(flat):
        products[replicas] += _inner_products(flat[replicas, :, columns] - origins[replicas, :, columns])
    products = products.view(*vectors.shape[:-1], vectors.shape[-2])
    usable = products.diagonal(dim1=-2, dim2=-1).isfinite()
    products = products.where(usable[..., None] & usable[..., None, :], 0.0)
    return products, usable | ~usable.any(dim=-1, keepdim=True)


def _inner_products(rows: Tensor) -> Tensor:
    """Return ``rows @ rows.mT [R, n, n]`` of ``rows [R, n, c]``, in float64, every matrix aligned to 64 bytes."""
    n, c = rows.shape[-2:]
    aligned = rows.new_zeros(len(rows), n + -n % 8, c + -c % 8, dtype=torch.float64)
    aligned[:, :n, :c] = rows
    products: Tensor = (aligned[None] @ aligned[None].mT)[0]
    return products[:, :n, :n]


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
    to_mean = (distances * weights[..., None, :]).sum(dim=-1, keepdim=True)
    twice_variance = (to_mean * weights[..., None]).sum(dim=-2, keepdim=True)
    return (to_mean + to_mean.mT - twice_variance - distances) / 2


def usable_distances(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distances between the usable rows, and which rows are usable.

    A row that is not finite, or whose square overflows, is infinitely far from the majority: it is not usable, and its
    distances are given as zero. If no row is usable, all are called so: what is chosen among them is then not finite
    whatever the choice.

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
    largest: Tensor = torch.linalg.eigvalsh(_padded(matrices))[..., -1]
    return largest


def top_eigenvector(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalue and its eigenvector, of either sign.

    Args:
        matrices: ``[..., n, n]``, positive semi-definite.

    Returns:
        ``[...]`` and ``[..., n]``.
    """
    values, eigenvectors = torch.linalg.eigh(_padded(matrices))
    return values[..., -1], eigenvectors[..., : matrices.shape[-1], -1]


def _padded(matrices: Tensor) -> Tensor:
    """Return the matrices with zero rows and columns, so that each takes a multiple of 64 bytes: n^2 8 with 4 | n.

    LAPACK rounds by alignment.
    """
    missing = -matrices.shape[-1] % 4
    return pad(matrices, (0, missing, 0, missing))
