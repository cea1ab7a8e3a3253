"""Rules that approach their result step by step: the geometric median, centered clipping."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.kernels.elementary import root
from pipeline.core.kernels.weiszfeld import median_weights
from pipeline.core.rng import Stream
from pipeline.core.space import Range, Space
from pipeline.core.vectors import gram_around_median, mix, squared_distances_to, sum_over_columns
from pipeline.defences.aggregators import AGGREGATORS, Aggregated
from pipeline.defences.aggregators.base import HalfTolerant, ratio, weighted_mean


@AGGREGATORS.register
class GeometricMedian(HalfTolerant):
    """Geometric median: Newton's method, and Weiszfeld's iteration where that is better.

    F(x) = argmin_z sum_i |x_i - z|, until max(|R| - c, 0) <= n tolerance

    with c the number of vectors at z and R = sum_i (x_i - z) / |x_i - z| the pull of the others: z is the minimiser if
    and only if |R| <= c (Vardi and Zhang 2000). n counts the vectors that are finite.

    Starts at the coordinate-wise median, which is the result if it is a minimiser: on a line, where an even number of
    vectors has a segment of minimisers, it is the middle of the segment. Otherwise starts at the vector of least
    sum of distances, if that sum is below the median's; whenever a vector is the minimiser, this is the one. Each round
    takes the Newton step, or its first half out of five that makes the sum of distances smaller than the step
    z <- z + (1 - c / max(|R|, c)) (T - z) of Vardi and Zhang does; else the latter. T = sum_i w_i x_i / sum_i w_i,
    w_i = 1 / |x_i - z|, is the Weiszfeld mean. The result is this step from the last z, so it is a weighted mean of the
    vectors with no negative weight. Everything is relative to the input's scale. Each replica stops on its own, so its
    result does not depend on its batch.

    All is computed from the n x n inner products around the coordinate-wise median, in float64. They tell two vectors
    apart that are more than about 1e-6 of their distance from that median apart; within a cluster that is tighter, the
    minimiser is found to the cluster's size only, and the residual may stay above the tolerance.

    Needs n > 2f; kappa = 4 (1 + r)^2 with r = f / (n - 2f), for the exact minimiser.

    Differs from: a start at zero with an absolute nu = 0.1 returns exactly the mean once gradients are small.

    Reference: Pillutla et al. 2022, arXiv:1912.13445; Vardi, Zhang, PNAS 97 (2000) 1423; kappa: Allouah et al. 2023,
    arXiv:2302.01772.

    Example:
        >>> GeometricMedian().aggregate(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1e9, 1e9]]), f=1).vector
        tensor([0.5000, 0.5000])
    """

    name: Literal["geometric_median"] = "geometric_median"
    iterations: int = Field(30, ge=1, le=10_000, description="most rounds; a step that ends with them is unconverged")
    tolerance: float = Field(1e-8, gt=0, lt=1, description="residual max(|R| - c, 0) / n at which a replica stops")
    formula: ClassVar[str] = "argmin_z sum_i |x_i - z|"
    reference: ClassVar[str] = "Pillutla et al. 2022, arXiv:1912.13445"
    stops_within: ClassVar[float] = 1e-7

    def kappa(self, n: int, f: int) -> float | None:
        """Return 4 (1 + r)^2."""
        return 4 * (1 + ratio(n, f)) ** 2

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the geometric median of ``vectors [..., n, d]``; f is not used."""
        del f, stream
        products, usable = gram_around_median(vectors)
        weights, unconverged = median_weights(products, usable, self.iterations, self.tolerance)
        return weighted_mean(weights, vectors, state, unconverged)


@AGGREGATORS.register
class CenteredClipping(HalfTolerant):
    """Centered clipping around the previous aggregate.

    v <- v + (1/n) sum_i (x_i - v) min(1, tau / |x_i - v|), ``iterations`` times; F(x) = v

    v starts at the previous aggregate, which is the state, zero before the first step. A vector that is not finite has
    no direction and adds nothing.

    Needs n > 2f. The convergence proof asks for f/n below about 0.1 and a tau that follows the honest variance; with a
    fixed tau there is no kappa: every Byzantine vector moves v by up to tau / n a round, and equal vectors farther than
    ``iterations`` tau from the start are not reached.

    Differs from: codebases that start at zero each time. tau is for the damped momentum m <- beta m + (1 - beta) g;
    with the undamped m <- beta m + g the vectors, and with them tau, are larger by 1 / (1 - beta).

    Reference: Karimireddy, He, Jaggi, ICML 2021, arXiv:2012.10333; not checked against the paper's text.

    Example:
        >>> CenteredClipping(tau=1.0).aggregate(torch.tensor([[0.5], [1.0], [1e9]]), f=1).vector
        tensor([0.8333])
    """

    name: Literal["centered_clipping"] = "centered_clipping"
    tau: float = Field(10.0, gt=0, description="clipping radius")
    iterations: int = Field(1, ge=1, le=10_000, description="L, clipping rounds at each step")
    space: ClassVar[Space] = {"tau": Range(0.1, 100.0, log=True)}
    formula: ClassVar[str] = "v <- v + (1/n) sum_i (x_i - v) min(1, tau / |x_i - v|), v from the previous aggregate"
    reference: ClassVar[str] = "Karimireddy, He, Jaggi, ICML 2021, arXiv:2012.10333"
    exceptions: ClassVar[dict[str, str]] = {
        "translation": "the start is zero before the first step, wherever the vectors are",
        "scale": "tau is an absolute length",
        "divergence": "a vector that is not finite adds nothing",
    }

    def init_state(self, like: Tensor) -> Tensor:
        """Return zero, shaped as ``like``."""
        return torch.zeros_like(like)

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the clipped aggregate of ``vectors [..., n, d]``; f is not used."""
        del f, stream
        v: Tensor = self.init_state(vectors[..., 0, :]) if state is None else state
        for _ in range(self.iterations):
            clipping = (self.tau / root(squared_distances_to(v, vectors))).clamp_max(1.0) / vectors.shape[-2]
            pulled = mix(clipping.to(vectors.dtype)[..., None, :], vectors)[..., 0, :]
            v = pulled + (1 - sum_over_columns(clipping)[..., None]).to(vectors.dtype) * v
        return Aggregated(v, v.clone())
