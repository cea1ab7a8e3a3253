"""How often intervals cover, measured; docs/statistics.md tells the same numbers."""

import numpy as np
import pytest
from scipy.stats import binom
from support import ROOT

from pipeline.report.coverage import DRAWS, OUTCOMES, coverage, coverage_of_added
from pipeline.report.intervals import clopper_pearson
from pipeline.runs import params

SEEDS = [5, 10, 20, 40]
PROBABILITIES = [0.05, 0.2, 0.5]
AIMS = [0.01, 0.03, 0.05]  # half widths


@pytest.fixture(scope="module")
def measured():
    return coverage(SEEDS, 0.95).set_index("seeds")


@pytest.fixture(scope="module")
def added():
    """With the rounds of the default params.yaml."""
    grid = params.load(ROOT / "params.yaml").grid
    return coverage_of_added(len(grid.seeds), grid.max_seeds, AIMS, 0.95).set_index("half_width")


def exact_coverage(probability, runs):
    """No simulation needed: the binomial distribution says how often each count occurs."""
    ends = [clopper_pearson(hits, runs, 0.95) for hits in range(runs + 1)]
    held = np.array([low <= probability <= high for low, high in ends])
    return float(held @ binom.pmf(np.arange(runs + 1), runs, probability))


def test_the_t_interval_covers_normal_outcomes(measured):
    assert measured["normal"].to_numpy() == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / DRAWS))


def test_the_t_interval_covers_too_rarely_where_few_runs_collapse_and_better_with_more_seeds(measured):
    """Of five runs, none collapses in 0.8^5 = 33 %: then the interval is narrow and around the wrong hump."""
    rare = measured["one run in five collapses"]
    assert rare[5] == pytest.approx(1 - 0.8**5, abs=0.03)
    assert rare.is_monotonic_increasing
    assert rare[40] > 0.92


def test_adding_seeds_costs_coverage_where_the_scatter_is_what_is_aimed_at(added):
    """A standard deviation of 0.05 and 12 seeds: half of the groups stop, those that look precise."""
    assert added["normal"][0.01] == pytest.approx(0.95, abs=0.01)  # no group stops early
    assert 0.93 < added["normal"][0.03] < added["normal"][0.01]


def test_clopper_pearson_covers_at_least_as_often_as_it_says():
    grid = [exact_coverage(p, runs) for p in np.linspace(0.01, 0.99, 99) for runs in SEEDS]
    assert min(grid) >= 0.95
    assert min(grid) < 0.97  # and not by always saying "anything"


def tables_of_the_docs():
    """The rows of numbers of each table of docs/statistics.md."""
    lines = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if row[0].isdigit()]


def test_the_docs_tell_what_was_measured(measured, added):
    told = tables_of_the_docs()
    of_t = [[str(count), *(f"{100 * measured.loc[count, name]:.1f}" for name in OUTCOMES)] for count in SEEDS]
    of_cp = [[str(n), *(f"{100 * exact_coverage(p, n):.1f}" for p in PROBABILITIES)] for n in SEEDS]
    of_added = [[f"{100 * aim:g}", *(f"{100 * added.loc[aim, name]:.1f}" for name in OUTCOMES)] for aim in AIMS]
    assert told == of_t + of_cp + of_added
