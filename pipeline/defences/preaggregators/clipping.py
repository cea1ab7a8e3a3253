"""Clipping of long vectors, to a fixed length or to that of others."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.core.kernels.elementary import root
from pipeline.core.rng import Stream
from pipeline.core.vectors import squared_norms
from pipeline.defences.preaggregators import PREAGGREGATORS, Mixed, PreAggregator


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
        """Return (n, f)."""
        return n, f

    def tolerates(self, n: int, f: int) -> bool:
        """Return whether n > f."""
        return 0 <= f < n

    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """Return None: a fixed c preserves no kappa."""
        del n, f, kappa
        return None

    def _apply(self, vectors: Tensor, f: int, stream: Stream | None) -> Mixed:
        """Return the clipped ``vectors [..., n, d]``."""
        del f, stream
        return _clipped(vectors, root(squared_norms(vectors)), vectors.new_full((), self.c, dtype=torch.float64))


@PREAGGREGATORS.register
class AdaptiveRobustClipping(PreAggregator):
    """Adaptive robust clipping (ARC): the longest vectors are shortened to the length of the next longest.

    k = floor(2 (f / n) (n - f)); C = the (k + 1)-th largest norm; y_i = x_i min(1, C / |x_i|)

    Needs n > 2f; (n', f') = (n, f); a rule of coefficient kappa becomes one of kappa + 2 f / (n - 2f) (theorem 3.2,
    from memory, not checked against the paper's text; the tests look for counterexamples). f = 0 leaves the input
    unchanged. A vector that is not finite has an infinite norm and no direction, and becomes zero.

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
        """Return (n, f)."""
        return n, f

    def tolerates(self, n: int, f: int) -> bool:
        """Return whether n > 2f."""
        return 0 <= 2 * f < n

    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """Return kappa + 2 f / (n - 2f)."""
        return kappa + 2 * f / (n - 2 * f)

    def _apply(self, vectors: Tensor, f: int, stream: Stream | None) -> Mixed:
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
