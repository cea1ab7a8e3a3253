"""As far from the mean of the honest vectors as their own distances allow."""

import math

from oracles.arithmetic import deviation, mean_vector, per_coordinate, plus, sign, squared_distance, unit


def _direction(honest, dev):
    if dev == "unit":
        return [-number for number in unit(mean_vector(honest))]
    if dev == "sign":
        return [-sign(number) for number in mean_vector(honest)]
    return [-number for number in per_coordinate(deviation, honest)]


def _as_far_as(allowed, honest, strength, byzantine, dev):
    """mu + strength gamma dev for the largest gamma that is allowed, by doubling and bisection."""
    mu, direction = mean_vector(honest), _direction(honest, dev)
    low, high = 0.0, 1e-6
    while allowed(plus(mu, high, direction)) and high < 1e12:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(plus(mu, middle, direction)) else (low, middle)
    return [plus(mu, strength * low, direction) for _ in range(byzantine)]


def min_max(honest, strength, byzantine, dev="unit", **_):
    bound = max(squared_distance(x, y) for x in honest for y in honest)

    def allowed(vector):
        return max(squared_distance(vector, x) for x in honest) <= bound

    return _as_far_as(allowed, honest, strength, byzantine, dev)


def min_sum(honest, strength, byzantine, dev="unit", **_):
    def total(vector):
        return math.fsum(squared_distance(vector, x) for x in honest)

    bound = max(map(total, honest))
    return _as_far_as(lambda vector: total(vector) <= bound, honest, strength, byzantine, dev)


min_max.default_strength = min_sum.default_strength = lambda n, f, **_: 1.0
