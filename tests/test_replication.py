"""Our runs of published settings are recorded cell by cell, and the committed page is what the committed files say."""

import shutil

import pandas as pd
import pytest
from support import ROOT, Unwatched, blobs, parameters

from pipeline.core.errors import UserError
from pipeline.data.dataset import write
from pipeline.report.replication import compared, page, read_ours, record
from pipeline.runs.store import read_row
from pipeline.runs.train import train_row

GRID = {
    "grid.attacks": ["none", "ipm"],
    "grid.defences": ["mean", "median"],
    "grid.partitions": ["alpha_03"],
    "grid.seeds": [0],
    "search.studies": [],
    "analysis.published": "experiments/paper/published.csv",
}
ROWS = """\
attack,defence,partition,mean,sd,runs,measure,unit,reference
ipm,mean,alpha_03,1.0,0.01,3,last,percent,Table 1
ipm,median,alpha_03,50,100,3,last_five,percent,Table 1
"""


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "data" / "dataset.safetensors", blobs())
    (tmp_path / "experiments" / "paper").mkdir(parents=True)
    (tmp_path / "experiments" / "paper" / "published.csv").write_text(ROWS)
    return tmp_path


def trained(root, attack, cpu, **changes):
    params = parameters({**GRID, **changes})
    train_row(root, params, attack, lambda *_: Unwatched())
    return record(root, params, root / "experiments" / "paper", cpu), read_row(root, params, attack)


@pytest.fixture
def cpu():
    import torch

    return torch.device("cpu")


def test_cells_are_added_as_they_are_trained_and_replaced_where_they_are_there(root, cpu):
    folder = root / "experiments" / "paper"
    found, records = trained(root, "ipm", cpu)
    first = read_ours(folder / "ours.csv")
    assert found == 2
    assert first["test_accuracy"].tolist() == pytest.approx([r.final["test_accuracy"] for r in records])
    assert [len(curve) for curve in first["curve"]] == [len(r.evaluations["steps_done"]) for r in records]
    assert set(first["python"]) != {""}
    before = (folder / "ours.csv").read_bytes()
    trained(root, "ipm", cpu)
    assert (folder / "ours.csv").read_bytes() == before
    shutil.rmtree(root / "results")
    trained(root, "ipm", cpu, **{"grid.seeds": [1]})
    both = read_ours(folder / "ours.csv")
    assert both[["defence", "seed"]].to_numpy().tolist() == [["mean", 0], ["mean", 1], ["median", 0], ["median", 1]]


def test_the_page_counts_what_is_near_and_says_why_the_rest_is_not(root, cpu):
    trained(root, "ipm", cpu)
    folder = root / "experiments" / "paper"
    text = (root / "experiments" / "published.md").read_text()
    assert "## paper\n\n1 of 2 lie within 2 standard errors of the published number.\n" in text
    assert text.count("| none found |") == 1
    (folder / "causes.csv").write_text("attack,defence,partition,cause\nipm,mean,alpha_03,the data are blobs\n")
    assert compared(folder)["cause"].tolist() == ["the data are blobs", ""]
    assert "| the data are blobs |" in page(root / "experiments")


def test_an_experiment_that_is_not_applied_is_told(root, cpu):
    params = parameters({**GRID, "analysis.published": None})
    with pytest.raises(UserError, match=r"analysis\.published = None: apply an experiment first"):
        record(root, params, root / "experiments" / "paper", cpu)


def test_the_committed_page_is_what_the_committed_files_say():
    experiments = ROOT / "experiments"
    assert (experiments / "published.md").read_text(encoding="utf-8") == page(experiments)
    for path in experiments.glob("*/ours.csv"):
        rows = pd.read_csv(path)
        assert not rows.duplicated(["attack", "defence", "partition", "seed"]).any(), path
        assert rows["test_accuracy"].between(0, 1).all(), path
