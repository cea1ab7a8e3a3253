"""Means of some of the vectors."""

from oracles.arithmetic import distance, mean_vector


def nnm(vectors, f):
    n = len(vectors)
    mixed = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        others.sort(key=lambda j: (distance(vectors[i], vectors[j]), j))
        nearest = [vectors[i]] + [vectors[j] for j in others[: n - f - 1]]
        mixed.append(mean_vector(nearest))
    return mixed


def bucketing(vectors, f, draw, s=2):
    order = draw("permutation", len(vectors))
    buckets = [order[start : start + s] for start in range(0, len(order), s)]
    return [mean_vector([vectors[i] for i in bucket]) for bucket in buckets]
