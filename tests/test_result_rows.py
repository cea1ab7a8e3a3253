"""What ``compare`` reads: revisions, folders and tables, and the mistakes in all of them."""

import shutil

import pytest
from results_by_hand import changed, commit, committed_project, counts, git, replace, run, write_project, write_results

from pipeline.core.files import write_json


@pytest.fixture
def project(tmp_path):
    return committed_project(tmp_path / "project")


def test_an_older_revision(project):
    git(project, "tag", "first")
    write_results(project, changed("grid.iid.mean", {"accuracy": 0.2}))
    commit(project)
    assert run(project)[0] == 0
    for revision in ("HEAD~1", "first", git(project, "rev-parse", "--short", "first").strip()):
        code, printed = run(project, "--to", revision)
        assert code == 1
        assert f"NOT reproduced: 3 of 5 rows identical to {revision} (outside: 2)" in printed.out


def test_the_working_tree_counts_and_not_what_is_staged(project):
    write_results(project, changed("grid.iid.mean", {"accuracy": 0.2}))
    git(project, "add", "--all")
    assert run(project)[0] == 1


def test_a_project_in_a_subfolder_of_its_repository(tmp_path):
    inner = write_project(tmp_path / "inner")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    write_results(inner, changed("grid.iid.mean", {"accuracy": 0.2}))
    code, printed = run(inner)
    assert code == 1
    assert "NOT reproduced: 3 of 5 rows identical to HEAD (outside: 2)" in printed.out


CELLS = """attack,defence,partition,seed,strength,test_accuracy,validation_accuracy,test_loss,degradation
none,krum,iid,0,,0.9,0.9,0.5,0
ipm,krum,iid,0,0.1,0.6,0.6,1.5,0.3
"""
COMPARISON = """attack,defence,partition,accuracy,accuracy_half_width,degradation,degradation_half_width
none,krum,iid,0.9,0.02,0,0
ipm,krum,iid,0.6,0.1,0.3,
"""
CONFIRMATION = """study,defence,byzantine,candidate,attack,clean,accuracy,accuracy_half_width,lost,lost_half_width
w,krum,5,found,ipm,0.9,0.6,0.1,0.3,0.01
"""


@pytest.fixture
def other(project, tmp_path):
    """Another checkout; both have reports."""
    for folder in (project, write_project(tmp_path / "other")):
        (folder / "reports").mkdir()
        for name, text in {"cells": CELLS, "comparison": COMPARISON, "confirmation": CONFIRMATION}.items():
            (folder / "reports" / f"{name}.csv").write_text(text)
    return tmp_path / "other"


def test_a_folder_with_reports(project, other):
    code, printed = run(project, "--to", str(other))
    assert code == 0
    assert counts(printed.out)["rows"] == [
        *("grid", "search", "metrics", "cells.csv", "comparison.csv", "confirmation.csv", "all")
    ]
    assert printed.out.endswith(f"compare: reproduced: 10 of 10 rows identical to {other}\n")


def test_a_folder_is_found_from_the_working_folder(project, other):
    assert run(project, "--to", "../other")[0] == 0


def test_tables_count_only_where_both_sides_have_them(project, other):
    (other / "reports" / "cells.csv").unlink()
    printed = run(project, "--to", str(other))[1].out
    assert "cells.csv" not in printed
    assert printed.endswith(f"8 of 8 rows identical to {other}\n")


@pytest.mark.parametrize(
    ("name", "old", "new", "title"),
    [
        ("cells", "0.6,0.6,1.5", "0.6,0.6,1.6", "same accuracy"),
        ("cells", "0.6,0.6,1.5", "0.5,0.7,1.5", "within the interval"),
        ("cells", "0.6,0.6,1.5", "0.49,0.6,1.5", "outside"),
        ("cells", "0.9,0.9,0.5", "0.9,0.93,0.5", "outside"),
        ("cells", "0.6,0.6,1.5", "0.6,,1.5", "outside"),
        ("comparison", "0.6,0.1,0.3,", "0.7,0.1,0.3,", "within the interval"),
        ("comparison", "0.6,0.1,0.3,", "0.71,0.1,0.3,", "outside"),
        ("confirmation", "0.9,0.6,0.1", "0.8,0.6,0.1", "within the interval"),
        ("confirmation", "0.3,0.01", "0.32,0.01", "outside"),
        ("confirmation", "ipm", "alie", "another attack found"),
    ],
)
def test_verdict_on_a_row_of_a_table(name, old, new, title, project, other):
    replace(project / "reports" / f"{name}.csv", old, new)
    code, printed = run(project, "--to", str(other))
    assert code == (title == "outside")
    assert printed.out.endswith(f"9 of 10 rows identical to {other} ({title}: 1)\n")


def test_an_empty_field_is_no_number(project, other):
    replace(project / "reports" / "cells.csv", "0.6,0.6,1.5", "0.6,,1.5")
    expected = "  validation_accuracy: nothing here, 0.6 there, interval ± 0.1\n"
    assert expected in run(project, "--to", str(other))[1].out


def test_a_row_of_a_table_that_one_side_has(project, other):
    with (project / "reports" / "cells.csv").open("a") as stream:
        stream.write("none,krum,iid,7,,0.9,0.9,0.5,0\n")
    assert "\nonly here:\n  cells.csv none krum iid 7\n" in run(project, "--to", str(other))[1].out


def told(root, *arguments) -> str:
    """The one line of a mistake."""
    code, printed = run(root, *arguments)
    assert (code, printed.out) == (1, "")
    (line,) = printed.err.splitlines()
    return line


@pytest.mark.parametrize("revision", ["nope", "HEAD~7", "--help", "--since=1", "HEAD:results", ""])
def test_an_unknown_revision(revision, project):
    expected = f"error: --to {revision}: neither a folder nor a revision of this repository"
    assert told(project, f"--to={revision}") == expected


def test_a_repository_without_a_commit(tmp_path):
    root = write_project(tmp_path / "project")
    git(root, "init", "--quiet")
    assert told(root).startswith("error: --to HEAD: neither a folder nor a revision")


def test_no_git_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert told(write_project(tmp_path / "project")).startswith("error: git: not a git repository")


def test_no_git(project, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert told(project) == "error: git: not found; --to takes a folder, too"


def test_a_side_without_results(project, tmp_path):
    (tmp_path / "empty").mkdir()
    expected = f"error: {tmp_path}/empty: no results/summary.json; `dvc repro` writes it"
    assert told(project, "--to", f"{tmp_path}/empty") == expected
    shutil.rmtree(project / "results")
    assert told(project) == "error: here: no results/summary.json; `dvc repro` writes it"
    commit(project)
    write_results(project)
    assert told(project) == "error: HEAD: no results/summary.json; `dvc repro` writes it"


@pytest.mark.parametrize("text", ["{", "[]", '{"grid": 3}', '{"grid": {"iid": {"krum": {"accuracy": [1]}}}}', "\udcff"])
@pytest.mark.parametrize("name", ["summary.json", "metrics/iid.krum.json"])
def test_a_damaged_file_on_either_side(name, text, project):
    text = "[]" if name.startswith("metrics") and text.startswith('{"grid"') else text
    path = project / "results" / name
    path.write_bytes(text.encode(errors="surrogateescape"))
    expected = f"results/{name} is damaged: it is not what the stage analysis writes"
    assert told(project) == f"error: here: {expected}"
    commit(project)
    write_results(project)
    assert told(project) == f"error: HEAD: {expected}"


TWICE, SHORT, LONG = CELLS + CELLS, CELLS + "ipm,krum\n", CELLS + "ipm,krum,iid,1,2,3,4,5,6,7,8\n"


@pytest.mark.parametrize("text", ["", "\x00", "attack,defence\nipm,krum\n", TWICE, SHORT, LONG])
def test_a_damaged_table(text, project, other):
    expected = "reports/cells.csv is damaged: it is not what the stage analysis writes"
    (other / "reports" / "cells.csv").write_text(text)
    assert told(project, "--to", str(other)) == f"error: {other}: {expected}"
    (project / "reports" / "cells.csv").write_text(text)
    assert told(project, "--to", str(other)) == f"error: here: {expected}"


def test_broken_parameters_here_are_a_mistake(project):
    replace(project / "params.yaml", "name: krum}", "name: krumm}")
    code, printed = run(project)
    assert code == 1
    assert "defences.krum.rule.name = 'krumm': unknown name" in printed.err
    assert printed.out == ""


def test_nothing_is_left_behind(project, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    run(project)
    write_json(project / "results" / "summary.json", [])
    run(project)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert git(project, "status", "--porcelain") == " M results/summary.json\n"
