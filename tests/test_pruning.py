"""Trials that end early: which, when, and that nothing but the numbers decides it."""

import json

import pandas as pd
import pytest
from fabricated import Training, hump
from support import blobs, parameters

from benchmarks import pruners as bench
from pipeline.core.errors import UserError
from pipeline.data.dataset import write
from pipeline.search.pruning import rungs
from pipeline.search.stage import search_study

PEAKS = {"median": 0.5, "krum": 30.0}
SETTINGS = {
    "training.steps": 40,
    "search.defences": list(PEAKS),
    "search.trials": 24,
    "search.batch": 8,
    "search.seeds": [100, 101],
    "search.confirmation_seeds": [200, 201],
    "search.transfer": False,
}
PRUNERS = ["median"]


def two_peaks(cell) -> float:
    return hump(cell.strength, PEAKS[cell.defence.rule.name])


def searched(root, monkeypatch, training=None, **changes):
    """Run a study in ``root``; return its tables by name."""
    monkeypatch.setattr("pipeline.runs.evaluator.train", training or Training(two_peaks))
    write(root / "data" / "dataset.safetensors", blobs())
    search_study(root, parameters({**SETTINGS, **changes}), "ipm")
    return {path.stem: pd.read_csv(path) for path in folder(root).glob("*.csv")}


def folder(root):
    return root / "results" / "search" / "ipm"


def files(root):
    return {path.name: path.read_bytes() for path in folder(root).iterdir()}


@pytest.mark.parametrize(
    ("steps", "every", "expected"), [(40, 4, [8, 20]), (150, 10, [30, 70]), (40, 30, []), (9, 4, [4])]
)
def test_rungs_are_evaluations_at_a_quarter_and_a_half(steps, every, expected):
    assert rungs(parameters().training.replace(steps=steps, evaluate_every=every)) == expected


@pytest.mark.parametrize("pruner", PRUNERS)
def test_mild_trials_end_and_the_worst_and_the_published_ones_do_not(pruner, monkeypatch, tmp_path):
    tables = searched(tmp_path, monkeypatch, **{"search.pruner": pruner})
    trials, pruned = tables["trials"], tables["pruned"]
    assert len(pruned) > 8
    assert not set(map(tuple, trials[["defence", "trial"]].to_numpy())) & set(
        map(tuple, pruned[["defence", "trial"]].to_numpy())
    )
    for defence, peak in PEAKS.items():
        numbers = [*trials[trials["defence"] == defence]["trial"], *pruned[pruned["defence"] == defence]["trial"]]
        assert sorted(numbers) == sorted([*range(24)] * 2)
        damage = trials[trials["defence"] == defence].groupby("parameters")["degradation"].mean()
        ended = [hump(json.loads(one)["strength"], peak) for one in pruned[pruned["defence"] == defence]["parameters"]]
        assert max(ended) < damage.max() + 1e-9
    assert "literature" not in set(pruned["origin"])
    assert set(pruned["steps"]) <= {8, 20}
    found = tables["confirmation"][tables["confirmation"]["candidate"] == "found"]
    assert set(found["trial"]) <= set(trials["trial"])
    assert json.loads((folder(tmp_path) / "study.json").read_text())["stopped_after"] == 24


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_killed_search_that_ends_trials_early_goes_on_to_the_same_bytes(pruner, monkeypatch, tmp_path):
    whole = Training(two_peaks)
    searched(tmp_path / "whole", monkeypatch, whole, **{"search.pruner": pruner})
    killed = Training(two_peaks)
    for after in (40, len(whole.trained) * 2 // 3):
        killed.fails_after = after
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "killed", monkeypatch, killed, **{"search.pruner": pruner})
    killed.fails_after = None
    searched(tmp_path / "killed", monkeypatch, killed, **{"search.pruner": pruner})
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert len(killed.trained) == len(whole.trained)


def test_published_trials_go_to_their_end_whatever_the_pruner_says(monkeypatch, tmp_path):
    monkeypatch.setattr("optuna.pruners.MedianPruner.prune", lambda *_: True)
    tables = searched(tmp_path, monkeypatch, **{"search.pruner": "median"})
    assert set(tables["trials"]["origin"]) == {"literature"}
    assert "literature" not in set(tables["pruned"]["origin"])
    assert tables["trials"]["trial"].nunique() + tables["pruned"]["trial"].nunique() == 24


def test_without_a_pruner_every_trial_goes_to_its_end(monkeypatch, tmp_path):
    tables = searched(tmp_path, monkeypatch)
    assert len(tables["trials"]) == 2 * 2 * 24
    assert "pruned" not in tables


def test_real_cells_go_on_from_their_rung_to_the_bits_of_a_search_without(tmp_path):
    few = {**SETTINGS, "search.trials": 12, "search.batch": 6, "execution.device": "cpu"}
    tables = {}
    for pruner in (None, "median"):
        root = tmp_path / str(pruner)
        write(root / "data" / "dataset.safetensors", blobs())
        search_study(root, parameters({**few, "search.pruner": pruner}), "ipm")
        tables[pruner] = pd.read_csv(folder(root) / "trials.csv")
    assert not list((tmp_path / "median" / ".cellcache" / "checkpoints").iterdir())
    whole, left = (table.set_index(["defence", "trial", "seed"]) for table in tables.values())
    assert 0 < len(left) < len(whole)
    pd.testing.assert_frame_equal(whole.loc[left.index], left)


def test_two_objectives_are_refused():
    stealth = {"studies.s": {"mode": "stealth", "attacks": ["ipm"]}, "search.studies": ["s"], "search.pruner": "median"}
    with pytest.raises(UserError, match=r"search.pruner = 'median': studies.s has two objectives"):
        parameters(stealth)


def test_the_bench_finds_what_a_pruner_saves_and_costs(monkeypatch, tmp_path):
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    monkeypatch.setattr("pipeline.runs.evaluator.train", Training(two_peaks))
    monkeypatch.setattr(bench, "SAMPLER_SEEDS", 2)
    params = parameters({**SETTINGS, "search.studies": ["ipm"]})
    rows = bench.truth(tmp_path, params, 21)
    assert list(rows.columns) == ["study", "defence", "strength", "seed", "8", "20", "40"]
    found = {(row["trials"], row["pruner"]): row for row in bench.regrets(rows, params)["pruners"]}
    assert found.keys() == {(budget, name) for budget in bench.BUDGETS for name in PRUNERS}
    for row in found.values():
        assert 0.25 < row["steps"] < 1
        assert 0 <= row["plain"] <= row["fewer"]
