"""What the seeds of a group come to, by hand; the grid's tables where groups have different numbers of seeds."""

import math

import numpy as np
import pandas as pd
import pytest
from recorded import record, row_of
from searched import SETTINGS

from pipeline.report import analysis
from pipeline.report.outcomes import OUTCOME, against_alone, outcomes
from pipeline.runs.plan import Planned
from pipeline.runs.store import Record


def runs(accuracies, **columns) -> pd.DataFrame:
    table = {"group": "a", "seed": range(len(accuracies)), "accuracy": accuracies, "diverged": 0}
    return pd.DataFrame({**table, "degradation": 0.0, "alone_degradation": math.nan, **columns})


def outcome(accuracies, **columns) -> pd.Series:
    return outcomes(runs(accuracies, **columns), ["group"], SETTINGS).iloc[0]


def test_two_humps_are_told_by_quantiles_and_collapses():
    row = outcome([0.1, 0.2, 0.8, 0.8, 0.9])
    assert list(row.index) == ["group", *OUTCOME, "accuracy_sd"]
    assert row["accuracy"] == pytest.approx(0.56)
    assert (row["accuracy_lower_quartile"], row["accuracy_median"], row["accuracy_upper_quartile"]) == (0.2, 0.8, 0.8)
    assert (row["accuracy_min"], row["accuracy_max"]) == (0.1, 0.9)
    assert (row["collapsed"], row["seeds"], row["collapse"]) == (2, 5, 0.4)
    assert (row["collapse_low"], row["collapse_high"]) == pytest.approx((0.0527, 0.8534), abs=1e-4)  # printed table
    assert not row["precise"]


def test_a_run_at_the_limit_has_not_collapsed():
    assert outcome([0.5, 0.4999])["collapsed"] == 1


def test_precise_where_the_half_width_is_reached():
    assert outcome([0.80, 0.81, 0.80, 0.81])["precise"]
    assert not outcome([0.80])["precise"]  # one seed has no interval


def test_alone_counts_the_common_seeds_only():
    row = outcome([0.5, 0.5, 0.5], alone_degradation=[0.4, math.nan, 0.2])
    assert row["alone_degradation"] == pytest.approx(0.3)
    assert row["alone_degradation_half_width"] == pytest.approx(12.7062 * 0.1, rel=1e-5)
    assert math.isnan(outcome([0.5])["alone_degradation"])


def test_against_alone_is_paired_by_partition_and_seed():
    alone = pd.DataFrame({"partition": ["iid", "iid", "x"], "seed": [1, 0, 1], "accuracy": [0.9, 0.8, 0.1]})
    attacked = pd.DataFrame({"partition": ["iid", "iid", "y"], "seed": [0, 1, 0], "accuracy": [0.5, 0.5, 0.5]})
    np.testing.assert_allclose(against_alone(attacked, alone), [0.3, 0.4, math.nan])


def alone_record(seed, accuracy) -> Record:
    found = record("none", "mean", seed, accuracy)
    return Record(Planned("absent", "mean", "iid", found.planned.cell), *list(vars(found).values())[1:])


def test_a_group_with_fewer_seeds_is_compared_on_its_own():
    clean = [record("none", "krum", seed, 0.9 - 0.1 * seed) for seed in range(4)]
    attacked = [record("ipm", "krum", seed, 0.6) for seed in range(2)]
    alone = [alone_record(seed, 0.95) for seed in range(4)]
    table = analysis.comparison(analysis.cells_table([*clean, *attacked], alone), SETTINGS)
    row = row_of(table, attack="ipm")
    assert row["seeds"] == 2
    assert row["degradation"] == pytest.approx((0.3 + 0.2) / 2)
    assert row["alone_degradation"] == pytest.approx(0.35)
    assert row_of(table, attack="none")["alone_degradation"] == pytest.approx(0.95 - 0.75)
