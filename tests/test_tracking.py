"""MLflow holds exactly the results: live or afterwards, once or again, from one process or several."""

import subprocess
import sys
import textwrap
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from made_up import DATA_HASH, EVALUATED, STEPS, analysis, live_row, params, row, train
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from support import blobs
from tracked import artifacts, children, current, ids, names, runs

from pipeline.core.errors import UserError
from pipeline.tracking.outer import publish_outer
from pipeline.tracking.runs import EXPERIMENTS, Point, by_group
from pipeline.tracking.store import uri
from pipeline.tracking.track import _model_pictures
from pipeline.tracking.tracker import Tracker

PROJECT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("no_mlflow_environment")


def described(root):
    """All that the runs of a store hold, but for ids and times."""
    client = MlflowClient(uri(root))
    name = {run.info.run_id: run.info.run_name for run in runs(root)}
    return {run.info.run_name: _described(client, run, name) for run in runs(root)}


def _described(client, run, name):
    tags = {**run.data.tags, "mlflow.parentRunId": name.get(run.data.tags.get("mlflow.parentRunId"))}
    del tags["scope"]
    history = {
        metric: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]
        for metric in run.data.metrics
    }
    folder = artifacts(run)
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    inputs = [(used.dataset.name, used.dataset.digest) for used in run.inputs.dataset_inputs]
    return run.info.status, run.data.params, tags, history, files, inputs


def test_cells_and_records_are_grouped_over_seeds_in_order():
    records = row(params())
    for cells in (records, [record.planned for record in records]):
        groups = by_group(cells)
        assert list(groups) == [("ipm", "mean", "alpha_03"), ("ipm", "krum", "alpha_03")]
        assert [cell for group in groups.values() for cell in group] == cells


def test_a_run_holds_parameters_curves_and_final_metrics(root, tracker):
    records = row(params())
    tracker.publish_row("ipm", records)
    status, parameter, tags, history, files, inputs = described(root)["ipm | krum | alpha_03"]
    krum = [found for found in records if found.planned.defence == "krum"]
    accuracy = np.array([found.final["test_accuracy"] for found in krum])
    assert status == "FINISHED"
    assert (parameter["defence.rule.name"], parameter["training.steps"], parameter["seeds"]) == (
        "krum",
        "7",
        "[0, 1, 2]",
    )
    assert parameter["attack.strength"] == "0.1"
    assert "seed" not in parameter
    assert (tags["stage"], tags["attack"], tags["data_hash"]) == ("train", "ipm", DATA_HASH)
    assert (tags["defence"], tags["partition"]) == ("krum", "alpha_03")
    assert {"torch", "git_dirty", "mlflow.source.git.commit"} <= tags.keys()
    assert tags["mlflow.parentRunId"] == "train ipm"
    assert inputs == [("digits", DATA_HASH[:8])]
    assert [step for step, _ in history["validation_loss"]] == EVALUATED
    assert [step for step, _ in history["train_loss"]] == EVALUATED[1:]
    assert history["cosine"][-1] == (STEPS, pytest.approx(np.mean([found.steps["cosine"][-1] for found in krum])))
    assert history["test_accuracy"] == [(STEPS, pytest.approx(accuracy.mean()))]
    assert history["test_accuracy_sd"] == [(STEPS, pytest.approx(accuracy.std(ddof=1)))]
    assert history["test_accuracy_min"] == [(STEPS, accuracy.min())]
    assert history["diverged"] == [(STEPS, 3)]
    assert "byzantine_weight" not in history
    assert files.keys() == {"seeds.csv", "evaluations.csv", "steps.csv"}
    assert files["evaluations.csv"].splitlines()[1].startswith(b"0,0,")
    assert len(files["steps.csv"].splitlines()) == 1 + 3 * STEPS


def test_the_parent_holds_no_results(root, tracker):
    tracker.publish_row("ipm", row(params()))
    status, parameter, tags, history, files, _ = described(root)["train ipm"]
    assert status == "FINISHED"
    assert (tags["stage"], tags["attack"], tags["stage_key"], tags["cells"]) == ("train", "ipm", "train/ipm", "6")
    assert not parameter
    assert not history
    assert not files


def test_watched_while_training_equals_published_afterwards(tmp_path, root, tracker, database):
    records = row(params())
    live = live_row(tracker, records)
    train(live, records)
    assert {run.info.status for run in runs(root)} == {"RUNNING"}
    live.finish(records)
    other = tmp_path / "other"
    (other / "tracking").mkdir(parents=True)
    (other / "tracking" / "mlflow.db").write_bytes(database)
    Tracker(other, params(), DATA_HASH).publish_row("ipm", records)
    assert described(root) == described(other)


def test_a_group_split_over_batches_is_published_at_the_end(root, tracker):
    records = row(params())
    live = live_row(tracker, records)
    train(live, records[:4])  # mean, and one seed of krum
    assert names(children(root)) == ["ipm | mean | alpha_03"]
    train(live, records[4:])
    live.finish(records)
    assert names(children(root)) == ["ipm | krum | alpha_03", "ipm | mean | alpha_03"]


def test_publishing_again_changes_nothing(root, tracker):
    records = row(params())
    tracker.publish_row("ipm", records)
    before, ended = (ids(runs(root)), described(root)), [run.info.end_time for run in runs(root)]
    tracker.publish_row("ipm", records)
    assert [run.info.end_time for run in runs(root)] == ended
    live = live_row(tracker, records)
    train(live, records)
    live.finish(records)
    assert (ids(runs(root, view=ViewType.ALL)), described(root)) == before


def test_a_dropped_defence_stays_but_is_not_current(root, tracker):
    tracker.publish_row("ipm", row(params()))
    tracker.publish_row("ipm", row(params(defences=["mean"])))
    assert names(children(root)) == ["ipm | krum | alpha_03", "ipm | mean | alpha_03"]
    assert names(current(runs(root))) == ["ipm | mean | alpha_03", "train ipm"]


def test_changed_content_is_a_new_run_and_comes_back_as_the_old_one(root, tracker):
    tracker.publish_row("ipm", row(params()))
    before = ids(children(root))
    tracker.publish_row("ipm", row(params(), data_hash="f" * 64))
    assert len(children(root)) == 4
    assert before & ids(current(children(root))) == set()
    tracker.publish_row("ipm", row(params()))
    assert ids(current(children(root))) == before
    assert len(runs(root, view=ViewType.ALL)) == 5


def _git(root, *arguments):
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@localhost"]
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_runs_name_the_commit_and_whether_the_sources_differ(root):
    (root / ".gitignore").write_text("/tracking/\n")
    made = ("dvc.lock", "results/train/ipm/cell.json", "reports/report.md", "docs/images/heatmap.png")
    for name in made:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("of the last run")
    _git(root, "init", "-q")
    _git(root, "add", ".")
    _git(root, "commit", "-qm", "all")
    for name in made:
        (root / name).write_text("of this run")
    Tracker(root, params(), DATA_HASH).publish_row("ipm", row(params()))
    (root / "new_rule.py").write_text("...")
    Tracker(root, params(), DATA_HASH).publish_row("none", row(params(), "none"))
    commit = _git(root, "rev-parse", "HEAD")
    tags = {run.data.tags["attack"]: run.data.tags for run in children(root)}
    assert {of["mlflow.source.git.commit"] for of in tags.values()} == {commit}
    assert {attack: of["git_dirty"] for attack, of in tags.items()} == {"ipm": "false", "none": "true"}


def test_a_killed_row_is_ended_by_the_next_attempt(root, tracker):
    records = row(params())
    train(live_row(tracker, records), records)
    killed = ids(children(root))
    again = Tracker(root, params(), DATA_HASH)
    live = live_row(again, records)
    assert {(run.info.status, run.data.tags["current"]) for run in children(root)} == {("KILLED", "false")}
    train(live, records)
    live.finish(records)
    assert len(current(children(root))) == 2
    assert not killed & ids(current(children(root)))
    assert {run.info.status for run in current(runs(root))} == {"FINISHED"}
    assert names(runs(root)).count("train ipm") == 1


def test_attacks_that_left_the_grid_are_not_current(root, tracker):
    tracker.publish_row("ipm", row(params()))
    tracker.publish_row("none", row(params(), "none"))
    tracker.retire_rows(["none"], [])
    assert {run.data.tags["attack"] for run in current(runs(root))} == {"none"}
    assert (len(current(runs(root))), len(runs(root))) == (3, 6)


def test_one_analysis_is_current(root, tracker):
    tracker.publish_analysis(*analysis(root, 0.5))
    tracker.publish_analysis(*analysis(root, 0.5))
    (first,) = runs(root, "analysis", ViewType.ALL)
    assert first.data.metrics == {"krum.worst": 0.5}
    folder = artifacts(first)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == {
        "summary.json",
        "report.md",
        "figures/heatmap.png",
    }
    tracker.publish_analysis(*analysis(root, 0.25))
    assert len(runs(root, "analysis")) == 2
    (second,) = current(runs(root, "analysis"))
    assert second.data.metrics == {"krum.worst": 0.25}


def test_pictures_are_added_to_the_run_that_lacked_them(root, tracker):
    tracker.publish_analysis(*analysis(root, 0.5))
    tracker.publish_analysis(*analysis(root, 0.5, **{"model/layers.svg": b"<svg/>"}))
    (run,) = runs(root, "analysis", ViewType.ALL)
    assert (artifacts(run) / "model" / "layers.svg").read_bytes() == b"<svg/>"


@pytest.mark.parametrize("there", [True, False])
def test_what_cannot_draw_the_model_costs_a_line_and_not_the_run(there, monkeypatch, capsys):
    if there and which("dot") is None:
        pytest.skip("there is no dot here (apt-get install graphviz)")
    monkeypatch.setattr("shutil.which", which if there else lambda _: None)
    pictures = _model_pictures(blobs(), params())
    told = capsys.readouterr().err
    assert set(pictures) == ({"model/layers.svg", "model/gradients.svg"} if there else set())
    assert all(picture.rstrip().endswith(b"</svg>") for picture in pictures.values())
    assert told.startswith("no picture of the model in MLflow: ") != there
    assert told.count("\n") == (not there)


def test_a_model_that_cannot_be_drawn_costs_a_line_and_not_the_run(monkeypatch, capsys):
    def failing(*_):
        raise RuntimeError("cannot be computed\non meta tensors")

    monkeypatch.setattr("pipeline.report.figures.model.draw_model", failing)
    assert _model_pictures(blobs(), params()) == {}
    assert capsys.readouterr().err == (
        "no picture of the model in MLflow: the model cannot be drawn: cannot be computed on meta tensors\n"
    )


@pytest.mark.parametrize(
    ("given", "name"),
    [("''", "train ipm"), ("'training.steps=4 grid.seeds=[0]'", "train ipm | training.steps=4 grid.seeds=[0]")],
)
def test_the_run_of_mlflow_run_is_named_after_what_was_run(root, monkeypatch, given, name):
    """Parameters stand there as ``mlflow run`` quotes them for the shell."""
    client = MlflowClient(uri(root))
    outer = client.create_run("0", run_name="adaptable-crane-961").info.run_id
    client.log_param(outer, "set", given)
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    publish_outer(Tracker(root, params(), DATA_HASH), root, "train ipm", params(), [], [])
    assert client.get_run(outer).info.run_name == name


def test_under_mlflow_run_its_run_is_the_parent_and_keeps_the_files(root, monkeypatch):
    client = MlflowClient(uri(root))
    location = str(root / "outer")
    outer = client.create_run(client.create_experiment("outer", artifact_location=location)).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    tracker = Tracker(root, params(), DATA_HASH)
    tracker.publish_row("ipm", row(params()))
    tracker.publish_analysis(*analysis(root, 0.5))
    publish_outer(
        tracker, root, "all", params(), [Point("accuracy", 0, 0.5)], ["results/summary.json", "reports/figures"]
    )
    parent = next(run for run in runs(root) if "stage_key" in run.data.tags)
    assert parent.data.tags["mlflow.parentRunId"] == outer
    assert runs(root, "analysis")[0].data.tags["mlflow.parentRunId"] == outer
    assert client.get_run(outer).info.status == "RUNNING"
    assert client.get_run(outer).data.tags.get("cell_key") is None
    held = client.get_run(outer)
    assert (artifacts(held) / "results" / "summary.json").exists()
    assert (artifacts(held) / "reports" / "figures" / "heatmap.png").exists()
    assert (held.info.run_name, held.data.metrics) == ("all", {"accuracy": 0.5})
    assert held.data.params.items() >= {"training.steps": "7", "grid.seeds": "[0, 1, 2]"}.items()


def test_an_experiment_that_mlflow_run_created_is_used_as_it_is(root):
    name, location = EXPERIMENTS["train"].name, str(root / "mlruns" / "1")
    MlflowClient(uri(root)).create_experiment(name, artifact_location=location)
    Tracker(root, params(), DATA_HASH).publish_row("ipm", row(params()))
    assert all(Path(location) in artifacts(run).parents for run in children(root))
    assert "mlflow.sharedViewState.current" in MlflowClient(uri(root)).get_experiment_by_name(name).tags


def test_the_run_id_leaves_the_environment(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    with pytest.raises(UserError, match="f" * 32):
        Tracker(root, params(), DATA_HASH)
    Tracker(root, params(), DATA_HASH)  # a second process would not find it either: it was taken out


def test_the_environment_chooses_another_store(tmp_path, monkeypatch, database):
    elsewhere = tmp_path / "elsewhere" / "runs.db"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    Tracker(tmp_path / "project", params(), DATA_HASH).publish_row("ipm", row(params()))
    assert len(children(tmp_path / "project")) == 2
    assert [path.name for path in (tmp_path / "project" / "tracking").iterdir()] == ["clone.json"]
    assert all(elsewhere.parent in artifacts(run).parents for run in children(tmp_path))


def test_a_deleted_experiment_comes_back(root, tracker):
    client = MlflowClient(uri(root))
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENTS["train"].name).experiment_id)
    Tracker(root, params(), DATA_HASH).publish_row("ipm", row(params()))
    assert len(children(root)) == 2


PUBLISH = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import made_up
    from pipeline.tracking.tracker import Tracker
    root, attack = Path(sys.argv[2]), sys.argv[3]
    tracker = Tracker(root, made_up.params(), made_up.DATA_HASH)
    records = made_up.row(made_up.params(), attack)
    live = made_up.live_row(tracker, records, attack)
    made_up.train(live, records)
    live.finish(records)
"""


def test_processes_at_once_on_a_new_database_lose_nothing(tmp_path):
    script = [sys.executable, "-W", "error", "-c", textwrap.dedent(PUBLISH), str(Path(__file__).parent), str(tmp_path)]
    started = [
        subprocess.Popen([*script, attack], cwd=PROJECT, stderr=subprocess.PIPE, text=True)
        for attack in ("none", "ipm")
    ]
    outputs = [process.communicate(timeout=120)[1] for process in started]
    assert outputs == ["", ""]
    assert [process.returncode for process in started] == [0, 0]
    assert names(runs(tmp_path)) == sorted(
        [f"{attack} | {defence} | alpha_03" for defence in ("mean", "krum") for attack in ("none", "ipm")]
        + ["train none", "train ipm"]
    )
    assert {run.info.status for run in runs(tmp_path)} == {"FINISHED"}


@pytest.mark.parametrize(("failures", "tries"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_a_data_set_that_two_processes_enter_at_once_is_entered_again(tracker, monkeypatch, failures, tries):
    seen = []

    def log_inputs(run_id, datasets):
        seen.append(run_id)
        if len(seen) <= failures:
            raise MlflowException("UNIQUE constraint failed")

    monkeypatch.setattr(tracker.client, "log_inputs", log_inputs)
    if failures == 3:
        with pytest.raises(MlflowException):
            tracker._log_dataset("a run")
    else:
        tracker._log_dataset("a run")
    assert seen == ["a run"] * tries
