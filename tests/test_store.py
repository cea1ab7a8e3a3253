"""Cells on disk: whole or absent, kept while they match, brought back when they come back."""

import errno
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from support import blobs, parameters, train

from pipeline.core.errors import UserError
from pipeline.core.files import content_hash, read_sealed, write_sealed
from pipeline.core.paths import DATASET
from pipeline.data import dataset
from pipeline.runs import cell_files, store
from pipeline.runs.plan import grid_row
from pipeline.simulator.metrics import EVALUATION_METRICS, STEP_METRICS

GRID = {"grid.defences": ["mean", "krum"], "grid.partitions": ["iid"], "grid.seeds": [0, 1]}
PARAMS = parameters(GRID)
CELLS = grid_row(PARAMS, "sign_flip")
DATA = blobs()
with TemporaryDirectory() as _folder:
    dataset.write(Path(_folder, "dataset"), DATA)
    DATA_HASH = dataset.data_hash(Path(_folder, "dataset"))
IDENTITIES = {item.folder: item.cell.identity(DATA_HASH, {"torch": "of then"}) for item in CELLS}
KEYS = {folder: content_hash(identity) for folder, identity in IDENTITIES.items()}
FILES = ["cell.json", "evaluations.csv", "steps.csv"]


@pytest.fixture(scope="module")
def results():
    return train([item.cell for item in CELLS], DATA)


@pytest.fixture
def row(tmp_path, results):
    """A row that holds its four cells."""
    row = store.row_folder(tmp_path, "sign_flip")
    assert store.settle(tmp_path, row, KEYS) == set(KEYS)
    dataset.write(tmp_path / DATASET, DATA)
    for item, result in zip(CELLS, results, strict=True):
        store.write(row, item, IDENTITIES[item.folder], result)
    return row


def read(row, planned):
    return store.read(row, planned, DATA_HASH, "train@sign_flip")


def content(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cached(root) -> list[str]:
    return sorted(path.name for path in (root / ".cellcache").glob("*"))


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
    for item, result in zip(CELLS, train([item.cell for item in CELLS], DATA), strict=True):
        store.write(again, item, IDENTITIES[item.folder], result)
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
    identities = {folder: {**identity, "data": "other"} for folder, identity in IDENTITIES.items()}
    changed = {folder: content_hash(identity) for folder, identity in identities.items()}
    assert store.settle(tmp_path, row, changed) == set(KEYS)
    assert list(row.iterdir()) == []
    for item, result in zip(CELLS, results, strict=True):
        store.write(row, item, identities[item.folder], result)
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


def edited(path, *change):
    path.write_text(path.read_text().replace(*change, 1))


def rewritten(path, **changes):
    """Change a file and its checksum with it."""
    write_sealed(path, {**read_sealed(path), **changes})


BROKEN = {
    **{f"without {name}": lambda folder, name=name: (folder / name).unlink() for name in FILES},
    **{f"{name} cut": lambda folder, name=name: os.truncate(folder / name, 99) for name in FILES},
    **{f"{name} empty": lambda folder, name=name: os.truncate(folder / name, 0) for name in FILES},
    **{f"{name} edited": lambda folder, name=name: edited(folder / name, "0.", "0.1") for name in FILES},
    "a blank more": lambda folder: edited(folder / "cell.json", " ", "  "),
    "a list": lambda folder: (folder / "cell.json").write_text("[]"),
    "without a key": lambda folder: (folder / "cell.json").write_text("{}"),
    "not text": lambda folder: (folder / "cell.json").write_bytes(b"\xff\xfe"),
    "a folder": lambda folder: [(folder / "steps.csv").unlink(), (folder / "steps.csv").mkdir()],
    "a file more": lambda folder: (folder / "notes.txt").write_text("mine"),
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()],
    "out of range": lambda folder: rewritten(folder / "cell.json", final={"test_accuracy": 7.0}),
    "not a number": lambda folder: rewritten(folder / "cell.json", final={"test_accuracy": None}),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_cell_is_set_aside_told_in_one_line_and_missing(damage, row, tmp_path, capsys):
    BROKEN[damage](row / "krum.iid.seed1")
    damaged = content(row / "krum.iid.seed1")
    with pytest.raises(UserError, match=r"not a whole result .*; run `dvc repro -f -s train@sign_flip`"):
        store.read_row(tmp_path, PARAMS, "sign_flip")
    assert store.settle(tmp_path, row, KEYS) == {"krum.iid.seed1"}
    assert len(list(row.iterdir())) == 3
    (kept,) = (tmp_path / ".cellcache").iterdir()
    assert content(kept) == damaged
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("results/train/sign_flip/krum.iid.seed1: damaged (")
    assert kept.name in line


def test_a_damaged_cell_of_the_cache_is_not_taken(row, tmp_path, capsys):
    store.settle(tmp_path, row, {})
    os.truncate(tmp_path / ".cellcache" / KEYS["krum.iid.seed1"] / "steps.csv", 99)
    assert store.settle(tmp_path, row, KEYS) == {"krum.iid.seed1"}
    assert "steps.csv is not as it was written" in capsys.readouterr().err


@pytest.mark.parametrize("cached_twin", ["whole", "damaged"])
def test_a_cell_that_meets_its_twin_in_the_cache_survives(cached_twin, row, tmp_path):
    before, key = content(row / "krum.iid.seed1"), KEYS["krum.iid.seed1"]
    shutil.copytree(row / "krum.iid.seed1", tmp_path / ".cellcache" / key)
    if cached_twin == "damaged":
        (tmp_path / ".cellcache" / key / "cell.json").write_text("{")
    store.settle(tmp_path, row, {})
    assert content(tmp_path / ".cellcache" / key) == before


def test_what_a_killed_process_was_writing_goes(row, tmp_path):
    (row / ".writing-0").mkdir()
    (row / ".writing-0" / "steps.csv").write_text("st")
    assert store.settle(tmp_path, row, KEYS) == set()
    assert len(list(row.iterdir())) == 4
    assert cached(tmp_path) == []


@pytest.mark.parametrize("moved", ["results", "results/train/sign_flip", ".cellcache"])
def test_results_and_cache_may_lie_on_different_file_systems(moved, row, tmp_path, results, monkeypatch):
    before, elsewhere = content(row), tmp_path / "elsewhere"
    (tmp_path / ".cellcache").mkdir(exist_ok=True)
    (tmp_path / moved).rename(elsewhere)
    (tmp_path / moved).symlink_to(elsewhere)
    rename = Path.rename

    def renamed(source, target):
        if (elsewhere in source.resolve().parents) != (elsewhere in target.resolve().parents):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", renamed)
    store.settle(tmp_path, row, {})
    assert cached(tmp_path) == sorted(KEYS.values())
    assert store.settle(tmp_path, row, KEYS) == set()
    assert content(row) == before
    os.truncate(row / "krum.iid.seed1" / "steps.csv", 9)
    assert store.settle(tmp_path, row, KEYS) == {"krum.iid.seed1"}
    (item, result) = next((i, r) for i, r in zip(CELLS, results, strict=True) if i.folder == "krum.iid.seed1")
    store.write(row, item, IDENTITIES[item.folder], result)
    assert content(row) == before


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


@pytest.mark.parametrize("failing", ["_as_csv", "write_sealed"])
def test_a_write_that_is_interrupted_leaves_nothing_in_the_row(failing, row, tmp_path, results, monkeypatch):
    shutil.rmtree(row / "krum.iid.seed0")
    before = content(row)
    (item, result) = next((i, r) for i, r in zip(CELLS, results, strict=True) if i.folder == "krum.iid.seed0")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cell_files, failing, killed)
        with pytest.raises(KeyboardInterrupt):
            store.write(row, item, IDENTITIES[item.folder], result)
    assert not (row / "krum.iid.seed0").exists()
    assert store.settle(tmp_path, row, KEYS) == {"krum.iid.seed0"}
    assert content(row) == before
    store.write(row, item, IDENTITIES[item.folder], result)
    assert store.settle(tmp_path, row, KEYS) == set()


def test_numbers_that_are_not_finite_survive(row, tmp_path, results):
    shutil.rmtree(row / "mean.iid.seed0")
    strange = np.array([math.nan, math.inf, -math.inf, 1e-45, 0.1, 3e38], dtype=np.float32)
    result = replace(
        results[0],
        steps={**results[0].steps, "train_loss": strange},
        final={**results[0].final, "test_loss": math.nan, "validation_loss": math.inf},
    )
    store.write(row, CELLS[0], IDENTITIES[CELLS[0].folder], result)
    record = read(row, CELLS[0])
    np.testing.assert_array_equal(record.steps["train_loss"].astype(np.float32), strange)
    assert math.isnan(record.final["test_loss"])
    assert math.isnan(record.final["validation_loss"])
    written = json.loads((row / "mean.iid.seed0" / "cell.json").read_text(), parse_constant=pytest.fail)
    assert written["final"]["test_loss"] is None


def test_a_missing_cell_is_a_user_error_that_says_what_to_run(row, tmp_path):
    shutil.rmtree(row / "krum.iid.seed1")
    with pytest.raises(UserError, match=r"krum.iid.seed1: no such result; run `dvc repro train@sign_flip`"):
        store.read_row(tmp_path, PARAMS, "sign_flip")


def test_a_file_in_place_of_a_cell_is_a_user_error(row):
    shutil.rmtree(row / CELLS[0].folder)
    (row / CELLS[0].folder).write_text("x")
    with pytest.raises(UserError, match="not a whole result"):
        read(row, CELLS[0])


def test_a_cell_of_other_parameters_is_never_taken_for_this_one(row, tmp_path):
    other = parameters({**GRID, "training.momentum": 0.5})
    with pytest.raises(UserError, match=r"trained with other parameters than params.yaml states"):
        store.read_row(tmp_path, other, "sign_flip")


def test_a_cell_of_other_data_or_code_is_never_taken_for_this_one(row, tmp_path, monkeypatch):
    dataset.write(tmp_path / DATASET, blobs(seed=1))
    with pytest.raises(UserError, match=r"other data than data/dataset.safetensors holds; run `dvc repro train@sign"):
        store.read_row(tmp_path, PARAMS, "sign_flip")
    dataset.write(tmp_path / DATASET, DATA)
    monkeypatch.setattr("pipeline.simulator.cell.code_hash", lambda _: "of another version")
    with pytest.raises(UserError, match=r"seed0: trained with other code; run `dvc repro train@sign_flip`"):
        store.read_row(tmp_path, PARAMS, "sign_flip")
