"""What a run takes is told before a cell is trained, and refused where memory cannot suffice."""

import pytest
from support import blobs, parameters

from pipeline.core.errors import UserError
from pipeline.data.dataset import write
from pipeline.runs.plan import grid_row, whole_row
from pipeline.runs.references import alone
from pipeline.search import forecast

MANY = {"grid.seeds": [0, 1], "grid.max_seeds": 5, "tuning.defences": ["krum"], "search.studies": ["ipm"]}


@pytest.mark.parametrize(
    ("changes", "blamed"),
    [
        ({"training.steps": 10**12}, "training.steps"),
        ({"training.batch_size": 10**9}, "training.batch_size"),
        ({"training.local_update": {"name": "local_sgd", "steps": 10**9, "learning_rate": 0.1}}, "training.batch_size"),
        ({"model.hidden": [10**6, 10**6]}, "model"),
        ({"execution.processes": 10**6, "grid.max_seeds": 90}, "execution.processes"),
        ({"threat.workers": 10**5, "attacks.alie.strength": 1.0, "model.hidden": [10**6]}, "model"),
    ],
)
def test_what_no_memory_holds_is_refused_and_the_parameter_named(changes, blamed, monkeypatch):
    monkeypatch.setattr(forecast, "available", lambda: 8e9)
    with pytest.raises(
        UserError, match=rf"^{blamed}: a cell of train@ipm takes [\d,.]+ GB or more, most of it for this"
    ):
        forecast.announced(parameters(changes), "train@ipm")


def test_cells_and_steps_are_those_that_are_trained():
    params = parameters(MANY)
    works = {(work.stage, work.steps): work for work in forecast.works(params)}
    for attack in params.grid.attacks:
        work = works[f"train@{attack}", 6]
        assert (work.least, work.most) == (len(grid_row(params, attack)), len(whole_row(params, attack)))
    assert works["references", 6].most >= len(alone(params))
    assert works["references", 24].most == 2 * len(params.grid.defences) * len(params.grid.partitions)
    assert works["tune@krum", 6].most == 4 * 2 * 1


def test_a_study_trains_no_more_cells_than_told(tmp_path, monkeypatch):
    from pipeline.search.measure import Evaluator
    from pipeline.search.stage import search_study

    write(tmp_path / "data" / "dataset.safetensors", blobs())
    params = parameters({"search.defences": ["mean", "krum"], "search.trials": 4, "search.batch": 4})
    trained = set()
    outcomes = Evaluator.outcomes

    def noted(self, cells, *rest, **settings):
        trained.update(cell.model_dump_json() for cell in cells)
        return outcomes(self, cells, *rest, **settings)

    monkeypatch.setattr(Evaluator, "outcomes", noted)
    search_study(tmp_path, params, "ipm")
    (told,) = [work.most for work in forecast.works(params) if work.stage == "search@ipm"]
    assert 0.5 * told < len(trained) <= told


def test_the_line_of_a_stage_and_the_table_of_all(tmp_path):
    params = parameters(MANY)
    line = forecast.announced(params, "train@ipm")
    assert line.startswith("train@ipm: 24 to 60 cells of 6 steps; ")
    table = forecast.table(tmp_path, params)
    assert "minutes: known after `dvc repro prepare`" in table
    write(tmp_path / "data" / "dataset.safetensors", blobs((1, 8, 8), 10, (600, 30, 20)))
    *stages, memory, together, basis = forecast.table(tmp_path, params).splitlines()
    assert len(stages) == 1 + 5 + 2 + 1
    assert all(line.endswith(" min") for line in stages)
    assert "GB available" in memory
    assert "s of training here" in basis
    assert float(together.split()[-2]) == pytest.approx(sum(float(line.split()[-2]) for line in stages), abs=1)
