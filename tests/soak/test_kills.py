"""Stages and a whole ``dvc repro`` that are killed at random moments, and then run again, end with the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from project import copy_of_the_project
from ruamel.yaml import YAML
from support import ROOT, SMALL, blobs, raw_parameters

from pipeline.core.files import WRITING, read_json
from pipeline.data.dataset import write

SETTINGS = {
    **SMALL,
    "training.steps": 20,
    "grid.attacks": ["none", "ipm"],
    "grid.defences": ["mean", "median", "krum"],
    "grid.partitions": ["alpha_03"],
    "grid.seeds": [0, 1, 2, 3],
    "tuning.defences": ["median"],
    "search.studies": ["ipm"],
    "search.defences": ["mean", "median", "krum"],
    "search.trials": 6,
    "search.batch": 3,
    "search.seeds": [100, 101],
    "search.confirmation_seeds": [200, 201],
    "execution.memory_gb": 0.00001,  # a batch a cell, so that there is much to be killed in
}
CHANGES = (
    "training.steps=6 training.evaluate_every=3 grid.attacks=[none,ipm] grid.defences=[mean,krum] "
    "grid.partitions=[alpha_03] grid.seeds=[0,1,2] grid.max_seeds=3 tuning.defences=[krum] tuning.trials=3 "
    "tuning.batch=3 tuning.seeds=[300] search.studies=[ipm] search.defences=[mean,krum] search.trials=3 "
    "search.batch=3 search.seeds=[100] search.confirmation_seeds=[200,201] execution.memory_gb=0.00001"
)
OUTCOMES = ("survived",)
EVALUATIONS = ".cellcache/evaluations"
# Command -> what it makes, and where its cells are written.
STAGES = {
    "train ipm": ("results/train/ipm", "results/train/ipm"),
    "search ipm": ("results/search/ipm", EVALUATIONS),
    "tune median": ("results/tune/median", EVALUATIONS),
    "track": ("tracking", "tracking"),
}
pytestmark = [
    pytest.mark.soak,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # in MLflow's own code
]


def files(*folders):
    found = (path for folder in folders for path in folder.rglob("*"))
    return {str(path): path.read_bytes() for path in found if path.is_file() and not path.name.startswith(WRITING)}


class Killed:
    """A command in a folder that is started, killed and started again."""

    def __init__(self, folder, command, cells, environment):
        self.folder, self.command, self.cells, self.environment = folder, command, folder / cells, environment

    def start(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self.command, cwd=self.folder, env=self.environment, start_new_session=True, **quiet)

    def finish(self):
        """Run to the end; return the seconds it took."""
        began = time.monotonic()
        assert self.start().wait(timeout=900) == 0
        return time.monotonic() - began

    def written(self):
        return [path.name for path in self.cells.iterdir()] if self.cells.exists() else []

    def kill_while_writing(self, chance, most):
        """Kill when some cells are there and the next one is under way; return whether it came to that."""
        process, before = self.start(), len(self.written())
        least = before + chance.randrange(1, max(2, most - before))
        while process.poll() is None:
            names = self.written()
            if len(names) > least or (len(names) == least and any(name.startswith(WRITING) for name in names)):
                return self.kill(process, chance)
        return False

    def kill_at(self, seconds, chance):
        """Kill after some seconds; return whether it was still running."""
        process = self.start()
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return self.kill(process, chance)
        return False

    def kill(self, process, chance):
        """Kill the process alone, which its children have to notice, or all of them."""
        (os.killpg if chance.random() < 0.5 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(3)
        return True


def killed_and_finished(subject, chance, kills, seconds, most, tally, title, same):
    """Kill several times, let it end, and note what came of every kill."""
    done = []
    for _ in range(kills):
        writing = most > 0 and chance.random() < 0.7
        moment = "cells being written" if writing else "any moment"
        until = chance.uniform(0.2, 1) * seconds
        if subject.kill_while_writing(chance, most) if writing else subject.kill_at(until, chance):
            done.append(f"{title}, {moment}")
    subject.finish()
    verdict = "survived" if same() else "other bytes"
    for kind in done:
        tally.note(kind, verdict)
    return len(done)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with all of its results, without DVC."""
    folder = tmp_path_factory.mktemp("killed")
    write(folder / "data" / "dataset.safetensors", blobs())
    with (folder / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(raw_parameters(SETTINGS), stream)
    for stage in ("tune median", "train none", "train ipm", "search ipm", "references", "analysis", "track"):
        command(folder, stage).finish()
    return folder


def command(folder, stage):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_"))}
    environment["PYTHONPATH"] = str(ROOT)
    cells = STAGES[stage][1] if stage in STAGES else "results"
    return Killed(folder, [sys.executable, "-m", "pipeline", *stage.split()], cells, environment)


def finished_runs(folder):
    """Return the metrics of every finished run of MLflow that stands for results, by name and key."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/tracking/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=1000)
    keyed = [run for run in runs if "cell_key" in run.data.tags and run.info.status == "FINISHED"]
    return {(run.info.run_name, run.data.tags["cell_key"]): run.data.metrics for run in keyed}


def made(folder, stage):
    if stage == "track":
        return finished_runs(folder), read_json(folder / "tracking" / "imported.json")
    return files(folder / STAGES[stage][0])


@pytest.mark.parametrize(("stage", "kills"), [("train ipm", 12), ("search ipm", 10), ("tune median", 8), ("track", 6)])
def test_a_killed_stage_continues_to_the_same_bytes(stage, kills, project, tally):
    chance, subject = random.Random(stage), command(project, stage)
    whole, done = made(project, stage), 0

    def forget():
        for folder in {STAGES[stage][0], *([".cellcache"] if stage != "track" else [])}:
            shutil.rmtree(project / folder, ignore_errors=True)

    forget()
    seconds = subject.finish()
    most = 0 if stage == "track" else len(subject.written())
    while done < kills:
        forget()
        done += killed_and_finished(
            subject, chance, 2, seconds, most, tally, stage, lambda: made(project, stage) == whole
        )
    assert tally.lost == []


LONG = {
    **SETTINGS,
    "training.steps": 3000,
    "training.evaluate_every": 500,
    "grid.seeds": [0, 1],
    "attacks.mimic": {"name": "mimic", "warmup": 2500},
    "attacks.rop": {"name": "rop", "strength": 1.0},
    "defences.remembering": {"rule": {"name": "centered_clipping"}},
    "defences.mixing": {"before": [{"name": "nnm"}], "rule": {"name": "centered_clipping"}},
    "grid.defences": ["krum", "remembering", "mixing"],
    "search.studies": [],
    "execution.memory_gb": None,
    "execution.checkpoint_minutes": 1e-3,
}


@pytest.mark.parametrize("attack", ["mimic", "rop", "alie", "label_flip"])
def test_cells_killed_in_the_middle_go_on_to_the_same_bytes(attack, tmp_path, tally):
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    with (tmp_path / "params.yaml").open("w") as stream:
        YAML(typ="safe").dump(raw_parameters({**LONG, "grid.attacks": ["none", attack]}), stream)
    subject, chance = command(tmp_path, f"train {attack}"), random.Random(attack)
    seconds = subject.finish()
    whole, done = files(tmp_path / "results"), 0
    while done < 6:
        shutil.rmtree(tmp_path / "results")
        shutil.rmtree(tmp_path / ".cellcache")
        done += killed_and_finished(
            subject, chance, 3, seconds, 0, tally, "long cells", lambda: files(tmp_path / "results") == whole
        )
    assert list((tmp_path / ".cellcache" / "checkpoints").iterdir()) == []
    assert tally.lost == []


def test_a_killed_dvc_repro_continues_to_the_same_bytes(tmp_path, tally):
    project, chance, done = copy_of_the_project(tmp_path), random.Random("repro"), 0
    project.stage("set", CHANGES)
    subject = Killed(tmp_path, ["dvc", "repro"], "results/train/ipm", project.env)
    seconds = subject.finish()
    whole = files(tmp_path / "results", tmp_path / "reports"), (tmp_path / "dvc.lock").read_bytes()
    while done < 14:
        for made_by_dvc in ("results", "reports", "tracking", ".cellcache", ".dvc/cache", "data"):
            shutil.rmtree(tmp_path / made_by_dvc, ignore_errors=True)
        project.run("git", "checkout", "--", "results")
        (tmp_path / "dvc.lock").unlink(missing_ok=True)
        done += killed_and_finished(
            subject,
            chance,
            4,
            seconds,
            6,
            tally,
            "dvc repro",
            lambda: (files(tmp_path / "results", tmp_path / "reports"), (tmp_path / "dvc.lock").read_bytes()) == whole,
        )
    assert tally.lost == []
