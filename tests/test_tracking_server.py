"""Training never needs MLflow: a server that is away costs seconds, a line, and the live curves."""

import socket
import time
from contextlib import contextmanager

import pytest
from analysable import results
from made_up import DATA_HASH, params, row, train
from mlflow.exceptions import MlflowException
from support import parameters
from tracked import children, current, runs

from pipeline.core.errors import UserError
from pipeline.tracking import connection
from pipeline.tracking.live import follow
from pipeline.tracking.track import track
from pipeline.tracking.tracker import Tracker

pytestmark = pytest.mark.usefixtures("no_mlflow_environment")
SECRET = "s3cret"


def followed(root, records):
    keys = {found.planned.folder: found.key for found in records}
    return follow(root, params(), DATA_HASH, "ipm", [found.planned for found in records], keys)


def trained(root):
    """Go through a row as the stage does."""
    records = row(params())
    live = followed(root, records)
    train(live, records)
    live.finish(records)
    return records


@contextmanager
def refusing():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]  # nothing listens there


@contextmanager
def black_hole():
    with refusing() as port, socket.create_server(("127.0.0.1", 0)) as listener:
        assert port != listener.getsockname()[1]
        yield listener.getsockname()[1]  # takes connections, and never answers


@pytest.mark.parametrize("server", [refusing, black_hole])
def test_a_server_that_is_away_costs_seconds_and_one_line_without_the_password(tmp_path, monkeypatch, capsys, server):
    monkeypatch.setattr(connection, "ANSWERS_IN", 1)
    with server() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}/runs")
        began = time.monotonic()
        trained(tmp_path)
        (line,) = capsys.readouterr().err.splitlines()
        with pytest.raises(UserError) as told:
            Tracker(tmp_path, params(), DATA_HASH)
    assert time.monotonic() - began < 20
    assert line.startswith(f"warning: MLflow at http://***@127.0.0.1:{port}/runs: ")
    assert "python -m pipeline track" in line
    assert SECRET not in line + str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_driver_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mssql+pymssql://me:{SECRET}@127.0.0.1/runs")
    trained(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert "pymssql" in line
    assert SECRET not in line


@pytest.mark.parametrize("call", ["log_batch", "log_artifacts", "search_runs", "set_terminated"])
def test_a_server_that_dies_in_the_middle_costs_one_line_and_track_mends_it(root, monkeypatch, capsys, call):
    def dead(*_, **__):
        asked.append(call)
        raise MlflowException(f"API request to http://me:{SECRET}@host/api failed")

    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(f"pipeline.tracking.tracker.MlflowClient.{call}", dead)
        records = trained(root)
    (line,) = capsys.readouterr().err.splitlines()
    assert asked == [call]  # it is not asked again
    assert SECRET not in line
    Tracker(root, params(), DATA_HASH).publish_row("ipm", records)
    assert {run.info.status for run in current(runs(root))} == {"FINISHED"}
    assert len(current(children(root))) == 2
    assert all("test_accuracy" in run.data.metrics for run in current(children(root)))


def test_an_interrupted_row_ends_its_runs(root):
    live = followed(root, records := row(params()))
    train(live, records)
    live.stop("KILLED")
    assert {run.info.status for run in runs(root)} == {"KILLED"}


def test_an_interrupted_track_ends_the_runs_that_it_has_begun(root, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    grid = parameters({"grid.attacks": ["none", "ipm"], "grid.defences": ["mean"], "search.studies": []})
    results(root, grid)
    monkeypatch.setattr("pipeline.tracking.tracker.MlflowClient.log_artifacts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        track(root, grid, "train@ipm")
    assert [run.info.status for run in runs(root)] == ["KILLED", "KILLED"]


def test_a_full_disk_is_told_with_the_path_and_what_to_do(root, monkeypatch, capsys):
    def full(*_, **__):
        raise MlflowException(f"(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO runs {SECRET}]")

    monkeypatch.setattr("pipeline.tracking.tracker.MlflowClient.create_run", full)
    trained(root)
    (line,) = capsys.readouterr().err.splitlines()
    database = root / "tracking" / "mlflow.db"
    assert line.startswith(f"warning: MLflow at {database}: database or disk is full; make room there; ")


def test_runs_of_another_scope_are_not_touched(root, monkeypatch):
    """Two clones, and an outer run, in one store."""
    shared = root / "tracking" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}")
    first, second = (Tracker(root / name, params(), DATA_HASH) for name in ("first", "second"))
    outer = first.client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", outer)
    third = Tracker(root / "first", params(), DATA_HASH)
    for tracker in (first, second, third, first, second, third):
        tracker.publish_row("ipm", row(params()))
    second.publish_row("ipm", row(params(seeds=[0, 1])))
    second.retire_rows([], [])
    by_scope = {}
    for run in runs(root):
        by_scope.setdefault(run.data.tags["scope"], []).append(run)
    assert sorted(map(len, by_scope.values())) == [3, 3, 5]
    assert sorted(len(current(found)) for found in by_scope.values()) == [0, 3, 3]
    assert {run.data.tags["mlflow.parentRunId"] for run in by_scope[outer] if "stage_key" in run.data.tags} == {outer}
