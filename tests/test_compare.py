"""``compare``: the verdict on every kind of row, the counts, the exit code and the last line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from results_by_hand import KRUM, SUMMARY, changed, commit, committed_project, counts, replace, run, write_results
from support import ROOT

from pipeline.report.compare import half_width, judge

KEY = ("grid", "iid", "krum")
EXACT = {"accuracy": 0.8, "accuracy_half_width": 0.1}  # in float64, 0.8 - 0.7 is more than 0.1


@pytest.fixture
def project(tmp_path):
    return committed_project(tmp_path / "project")


def verdict(here, there):
    judged = judge(KEY, {KEY: here}, {KEY: there})
    return judged.verdict, bool(judged.outside)


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ({"accuracy": 0.5}, {"accuracy": 0.5}, ("identical", False)),
        ({"accuracy": 1}, {"accuracy": 1.0}, ("identical", False)),
        ({"accuracy": None}, {"accuracy": None}, ("identical", False)),
        ({"accuracy": None}, {}, ("identical", False)),
        ({"loss": 1.0}, {"loss": 1.1}, ("same accuracy", False)),
        ({"loss": float("inf")}, {"loss": 1.1}, ("same accuracy", False)),
        ({"accuracy_half_width": 0.1}, {"accuracy_half_width": 0.2}, ("same accuracy", False)),
        ({"accuracy_sd": 0.1}, {"accuracy_sd": 0.2}, ("same accuracy", False)),
        ({"found_strength": 1.0}, {"found_strength": 2.0}, ("same accuracy", False)),
        ({"found_parameters": "a"}, {"found_parameters": "b"}, ("same accuracy", False)),
        ({"accuracy": 0.7}, EXACT, ("within the interval", False)),
        ({"accuracy": 0.9}, EXACT, ("within the interval", False)),
        ({"accuracy": 0.6999}, EXACT, ("outside", True)),
        ({"accuracy": 0.9001}, EXACT, ("outside", True)),
        ({"accuracy": 0.5, "loss": 1.0}, {"accuracy": 0.6, "loss": 2.0}, ("outside", True)),
        ({"accuracy": 0.1}, {"accuracy": 0.1, "accuracy_half_width": 0.0}, ("same accuracy", False)),
        ({"accuracy": 0.1001}, {"accuracy": 0.1, "accuracy_half_width": 0.0}, ("outside", True)),
        ({"accuracy": None}, EXACT, ("outside", True)),
        ({}, EXACT, ("outside", True)),
        ({"accuracy": 0.8}, {"accuracy": None, "accuracy_half_width": 9.0}, ("outside", True)),
        ({"clean": 0.8}, {"clean": 0.9}, ("outside", True)),
        ({"lost": 0.8}, {"lost": 0.9, "lost_half_width": 0.2}, ("within the interval", False)),
        ({"difference": 0.8}, {"difference": 0.9, "difference_half_width": 0.05}, ("outside", True)),
        ({"own": 0.8}, {"own": 0.9, "degradation_half_width": 0.05}, ("outside", True)),
        ({"own": 0.8}, {"own": 0.9, "degradation_half_width": 0.2}, ("within the interval", False)),
        ({"worst_attack": "ipm"}, {"worst_attack": "alie"}, ("another attack found", False)),
        ({"worst_attack": "ipm", "accuracy": 0.7}, {"worst_attack": "alie", **EXACT}, ("another attack found", False)),
        ({"worst_attack": "ipm", "accuracy": 0.6}, {"worst_attack": "alie", **EXACT}, ("another attack found", True)),
        (
            {"found_attack": None, "found_accuracy": None},
            {"found_attack": "ipm", "found_accuracy": 1},
            ("outside", True),
        ),
    ],
)
def test_verdict_on_a_row(here, there, expected):
    assert verdict(here, there) == expected


def test_one_accuracy_outside_is_not_hidden_by_others_inside():
    there = {**EXACT, "degradation": 0.1, "degradation_half_width": 0.01, "clean": 0.9, "clean_half_width": 0.5}
    here = {**there, "accuracy": 0.75, "degradation": 0.2, "clean": 0.95}
    judged = judge(KEY, {KEY: here}, {KEY: there})
    assert (judged.verdict, judged.outside) == ("outside", ["degradation"])


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ({"accuracy_half_width": 0.3}, {"accuracy_half_width": 0.1}, 0.1),
        ({"accuracy_half_width": 0.3}, {"accuracy_half_width": None}, 0.3),
        ({"accuracy_half_width": 0.3}, {"degradation_half_width": 0.2}, 0.3),
        ({}, {"degradation_half_width": 0.2}, 0.2),
        ({}, {"loss_half_width": 0.2}, None),
        ({}, {"accuracy_half_width": 0.0}, 0.0),
    ],
)
def test_the_interval_of_an_accuracy(here, there, expected):
    assert half_width("accuracy", KEY, {KEY: here}, {KEY: there}) == expected


def test_the_interval_that_stands_in_is_first_that_of_the_accuracy():
    row = {"degradation_half_width": 0.2, "accuracy_half_width": 0.1}
    assert half_width("clean", KEY, {KEY: row}, {KEY: row}) == 0.1


def test_everything_identical(project):
    code, printed = run(project)
    assert code == 0
    assert printed.out.splitlines()[-2:] == [
        "report: reports/report.html",
        "compare: reproduced: 5 of 5 rows identical to HEAD",
    ]
    assert counts(printed.out) == {
        "rows": ["grid", "search", "metrics", "all"],
        "identical": ["2", "1", "2", "5"],
        **{title: ["0"] * 4 for title in ("same accuracy", "within the interval", "outside", "another attack found")},
        "only here": ["0"] * 4,
        "only there": ["0"] * 4,
    }


@pytest.mark.parametrize(
    ("path", "changes", "title", "code"),
    [
        ("search.ipm.krum", {"p": 0.02}, "same accuracy", 0),
        ("search.ipm.krum", {"significant": False}, "same accuracy", 0),
        ("search.ipm.krum", {"found_accuracy": 0.3}, "within the interval", 0),
        ("search.ipm.krum", {"found_accuracy": 0.36}, "outside", 1),
        ("search.ipm.krum", {"found_attack": "alie"}, "another attack found", 0),
        ("search.ipm.krum", {"found_attack": "alie", "found_accuracy": 0.36}, "another attack found", 1),
    ],
)
def test_exit_code_and_count(path, changes, title, code, project):
    write_results(project, changed(path, changes))
    found, printed = run(project)
    assert (found, counts(printed.out)[title]) == (code, ["0", "1", "0", "1"])
    head = "NOT reproduced" if code else "reproduced"
    assert printed.out.splitlines()[-1] == f"compare: {head}: 4 of 5 rows identical to HEAD ({title}: 1)"


def test_every_accuracy_of_the_grid_has_its_own_interval(project):
    inside = {"degradation": 0.35, "found_degradation": 0.67, "found_accuracy": 0.35}
    write_results(project, changed("grid.iid.krum", inside))
    assert run(project)[0] == 0
    for outside in ({"degradation": 0.36}, {"found_degradation": 0.66}, {"clean": 0.93}):
        write_results(project, changed("grid.iid.krum", outside))
        code, printed = run(project)
        assert (code, counts(printed.out)["outside"]) == (1, ["1", "0", "1", "2"])


def test_rows_outside_are_shown_with_both_numbers_and_the_interval(project):
    changes = {"worst_attack": "alie", "accuracy": 0.45, "clean": 0.91, "degradation": None}
    write_results(project, changed("grid.iid.krum", changes))
    told = run(project)[1].out
    assert (
        "another attack found: grid iid krum\n"
        "  worst_attack: alie here, ipm there\n"
        "  accuracy: 0.45 here, 0.6 there, interval ± 0.1\n"
        "  degradation: nothing here, 0.3 there, interval ± 0.05\n"
    ) in told
    assert "clean:" not in told


def test_an_accuracy_without_an_interval(project):
    write_results(project, changed("search.ipm.krum", {"difference": 0.1, "found_accuracy_half_width": None}))
    commit(project)
    write_results(project, changed("search.ipm.krum", {"difference": 0.2, "found_accuracy_half_width": None}))
    code, printed = run(project)
    assert code == 1
    assert "  difference: 0.2 here, 0.1 there, no interval\n" in printed.out


def test_nan_is_no_number_and_equal_to_none(project):
    path = project / "results" / "summary.json"
    path.write_text(path.read_text().replace('"difference": null', '"difference": NaN'))
    assert run(project)[1].out.endswith("5 of 5 rows identical to HEAD\n")
    path.write_text(path.read_text().replace('"found_degradation": 0.7', '"found_degradation": NaN'))
    code, printed = run(project)
    assert code == 1
    assert "outside: grid iid krum\n  found_degradation: nothing here, 0.7 there, interval ± 0.03\n" in printed.out


def test_rows_of_one_side_are_listed_and_are_not_outside(project):
    write_results(project, {"grid": {"iid": {"krum": KRUM, "median": KRUM}}, "search": {}})
    (project / "results/metrics/iid.mean.json").unlink()
    code, printed = run(project)
    assert code == 0
    assert "\nonly here:\n  grid iid median\n  metrics iid.median\n\n" in printed.out
    assert "\nonly there:\n  grid iid mean\n  search ipm krum\n  metrics iid.mean\n\n" in printed.out
    assert printed.out.endswith(
        "compare: reproduced in part: 2 of 2 rows identical to HEAD (only here: 2, only there: 3)\n"
    )


def test_rows_that_are_only_here_take_nothing_away(project):
    write_results(project, {**SUMMARY, "search": {**SUMMARY["search"], "alie": SUMMARY["search"]["ipm"]}})
    assert run(project)[1].out.endswith("reproduced: 5 of 5 rows identical to HEAD (only here: 1)\n")


def test_no_row_in_common_is_not_reproduced(project):
    shutil.rmtree(project / "results")
    write_results(project, {"grid": {"alpha_03": {"krum": KRUM}}})
    code, printed = run(project)
    assert code == 1
    assert "compare: NOT reproduced: 0 of 0 rows identical to HEAD" in printed.out


def test_another_question_is_told(project):
    replace(project / "params.yaml", "steps: 150", "steps: 20")
    write_results(project, changed("grid.iid.mean", {"accuracy": 0.2}))
    code, printed = run(project)
    assert code == 1
    assert printed.out.splitlines()[-1] == (
        "compare: another question was asked, params.yaml differs from HEAD: 3 of 5 rows identical to HEAD (outside: 2)"
    )


def test_comments_and_how_to_compute_are_no_other_question(project):
    replace(project / "params.yaml", "# T, rounds", "# rounds")
    replace(project / "params.yaml", "device: auto", "device: cpu")
    assert "compare: reproduced: 5 of 5" in run(project)[1].out


def test_parameters_of_another_version_are_another_question(project):
    replace(project / "params.yaml", "tf32: false", "tf33: false")
    commit(project)
    replace(project / "params.yaml", "tf33: false", "tf32: false")
    assert "compare: another question was asked, params.yaml differs from HEAD: 5 of 5" in run(project)[1].out


@pytest.mark.parametrize("accuracy", [0.1, 0.2])
def test_make_repro_ends_with_the_report_and_the_verdict_and_does_not_fail(accuracy, project):
    write_results(project, changed("grid.iid.mean", {"accuracy": accuracy}))
    recipe = (ROOT / "Makefile").read_text().split("\nrepro:")[1].split("\n\n")[0].splitlines()
    assert recipe[1] == "\tdvc repro"
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    environment |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    last = recipe[-1].removeprefix("\t@")
    ran = subprocess.run(["sh", "-c", last], cwd=project, env=environment, capture_output=True, text=True, check=True)
    report, line = ran.stdout.splitlines()
    assert report == "report: reports/report.html"
    assert line.startswith("compare: reproduced: 5 of 5" if accuracy == 0.1 else "compare: NOT reproduced: 3 of 5")
