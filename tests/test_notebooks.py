"""The notebooks run from beginning to end, and show what they say they show."""

import subprocess
import sys
from pathlib import Path

import analysable
import jupytext
import matplotlib.pyplot as plt
import pytest
from ruamel.yaml import YAML
from support import ROOT, SMALL, blobs, cell, raw_parameters

import pipeline
from pipeline.attacks import ATTACKS
from pipeline.core.component import Schema, _rebuild
from pipeline.core.errors import UserError
from pipeline.data.dataset import write
from pipeline.defences.aggregators import AGGREGATORS, Aggregator
from pipeline.interface import DEFAULTS
from pipeline.runs import params

NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture
def unregistered(monkeypatch):
    """What a notebook registers is forgotten after the test."""
    with monkeypatch.context() as patch:
        for registry in (AGGREGATORS, ATTACKS):
            patch.setattr(registry, "_classes", dict(registry._classes))
        patch.setattr(sys, "path", list(sys.path))
        yield
    _rebuild(Schema)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs a notebook, cell by cell, in an empty folder; returns its variables, its figures and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "close", lambda *_: None)

    def execute(name):
        variables = {"__name__": "__main__"}
        for part in jupytext.read(NOTEBOOKS / f"{name}.py").cells:
            if part.cell_type == "code":
                exec(compile(part.source, name, "exec"), variables)
        return variables, plt.get_fignums(), capsys.readouterr().out

    yield execute
    monkeypatch.undo()
    plt.close("all")


def test_every_notebook_is_named_here_and_is_plain_text():
    tracked = subprocess.run(["git", "ls-files", "notebooks"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {Path(file).name for file in tracked.stdout.split()}
    assert names == {"01_quickstart.py", "02_results.py", "03_new_rule.py", "04_search.py"}


def test_quickstart(run):
    found, figures, out = run("01_quickstart")
    mean = found["final"].groupby(["attack", "defence"])["degradation"].mean()
    assert mean["alie", "mean"] > 0.3 > mean["alie", "nnm + trimmed_mean"]
    assert len(figures) == 2
    assert "training 1222" in out
    assert found["pictures"] is not None or "pictures of a model need" in out


def test_results_that_are_not_there_are_told_in_a_line(run, tmp_path):
    found, figures, out = run("02_results")
    assert found["final"] is None
    assert out.startswith(f"No results to show: run `make repro` in {tmp_path}")
    assert len(out.splitlines()) == 1
    assert figures == []


def test_results(run, tmp_path):
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(raw_parameters({**SMALL, **analysable.GRID}), file)
    parameters = params.load(tmp_path / "params.yaml")
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    analysable.write_grid(tmp_path, parameters)
    for study in parameters.search.studies:
        analysable.write_study(tmp_path, parameters, study)
    found, figures, out = run("02_results")
    assert found["worst"]["worst attack"].to_dict() == {"mean": "sign_flip", "krum": "ipm", "median": "sign_flip"}
    assert sorted(found["searched"]) == ["alie", "sign_flip"]
    assert "partition iid: 3 attacks, 3 defences, 18 cells" in out
    assert len(figures) == 4


@pytest.mark.usefixtures("unregistered")
def test_new_rule(run, monkeypatch):
    monkeypatch.setitem(DEFAULTS["training"], "steps", 60)
    found, _, out = run("03_new_rule")
    assert found["passed"] > 100
    assert f"{found['passed']} checks passed" in out
    assert found["accuracy"].shape == (3, 3)
    assert found["accuracy"].loc["winsorised_mean", "none"] > 80
    assert found["accuracy"].loc["mean", "undo"] < 50 < found["accuracy"].loc["winsorised_mean", "undo"]
    assert "did you mean 'winsorised_mean'?" in out


def test_a_rule_that_breaks_the_contract_is_found_out(run, unregistered, monkeypatch):
    monkeypatch.setattr(
        Aggregator, "aggregate", lambda self, vectors, *_, **__: self._aggregate(vectors + 1, 0, None, None)
    )
    with pytest.raises(AssertionError):
        run("03_new_rule")


def test_search(run, monkeypatch):
    monkeypatch.setitem(DEFAULTS["training"], "steps", 20)
    found, figures, _ = run("04_search")
    assert found["trials"].groupby("defence")["trial"].nunique().tolist() == [12, 12, 12]
    assert len(figures) == 1
    assert found["confirmed"]["count"].eq(6).all()
    candidates = found["confirmed"].reset_index()["candidate"]
    assert {"literature", "found"} <= set(candidates)


@pytest.mark.usefixtures("unregistered")
def test_a_cell_that_defines_a_rule_can_be_run_again():
    """Also after rules have been used: what was built of the rules that there were knows the new one."""
    vectors = blobs().train.inputs.flatten(1)[None, :5]
    source = jupytext.read(NOTEBOOKS / "03_new_rule.py").cells
    (rule,) = [part.source for part in source if "class WinsorisedMean" in part.source]
    (imports,) = [part.source for part in source if "import pipeline\n" in part.source]
    with pytest.raises(UserError, match="unknown name"):
        pipeline.aggregate(vectors, 1, "nnm + winsorised_mean")
    found = []
    for text in (rule, rule.replace("total / n", "10 * total / n")):
        exec(f"{imports}\n{text}", {"__name__": "__main__"})
        found.append(pipeline.aggregate(vectors, 1, "nnm + winsorised_mean"))
    assert found[1].allclose(10 * found[0])
    with pytest.raises(ValueError, match="two classes"):
        exec(f"{imports}\n{rule}", {"__name__": "elsewhere"})


def test_a_process_that_does_not_know_a_class_describes_its_object(monkeypatch):
    """It is sent the cell, and the class with it, but registers nothing; a warning would be an error here."""
    described = cell(defence="median").content()
    one = cell(defence="median")
    with monkeypatch.context() as patch:
        patch.setattr(AGGREGATORS, "_classes", {name: AGGREGATORS[name] for name in ("mean", "krum")})
        _rebuild(Schema)
        assert one.content() == described
    _rebuild(Schema)


@pytest.mark.parametrize("missing", ["dot", "torchview", "torchviz"])
def test_what_a_picture_lacks_is_told_in_a_line(missing, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None if name == missing else f"/usr/bin/{name}")
    if missing != "dot":
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match="pictures of a model need") as caught:
        pipeline.draw_model(blobs(), {"name": "mlp", "hidden": [5]})
    assert "\n" not in str(caught.value)
    assert ("Graphviz:" if missing == "dot" else missing) in str(caught.value)


@pytest.mark.parametrize("model", [{"name": "mlp", "hidden": [5]}, {"name": "cnn_mnist"}])
def test_a_picture_shows_every_layer_and_names_every_weight(model, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")  # the graph is made without `dot`
    data = blobs(shape=(1, 28, 28))
    layers, gradients = pipeline.draw_model(data, model)
    network = pipeline.simulator.models.MODELS.parse(model, "model").network(data.shape, data.classes)
    for name, shape in network.shapes.items():
        assert f'"{name}\n ({", ".join(map(str, shape))})"' in gradients.source
    for layer in network.module.children():
        assert type(layer).__name__ in layers.source
    assert "(1, 1, 28, 28)" in layers.source
