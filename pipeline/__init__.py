"""How much damage can Byzantine workers do to distributed training, under each defence?

What Python is offered stands in :mod:`pipeline.interface`, :mod:`pipeline.interface_search` and, for pictures of a
model, in :mod:`pipeline.report.figures.model`. Each is imported when it is first used, so that a stage imports no more
than it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.interface import aggregate, attack, from_arrays, load_data, load_results, simulate
    from pipeline.interface_search import load_search, search_strength
    from pipeline.report.figures.model import draw_model

__all__ = [
    "aggregate",
    "attack",
    "draw_model",
    "from_arrays",
    "load_data",
    "load_results",
    "load_search",
    "search_strength",
    "simulate",
]
ELSEWHERE = {
    "search_strength": "interface_search",
    "load_search": "interface_search",
    "draw_model": "report.figures.model",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"pipeline.{ELSEWHERE.get(name, 'interface')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
