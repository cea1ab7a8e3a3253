"""Rules that average the vectors nearest to a point that is not computed from all of them: MoNNA, CGE."""

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.core.rng import Stream
from pipeline.core.vectors import lowest, norms, squared_distances_to
from pipeline.defences.aggregators import AGGREGATORS, Aggregated
from pipeline.defences.aggregators.base import HalfTolerant, mean_of


@AGGREGATORS.register
class MoNNA(HalfTolerant):
    """Mean of the vectors nearest to one that is trusted.

    F(x) = mean of the n - f vectors nearest to x_p, itself included, p the pivot; ties go to the lowest index

    In the paper every worker of a network without a server is its own pivot; a server has to be told whom to trust.
    Worker 0, the default, is honest in this simulator (the Byzantine workers come last), so the rule knows something
    that the others do not. Behind bucketing, which shuffles, the pivot is no longer a worker.

    Needs n > 2f and a pivot below n that is honest. It has no kappa in the sense of the other rules: theirs holds for
    every subset of n - f vectors, here one could hold only for the subsets that contain the pivot.

    Reference: Farhadkhani et al., ICML 2023, arXiv:2209.10931; not checked against the paper's text.

    Example:
        >>> import torch
        >>> MoNNA().aggregate(torch.tensor([[1.0], [2.0], [4.0], [-7.0]]), f=1).vector
        tensor([2.3333])
    """

    name: Literal["monna"] = "monna"
    pivot: int = Field(0, ge=0, description="index of a worker known to be honest; worker 0 is")
    formula: ClassVar[str] = "mean of the n - f vectors nearest a trusted one"
    reference: ClassVar[str] = "Farhadkhani et al., ICML 2023, arXiv:2209.10931"
    condition: ClassVar[str] = "n > 2f and pivot < n"
    exceptions: ClassVar[dict[str, str]] = {"permutation": "the pivot is a worker by its index"}

    def tolerates(self, n: int, f: int) -> bool:
        """Return whether n > 2f and pivot < n."""
        return super().tolerates(n, f) and self.pivot < n

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the mean of the ``vectors [..., n, d]`` around the pivot."""
        del stream
        distances = squared_distances_to(vectors[..., self.pivot, :], vectors)
        distances[..., self.pivot] = -1  # before any equal vector
        return mean_of(lowest(distances, vectors.shape[-2] - f), vectors, state)


@AGGREGATORS.register
class CGE(HalfTolerant):
    """Comparative gradient elimination: the f largest vectors are dropped.

    F(x) = mean of the n - f vectors of smallest norm; ties go to the lowest index

    Needs n > 2f. It has no kappa: f zero vectors among equal honest ones move the mean although the honest variance is
    zero.

    Differs from: the paper sums the kept vectors; the mean differs by the constant n - f.

    Reference: Gupta, Liu, Vaidya 2020, arXiv:2008.04699; not checked against the paper's text.

    Example:
        >>> import torch
        >>> CGE().aggregate(torch.tensor([[1.0], [-2.0], [4.0], [1e20]]), f=1).vector
        tensor([1.])
    """

    name: Literal["cge"] = "cge"
    formula: ClassVar[str] = "mean of the n - f vectors of smallest norm"
    reference: ClassVar[str] = "Gupta, Liu, Vaidya 2020, arXiv:2008.04699"
    exceptions: ClassVar[dict[str, str]] = {"translation": "a norm is the distance to zero, wherever the vectors are"}

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the mean of the shortest of ``vectors [..., n, d]``."""
        del stream
        return mean_of(lowest(norms(vectors), vectors.shape[-2] - f), vectors, state)
