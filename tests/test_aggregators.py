"""Every registered rule against every check of the contract."""

from contextlib import suppress

import conditions
import oracles
import pytest
import torch
from aggregator_contract import (
    CHECKS,
    RULES,
    SIZES,
    VARIANTS,
    aggregate,
    applies,
    assert_close,
    assert_is_its_twin,
    streams,
)
from inputs import unequal_vectors
from robustness import hardest_kappa

from pipeline.core.errors import UserError
from pipeline.defences.aggregators import AGGREGATORS


def contract():
    for name, rule in {**RULES, **VARIANTS}.items():
        for label, function in CHECKS.items():
            reason = rule.exceptions.get(label)
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            for n, f in SIZES:
                if applies(rule, label, n, f) and not (reason and f == 0):  # with f = 0 most rules are the mean
                    yield pytest.param(rule, function, n, f, id=f"{name}-{label}-n{n}-f{f}", marks=marks)


@pytest.mark.parametrize(("rule", "function", "n", "f"), list(contract()))
def test_contract(rule, function, n, f):
    function(rule, n, f)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_hundred_workers(rule):
    """Of which a quarter is tolerated, or one where the slow twin looks at all subsets."""
    for f in (24, 1):
        with suppress(oracles.NoAnswer):
            if rule.tolerates(100, f):
                return assert_is_its_twin(rule, unequal_vectors(100, 5), f)
    return pytest.skip(f"{rule.name} tolerates no such f, or its twin has no answer")


def test_the_least_diameter_of_a_hundred_workers_leaves_out_what_was_planted():
    vectors = unequal_vectors(100, 5).float()
    vectors[::4] += 40 * torch.eye(5)[torch.arange(25) % 5]
    honest = torch.arange(100) % 4 != 0
    assert_close(aggregate(RULES["mda"], vectors, 25), vectors[honest].mean(dim=0), 1e-5)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_metadata(rule):
    assert rule.formula
    assert rule.reference
    assert rule.condition
    assert set(rule.exceptions) <= set(CHECKS), "an exception from a check that does not exist"
    assert AGGREGATORS.parse(rule.content(), "rule") == rule


STATED = {**RULES, **VARIANTS, "smea_of_few_subsets": AGGREGATORS["smea"](max_subsets=50)}


@pytest.mark.parametrize("rule", STATED.values(), ids=STATED)
def test_tolerates_is_the_condition(rule):
    conditions.check(rule)


class Deserter(type(RULES["median"])):
    condition = "n > 3f"


class Wordy(type(RULES["median"])):
    condition = "a majority of honest workers"


def test_a_condition_that_is_not_what_is_tolerated_is_found():
    with pytest.raises(AssertionError, match=r"median: n > 3f, but tolerates\(3, 1\) is True"):
        conditions.check(Deserter())
    with pytest.raises(AssertionError, match="should be comparisons of n, f and parameters joined by 'and'"):
        conditions.check(Wordy())


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_an_f_that_is_not_tolerated_is_refused_by_the_call(rule):
    for n, f in [(17, -1), (17, 17), (7, 9), *((17, f) for f in range(17))]:
        if not rule.tolerates(n, f):
            with pytest.raises(UserError, match=f"^{rule.name} needs .*, got n = {n}, f = {f}(, |$)"):
                rule.aggregate(torch.zeros(1, n, 3), f, stream=streams(0, 1))


def test_a_parameter_in_the_condition_is_told():
    told = AGGREGATORS["monna"](pivot=7).unmet(7, 1)
    assert told == "monna needs n > 2f and pivot < n, got n = 7, f = 1, pivot = 7"


KAPPA = {
    "median": lambda r: 4 * (1 + r) ** 2,
    "trimmed_mean": lambda r: 6 * r * (1 + r),
    "krum": lambda r: 6 * (1 + r),
    "geometric_median": lambda r: 4 * (1 + r) ** 2,
    "smea": lambda r: 4 * r,
}


@pytest.mark.parametrize(("n", "f"), [(7, 0), (7, 2), (9, 3), (17, 5)])
def test_kappa_is_the_published_one(n, f):
    for name, formula in KAPPA.items():
        assert RULES[name].kappa(n, f) == pytest.approx(formula(f / (n - 2 * f)))
    assert RULES["mean"].kappa(n, f) == (0 if f == 0 else None)
    assert RULES["mda"].kappa(n, f) == pytest.approx(8 * f**2 / (n - f))
    assert VARIANTS["krum_one_neighbour_more"].kappa(n, f) == RULES["krum"].kappa(n, f)
    assert VARIANTS["krum_plain_distance"].kappa(n, f) is VARIANTS["krum_fourth_power"].kappa(n, f) is None


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("n", "f"), [(7, 1), (8, 2), (9, 3)])
def test_enumeration_refutes_a_kappa_below_the_lower_bound(name, n, f):
    if not RULES[name].tolerates(n, f):
        pytest.skip(f"{name} needs {RULES[name].condition}")
    found = hardest_kappa(lambda vectors: aggregate(RULES[name], vectors, f), n, f)
    assert found >= 0.999 * f / (n - 2 * f)


SAMPLED = {"dnc_of_600_coordinates": AGGREGATORS["dnc"](niters=2, sub_dim=600)}


@pytest.mark.company
@pytest.mark.parametrize("rule", {**RULES, **SAMPLED}.values(), ids={**RULES, **SAMPLED})
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_result_does_not_depend_on_batch_mates(rule, dtype):
    vectors = unequal_vectors(60, 17, 1410, dtype=dtype)
    vectors[7, :3], vectors[20] = torch.nan, 1e-8 * vectors[20]
    alone = {replica: aggregate(rule, vectors[replica], 3, first=replica) for replica in (0, 1, 5, 7, 20, 59)}
    for first, size in [(0, 60), (0, 1), (0, 3), (5, 3), (19, 3), (59, 1)]:
        together = aggregate(rule, vectors[first : first + size], 3, first=first)
        for replica, expected in alone.items():
            if first <= replica < first + size:
                assert torch.equal(together[replica - first].nan_to_num(), expected.nan_to_num())
