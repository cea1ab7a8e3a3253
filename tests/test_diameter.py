"""The exact search for a subset of least diameter, against brute force and at sizes that brute force cannot reach."""

import time
from itertools import combinations

import numpy as np
import pytest

from pipeline.defences.diameter import subset_of_least_diameter, vertex_cover


def distances(points):
    return np.square(points[:, None] - points[None]).sum(axis=-1)


def brute_force(matrix, keep):
    """The lexicographically first of the subsets of least diameter."""
    return list(min(combinations(range(len(matrix)), keep), key=lambda s: matrix[np.ix_(s, s)].max()))


def hostile(points, stream):
    """Distances with some points infinitely far from all others, as rows that are not finite are."""
    matrix = distances(points)
    bad = stream.choice(len(points), size=min(2, len(points)), replace=False)
    matrix[bad], matrix[:, bad] = np.inf, np.inf
    np.fill_diagonal(matrix, 0.0)
    return matrix


def no_metric(numbers):
    """Symmetric numbers, many of them equal, that need not be distances of any points."""
    upper = np.triu(numbers, 1).astype(float)
    return upper + upper.T


KINDS = {
    "line": lambda stream, n: distances(stream.normal(size=(n, 1))),
    "plane": lambda stream, n: distances(stream.normal(size=(n, 2))),
    "many_dimensions": lambda stream, n: distances(stream.normal(size=(n, 500))),
    "clusters": lambda stream, n: distances(stream.normal(size=(n, 3)) * 0.1 + np.eye(3)[stream.integers(0, 3, n)]),
    "lattice_with_ties": lambda stream, n: distances(stream.integers(0, 3, size=(n, 2)).astype(float)),
    "no_metric": lambda stream, n: no_metric(stream.integers(1, 9, (n, n))),
    "colluding_copies": lambda stream, n: distances(np.repeat(stream.normal(size=(n, 4)), 3, axis=0)[:n]),
    "hostile": lambda stream, n: hostile(stream.normal(size=(n, 3)), stream),
    "all_equal": lambda stream, n: np.zeros((n, n)),
    "regular_simplex": lambda stream, n: distances(np.eye(n)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", range(1, 10))
def test_the_search_agrees_with_brute_force(kind, n):
    stream = np.random.default_rng(n)
    for _ in range(20):
        matrix = KINDS[kind](stream, n)
        for keep in range(n // 2 + 1, n + 1):
            assert subset_of_least_diameter(matrix, keep) == brute_force(matrix, keep)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "f"), [(30, 10), (30, 14)])
def test_a_search_that_brute_force_cannot_do_takes_milliseconds(kind, n, f):
    """30 million subsets of 20 out of 30; a millisecond or two, and the bound leaves room for a busy machine."""
    matrices = [KINDS[kind](np.random.default_rng(seed), n) for seed in range(5)]
    start = time.process_time()
    for matrix in matrices:
        chosen = subset_of_least_diameter(matrix, n - f)
        assert len(set(chosen)) == n - f
    assert time.process_time() - start < 1.0


def test_a_hidden_cluster_of_twenty_is_found():
    stream = np.random.default_rng(0)
    points = stream.normal(size=(30, 100))
    hidden = sorted(stream.choice(30, size=20, replace=False).tolist())
    points[hidden] *= 0.5
    assert subset_of_least_diameter(distances(points), 20) == hidden


GRAPHS = {
    "no_edge": ([0, 0, 0], 0),
    "edge": ([2, 1], 1),
    "path": ([2, 5, 10, 4], 2),
    "star": ([30, 1, 1, 1, 1], 1),
    "triangle": ([6, 5, 3], 2),
    "five_cycle": ([18, 5, 10, 20, 9], 3),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_vertex_cover_of_known_size(name):
    neighbours, least = GRAPHS[name]
    everyone = (1 << len(neighbours)) - 1
    for budget in range(-1, len(neighbours) + 1):
        cover = vertex_cover(neighbours, everyone, budget)
        assert (cover is not None) == (budget >= least)
        if cover is not None:
            assert cover.bit_count() <= budget
            assert not any(neighbours[v] & ~cover for v in range(len(neighbours)) if not cover >> v & 1)


@pytest.mark.parametrize("density", [0.1, 0.3, 0.6])
def test_vertex_cover_of_random_graphs(density):
    stream = np.random.default_rng(1)
    for _ in range(100):
        n = int(stream.integers(2, 9))
        edges = [pair for pair in combinations(range(n), 2) if stream.random() < density]
        neighbours = [sum(1 << (a + b - v) for a, b in edges if v in (a, b)) for v in range(n)]
        least = next(k for k in range(n + 1) for s in combinations(range(n), k) if all(set(e) & set(s) for e in edges))
        assert vertex_cover(neighbours, (1 << n) - 1, least) is not None
        assert vertex_cover(neighbours, (1 << n) - 1, least - 1) is None
