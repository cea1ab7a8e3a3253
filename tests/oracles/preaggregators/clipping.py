"""Clipping of long vectors."""

import math
from fractions import Fraction

from oracles.arithmetic import length


def _shortened(vector, longest):
    return [number * min(1, longest / length(vector)) if length(vector) else number for number in vector]


def clipping(vectors, f, c=1.0):
    return [_shortened(vector, c) for vector in vectors]


def arc(vectors, f):
    n = len(vectors)
    lengths = sorted(map(length, vectors), reverse=True)
    return [_shortened(vector, lengths[math.floor(Fraction(2 * f, n) * (n - f))]) for vector in vectors]
