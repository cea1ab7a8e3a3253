"""Tables of the search: pairing, the paired test over all studies, fronts, breakdown, transfer, what may be missing."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from searched import DEFENCES, FRESH_SEEDS, SETTINGS, studies, study

from pipeline.report.search_tables import search_files, search_tables

T_4, T_11 = 2.776445, 2.200985  # Student's t, 97.5 %, 4 and 11 degrees of freedom, from a printed table


@pytest.fixture(scope="module")
def made():
    return studies()


@pytest.fixture(scope="module")
def tables(made):
    return search_tables(made, DEFENCES, 5, SETTINGS)


def tabulated(*made, byzantine=5):
    return search_tables(made, DEFENCES, byzantine, SETTINGS)


def row_of(table, **names) -> pd.Series:
    """The one row in which every column of ``names`` has that value."""
    rows = table[np.logical_and.reduce([table[column] == value for column, value in names.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def confirmed_as(study, **degradations):
    """``study`` with its confirmation replaced: candidate -> degradation of every fresh seed, for krum alone."""
    rows = [
        {
            **{"defence": "krum", "byzantine": 5, "candidate": candidate, "trial": place, "attack": "ipm"},
            **{"parameters": f'{{"strength": {place + 0.5}}}', "seed": seed, "clean_accuracy": 0.9},
            **{"attacked_accuracy": 0.9 - value, "degradation": value, "diverged": False, "flagged": math.nan},
        }
        for place, (candidate, values) in enumerate(degradations.items())
        for seed, value in zip(FRESH_SEEDS, values, strict=False)
    ]
    return replace(study, confirmation=pd.DataFrame(rows), transfer=None)


def test_trials_are_averaged_over_the_seeds_of_the_search(made, tables):
    row = row_of(tables.trials, study="ipm", defence="krum", trial=0)
    own = made[1].trials.query("defence == 'krum' and trial == 0")["degradation"]
    assert (row["origin"], row["strength"], row["seeds"]) == ("literature", 0.1, 3)
    assert row["degradation"] == pytest.approx(own.mean())


def test_rows_stand_in_the_order_of_params(tables):
    assert tuple(tables.at_threat["defence"].unique()) == DEFENCES
    assert list(tables.at_threat["study"].unique()) == ["sign_flip", "ipm", "worst"]
    assert tuple(tables.transfer["to_defence"].unique()) == DEFENCES


def test_the_difference_is_paired_by_seed_whatever_the_order_of_rows():
    literature, found = [0.1, 0.5, 0.3, 0.2, 0.4], [0.2, 0.61, 0.42, 0.3, 0.5]
    rows = confirmed_as(study("ipm"), literature=literature, found=found)
    shuffled = replace(rows, confirmation=rows.confirmation.sample(frac=1, random_state=0))
    row = tabulated(shuffled).compared.iloc[0]
    differences = np.subtract(found, literature)
    assert (row["literature_strength"], row["found_strength"]) == (0.5, 1.5)
    assert row["difference"] == pytest.approx(differences.mean())
    assert row["difference_half_width"] == pytest.approx(T_4 * differences.std(ddof=1) / math.sqrt(5), rel=1e-5)
    assert row["p"] == 1 / 32  # all five are positive
    assert row["p_adjusted"] == row["p"]
    assert row["significant"]


def test_a_less_harmful_find_is_not_significant():
    row = tabulated(confirmed_as(study("ipm"), literature=[0.4, 0.5, 0.6], found=[0.1, 0.3, 0.2])).compared.iloc[0]
    assert row["difference"] < 0
    assert row["p"] > 0.9
    assert not row["significant"]


def test_holm_counts_the_comparisons_of_all_studies():
    weak = confirmed_as(study("ipm"), literature=[0.1, 0.2, 0.3, 0.2, 0.1], found=[0.2, 0.21, 0.36, 0.21, 0.12])
    alone = tabulated(weak).compared.iloc[0]
    others = [confirmed_as(study(f"study_{i}"), literature=[0.1, 0.3, 0.2], found=[0.3, 0.1, 0.2]) for i in range(9)]
    among = row_of(tabulated(weak, *others).compared, study="ipm")
    assert among["p"] == alone["p"]
    assert among["p_adjusted"] == pytest.approx(10 * alone["p"])
    assert alone["significant"]
    assert not among["significant"]


def test_the_default_itself_found_is_no_difference_and_counts():
    both = [0.1, 0.2, 0.4]
    row = tabulated(confirmed_as(study("ipm"), literature=both, found=both)).compared.iloc[0]
    assert (row["difference"], row["difference_half_width"], row["p"]) == (0, 0, 1)


def test_one_seed_has_a_difference_and_no_test():
    row = tabulated(confirmed_as(study("ipm"), literature=[0.1], found=[0.4])).compared.iloc[0]
    assert row["difference"] == pytest.approx(0.3)
    assert row[["difference_half_width", "p", "p_adjusted"]].isna().all()
    assert not row["significant"]


def test_no_published_value_is_not_compared():
    row = tabulated(confirmed_as(study("ipm"), found=[0.1, 0.4, 0.2])).compared.iloc[0]
    assert row["found_degradation"] == pytest.approx(0.7 / 3)
    assert row[["literature_degradation", "literature_parameters", "difference", "p"]].isna().all()
    assert not row["significant"]


def test_worst_is_the_study_that_degrades_most(tables):
    worst = row_of(tables.worst["found"], defence="median")
    rows = tables.confirmed.query("defence == 'median' and candidate == 'found' and mode in ['strength', 'worst']")
    assert worst["degradation"] == rows["degradation"].max()


def test_only_the_threats_attackers_are_compared_across_studies(made):
    assert tabulated(made[1], byzantine=4).at_threat.empty
    assert set(tabulated(made[4]).compared["byzantine"]) == set(range(1, 9))


def test_front_rises_and_knows_what_was_confirmed(made, tables):
    front = tables.front[tables.front["defence"] == "mean"]
    assert front["flagged"].is_monotonic_increasing
    assert front["degradation"].is_monotonic_increasing
    again = made[3].confirmation.query("defence == 'mean' and candidate == 'front_2'")
    row = row_of(front, candidate="front_2")
    assert row["trial"] == again["trial"].iloc[0]
    assert row["confirmed_degradation"] == pytest.approx(again["degradation"].mean())
    assert row["confirmed_flagged"] == pytest.approx(again["flagged"].mean())


def test_a_breakdown_ends_where_the_defence_no_longer_tolerates(tables):
    last = tables.breakdown.groupby("defence")["byzantine"].max()
    assert last["krum"] == 7
    assert last.drop("krum").eq(8).all()
    start = tables.breakdown[tables.breakdown["byzantine"] == 0]
    assert start["degradation"].eq(0).all()


def test_transfer_is_against_the_targets_own_strength(made, tables):
    moved = made[1].transfer.set_index(["from_defence", "to_defence", "seed"])["degradation"]
    row = row_of(tables.transfer, study="ipm", from_defence="krum", to_defence="mean")
    assert row["degradation"] == pytest.approx(moved["krum", "mean"].mean())
    lost = moved["mean", "mean"] - moved["krum", "mean"]
    assert row["lost"] == pytest.approx(lost.mean())
    assert row["lost_half_width"] == pytest.approx(T_11 * lost.std(ddof=1) / math.sqrt(12), rel=1e-5)
    diagonal = tables.transfer[tables.transfer["from_defence"] == tables.transfer["to_defence"]]
    assert diagonal["lost"].eq(0).all()


@pytest.mark.parametrize(
    ("mode", "files"),
    [
        ("strength", {"trials", "confirmation", "literature_and_found", "transfer", "ranges"}),
        ("worst", {"trials", "confirmation", "literature_and_found", "ranges"}),
        ("stealth", {"trials", "confirmation", "pareto"}),
        ("breakdown", {"trials", "confirmation", "literature_and_found", "breakdown", "ranges"}),
    ],
)
def test_a_mode_alone_has_its_own_tables(mode, files):
    assert set(search_files(tabulated(study("only", mode, defences=("mean", "krum"))))) == files
