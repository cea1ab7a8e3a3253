"""The contract of a pre-aggregation: a map of the n received vectors that is applied before the rule."""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from pipeline.core.rng import Stream
from pipeline.defences.stage import DefenceStage


class Mixed(NamedTuple):
    """What a pre-aggregation returns.

    Attributes:
        vectors: ``[..., n', d]``.
        mixing: ``[..., n', n]``, the weight of each input in each output; None where outputs are not weighted sums. The
            weights of an output sum to less than one where inputs were clipped.
    """

    vectors: Tensor
    mixing: Tensor | None


class PreAggregator(DefenceStage):
    """A map ``R^{n x d} -> R^{n' x d}`` that leaves f' of its n' outputs arbitrary.

    It keeps dtype and device, leaves its input unchanged and returns no view of it.
    """

    @abstractmethod
    def transforms(self, n: int, f: int) -> tuple[int, int]:
        """Return ``(n', f')``, what the next stage must tolerate."""

    @abstractmethod
    def kappa(self, n: int, f: int, kappa: float) -> float | None:
        """Return the proven coefficient of this map followed by a rule of coefficient ``kappa``, or None."""

    def apply(self, vectors: Tensor, f: int, stream: Stream | None = None) -> Mixed:
        """Return the mapped vectors.

        Args:
            vectors: ``[..., n, d]``, of which up to f rows may be arbitrary.
            f: How many Byzantine workers are tolerated.
            stream: Random numbers of the step, ``[R]`` for ``vectors [..., R, n, d]``; see ``random``.

        Raises:
            UserError: The map is not defined for f of n.
        """
        self.refuse_unmet(vectors, f)
        return self._apply(vectors, f, stream)

    @abstractmethod
    def _apply(self, vectors: Tensor, f: int, stream: Stream | None) -> Mixed:
        """Return the mapped vectors, for an f that is tolerated; see :meth:`apply`."""
