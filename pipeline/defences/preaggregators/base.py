"""The contract of a pre-aggregation: a map of the n received vectors that is applied before the rule."""

from abc import abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor

from pipeline.core.component import Component
from pipeline.core.rng import Stream


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
