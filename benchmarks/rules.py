"""The section ``rules``: every rule and pre-aggregation beside one read of its input and the obvious way."""

from collections.abc import Iterator

from torch import Tensor

from benchmarks.document import Row
from benchmarks.subjects import Shape, Subject, normal, stream, subjects
from benchmarks.timing import Action, Conditions, alternating

TITLE = "Rules and pre-aggregations"
METHOD = (
    "Standard normal float32 vectors. A read is `vectors.sum()`. The obvious way is plain torch "
    "(`benchmarks/obvious.py`). Read, ours and obvious run in turns; medians. f is floor((n - 3) / 4), or the largest "
    "that a rule allows; MDA and SMEA also at an f whose subsets the obvious way can enumerate."
)
SHAPES: list[Shape] = [(1, 13, 431_080), (1, 25, 1_000_000), (1, 51, 79_510), (16, 15, 5_000)]
TINY: list[Shape] = [(1, 7, 300), (2, 15, 50)]


def measure(conditions: Conditions) -> Iterator[Row]:
    """Yield one row per subject, shape and f."""
    for shape in TINY if conditions.tiny else SHAPES:
        vectors = normal(*shape, device=conditions.device)
        for subject in subjects():
            for f in subject.tolerated(shape[1]):
                yield from _compared(subject, vectors, f, conditions)


def _compared(subject: Subject, vectors: Tensor, f: int, conditions: Conditions) -> Iterator[Row]:
    numbers = stream(len(vectors), vectors.device)
    actions: dict[str, Action] = {"read": vectors.sum, "ours": lambda: subject.ours(vectors, f, numbers)}
    if subject.has_obvious(vectors.shape[-2], f):
        actions["obvious"] = lambda: subject.obvious(vectors, f)
    times = alternating(actions, conditions)
    yield {
        "kind": subject.kind,
        "name": subject.name,
        "input": " x ".join(map(str, vectors.shape)),
        "f": f,
        "read ms": times["read"],
        "ours ms": times["ours"],
        "obvious ms": times.get("obvious"),
        "ours / read": times["ours"] / times["read"],
        "obvious / ours": times["obvious"] / times["ours"] if "obvious" in times else None,
    }
