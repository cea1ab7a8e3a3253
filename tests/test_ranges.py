"""The range of a found strength: what it holds, where it stops, and how many digits it prints."""

import json

import numpy as np
import pandas as pd
import pytest
from recorded import row_of
from searched import DEFENCES, SETTINGS, study, tried

from pipeline.report.ranges import found_range, in_digits, ranges_table, strength_alone
from pipeline.report.search_tables import search_tables

SEEDS = (100, 101, 102)


def trials(of, sign=()) -> pd.DataFrame:
    """A trial for each strength, with its degradation for every seed; ``sign`` gives the trials' second parameter."""
    rows = []
    for trial, (strength, degradations) in enumerate(of.items()):
        parameters = {"strength": strength, **({"sign": sign[trial]} if sign else {})}
        for seed, degradation in zip(SEEDS, degradations, strict=True):
            names = {"trial": trial, "parameters": json.dumps(parameters)}
            rows.append({**names, "seed": seed, "degradation": degradation})
    return pd.DataFrame(rows)


FLAT = {
    0.1: (0.10, 0.11, 0.09),
    0.8: (0.60, 0.65, 0.55),
    2.0: (0.62, 0.66, 0.58),
    5.0: (0.61, 0.60, 0.62),
    9.0: (0.20, 0.25, 0.15),
}


def test_the_range_holds_what_cannot_be_told_from_the_worst():
    """Against 2: 0.8 differs by 0.02 ± 0.025, 5 by 0.01 ± 0.12, 9 by 0.42 ± 0.025."""
    found = found_range(trials(FLAT), trial=2, confidence=0.95)
    assert (found["low"], found["high"], found["tried"], found["range"]) == (0.8, 5.0, 3, "0.8 to 5")


def test_a_lower_confidence_tells_more_apart():
    """0.02 ± 0.0048 at 50 %: the interval no longer holds 0."""
    assert found_range(trials(FLAT), 2, 0.5)["low"] == 2.0


def test_the_range_does_not_jump_over_what_can_be_told():
    beyond = {**FLAT, 20.0: (0.62, 0.66, 0.58)}
    assert found_range(trials(beyond), 2, 0.95)["high"] == 5.0


def test_only_trials_with_the_same_choices_count():
    found = found_range(trials(FLAT, sign=(-1, 1, -1, -1, -1)), 2, 0.95)
    assert (found["low"], found["high"], found["tried"]) == (2.0, 5.0, 2)


def test_a_single_strength_is_printed_once():
    peak = {0.1: (0.1, 0.1, 0.1), 0.87: (0.9, 0.9, 0.9), 5.0: (0.1, 0.1, 0.1)}
    assert found_range(trials(peak), 1, 0.95)["range"] == "0.9"


def test_one_seed_tells_nothing_apart():
    one = trials(FLAT)[lambda rows: rows["seed"] == 100]
    assert found_range(one, 2, 0.95)["tried"] == len(FLAT)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 1.234, 5.0], "1"),
        ([1.15, 1.234, 1.3], "1.2"),
        ([100.0, 128.0, 131.0], "130"),
        ([1.0, 28.37, 90.0], "30"),
        ([0.01, 0.01023, 0.02], "0.01"),
    ],
)
def test_digits_follow_the_spacing_of_neighbours(values, expected):
    assert in_digits(np.array(values), 1) == expected


@pytest.mark.parametrize(
    ("spaces", "expected"),
    [
        ({"ipm": {"strength": {"low": 0.1, "high": 1}}}, True),
        ({"alie": {"strength": {"low": 0.1, "high": 1}, "sign": {"choices": [-1, 1]}}}, True),
        ({"alie": {"strength": {"low": 0.1, "high": 1}, "start": {"low": 0, "high": 75}}}, False),
        ({"alie": {"start": {"low": 0, "high": 75}}}, False),
        ({"ipm": {"strength": {"low": 0.1, "high": 1}}, "alie": {"strength": {"low": 0.1, "high": 1}}}, False),
    ],
)
def test_a_range_needs_the_strength_alone_between_bounds(spaces, expected):
    assert strength_alone(spaces) is expected


def test_every_found_strength_lies_in_its_range_and_is_told_with_it():
    made = [study("ipm"), study("both", "worst", ("ipm", "alie")), study("breakdown", "breakdown")]
    tables = search_tables(made, DEFENCES, 5, SETTINGS)
    assert set(tables.ranges["study"]) == {"ipm", "breakdown"}
    compared = tables.compared[tables.compared["study"] == "ipm"]
    for row in compared.to_dict("records"):
        own = row_of(tables.ranges, study="ipm", defence=row["defence"])
        assert own["low"] <= row["found_strength"] <= own["high"]
        assert {own["low"], own["high"]} <= {strength for _, strength in tried("ipm", 24)}
        assert row["found_range"] == own["range"]
    assert tables.compared[tables.compared["study"] == "both"]["found_range"].isna().all()
    assert ranges_table([made[1]], 0.95).empty
