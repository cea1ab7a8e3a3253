"""The search for a strength on damage functions with a known peak: what it finds, reads and confirms."""

import json

import numpy as np
import pandas as pd
import pytest
from fabricated import Training, hump
from support import blobs, parameters

from pipeline.data.dataset import write
from pipeline.search.stage import search_study

PEAKS = {"median": 0.5, "krum": 30.0}
SETTINGS = {
    "search.defences": list(PEAKS),
    "search.trials": 24,
    "search.batch": 8,
    "search.seeds": [100, 101, 102],
    "search.confirmation_seeds": [200, 201],
    "search.sampler": "tpe",
}
MEASURED = ["attack", "parameters", "seed", "clean_accuracy", "attacked_accuracy", "degradation", "diverged", "flagged"]


def two_peaks(cell) -> float:
    return hump(cell.strength, PEAKS[cell.defence.rule.name])


def searched(root, monkeypatch, training, study="ipm", **changes):
    """Run a study in ``root``; return its tables by name, the strength in a column of its own."""
    monkeypatch.setattr("pipeline.runs.evaluator.train", training)
    write(root / "data" / "dataset.safetensors", blobs())
    search_study(root, parameters({**SETTINGS, **changes}), study)
    tables = {}
    for path in (root / "results" / "search" / study).glob("*.csv"):
        table = pd.read_csv(path)
        tables[path.stem] = table.assign(strength=[json.loads(p).get("strength") for p in table["parameters"]])
    return tables


def files(root, study="ipm") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "results" / "search" / study).iterdir()}


def described(root, study="ipm"):
    return json.loads(files(root, study)["study.json"])


@pytest.fixture(scope="module")
def training():
    return Training(two_peaks)


@pytest.fixture(scope="module")
def tables(training, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return searched(tmp_path_factory.mktemp("root"), patch, training)


@pytest.mark.parametrize("sampler", ["gp", "tpe", "cmaes", "qmc", "random"])
def test_the_peak_of_every_defence_is_found_by_every_sampler(sampler, monkeypatch, tmp_path):
    tables = searched(tmp_path, monkeypatch, Training(two_peaks), **{"search.sampler": sampler})
    confirmed = tables["confirmation"]
    found = confirmed[confirmed["candidate"] == "found"].groupby("defence")["strength"].first()
    for defence, peak in PEAKS.items():
        assert abs(np.log10(found[defence] / peak)) < 0.3


def test_every_defence_has_its_trials_the_literature_then_a_grid_then_the_sampler(tables):
    trials = tables["trials"]
    assert list(trials.columns) == ["defence", "byzantine", "trial", "origin", *MEASURED, "strength"]
    assert sorted(set(trials["defence"])) == sorted(PEAKS)
    assert set(trials["byzantine"]) == {2}
    for _, of_defence in trials.groupby("defence"):
        first = of_defence[of_defence["seed"] == 100]
        assert first["trial"].tolist() == list(range(24))
        assert first["origin"].tolist() == ["literature"] * 2 + ["grid"] * 6 + ["sampler"] * 16
        assert first["strength"].iloc[:2].tolist() == [0.1, 1.0]
        np.testing.assert_allclose(first["strength"].iloc[2:8], np.geomspace(0.01, 100, 6), rtol=5e-4)
        assert of_defence.groupby("trial")["seed"].apply(list).map(tuple).unique().tolist() == [(100, 101, 102)]
        assert of_defence["strength"].between(0.01, 100).all()


def test_all_strengths_of_the_literature_come_first_and_are_confirmed(monkeypatch, tmp_path):
    changes = {"threat": {"workers": 17, "byzantine": 5, "tolerated": 5, "sampled": None}, "search.trials": 4}
    tables = searched(tmp_path, monkeypatch, Training(two_peaks), "alie", **changes)
    trials, confirmed = tables["trials"], tables["confirmation"]
    first = trials[(trials["seed"] == 100) & (trials["defence"] == "krum")]
    assert first["origin"].tolist() == ["literature"] * 3 + ["grid"]
    np.testing.assert_allclose(
        first["strength"], [0.4307, 0.7215, 1.5, 0.05], atol=5e-4
    )  # Phi^-1(8 / 12), Phi^-1(13 / 17)
    assert first["parameters"].map(lambda text: json.loads(text)["sign"]).tolist() == [-1, -1, -1, -1]
    for candidate, strength in (("literature", 0.4307), ("literature_2", 0.7215), ("literature_3", 1.5)):
        np.testing.assert_allclose(confirmed[confirmed["candidate"] == candidate]["strength"], strength, atol=5e-4)


def test_what_is_found_are_the_worst_trials_and_never_milder_than_the_literature(tables):
    trials, confirmed = tables["trials"], tables["confirmation"]
    for defence in PEAKS:
        means = trials[trials["defence"] == defence].groupby("trial")["degradation"].mean()
        first = confirmed[(confirmed["defence"] == defence) & (confirmed["seed"] == 200)].set_index("candidate")
        worst = means.sort_values(ascending=False, kind="stable").index[:3].tolist()
        assert first.loc[["found", "found_2", "found_3"], "trial"].tolist() == worst
        assert means[first.loc["found", "trial"]] == means.max() >= means[0]


def test_of_equally_bad_strengths_the_first_trial_wins(monkeypatch, tmp_path):
    tables = searched(tmp_path, monkeypatch, Training(lambda cell: 0.25), **{"search.trials": 8})
    first = tables["confirmation"].groupby("candidate")["trial"].first()
    assert first.to_dict() == {"literature": 0, "literature_2": 1, "found": 0, "found_2": 1, "found_3": 2}


def test_a_degradation_compares_runs_of_one_defence_and_seed(tables):
    for table in (tables["trials"], tables["confirmation"]):
        seeds, lengths = table["seed"] % 7, table["defence"].str.len()
        test = 0.05 * table["seed"].isin([200, 201])
        np.testing.assert_allclose(table["clean_accuracy"], 0.9 - 0.01 * seeds - 0.001 * lengths - test)
        np.testing.assert_allclose(table["degradation"], table["clean_accuracy"] - table["attacked_accuracy"])
        peaks = table["defence"].map(PEAKS)
        damage = [hump(strength, peak) for strength, peak in zip(table["strength"], peaks, strict=True)]
        np.testing.assert_allclose(table["degradation"], damage, atol=1e-12)
        assert (table["diverged"] == (table["strength"] > 50)).all()
        assert table["flagged"].isna().all()


def test_the_confirmation_is_on_fresh_seeds_and_test_data_and_the_trials_are_not(tables):
    """Test accuracies lie 0.05 below those on validation data, see ``Training`` in fabricated.py."""
    trials, confirmed = tables["trials"], tables["confirmation"]
    assert set(trials["seed"]) == {100, 101, 102}
    assert set(confirmed["seed"]) == {200, 201}
    assert list(confirmed.columns) == ["defence", "byzantine", "candidate", "trial", *MEASURED, "strength"]
    candidates = ("literature", "literature_2", "found", "found_2", "found_3")
    expected = [(defence, candidate) for defence in PEAKS for candidate in candidates for _ in range(2)]
    assert list(zip(confirmed["defence"], confirmed["candidate"], strict=True)) == expected
    clean = 0.9 - 0.01 * (confirmed["seed"] % 7) - 0.001 * confirmed["defence"].str.len()
    np.testing.assert_allclose(clean - confirmed["clean_accuracy"], 0.05)


def test_what_was_found_for_one_defence_is_applied_to_all(tables):
    transfer, confirmed = tables["transfer"], tables["confirmation"]
    found = confirmed[confirmed["candidate"] == "found"].groupby("defence")["strength"].first()
    assert list(transfer.columns[:2]) == ["from_defence", "to_defence"]
    pairs = list(zip(transfer["from_defence"], transfer["to_defence"], transfer["seed"], strict=True))
    assert sorted(pairs) == sorted((a, b, seed) for a in PEAKS for b in PEAKS for seed in (200, 201))
    assert (transfer["strength"] == transfer["from_defence"].map(found)).all()
    peaks = transfer["to_defence"].map(PEAKS)
    damage = [hump(strength, peak) for strength, peak in zip(transfer["strength"], peaks, strict=True)]
    np.testing.assert_allclose(transfer["degradation"], damage, atol=1e-12)


def test_without_transfer_there_is_no_such_file(monkeypatch, tmp_path):
    changes = {"search.transfer": False, "search.trials": 3}
    assert set(searched(tmp_path, monkeypatch, Training(two_peaks), **changes)) == {"trials", "confirmation"}


@pytest.mark.usefixtures("tables")
def test_every_cell_is_trained_once_the_clean_references_too(training):
    contents = [cell.model_dump_json() for cell in training.trained]
    assert len(contents) == len(set(contents))
    clean = [(cell.defence.rule.name, cell.seed) for cell in training.trained if cell.attack.name == "none"]
    assert sorted(clean) == sorted((defence, seed) for defence in PEAKS for seed in (100, 101, 102, 200, 201))
    assert {cell.partition.alpha for cell in training.trained} == {0.3}


def test_studies_share_their_clean_references(monkeypatch, tmp_path):
    training = Training(two_peaks)
    searched(tmp_path, monkeypatch, training, "ipm", **{"search.trials": 3})
    before = len(training.trained)
    searched(tmp_path, monkeypatch, training, "sign_flip", **{"search.trials": 3})
    assert "none" not in {cell.attack.name for cell in training.trained[before:]}


def test_a_killed_search_goes_on_to_the_same_bytes_and_trains_nothing_twice(monkeypatch, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    uninterrupted = Training(two_peaks)
    searched(whole, monkeypatch, uninterrupted)
    total = len(uninterrupted.trained)
    trained = []
    for fails_after in (3, 40, 41, 60):
        interrupted = Training(two_peaks, fails_after)
        with pytest.raises(KeyboardInterrupt):
            searched(killed, monkeypatch, interrupted)
        assert not (killed / "results").exists()
        trained += interrupted.trained
    last = Training(two_peaks)
    searched(killed, monkeypatch, last)
    trained += last.trained
    assert files(killed) == files(whole)
    assert len(trained) == len({cell.model_dump_json() for cell in trained}) == total


def test_a_repeated_search_gives_the_same_bytes_and_trains_nothing(monkeypatch, tmp_path):
    searched(tmp_path, monkeypatch, Training(two_peaks))
    before, again = files(tmp_path), Training(two_peaks)
    searched(tmp_path, monkeypatch, again)
    assert files(tmp_path) == before
    assert again.trained == []
    searched(tmp_path, monkeypatch, Training(two_peaks), **{"search.sampler_seed": 1})
    assert files(tmp_path)["trials.csv"] != before["trials.csv"]


@pytest.mark.parametrize("sampler", ["gp", "tpe", "cmaes", "qmc", "random"])
@pytest.mark.parametrize("shorter", [16, 13])
def test_an_extended_search_keeps_the_trials_of_the_shorter_one(shorter, sampler, monkeypatch, tmp_path):
    sizes = {"search.sampler": sampler, "search.defences": ["median"]}
    short = searched(tmp_path, monkeypatch, Training(two_peaks), **sizes, **{"search.trials": shorter})["trials"]
    more = Training(two_peaks)
    long = searched(tmp_path, monkeypatch, more, **sizes, **{"search.trials": 32})["trials"]
    pd.testing.assert_frame_equal(long[long["trial"] < shorter].reset_index(drop=True), short)
    assert long["trial"].max() == 31
    assert len([cell for cell in more.trained if cell.seed == 100]) <= 32 - shorter


def test_a_time_budget_ends_the_search_and_its_record_repeats_it(monkeypatch, tmp_path):
    clock = iter(range(0, 10_000, 40))  # seconds: a look at the clock each
    monkeypatch.setattr("pipeline.search.stage.monotonic", lambda: next(clock))
    searched(tmp_path / "limited", monkeypatch, Training(two_peaks), **{"search.budget_minutes": 1.0})
    assert described(tmp_path / "limited")["stopped_after"] == 16  # 40 s after the first round, 80 s after the second
    searched(tmp_path / "repeated", monkeypatch, Training(two_peaks), **{"search.trials": 16})
    limited, repeated = files(tmp_path / "limited"), files(tmp_path / "repeated")
    for name in ("trials.csv", "confirmation.csv", "transfer.csv"):
        assert limited[name] == repeated[name]


def test_progress_tells_the_worst_so_far_of_every_defence(monkeypatch, tmp_path, capsys):
    searched(tmp_path, monkeypatch, Training(two_peaks), **{"search.trials": 16})
    told = [line for line in capsys.readouterr().out.splitlines() if "worst so far" in line]
    assert [line.split(";")[0] for line in told] == ["search ipm: 8 of 16 trials", "search ipm: 16 of 16 trials"]
    median = max(hump(strength, 0.5) for strength in [0.1, 1.0, *np.geomspace(0.01, 100, 6)])
    assert f"median {median:.1%}" in told[0]


def test_the_study_is_described_and_its_key_changes_with_what_changes_it(monkeypatch, tmp_path):
    def study(**changes):
        searched(tmp_path, monkeypatch, Training(two_peaks), **{"search.trials": 3, **changes})
        return described(tmp_path)

    first = study()
    assert (first["mode"], first["attacks"], first["partition"]) == ("strength", ["ipm"], "alpha_03")
    assert first["spaces"] == {"ipm": {"strength": {"low": 0.01, "high": 100.0, "log": True}}}
    assert first["literature"] == {"ipm": [{"strength": 0.1}, {"strength": 1.0}]}
    assert (first["content"]["trials"], first["content"]["sampler"], first["stopped_after"]) == (3, "tpe", 3)
    assert study(**{"grid.seeds": [9], "execution.memory_gb": 0.1, "search.studies": ["ipm"]}) == first
    changes = [
        {"search.trials": 4},
        {"search.sampler_seed": 1},
        {"training.momentum": 0.5},
        {"search.partition": "iid"},
        {"studies.ipm.space": {"ipm": {"strength": [0.05, 10]}}},
        {"studies.ipm.sampler": "random"},
    ]
    keys = [first["key"], *(study(**change)["key"] for change in changes)]
    assert len(set(keys)) == len(keys)
