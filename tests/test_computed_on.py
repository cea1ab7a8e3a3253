"""Who computed the results: what is recorded where, and of which results it speaks."""

import platform

import pytest
import torch
from analysable import GRID, results, undrawn
from results_by_hand import changed, commit, committed_project, git, write_results
from support import CPU, parameters

from pipeline import __main__ as command_line
from pipeline.core.files import read_json, write_json
from pipeline.report import computed_on, report
from pipeline.report.compare import compare

EPYC = {"processor": "AMD EPYC", "cores": 64, "torch": "1.0"}


@pytest.fixture
def project(tmp_path):
    """Committed results that another machine computed."""
    root = committed_project(tmp_path / "project")
    write_json(root / computed_on.TRACKED, {"results": computed_on.results_hash(root), **EPYC})
    commit(root)
    return root


def column(printed, field) -> list[str]:
    (line,) = [line for line in printed.splitlines() if line.startswith(f"{field} ")]
    return line.removeprefix(field).split(maxsplit=1)


def test_a_reproduction_leaves_git_clean_and_is_known_all_the_same(project):
    computed_on.record(project, CPU)
    assert git(project, "status", "--porcelain") == ""
    assert computed_on.of_results(project)["processor"] == computed_on.processor()
    assert read_json(project / computed_on.TRACKED)["processor"] == "AMD EPYC"


def test_other_results_are_recorded_in_git(project):
    write_results(project, changed("grid.iid.mean", {"accuracy": 0.2}))
    computed_on.record(project, CPU)
    assert "results/computed_on.json" in git(project, "status", "--porcelain")
    assert read_json(project / computed_on.TRACKED) == read_json(project / computed_on.OWN)


@pytest.mark.parametrize("text", ["{", "[]", "<<<<<<< HEAD"])
def test_a_damaged_record_is_none_and_is_written_anew(text, project):
    (project / computed_on.TRACKED).write_text(text)
    assert computed_on.of_results(project) is None
    computed_on.record(project, CPU)
    assert read_json(project / computed_on.TRACKED)["results"] == computed_on.results_hash(project)


def test_a_record_of_other_results_says_nothing(project):
    computed_on.record(project, CPU)
    write_results(project, changed("grid.iid.mean", {"accuracy": 0.2}))
    assert computed_on.of_results(project) is None


def test_the_record_in_git_counts_where_this_machine_computed_other_results(project):
    write_json(project / computed_on.OWN, {"results": "of others", "processor": "Intel"})
    assert computed_on.of_results(project)["processor"] == "AMD EPYC"


@pytest.mark.parametrize("name", ["summary.json", "metrics/iid.krum.json"])
def test_the_hash_is_that_of_summary_and_metrics(name, project):
    before = computed_on.results_hash(project)
    (project / "results" / "train").mkdir()
    (project / "results" / "train" / "cell.json").write_text("{}")
    assert computed_on.results_hash(project) == before
    path = project / "results" / name
    path.write_text(path.read_text() + "\n")
    assert computed_on.results_hash(project) != before


def test_compare_shows_both_machines(project, capsys):
    compare(project, "HEAD")
    assert column(capsys.readouterr().out, "processor") == ["AMD", "EPYC  AMD EPYC"]
    computed_on.record(project, CPU)
    compare(project, "HEAD")
    printed = capsys.readouterr().out
    assert column(printed, "torch") == ["2.15.0", "1.0"]
    assert column(printed, "gpu") == ["none", "none"]
    assert computed_on.processor() in printed
    write_results(project, changed("search.ipm.krum", {"p": 0.5}))
    compare(project, "HEAD")
    assert column(capsys.readouterr().out, "cores") == ["unknown", "64"]


def test_a_machine_has_every_field():
    found = computed_on.machine(CPU)
    assert tuple(found) == computed_on.FIELDS
    assert found["python"] == platform.python_version()
    assert found["numpy"] == "2.4.6"
    assert found["gpu"] is None


def test_the_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert computed_on.machine(torch.device("cuda"))["gpu"] == "GPU of cuda"


def test_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr(computed_on, "PACKAGES", ("torch", "no-such-package"))
    assert computed_on.machine(CPU)["no-such-package"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 167\nmodel name\t: Intel(R) Xeon(R)\nstepping\t: 1\n\n"
            "processor\t: 1\nmodel\t\t: 9\nmodel name\t: Other\n",
            "Intel(R) Xeon(R) (cpu family 6, model 167, stepping 1)",
        ),
        ("model name\t: Some: name\n", "Some: name"),
        ("processor\t: 0\nCPU part\t: 0xd0c\n", platform.processor() or platform.machine()),
        (None, platform.processor() or platform.machine()),
    ],
)
def test_the_processor_is_named_with_its_numbers(text, expected, tmp_path):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert computed_on.processor(tmp_path / "cpuinfo") == expected


def test_the_stage_analysis_records_it(tmp_path, monkeypatch):
    params = parameters(GRID)
    root = results(tmp_path, params)
    monkeypatch.setattr(report, "draw", undrawn)
    command_line.STAGES["analysis"](root, params)
    tracked = read_json(root / computed_on.TRACKED)
    assert tracked == read_json(root / computed_on.OWN)
    assert tracked["results"] == computed_on.results_hash(root)
