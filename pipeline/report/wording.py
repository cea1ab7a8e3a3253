"""Numbers and parameters in words."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any


def described(content: Mapping[str, Any], leave_out: Sequence[str] = ()) -> str:
    """Return a component's content in words, its name first.

    Example:
        >>> described({"name": "mlp", "hidden": [32, 16], "schedule": {"name": "constant"}})
        'mlp; hidden 32, 16; schedule constant'
    """
    name = [content["name"]] if "name" in content else []
    details = [f"{key} {_value(value)}" for key, value in content.items() if key not in ("name", *leave_out)]
    return "; ".join([*name, *details]).replace("_", " ")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return described(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def in_words(attack: str, parameters: str) -> str:
    """Return an attack with its parameters (JSON), the strength first.

    Example:
        >>> in_words("alie", '{"sign": -1, "strength": 0.6942}')
        'alie 0.694, sign -1'
    """
    values = json.loads(parameters)
    strength = f" {values.pop('strength'):.3g}" if "strength" in values else ""
    short = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join([f"{attack}{strength}", *(f"{name} {value}" for name, value in short.items())])


def percent(fraction: float) -> str:
    """Return a fraction as percent with three digits."""
    return f"{100 * fraction:.3g}"


def points(fraction: float, sign: str = "") -> str:
    """Return a fraction in percentage points, n/a if it is not known.

    Args:
        fraction: A difference of accuracies.
        sign: ``+`` to give positive numbers their sign, too.
    """
    return f"{100 * fraction:{sign}.1f}" if math.isfinite(fraction) else "n/a"


def uncertain(value: float, half_width: float) -> str:
    """Return ``mean ± half width`` of fractions, in percent; n/a stands for what is not known.

    Example:
        >>> uncertain(0.5, 0.012), uncertain(0.5, float("nan"))
        ('50.0 ± 1.2', '50.0 ± n/a')
    """
    return f"{points(value)} ± {points(half_width)}"


def interval(row: Mapping[str, Any], name: str) -> str:
    """Return a number of a table's row with its half width, written as :func:`uncertain` does."""
    return uncertain(row[name], row[f"{name}_half_width"])


def three_digits(row: Mapping[str, Any], name: str) -> str:
    """Return a number of a table's row with its half width, three digits each; n/a stands for what is not known."""
    numbers = (row[name], row[f"{name}_half_width"])
    return " ± ".join(f"{number:.3g}" if math.isfinite(number) else "n/a" for number in numbers)


def p_value(p: float) -> str:
    """Return a p-value with two digits.

    Example:
        >>> p_value(0.034), p_value(0.00002), p_value(float("nan"))
        ('0.034', '< 0.001', 'n/a')
    """
    if not math.isfinite(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
