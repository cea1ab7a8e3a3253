"""Seeds are added until a row is precise; the defender tunes; references are trained: decided from results alone."""

import json

import numpy as np
import pandas as pd
import pytest
from support import REMOVED, Unwatched, blobs, parameters

from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.core.space import Choice, Range
from pipeline.data.dataset import write
from pipeline.defences.aggregators.distance import Krum
from pipeline.defences.aggregators.iterative import CenteredClipping
from pipeline.runs.plan import planned, whole_row
from pipeline.runs.references import alone, prolonged, read_references, train_references
from pipeline.runs.seeds import seeds_needed, t_half_width
from pipeline.runs.store import Record, read_row
from pipeline.runs.train import train_row
from pipeline.runs.tuned import tune_folder, tuned
from pipeline.search.tuning import chosen, objectives, tune_defence

GRID = {
    "grid.attacks": ["none", "sign_flip", "ipm"],
    "grid.defences": ["mean", "median"],
    "grid.partitions": ["alpha_03"],
    "grid.seeds": [0, 1],
    "search.studies": [],
}
MORE = {**GRID, "grid.max_seeds": 6}
TUNING = {
    "tuning.defences": ["centered_clipping"],
    "defences.centered_clipping": {"rule": {"name": "centered_clipping"}},
}


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    return tmp_path


def trained(root, params):
    for attack in params.grid.attacks:
        train_row(root, params, attack, lambda *_: Unwatched())
    return {attack: read_row(root, params, attack) for attack in params.grid.attacks}


# Seeds


@pytest.mark.parametrize(
    ("accuracies", "needed"),
    [
        ([], 2),
        ([0.5], 2),
        ([0.5, 0.5], 2),  # narrow enough
        ([0.5, 0.9], 4),
        ([0.5, 0.9, 0.7, 0.7], 6),
        ([0.5, 0.9, 0.7, 0.7, 0.7, 0.7], 6),  # all there are
        ([0.5, 0.5, 0.0, 1.0], 2),  # later ones do not count once it is precise
    ],
)
def test_seeds_are_added_in_rounds_until_the_interval_is_narrow_or_there_are_no_more(accuracies, needed):
    assert seeds_needed(parameters(MORE), "ipm", accuracies) == needed


def test_without_attack_all_seeds_are_needed():
    assert seeds_needed(parameters(MORE), "none", []) == 6


def test_a_row_has_the_seeds_that_its_results_ask_for_and_no_others(root):
    params = parameters({**MORE, "analysis.half_width": 0.2})
    results = trained(root, params)
    counts = {}
    for records in results.values():
        for record in records:
            counts.setdefault(record.planned.group, []).append(record.final["test_accuracy"])
    for (attack, *_), accuracies in counts.items():
        widths = [t_half_width(accuracies[:k], 0.95) for k in range(2, len(accuracies), 2)]
        assert all(width > 0.2 for width in widths) or attack == "none"
        assert len(accuracies) == 6 or t_half_width(accuracies, 0.95) <= 0.2
    assert len({len(accuracies) for accuracies in counts.values()}) > 1, "a case that tells nothing"
    for attack, records in results.items():
        folders = {path.name for path in (root / "results" / "train" / attack).iterdir()}
        assert folders == {record.planned.folder for record in records}


def test_a_second_run_trains_nothing_and_a_wider_aim_puts_the_extra_seeds_aside(root, capsys):
    params = parameters(MORE)
    trained(root, params)
    capsys.readouterr()
    before = trained(root, params)
    out = capsys.readouterr().out
    assert out.count(", 0 to train") == out.count("cells")
    fewer = trained(root, parameters({**MORE, "analysis.half_width": 0.99, "analysis.confidence": 0.1}))
    assert [len(records) for records in fewer.values()] == [12, 4, 4]
    assert any(len(records) > 4 for records in list(before.values())[1:])
    again = trained(root, params)
    assert [[r.final for r in records] for records in again.values()] == [
        [r.final for r in rs] for rs in before.values()
    ]
    assert "to train" not in capsys.readouterr().out.replace(", 0 to train", "")


def test_the_seeds_of_a_row_do_not_depend_on_where_it_was_interrupted(root):
    params = parameters(MORE)
    whole = trained(root, params)
    for planned_cell in whole_row(params, "ipm")[::3]:
        folder = root / "results" / "train" / "ipm" / planned_cell.folder
        if folder.exists():
            (folder / "cell.json").unlink()
    again = trained(root, params)
    assert [r.final for r in again["ipm"]] == [r.final for r in whole["ipm"]]


# Tuning


def test_what_is_tuned_is_the_best_worst_case_and_never_below_the_common_rate(root):
    params = parameters({**GRID, **TUNING})
    tune_defence(root, params, "centered_clipping")
    folder = tune_folder(root, "centered_clipping")
    trials, found = pd.read_csv(folder / "trials.csv"), read_json(folder / "tuned.json")
    assert trials.groupby("trial").size().tolist() == [2] * 4  # attacks x seeds
    assert trials["origin"].iloc[0] == "common"
    assert trials["learning_rate"].iloc[0] == params.training.learning_rate
    worst = trials.groupby(["trial", "attack"])["accuracy"].mean().unstack().min(axis=1)
    assert found["trial"] == int(np.argmax(worst.to_numpy()))
    assert worst[found["trial"]] >= worst[0]
    entry = tuned(root, params).defences["centered_clipping"]
    row = trials[trials["trial"] == found["trial"]].iloc[0]
    assert (entry.learning_rate, entry.rule.tau) == (row["learning_rate"], json.loads(row["parameters"])["tau"])
    cell = planned(tuned(root, params), "ipm", "centered_clipping", "alpha_03", 0).cell
    assert (cell.training.learning_rate, cell.defence.rule.tau) == (entry.learning_rate, entry.rule.tau)


def test_choices_and_whole_numbers_are_tuned_too(root, monkeypatch):
    """Text, more choices than rates in the grid, and a range of whole numbers."""
    space = {
        "tau": Range(1.0, 10.0),
        "iterations": Range(1, 4, whole=True),
    }
    monkeypatch.setattr(CenteredClipping, "space", space)
    monkeypatch.setattr(Krum, "space", {"neighbours": Choice(("n-f-2", "n-f-1")), "power": Choice((1, 2, 4))})
    names = ["centered_clipping", "krum"]
    params = parameters({**GRID, **TUNING, "tuning.defences": names, "tuning.trials": 6, "tuning.batch": 3})
    for defence in names:
        tune_defence(root, params, defence)
    tried = pd.read_csv(tune_folder(root, "krum") / "trials.csv")["parameters"].map(json.loads)
    assert {value["neighbours"] for value in tried} == {"n-f-2", "n-f-1"}
    assert {value["power"] for value in tried} >= {1, 2}
    rule = tuned(root, params).defences["centered_clipping"].rule
    assert 1 <= rule.iterations <= 4


def test_tuning_twice_gives_the_same_bytes(root):
    params, folder = parameters({**GRID, **TUNING}), tune_folder(root, "centered_clipping")
    tune_defence(root, params, "centered_clipping")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tune_defence(root, params, "centered_clipping")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_objective_is_the_worst_attack_or_the_clean_accuracy():
    rows = [(0, "none", 0.9), (0, "ipm", 0.2), (1, "none", 0.8), (1, "ipm", 0.6), (2, "none", 0.8), (2, "ipm", 0.6)]
    trials = pd.DataFrame(rows, columns=["trial", "attack", "accuracy"])
    assert objectives(trials, "worst").tolist() == [0.2, 0.6, 0.6]
    assert (chosen(trials, "worst"), chosen(trials, "clean")) == (1, 0)


def test_a_missing_damaged_or_foreign_tuning_is_told_with_the_stage_to_run(root):
    params = parameters({**GRID, **TUNING})
    with pytest.raises(UserError, match=r"no such result; run `dvc repro tune@centered_clipping`"):
        tuned(root, params)
    tune_defence(root, params, "centered_clipping")
    with pytest.raises(UserError, match=r"tuned with other parameters, .*; run `dvc repro tune@centered_clipping`"):
        tuned(root, parameters({**GRID, **TUNING, "tuning.trials": 5}))
    file = tune_folder(root, "centered_clipping") / "tuned.json"
    whole = file.read_text()
    for damage in ("{", whole[:-2], whole.replace("learning_rate", "learning-rate"), whole.replace("1", "2", 1)):
        file.write_text(damage)
        with pytest.raises(UserError, match=r"not a whole result .*; run `dvc repro -f -s tune@centered_clipping`"):
            tuned(root, params)
    file.write_text(whole)
    write(root / "data" / "dataset.safetensors", blobs(seed=1))
    with pytest.raises(UserError, match=r"tuned with other parameters, data or code"):
        tuned(root, params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tuning.learning_rate": [1.0, 5.0]},
            r"tuning.learning_rate = \[1.0, 5.0\]: should hold 0.5, the common rate",
        ),
        ({"tuning.learning_rate": [5.0, 1.0]}, r"tuning.learning_rate = \[5.0, 1.0\]: should be two bounds"),
        ({"tuning.objective": "clean", "tuning.attacks": ["ipm"]}, "tuning.attacks: should hold 'none'"),
        ({"tuning.seeds": [1]}, r"grid.seeds: \[1\] also stand in tuning.seeds"),
        ({"grid.max_seeds": 1}, "grid.max_seeds = 1: less than the 2 of grid.seeds"),
        ({"tuning.defences": ["krumm"]}, "tuning.defences: 'krumm' is not in defences"),
        ({"tuning": REMOVED}, "tuning: missing section"),
    ],
)
def test_what_cannot_be_tuned_is_told_before_anything_is_computed(changes, message):
    with pytest.raises(UserError, match=message):
        parameters({**GRID, **TUNING, **changes})


# References


def test_the_references_are_the_honest_alone_and_the_worst_rows_with_more_steps(root):
    params = parameters(GRID)
    results = trained(root, params)
    train_references(root, params)
    found = read_references(root, params)
    assert [record.planned for record in found.alone] == alone(params)
    assert [record.planned for record in found.prolonged] == prolonged(root, params)
    means = {
        (attack, defence): np.mean([r.final["test_accuracy"] for r in records if r.planned.defence == defence])
        for attack, records in results.items()
        for defence in params.grid.defences
        if attack != "none"
    }
    for record in found.prolonged:
        attack, defence = record.planned.attack, record.planned.defence
        assert means[attack, defence] == min(mean for (_, other), mean in means.items() if other == defence)
        assert record.planned.cell.training.steps == 4 * params.training.steps
    for record in found.alone:
        assert {"g_squared", "b_squared"} <= set(record.evaluations)
        assert (record.evaluations["g_squared"] > 0).all()


def test_a_seed_of_grid_and_confirmation_is_one_run_with_the_honest_alone():
    seeds = {"grid.seeds": [0, 1], "search.confirmation_seeds": [1, 2], "search.studies": ["ipm"]}
    folders = [one.folder for one in alone(parameters({**GRID, **seeds, "search.partition": "alpha_03"}))]
    assert len(folders) == len(set(folders)) == 3


def test_the_worst_row_is_chosen_with_all_its_seeds_as_in_the_tables(root, monkeypatch):
    params = parameters({**GRID, "grid.defences": ["mean"], "grid.seeds": [0], "grid.max_seeds": 2})
    accuracies = {"sign_flip": [0.3, 0.9], "ipm": [0.4, 0.4]}  # the first seed alone would choose sign flipping

    def row(_, __, attack):
        cells = (planned(params, attack, "mean", "alpha_03", seed) for seed in (0, 1))
        results = zip(cells, accuracies[attack], strict=True)
        return [Record(cell, "", {"test_accuracy": accuracy}, {}, {}) for cell, accuracy in results]

    monkeypatch.setattr("pipeline.runs.references.read_row", row)
    assert [(longer.attack, longer.cell.seed) for longer in prolonged(root, params)] == [("ipm", 0)]


def test_the_honest_alone_follow_the_mean_of_the_honest_vectors(root):
    params = parameters(GRID)
    trained(root, params)
    train_references(root, params)
    for record in read_references(root, params).alone:
        assert record.steps["aggregate_error"].max() < 1e-12
        assert record.steps["honest_norm"].min() > 1e-3
