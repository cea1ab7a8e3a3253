"""Every component has a slow twin, every slow twin a component, and none knows the package."""

import ast

import oracles
import pytest
from support import ROOT

from pipeline.attacks import ATTACKS
from pipeline.defences.aggregators import AGGREGATORS
from pipeline.defences.preaggregators import PREAGGREGATORS
from pipeline.simulator.local_updates import LOCAL_UPDATES
from pipeline.simulator.models import MODELS
from pipeline.simulator.schedules import SCHEDULES

FOLDER = ROOT / "tests" / "oracles"
FAMILIES = {
    "aggregators": AGGREGATORS,
    "preaggregators": PREAGGREGATORS,
    "attacks": ATTACKS,
    "models": MODELS,
    "schedules": SCHEDULES,
    "local_updates": LOCAL_UPDATES,
}
NAMES = [(family, name) for family, registry in FAMILIES.items() for name in registry.names]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize(("family", "name"), NAMES)
def test_every_component_has_a_slow_twin(family, name):
    try:
        assert callable(oracles.twin(family, name))
    except LookupError as error:
        pytest.fail(error.args[0], pytrace=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_slow_twin_has_a_component(family):
    strangers = sorted(set(oracles.twins(family)) - set(FAMILIES[family].names))
    assert strangers == [], f"tests/oracles/{family}/: twins of nothing that is registered; is a decorator missing?"


def test_every_folder_of_twins_is_that_of_a_family():
    assert {path.parent.name for path in FOLDER.glob("*/__init__.py")} == set(FAMILIES)


def test_slow_twins_do_not_know_the_package():
    files = sorted(FOLDER.rglob("*.py"))
    known = {str(file): {name.split(".")[0] for name in imported(ast.parse(file.read_text()))} for file in files}
    assert len(files) > len(FAMILIES)
    assert [name for name, modules in known.items() if modules & {"pipeline", "benchmarks", "inputs", "support"}] == []
