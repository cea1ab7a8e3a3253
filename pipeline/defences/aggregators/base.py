"""The contract of an aggregation rule."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from pipeline.core.rng import Stream
from pipeline.core.space import Space
from pipeline.core.vectors import mix
from pipeline.defences.stage import DefenceStage


class Aggregated(NamedTuple):
    """What a rule returns.

    Attributes:
        vector: ``[..., d]``, the aggregate.
        state: What the rule remembers for the next step; None for a rule without memory.
        weights: ``[..., n]``, the weight of each input in the aggregate where the rule is a weighted mean, else None.
        unconverged: ``[...]``, bool, where the rule iterates to a tolerance: whether it stopped before; else None.
    """

    vector: Tensor
    state: Any = None
    weights: Tensor | None = None
    unconverged: Tensor | None = None


class Aggregator(DefenceStage):
    """An aggregation rule ``F: R^{n x d} -> R^d`` of the vectors that n workers sent, of which f may be arbitrary.

    To add one, subclass it in a new file of this folder, give it a ``name``, and decorate it with
    ``@AGGREGATORS.register`` (README.md, "Adding a rule", walks through an example).

    A rule keeps dtype and device, leaves its input unchanged and returns no view of it. It is invariant to the order of
    the workers, and up to f rows of NaN or infinity give a finite result. ``stops_within`` is how far from its exact
    result an iterative rule may stop, relative to the spread of the vectors. ``space`` is what a defender tunes.
    """

    stops_within: ClassVar[float] = 0.0
    space: ClassVar[Space] = {}

    def kappa(self, n: int, f: int) -> float | None:
        """Return the proven robustness coefficient, or None where none is known.

        F is (f, kappa)-robust if for every subset S of n - f inputs
        ``|F(x) - mean_S|^2 <= kappa * mean_{i in S} |x_i - mean_S|^2`` (Allouah et al. 2023, arXiv:2302.01772).
        """
        del n, f
        return None

    def init_state(self, like: Tensor) -> Any:
        """Return the state before the first step, for aggregates shaped as ``like`` ``[..., d]``."""
        del like

    def aggregate(self, vectors: Tensor, f: int, state: Any = None, stream: Stream | None = None) -> Aggregated:
        """Return the aggregate.

        Args:
            vectors: ``[..., n, d]``, of which up to f rows may be arbitrary.
            f: How many Byzantine workers are tolerated.
            state: What ``init_state`` or the step before returned.
            stream: Random numbers of the step, ``[R]`` for ``vectors [..., R, n, d]``; a rule that needs them says so
                in ``random``.

        Raises:
            UserError: The rule does not tolerate f of n.

        Example:
            >>> import torch
            >>> from pipeline.defences.aggregators.coordinatewise import Median
            >>> Median().aggregate(torch.zeros(4, 1), f=2)
            Traceback (most recent call last):
            pipeline.core.errors.UserError: median needs n > 2f, got n = 4, f = 2
        """
        self.refuse_unmet(vectors, f)
        return self._aggregate(vectors, f, state, stream)

    @abstractmethod
    def _aggregate(self, vectors: Tensor, f: int, state: Any, stream: Stream | None) -> Aggregated:
        """Return the aggregate, for an f that is tolerated; see :meth:`aggregate`."""


class HalfTolerant(Aggregator):
    """A rule that is defined whenever the honest workers are a majority."""

    condition: ClassVar[str] = "n > 2f"

    def tolerates(self, n: int, f: int) -> bool:
        """Return whether n > 2f."""
        return 0 <= 2 * f < n


def weighted_mean(weights: Tensor, vectors: Tensor, state: Any = None, unconverged: Tensor | None = None) -> Aggregated:
    """Return the mean of ``vectors [..., n, d]`` with ``weights [..., n]`` that sum to one, and the weights.

    A zero weight erases a vector even if it holds NaN or infinity.
    """
    weights = weights.to(vectors.dtype)
    return Aggregated(mix(weights[..., None, :], vectors)[..., 0, :], state, weights, unconverged)


def mean_of(members: Tensor, vectors: Tensor, state: Any = None) -> Aggregated:
    """Return the mean of those ``vectors [..., n, d]`` that the mask ``members [..., n]`` names, and the weights."""
    chosen = members.to(vectors.dtype)
    return weighted_mean(chosen / chosen.sum(dim=-1, keepdim=True), vectors, state)


def ratio(n: int, f: int) -> float:
    """Return r = f / (n - 2f), the smallest kappa that any rule can have (arXiv:2302.01772, proposition 6)."""
    return f / (n - 2 * f)
