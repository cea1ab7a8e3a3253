"""Cells on disk: whole or absent, kept while they match, brought back when they come back."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support import blobs, parameters, train

from pipeline.core.errors import UserError
from pipeline.runs import store
from pipeline.runs.plan import grid_row
from pipeline.simulator.metrics import EVALUATION_METRICS, STEP_METRICS

GRID = {"grid.defences": ["mean", "krum"], "grid.partitions": ["iid"], "grid.seeds": [0, 1]}
PARAMS = parameters(GRID)
CELLS = grid_row(PARAMS, "sign_flip")
KEYS = {item.folder: item.cell.key("data", {}) for item in CELLS}
FILES = ["cell.json", "evaluations.csv", "steps.csv"]


@pytest.fixture(scope="module")
def results():
    return train([item.cell for item in CELLS], blobs())


@pytest.fixture
def row(tmp_path, results):
    """A row that holds its four cells."""
    row = store.row_folder(tmp_path, "sign_flip")
    assert store.settle(tmp_path, row, KEYS) == set(KEYS)
    for item, result in zip(CELLS, results, strict=True):
        store.write(tmp_path, row, item, KEYS[item.folder], result)
    return row


def content(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cached(root) -> list[str]:
    return sorted(path.name for path in (root / ".cellcache").iterdir())


def test_a_row_lies_below_results(tmp_path):
    assert store.row_folder(tmp_path, "alie") == tmp_path / "results" / "train" / "alie"


def test_a_row_that_matches_is_kept_as_it_is(row, tmp_path):
    before = content(row)
    assert store.settle(tmp_path, row, KEYS) == set()
    assert content(row) == before
    assert cached(tmp_path) == []


def test_what_is_written_is_read_back(row, tmp_path, results):
    for record, item, result in zip(store.read_row(tmp_path, PARAMS, "sign_flip"), CELLS, results, strict=True):
        assert (record.planned, record.key) == (item, KEYS[item.folder])
        assert record.final == result.final
        assert list(record.steps) == ["step", *STEP_METRICS]
        assert list(record.evaluations) == ["steps_done", *EVALUATION_METRICS]
        assert record.steps["step"].tolist() == list(range(6))
        assert record.evaluations["steps_done"].tolist() == [0, 4, 6]
        for name, series in result.steps.items():
            np.testing.assert_array_equal(record.steps[name], series, err_msg=name)
        for name, series in result.evaluations.items():
            np.testing.assert_array_equal(record.evaluations[name], series, err_msg=name)


def test_identical_results_are_identical_bytes(row, tmp_path):
    again = tmp_path / "again" / "row"
    again.mkdir(parents=True)
    for item, result in zip(CELLS, train([item.cell for item in CELLS], blobs()), strict=True):
        store.write(tmp_path, again, item, KEYS[item.folder], result)
    assert content(again) == content(row)
    assert sorted(path.name for path in (row / "mean.iid.seed0").iterdir()) == FILES


def test_a_dropped_cell_moves_away_and_comes_back(row, tmp_path):
    before = content(row)
    kept = {folder: key for folder, key in KEYS.items() if folder.startswith("krum")}
    assert store.settle(tmp_path, row, kept) == set()
    assert sorted(path.name for path in row.iterdir()) == sorted(kept)
    assert cached(tmp_path) == sorted(set(KEYS.values()) - set(kept.values()))
    assert store.settle(tmp_path, row, KEYS) == set()
    assert content(row) == before
    assert cached(tmp_path) == []


def test_a_changed_parameter_retires_its_cells_and_reverting_it_restores_them(row, tmp_path, results):
    before = content(row)
    changed = {folder: f"{position:016x}" for position, folder in enumerate(KEYS)}
    assert store.settle(tmp_path, row, changed) == set(KEYS)
    assert list(row.iterdir()) == []
    for item, result in zip(CELLS, results, strict=True):
        store.write(tmp_path, row, item, changed[item.folder], result)
    assert store.settle(tmp_path, row, KEYS) == set()
    assert content(row) == before
    assert cached(tmp_path) == sorted(changed.values())


def test_a_renamed_defence_is_found_by_its_key(row, tmp_path):
    before = content(row / "krum.iid.seed0")
    renamed = {folder.replace("krum", "my_krum"): key for folder, key in KEYS.items()}
    assert store.settle(tmp_path, row, renamed) == set()
    assert content(row / "my_krum.iid.seed0") == before
    assert sorted(path.name for path in row.iterdir()) == sorted(renamed)


def test_one_cell_under_two_names_keeps_one_and_misses_the_other(row, tmp_path):
    key = KEYS["krum.iid.seed0"]
    assert store.settle(tmp_path, row, {"a.iid.seed0": key, "b.iid.seed0": key}) == {"b.iid.seed0"}


def truncate(folder):
    whole = (folder / "cell.json").read_text()
    (folder / "cell.json").write_text(whole[: len(whole) // 2])


BROKEN = {
    "truncated": truncate,
    "without cell.json": lambda folder: (folder / "cell.json").unlink(),
    "a list": lambda folder: (folder / "cell.json").write_text("[]"),
    "without a key": lambda folder: (folder / "cell.json").write_text("{}"),
    "not text": lambda folder: (folder / "cell.json").write_bytes(b"\xff\xfe"),
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_cell_is_cleared_away_and_missing(damage, row, tmp_path):
    BROKEN[damage](row / "krum.iid.seed1")
    assert store.settle(tmp_path, row, KEYS) == {"krum.iid.seed1"}
    assert not (row / "krum.iid.seed1").exists()
    assert len(list(row.iterdir())) == 3


def test_what_does_not_belong_in_a_row_is_cleared_away(row, tmp_path):
    before = content(row)
    (row / "notes.txt").write_text("mine")
    (row / "other").mkdir()
    (row / "other" / "file").write_text("x")
    shutil.copytree(row / "krum.iid.seed0", row / "copy.iid.seed0")
    shutil.copytree(row / "krum.iid.seed0", row / ".krum.iid.seed0")
    assert store.settle(tmp_path, row, KEYS) == set()
    assert content(row) == before
    assert b"mine" in content(tmp_path / ".cellcache").values()  # moved, not destroyed


def test_a_cache_that_holds_something_else_under_the_key_is_not_believed(row, tmp_path):
    shutil.rmtree(row / "krum.iid.seed0")
    shutil.copytree(row / "krum.iid.seed1", tmp_path / ".cellcache" / KEYS["krum.iid.seed0"])
    assert store.settle(tmp_path, row, KEYS) == {"krum.iid.seed0"}


@pytest.mark.parametrize("failing", ["_write_columns", "write_json"])
def test_a_write_that_is_interrupted_leaves_nothing_in_the_row(failing, row, tmp_path, results, monkeypatch):
    shutil.rmtree(row / "krum.iid.seed0")
    before = content(row)
    (item, result) = next((i, r) for i, r in zip(CELLS, results, strict=True) if i.folder == "krum.iid.seed0")

    def killed(path, *_):
        path.write_text("hal")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, failing, killed)
        with pytest.raises(KeyboardInterrupt):
            store.write(tmp_path, row, item, KEYS[item.folder], result)
    assert content(row) == before
    assert store.settle(tmp_path, row, KEYS) == {"krum.iid.seed0"}
    store.write(tmp_path, row, item, KEYS[item.folder], result)
    assert store.settle(tmp_path, row, KEYS) == set()


def test_numbers_that_are_not_finite_survive(row, tmp_path, results):
    shutil.rmtree(row / "mean.iid.seed0")
    strange = np.array([math.nan, math.inf, -math.inf, 1e-45, 0.1, 3e38], dtype=np.float32)
    result = replace(
        results[0],
        steps={**results[0].steps, "train_loss": strange},
        final={**results[0].final, "test_loss": math.nan, "validation_loss": math.inf},
    )
    store.write(tmp_path, row, CELLS[0], KEYS[CELLS[0].folder], result)
    record = store.read(row, CELLS[0])
    np.testing.assert_array_equal(record.steps["train_loss"].astype(np.float32), strange)
    assert math.isnan(record.final["test_loss"])
    assert math.isnan(record.final["validation_loss"])
    written = json.loads((row / "mean.iid.seed0" / "cell.json").read_text(), parse_constant=pytest.fail)
    assert written["final"]["test_loss"] is None


def test_a_missing_cell_is_a_user_error_that_says_what_to_run(row, tmp_path):
    shutil.rmtree(row / "krum.iid.seed1")
    with pytest.raises(UserError, match=r"krum.iid.seed1: no such result; run `dvc repro train@sign_flip`"):
        store.read_row(tmp_path, PARAMS, "sign_flip")


DAMAGED = [
    ("cell.json", b"{"),
    ("cell.json", b"[]"),
    ("cell.json", b"{}"),
    ("cell.json", b'{"key": "x", "cell": {}, "final": []}'),
    ("cell.json", b'{"key": "x", "cell": {}, "final": {"a": "b"}}'),
    ("cell.json", b"\xff\xfe"),
    ("steps.csv", b""),
    ("steps.csv", b"step,train_loss\n0,0.5\n1\n"),
    ("steps.csv", b"step,train_loss\n0,abc\n"),
    ("evaluations.csv", b""),
]


@pytest.mark.parametrize(("file", "text"), DAMAGED, ids=[f"{file} {text[:30]}" for file, text in DAMAGED])
def test_a_damaged_file_is_a_user_error(file, text, row):
    (row / CELLS[0].folder / file).write_bytes(text)
    with pytest.raises(UserError, match=r"not a whole result .*; run `dvc repro train@sign_flip`"):
        store.read(row, CELLS[0])


def test_a_file_in_place_of_a_cell_is_a_user_error(row):
    shutil.rmtree(row / CELLS[0].folder)
    (row / CELLS[0].folder).write_text("x")
    with pytest.raises(UserError, match="not a whole result"):
        store.read(row, CELLS[0])


def test_a_cell_of_other_parameters_is_never_taken_for_this_one(row, tmp_path):
    other = parameters({**GRID, "training.momentum": 0.5})
    with pytest.raises(UserError, match=r"trained with other parameters than params.yaml states"):
        store.read_row(tmp_path, other, "sign_flip")
