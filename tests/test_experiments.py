"""The experiments are valid and hold only what differs, and published numbers belong to the grid beside them."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import ROOT

from pipeline.report.published import WORST_OF, read_published
from pipeline.runs.edit import apply, overlaid, override
from pipeline.runs.params import Params, load

PARAMS, EXPERIMENTS = ROOT / "params.yaml", ROOT / "experiments"
FOLDERS = sorted(path.parent for path in EXPERIMENTS.glob("*/params.yaml"))
SYNTHETIC = sorted(EXPERIMENTS.glob("*.yaml"))
SEARCHES = {"breakdown_digits": "breakdown", "stealth_digits": "stealth", "worst_digits": "worst"}
README = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
QUICK = re.search(r"`python -m pipeline set '(training\.steps=[^']*)'`", README).group(1)
STUDIES = ("full_study", "mnist")
PAPERS = [folder for folder in FOLDERS if folder.name not in (*SEARCHES, *STUDIES)]
EVERY_FOLDER = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
EVERY_PAPER = pytest.mark.parametrize("folder", PAPERS, ids=lambda folder: folder.name)


@cache
def parameters(folder) -> Params:
    """The project's parameters with an experiment."""
    return overlaid(PARAMS, folder)


def raw(folder) -> dict[str, Any]:
    return YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8"))


def values(overlay, root, path=()) -> Iterator[tuple[str, Any, Any]]:
    """The path, the value and the value of the root for everything that an overlay states."""
    for key, value in overlay.items():
        entry = path and path[0] in ("partitions", "defences", "attacks", "studies")
        if isinstance(value, dict) and "name" not in value and not entry:
            yield from values(value, root[key], (*path, key))
        else:
            yield ".".join((*path, key)), value, root.get(key)


@EVERY_FOLDER
def test_an_experiment_applies_and_holds_only_what_differs(folder, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.read_bytes())
    apply(path, folder)
    assert load(path) == parameters(folder)
    once = path.read_bytes()
    apply(path, folder)
    assert path.read_bytes() == once
    assert [where for where, value, of_root in values(raw(folder), raw(ROOT)) if value == of_root] == []


@EVERY_FOLDER
def test_every_entry_that_an_experiment_adds_is_used(folder):
    params, stated = parameters(folder), raw(folder)
    used = {
        "partitions": {*params.grid.partitions, params.search.partition},
        "defences": {*params.grid.defences, *params.search.defences},
        "attacks": set(params.grid.attacks),
        "studies": set(params.search.studies),
    }
    for section, names in used.items():
        assert set(stated.get(section, {})) <= names, section


def test_the_published_settings_are_there_and_explained():
    names = [folder.name for folder in PAPERS]
    assert names == [
        "bucketing_beta_0",
        "bucketing_beta_09",
        "byzfl_f1",
        "byzfl_f4",
        "centered_clipping_beta_0",
        "centered_clipping_beta_09",
        "centered_clipping_beta_099",
        "fixing_by_mixing",
    ]
    assert [name for name in names if f"| `{name}` |" not in README] == []


@pytest.mark.parametrize("name", SEARCHES)
def test_the_searches_on_digits_are_explained(name):
    params = parameters(EXPERIMENTS / name)
    assert {params.studies[study].mode for study in params.search.studies} == {SEARCHES[name]}
    assert params.data.source.name == "digits"
    assert f"| `{name}` |" in README
    schedules = [
        bounds for space in params.studies[params.search.studies[0]].space.values() for bounds in space.values()
    ]
    assert all(bounds in ((0, params.training.steps // 2), (-1,)) for bounds in schedules)


def test_mnist_is_the_default_study_on_other_data():
    """The size that docs/mnist.md computes is that of these lists."""
    digits, mnist = parameters(ROOT), parameters(EXPERIMENTS / "mnist")
    assert mnist.data.source.name == "mnist"
    for section in ("threat", "attacks", "defences", "partitions", "studies"):
        assert getattr(mnist, section) == getattr(digits, section)
    for names in ("attacks", "defences", "partitions"):
        assert getattr(mnist.grid, names) == getattr(digits.grid, names)
    rows, studies = len(mnist.grid.attacks) * len(mnist.grid.defences), len(mnist.search.studies)
    defences, seeds = len(mnist.grid.defences), len(mnist.grid.seeds)
    tuned = defences * mnist.tuning.trials * len(mnist.tuning.attacks) * len(mnist.tuning.seeds)
    searched = studies * defences * mnist.search.trials * len(mnist.search.seeds)
    confirmed = studies * defences * 3 * len(mnist.search.confirmation_seeds)
    prolonged = 4 * defences * seeds + seeds
    counts = (rows * seeds, tuned, searched, confirmed, prolonged)
    text = (ROOT / "docs" / "mnist.md").read_text(encoding="utf-8")
    assert f"{' + '.join(map(str, counts))} = {sum(counts):,} cells" in text


@EVERY_PAPER
def test_the_model_fits_the_images(folder):
    params = parameters(folder)
    images = params.data.source.format
    assert params.model.network(images.shape, images.classes).size > 200_000


@EVERY_PAPER
def test_published_numbers_belong_to_the_grid(folder):
    params, path = parameters(folder), folder / "published.csv"
    assert params.analysis.published == (f"experiments/{folder.name}/published.csv" if path.exists() else None)
    if not path.exists():
        return
    grid, table = params.grid, read_published(path)
    named = table.assign(attack=table["attack"].str.split(WORST_OF)).explode("attack")
    assert set(named[["attack", "defence", "partition"]].itertuples(index=False, name=None)) <= set(
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
def test_synthetic_images_of_the_same_form_take_the_place_of_real_ones(folder, tmp_path):
    real, fitting = parameters(folder).data.source.format, []
    for images in SYNTHETIC:
        path = tmp_path / "params.yaml"
        path.write_bytes(PARAMS.read_bytes())
        apply(path, folder)
        apply(path, images)
        override(path, QUICK)
        changed = load(path)
        assert changed.data.source.name == "synthetic"
        assert changed.analysis.published is None
        assert changed.training.steps == 20
        fitting.append((changed.data.source.format.shape, changed.data.source.format.classes))
    assert fitting.count((real.shape, real.classes)) == 1


def test_every_documented_command_names_an_experiment():
    for page in (README, (ROOT / "README.md").read_text(encoding="utf-8")):
        named = re.findall(r"python -m pipeline apply (\S+)", page)
        assert named
        assert [path for path in named if not (ROOT / path.strip("`")).exists()] == []
