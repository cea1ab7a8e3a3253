"""Rules that treat every coordinate on its own: mean, median, trimmed mean, meamed, phocas, sign majority."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pipeline.core.order import (
    mean_around_median,
    mean_around_trimmed_mean,
    mean_over_workers,
    median_over_workers,
    trimmed_mean_over_workers,
)
from pipeline.core.rng import Stream
from pipeline.defences.aggregators import AGGREGATORS, Aggregated, Aggregator
from pipeline.defences.aggregators.base import HalfTolerant, ratio


@AGGREGATORS.register
class Mean(Aggregator):
    """Arithmetic mean, the undefended baseline.

    F(x) = (1/n) sum_i x_i

    Robust for f = 0 only; accepted for any f so that the damage without a defence can be measured.

    Example:
        >>> Mean().aggregate(torch.tensor([[1.0], [2.0], [6.0]]), f=0).vector
        tensor([3.])
    """

    name: Literal["mean"] = "mean"
    formula: ClassVar[str] = "(1/n) sum_i x_i, robust for f = 0 only"
    reference: ClassVar[str] = "the undefended baseline"
    condition: ClassVar[str] = "n > f"
    exceptions: ClassVar[dict[str, str]] = {"breakdown": "one vector moves the mean anywhere"}

    def tolerates(self, n: int, f: int) -> bool:
        """Return whether n > f: the baseline is there to be broken."""
        return 0 <= f < n

    def kappa(self, n: int, f: int) -> float | None:
        """Return 0 for f = 0, else None: there is no bound."""
        del n
        return 0.0 if f == 0 else None

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the mean of ``vectors [..., n, d]``; f is not used."""
        del f, stream
        n = vectors.shape[-2]
        weights = torch.full(vectors.shape[:-1], 1 / n, dtype=vectors.dtype, device=vectors.device)
        return Aggregated(mean_over_workers(vectors), state, weights)


@AGGREGATORS.register
class Median(HalfTolerant):
    """Coordinate-wise median.

    F(x)_k = median(x_1k, ..., x_nk), the midpoint of the two middle values for even n

    Needs n > 2f; kappa = 4 (1 + r)^2 with r = f / (n - 2f).

    Differs from: ``torch.median`` returns the lower of the two middle values, so F(-x) != -F(x).

    Reference: Yin et al., ICML 2018, arXiv:1803.01498; kappa: Allouah et al. 2023, arXiv:2302.01772.

    Example:
        >>> Median().aggregate(torch.tensor([[1.0], [2.0], [4.0], [1e20]]), f=1).vector
        tensor([3.])
    """

    name: Literal["median"] = "median"
    formula: ClassVar[str] = "per coordinate the median, the midpoint for even n"
    reference: ClassVar[str] = "Yin et al., ICML 2018, arXiv:1803.01498"

    def kappa(self, n: int, f: int) -> float | None:
        """Return 4 (1 + r)^2."""
        return 4 * (1 + ratio(n, f)) ** 2

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the median of ``vectors [..., n, d]``; f is not used."""
        del f, stream
        return Aggregated(median_over_workers(vectors), state)


@AGGREGATORS.register
class TrimmedMean(HalfTolerant):
    """Coordinate-wise trimmed mean.

    F(x)_k = 1/(n - 2f) sum of the x_ik without the f largest and the f smallest

    Needs n > 2f; kappa = 6 r (1 + r) with r = f / (n - 2f).

    Differs from: "the sum minus the extremes" is the same on paper and cancels in floating point:
    1, 2, 3, 1e20 with f = 1 gives 0.0 instead of 2.5.

    Reference: Yin et al., ICML 2018, arXiv:1803.01498; kappa: Allouah et al. 2023, arXiv:2302.01772.

    Example:
        >>> TrimmedMean().aggregate(torch.tensor([[1.0], [2.0], [3.0], [1e20]]), f=1).vector
        tensor([2.5000])
    """

    name: Literal["trimmed_mean"] = "trimmed_mean"
    formula: ClassVar[str] = "per coordinate the mean without the f largest and f smallest"
    reference: ClassVar[str] = "Yin et al., ICML 2018, arXiv:1803.01498"

    def kappa(self, n: int, f: int) -> float | None:
        """Return 6 r (1 + r)."""
        return 6 * ratio(n, f) * (1 + ratio(n, f))

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the trimmed mean of ``vectors [..., n, d]``."""
        del stream
        return Aggregated(trimmed_mean_over_workers(vectors, f), state)


@AGGREGATORS.register
class Meamed(HalfTolerant):
    """Mean around the median.

    F(x)_k = mean of the n - f values among x_1k, ..., x_nk that are nearest to median(x_1k, ..., x_nk)

    Of two values at the same distance from the median, the smaller one counts as the nearer.

    Needs n > 2f; no kappa is known to us.

    Reference: Xie et al. 2018, arXiv:1802.10116; defined as in public summaries, not checked against the paper's text.

    Example:
        >>> Meamed().aggregate(torch.tensor([[1.0], [2.0], [4.0], [1e20]]), f=1).vector
        tensor([2.3333])
    """

    name: Literal["meamed"] = "meamed"
    formula: ClassVar[str] = "per coordinate the mean of the n - f values nearest the median"
    reference: ClassVar[str] = "Xie et al. 2018, arXiv:1802.10116"

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the mean around the median of ``vectors [..., n, d]``."""
        del stream
        return Aggregated(mean_around_median(vectors, vectors.shape[-2] - f), state)


@AGGREGATORS.register
class Phocas(HalfTolerant):
    """Mean around the trimmed mean.

    F(x)_k = mean of the n - f values among x_1k, ..., x_nk that are nearest to their trimmed mean

    where the trimmed mean drops the f largest and the f smallest values. Of two values at the same distance from it,
    the smaller one counts as the nearer.

    Needs n > 2f; no kappa is known to us.

    Reference: Xie et al. 2018, arXiv:1805.09682; defined as in public summaries, not checked against the paper's text.

    Example:
        >>> Phocas().aggregate(torch.tensor([[1.0], [2.0], [4.0], [1e20]]), f=1).vector
        tensor([2.3333])
    """

    name: Literal["phocas"] = "phocas"
    formula: ClassVar[str] = "per coordinate the mean of the n - f values nearest the trimmed mean"
    reference: ClassVar[str] = "Xie et al. 2018, arXiv:1805.09682"

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the mean around the trimmed mean of ``vectors [..., n, d]``."""
        del stream
        return Aggregated(mean_around_trimmed_mean(vectors, f), state)


@AGGREGATORS.register
class SignMajority(HalfTolerant):
    """Majority vote on the sign of every coordinate (signSGD with majority vote).

    F(x)_k = sign(sum_i sign(x_ik)), 0 for a tie; NaN does not vote

    The result is a direction: its entries are -1, 0 or 1 whatever the size of the gradients, so the learning rate sets
    the step.

    Needs n > 2f, so that f votes cannot overrule unanimous honest workers. It has no kappa, as F does not
    estimate the mean.

    Reference: Bernstein et al., ICLR 2019, arXiv:1810.05291; defined as in public summaries, not checked against the
    paper's text.

    Example:
        >>> SignMajority().aggregate(torch.tensor([[0.1, 5.0], [0.2, -3.0], [-1e20, 0.0]]), f=1).vector
        tensor([1., 0.])
    """

    name: Literal["sign_majority"] = "sign_majority"
    formula: ClassVar[str] = "sign(sum_i sign(x_i))"
    reference: ClassVar[str] = "Bernstein et al., ICLR 2019, arXiv:1810.05291"
    exceptions: ClassVar[dict[str, str]] = {
        "translation": "a vote on signs depends on where zero is",
        "scale": "the entries are -1, 0 or 1 at any scale",
        "unanimity": "of equal vectors it returns the signs, not the vector",
        "divergence": "NaN does not vote, and infinity has a sign",
    }

    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the majority of signs of ``vectors [..., n, d]``; f is not used."""
        del f, stream
        return Aggregated(vectors.sign().sum(dim=-2).sign(), state)
