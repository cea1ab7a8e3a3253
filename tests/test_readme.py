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


def percent(value: float, half_width: float) -> list[float]:
    return [100 * value, 100 * half_width]


def test_the_table_shows_the_committed_results():
    """To the digits it shows; the summary has four."""
    grid = json.loads((ROOT / "results" / "summary.json").read_text())["grid"]["alpha_03"]
    rows = re.findall(r"^\| (\w+) \| (.+) \| (\w+) \| (.+) \| (\w+) (\S+) \| (.+) \|$", README, flags=re.MULTILINE)
    assert {name for name, *_ in rows} == set(grid)
    for name, clean, worst, accuracy, found, strength, found_accuracy in rows:
        row = grid[name]
        assert (worst, found) == (row["worst_attack"], row["found_attack"])
        assert float(strength) == pytest.approx(row["found_strength"], rel=5e-3)
        for shown, of in [(clean, "clean"), (accuracy, "accuracy"), (found_accuracy, "found_accuracy")]:
            numbers = [float(number) for number in shown.split(" ± ")]
            assert numbers == pytest.approx(percent(row[of], row[f"{of}_half_width"]), abs=0.0501)


def test_the_count_of_significant_searches_is_the_committed_one():
    search = json.loads((ROOT / "results" / "summary.json").read_text())["search"]
    significant = [row["significant"] for study in search.values() for row in study.values()]
    assert (sum(significant), len(significant)) == (9, 18)
    assert "Nine of the eighteen searches found significantly more damage" in README
    assert not any(study["nnm_trimmed_mean"]["significant"] for study in search.values())


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
    accuracy = json.loads((ROOT / "results" / "metrics" / "alpha_03.krum.json").read_text())["accuracy"]
    assert f"\n{accuracy:.1%}\n" in session
