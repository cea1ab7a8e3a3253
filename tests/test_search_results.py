"""Studies read back: whole, missing, broken, made with other parameters."""

import json

import pandas as pd
import pytest
from fabricated import Training, hump
from support import parameters
from test_search import SETTINGS, searched

from pipeline.core.errors import UserError
from pipeline.report.search_results import COLUMNS, read_study

SMALL = {**SETTINGS, "search.trials": 9}


@pytest.fixture
def root(monkeypatch, tmp_path):
    searched(tmp_path, monkeypatch, Training(lambda cell: hump(cell.strength, 1.0)), "ipm", **{"search.trials": 9})
    return tmp_path


def test_a_study_comes_back_as_it_was_written(root):
    result = read_study(root, parameters(SMALL), "ipm")
    assert result.name == "ipm"
    assert result.description["stopped_after"] == 9
    for title, table in (
        ("trials", result.trials),
        ("confirmation", result.confirmation),
        ("transfer", result.transfer),
    ):
        assert list(table.columns) == COLUMNS[title]
        pd.testing.assert_frame_equal(table, pd.read_csv(root / "results" / "search" / "ipm" / f"{title}.csv"))
    assert result.trials["diverged"].dtype == bool
    assert json.loads(result.trials["parameters"][0]) == {"strength": 0.1}


def test_without_transfer_none_is_read(root):
    folder = root / "results" / "search" / "ipm"
    described = json.loads((folder / "study.json").read_text())
    described["content"]["transfer"] = False
    (folder / "study.json").write_text(json.dumps(described))
    assert read_study(root, parameters({**SMALL, "search.transfer": False}), "ipm").transfer is None


@pytest.mark.parametrize("name", ["study.json", "trials.csv", "confirmation.csv", "transfer.csv"])
def test_a_missing_file_is_told(name, root):
    (root / "results" / "search" / "ipm" / name).unlink()
    with pytest.raises(UserError, match=r"ipm: no such result; run `dvc repro search@ipm`"):
        read_study(root, parameters(SMALL), "ipm")


@pytest.mark.parametrize("name", ["study.json", "trials.csv", "confirmation.csv", "transfer.csv"])
@pytest.mark.parametrize("text", ["", "{", "a,b\n1,2\n", "[]"])
def test_a_broken_file_is_told(name, text, root):
    (root / "results" / "search" / "ipm" / name).write_text(text)
    with pytest.raises(UserError, match=r"ipm: not a whole result \(.*run `dvc repro search@ipm`"):
        read_study(root, parameters(SMALL), "ipm")


@pytest.mark.parametrize("name", ["trials.csv", "confirmation.csv", "transfer.csv"])
def test_a_file_cut_at_the_end_of_a_line_is_told(name, root):
    file = root / "results" / "search" / "ipm" / name
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=rf"ipm: not a whole result \({name} is not as it was written\)"):
        read_study(root, parameters(SMALL), "ipm")


@pytest.mark.parametrize(
    "change",
    [
        {"search.trials": 10},
        {"search.partition": "iid"},
        {"search.defences": ["krum"]},
        {"search.confirmation_seeds": [200, 202]},
        {"search.sampler": "random"},
        {"studies.ipm.space": {"ipm": {"strength": [0.05, 10]}}},
        {"attacks.ipm": {"name": "ipm", "start": 1}},
        {"training.momentum": 0.8},
    ],
)
def test_a_study_of_other_parameters_is_told(change, root):
    with pytest.raises(UserError, match=r"searched with other parameters .* run `dvc repro search@ipm`"):
        read_study(root, parameters({**SMALL, **change}), "ipm")


@pytest.mark.parametrize("change", [{"search.studies": ["ipm"]}, {"grid.seeds": [7]}, {"execution.memory_gb": 1.0}])
def test_what_does_not_touch_the_study_does_not_matter(change, root):
    assert read_study(root, parameters({**SMALL, **change}), "ipm").name == "ipm"
