"""The Pareto front: by hand, and against its definition row by row."""

import numpy as np
import pandas as pd

from pipeline.search.pareto import non_dominated


def test_by_hand():
    table = pd.DataFrame({"degradation": [0.1, 0.3, 0.2, 0.3, 0.05], "flagged": [0.0, 0.5, 0.5, 0.5, 0.0]})
    assert non_dominated(table).tolist() == [True, True, False, True, False]


def test_of_equal_damage_only_the_least_flagged_is_left():
    table = pd.DataFrame({"degradation": [0.3, 0.3, 0.3], "flagged": [0.5, 0.2, 0.4]})
    assert non_dominated(table).tolist() == [False, True, False]


def test_random_tables_against_the_definition():
    stream = np.random.default_rng(0)
    for _ in range(50):
        points = stream.integers(0, 6, size=(12, 2))  # small numbers: many ties
        expected = [not any((p != q).any() and p[0] >= q[0] and p[1] <= q[1] for p in points) for q in points]
        assert non_dominated(pd.DataFrame(points, columns=["degradation", "flagged"])).tolist() == expected
