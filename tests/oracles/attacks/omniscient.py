"""Attacks by a formula of the honest vectors of the step."""

import math

from oracles.arithmetic import columns, deviation, mean, mean_vector, sign


def sign_flip(honest, strength, byzantine, own=False, **_):
    sources = [honest[i % len(honest)] if own else mean_vector(honest) for i in range(byzantine)]
    return [[-strength * number for number in source] for source in sources]


def ipm(honest, strength, byzantine, **_):
    return [[-strength * number for number in mean_vector(honest)] for _ in range(byzantine)]


def alie(honest, strength, byzantine, sign=-1, **_):
    vector = [mean(column) + sign * strength * deviation(column) for column in columns(honest)]
    return [list(vector) for _ in range(byzantine)]


def fang(honest, strength, byzantine, draw, **_):
    """Every number is uniform in an interval [extreme, theta extreme] or [extreme, extreme / theta]."""

    def beyond(column, uniform):
        direction = sign(mean(column))
        if direction == 0:
            return 0.0
        extreme = min(column) if direction > 0 else max(column)
        moved_up, moved_down = extreme * strength, extreme / strength
        end = min(moved_up, moved_down) if direction > 0 else max(moved_up, moved_down)
        return extreme + uniform * (end - extreme)

    uniform = [draw("uniform", len(honest[0]), i) for i in range(byzantine)]
    return [[beyond(c, u) for c, u in zip(columns(honest), uniform[i], strict=True)] for i in range(byzantine)]


def _z_max(n, f, z_formula="(n-f-s)/(n-f)", **_):
    """Where the normal distribution function reaches the share (n - f - s) / (n - f) or (n - s) / n, by bisection."""
    s = math.floor(n / 2 + 1) - f
    shares = {"(n-f-s)/(n-f)": (n - f - s) / (n - f), "(n-s)/n": (n - s) / n}
    if not all(0.5 < share < 1 for share in shares.values()):
        return None
    low, high = 0.0, 40.0
    for _ in range(200):
        z = (low + high) / 2
        low, high = (z, high) if (1 + math.erf(z / math.sqrt(2))) / 2 < shares[z_formula] else (low, z)
    return low


sign_flip.default_strength = lambda n, f, **_: 1.0
ipm.default_strength = lambda n, f, **_: 0.1
alie.default_strength = _z_max
fang.default_strength = lambda n, f, **_: 2.0
