"""Rules that look for the direction in which the vectors vary most: CAF, DnC."""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.kernels.elementary import root
from pipeline.core.rng import Stream
from pipeline.core.vectors import (
    lowest,
    products_around_mean,
    sum_over_columns,
    top_eigenvector,
    usable_distances,
)
from pipeline.defences.aggregators import AGGREGATORS, Aggregated
from pipeline.defences.aggregators.base import HalfTolerant, mean_of, weighted_mean


def principal(distances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest variance of weighted vectors, and the squared projections on its direction.

    The n x n Gram matrix of sqrt(w_i) (x_i - mu) has the eigenvalues of the d x d covariance
    sum_i w_i (x_i - mu) (x_i - mu)^T; its top eigenvector is proportional to sqrt(w_i) <x_i - mu, v>.

    Args:
        distances: ``[..., n, n]``, squared.
        weights: ``[..., n]``, at least 0, of sum 1.

    Returns:
        ``[...]``, the largest eigenvalue of the covariance, and ``[..., n]``, ``<x_i - mu, v>^2``, 0 where w_i = 0.
    """
    roots = root(weights)
    variance, eigenvector = top_eigenvector(
        roots[..., None] * products_around_mean(distances, weights) * roots[..., None, :]
    )
    projections = variance[..., None] * eigenvector.square() / weights.clamp_min(torch.finfo(weights.dtype).tiny)
    return variance, projections.where(weights > 0, 0.0)


@AGGREGATORS.register
class CAF(HalfTolerant):
    """Covariance-bound agnostic filter: outliers in the direction of largest variance lose weight.

    c_i = 1; while sum_i c_i > n - 2f:
        mu_c = sum_i c_i x_i / sum_i c_i
        v, lambda = top eigenvector and eigenvalue of sum_i c_i (x_i - mu_c) (x_i - mu_c)^T / sum_i c_i
        t_i = <x_i - mu_c, v>^2
        c_i <- c_i (1 - t_i / max_{j: c_j > 0} t_j)
    F(x) = the mu_c of the smallest lambda

    Each round takes a weight to zero, so there are at most 2f rounds; f = 0 gives the mean. The eigenvector is that
    of an n x n Gram matrix. A vector that is not finite starts with the weight 0.

    Needs n > 2f. The paper proves a bound in terms of the largest eigenvalue of the honest covariance; its constant
    could not be checked, so no kappa is claimed.

    Differs from: a maximum over all j, with which a vector of weight 0 can keep every other from reaching 0, so that
    more than the paper's 2f rounds are needed; one random power iteration, which gives another result at each call.

    Reference: Allouah, Guerraoui, Stephan, ICML 2025, arXiv:2505.01874; checked against public summaries,
    not against the paper's text.

    Example:
        >>> CAF().aggregate(torch.tensor([[1.0], [1.0], [1.0], [1.0], [9.0]]), f=1).vector
        tensor([1.])
    """

    name: Literal["caf"] = "caf"
    formula: ClassVar[str] = "the weighted mean of least top variance while outliers along that direction lose weight"
    reference: ClassVar[str] = "Allouah, Guerraoui, Stephan, ICML 2025, arXiv:2505.01874"

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the filtered mean of ``vectors [..., n, d]``."""
        del stream
        distances, usable = usable_distances(vectors)
        return weighted_mean(self._weights(distances, usable.double(), f), vectors, state)

    def _weights(self, distances: Tensor, c: Tensor, f: int) -> Tensor:
        """Return the weights ``[..., n]``, started at ``c [..., n]``, given the squared distances ``[..., n, n]``."""
        n = c.shape[-1]
        best = c / sum_over_columns(c)[..., None]
        least = torch.full_like(c[..., :1], torch.inf)
        for _ in range(2 * f):
            total = sum_over_columns(c)[..., None]
            weights = c / total.clamp_min(torch.finfo(c.dtype).tiny)
            variance, t = principal(distances, weights)
            better = (total > n - 2 * f) & (variance[..., None] < least)
            least = variance[..., None].where(better, least)
            best = weights.where(better, best)
            c = c * (1 - t / t.amax(dim=-1, keepdim=True).clamp_min(torch.finfo(c.dtype).tiny))
        return best


@AGGREGATORS.register
class DnC(HalfTolerant):
    """Divide and conquer: outliers along the top singular vector of sampled coordinates are dropped.

    niters times:
        sample sub_dim coordinates without replacement, for all vectors the same
        centre the sampled vectors on their mean; v = their top right singular vector
        s_i = <x_i - mean, v>^2
        keep all but the floor(c f) vectors of highest s_i
    F(x) = mean of the vectors that were kept every time

    If there is none, those that were kept the last time are taken (the paper does not say). Vectors that are not finite
    are dropped as well and enter no mean. With sub_dim >= d all coordinates are taken.

    Needs n > 2f; no kappa is known to us. Each round looks at a single direction: Byzantine vectors of unequal size
    in orthogonal directions are not all dropped when niters is small.

    Reference: Shejwalkar, Houmansadr, NDSS 2021; defaults as in public codebases, not checked against the
    paper's text.

    Example:
        >>> DnC().aggregate(torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [50.0, 50.0]]), f=1).vector
        tensor([0.6667, 0.6667])
    """

    name: Literal["dnc"] = "dnc"
    niters: int = Field(1, ge=1, le=1000, description="how many times coordinates are sampled")
    sub_dim: int = Field(10_000, ge=1, description="how many coordinates are sampled")
    c: float = Field(1.0, gt=0, le=2, description="vectors dropped each time, as a multiple of f")
    formula: ClassVar[str] = "mean without the c f vectors that stand out along the top singular vector"
    reference: ClassVar[str] = "Shejwalkar, Houmansadr, NDSS 2021"
    random: ClassVar[bool] = True

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the mean of the vectors that ``niters`` filters keep among ``vectors [..., R, n, d]``."""
        every_time = torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device)
        for round_ in range(self.niters):
            kept = self._keep(self._sampled(vectors, stream, round_), f)
            every_time = every_time & kept
        return mean_of(every_time.where(every_time.any(dim=-1, keepdim=True), kept), vectors, state)

    def sample(self, stream: Stream, round_: int, d: int) -> Tensor:
        """Return the coordinates ``[R, sub_dim]`` that a round looks at, of 0 to d - 1."""
        return stream.fork(round_).uniform(d).topk(min(self.sub_dim, d), largest=False).indices

    def _sampled(self, vectors: Tensor, stream: Stream | None, round_: int) -> Tensor:
        """Return the sampled coordinates ``[..., R, n, min(sub_dim, d)]``."""
        d = vectors.shape[-1]
        if self.sub_dim >= d:
            return vectors
        if stream is None:
            raise ValueError("dnc samples coordinates and needs a stream of random numbers")
        return vectors.gather(-1, self.sample(stream, round_, d)[:, None, :].expand(*vectors.shape[:-1], -1))

    def _keep(self, vectors: Tensor, f: int) -> Tensor:
        """Return which of ``vectors [..., n, s]`` are kept, ``[..., n]``."""
        distances, usable = usable_distances(vectors)
        weights = usable / usable.sum(dim=-1, keepdim=True, dtype=distances.dtype)
        _, scores = principal(distances, weights)
        scores = scores.masked_fill(~usable, torch.inf)
        return lowest(scores, vectors.shape[-2] - math.floor(self.c * f)) & usable
