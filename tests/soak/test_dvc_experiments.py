"""DVC's experiments, in a temporary folder and from the queue, compute there and leave the workspace alone."""

import json
import time

import pytest
from project import copy_of_the_project
from ruamel.yaml import YAML
from safetensors.torch import load_file

pytestmark = pytest.mark.soak
DATA = "data/dataset.safetensors"


@pytest.fixture
def project(tmp_path):
    """A project whose pipeline ends with the prepared data, after its first ``dvc repro``."""
    project = copy_of_the_project(tmp_path)
    described = YAML(typ="safe").load((tmp_path / "dvc.yaml").read_text())
    with (tmp_path / "dvc.yaml").open("w") as stream:
        YAML().dump({"stages": {name: described["stages"][name] for name in ("download", "prepare")}}, stream)
    assert project.repro() == ["download", "prepare"]
    project.commit()
    return project


def shown(project):
    """What ``dvc exp show`` says of each experiment: its state and the size of the validation part."""
    (branch,) = json.loads(project.run("dvc", "exp", "show", "--json").stdout)[1:]
    return {
        found["name"]: revision["data"]["params"]["params.yaml"]["data"]["data"]["validation_fraction"]
        for found in branch["experiments"]
        for revision in found["revs"]
    }


def wait_for_the_queue(project):
    until = time.monotonic() + 300
    while "Running" in (told := project.run("dvc", "queue", "status").stdout) or "Queued" in told:
        assert time.monotonic() < until, told
        time.sleep(1)
    assert told.count("Success") == 2, told


def test_experiments_compute_in_their_own_folder_and_can_be_applied(project):
    before, fraction = project.files("data"), "-Sdata.validation_fraction={}"
    project.run("dvc", "exp", "run", "--temp", "-n", "temporary", fraction.format(0.3))
    for name, value in (("first", 0.4), ("second", 0.5)):
        project.run("dvc", "exp", "run", "--queue", "-n", name, fraction.format(value))
    project.run("dvc", "queue", "start", "-j", "2")
    wait_for_the_queue(project)
    assert project.files("data") == before
    assert project.changed_files() == ""
    assert shown(project) == {"temporary": 0.3, "first": 0.4, "second": 0.5}
    sizes = {}
    for name in ("temporary", "first", "second"):
        project.run("dvc", "exp", "apply", name)
        sizes[name] = len(load_file(project.folder / DATA)["validation_labels"])
        assert project.repro() == []
    assert [round(sizes[name] / 1438, 2) for name in sizes] == [0.3, 0.4, 0.5]
