"""How much damage can Byzantine workers do to distributed training, under each defence?

What Python is offered stands in :mod:`pipeline.interface`. It is imported when it is first used, so that a stage
imports no more than it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.interface import aggregate, attack, from_arrays, load_results, simulate

__all__ = ["aggregate", "attack", "from_arrays", "load_results", "simulate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("pipeline.interface"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
