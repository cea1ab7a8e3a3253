"""Pre-aggregations: maps of the n received vectors that are applied, in order, before the rule."""

from abc import abstractmethod
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.component import Component, Registry
from pipeline.core.rng import Stream
from pipeline.core.vectors import mix, root, squared_distances, squared_norms


class Mixed(NamedTuple):
    """What a pre-aggregation returns.

    Attributes:
        vectors: ``[..., n', d]``.
        mixing: ``[..., n', n]``, the weight of each input in each output; None where outputs are not weighted sums. The
            weights of an output sum to less than one where inputs were clipped.
    """

    vectors: Tensor
    mixing: Tensor | None


class PreAggregator(Component):
    """A map ``R^{n x d} -> R^{n' x d}`` that leaves f' of its n' outputs arbitrary.

    It keeps dtype and device, leaves its input unchanged and returns no view of it. ``exceptions`` names the checks of
    the contract (tests/test_preaggregators.py) that a map cannot pass, each with the reason. ``random`` is True for a
    map that draws from the stream.
    """

    condition: ClassVar[str]
    exceptions: ClassVar[dict[str, str]] = {}
    random: ClassVar[bool] = False

    @abstractmethod
    def transforms(self, n: int, f: int) -> tuple[int, int]:
        """Return ``(n', f')``, what the next stage must tolerate."""

    @abstractmethod
    def tolerates(self, n: int, f: int) -> bool:
        """Return whether the map is defined for n vectors of which f are arbitrary."""

    @abstractmethod
    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """Return the proven coefficient of this map followed by a rule of coefficient ``kappa``, or None."""

    @abstractmethod
    def apply(self, vectors: Tensor, f: int, stream: Stream | None = None) -> Mixed:
        """Return the mapped vectors.

        Args:
            vectors: ``[..., n, d]``, of which up to f rows may be arbitrary.
            f: How many Byzantine workers are tolerated.
            stream: Random numbers of the step, ``[R]`` for ``vectors [..., R, n, d]``; see ``random``.
        """


PREAGGREGATORS: Registry[PreAggregator] = Registry("pre-aggregation")


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
        """(n, f)."""
        return n, f

    def tolerates(self, n: int, f: int) -> bool:
        """N > 2f."""
        return 0 <= 2 * f < n

    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """8 f / (n - f) (kappa + 1)."""
        return 8 * f / (n - f) * (kappa + 1)

    def apply(self, vectors: Tensor, f: int, stream: Stream | None = None) -> Mixed:
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

    Differs from: the first version of the paper repeats each vector s times before it shuffles (resampling); a global
    generator elsewhere, here each replica's own.

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
        """(ceil(n / s), f)."""
        return -(-n // self.s), f

    def tolerates(self, n: int, f: int) -> bool:
        """N > f."""
        return 0 <= f < n

    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """None: the guarantee is one in expectation."""
        del n, f, kappa
        return None

    def apply(self, vectors: Tensor, f: int, stream: Stream | None = None) -> Mixed:
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


@PREAGGREGATORS.register
class Clipping(PreAggregator):
    """Clipping to a fixed norm.

    y_i = x_i min(1, c / |x_i|)

    Defined for every n > f; (n', f') = (n, f). A fixed c preserves no kappa (arXiv:2405.14432). A vector that is not
    finite has no direction and becomes zero.

    Differs from: implementations that change their input in place.

    Reference: Allouah et al., ICLR 2025, arXiv:2405.14432, as static clipping.

    Example:
        >>> Clipping(c=5.0).apply(torch.tensor([[3.0, 4.0], [30.0, 40.0]]), f=0).vectors
        tensor([[3., 4.],
                [3., 4.]])
    """

    name: Literal["clipping"] = "clipping"
    c: float = Field(1.0, gt=0, description="the largest norm that is left as it is")
    formula: ClassVar[str] = "y_i = x_i min(1, c / |x_i|)"
    reference: ClassVar[str] = "Allouah et al., ICLR 2025, arXiv:2405.14432"
    condition: ClassVar[str] = "n > f"
    exceptions: ClassVar[dict[str, str]] = {
        "translation": "norms are measured from zero",
        "scale": "c is a length",
        "unanimity": "vectors longer than c are clipped, even if all agree",
        "breakdown": "honest vectors longer than c are clipped, too",
        "weights": "clipping takes weight away",
    }

    def transforms(self, n: int, f: int) -> tuple[int, int]:
        """(n, f)."""
        return n, f

    def tolerates(self, n: int, f: int) -> bool:
        """N > f."""
        return 0 <= f < n

    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """None: a fixed c preserves none."""
        del n, f, kappa
        return None

    def apply(self, vectors: Tensor, f: int, stream: Stream | None = None) -> Mixed:
        """Return the clipped ``vectors [..., n, d]``."""
        del f, stream
        return _clipped(vectors, root(squared_norms(vectors)), vectors.new_full((), self.c, dtype=torch.float64))


@PREAGGREGATORS.register
class AdaptiveRobustClipping(PreAggregator):
    """Adaptive robust clipping (ARC): the longest vectors are shortened to the length of the next longest.

    k = floor(2 (f / n) (n - f)); C = the (k + 1)-th largest norm; y_i = x_i min(1, C / |x_i|)

    Needs n > 2f; (n', f') = (n, f); a rule of coefficient kappa becomes one of kappa + 2 f / (n - 2f) (stated from
    memory of theorem 3.2; the tests look for counterexamples). f = 0 leaves the input unchanged. A vector that is not
    finite has an infinite norm and no direction, and becomes zero.

    Differs from: implementations that change their input in place.

    Reference: Allouah et al., ICLR 2025, arXiv:2405.14432.

    Example:
        >>> AdaptiveRobustClipping().apply(torch.tensor([[1.0], [2.0], [-3.0], [1e9]]), f=1).vectors.flatten()
        tensor([ 1.,  2., -3.,  3.])
    """

    name: Literal["arc"] = "arc"
    formula: ClassVar[str] = "the floor(2 (f / n) (n - f)) largest norms clipped to the next largest"
    reference: ClassVar[str] = "Allouah et al., ICLR 2025, arXiv:2405.14432"
    condition: ClassVar[str] = "n > 2f"
    exceptions: ClassVar[dict[str, str]] = {
        "translation": "norms are measured from zero",
        "breakdown": "honest vectors longer than most are clipped, too",
        "weights": "clipping takes weight away",
    }

    def transforms(self, n: int, f: int) -> tuple[int, int]:
        """(n, f)."""
        return n, f

    def tolerates(self, n: int, f: int) -> bool:
        """N > 2f."""
        return 0 <= 2 * f < n

    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """Kappa + 2 f / (n - 2f)."""
        return kappa + 2 * f / (n - 2 * f)

    def apply(self, vectors: Tensor, f: int, stream: Stream | None = None) -> Mixed:
        """Return the clipped ``vectors [..., n, d]``."""
        del stream
        n = vectors.shape[-2]
        clipped = 2 * f * (n - f) // n
        norms = root(squared_norms(vectors))
        return _clipped(vectors, norms, norms.sort(dim=-1).values[..., n - clipped - 1, None])


def _clipped(vectors: Tensor, norms: Tensor, longest: Tensor) -> Mixed:
    """Return the vectors whose ``norms`` exceed ``longest`` (both float64) at that length; zero if not finite."""
    factors = torch.where(norms > longest, longest / norms, 1.0).to(vectors.dtype)
    clipped, erased = vectors * factors[..., None], factors[..., None] == 0
    return Mixed(clipped.masked_fill_(erased, 0.0), torch.diag_embed(factors))
