"""MLflow shows a study as a run, its trials as children, and views of both."""

import json
import re

import pandas as pd
import pytest
from made_up import DATA_HASH, params, row, search
from mlflow import MlflowClient
from mlflow.entities import ViewType
from scipy import stats
from searched import LOW, study
from support import ROOT
from tracked import artifacts, current, ids, names, runs

from pipeline.tracking.runs import EXPERIMENTS, SAVED_VIEW, compared_points, same_view
from pipeline.tracking.store import uri
from pipeline.tracking.tracker import Tracker

COMPARISON = pd.DataFrame(
    {
        **{"attack": ["ipm", "ipm", "none"], "defence": ["krum", "mean", "mean"], "partition": "alpha_03", "seeds": 3},
        **{"accuracy_half_width": 0.02, "degradation": [0.5, 0.25, 0.0], "degradation_half_width": 0.01},
    }
)


def test_a_study_is_a_run_and_a_child_for_every_trial(root, tracker):
    tracker.publish_search("ipm", search(root))
    (parent,) = [run for run in runs(root, "search") if "mlflow.parentRunId" not in run.data.tags]
    trials = [run for run in runs(root, "search") if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(trials) == 6
    assert {run.info.status for run in [parent, *trials]} == {"FINISHED"}
    assert (parent.data.tags["study"], parent.data.tags["mode"], parent.data.params["attacks"]) == (
        "ipm",
        "strength",
        '["ipm"]',
    )
    found = study("ipm", defences=("mean", "krum"), trials=3)
    best = found.trials.groupby(["defence", "trial"])["degradation"].mean().groupby("defence").max()
    rerun = found.confirmation.groupby(["candidate", "defence"])["degradation"].mean()
    expected = {"trials": 6.0, "best_validation_degradation/krum": best["krum"]}
    expected |= {"found_degradation/mean": rerun["found", "mean"]}
    expected |= {"literature_degradation": rerun["literature"].mean(), "literature_strength/mean": 0.1}
    assert {name: parent.data.metrics[name] for name in expected} == pytest.approx(expected)
    folder = artifacts(parent)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == {
        "study.json",
        "trials.csv",
        "figures/strength.ipm.png",
    }


def test_trials_have_the_same_numbers_so_that_they_can_be_compared(root, tracker):
    tracker.publish_search("ipm", search(root))
    trials = [run for run in runs(root, "search") if "mlflow.parentRunId" in run.data.tags]
    found = {run.info.run_id for run in trials if run.data.tags["found"] == "true"}
    assert len(found) == 2
    assert len({frozenset(run.data.metrics) for run in trials if run.info.run_id not in found}) == 1
    assert len({frozenset(run.data.params) for run in trials}) == 1
    (run,) = [run for run in trials if (run.data.params["defence"], run.data.params["trial"]) == ("krum", "2")]
    rows = study("ipm", defences=("mean", "krum"), trials=3).trials.query("defence == 'krum' and trial == 2")
    values = {f"attacked_accuracy_by_seed/{row.seed}": row.attacked_accuracy for row in rows.itertuples()}
    values |= {"degradation": rows["degradation"].mean(), "diverged": 0.0}
    assert {name: run.data.metrics[name] for name in values} == pytest.approx(values)
    assert run.data.params["strength"] == str(LOW)
    assert (run.data.params["origin"], run.data.params["attack"], run.data.params["byzantine"]) == ("grid", "ipm", "5")


def test_a_breakdown_is_a_curve_over_the_attackers(root, tracker):
    tracker.publish_search("curve", search(root, "curve", mode="breakdown"))
    (parent,) = [run for run in runs(root, "search") if "mlflow.parentRunId" not in run.data.tags]
    curve = MlflowClient(uri(root)).get_metric_history(parent.info.run_id, "found_degradation/krum")
    assert [point.step for point in curve] == list(range(8))


def test_a_search_published_again_is_kept(root, tracker):
    for _ in range(2):
        tracker.publish_search("ipm", search(root))
    assert len(runs(root, "search", ViewType.ALL)) == 7


@pytest.mark.parametrize("change", [{"key": "b" * 16}, {"picture": b"another"}])
def test_a_changed_search_is_published_beside_the_old_one(root, tracker, change):
    tracker.publish_search("ipm", search(root))
    before = ids(runs(root, "search"))
    tracker.publish_search("ipm", search(root, **change))
    assert (len(current(runs(root, "search"))), len(runs(root, "search"))) == (7, 14)
    assert not before & ids(current(runs(root, "search")))
    tracker.publish_search("ipm", search(root))
    assert ids(current(runs(root, "search"))) == before
    assert len(runs(root, "search")) == 14


def test_a_search_whose_publication_was_killed_is_made_anew(root, tracker, monkeypatch):
    monkeypatch.setattr(tracker, "complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tracker.publish_search("ipm", search(root))
    Tracker(root, params(), DATA_HASH).publish_search("ipm", search(root))
    assert (len(current(runs(root, "search"))), len(runs(root, "search"))) == (7, 14)
    assert {run.info.status for run in current(runs(root, "search"))} == {"FINISHED"}


def test_studies_that_are_no_longer_made_are_not_current(root, tracker):
    tracker.publish_search("ipm", search(root))
    tracker.publish_search("alie", search(root, "alie"))
    tracker.retire_rows([], ["alie"])
    assert {run.data.tags["study"] for run in current(runs(root, "search"))} == {"alie"}
    assert len(runs(root, "search")) == 14


def _columns(view):
    kinds = [column.rstrip("`").split(".`") for column in view.columns]
    return {kind: {name for of, name in kinds if of == kind} for kind in ("metrics", "params", "tags")}


def _view(root, stage, name):
    experiment = MlflowClient(uri(root)).get_experiment_by_name(EXPERIMENTS[stage].name)
    return json.loads(json.loads(experiment.tags[f"{SAVED_VIEW}{name}"])["state"])


@pytest.mark.parametrize("stage", ["train", "search"])
def test_saved_views_show_what_the_runs_hold(root, tracker, stage):
    tracker.publish_row("ipm", row(params()))
    tracker.publish_comparison(compared_points(COMPARISON), [])
    tracker.publish_search("ipm", search(root))
    shown = _columns(EXPERIMENTS[stage].views["current"])
    run = next(run for run in runs(root, stage) if (stage == "train") == ("mlflow.parentRunId" in run.data.tags))
    assert shown["metrics"]
    assert shown["metrics"] <= run.data.metrics.keys()
    assert shown["params"] <= run.data.params.keys()
    assert shown["tags"] <= run.data.tags.keys()
    assert _view(root, stage, "current")["selectedColumns"] == list(EXPERIMENTS[stage].views["current"].columns)


def test_views_saved_by_another_version_are_brought_up_to_date_and_notes_are_left(root, tracker):
    client, name = MlflowClient(uri(root)), EXPERIMENTS["train"].name
    number = client.get_experiment_by_name(name).experiment_id
    made = client.get_experiment(number).tags
    old = json.dumps({"name": "The grid", "createdAt": 0, "state": "{}"})
    for tag, value in ((f"{SAVED_VIEW}current", old), (f"{SAVED_VIEW}worst", "{"), ("mlflow.note.content", "my own")):
        client.set_experiment_tag(number, tag, value)
    Tracker(root, params(), DATA_HASH)
    tags = client.get_experiment(number).tags
    assert all(same_view(tags[f"{SAVED_VIEW}{view}"], made[f"{SAVED_VIEW}{view}"]) for view in ("current", "worst"))
    assert tags[f"{SAVED_VIEW}all"] == made[f"{SAVED_VIEW}all"]
    assert tags["mlflow.note.content"] == "my own"


def test_filters_of_the_saved_views_find_their_runs(root, tracker):
    for name in ("ipm", "alie"):
        tracker.publish_search(name, search(root, name))
    client, experiment = MlflowClient(uri(root)), runs(root, "search")[0].info.experiment_id
    studies = client.search_runs([experiment], _view(root, "search", "current")["searchFilter"])
    assert sorted(names(studies)) == ["alie | alpha_03", "ipm | alpha_03"]
    view = _view(root, "search", "alie")
    trials = client.search_runs([experiment], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"])
    assert len(trials) == 6
    assert {run.data.tags["study"] for run in trials} == {"alie"}
    parallel = view["compareRunCharts"][0]
    assert set(parallel["selectedParams"]) <= trials[0].data.params.keys()
    assert set(parallel["selectedMetrics"]) <= trials[0].data.metrics.keys()


def _seen(root, stage, name):
    """The runs of a saved view, in its order."""
    view = _view(root, stage, name)
    order = f"{view['orderByKey']} {'ASC' if view['orderByAsc'] else 'DESC'}"
    return MlflowClient(uri(root)).search_runs(
        [runs(root, stage)[0].info.experiment_id], view["searchFilter"], order_by=[order]
    )


def test_the_worst_attack_of_each_defence_is_a_view(root, tracker):
    for attack in ("none", "ipm"):
        tracker.publish_row(attack, row(params(), attack))
    group = ("ipm", "krum", "alpha_03")
    tracker.publish_comparison(compared_points(COMPARISON), [("ipm", "mean", "alpha_03")])
    tracker.publish_comparison(compared_points(COMPARISON), [group])
    assert len(_seen(root, "train", "current")) == 4
    (worst,) = _seen(root, "train", "worst")
    assert (worst.data.tags["attack"], worst.data.tags["defence"], worst.data.tags["partition"]) == group
    told = {"degradation": 0.5, "half_width_degradation": 0.01, "half_width_accuracy": 0.02, "seeds": 3.0}
    assert told.items() <= worst.data.metrics.items()


def test_what_was_found_is_a_view_with_what_confirmed_it(root, tracker):
    tracker.publish_search("ipm", search(root))
    confirmed = study("ipm", defences=("mean", "krum"), trials=3).confirmation.query("candidate == 'found'")
    means = confirmed.groupby("defence")[["attacked_accuracy", "degradation"]].mean()
    seen = _seen(root, "search", "found")
    assert [run.data.tags["defence"] for run in seen] == list(means["degradation"].sort_values()[::-1].index)
    for run in seen:
        accuracy, degradation = means.loc[run.data.tags["defence"]]
        own = confirmed[confirmed["defence"] == run.data.tags["defence"]]
        half_width = stats.t.ppf(0.975, len(own) - 1) * stats.sem(own["degradation"])
        told = {"test_accuracy": accuracy, "test_degradation": degradation, "seeds": len(own)}
        told["half_width_degradation"] = half_width
        assert {name: run.data.metrics[name] for name in told} == pytest.approx(told)
        assert run.data.params["trial"] == str(own["trial"].iloc[0])


VIEWS = [view for experiment in EXPERIMENTS.values() for view in experiment.views.values()]
SEEN = 13  # characters of a column's name that MLflow's table shows at least


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.title)
def test_no_two_columns_are_cut_to_the_same_beginning(view):
    for kind in ("metrics", "params", "tags"):
        seen = [column.partition("`")[2].rstrip("`")[:SEEN] for column in view.columns if column.startswith(kind)]
        assert len(seen) == len(set(seen))


def test_the_name_of_a_trial_begins_with_what_was_tried(root, tracker):
    tracker.publish_search("ipm", search(root))
    trials = [run for run in runs(root, "search") if "mlflow.parentRunId" in run.data.tags]
    assert len({run.info.run_name for run in trials}) == len(trials)
    for run in trials:
        attack, defence, trial = (run.data.params[name] for name in ("attack", "defence", "trial"))
        tried = f"{attack} {float(run.data.params['strength']):g}"
        assert run.info.run_name.startswith(f"{tried} | {defence} | trial {trial}")


@pytest.mark.parametrize("name", ["README.md", "Makefile"])
def test_addresses_lead_to_saved_views(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    addresses = re.findall(r"/(\d)/runs\?workflowType=machine_learning&viewStateShareKey=(\w+)", text)
    assert {("1", "worst"), ("1", "current"), ("2", "found")} <= set(addresses)
    stages = dict(enumerate(EXPERIMENTS, start=1))  # as a new database numbers them
    assert [key for number, key in addresses if key not in EXPERIMENTS[stages[int(number)]].views] == []
