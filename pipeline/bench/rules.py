"""The section ``rules``: every rule and pre-aggregation against one read of its input and against the obvious way."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from pipeline.bench.document import Row
from pipeline.bench.subjects import Shape, Subject, normal, stream, subjects
from pipeline.bench.timing import Action, Setting, alternating
from pipeline.columns import fused

TITLE = "Rules and pre-aggregations"
METHOD = (
    "Standard normal float32 vectors. A read is `vectors.sum()`. The obvious way is plain torch "
    "(`pipeline/bench/obvious.py`). Read, ours and obvious run in turns; medians. f is floor((n - 3) / 4), or the most "
    "that a rule allows; MDA and SMEA also at an f whose subsets can be enumerated, as the obvious way does. "
    "Compiled: with the kernels of `pipeline/columns.py` under `torch.compile`, after the compilation."
)
SHAPES: list[Shape] = [(1, 13, 431_080), (1, 25, 1_000_000), (1, 51, 79_510), (16, 15, 5_000)]
TINY: list[Shape] = [(1, 7, 300), (2, 15, 50)]
EAGER_ONLY = (  # nothing in them is compiled
    *("mean", "sign_majority", "centered_clipping", "monna", "cge"),
    *("bucketing", "clipping", "arc"),
)

Mode = Callable[[], AbstractContextManager[None]]


def measure(setting: Setting) -> Iterator[Row]:
    """Yield a row for every subject, shape, f and mode."""
    for shape in TINY if setting.tiny else SHAPES:
        vectors = normal(*shape, device=setting.device)
        for subject in subjects():
            for f in subject.tolerated(shape[1]):
                yield from _compared(subject, vectors, f, setting)


def _compared(subject: Subject, vectors: Tensor, f: int, setting: Setting) -> Iterator[Row]:
    modes = _modes(subject, setting)
    actions: dict[str, Action] = {"read": vectors.sum}
    actions |= {mode: _ours(subject, vectors, f, context) for mode, context in modes.items()}
    if subject.has_obvious(vectors.shape[-2], f):
        actions["obvious"] = lambda: subject.obvious(vectors, f)
    times = alternating(actions, setting)
    for mode in modes:
        yield {
            "kind": subject.kind,
            "name": subject.name,
            "mode": mode,
            "input": " x ".join(map(str, vectors.shape)),
            "f": f,
            "read ms": times["read"],
            "ours ms": times[mode],
            "obvious ms": times.get("obvious"),
            "ours / read": times[mode] / times["read"],
            "obvious / ours": times["obvious"] / times[mode] if "obvious" in times else None,
        }


def _ours(subject: Subject, vectors: Tensor, f: int, context: Mode) -> Action:
    numbers = stream(len(vectors), vectors.device)

    def action() -> None:
        with context():
            subject.ours(vectors, f, numbers)

    return action


def _modes(subject: Subject, setting: Setting) -> dict[str, Mode]:
    """Return how a subject can be run; toy sizes are not compiled, which would take most of their time."""
    if setting.tiny or subject.name in EAGER_ONLY:
        return {"eager": nullcontext}
    return {"eager": nullcontext, "compiled": lambda: fused(True)}
