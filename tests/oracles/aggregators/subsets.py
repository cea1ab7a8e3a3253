"""Rules that average the best of all subsets of n - f vectors, by brute force."""

import math
from itertools import combinations

import numpy as np

from oracles import NoAnswer
from oracles.arithmetic import mean_vector, squared_distance


def _subsets(members, size):
    if math.comb(len(members), size) > 5_000:
        raise NoAnswer(f"there are too many subsets of {size} of {len(members)} vectors to look at all of them")
    return combinations(members, size)


def mda(vectors, f):
    """Of the subsets of least diameter, the first when vectors are ranked by their crowding."""
    n = len(vectors)
    distances = [[squared_distance(x, y) for y in vectors] for x in vectors]
    ranked = sorted(range(n), key=lambda i: (math.fsum(sorted(distances[i])[: n - f]), i))
    best = min(_subsets(ranked, n - f), key=lambda subset: max(distances[i][j] for i in subset for j in subset))
    return mean_vector([vectors[i] for i in best])


def smea(vectors, f, max_subsets=None):
    def largest_variance(subset):
        return np.linalg.eigvalsh(np.cov(np.array(subset).T, bias=True).reshape(len(vectors[0]), -1))[-1]

    return mean_vector(min(_subsets(vectors, len(vectors) - f), key=largest_variance))
