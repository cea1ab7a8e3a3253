"""Rules that look for the direction in which the vectors vary most."""

import math

import numpy as np

from oracles.arithmetic import mean_vector


def _top(vectors, weights):
    """The weighted mean, and the largest eigenvalue and its eigenvector of the weighted d x d covariance."""
    vectors, weights = np.array(vectors), np.array(weights) / math.fsum(weights)
    mean = weights @ vectors
    covariance = sum(w * np.outer(x - mean, x - mean) for w, x in zip(weights, vectors, strict=True))
    values, eigenvectors = np.linalg.eigh(covariance)
    return mean, values[-1], eigenvectors[:, -1]


def caf(vectors, f):
    n = len(vectors)
    c, seen = [1.0] * n, []
    while math.fsum(c) > n - 2 * f or not seen:
        mean, variance, direction = _top(vectors, c)
        seen.append((variance, len(seen), mean))
        t = [float((x - mean) @ direction) ** 2 for x in np.array(vectors)]
        largest = max(t[i] for i in range(n) if c[i] > 0)
        c = [max(c[i] * (1 - t[i] / largest), 0.0) for i in range(n)]
    return min(seen)[2].tolist()


caf.float32_error = 1e-4  # the direction of largest variance turns fast where two variances are close


def dnc(vectors, f, draw, niters=1, sub_dim=10_000, c=1.0):
    """The coordinates of an iteration are those with the smallest of d uniform numbers."""
    n, d = len(vectors), len(vectors[0])
    common = set(range(n))
    for iteration in range(niters):
        uniform = draw("uniform", d, iteration)
        sampled = np.array(vectors)[:, sorted(range(d), key=uniform.__getitem__)[:sub_dim]]
        centred = sampled - sampled.mean(axis=0)
        direction = np.linalg.svd(centred)[2][0]
        scores = (centred @ direction) ** 2
        kept = set(sorted(range(n), key=lambda i: scores[i])[: n - int(c * f)])
        common &= kept
    return mean_vector([vectors[i] for i in sorted(common or kept)])
