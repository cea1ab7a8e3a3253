"""What README.md shows works."""

import doctest
import json
import re
import subprocess
from pathlib import Path

import pytest
from support import PARAMS, ROOT, Unwatched, blobs

from pipeline.data.dataset import write
from pipeline.runs import edit, params
from pipeline.runs.train import train_row

README = (ROOT / "README.md").read_text()


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def summary():
    return json.loads((ROOT / "results" / "summary.json").read_text())


def shown(row, name):
    return f"{100 * row[name]:.1f} ± {100 * row[f'{name}_half_width']:.1f}"


def test_the_table_shows_the_committed_results():
    grid = summary()["grid"]["alpha_03"]
    expected = [
        [
            name,
            shown(row, "clean"),
            row["worst_attack"],
            shown(row, "accuracy"),
            row["verdict"],
            f"{row['found_attack']} {row['found_range']}",
            shown(row, "found_accuracy"),
            f"{100 * row['found_collapse']:.0f}",
        ]
        for name, row in grid.items()
    ]
    table = README.partition("| defence | clean (%) |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert sorted(rows) == sorted(expected)


def test_every_sentence_about_the_search_is_true_of_the_committed_results():
    search, text = summary()["search"], " ".join(README.split())
    ipm = search["negative_mean"]

    def points(defence, side):
        return f"{100 * ipm[defence][f'{side}_degradation']:.1f}"

    mean, krum, buckets = "mean", "krum", "bucketing_geometric_median"
    assert (
        f"at its published 0.1 costs the plain mean {points(mean, 'literature')} points; "
        f"at {ipm[mean]['found_range']} it costs {points(mean, 'found')}. "
        f"It costs Krum {points(krum, 'literature')} points at 0.1 and {points(krum, 'found')} at "
        f"{ipm[krum]['found_range']}; buckets of two before the geometric median lose {points(buckets, 'literature')} "
        f"points to the published strength and {points(buckets, 'found')} to {ipm[buckets]['found_range']}"
    ) in text
    significant = [row["significant"] for study in search.values() for row in study.values()]
    assert f"{sum(significant)} of the {len(significant)} searches found significantly more damage" in text
    seeds = {row["found_seeds"] for row in summary()["grid"]["alpha_03"].values()}
    assert f"on {seeds.pop()} seeds that they never saw" in text
    assert not seeds


@pytest.mark.parametrize(
    ("family", "best", "others"),
    [
        ("alpha_03 literature", "centered_clipping", ["geometric_median", "bucketing_geometric_median"]),
        ("alpha_03 found", "centered_clipping", ["trimmed_mean", "geometric_median"]),
    ],
)
def test_no_defence_is_called_best_that_cannot_be_told_from_others(family, best, others):
    assert alike(summary()["pairs"][family], best) == set(others)
    assert "**No defence can be called best.**" in README
    rivals = " and ".join(f"`{other}`" for other in others)
    assert f"`{best}` has the highest mean, and {rivals} cannot be told from it" in " ".join(README.split())


def full_study():
    return json.loads((ROOT / "experiments" / "full_study" / "tables" / "summary.json").read_text())


def test_the_table_of_the_full_study_shows_its_committed_results():
    grid = full_study()["grid"]
    expected = []
    for name, row in grid["alpha_03"].items():
        other = grid["alpha_1"][name]
        found = [f"{row['found_attack']} {row['found_range']}", shown(row, "found_accuracy")]
        expected.append([name, *told(row), *found, *told(other)])
    table = README.partition("| defence | alpha 0.3: literature |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert sorted(rows) == sorted(expected)


def told(row):
    return [row["worst_attack"], f"{shown(row, 'accuracy')} ({row['seeds']})", row["verdict"]]


def test_every_sentence_about_the_full_study_is_true_of_its_committed_results():
    study, text = full_study(), " ".join(README.split())
    significant = [row["significant"] for rows in study["search"].values() for row in rows.values()]
    assert f"{sum(significant)} of the {len(significant)} searches found" in text
    clipping = study["grid"]["alpha_03"]["centered_clipping"]
    assert clipping["found_attack"] == "min_max"
    assert f"loses {100 * clipping['found_degradation']:.1f} points to a Min-Max" in text
    assert alike(study["pairs"]["alpha_03 literature"], "centered_clipping") == {"bucketing_geometric_median"}
    buckets_and_median = {"bucketing_geometric_median", "geometric_median"}
    assert alike(study["pairs"]["alpha_1 literature"], "centered_clipping") == buckets_and_median
    clipping_and_nnm = {"centered_clipping", "nnm_trimmed_mean"}
    assert alike(study["pairs"]["alpha_03 found"], "geometric_median") == clipping_and_nnm


def alike(pairs, best):
    """Return what cannot be told from the defence with the highest mean."""
    with_best = {name: pair for name, pair in pairs.items() if best in name.split(" - ")}
    assert all((pair["difference"] >= 0) == name.startswith(best) for name, pair in with_best.items())
    near = [name.split(" - ") for name, pair in with_best.items() if not pair["apart"]]
    return {name for pair in near for name in pair} - {best}


def test_the_map_is_the_tree():
    """Every folder, every room, and every module that stands in no room; of what is deeper only some."""
    mapped = re.findall(r"^\| `([\w/.]+)` \| .+ \|$", README, flags=re.MULTILINE)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [Path(file) for file in listed if "/" in file and not file.startswith(".")]
    tree = {str(part) for file in files for part in (file, *file.parents)}
    rooms = {"/".join(file.parts[:2]) for file in files if file.parts[0] == "pipeline"} - {"pipeline/__init__.py"}
    assert rooms | {file.parts[0] for file in files} - {"pipeline"} <= set(mapped) <= tree
    assert len(mapped) == len(set(mapped))


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The working folder: a project in which one small cell is trained."""
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    edit.override(
        tmp_path / "params.yaml",
        "grid.attacks=[none] grid.defences=[mean] grid.partitions=[iid] grid.seeds=[0] grid.max_seeds=1 "
        "training.steps=2",
    )
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    train_row(tmp_path, params.load(tmp_path / "params.yaml"), "none", lambda *_: Unwatched())
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("trained")
def test_what_is_shown_from_python_is_what_comes_out(capsys):
    (session,) = re.findall(r"## From Python\n\n```python\n(.*?)```", README, flags=re.DOTALL)
    test = doctest.DocTestParser().get_doctest(session, {}, "From Python", "README.md", 0)
    result = doctest.DocTestRunner().run(test, clear_globs=False)
    assert (result.failed, result.attempted) == (0, len(test.examples)), capsys.readouterr().out
    assert test.globs["final"]["defence"].tolist() == ["mean"]
