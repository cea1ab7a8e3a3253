"""Rules that score whole vectors by their distances to the others."""

import math

from oracles import NoAnswer
from oracles.arithmetic import columns, mean, mean_vector, middle, squared_distance


def _krum_scores(vectors, counted, power=2):
    scores = []
    for i, x in enumerate(vectors):
        others = sorted(squared_distance(x, y) ** (power / 2) for j, y in enumerate(vectors) if j != i)
        scores.append(math.fsum(others[:counted]))
    return scores


def multi_krum(vectors, f, m=None, neighbours="n-f-2", power=2):
    if power == 1 and len(vectors[0]) == 1:
        raise NoAnswer("on a line sums of plain distances tie: all points between two neighbours have the same")
    n = len(vectors)
    scores = _krum_scores(vectors, n - f - (1 if neighbours == "n-f-1" else 2), power)
    ranked = sorted(range(n), key=lambda i: (scores[i], i))
    return mean_vector([vectors[i] for i in ranked[: n - f if m is None else m]])


def krum(vectors, f, neighbours="n-f-2", power=2):
    return multi_krum(vectors, f, 1, neighbours, power)


def bulyan(vectors, f):
    left, picked = list(vectors), []
    theta = len(vectors) - 2 * f
    while len(picked) < theta:
        counted = max(len(left) - f - 2, 1)
        scores = list(zip(_krum_scores(left, counted), _krum_scores(left, counted + 1), strict=True))
        picked.append(left.pop(scores.index(min(scores))))
    return [_mean_around_median(column, theta - 2 * f) for column in columns(picked)]


def _mean_around_median(numbers, count):
    return mean(sorted(numbers, key=lambda number: (abs(number - middle(numbers)), number))[:count])
