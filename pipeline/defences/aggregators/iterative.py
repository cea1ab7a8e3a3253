"""Rules that approach their result step by step: the geometric median, centered clipping."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core import kernels
from pipeline.core.rng import Stream
from pipeline.core.vectors import (
    gram_around_median,
    median_over_last,
    mix,
    root,
    row_products,
    squared_distances_to,
    sum_over_columns,
)
from pipeline.core.weiszfeld import median_weights
from pipeline.defences.aggregators import AGGREGATORS, Aggregated
from pipeline.defences.aggregators.base import HalfTolerant, ratio, weighted_mean


@AGGREGATORS.register
class GeometricMedian(HalfTolerant):
    """Geometric median by Weiszfeld iterations.

    F(x) = argmin_z sum_i |x_i - z|
    z <- z + (1 - c / max(|R|, c)) (T - z), started at the coordinate-wise median

    with w_i = 1 / |x_i - z| over the vectors farther than nu from z, T = sum_i w_i x_i / sum_i w_i their Weiszfeld
    mean, R = sum_i w_i (x_i - z) their pull, and c the number of vectors within nu of z (Vardi and Zhang 2000; the
    plain iteration, c = 0, stays at any vector that it meets, the minimiser or not).

    Stops when z moves by less than ``tolerance`` times the median distance of the inputs to the start, or after
    ``iterations`` rounds; nu is 1e-6 of the same distance. Both therefore scale with the input. Each replica stops on
    its own, so its result does not depend on its batch. z is a weighted mean of the vectors, so the iterations run on
    their n x n inner products around the start.

    Needs n > 2f; kappa = 4 (1 + r)^2 with r = f / (n - 2f), for the exact minimiser.

    Differs from: a start at zero with an absolute nu = 0.1 returns exactly the mean once gradients are small.

    Reference: Pillutla et al. 2022, arXiv:1912.13445; Vardi, Zhang, PNAS 97 (2000) 1423; kappa: Allouah et al. 2023,
    arXiv:2302.01772.

    Example:
        >>> GeometricMedian().aggregate(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1e9, 1e9]]), f=1).vector
        tensor([0.5000, 0.5000])
    """

    name: Literal["geometric_median"] = "geometric_median"
    iterations: int = Field(100, ge=1, description="most Weiszfeld rounds")
    tolerance: float = Field(1e-4, gt=0, lt=1, description="relative movement at which a replica stops")
    formula: ClassVar[str] = "argmin_z sum_i |x_i - z|"
    reference: ClassVar[str] = "Pillutla et al. 2022, arXiv:1912.13445"
    stops_within: ClassVar[float] = 1e-2

    def kappa(self, n: int, f: int) -> float | None:
        """Return 4 (1 + r)^2."""
        return 4 * (1 + ratio(n, f)) ** 2

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the geometric median of ``vectors [..., n, d]``; f is not used."""
        del f, stream
        products, usable = gram_around_median(vectors)
        return weighted_mean(self._weights(products, usable), vectors, state)

    def _weights(self, products: Tensor, usable: Tensor) -> Tensor:
        """Return the weights ``[..., n]`` of the median, started at the origin of the ``products [..., n, n]``."""
        if kernels.apply_to(products):
            return median_weights(products, usable, self.iterations, self.tolerance)
        squares = products.diagonal(dim1=-2, dim2=-1).masked_fill(~usable, torch.inf)
        scale = median_over_last(_root(squares))[..., None]
        nu, close = (1e-6 * scale).clamp_min(torch.finfo(products.dtype).tiny), self.tolerance * scale
        weights = torch.zeros_like(squares)
        moving = torch.ones_like(scale, dtype=torch.bool)
        for _ in range(self.iterations):
            next_weights, moved = _weiszfeld(products, squares, weights, nu)
            weights = torch.where(moving, next_weights, weights)
            moving = moving & (moved > close)
        return weights


def _weiszfeld(products: Tensor, squares: Tensor, weights: Tensor, nu: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights ``[..., n]`` of the next z, and how far ``[..., 1]`` it is from z = sum_i w_i x_i.

    A point of infinite ``squares [..., n]``, its squared norm, does not count.
    """
    with_z = _products_with(products, weights)
    distances = _root(squares - 2 * with_z + _product(with_z, weights))
    at_z = distances <= nu
    inverse = distances.reciprocal().masked_fill(at_z, 0.0)
    total = sum_over_columns(inverse)[..., None].clamp_min(torch.finfo(inverse.dtype).tiny)
    mean = inverse / total
    step = mean - weights
    length = _root(_product(_products_with(products, step), step))
    return _held(mean, length, total, at_z)


def _held(mean: Tensor, length: Tensor, total: Tensor, at_z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights and the movement when the c points ``at_z [..., n]`` hold z with the share ``stay``.

    Where the others' pull is at most c, that is all of the weight, and z is the minimiser.
    """
    count = at_z.sum(dim=-1, keepdim=True)
    stay = count / (length * total).maximum(count).clamp_min(1)
    return stay * at_z / count.clamp_min(1) + (1 - stay) * mean, (1 - stay) * length


def _products_with(products: Tensor, weights: Tensor) -> Tensor:
    """Return the inner products ``[..., n]`` of the points with ``sum_i w_i x_i``."""
    return row_products(products, weights[..., None, :])


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product ``[..., 1]`` of ``one [..., n]`` and ``other [..., n]``."""
    return row_products(one[..., None, :], other[..., None, :])


def _root(squares: Tensor) -> Tensor:
    return root(squares.clamp_min(0))


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
    iterations: int = Field(1, ge=1, description="L, clipping rounds at each step")
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
