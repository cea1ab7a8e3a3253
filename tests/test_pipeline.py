"""The real pipeline, end to end, in a copy of the project with small parameters."""

import json
import shutil
import signal
import time

import pandas as pd
import pytest
from mlflow import MlflowClient
from project import Project, copy_of_the_project

SMALL = (
    "training.steps=6 training.evaluate_every=3 grid.attacks=[none,ipm] grid.defences=[mean,krum] "
    "grid.partitions=[alpha_03] grid.seeds=[0,1] grid.max_seeds=2 search.studies=[ipm] search.defences=[mean,krum] "
    "search.trials=3 search.batch=3 search.seeds=[100] search.confirmation_seeds=[200,201]"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # in MLflow's own code
]


def runs(project):
    """Return the names of the current runs in MLflow, with their keys."""
    client = MlflowClient(f"sqlite:///{project.folder}/tracking/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, "tags.current = 'true'", max_results=1000)
    assert all(run.info.status == "FINISHED" for run in found)
    return sorted((run.info.run_name, run.data.tags.get("cell_key", "")) for run in found)


def small_copy(folder):
    project = copy_of_the_project(folder)
    project.stage("set", SMALL)
    project.commit()
    return project


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A project after its first ``dvc repro``, committed; not to be changed."""
    project = small_copy(tmp_path_factory.mktemp("original"))
    project.env["CUDA_HOME"] = "/usr/local/cuda"  # PyTorch's compiler would say so if it then finds no GPU
    project.ran, project.told_first = project.repro(), project.told
    project.commit()
    return project


@pytest.fixture
def project(original, tmp_path):
    """A private copy of the original."""
    shutil.copytree(original.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def test_a_rerun_does_nothing_and_leaves_git_clean(original):
    assert original.ran == [
        "download",
        "prepare",
        "train@none",
        "train@ipm",
        "references",
        "search@ipm",
        "analysis",
        "track",
    ]
    assert original.repro() == []
    assert original.changed_files() == ""


def test_no_message_of_a_library_breaks_into_the_progress(original):
    assert "train ipm: 100 %" in original.told_first
    assert "CUDA" not in original.told_first
    assert "Warning" not in original.told_first


def test_a_second_computation_gives_the_same_bytes(original, tmp_path):
    again = small_copy(tmp_path)
    again.repro()
    for folder in ("data", "results", "reports"):
        assert again.files(folder) == original.files(folder)
    assert (again.folder / "dvc.lock").read_bytes() == (original.folder / "dvc.lock").read_bytes()


def test_one_changed_strength_retrains_only_its_row_and_back_again(project):
    before = project.files("results")
    project.stage("set", "attacks.ipm.strength=0.7")
    assert "train@none" not in (ran := project.repro())
    assert {"train@ipm", "analysis", "track"} <= set(ran)
    assert project.files("results/train/none").items() <= before.items()
    assert project.files("results/train/ipm") != {k: v for k, v in before.items() if "train/ipm" in k}
    project.stage("set", "attacks.ipm.strength=null")
    project.repro()
    assert project.files("results") == before


def test_a_dropped_defence_and_a_dropped_attack_leave_no_trace(project):
    project.stage("set", "grid.defences=[mean] search.defences=[mean] grid.attacks=[none] search.studies=[]")
    project.repro()
    cells = pd.read_csv(project.folder / "reports/cells.csv")
    assert set(cells["defence"]) == {"mean"}
    assert set(cells["attack"]) == {"none"}
    assert not any("krum" in name or "ipm" in name for name, _ in runs(project))
    traces = {**project.files("results"), **project.files("reports")}
    assert not any("krum" in name or "ipm" in name for name in traces)
    assert not any(b"krum" in text for name, text in traces.items() if name.endswith((".json", ".csv", ".md")))


def test_an_added_seed_trains_only_its_cells(project):
    kept = project.folder / "results/train/none/mean.alpha_03.seed0/cell.json"
    before = kept.stat().st_mtime_ns
    project.stage("set", "grid.seeds=[0,1,2] grid.max_seeds=3")
    project.repro("train@none")
    assert kept.stat().st_mtime_ns == before
    assert (project.folder / "results/train/none/mean.alpha_03.seed2/cell.json").exists()


def test_a_removed_tracking_folder_is_restored(project):
    before = runs(project)
    shutil.rmtree(project.folder / "tracking")
    assert project.repro() == ["track"]
    assert runs(project) == before
    assert len(before) > 0


def kill_when(process, condition):
    """Send SIGKILL as soon as ``condition`` holds; it must hold while the process runs."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def forget_results(project):
    shutil.rmtree(project.folder / "results/train/ipm")
    shutil.rmtree(project.folder / "results/search/ipm")
    shutil.rmtree(project.folder / ".cellcache")


def test_a_killed_training_continues_to_the_same_bytes(project):
    row, before = project.folder / "results/train/ipm", project.files("results/train/ipm")
    forget_results(project)
    project.stage("set", "execution.memory_gb=0.00001")  # a batch a cell
    process = project.start("python", "-m", "pipeline", "train", "ipm")
    kill_when(process, lambda: row.exists() and len(list(row.glob("[!.]*"))) >= 1)
    survivors = {path.name: path.stat().st_ino for path in row.glob("[!.]*")}
    assert len(survivors) < 4
    project.stage("train", "ipm")
    assert project.files("results/train/ipm") == before
    assert survivors.items() <= {path.name: path.stat().st_ino for path in row.glob("[!.]*")}.items()


def test_a_killed_search_continues_to_the_same_bytes(project):
    before = project.files("results/search/ipm")
    forget_results(project)
    project.stage("set", "execution.memory_gb=0.00001")
    known = project.folder / ".cellcache/evaluations"
    process = project.start("python", "-m", "pipeline", "search", "ipm")
    kill_when(process, lambda: known.exists() and len(list(known.glob("*.json"))) >= 3)
    assert not (project.folder / "results/search/ipm/study.json").exists()
    survivors = {path.name: path.stat().st_ino for path in known.glob("*.json")}
    project.stage("search", "ipm")
    assert project.files("results/search/ipm") == before
    assert survivors.items() <= {path.name: path.stat().st_ino for path in known.glob("*.json")}.items()


def test_a_killed_dvc_takes_its_stage_along_and_a_rerun_continues(project):
    before = project.files("results")
    forget_results(project)
    project.stage("set", "execution.memory_gb=0.00001")
    row = project.folder / "results/train/ipm"
    process = project.start("dvc", "repro")
    kill_when(process, lambda: row.exists() and len(list(row.glob("[!.]*"))) >= 1)
    time.sleep(2)
    at_rest = project.files("results/train/ipm")
    time.sleep(2)
    assert project.files("results/train/ipm") == at_rest
    project.repro()
    assert project.files("results") == before


def test_two_rows_at_once_lose_nothing(project):
    before = runs(project)
    shutil.rmtree(project.folder / "tracking")
    for row in ("none", "ipm"):
        shutil.rmtree(project.folder / "results/train" / row)
    both = [project.start("python", "-m", "pipeline", "train", attack) for attack in ("none", "ipm")]
    assert [process.wait() for process in both] == [0, 0]
    project.stage("track")
    assert runs(project) == before


def test_a_mistake_is_one_message_and_changes_nothing(project):
    before = project.files("results")
    text = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text.replace("rule: {name: krum}", "rule: {name: krumm}"))
    failed = project.run("dvc", "repro", check=False)
    assert failed.returncode != 0
    assert "defences.krum.rule.name = 'krumm': unknown name" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert project.files("results") == before


def test_dvc_shows_metrics_and_plots(original, tmp_path):
    shown = json.loads(original.run("dvc", "metrics", "show", "--json").stdout)
    assert "results/metrics/alpha_03.krum.json" in json.dumps(shown)
    original.run("dvc", "metrics", "diff")
    original.run("dvc", "plots", "show", "--out", str(tmp_path))
    assert (tmp_path / "index.html").stat().st_size > 0
