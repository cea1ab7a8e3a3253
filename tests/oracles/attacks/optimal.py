"""The plain attacks at the best of 1 + 15 + 8 + 8 strengths."""

from oracles.arithmetic import mean_vector, squared_distance
from oracles.attacks import omniscient


def _strongest(error, low, high, start):
    best = start
    ratio = (high / low) ** (1 / 14)
    rounds = [[low * ratio**k for k in range(15)], None, None]
    for number in range(3):
        exponents = [-1 + 2 * k / 9 for k in range(1, 9)]
        candidates = rounds[number] or [min(max(best * ratio**e, low), high) for e in exponents]
        best = max([best, *candidates], key=error)
        ratio **= 2 / 9 if number else 1
    return best


def _optimal(plain, low, high, honest, byzantine, defence, tolerated, **fields):
    def error(theta):
        return squared_distance(defence(honest + plain(honest, theta, byzantine, **fields)), mean_vector(honest))

    start = plain.default_strength(len(honest) + byzantine, tolerated) or 1.0
    return plain(honest, _strongest(error, low, high, start), byzantine, **fields)


def optimal_alie(honest, strength, byzantine, defence, tolerated, sign=-1, **_):
    return _optimal(omniscient.alie, 0.05, 20.0, honest, byzantine, defence, tolerated, sign=sign)


def optimal_ipm(honest, strength, byzantine, defence, tolerated, **_):
    return _optimal(omniscient.ipm, 0.01, 100.0, honest, byzantine, defence, tolerated)
