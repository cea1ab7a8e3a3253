"""Numbers and parameters in words."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

UNCONVERGED = "†"


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
    """Return an attack with its published parameters (JSON), the strength first.

    Example:
        >>> in_words("alie", '{"sign": -1, "strength": 0.6942}')
        'alie 0.694, sign -1'
    """
    return _in_words(attack, json.loads(parameters), digits=3)


def found_in_words(attack: str, parameters: str, strengths: Any) -> str:
    """Return an attack that was found: its strength as a range where one is known, all else with two digits.

    Example:
        >>> found_in_words("alie", '{"sign": -1, "strength": 1.234}', "0.8 to 2")
        'alie 0.8 to 2, sign -1'
        >>> found_in_words("alie", '{"sign": -1, "strength": 1.234}', None)
        'alie 1.2, sign -1'
    """
    values = json.loads(parameters)
    return _in_words(attack, {**values, "strength": strengths} if isinstance(strengths, str) else values, digits=2)


def _in_words(attack: str, values: dict[str, Any], digits: int) -> str:
    short = {name: f"{value:.{digits}g}" if isinstance(value, float) else value for name, value in values.items()}
    strength = f" {short.pop('strength')}" if "strength" in short else ""
    return ", ".join([f"{attack}{strength}", *(f"{name} {value}" for name, value in short.items())])


def parameters(text: Any) -> str:
    """Return parameters (JSON) in words, with two digits; n/a where there are none.

    Example:
        >>> parameters('{"rule": {"tau": 0.123}}'), parameters("{}")
        ('rule tau 0.12', 'n/a')
    """
    values = json.loads(text) if isinstance(text, str) else {}
    return ", ".join(_short(values)) or "n/a"


def _short(values: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in values.items():
        inner = _short(value) if isinstance(value, Mapping) else [f"{value:.2g}" if isinstance(value, float) else value]
        words += [f"{name} {word}" for word in inner]
    return words


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


def accuracy(row: Mapping[str, Any], name: str = "accuracy") -> str:
    """Return the accuracy of a row as :func:`interval` does, with a dagger where training has not converged.

    Example:
        >>> accuracy({"accuracy": 0.5, "accuracy_half_width": 0.1, "unconverged": True})
        '50.0 ± 10.0†'
    """
    return f"{interval(row, name)}{UNCONVERGED if row['unconverged'] else ''}"


def quantiles(row: Mapping[str, Any]) -> str:
    """Return ``median (lower quartile to upper quartile)`` of a row's accuracy, in percent."""
    middle, low, high = (points(row[f"accuracy_{name}"]) for name in ("median", "lower_quartile", "upper_quartile"))
    return f"{middle} ({low} to {high})"


def collapse(row: Mapping[str, Any]) -> str:
    """Return how many runs of a row collapsed, and the interval of the probability in percent.

    Example:
        >>> collapse({"collapsed": 2, "seeds": 5, "collapse_low": 0.0527, "collapse_high": 0.8534})
        '2 of 5 (5 to 85 %)'
    """
    low, high = row["collapse_low"], row["collapse_high"]
    return f"{row['collapsed']:.0f} of {row['seeds']:.0f} ({100 * low:.0f} to {100 * high:.0f} %)"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them.

    Example:
        >>> listed(["krum"]), listed(["krum", "mean", "median"])
        ('krum', 'krum, mean and median')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, n/a for one that is not known."""
    return f"{value:.{digits}g}" if math.isfinite(value) else "n/a"


def three_digits(row: Mapping[str, Any], name: str) -> str:
    """Return a number of a table's row with its half width, three digits each; n/a stands for what is not known."""
    return f"{number(row[name])} ± {number(row[f'{name}_half_width'])}"


def p_value(p: float) -> str:
    """Return a p-value with two digits.

    Example:
        >>> p_value(0.034), p_value(0.00002), p_value(float("nan"))
        ('0.034', '< 0.001', 'n/a')
    """
    if not math.isfinite(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
