"""Evaluates the ``condition`` of a rule or pre-aggregation, so that it can be compared with ``tolerates``."""

import re
from math import comb


def holds(component, n, f):
    """Whether n and f meet the text, as :class:`pipeline.defences.stage.DefenceStage` defines it."""
    names = {"n": n, "f": f, "C": comb, **dict(component)}
    clauses = [re.sub(r"(\d)\s*([a-zA-Z])", r"\1 * \2", clause) for clause in component.condition.split(" and ")]
    null = [name for name, value in names.items() if value is None]
    counted = [clause for clause in clauses if not any(re.search(rf"\b{name}\b", clause) for name in null)]
    return 0 <= f < n and all(_value(clause, names, component) for clause in counted)


def _value(clause, names, component):
    try:
        return eval(clause, {"__builtins__": {}}, names)
    except (SyntaxError, NameError, TypeError) as error:
        raise AssertionError(
            f"the condition of {component.name}, {component.condition!r}, should be comparisons of n, f and parameters "
            f"joined by 'and', such as 'n > 2f': {error}"
        ) from None


def check(component):
    """Fail where ``tolerates`` says something else than ``condition``."""
    for n in range(1, 16):
        for f in range(-1, n + 2):
            expected, found = holds(component, n, f), component.tolerates(n, f)
            assert found is expected, f"{component.name}: {component.condition}, but tolerates({n}, {f}) is {found}"
