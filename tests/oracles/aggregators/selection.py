"""Rules that average the vectors nearest to a point that is not computed from all of them."""

from oracles.arithmetic import dot, mean_vector, squared_distance


def monna(vectors, f, pivot=0):
    others = [i for i in range(len(vectors)) if i != pivot]
    others.sort(key=lambda i: (squared_distance(vectors[i], vectors[pivot]), i))
    return mean_vector([vectors[i] for i in [pivot, *others][: len(vectors) - f]])


def cge(vectors, f):
    return mean_vector(sorted(vectors, key=lambda x: dot(x, x))[: len(vectors) - f])
