"""What tuning changed: the worst attack of each trial, the common rate beside the chosen one."""

import pandas as pd
import pytest
from recorded import row_of

from pipeline.report.figures.style import FigureContext, line_styles
from pipeline.report.figures.tuning import learning_rates
from pipeline.report.tuning import Tuning, tuned_table, tuning_trials

ACCURACIES = {  # trial -> learning rate, then attack -> accuracies of two seeds
    0: (0.5, {"ipm": (0.4, 0.6), "alie": (0.7, 0.7)}),
    1: (0.1, {"ipm": (0.8, 0.8), "alie": (0.6, 0.7)}),
    2: (2.0, {"ipm": (0.1, 0.1), "alie": (0.9, 0.9)}),
}


def rows() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **{"trial": trial, "origin": "common" if trial == 0 else "grid", "learning_rate": rate},
                **{"parameters": '{"rule": {"tau": 0.1}}', "attack": attack, "seed": seed, "accuracy": accuracy},
            }
            for trial, (rate, attacks) in ACCURACIES.items()
            for attack, accuracies in attacks.items()
            for seed, accuracy in enumerate(accuracies)
        ]
    )


@pytest.fixture
def trials():
    return tuning_trials(Tuning({"krum": rows(), "mean": rows()}, {"krum": 1, "mean": 0}), 0.95)


def test_a_trial_is_judged_by_its_worst_attack(trials):
    of_krum = trials[trials["defence"] == "krum"]
    assert of_krum["attack"].to_list() == ["ipm", "alie", "ipm"]
    assert of_krum["accuracy"].to_list() == pytest.approx([0.5, 0.65, 0.1])
    assert of_krum["chosen"].to_list() == [False, True, False]
    assert of_krum["accuracy_half_width"].iloc[0] == pytest.approx(12.7062 * 0.1, rel=1e-5)


def test_the_common_rate_stands_beside_the_chosen_one(trials):
    table = tuned_table(trials)
    krum = row_of(table, defence="krum")
    assert (krum["trials"], krum["seeds"]) == (3, 2)
    assert (krum["common_learning_rate"], krum["tuned_learning_rate"]) == (0.5, 0.1)
    assert (krum["common_attack"], krum["tuned_attack"]) == ("ipm", "alie")
    assert krum["gain"] == pytest.approx(0.15)
    assert row_of(table, defence="mean")["gain"] == 0


def test_the_figure_marks_the_common_and_the_chosen_rate(trials):
    figure = learning_rates(trials, FigureContext(line_styles(["mean", "krum"]), 0.1, 0.95, 6))
    axes = {axes.get_title(): axes for axes in figure.axes}["krum"]
    marked = {
        line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() in ("s", "*")
    }
    assert marked == {"s": (0.5, 50.0), "*": (0.1, pytest.approx(65.0))}
    curve = next(line for line in axes.lines if line.get_color() == line_styles(["mean", "krum"])["krum"].color)
    assert list(curve.get_xdata()) == [0.1, 0.5, 2.0]
