"""Every rule and pre-aggregation as one would first write it: what ours have to be faster than.

Plain torch on ``[..., n, d]``, with the default parameters of the rules, without regard to NaN, infinity or
cancellation. A function that does not broadcast goes through the leading dimension in a Python loop.
"""

from collections.abc import Callable
from functools import wraps
from itertools import combinations
from math import comb

import torch
from torch import Tensor

Obvious = Callable[[Tensor, int], Tensor]
SUBSETS = 20_000  # no more are enumerated


def one_at_a_time(function: Obvious) -> Obvious:
    """Return ``function``, written for ``[n, d]``, for ``[R, n, d]``."""

    @wraps(function)
    def batched(vectors: Tensor, f: int) -> Tensor:
        return torch.stack([function(replica, f) for replica in vectors])

    return batched


def enumerable(n: int, f: int) -> bool:
    """Return whether all subsets of n - f of n vectors can be enumerated."""
    return comb(n, f) <= SUBSETS


def nearest(distances: Tensor, count: int) -> Tensor:
    """Return the indices of the ``count`` smallest entries of the last dimension."""
    return distances.topk(count, dim=-1, largest=False).indices


def lengths(vectors: Tensor) -> Tensor:
    """Return the norms, ``[..., n, 1]``."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return norms


def mean(vectors: Tensor, f: int) -> Tensor:
    """Return the mean."""
    del f
    return vectors.mean(dim=-2)


def median(vectors: Tensor, f: int) -> Tensor:
    """Return the median; ``torch.median`` gives the lower of the two middle values for even n."""
    del f
    lower = vectors.median(dim=-2).values
    return lower if vectors.shape[-2] % 2 else (lower - (-vectors).median(dim=-2).values) / 2


def trimmed_mean(vectors: Tensor, f: int) -> Tensor:
    """Sort, cut, average."""
    n = vectors.shape[-2]
    return vectors.sort(dim=-2).values[..., f : n - f, :].mean(dim=-2)


def mean_around(centre: Tensor, vectors: Tensor, count: int) -> Tensor:
    """Return the coordinate-wise mean of the ``count`` values nearest to the centre."""
    chosen = (vectors - centre[..., None, :]).abs().topk(count, dim=-2, largest=False).indices
    return vectors.gather(-2, chosen).mean(dim=-2)


def meamed(vectors: Tensor, f: int) -> Tensor:
    """Mean around the median."""
    return mean_around(median(vectors, f), vectors, vectors.shape[-2] - f)


def phocas(vectors: Tensor, f: int) -> Tensor:
    """Mean around the trimmed mean."""
    return mean_around(trimmed_mean(vectors, f), vectors, vectors.shape[-2] - f)


def sign_majority(vectors: Tensor, f: int) -> Tensor:
    """Sign of the sum of signs."""
    del f
    return vectors.sign().sum(dim=-2).sign()


def krum_scores(vectors: Tensor, f: int) -> Tensor:
    """Return the sum of squared distances to the n - f - 2 nearest others."""
    distances = torch.cdist(vectors, vectors).square().sort(dim=-1).values
    return distances[..., 1 : vectors.shape[-2] - f - 1].sum(dim=-1)


@one_at_a_time
def krum(vectors: Tensor, f: int) -> Tensor:
    """Return the vector of lowest score."""
    return vectors[krum_scores(vectors, f).argmin()]


@one_at_a_time
def multi_krum(vectors: Tensor, f: int) -> Tensor:
    """Mean of the n - f vectors of lowest score."""
    return vectors[nearest(krum_scores(vectors, f), len(vectors) - f)].mean(dim=0)


@one_at_a_time
def bulyan(vectors: Tensor, f: int) -> Tensor:
    """Krum again and again, each time without the vectors that it chose before; then the mean around the median."""
    distances = torch.cdist(vectors, vectors).square()
    left = list(range(len(vectors)))
    picked: list[int] = []
    while len(picked) < len(vectors) - 2 * f:
        neighbours = max(len(left) - f - 2, 1)
        scores = distances[left][:, left].sort(dim=-1).values.cumsum(dim=-1)[:, neighbours : neighbours + 2].tolist()
        picked.append(left.pop(scores.index(min(scores))))
    chosen = vectors[picked]
    return mean_around(median(chosen, f), chosen, len(picked) - 2 * f)


def geometric_median(vectors: Tensor, f: int) -> Tensor:
    """Weiszfeld iterations from the mean, on the vectors themselves."""
    del f
    z = vectors.mean(dim=-2, keepdim=True)
    for _ in range(100):
        distances = lengths(vectors - z)
        weights = 1 / distances.clamp_min(1e-12)
        moved = (weights * vectors).sum(dim=-2, keepdim=True) / weights.sum(dim=-2, keepdim=True)
        step, z = lengths(moved - z), moved
        if (step <= 1e-4 * distances.median(dim=-2, keepdim=True).values).all():
            break
    return z.squeeze(-2)


def centered_clipping(vectors: Tensor, f: int) -> Tensor:
    """Mean of the vectors clipped to norm 10, as at the first step."""
    del f
    return (vectors * (10 / lengths(vectors)).clamp_max(1)).mean(dim=-2)


def subsets(n: int, f: int, device: torch.device) -> Tensor:
    """Return all subsets of n - f of n indices."""
    return torch.tensor(list(combinations(range(n), n - f)), device=device)


@one_at_a_time
def mda(vectors: Tensor, f: int) -> Tensor:
    """Enumerate all subsets; average the one of least diameter."""
    distances = torch.cdist(vectors, vectors)
    candidates = subsets(len(vectors), f, vectors.device)
    diameters = distances[candidates[:, :, None], candidates[:, None, :]].amax(dim=(-2, -1))
    return vectors[candidates[diameters.argmin()]].mean(dim=0)


@one_at_a_time
def smea(vectors: Tensor, f: int) -> Tensor:
    """Enumerate all subsets, with the eigenvalues of their covariances from the Gram matrix."""
    centred = vectors - vectors.mean(dim=0)
    gram = centred @ centred.T
    candidates = subsets(len(vectors), f, vectors.device)
    grams = gram[candidates[:, :, None], candidates[:, None, :]]
    grams = grams - grams.mean(dim=-1, keepdim=True)
    grams = grams - grams.mean(dim=-2, keepdim=True)
    return vectors[candidates[torch.linalg.eigvalsh(grams)[:, -1].argmin()]].mean(dim=0)


@one_at_a_time
def caf(vectors: Tensor, f: int) -> Tensor:
    """Filter along the top eigenvector of the covariance, which the Gram matrix gives."""
    c = vectors.new_ones(len(vectors))
    least, best = torch.inf, vectors.mean(dim=0)
    while c.sum() > len(vectors) - 2 * f:
        mu = (c @ vectors) / c.sum()
        scaled = c.sqrt()[:, None] * (vectors - mu)
        values, eigenvectors = torch.linalg.eigh(scaled @ scaled.T)
        if values[-1] / c.sum() < least:
            least, best = values[-1] / c.sum(), mu
        projections = eigenvectors[:, -1].square() * values[-1] / c.clamp_min(1e-12)
        c = c * (1 - projections / projections[c > 0].max())
    return best


def monna(vectors: Tensor, f: int) -> Tensor:
    """Mean of the n - f vectors nearest the first."""
    distances = lengths(vectors - vectors[..., :1, :])[..., 0]
    return vectors.take_along_dim(nearest(distances, vectors.shape[-2] - f)[..., None], -2).mean(dim=-2)


def cge(vectors: Tensor, f: int) -> Tensor:
    """Mean of the n - f shortest vectors."""
    return vectors.take_along_dim(nearest(lengths(vectors)[..., 0], vectors.shape[-2] - f)[..., None], -2).mean(dim=-2)


@one_at_a_time
def dnc(vectors: Tensor, f: int) -> Tensor:
    """Drop the f vectors that stand out along the top singular vector of 10,000 coordinates."""
    sampled = vectors[:, torch.randperm(vectors.shape[-1], device=vectors.device)[:10_000]]
    centred = sampled - sampled.mean(dim=0)
    top = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    return vectors[nearest((centred @ top).square(), len(vectors) - f)].mean(dim=0)


def nnm(vectors: Tensor, f: int) -> Tensor:
    """Mean of the n - f nearest of each, as a matrix product."""
    distances = torch.cdist(vectors, vectors)
    kept = vectors.shape[-2] - f
    return torch.zeros_like(distances).scatter(-1, nearest(distances, kept), 1 / kept) @ vectors


@one_at_a_time
def bucketing(vectors: Tensor, f: int) -> Tensor:
    """Means of random pairs."""
    del f
    order = torch.randperm(len(vectors), device=vectors.device)
    return torch.stack([vectors[order[i : i + 2]].mean(dim=0) for i in range(0, len(order), 2)])


def clipping(vectors: Tensor, f: int) -> Tensor:
    """Clip to norm 1."""
    del f
    return vectors * (1 / lengths(vectors)).clamp_max(1)


def arc(vectors: Tensor, f: int) -> Tensor:
    """Clip the longest to the next longest."""
    n = vectors.shape[-2]
    norms = lengths(vectors)
    longest = norms.sort(dim=-2).values[..., n - 2 * f * (n - f) // n - 1, None, :]
    return vectors * (longest / norms).clamp_max(1)


def deviation(vectors: Tensor, f: int) -> Tensor:
    """Return the standard deviation."""
    del f
    return vectors.std(dim=-2)


def _by_name(*functions: Obvious) -> dict[str, Obvious]:
    return {function.__name__: function for function in functions}


RULES = _by_name(
    *(mean, median, trimmed_mean, meamed, phocas, sign_majority, krum, multi_krum, bulyan, geometric_median),
    *(centered_clipping, mda, smea, caf, monna, cge, dnc),
)
MAPS = _by_name(nnm, bucketing, clipping, arc)
ENUMERATING = frozenset({"mda", "smea"})
