"""The exact search for a subset of least diameter, on the host.

Whether ``keep`` of n points lie within distance D of each other asks for a vertex cover: the n - keep points that are
left out must touch every pair that is farther apart than D. Small covers are found fast by a bounded search tree, so
n = 30 with 10 points left out takes milliseconds where enumeration would look at 30 million subsets.
"""

from collections.abc import Iterator, Sequence

import numpy as np


def subset_of_least_diameter(distances: np.ndarray, keep: int) -> list[int]:
    """Return the points of the subset whose largest pairwise distance is least.

    Among subsets of equal diameter it is the one that comes first in lexicographic order, so that the caller's order
    of the points decides.

    Args:
        distances: ``[n, n]``, symmetric, zero on the diagonal, infinity allowed.
        keep: Size of the subset, more than n / 2.

    Returns:
        ``keep`` indices, ascending.

    Example:
        >>> points = np.array([0.0, 5.0, 6.0, 7.0])
        >>> subset_of_least_diameter(abs(points[:, None] - points), keep=3)
        [1, 2, 3]
    """
    levels = np.unique(distances)
    everyone, budget = (1 << len(distances)) - 1, len(distances) - keep
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if vertex_cover(_conflicts(distances, levels[middle]), everyone, budget) is None:
            low = middle + 1
        else:
            high = middle
    return _first_without_conflict(_conflicts(distances, levels[low]), keep)


def _conflicts(distances: np.ndarray, level: float) -> list[int]:
    """Return for every point the set of points farther than ``level``, bit j for point j."""
    rows = np.packbits(distances > level, axis=-1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def _first_without_conflict(conflicts: Sequence[int], keep: int) -> list[int]:
    """Return the lexicographically first ``keep`` points without a conflict among them; such points must exist."""
    n = len(conflicts)
    undecided, budget = (1 << n) - 1, n - keep
    cover = vertex_cover(conflicts, undecided, budget)
    kept: list[int] = []
    for v in range(n):
        if len(kept) < keep and undecided >> v & 1:
            undecided &= ~(1 << v)
            excluded = conflicts[v] & undecided
            if cover is None or cover >> v & 1:
                with_v = vertex_cover(conflicts, undecided & ~excluded, budget - excluded.bit_count())
                if with_v is None:
                    budget -= 1
                    continue
                cover = with_v | excluded
            kept.append(v)
            undecided, budget = undecided & ~excluded, budget - excluded.bit_count()
    return kept


def vertex_cover(conflicts: Sequence[int], vertices: int, budget: int) -> int | None:
    """Return at most ``budget`` vertices that touch every edge among ``vertices``, or None if there are none.

    Args:
        conflicts: For every vertex the set of its neighbours, bit j for vertex j.
        vertices: The set whose edges are to be covered.
        budget: Largest size of the cover; a negative one cannot be met.

    Returns:
        A set, bit j for vertex j.
    """
    if budget < 0:
        return None
    degrees = {v: (conflicts[v] & vertices).bit_count() for v in _members(vertices)}
    v = max(degrees, key=lambda vertex: degrees[vertex], default=0)
    highest = degrees.get(v, 0)
    if highest == 0:
        return 0
    if sum(degrees.values()) > 2 * budget * highest:
        return None
    return _branch(conflicts, vertices, budget, _choices(conflicts, vertices, budget, degrees, v))


def _choices(conflicts: Sequence[int], vertices: int, budget: int, degrees: dict[int, int], v: int) -> Iterator[int]:
    """Yield sets such that a smallest cover contains one of them.

    A vertex with more neighbours than the budget is in every cover. Where one end of an edge has no other neighbour,
    the other end covers as much. Otherwise it is the vertex or all of its neighbours.
    """
    leaf = next((u for u, degree in degrees.items() if degree == 1), None)
    if degrees[v] > budget:
        yield 1 << v
    elif leaf is not None:
        yield conflicts[leaf] & vertices
    else:
        yield 1 << v
        yield conflicts[v] & vertices


def _branch(conflicts: Sequence[int], vertices: int, budget: int, choices: Iterator[int]) -> int | None:
    for chosen in choices:
        rest = vertex_cover(conflicts, vertices & ~chosen, budget - chosen.bit_count())
        if rest is not None:
            return chosen | rest
    return None


def _members(vertices: int) -> Iterator[int]:
    while vertices:
        lowest = vertices & -vertices
        yield lowest.bit_length() - 1
        vertices ^= lowest
