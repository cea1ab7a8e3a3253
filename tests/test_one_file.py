"""A rule is one file, its slow twin another: what the README says about adding one, done in a copy of it all."""

import re

import pytest
from project import copy_of_the_project
from support import ROOT

SECTION = (ROOT / "README.md").read_text().partition("## Adding a rule")[2].partition("\n## ")[0]
RULE, TWIN = re.findall(r"`((?:pipeline|tests)/\S+/trimmed_midrange\.py)`", SECTION)
(COMMAND,) = re.findall(r"`(python -m pipeline list [^`]+)`", SECTION)
(DEFENCE,) = re.findall(r"`(trimmed_midrange: \{.+?\}\})` under `defences`", SECTION)
WHOLE = ("oracles", "registry", "catalogue", "readme", "architecture")  # tests that run in the copy as they are


def pytest_of(project, *arguments):
    return project.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, check=False)


@pytest.fixture
def project(tmp_path):
    """A copy without the rule, should the project have it."""
    copy = copy_of_the_project(tmp_path)
    for file in (RULE, TWIN):
        (tmp_path / file).unlink(missing_ok=True)
    text = (tmp_path / "params.yaml").read_text()
    text = re.sub(r"^  trimmed_midrange:.*\n|, trimmed_midrange\b|\btrimmed_midrange, ", "", text, flags=re.MULTILINE)
    (tmp_path / "params.yaml").write_text(text)
    copy.run("sh", "-c", COMMAND)
    return copy


def add_rule(project, *files):
    """Write the README's code into the files that it names, and change params.yaml as it says."""
    for file, code in zip((RULE, TWIN), re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL), strict=True):
        if file in files:
            (project.folder / file).write_text(code)
    path = project.folder / "params.yaml"
    text, defences = re.subn(r"^defences:\n", f"defences:\n  {DEFENCE}\n", path.read_text(), flags=re.MULTILINE)
    text, grid = re.subn(r"(^grid:\n(?: .*\n)*?  defences: \[)", r"\1trimmed_midrange, ", text, flags=re.MULTILINE)
    assert (defences, grid) == (1, 1)
    path.write_text(text)


def test_the_rule_of_the_readme_passes_the_whole_contract(project):
    add_rule(project, RULE, TWIN)
    project.run("sh", "-c", COMMAND)
    project.run("ruff", "check", RULE, TWIN)
    project.run("ruff", "format", "--check", RULE, TWIN)
    of_the_rule = pytest_of(project, "-k", "trimmed_midrange", "tests", "pipeline/defences")
    assert of_the_rule.returncode == 0, of_the_rule.stdout
    passed = int(re.search(r"(\d+) passed", of_the_rule.stdout).group(1))
    skipped = sum(int(count) for count in re.findall(r"(\d+) skipped", of_the_rule.stdout))
    assert passed > 150
    assert skipped == 0
    everything = pytest_of(project, *(f"tests/test_{name}.py" for name in WHOLE))
    assert everything.returncode == 0, everything.stdout


def test_what_is_missing_is_told(project):
    add_rule(project, RULE)
    told = pytest_of(project, "tests/test_oracles.py", "tests/test_catalogue.py").stdout
    assert "tests/oracles/aggregators/: write the slow twin `def trimmed_midrange(vectors, f): ...`" in told
    assert f"docs/catalogue.md is stale; run: {COMMAND}" in told
    assert "2 failed" in told


@pytest.mark.slow
def test_only_the_cells_of_the_new_rule_are_trained(project):
    project.stage(
        "set", "training.steps=3 grid.defences=[mean,krum] grid.partitions=[alpha_03] grid.seeds=[0,1] grid.max_seeds=2"
    )
    for stage in ("download", "prepare"):
        project.stage(stage)
    assert "train none: 4 cells, 4 to train" in project.stage("train", "none").stdout
    add_rule(project, RULE)
    assert "train none: 6 cells, 2 to train" in project.stage("train", "none").stdout
