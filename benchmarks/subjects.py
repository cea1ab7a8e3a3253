"""Every registered rule and pre-aggregation as something to measure, with an input and an f that it tolerates."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import obvious
from pipeline.core.order import mean_and_deviation_over_workers
from pipeline.core.rng import Stream, torch_stream
from pipeline.defences.aggregators import AGGREGATORS, Aggregator
from pipeline.defences.preaggregators import PREAGGREGATORS, PreAggregator

Shape = tuple[int, int, int]
Ours = Callable[[Tensor, int, Stream], Tensor]


@dataclass(frozen=True)
class Subject:
    """Something that maps ``[R, n, d]``.

    Attributes:
        kind: Rule, pre-aggregation or statistic.
        name: As registered.
        ours: Of vectors, f and random numbers.
        obvious: Of vectors and f.
        tolerates: Whether it is defined, of n and f.
    """

    kind: str
    name: str
    ours: Ours
    obvious: obvious.Obvious
    tolerates: Callable[[int, int], bool]

    def tolerated(self, n: int) -> list[int]:
        """Return every f that is measured: the largest up to (n - 3) / 4, and one whose subsets can be enumerated."""
        below = range((n - 3) // 4, -1, -1)
        usual = next(f for f in below if self.tolerates(n, f))
        if self.name not in obvious.ENUMERATING:
            return [usual]
        return sorted({usual, next(f for f in below if f <= usual and obvious.enumerable(n, f))})

    def has_obvious(self, n: int, f: int) -> bool:
        """Return whether the obvious implementation ends in a reasonable time."""
        return self.name not in obvious.ENUMERATING or obvious.enumerable(n, f)


def subjects() -> Iterator[Subject]:
    """Yield each rule and pre-aggregation that has an obvious twin, with default parameters, and the deviation."""
    for name in obvious.RULES:
        rule = AGGREGATORS.parse({"name": name}, "bench")
        yield Subject("rule", name, _rule(rule), obvious.RULES[name], rule.tolerates)
    for name in obvious.MAPS:
        step = PREAGGREGATORS.parse({"name": name}, "bench")
        yield Subject("pre-aggregation", name, _step(step), obvious.MAPS[name], step.tolerates)
    yield Subject(
        "statistic",
        "deviation",
        lambda vectors, *_: mean_and_deviation_over_workers(vectors)[1],
        obvious.deviation,
        lambda *_: True,
    )


def _rule(rule: Aggregator) -> Ours:
    return lambda vectors, f, stream: rule.aggregate(vectors, f, None, stream).vector


def _step(step: PreAggregator) -> Ours:
    return lambda vectors, f, stream: step.apply(vectors, f, stream).vectors


def normal(*shape: int, device: torch.device) -> Tensor:
    """Return standard normal numbers, the same in every call."""
    return torch.randn(shape, generator=torch_stream(0, "bench")).to(device)


def stream(replicas: int, device: torch.device) -> Stream:
    """Return the random numbers of a batch of replicas."""
    return Stream.of(range(replicas), "bench", device)
