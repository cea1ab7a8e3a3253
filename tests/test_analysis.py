"""Tables of the grid: hand-computed intervals, pairing by seed, one seed, diverged cells; the summary."""

import math

import pandas as pd
import pytest
from recorded import PARAMS, record, records, row_of
from searched import SETTINGS

from pipeline.report import analysis

T_2 = 4.302653  # Student's t, 97.5 %, 2 degrees of freedom, from a printed table


def compared(accuracies, partition="iid") -> pd.DataFrame:
    return analysis.comparison(analysis.cells_table(records(accuracies, partition)), SETTINGS)


def test_cells_name_what_they_are():
    cells = analysis.cells_table(records({("none", "krum"): [0.9], ("sign_flip", "krum"): [0.3]}, "alpha_03"))
    attacked = row_of(cells, attack="sign_flip")
    assert (attacked["defence"], attacked["partition"], attacked["seed"], attacked["strength"]) == (
        "krum",
        "alpha_03",
        0,
        PARAMS.attacks["sign_flip"].strength,
    )
    assert attacked["degradation"] == pytest.approx(0.6)
    clean = row_of(cells, attack="none")
    assert clean["degradation"] == 0
    assert math.isnan(clean["strength"])


def test_degradation_is_against_the_same_defence_partition_and_seed():
    mixed = [
        record("sign_flip", "krum", 1, 0.2, "iid"),
        record("none", "krum", 0, 0.9, "iid"),
        record("none", "krum", 1, 0.8, "iid"),
        record("none", "mean", 1, 0.7, "iid"),
        record("none", "krum", 1, 0.6, "alpha_1"),
    ]
    cells = analysis.cells_table(mixed)
    assert row_of(cells, attack="sign_flip")["degradation"] == pytest.approx(0.8 - 0.2)


def test_pairing_removes_what_the_seeds_have_in_common():
    table = compared({("none", "krum"): [0.9, 0.7, 0.5], ("sign_flip", "krum"): [0.8, 0.6, 0.4]})
    attacked = row_of(table, attack="sign_flip")
    assert attacked["accuracy_half_width"] == pytest.approx(T_2 * 0.2 / math.sqrt(3), rel=1e-5)
    assert attacked["degradation"] == pytest.approx(0.1)
    assert attacked["degradation_half_width"] == pytest.approx(0, abs=1e-12)


def test_comparison_of_a_hand_computed_group():
    table = compared({("none", "krum"): [0.9, 0.9, 0.9], ("ipm", "krum"): [0.8, 0.5, 0.5]})
    group = row_of(table, attack="ipm")
    sd = math.sqrt((0.04 + 0.01 + 0.01) / 2)
    assert group["accuracy"] == pytest.approx(0.6)
    assert group["accuracy_sd"] == pytest.approx(sd)
    assert group["accuracy_half_width"] == pytest.approx(T_2 * sd / math.sqrt(3), rel=1e-5)
    assert (group["accuracy_min"], group["accuracy_max"]) == (0.5, 0.8)
    assert (group["seeds"], group["diverged"]) == (3, 0)
    assert group["degradation"] == pytest.approx(0.3)


def test_one_seed_has_a_mean_and_no_interval():
    group = row_of(compared({("none", "krum"): [0.9], ("ipm", "krum"): [0.5]}), attack="ipm")
    assert group["degradation"] == pytest.approx(0.4)
    assert group[["accuracy_sd", "accuracy_half_width", "degradation_half_width"]].isna().all()


def test_a_diverged_cell_is_counted_and_kept():
    cells = analysis.cells_table(
        [
            record("none", "mean", 0, 0.9),
            record("none", "mean", 1, 0.9),
            record("ipm", "mean", 0, 0.1, loss=math.nan, diverged=1.0),
            record("ipm", "mean", 1, 0.5),
        ]
    )
    table = analysis.comparison(cells, SETTINGS)
    group = row_of(table, attack="ipm")
    assert (group["accuracy"], group["seeds"], group["diverged"]) == (pytest.approx(0.3), 2, 1)


def test_worst_attack_has_the_lowest_mean_and_is_never_none():
    table = compared(
        {
            ("none", "krum"): [0.1, 0.1],
            ("ipm", "krum"): [0.5, 0.5],
            ("alie", "krum"): [0.1, 0.7],
            ("none", "mean"): [0.9, 0.9],
            ("ipm", "mean"): [0.2, 0.2],
            ("alie", "mean"): [0.3, 0.3],
        }
    )
    worst = analysis.worst_attacks(table)
    assert dict(zip(worst["defence"], worst["attack"], strict=True)) == {"krum": "alie", "mean": "ipm"}


def test_headline_lists_every_partition_and_defence_in_the_order_of_the_grid():
    cells = [
        record(attack, defence, 0, accuracy, partition)
        for attack, accuracy in (("none", 0.9), ("ipm", 0.4))
        for defence in ("mean", "krum")
        for partition in ("iid", "alpha_1")
    ]
    heads = analysis.headline(analysis.comparison(analysis.cells_table(cells), SETTINGS))
    names = list(zip(heads["partition"], heads["defence"], strict=True))
    assert names == [("iid", "mean"), ("iid", "krum"), ("alpha_1", "mean"), ("alpha_1", "krum")]
    assert heads[["clean", "attack", "accuracy", "degradation"]].iloc[0].to_list() == [0.9, "ipm", 0.4, 0.5]


def test_headline_without_an_attack_has_clean_accuracy_alone():
    heads = analysis.headline(compared({("none", "krum"): [0.9, 0.9]}))
    assert heads["clean"].to_list() == [0.9]
    assert heads[["attack", "accuracy"]].isna().all(axis=None)


def test_curves_average_over_seeds_at_each_step():
    measured = analysis.curves(records({("none", "krum"): [0.9, 0.7, 0.5]}), 0.95)
    end = row_of(measured, steps_done=6)
    assert end["accuracy"] == pytest.approx(0.7)
    assert end["accuracy_half_width"] == pytest.approx(T_2 * 0.2 / math.sqrt(3), rel=1e-5)
    assert row_of(measured, steps_done=0)["accuracy"] == 0


def test_the_loss_of_a_diverged_seed_is_not_averaged_away():
    measured = analysis.curves([record("none", "krum", 0, 0.9), record("none", "krum", 1, 0.1, loss=math.inf)], 0.95)
    end = row_of(measured, steps_done=6)
    assert end["accuracy"] == pytest.approx(0.5)
    assert end[["loss", "loss_half_width"]].isna().all()


def test_wide_curves_have_a_column_a_defence():
    tables = analysis.wide_curves(
        analysis.curves(records({("none", "mean"): [0.8], ("none", "krum"): [0.6], ("ipm", "mean"): [0.2]}), 0.95)
    )
    assert list(tables) == ["iid.none", "iid.ipm"]
    assert tables["iid.none"].to_dict("list") == {"steps_done": [0, 6], "mean": [0.0, 0.8], "krum": [0.0, 0.6]}
