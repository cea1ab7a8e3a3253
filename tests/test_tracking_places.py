"""MLflow's database and artifacts, wherever the project stands: odd names, moved, copied, damaged."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from made_up import DATA_HASH, analysis, params, row, search
from mlflow import MlflowClient
from tracked import artifacts, children, current, ids, names, runs

from pipeline.core.errors import UserError
from pipeline.tracking.clone import identify, remember
from pipeline.tracking.store import database_of, sqlite_uri, uri
from pipeline.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("no_mlflow_environment")


def publish(root, **grid):
    Tracker(root, params(), DATA_HASH).publish_row("ipm", row(params(**grid)))
    return children(root)


@pytest.mark.parametrize("name", ["what?", "50%", "a%41b", "#1", "a blank", "ä'\"&=+@:"])
def test_any_name_of_a_folder_is_quoted_both_ways(name):
    assert database_of(sqlite_uri(Path("/home") / name / "mlflow.db")) == Path("/home") / name / "mlflow.db"


def test_a_project_in_a_folder_with_an_odd_name_keeps_everything_in_it(tmp_path, database):
    root = tmp_path / "my 50% pro?j#1%41"
    (root / "tracking").mkdir(parents=True)
    (root / "tracking" / "mlflow.db").write_bytes(database)
    found = publish(root)
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
    assert all(root in artifacts(run).parents for run in found)
    assert {path.name for path in artifacts(found[0]).iterdir()} == {"seeds.csv", "evaluations.csv", "steps.csv"}


def test_a_new_database_appears_whole_and_only_in_the_project(tmp_path, monkeypatch):
    root = tmp_path / "pro?j"
    monkeypatch.setattr("pipeline.tracking.connection.MlflowClient", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Tracker(root, params(), DATA_HASH)
    assert not list(root.rglob("*mlflow.db"))


def moved(root, folder):
    shutil.move(root, folder)
    return folder


def copied(root, folder):
    shutil.copytree(root, folder)
    return folder


@pytest.mark.parametrize("how", [moved, copied])
def test_a_project_that_was_moved_or_copied_goes_on_with_its_history(root, how):
    elsewhere = root.parent / f"{root.name} elsewhere"
    before = ids(publish(root))
    there = how(root, elsewhere)
    found = publish(there)
    assert ids(found) == before
    assert all(there in artifacts(run).parents and (artifacts(run) / "seeds.csv").exists() for run in found)
    new = publish(there, seeds=[0, 1])
    assert len(new) == 4
    assert all(there in artifacts(run).parents for run in new)
    assert root.exists() == (how is copied)
    if how is copied:
        assert ids(current(publish(root))) == before  # what the copy does is nothing to the original
    shutil.rmtree(elsewhere)


def test_a_moved_project_keeps_its_identity_and_a_copy_gets_another(tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    made = identify(first)
    remember(first, made)
    assert identify(first) == made
    assert identify(copied(first, second)).id != made.id
    assert identify(second).before == made.id
    assert identify(moved(first, third)) == made


def cut(data):
    return data[: len(data) // 2]


def overwritten(data):
    return data[:4096] + b"\xa5" * 65536 + data[4096 + 65536 :]


def no_database(_):
    return b"This is a text.\n" * 1000


def another(_):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE mine (value)")
        return connection.serialize()


@pytest.mark.parametrize("damage", [cut, overwritten, no_database, another])
def test_a_damaged_database_is_set_aside_and_made_again_from_the_results(root, capsys, monkeypatch, database, damage):
    found = root / "tracking" / "mlflow.db"
    damaged = damage(found.read_bytes())
    found.write_bytes(damaged)
    monkeypatch.setattr(
        "pipeline.tracking.tracker.connection.client", lambda address: _copied(found, database, address)
    )
    assert len(publish(root)) == 2
    (aside,) = found.parent.glob("mlflow.db.damaged-*")
    assert aside.read_bytes() == damaged
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {found}: not a whole database of MLflow")
    assert aside.name in line


def _copied(found, database, address):
    """What the client finds, without the seconds that MLflow takes to make it."""
    assert not found.exists()
    found.write_bytes(database)
    return MlflowClient(address)


def test_a_database_of_another_version_is_one_error_with_the_remedy(root):
    with closing(sqlite3.connect(root / "tracking" / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'an older one'")
    before = (root / "tracking" / "mlflow.db").read_bytes()
    with pytest.raises(UserError, match="mlflow db upgrade") as told:
        publish(root)
    assert "\n" not in str(told.value)
    assert (root / "tracking" / "mlflow.db").read_bytes() == before


def test_a_locked_database_is_not_taken_for_a_damaged_one(root, monkeypatch):
    monkeypatch.setattr("pipeline.tracking.database.PATIENCE", 0)
    with closing(sqlite3.connect(root / "tracking" / "mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="locked"):
            publish(root)
    assert not list(root.rglob("*damaged*"))


def test_artifacts_that_were_deleted_or_cut_are_restored(root, tracker):
    tracker.publish_row("ipm", row(params()))
    tracker.publish_search("ipm", search(root))
    tracker.publish_analysis(*analysis(root, 0.5))
    everything = root / "tracking" / "artifacts"
    before = {path: path.read_bytes() for path in everything.rglob("*") if path.is_file()}
    known = ids([*runs(root), *runs(root, "search"), *runs(root, "analysis")])
    shutil.rmtree(everything / "byzantine-training")
    next(everything.rglob("trials.csv")).unlink()
    next(everything.rglob("heatmap.png")).write_bytes(b"")
    tracker.publish_row("ipm", row(params()))
    tracker.publish_search("ipm", search(root))
    tracker.publish_analysis(*analysis(root, 0.5))
    assert {path: path.read_bytes() for path in everything.rglob("*") if path.is_file()} == before
    assert ids([*runs(root), *runs(root, "search"), *runs(root, "analysis")]) == known


def test_150_and_300_steps_stand_side_by_side(root):
    raw = params()
    longer = raw.model_copy(update={"training": raw.training.replace(steps=14)})
    publish(root)
    Tracker(root, longer, DATA_HASH).publish_row("ipm", row(longer))
    steps = {(run.data.params["training.steps"], run.data.tags["current"]) for run in children(root)}
    assert steps == {("7", "false"), ("14", "true")}
    found = MlflowClient(uri(root)).search_runs([children(root)[0].info.experiment_id], "tags.current = 'true'")
    assert names(found) == ["ipm | krum | alpha_03", "ipm | mean | alpha_03", "train ipm"]
