"""Rules that approach their result step by step."""

import math

from oracles import NoAnswer
from oracles.arithmetic import columns, distance, dot, mean_vector, plus, sum_of_distances


def geometric_median(vectors, f):
    """Weiszfeld from the mean until it stands still, then the best of that point and every vector."""
    if len(vectors[0]) == 1 and len(vectors) % 2 == 0:
        raise NoAnswer("on a line every point between the two middle ones is a minimiser")
    z = mean_vector(vectors)
    for _ in range(20000):
        inverse = [1 / max(distance(vector, z), 1e-300) for vector in vectors]
        moved = [dot(inverse, column) / math.fsum(inverse) for column in columns(vectors)]
        step, z = distance(moved, z), moved
        if step < 1e-13 * max(distance(vector, z) for vector in vectors):
            break
    return list(min([z, *vectors], key=lambda point: sum_of_distances(vectors, point)))


def centered_clipping(vectors, f, tau=10.0, iterations=1, start=None):
    v = [0.0] * len(vectors[0]) if start is None else start
    for _ in range(iterations):
        steps = []
        for x in vectors:
            factor = 1.0 if distance(x, v) <= tau else tau / distance(x, v)
            steps.append([factor * (a - b) for a, b in zip(x, v, strict=True)])
        v = plus(v, 1, mean_vector(steps))
    return v
