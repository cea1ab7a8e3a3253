"""dvc.yaml, conda.yaml and pyproject.toml say what the code says."""

import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.core.identity import import_closure
from pipeline.runs.params import Params

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = {
    "download": "pipeline.data.prepare",
    "prepare": "pipeline.data.prepare",
    "tune": "pipeline.search.tuning",
    "train": "pipeline.runs.train",
    "references": "pipeline.runs.references",
    "search": "pipeline.search.stage",
    "analysis": "pipeline.report.report",
    "track": "pipeline.tracking.track",
}
# Read, but no part of any result's identity.
NOT_IN_IDENTITY = {"execution"}


@pytest.mark.parametrize("stage", MODULES)
def test_a_stage_depends_on_exactly_the_rooms_it_imports(stage):
    listed = {path for path in STAGES[stage]["deps"] if path.startswith("pipeline/")}
    imported = [module.split(".") for module in import_closure([MODULES[stage]])]
    assert listed == {f"pipeline/{room[1]}" for room in imported if len(room) > 1}


def test_every_stage_is_known():
    assert set(STAGES) == set(MODULES)


def test_every_section_of_the_parameters_is_a_dependency_of_some_stage():
    named = {path.split(".")[0] for stage in STAGES.values() for path in stage["params"]}
    assert named == set(Params.model_fields) - NOT_IN_IDENTITY


def test_a_row_depends_on_no_other_attack_and_no_other_study():
    train, search = (set(STAGES[stage]["params"]) for stage in ("train", "search"))
    assert {path for path in train if path.startswith("attacks")} == {"attacks.${item.attack}"}
    assert {path for path in search if path.startswith("studies")} == {"studies.${item.study}"}
    assert not {"grid", "search", "grid.attacks", "search.studies"} & (train | search)


def pip_requirements():
    described = YAML(typ="safe").load((ROOT / "conda.yaml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in described if isinstance(entry, dict)]
    assert [entry for entry in described if isinstance(entry, str) and not entry.startswith(("python=", "pip"))] == []
    return pip


def test_conda_and_pyproject_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pip_requirements() == project["dependencies"]


@pytest.mark.parametrize(
    "package", ["torch", "torchvision", "numpy", "numba", "scikit-learn", "scipy", "optuna", "cmaes", "dvc", "mlflow"]
)
def test_what_touches_numbers_is_pinned_exactly(package):
    assert sum(entry.startswith(f"{package}==") for entry in pip_requirements()) == 1


def test_an_installed_package_has_every_file():
    """What is no module is named in pyproject.toml."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {
        path for room, globs in named.items() for glob in globs for path in (ROOT / room.replace(".", "/")).glob(glob)
    }
    files = {path for path in (ROOT / "pipeline").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in files if path.suffix != ".py"} == packed
    assert packed
