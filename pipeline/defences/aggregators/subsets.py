"""Rules that average the best of all subsets of n - f vectors: MDA, SMEA."""

from functools import cache
from itertools import combinations
from math import comb
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.rng import Stream
from pipeline.core.vectors import (
    products_around_mean,
    squared_distances,
    sum_over_columns,
    top_eigenvalue,
    usable_distances,
)
from pipeline.defences.aggregators import AGGREGATORS, Aggregated
from pipeline.defences.aggregators.base import HalfTolerant, mean_of, ratio
from pipeline.defences.diameter import subset_of_least_diameter


@AGGREGATORS.register
class MDA(HalfTolerant):
    """Minimum diameter averaging.

    F(x) = mean of x_i over the S of n - f vectors with the least max_{i, j in S} |x_i - x_j|

    Several S can have the least diameter, as it is the distance of one pair. Rank the vectors by the sum of squared
    distances to their n - f - 1 nearest others, equal ones by index: the lexicographically first S is taken. So the
    order of the workers does not matter.

    The search is exact (:mod:`pipeline.defences.diameter`) and combinatorial: this is the one rule that copies its
    distances to the host, waits, and goes through the replicas one by one.

    Needs n > 2f; kappa = 8 f^2 / (n - f). Proof: for the honest set H, diameter D, mean square deviation V, the k <= f
    members of S and of H that are not shared pair up at distances of at most 2D (through a shared vector), so
    |mean_S - mean_H| <= 2 f D / (n - f); and D^2 <= 2 (n - f) V.

    Reference: El Mhamdi et al. 2019, arXiv:1905.03853; the definition was not checked against the paper's text,
    the proof is ours.

    Example:
        >>> MDA().aggregate(torch.tensor([[0.0], [5.0], [6.0], [7.0]]), f=1).vector
        tensor([6.])
    """

    name: Literal["mda"] = "mda"
    formula: ClassVar[str] = "mean of the n - f vectors of least diameter"
    reference: ClassVar[str] = "El Mhamdi et al. 2019, arXiv:1905.03853"

    def kappa(self, n: int, f: int) -> float | None:
        """Return 8 f^2 / (n - f)."""
        return 8 * f**2 / (n - f)

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the mean of the subset of least diameter of ``vectors [..., n, d]``."""
        del stream
        keep = vectors.shape[-2] - f
        distances = squared_distances(vectors)
        ranks = distances.sort(dim=-1).values[..., :keep].double()
        ranks = sum_over_columns(ranks).argsort(dim=-1, stable=True)
        ranked = distances.take_along_dim(ranks[..., None, :], -1).take_along_dim(ranks[..., None], -2)
        replicas = ranked.view(-1, *ranked.shape[-2:]).cpu().numpy()
        positions = [subset_of_least_diameter(replica, keep) for replica in replicas]
        chosen = torch.tensor(positions, device=vectors.device).view(*vectors.shape[:-2], keep)
        members = torch.zeros_like(ranks, dtype=torch.bool).scatter(-1, ranks.gather(-1, chosen), True)
        return mean_of(members, vectors, state)


@AGGREGATORS.register
class SMEA(HalfTolerant):
    """Smallest maximum eigenvalue averaging.

    F(x) = mean of x_i over the S of n - f vectors whose covariance (1/|S|) sum_{i in S} (x_i - mean_S) (x_i - mean_S)^T
    has the least top eigenvalue; of equal ones the lexicographically first S

    All C(n, f) subsets are looked at, each by the exact eigenvalues of its centred (n - f) x (n - f) Gram matrix; a
    defence with more than ``max_subsets`` of them is refused, because a training run would not end (at the default
    limit an aggregate takes some tenths of a second on one core).

    Needs n > 2f and C(n, f) <= max_subsets; kappa = 4r with r = f / (n - 2f). Proof: S and the honest set H share
    n - 2f vectors or more, and the mean of such a part of a set of n - f lies within sqrt(r lambda) of its mean, lambda
    the top eigenvalue of the set. That of S is at most that of H, which is at most the mean square deviation.

    Differs from: one power iteration from a random start, which gives another result at each call.

    Reference: Allouah et al., ICML 2023, arXiv:2302.04787. The paper's own kappa was not checked against its text; from
    memory it is 4 f / (n - f) (1 + r)^2 = 4r (1 + r), and the one proven here is not larger.

    Example:
        >>> SMEA().aggregate(torch.tensor([[0.0], [5.0], [6.0], [7.0]]), f=1).vector
        tensor([6.])
    """

    name: Literal["smea"] = "smea"
    max_subsets: int = Field(20_000, ge=1, le=200_000, description="most subsets C(n, f) that are looked at")
    formula: ClassVar[str] = "mean of the n - f vectors whose covariance has the least top eigenvalue"
    reference: ClassVar[str] = "Allouah et al., ICML 2023, arXiv:2302.04787"
    condition: ClassVar[str] = "n > 2f and C(n, f) <= max_subsets"

    def tolerates(self, n: int, f: int) -> bool:
        """Return whether n > 2f and C(n, f) <= max_subsets."""
        return super().tolerates(n, f) and comb(n, f) <= self.max_subsets

    def kappa(self, n: int, f: int) -> float | None:
        """Return 4r."""
        return 4 * ratio(n, f)

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the mean of the subset of least top eigenvalue of ``vectors [..., n, d]``."""
        del stream
        n = vectors.shape[-2]
        subsets = _subsets(n, n - f).to(vectors.device)
        distances, usable = usable_distances(vectors)
        best = subsets[_top_eigenvalues(distances, usable, subsets).argmin(dim=-1)]
        return mean_of(torch.zeros_like(usable).scatter(-1, best, True), vectors, state)


@cache
def _subsets(n: int, size: int) -> Tensor:
    """Return all subsets of ``size`` of n indices in lexicographic order, ``[C(n, size), size]``."""
    return torch.tensor(list(combinations(range(n), size)))


def _top_eigenvalues(distances: Tensor, usable: Tensor, subsets: Tensor) -> Tensor:
    """Return (n - f) times the top eigenvalue of every subset's covariance, infinite with an unusable member.

    Args:
        distances: ``[..., n, n]``, squared.
        usable: ``[..., n]``.
        subsets: ``[C, n - f]``.

    Returns:
        ``[..., C]``.
    """
    size = max(1, _ELEMENTS // (subsets.shape[-1] ** 2 * usable[..., 0].numel()))
    starts = range(0, len(subsets), size)
    found = [top_eigenvalue(_of_subsets(distances, subsets[start : start + size])) for start in starts]
    return torch.cat(found, dim=-1).masked_fill(~usable[..., subsets].all(dim=-1), torch.inf)


_ELEMENTS = 2**18  # of the matrices that are held at a time


def _of_subsets(distances: Tensor, subsets: Tensor) -> Tensor:
    """Return the Gram matrices ``[..., C, m, m]`` of ``subsets [C, m]``, centred on the mean of each subset."""
    part = distances[..., subsets[:, :, None], subsets[:, None, :]]
    return products_around_mean(part, torch.full_like(part[..., 0], 1 / subsets.shape[-1]))
