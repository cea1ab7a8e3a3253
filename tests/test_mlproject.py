"""MLproject: every parameter reaches its command, and no default of params.yaml is restated."""

from pathlib import Path

from mlflow.projects._project_spec import load_project
from ruamel.yaml import YAML

PROJECT = Path(__file__).parents[1]


def test_every_parameter_of_mlproject_appears_in_its_command():
    project = YAML(typ="safe").load((PROJECT / "MLproject").read_text(encoding="utf-8"))
    assert project["conda_env"] == "conda.yaml"
    assert "python_env" not in project
    assert project["entry_points"].keys() == {"main", "train", "search", "analysis"}
    for entry_point in project["entry_points"].values():
        for name, declared in entry_point["parameters"].items():
            assert f"{{{name}}}" in entry_point["command"]
            assert declared.get("default", "") == ""


def test_mlflow_quotes_the_overrides_for_the_shell():
    main = load_project(str(PROJECT)).get_entry_point("main")
    assert main.compute_command({}, None).startswith("python -m pipeline set '' && ")
    changes = "training.steps=50 grid.seeds=[0,1]"
    assert main.compute_command({"set": changes}, None).startswith(f"python -m pipeline set '{changes}' && ")


def test_every_entry_point_ends_with_what_it_made_in_mlflow():
    given = {"main": {}, "train": {"attack": "alie"}, "search": {"study": "ipm"}, "analysis": {}}
    stages = {"main": "", "train": " train@alie", "search": " search@ipm", "analysis": ""}
    for name, parameters in given.items():
        command = load_project(str(PROJECT)).get_entry_point(name).compute_command(parameters, None)
        assert command.endswith(f" && python -m pipeline track{stages[name]}")
