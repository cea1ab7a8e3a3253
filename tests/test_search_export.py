"""The studies in Optuna's own form: every trial with its values, written once, opened again."""

import json
import os
import sqlite3
from contextlib import closing

import optuna
import pytest
from fabricated import Training, hump
from matplotlib.colors import to_hex
from support import parameters
from test_search import SETTINGS, searched
from test_search_modes import BREAKDOWN, STEALTH, WORST

from pipeline.report.figures.search_course import importance
from pipeline.report.figures.style import line_styles
from pipeline.report.search_export import export
from pipeline.report.search_results import read_study

BOTH_SIDES = {"studies.alie": {"mode": "strength", "attacks": ["alie"]}, "threat": WORST["threat"]}
STUDIES = {"ipm": {}, "alie": BOTH_SIDES, "worst": WORST, "hidden": STEALTH, "curve": BREAKDOWN}

STYLES = line_styles(["krum", "median"])


def damage(cell) -> float:
    return hump(cell.strength, 5.0)


@pytest.fixture(scope="module", params=STUDIES)
def result(request, tmp_path_factory):
    root, name = tmp_path_factory.mktemp("root"), request.param
    changes = {**STUDIES[name], "search.trials": 12}
    with pytest.MonkeyPatch.context() as patch:
        searched(root, patch, Training(damage), name, **changes)
    return read_study(root, parameters({**SETTINGS, **changes}), name)


def opened(path):
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    studies = {
        name: optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)
    }
    trials = {name: (study.directions, study.get_trials()) for name, study in studies.items()}
    storage.engine.dispose()
    return trials


def test_the_database_holds_every_trial_with_its_mean_and_parameters(result, tmp_path):
    export(tmp_path / "optuna.db", [result])
    held = opened(tmp_path / "optuna.db")
    for (defence, byzantine), rows in result.trials.groupby(["defence", "byzantine"]):
        suffix = f".f{byzantine}" if result.name == "curve" else ""
        directions, trials = held.pop(f"{result.name}.{defence}{suffix}")
        assert [direction.name for direction in directions] == ["MAXIMIZE", "MINIMIZE"][: len(directions)]
        means = rows.groupby("trial")[["degradation", "flagged"]].mean()
        assert [trial.values[0] for trial in trials] == pytest.approx(means["degradation"].tolist())
        assert len(directions) == (2 if result.name == "hidden" else 1)
        if result.name == "hidden":
            assert [trial.values[1] for trial in trials] == pytest.approx(means["flagged"].tolist())
        first = rows[rows["seed"] == 100]
        for trial, (_, row) in zip(trials, first.iterrows(), strict=True):
            assert trial.user_attrs["origin"] == row["origin"]
            assert trial.user_attrs["seed 100"] == row["degradation"]
            expected = json.loads(row["parameters"])
            if result.name == "worst":
                assert trial.params["attack"] == row["attack"]
                expected = {"attack": row["attack"], **{f"{row['attack']}.{k}": v for k, v in expected.items()}}
            assert trial.params == expected
    assert held == {}


def test_what_is_there_is_kept_and_what_changed_is_written_anew(result, tmp_path):
    path = tmp_path / "optuna.db"
    export(path, [result])
    before = path.read_bytes(), path.stat().st_mtime_ns
    export(path, [result])
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    result.description["key"] = "another"
    export(path, [result])
    assert path.stat().st_mtime_ns != before[1]
    assert [file.name for file in tmp_path.iterdir()] == ["optuna.db"]


def edited(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("update trial_values set value = 7.0 where trial_value_id = 1")
        connection.commit()


def a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "an edited value": edited,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "text": lambda path: path.write_text("x" * 5000),
    "a folder": a_folder,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_database_is_written_anew(kind, tmp_path, monkeypatch, capsys):
    searched(tmp_path, monkeypatch, Training(damage))
    found, path = read_study(tmp_path, parameters(SETTINGS), "ipm"), tmp_path / "tracking" / "optuna.db"
    export(path, [found])
    before = opened(path)
    DAMAGE[kind](path)
    export(path, [found])
    assert [[t.values for t in trials] for _, trials in opened(path).values()] == [
        [t.values for t in trials] for _, trials in before.values()
    ]
    assert capsys.readouterr().err.count("tracking/optuna.db: damaged (") == (kind in ("cut", "text", "a folder"))


def test_a_bar_is_what_a_parameter_explains_in_the_colour_of_the_defence(result):
    figure = importance(result, "alpha_03", STYLES)
    assert (figure is None) == (result.name != "alie")  # the only study in which two parameters vary in every trial
    if figure is not None:
        bars = [axes.patches for axes in figure.axes]
        assert [axes.get_title() for axes in figure.axes] == ["strength", "sign"]
        assert [[to_hex(bar.get_facecolor()).upper() for bar in own] for own in bars] == [["#0072B2", "#D55E00"]] * 2
        assert [sum(bar.get_width() for bar in both) for both in zip(*bars, strict=True)] == pytest.approx([100, 100])
        assert "Study alie" in figure.get_suptitle()
