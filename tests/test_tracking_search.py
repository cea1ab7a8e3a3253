"""MLflow shows a study as a run, its trials as children, and views of both."""

import json

import pytest
from made_up import DATA_HASH, params, row, search
from mlflow import MlflowClient
from mlflow.entities import ViewType
from searched import LOW, study
from tracked import artifacts, current, ids, names, runs

from pipeline.tracking.runs import EXPERIMENTS, VIEW
from pipeline.tracking.store import uri
from pipeline.tracking.tracker import Tracker


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
    expected |= {"confirmed_degradation_found/mean": rerun["found", "mean"]}
    expected |= {"confirmed_degradation_literature": rerun["literature"].mean(), "strength_literature/mean": 0.1}
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
    assert len({frozenset(run.data.metrics) for run in trials}) == 1
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
    curve = MlflowClient(uri(root)).get_metric_history(parent.info.run_id, "confirmed_degradation_found/krum")
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


def _columns(experiment):
    kinds = [column.rstrip("`").split(".`") for column in experiment.columns]
    return {kind: {name for of, name in kinds if of == kind} for kind in ("metrics", "params", "tags")}


def _view(root, stage, name):
    experiment = MlflowClient(uri(root)).get_experiment_by_name(EXPERIMENTS[stage].name)
    return json.loads(json.loads(experiment.tags[f"{VIEW}{name}"])["state"])


@pytest.mark.parametrize("stage", ["train", "search"])
def test_saved_views_show_what_the_runs_hold(root, tracker, stage):
    tracker.publish_row("ipm", row(params()))
    tracker.publish_search("ipm", search(root))
    shown = _columns(EXPERIMENTS[stage])
    run = next(run for run in runs(root, stage) if (stage == "train") == ("mlflow.parentRunId" in run.data.tags))
    assert shown["metrics"]
    assert shown["metrics"] <= run.data.metrics.keys()
    assert shown["params"] <= run.data.params.keys()
    assert shown["tags"] <= run.data.tags.keys()
    assert _view(root, stage, "current")["selectedColumns"] == list(EXPERIMENTS[stage].columns)


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
