"""What a search varies: every attack's space lies within its own fields, and params.yaml can change it."""

import pytest
import torch
from inputs import example
from support import CPU, assert_identical, blobs, cell, parameters, raw_parameters, train

from pipeline.attacks import ATTACKS, Choice, Range, TunableAttack, VectorAttack
from pipeline.attacks.base import scheduled
from pipeline.core.errors import UserError
from pipeline.core.space import values_of
from pipeline.runs.params import validate
from pipeline.search.study import Study
from pipeline.simulator.gradients import vmap_gradients
from pipeline.simulator.program import build

SEARCHED = [name for name in ATTACKS.names if issubclass(ATTACKS[name], VectorAttack)]


@pytest.mark.parametrize("name", SEARCHED)
def test_the_space_of_every_attack_lies_within_its_fields(name):
    attack = example(ATTACKS[name])
    space = attack.searched({}, "here")
    assert ("strength" in space) == isinstance(attack, TunableAttack)
    for parameter, entry in space.items():
        assert parameter in ATTACKS[name].model_fields
        for value in values_of(entry):
            assert getattr(attack.replace(**{parameter: value}), parameter) == value
    if isinstance(attack, TunableAttack):
        assert space["strength"].log
        assert all(space["strength"].low <= theta <= space["strength"].high for theta in attack.literature(17, 5))


def test_the_spaces_of_the_catalogue():
    def of(name):
        return ATTACKS[name]().searched({}, "")

    assert of("sign_flip") == {"strength": Range(0.1, 100, log=True)}
    assert of("alie") == {"strength": Range(0.05, 20, log=True), "sign": Choice((-1, 1))}
    assert of("min_max")["dev"] == Choice(("unit", "sign", "sd"))
    assert set(of("mimic")) == {"warmup", "target"}
    assert set(of("rop")) == {"strength", "pi", "lambda_", "angle"}
    assert of("zero") == {}


def test_bounds_and_choices_of_params_yaml_replace_and_add():
    attack = ATTACKS["alie"]()
    formulas = ("(n-f-s)/(n-f)", "(n-s)/n")
    changes = {
        "strength": [1, 2],
        "sign": [1],
        "start": [0, 75],
        "ramp": [0, 5, 10],
        "z_formula": ["(n-f-s)/(n-f)", "(n-s)/n"],
    }
    assert attack.searched(changes, "") == {
        "strength": Range(1.0, 2.0, log=True),
        "sign": Choice((1,)),
        "start": Range(0.0, 75.0, whole=True),
        "ramp": Choice((0, 5, 10)),
        "z_formula": Choice(formulas),
    }
    assert ATTACKS["sign_flip"]().searched({"own": [False, True]}, "")["own"] == Choice((False, True))
    assert ATTACKS["mimic"]().searched({"warmup": [0, 5]}, "")["warmup"] == Choice((0, 5))  # declared as a choice
    assert attack.searched({}, "") == {"strength": Range(0.05, 20, log=True), "sign": Choice((-1, 1))}


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"strenght": [1, 2]}, r"here\.strenght: unknown parameter; one of .*'strength'.* - did you mean 'strength'\?"),
        ({"strength": [0, 2]}, r"here\.strength = 0: should be greater than 0"),
        ({"strength": [2, 1]}, r"here\.strength = \[2, 1\]: the lower bound should be below the upper one"),
        ({"strength": [2, 2]}, r"here\.strength = \[2, 2\]: the lower bound"),
        ({"sign": [-1, 2]}, r"here\.sign = 2: should be -1 or 1"),
        ({"start": [0.5, 2]}, r"here\.start = 0\.5: should be a valid integer"),
        ({"name": ["ipm"]}, r"here\.name: unknown parameter"),
    ],
)
def test_a_wrong_space_is_told(space, told):
    with pytest.raises(UserError, match=told):
        ATTACKS["alie"]().searched(space, "here")


def study(**entry):
    return {"studies.mine": {"mode": "strength", "attacks": ["alie"], **entry}, "search.studies": ["mine"]}


WORST = ["sign_flip", "ipm"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (study(mode="strenght"), "studies.mine.mode = 'strenght': should be 'strength', 'worst', 'stealth' or"),
        (study(attacks=["aile"]), "studies.mine.attacks: 'aile' is not in attacks; one of "),
        (study(attacks=["none"]), "studies.mine.space.none: 'none' has nothing to search"),
        (study(attacks=WORST), "studies.mine.attacks = ['sign_flip', 'ipm']: mode strength takes one attack"),
        (study(attacks=["ipm", "ipm"], mode="worst", sampler="tpe"), "studies.mine.attacks = ['ipm', 'ipm']: an entry"),
        (
            {**study(attacks=WORST, mode="worst"), "search.sampler": "gp"},
            "search.sampler = 'gp': mode worst of studies.mine takes one of 'tpe', ",
        ),
        (study(sampler="nsgaii"), "studies.mine.sampler = 'nsgaii': mode strength of studies.mine takes one of 'gp'"),
        (
            {**study(mode="stealth"), "search.sampler": "gp"},
            "search.sampler = 'gp': mode stealth of studies.mine takes one of 'tpe', 'nsgaii'",
        ),
        (study(space={"ipm": {"strength": [1, 2]}}), "studies.mine.space.ipm: the study has no such attack; one of"),
        (study(space={"alie": {"zign": [1]}}), "studies.mine.space.alie.zign: unknown parameter; one of "),
        (study(space={"alie": {"sign": []}}), "studies.mine.space.alie.sign = []"),
        (study(space={"alie": {"strength": [1, 9]}}), "studies.mine.space.alie.strength: should hold 0.43"),
        (study(space={"alie": {"sign": [1]}}), "studies.mine.space.alie.sign: should hold -1, which is tried first"),
        ({**study(mode="breakdown"), "threat.sampled": 17}, "threat.sampled = 17: studies.mine varies f up to half"),
        ({"threat.byzantine": 0}, "threat.byzantine = 0: studies.sign_flip, studies.ipm, studies.alie would "),
        ({**study(mode="stealth", sampler="tpe"), "threat.byzantine": 0}, "threat.byzantine = 0: studies.mine would"),
        ({"search.finalists": 0}, "search.finalists = 0: should be greater than or equal to 1"),
        ({"search.budget_minutes": 0}, "search.budget_minutes = 0: should be greater than 0"),
        ({"search.trials": 1}, "search.trials = 1: studies.alie tries 3 published values first"),
    ],
)
def test_a_wrong_study_is_told(changes, told):
    with pytest.raises(UserError) as error:
        validate(raw_parameters(changes))
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert [line for line in lines if line.startswith(told)] != [], lines


def test_a_study_that_is_not_run_may_be_for_another_threat():
    validate(raw_parameters({"studies.later": {"mode": "stealth", "attacks": ["aile"]}}))


def test_without_byzantine_workers_a_breakdown_curve_is_searched_and_a_grid_trained():
    validate(raw_parameters({**study(mode="breakdown"), "threat.byzantine": 0}))
    validate(raw_parameters({"search.studies": [], "threat.byzantine": 0}))


def test_a_grid_over_choices_goes_through_all_of_them():
    changes = {"studies.ipm": {"mode": "strength", "attacks": ["ipm"]}, "attacks.ipm": {"name": "mimic"}}
    startup = Study(parameters(changes), "ipm").startup(2)
    assert [point.origin for point in startup] == ["literature"] + ["grid"] * 6
    assert startup[0].parameters == {"warmup": 1, "target": 0}
    tried = {tuple(point.parameters.values()) for point in startup}
    assert len(tried) == 7


RATIOS = [0, 0, 0.25, 0.5, 0.75, 1, 1]  # start 2, ramp 3


def test_the_schedule_by_hand():
    honest = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    sent = [scheduled(torch.tensor([[10.0, 4.0]]), honest, torch.tensor([[r]])).tolist() for r in RATIOS]
    assert sent == [[[2 + 8 * r, 4 * r]] for r in RATIOS]
    lost = torch.tensor([[torch.nan, torch.inf]])
    assert scheduled(lost, honest, torch.zeros(1, 1)).tolist() == [[2.0, 0.0]]


def scheduled_cell(**fields):
    return cell(changes={"attacks.sign_flip": {"name": "sign_flip", "strength": 5.0, **fields}, "training.steps": 7})


def test_replicas_of_different_schedules_share_a_batch_and_each_is_its_own():
    data = blobs()
    cells = [scheduled_cell(), scheduled_cell(start=2, ramp=3), scheduled_cell(start=7), scheduled_cell(ramp=1)]
    together = train(cells, data)
    for one, result in zip(cells, together, strict=True):
        assert_identical(train([one], data)[0], result)
    ratios = build(cells, data, vmap_gradients, CPU).ratios
    assert ratios[:, 0].flatten().tolist() == [1] * 7
    assert ratios[:, 1].flatten().tolist() == RATIOS
    assert ratios[:, 2].flatten().tolist() == [0] * 7
    assert ratios[:, 3].flatten().tolist() == [0.5] + [1] * 6
    assert build(cells[:1], data, vmap_gradients, CPU).ratios is None


def test_until_its_start_an_attack_sends_the_honest_mean():
    never, late = train([scheduled_cell(start=7), scheduled_cell(start=4)], blobs())
    for name in ("train_loss", "aggregate_error"):
        assert (never.steps[name][:4] == late.steps[name][:4]).all()
    assert never.steps["aggregate_error"][4] != late.steps["aggregate_error"][4]
