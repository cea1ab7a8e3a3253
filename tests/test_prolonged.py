"""Broken, slowed, holds, undecided: by hand, and what few seeds allow to say."""

from dataclasses import replace

import numpy as np
import pytest
from recorded import record, row_of
from searched import SETTINGS

from pipeline.report.analysis import cells_table, comparison
from pipeline.report.prolonged import prolonged_table, verdict
from pipeline.report.worst_case import with_verdicts

NOISE = np.array([-0.01, 0.01, -0.005, 0.005, 0.0])


@pytest.mark.parametrize(
    ("gain", "remaining", "expected"),
    [
        (0.2, 0.0, "slowed"),
        (0.2, 0.5, "slowed"),  # it still learns: what it would end at is not known
        (0.0, 0.5, "broken"),
        (-0.3, 0.5, "broken"),
        (0.0, 0.0, "holds"),
        (0.0, 0.03, "undecided"),  # what remains may be more than 3 points, or not
        (0.03, 0.5, "undecided"),  # the gain may be more than 3 points, or not
    ],
)
def test_verdict_with_five_seeds(gain, remaining, expected):
    assert verdict(gain + NOISE, remaining + NOISE, SETTINGS) == expected


@pytest.mark.parametrize("seeds", [1, 2, 4])
@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_fewer_than_five_seeds_decide_nothing(seeds, gain):
    assert verdict(gain + NOISE[:seeds], 0.5 + NOISE[:seeds], SETTINGS) == "undecided"


def test_four_seeds_suffice_at_a_lower_confidence():
    settings = SETTINGS.replace(confidence=0.9)
    assert verdict(0.3 + NOISE[:4], 0.5 + NOISE[:4], settings) == "slowed"


def test_one_seed_that_learns_among_five_that_do_not_decides_nothing():
    assert verdict(np.array([0.7, 0.0, 0.0, 0.0, 0.0]), np.full(5, 0.7), SETTINGS) == "undecided"


def test_at_most_one_verdict_holds():
    stream = np.random.default_rng(0)
    for gain in stream.normal(0.03, 0.03, size=(300, 6)):
        if verdict(gain, np.full(6, 0.5), SETTINGS) == "slowed":
            assert gain.mean() > SETTINGS.half_width
        if verdict(gain, np.full(6, 0.5), SETTINGS) == "broken":
            assert gain.mean() <= SETTINGS.half_width


def longer(found, steps, accuracy):
    """The same run, trained on."""
    cell = found.planned.cell
    cell = cell.replace(training=cell.training.replace(steps=steps))
    return replace(found, planned=replace(found.planned, cell=cell), final={**found.final, "test_accuracy": accuracy})


@pytest.fixture
def made():
    clean = [record("none", "krum", seed, 0.9 + noise) for seed, noise in enumerate(NOISE)]
    attacked = [record("ipm", "krum", seed, 0.4) for seed in range(5)]
    return [*clean, *attacked], [longer(found, 24, 0.6 + 0.01 * place) for place, found in enumerate(attacked)]


def test_table_pairs_by_seed_whatever_the_order(made):
    records, prolonged = made
    (row,) = prolonged_table(prolonged[::-1], cells_table(records), SETTINGS).to_dict("records")
    assert (row["attack"], row["defence"], row["partition"], row["seeds"], row["steps"]) == (
        "ipm",
        "krum",
        "iid",
        5,
        24,
    )
    assert row["accuracy"] == pytest.approx(0.4)
    assert row["gain"] == pytest.approx(0.22)
    assert row["remaining_degradation"] == pytest.approx(0.9 - 0.62)
    assert row["p_gain"] == 1 / 32
    assert (row["verdict"], row["converged"]) == ("slowed", False)


def test_a_prefix_of_the_seeds_is_compared_with_the_same_seeds(made):
    records, prolonged = made
    (row,) = prolonged_table(prolonged[:2], cells_table(records), SETTINGS).to_dict("records")
    assert row["seeds"] == 2
    assert row["gain"] == pytest.approx(0.205)
    assert row["verdict"] == "undecided"


def test_only_prolonged_rows_can_be_unconverged(made):
    records, prolonged = made
    cells = cells_table(records)
    compared = comparison(cells, SETTINGS)
    marked = with_verdicts(compared, prolonged_table(prolonged, cells, SETTINGS))
    assert row_of(marked, attack="ipm")[["unconverged", "verdict"]].to_list() == [True, "slowed"]
    assert not row_of(marked, attack="none")["unconverged"]
    same = [longer(found, 24, 0.4) for found in records if found.planned.attack == "ipm"]
    marked = with_verdicts(compared, prolonged_table(same, cells, SETTINGS))
    assert row_of(marked, attack="ipm")[["unconverged", "verdict"]].to_list() == [False, "broken"]
    assert not with_verdicts(compared, None)["unconverged"].any()
