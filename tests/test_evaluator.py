"""Every cell is trained once, whoever asks, and whatever interrupts."""

import pytest
from fabricated import Training, visible
from support import Unwatched, blobs, cell, parameters, train, trainer

from pipeline.core.files import read_sealed, write_sealed
from pipeline.data.dataset import data_hash, write
from pipeline.runs.evaluator import Evaluator, Outcome
from pipeline.runs.store import read_row
from pipeline.runs.train import train_row

DATASET = blobs()


@pytest.fixture
def training(monkeypatch):
    fabricated = Training(damage=lambda cell: 0.1)
    monkeypatch.setattr("pipeline.runs.evaluator.train", fabricated)
    return fabricated


def evaluator(root, data_hash="data") -> Evaluator:
    with trainer(DATASET) as ready:
        return Evaluator(root, ready, data_hash)


CELLS = [cell(seed=seed) for seed in (0, 1, 2)]


def test_outcomes_come_in_the_order_asked_and_each_cell_is_trained_once(training, tmp_path):
    asked = [CELLS[1], CELLS[0], CELLS[1], CELLS[2]]
    outcomes = evaluator(tmp_path).outcomes(asked, "validation", "")
    assert [outcome.accuracy for outcome in outcomes] == [training.accuracy(one) for one in asked]
    assert training.trained == [CELLS[1], CELLS[0], CELLS[2]]


def test_what_is_known_is_not_trained_again_by_anyone(training, tmp_path):
    first = evaluator(tmp_path).outcomes(CELLS, "validation", "")
    assert evaluator(tmp_path).outcomes(CELLS[::-1], "validation", "") == first[::-1]
    assert len(training.trained) == 3


def test_one_training_tells_the_outcome_on_both_splits(training, tmp_path):
    (validation,) = evaluator(tmp_path).outcomes(CELLS[:1], "validation", "")
    (test,) = evaluator(tmp_path).outcomes(CELLS[:1], "test", "")
    assert test.accuracy == pytest.approx(validation.accuracy - 0.05)
    assert len(training.trained) == 1


def test_what_a_filter_flags_is_measured_when_it_is_asked_for(training, tmp_path):
    (before,) = evaluator(tmp_path).outcomes(CELLS[:1], "validation", "")
    (after,) = evaluator(tmp_path).outcomes(CELLS[:1], "validation", "", detect=True)
    assert before.flagged is None
    assert after == (*before[:2], visible(CELLS[0].strength))
    assert evaluator(tmp_path).outcomes(CELLS[:1], "validation", "") == [after]
    assert len(training.trained) == 2


def test_other_data_are_another_evaluation(training, tmp_path):
    evaluator(tmp_path, "data").outcomes(CELLS, "test", "")
    evaluator(tmp_path, "other data").outcomes(CELLS, "test", "")
    assert len(training.trained) == 6


def test_an_interruption_keeps_what_was_finished(training, tmp_path):
    training.fails_after = 2
    with pytest.raises(KeyboardInterrupt):
        evaluator(tmp_path).outcomes(CELLS, "test", "")
    training.fails_after = None
    evaluator(tmp_path).outcomes(CELLS, "test", "")
    assert training.trained == CELLS


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"accuracy": 1.0}', '{"accuracy": 1, "what": 2}', "\xff"])
def test_a_damaged_memory_is_trained_anew(damage, training, tmp_path, capsys):
    (before,) = evaluator(tmp_path).outcomes(CELLS[:1], "test", "")
    (file,) = (path for path in (tmp_path / ".cellcache").rglob("*.json"))
    whole = file.read_bytes()
    file.write_text(damage, encoding="latin-1")
    assert evaluator(tmp_path).outcomes(CELLS[:1], "test", "") == [before]
    assert file.read_bytes() == whole
    assert capsys.readouterr().err.count(": damaged (") == 1
    assert damage.encode("latin-1") in [path.read_bytes() for path in (tmp_path / ".cellcache").glob("damaged-*")]


def poisoned(file):
    """Endings that are whole but not those of the cell: out of range, or of another cell."""
    found = read_sealed(file)
    yield {**found, "test_accuracy": 7.0}
    yield {**found, "validation_accuracy": -0.1}
    yield {**found, "flagged": 1.5}
    yield {**found, "key": "0" * 16}


def test_a_poisoned_memory_is_not_believed(training, tmp_path):
    (before,) = evaluator(tmp_path).outcomes(CELLS[:1], "test", "")
    (file,) = (tmp_path / ".cellcache" / "evaluations").iterdir()
    for poison in poisoned(file):
        write_sealed(file, poison)
        assert evaluator(tmp_path).outcomes(CELLS[:1], "test", "") == [before]
    assert len(training.trained) == 5


def test_a_cell_of_the_grid_is_not_trained_again_by_a_search(training, tmp_path):
    params = parameters({"grid.defences": ["mean"], "grid.partitions": ["iid"], "grid.seeds": [0, 1]})
    write(tmp_path / "data" / "dataset.safetensors", DATASET)
    train_row(tmp_path, params, "ipm", lambda *_: Unwatched())
    records = read_row(tmp_path, params, "ipm")
    cells = [record.planned.cell for record in records]
    for split in ("validation", "test"):
        asking = evaluator(tmp_path, data_hash(tmp_path / "data" / "dataset.safetensors"))
        expected = [Outcome(record.final[f"{split}_accuracy"], False) for record in records]
        assert asking.outcomes(cells, split, "") == expected
    assert training.trained == []


def test_real_training_gives_the_final_metrics(tmp_path):
    results = train(CELLS, DATASET)
    for split in ("validation", "test"):
        expected = [Outcome(result.final[f"{split}_accuracy"], False) for result in results]
        assert evaluator(tmp_path).outcomes(CELLS, split, "") == expected
