"""What README.md shows works."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from support import ROOT

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


def test_the_map_of_the_folders_is_the_tree():
    mapped = set(re.findall(r"^\| `([\w/]+)` \| .+ \|$", README, flags=re.MULTILINE))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {Path(file).parts for file in listed if "/" in file and not file.startswith(".")}
    rooms = {"/".join(parts[:2]) for parts in folders if parts[0] == "pipeline" and len(parts) > 2}
    assert mapped == rooms | {parts[0] for parts in folders} - {"pipeline"}
