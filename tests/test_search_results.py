"""Studies read back: whole, missing, broken, made with other parameters."""

import json
import shutil

import pandas as pd
import pytest
from fabricated import Training, hump
from support import blobs, parameters
from test_search import SETTINGS, searched

from pipeline.core.errors import UserError
from pipeline.core.files import file_hash, read_sealed, write_sealed
from pipeline.data.dataset import write
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
    described = read_sealed(folder / "study.json")
    described["content"]["transfer"] = False
    write_sealed(folder / "study.json", described)
    assert read_study(root, parameters({**SMALL, "search.transfer": False}), "ipm").transfer is None


@pytest.mark.parametrize("name", ["study.json", "trials.csv", "confirmation.csv", "transfer.csv"])
def test_a_missing_file_is_told(name, root):
    (root / "results" / "search" / "ipm" / name).unlink()
    with pytest.raises(UserError, match=r"ipm: not a whole result \(.*run `dvc repro -f -s search@ipm`"):
        read_study(root, parameters(SMALL), "ipm")


@pytest.mark.parametrize("name", ["study.json", "trials.csv", "confirmation.csv", "transfer.csv"])
@pytest.mark.parametrize("text", ["", "{", "a,b\n1,2\n", "[]"])
def test_a_broken_file_is_told(name, text, root):
    (root / "results" / "search" / "ipm" / name).write_text(text)
    with pytest.raises(UserError, match=r"ipm: not a whole result \(.*run `dvc repro -f -s search@ipm`"):
        read_study(root, parameters(SMALL), "ipm")


@pytest.mark.parametrize("name", ["trials.csv", "confirmation.csv", "transfer.csv"])
def test_a_file_cut_at_the_end_of_a_line_is_told(name, root):
    file = root / "results" / "search" / "ipm" / name
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=rf"ipm: not a whole result \({name} is not as it was written\)"):
        read_study(root, parameters(SMALL), "ipm")


def test_no_study_is_told(root):
    shutil.rmtree(root / "results" / "search" / "ipm")
    with pytest.raises(UserError, match=r"ipm: no such result; run `dvc repro search@ipm`"):
        read_study(root, parameters(SMALL), "ipm")


@pytest.mark.parametrize("change", [("0", "1"), (" ", "  "), ("\n}", "\n }")])
def test_an_edited_description_is_told_whatever_was_edited(change, root):
    file = root / "results" / "search" / "ipm" / "study.json"
    file.write_text(file.read_text().replace(*change, 1))
    with pytest.raises(UserError, match=r"not a whole result \(study.json is not as it was written\)"):
        read_study(root, parameters(SMALL), "ipm")


def test_a_share_outside_its_range_is_told_even_under_the_right_checksum(root):
    folder = root / "results" / "search" / "ipm"
    trials, described = pd.read_csv(folder / "trials.csv"), read_sealed(folder / "study.json")
    trials.loc[0, "attacked_accuracy"] = 7.0
    trials.to_csv(folder / "trials.csv", index=False)
    described["files"]["trials"] = file_hash(folder / "trials.csv")
    write_sealed(folder / "study.json", described)
    with pytest.raises(UserError, match=r"trials.csv has a share outside 0 to 1"):
        read_study(root, parameters(SMALL), "ipm")


def test_a_study_of_other_data_is_told(root):
    write(root / "data" / "dataset.safetensors", blobs(seed=1))
    with pytest.raises(UserError, match=r"ipm: searched with other data .*; run `dvc repro search@ipm`"):
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
