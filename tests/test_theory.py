"""Theory beside practice: the largest measured kappa, what has none, and where theory promises nothing."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from recorded import record, row_of
from support import parameters

from pipeline.report.theory import breakdown_point, theory_table

GRID = {"grid.defences": ["mean", "krum"], "grid.partitions": ["iid"]}
PARAMS = parameters(GRID)
PARTITIONS = pd.DataFrame({"partition": ["iid"], "G": [0.5], "B": [1.0]})


def measured(attack, defence, kappas, seed=0, b_squared=None):
    found = record(attack, defence, seed, 0.5)
    evaluations = {**found.evaluations, **({} if b_squared is None else {"b_squared": np.array(b_squared)})}
    return replace(found, steps={"empirical_kappa": np.array(kappas, dtype=float)}, evaluations=evaluations)


def table(*records, alone=()):
    clean = [measured("none", defence, [99.0]) for defence in PARAMS.grid.defences]
    return theory_table([*clean, *records], alone, PARTITIONS, PARAMS)


def test_the_largest_step_of_all_seeds_and_attacks_stands_beside_the_proven_kappa():
    rows = table(
        measured("ipm", "krum", [1.0, 2.0, 9.0]),
        measured("ipm", "krum", [1.0, 1.5, 3.0], seed=1),
        measured("alie", "krum", [8.0, 8.0, 8.0]),
    )
    krum = row_of(rows, defence="krum")
    assert (krum["kappa_measured"], krum["kappa_attack"], krum["kappa_typical"]) == (9.0, "ipm", 1.75)
    assert krum["kappa_proven"] == PARAMS.defences["krum"].kappa(7, 2)
    assert krum["unmeasured"] == 0


def test_a_defence_without_a_proof_or_without_an_attack_has_no_number():
    mean = row_of(table(), defence="mean")
    assert math.isnan(mean["kappa_proven"])
    assert math.isnan(mean["kappa_measured"])


def test_steps_without_a_finite_kappa_are_left_out_and_counted():
    rows = table(measured("ipm", "krum", [2.0, math.inf, math.nan]), measured("ipm", "mean", [math.nan, math.inf]))
    assert row_of(rows, defence="krum")[["kappa_measured", "unmeasured"]].to_list() == [2.0, 2]
    mean = row_of(rows, defence="mean")
    assert math.isnan(mean["kappa_measured"])
    assert mean["unmeasured"] == 2


@pytest.mark.parametrize(("b", "promised"), [(1.0, True), (1.3, False), (5.0, False)])
def test_theory_promises_nothing_beyond_the_breakdown_point(b, promised):
    """f / n = 2 / 7 = 0.286; 1 / (2 + 1.3^2) = 0.271."""
    clean = [measured("none", "mean", []), measured("none", "krum", [])]
    rows = theory_table(clean, [], PARTITIONS.assign(B=b), PARAMS)
    assert rows["promised"].to_list() == [promised] * 2
    assert rows["breakdown_point"].to_list() == [breakdown_point(b)] * 2


def test_along_training_of_the_honest_workers_alone_where_it_was_measured():
    alone = measured("none", "mean", [1.0], b_squared=[0.0, 1.0, 4.0, math.inf, math.nan])
    for _, row in table(alone=[alone]).iterrows():
        assert row["B_typical"] == pytest.approx((1 + 2) / 2)
        assert row["G"] == 0.5
        assert row["unpromised_share"] == 0.5  # 2 / 7 is beyond 1 / 6 and 0, not beyond 1 / 2 and 1 / 3
    assert table()["B_typical"].isna().all()
