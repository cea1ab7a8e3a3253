"""What docs/scale.md says: its files are whole, and its arithmetic is that of the numbers it states."""

import re
import subprocess

from ruamel.yaml import YAML
from support import ROOT

from pipeline.runs.edit import overlaid
from pipeline.search.forecast import works

PAGE = (ROOT / "docs" / "scale.md").read_text()
TEXT = " ".join(PAGE.split())


def block(page, start):
    """The code block that begins with ``start``."""
    return page[page.index(start) :].partition("\n```")[0] + "\n"


def full_study():
    return overlaid(ROOT / "params.yaml", ROOT / "experiments" / "full_study")


def assert_is_bash(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_file_for_slurm_is_bash():
    assert_is_bash(block(PAGE, "#!/bin/bash"))


def test_the_file_for_skypilot_is_that_of_one_machine_with_two_nodes():
    yaml = YAML(typ="safe")
    one = yaml.load(block((ROOT / "docs" / "remote.md").read_text(), "name: byzantine"))
    two = yaml.load(block(PAGE, "name: byzantine"))
    assert two["num_nodes"] == 2
    assert {name: two[name] for name in ("name", "workdir", "resources")} == {
        name: one[name] for name in ("name", "workdir", "resources")
    }
    assert two["setup"].startswith(one["setup"])
    assert_is_bash(two["setup"])
    assert_is_bash(two["run"])


def test_the_numbers_of_the_full_study_are_those_of_its_plan():
    study = list(works(full_study()))
    cells = [sum(work.least for work in study), sum(work.most for work in study)]
    steps = [sum(work.least * work.steps for work in study), sum(work.most * work.steps for work in study)]
    assert f"{cells[0]:,} to {cells[1]:,} cells, {steps[0] / 1e6:.2f} to {steps[1] / 1e6:.2f} million steps" in TEXT
    longer = [count * 500 / 150 for count in steps]
    assert f"it is {longer[0] / 1e6:.1f} to {longer[1] / 1e6:.1f} million steps" in TEXT
    (core,) = re.findall(r"\*\*(\d+) ms\*\*, the average", TEXT)
    hours = [count * int(core) / 1000 / 3600 for count in longer]
    assert f"{hours[0]:,.0f} to {hours[1]:,.0f} hours of a core" in TEXT
    (gpu,) = re.findall(r"Assumed of a GPU\*\*: (\d+) ms", TEXT)
    hours = [count * int(gpu) / 1000 / 3600 for count in longer]
    assert f"{hours[0]:.1f} to {hours[1]:.1f} of a GPU" in TEXT
    (driver,) = re.findall(r"Its driver: (\d+) ms", TEXT)
    assert "{:.0f} to {:.0f} minutes in one process".format(*(count * int(driver) / 60_000 for count in cells)) in TEXT


def test_the_numbers_of_the_paper_size_grid_follow_from_the_step():
    (core,) = re.findall(r"\*\*(\d+) ms\*\*, the average", TEXT)
    steps = 8 * 6 * 5 * 500
    hours = steps * int(core) / 3.6e6
    assert f"{steps:,} steps = {hours:.1f} hours of a core = {steps * 2 / 60_000:.0f} minutes of a GPU" in TEXT
    for cores in (16, 240):
        (minutes,) = re.findall(rf"\| {cores} cores, measured step \| ([\d.]+) min", PAGE)
        assert abs(float(minutes) - steps * int(core) / 60_000 / cores) <= 0.5 * 10 ** -len(minutes.partition(".")[2])


def test_the_longest_chain_is_that_of_the_full_study():
    study = full_study()
    tuning = -(-study.tuning.trials // study.tuning.batch)
    seeds = -(-study.grid.max_seeds // len(study.grid.seeds))
    assert (tuning, seeds) == (2, 6)
    assert "two rounds of tuning, up to six of seeds" in TEXT
