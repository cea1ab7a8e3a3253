"""What a search varies in a component: a range or a choice for each parameter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pipeline.core.component import Component, allowed, parse
from pipeline.core.errors import UserError

Value = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``: on a logarithmic scale with ``log``, integers only with ``whole``."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """One of ``values``."""

    values: tuple[Value, ...]


Space = dict[str, Range | Choice]


def narrowed(component: Component, declared: Space, changes: Mapping[str, Sequence[Value]], path: str) -> Space:
    """Return the ``declared`` space of ``component`` with some parameters replaced or added.

    Args:
        component: Whose parameters they are.
        declared: Its own space.
        changes: For each parameter two bounds (of a number that is not declared as a choice) or a list of choices.
        path: Where the changes stand in params.yaml.

    Raises:
        UserError: A parameter or a value that the component does not have.
    """
    fields = [name for name in type(component).model_fields if name != "name"]
    space = dict(declared)
    for parameter, values in changes.items():
        if parameter not in fields:
            raise UserError(f"{path}.{parameter}: unknown parameter; {allowed(parameter, fields)}")
        for value in values:
            parse(type(component), {**dict(component), parameter: value}, path)
        kind = type(component).model_fields[parameter].annotation
        space[parameter] = _entry(kind, declared.get(parameter), values, f"{path}.{parameter}")
    return space


def _entry(kind: Any, declared: Range | Choice | None, values: Sequence[Value], path: str) -> Range | Choice:
    """Return the range or the choice that ``values`` mean for a field of type ``kind``."""
    is_number = kind in (int, float) or float in get_args(kind)
    if not is_number or isinstance(declared, Choice) or len(values) != 2:
        return Choice(tuple(values))
    low, high = map(float, values)
    if low >= high:
        raise UserError(f"{path} = {list(values)}: the lower bound should be below the upper one")
    return Range(low, high, log=declared is not None and declared.log, whole=kind is int)


def values_of(entry: Range | Choice) -> tuple[Value, ...]:
    """Return the ends of a range, or all choices."""
    if isinstance(entry, Choice):
        return entry.values
    return (int(entry.low), int(entry.high)) if entry.whole else (entry.low, entry.high)


def holds(entry: Range | Choice, value: Value) -> bool:
    """Return whether ``value`` is in a range or among the choices.

    Example:
        >>> holds(Range(0.1, 10), 3.0), holds(Choice((-1, 1)), 0)
        (True, False)
    """
    if isinstance(entry, Choice):
        return value in entry.values
    return isinstance(value, int | float) and entry.low <= value <= entry.high
