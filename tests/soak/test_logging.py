"""Eight processes log at once into one store, made by whichever comes first: is every point there afterwards?"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_up import params, row
from mlflow import MlflowClient
from tracked import artifacts, current

from pipeline.tracking.runs import EXPERIMENTS, by_group, group_content

pytestmark = [
    pytest.mark.soak,
    pytest.mark.usefixtures("no_mlflow_environment"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # in MLflow's own code
]
PROCESSES, CLONES, ROUNDS = 8, 4, 10  # two processes of each clone, with an attack each
ATTACKS = ("none", "ipm")
OUTCOMES = ("there",)
LOG = """
    import sys
    from pathlib import Path
    import made_up
    from pipeline.tracking.tracker import Tracker
    root, attack, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    tracker = Tracker(root, made_up.params(), made_up.DATA_HASH)
    for number in range(rounds):
        records = made_up.row(made_up.params(), attack, data_hash=f"{number:064x}")
        live = made_up.live_row(tracker, records, attack)
        made_up.train(live, records)
        live.finish(records)
"""


@contextmanager
def sqlite(folder):
    yield f"sqlite:///{folder}/mlflow.db"


@contextmanager
def postgresql(_):
    """A server of our own on the loopback, with everything in a temporary folder."""
    pytest.importorskip("psycopg2", reason="no driver: pip install psycopg2-binary")
    found = [shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    programs = [Path(path).resolve().parent for path in found if path]
    if not programs:
        pytest.skip("no PostgreSQL server: apt-get install postgresql, say")
    who = {"user": "postgres"} if os.geteuid() == 0 else {}  # it refuses to run as root
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        if who:
            shutil.chown(folder, **who)
        port = free.getsockname()[1]
        free.close()
        initdb = [programs[0] / "initdb", "-D", f"{folder}/data", "-U", "me", "--auth=trust"]
        subprocess.run(initdb, cwd="/", check=True, capture_output=True, **who)
        serve = [programs[0] / "postgres", "-D", f"{folder}/data", "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
        with subprocess.Popen(serve, cwd="/", stderr=subprocess.DEVNULL, **who) as server:
            try:
                _wait_for(port)
                yield f"postgresql+psycopg2://me@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # at SIGTERM it waits until its clients leave


def _wait_for(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise TimeoutError


def logged(client, run):
    """What a run holds: its points, and the sizes of its files."""
    points = {
        (point.key, point.step, point.value)
        for metric in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, metric)
    }
    return points, {path.name: path.stat().st_size for path in artifacts(run).iterdir()}


def expected(attack, number):
    groups = by_group(row(params(), attack, data_hash=f"{number:064x}")).values()
    for content in map(group_content, groups):
        yield set(content.points), {name: len(data) for name, data in content.artifacts.items()}


@pytest.mark.parametrize("store", [sqlite, postgresql])
def test_eight_processes_at_once_lose_nothing(tmp_path, tally, store):
    tests = Path(__file__).parents[1]
    with store(tmp_path) as address:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": address}
        environment["PYTHONPATH"] = os.pathsep.join([str(tests.parent), str(tests), *filter(None, sys.path)])
        program = [sys.executable, "-c", "\n".join(line[4:] for line in LOG.splitlines())]
        started = [
            subprocess.Popen(
                [*program, str(tmp_path / f"clone{number % CLONES}"), ATTACKS[number // CLONES], str(ROUNDS)],
                cwd=tmp_path,
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(PROCESSES)
        ]
        errors = [process.communicate()[1] for process in started]
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name(EXPERIMENTS["train"].name).experiment_id
        found = [run for run in client.search_runs([experiment]) if "cell_key" in run.data.tags]
        held = [logged(client, run) for run in found if run.info.status == "FINISHED"]
    wanted = CLONES * [whole for attack in ATTACKS for number in range(ROUNDS) for whole in expected(attack, number)]
    left, kind = list(held), f"points and files, {PROCESSES} processes, {store.__name__}"
    for whole in wanted:
        kept = _in_common(left, whole)
        for position in range(len(whole[0]) + len(whole[1])):
            tally.note(kind, "there" if position < kept else "missing")
    assert errors == [""] * PROCESSES
    assert tally.lost == []
    assert len(found) == len(held) == len(wanted)
    assert len(current(found)) == len(wanted) // ROUNDS


def _in_common(held, whole):
    """Return how much of a run is there, and take the run that holds most of it."""
    best = max(held, key=lambda other: len(other[0] & whole[0]), default=(set(), {}))
    if best in held:
        held.remove(best)
    return len(best[0] & whole[0]) + len(best[1].items() & whole[1].items())
