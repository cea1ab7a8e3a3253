"""The ready-made parameter sets are valid, and the published numbers beside them belong to their grid."""

import re
from itertools import product

import pytest
from support import ROOT

from pipeline.report.published import read_published
from pipeline.runs.params import load, override

FOLDERS = sorted(path.parent for path in (ROOT / "experiments").glob("*/params.yaml"))
SEARCHES = {"breakdown_digits": "breakdown", "stealth_digits": "stealth", "worst_digits": "worst"}
README = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
SYNTHETIC = re.findall(r"^python -m pipeline set '(data\.source=.*)'$", README, flags=re.MULTILINE)
QUICK = re.search(r"`python -m pipeline set '(training\.steps=[^']*)'`", README).group(1)
PAPERS = [folder for folder in FOLDERS if folder.name not in SEARCHES]
EVERY_PAPER = pytest.mark.parametrize("folder", PAPERS, ids=lambda folder: folder.name)


def copied(folder, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes((folder / "params.yaml").read_bytes())
    return path


def published_file(folder):
    """The file that the parameters name, or None."""
    named = load(folder / "params.yaml").analysis.published
    return ROOT / named if named else None


def test_the_published_settings_are_there_and_explained():
    names = [folder.name for folder in PAPERS]
    assert names == [
        "bucketing_beta_0",
        "bucketing_beta_09",
        "centered_clipping_beta_0",
        "centered_clipping_beta_09",
        "centered_clipping_beta_099",
        "fixing_by_mixing",
    ]
    assert [name for name in names if f"| `{name}` |" not in README] == []


@pytest.mark.parametrize("name", SEARCHES)
def test_the_searches_on_digits_are_valid_and_explained(name):
    params = load(ROOT / "experiments" / name / "params.yaml")
    assert {params.studies[study].mode for study in params.search.studies} == {SEARCHES[name]}
    assert params.data.source.name == "digits"
    assert set(params.grid.attacks) == set(params.attacks)
    assert f"| `{name}` |" in README
    schedules = [
        bounds for space in params.studies[params.search.studies[0]].space.values() for bounds in space.values()
    ]
    assert all(bounds in ((0, params.training.steps // 2), (-1,)) for bounds in schedules)


@EVERY_PAPER
def test_the_parameters_are_valid_and_the_model_fits_the_images(folder):
    params = load(folder / "params.yaml")
    images = params.data.source.format
    assert params.model.network(images.shape, images.classes).size > 200_000
    assert set(params.grid.attacks) == set(params.attacks)
    assert set(params.grid.defences) == set(params.defences)
    assert set(params.grid.partitions) == set(params.partitions)


@EVERY_PAPER
def test_published_numbers_belong_to_the_grid(folder):
    path = published_file(folder)
    if path is None:
        assert not (folder / "published.csv").exists()
        return
    assert path == folder / "published.csv"
    grid = load(folder / "params.yaml").grid
    table = read_published(path)
    assert set(table[["attack", "defence", "partition"]].itertuples(index=False, name=None)) <= set(
        product(grid.attacks, grid.defences, grid.partitions)
    )
    assert table["published"].between(0, 1).all()
    assert table["reference"].str.contains(r"arXiv:\d{4}\.\d{5}").all()


@pytest.mark.parametrize(
    ("name", "attack", "defence", "mean"),
    [
        ("bucketing_beta_0", "label_flip", "krum", 0.0103),
        ("bucketing_beta_0", "ipm", "geometric_median_s2", 0.9060),
        ("bucketing_beta_09", "alie", "centered_clipping", 0.9804),
        ("bucketing_beta_09", "mimic", "median_s2", 0.7646),
        ("centered_clipping_beta_0", "bit_flip", "median", 0.8235),
        ("centered_clipping_beta_09", "alie", "trimmed_mean", 0.4953),
        ("centered_clipping_beta_099", "label_flip", "krum", 0.3134),
    ],
)
def test_some_published_numbers_by_hand(name, attack, defence, mean):
    table = read_published(ROOT / "experiments" / name / "published.csv")
    (found,) = table[(table["attack"] == attack) & (table["defence"] == defence)]["published"]
    assert found == pytest.approx(mean, abs=5e-5)


def test_every_published_cell_of_the_bucketing_paper_is_there():
    for name in ("bucketing_beta_0", "bucketing_beta_09"):
        assert len(read_published(ROOT / "experiments" / name / "published.csv")) == 5 * 4 * 2


@EVERY_PAPER
def test_the_documented_commands_replace_the_images_by_synthetic_ones_of_the_same_form(folder, tmp_path):
    path = copied(folder, tmp_path)
    real = load(path).data.source.format
    fitting = []
    for command in SYNTHETIC:
        override(path, f"{command} {QUICK}")
        changed = load(path)
        assert changed.data.source.name == "synthetic"
        assert changed.analysis.published is None
        assert changed.training.steps == 20
        fitting.append((changed.data.source.format.shape, changed.data.source.format.classes))
    assert fitting.count((real.shape, real.classes)) == 1
