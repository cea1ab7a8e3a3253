"""Rules that treat every coordinate on its own."""

from oracles.arithmetic import mean as mean_of
from oracles.arithmetic import mean_vector, middle, per_coordinate, sign


def mean(vectors, f):
    return mean_vector(vectors)


def median(vectors, f):
    return per_coordinate(middle, vectors)


def _trimmed(numbers, f):
    kept = list(numbers)
    for _ in range(f):
        kept.remove(max(kept))
        kept.remove(min(kept))
    return mean_of(kept)


def trimmed_mean(vectors, f):
    return per_coordinate(lambda column: _trimmed(column, f), vectors)


def _around(numbers, centre, count):
    """The mean of the ``count`` numbers nearest to ``centre``."""
    return mean_of(sorted(numbers, key=lambda number: (abs(number - centre), number))[:count])


def meamed(vectors, f):
    return per_coordinate(lambda column: _around(column, middle(column), len(column) - f), vectors)


def phocas(vectors, f):
    return per_coordinate(lambda column: _around(column, _trimmed(column, f), len(column) - f), vectors)


def sign_majority(vectors, f):
    return per_coordinate(lambda column: float(sign(sum(map(sign, column)))), vectors)
