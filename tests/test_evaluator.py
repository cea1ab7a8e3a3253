"""Every cell is trained once, whoever asks, and whatever interrupts."""

import json

import pytest
from fabricated import Training, visible
from support import blobs, cell, train, trainer

from pipeline.runs.evaluator import Evaluator, Outcome

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


def test_each_split_has_its_own_outcome(training, tmp_path):
    (validation,) = evaluator(tmp_path).outcomes(CELLS[:1], "validation", "")
    (test,) = evaluator(tmp_path).outcomes(CELLS[:1], "test", "")
    assert test.accuracy == pytest.approx(validation.accuracy - 0.05)


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
def test_a_damaged_memory_is_trained_anew(damage, training, tmp_path):
    (before,) = evaluator(tmp_path).outcomes(CELLS[:1], "test", "")
    (file,) = (path for path in (tmp_path / ".cellcache").rglob("*.json"))
    file.write_text(damage, encoding="latin-1")
    assert evaluator(tmp_path).outcomes(CELLS[:1], "test", "") == [before]
    assert json.loads(file.read_text()) == {"accuracy": before.accuracy, "diverged": False, "flagged": None}


def test_real_training_gives_the_final_metrics(tmp_path):
    results = train(CELLS, DATASET)
    for split in ("validation", "test"):
        expected = [Outcome(result.final[f"{split}_accuracy"], False) for result in results]
        assert evaluator(tmp_path).outcomes(CELLS, split, "") == expected
