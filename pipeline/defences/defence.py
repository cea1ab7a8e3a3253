"""A defence: pre-aggregations and a rule, composed into one map from received vectors to a direction."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from pipeline.core.component import Schema
from pipeline.core.rng import Stream
from pipeline.core.vectors import mix
from pipeline.defences.aggregators import AGGREGATORS, Aggregated, Aggregator
from pipeline.defences.preaggregators import PREAGGREGATORS, PreAggregator

Stage = tuple[PreAggregator | Aggregator, int, int]


class Defence(Schema):
    """Pre-aggregations in the order given, then a rule.

    Example:
        >>> from pipeline.core.component import parse
        >>> nnm = parse(Defence, {"before": [{"name": "nnm"}], "rule": {"name": "trimmed_mean"}}, "defences.nnm")
        >>> nnm.unmet(n=17, f=5), nnm.unmet(n=10, f=5)
        (None, 'nnm needs n > 2f, got n = 10, f = 5')
    """

    before: Annotated[tuple[Annotated[PreAggregator, PREAGGREGATORS], ...], Field(strict=False)] = ()
    rule: Annotated[Aggregator, AGGREGATORS]

    def stages(self, n: int, f: int) -> Iterator[Stage]:
        """Yield each pre-aggregation, then the rule, with the (n, f) that reaches it."""
        for step in self.before:
            yield step, n, f
            n, f = step.transforms(n, f)
        yield self.rule, n, f

    def unmet(self, n: int, f: int) -> str | None:
        """Return the condition that n workers, f of them tolerated, do not meet, or None."""
        for stage, n_here, f_here in self.stages(n, f):
            if unmet := stage.unmet(n_here, f_here):
                return unmet
        return None

    def kappa(self, n: int, f: int) -> float | None:
        """Return the proven robustness coefficient of the composition, or None."""
        reached = [(n_here, f_here) for _, n_here, f_here in self.stages(n, f)]
        kappa = self.rule.kappa(*reached[-1])
        for step, (n_here, f_here) in zip(reversed(self.before), reversed(reached[:-1]), strict=True):
            kappa = None if kappa is None else step.kappa(n_here, f_here, kappa)
        return kappa

    def aggregate(self, vectors: Tensor, f: int, state: Any = None, stream: Stream | None = None) -> Aggregated:
        """Return the aggregate of ``vectors [..., n, d]``; its weights refer to the received vectors."""
        mixings: list[Tensor | None] = []
        for number, step in enumerate(self.before):
            f_next = step.transforms(vectors.shape[-2], f)[1]
            vectors, mixing = step.apply(vectors, f, stream and stream.fork(number))
            mixings.append(mixing)
            f = f_next
        found = self.rule.aggregate(vectors, f, state, stream and stream.fork(len(self.before)))
        return found._replace(weights=_weights_of_received(found.weights, mixings))


def _weights_of_received(weights: Tensor | None, mixings: list[Tensor | None]) -> Tensor | None:
    """Return the rule's ``weights [..., n']`` carried back through the mixings; None where any of them is unknown."""
    for mixing in reversed(mixings):
        if weights is None or mixing is None:
            return None
        weights = mix(weights[..., None, :], mixing)[..., 0, :]
    return weights
