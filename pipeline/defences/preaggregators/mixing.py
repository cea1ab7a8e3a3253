"""Means of some of the vectors: of the nearest ones, or of random buckets."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.rng import Stream
from pipeline.core.vectors import mix, squared_distances
from pipeline.defences.preaggregators import PREAGGREGATORS, Mixed, PreAggregator


@PREAGGREGATORS.register
class NearestNeighbourMixing(PreAggregator):
    """Nearest-neighbour mixing (NNM).

    y_i = mean of the n - f vectors nearest to x_i, x_i included; ties to the lowest index

    Needs n > 2f; (n', f') = (n, f); a rule of coefficient kappa becomes one of 8 f / (n - f) (kappa + 1).
    An x_i that is not finite is its own neighbour, so y_i is NaN: at most f rows, which the rule ignores.

    Reference: Allouah et al., AISTATS 2023, arXiv:2302.01772.

    Example:
        >>> NearestNeighbourMixing().apply(torch.tensor([[0.0], [1.0], [2.0], [1e9]]), f=1).vectors.flatten()[:3]
        tensor([1., 1., 1.])
    """

    name: Literal["nnm"] = "nnm"
    formula: ClassVar[str] = "y_i = mean of the n - f vectors nearest to x_i, itself included"
    reference: ClassVar[str] = "Allouah et al., AISTATS 2023, arXiv:2302.01772"
    condition: ClassVar[str] = "n > 2f"

    def transforms(self, n: int, f: int) -> tuple[int, int]:
        """Return (n, f)."""
        return n, f

    def tolerates(self, n: int, f: int) -> bool:
        """Return whether n > 2f."""
        return 0 <= 2 * f < n

    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """Return 8 f / (n - f) (kappa + 1)."""
        return 8 * f / (n - f) * (kappa + 1)

    def _apply(self, vectors: Tensor, f: int, stream: Stream | None) -> Mixed:
        """Return the mixed ``vectors [..., n, d]``."""
        del stream
        n = vectors.shape[-2]
        distances = squared_distances(vectors) - torch.eye(n, dtype=vectors.dtype, device=vectors.device)
        nearest = distances.argsort(dim=-1, stable=True)[..., : n - f]
        mixing = torch.zeros_like(distances).scatter(-1, nearest, 1 / (n - f))
        return Mixed(mix(mixing, vectors), mixing)


@PREAGGREGATORS.register
class Bucketing(PreAggregator):
    """Bucketing: means of random groups of s vectors.

    The n vectors in a random order, cut into ceil(n / s) buckets of s (the last may be smaller); y_k = mean of bucket k

    Defined for every n > f; (n', f') = (ceil(n / s), f), as every Byzantine vector spoils at most one bucket. s = 1
    only reorders. Its guarantee holds in expectation over the random order, so there is no kappa for the worst case.
    A bucket with a vector that is not finite is NaN: at most f of them, which the rule ignores.

    Differs from: the first version of the paper repeats each vector s times before it shuffles (resampling); elsewhere
    the order comes from a global generator, here from each replica's own.

    Reference: Karimireddy et al., ICLR 2022, arXiv:2006.09365, algorithm 1 (checked against the authors' code).

    Example:
        >>> Bucketing(s=2).transforms(25, 5)
        (13, 5)
        >>> vectors = torch.tensor([[[1.0], [2.0], [6.0]]])
        >>> Bucketing(s=3).apply(vectors, f=1, stream=Stream.of([0], "defence")).vectors
        tensor([[[3.]]])
    """

    name: Literal["bucketing"] = "bucketing"
    s: int = Field(2, ge=1, description="vectors in a bucket")
    formula: ClassVar[str] = "means of random buckets of s vectors"
    reference: ClassVar[str] = "Karimireddy et al., ICLR 2022, arXiv:2006.09365"
    condition: ClassVar[str] = "n > f"
    exceptions: ClassVar[dict[str, str]] = {
        "permutation": "the random order is applied to places, so vectors in other places fall into other buckets"
    }
    random: ClassVar[bool] = True

    def transforms(self, n: int, f: int) -> tuple[int, int]:
        """Return (ceil(n / s), f)."""
        return -(-n // self.s), f

    def tolerates(self, n: int, f: int) -> bool:
        """Return whether n > f."""
        return 0 <= f < n

    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """Return None: the guarantee holds in expectation only."""
        del n, f, kappa
        return None

    def _apply(self, vectors: Tensor, f: int, stream: Stream | None) -> Mixed:
        """Return the bucket means ``[..., R, n', d]`` of ``vectors [..., R, n, d]``, one order for each replica."""
        del f
        assert stream is not None  # the contract of ``random``
        n = vectors.shape[-2]
        bucket = torch.arange(n, device=vectors.device) // self.s
        member = (bucket == torch.arange(self.transforms(n, 0)[0], device=vectors.device)[:, None]).to(vectors.dtype)
        weights = (member / member.sum(dim=-1, keepdim=True)).expand(len(stream.keys), -1, -1)
        order = stream.permutation(n)[:, None].expand_as(weights)
        mixing = torch.zeros_like(weights).scatter(-1, order, weights)
        mixing = mixing.expand(*vectors.shape[:-2], *mixing.shape[1:]).clone()
        return Mixed(mix(mixing, vectors), mixing)
